//! Guard rails: what the literature warns of, found in the statistics and parameters of a layer and returned as data.

mod finding;
mod layer;
#[cfg(test)]
mod tests;

pub use finding::{ChannelValue, DriftedChannel, Finding};

pub use crate::drift::{DriftReport, DriftSummary};

use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::base::variance::RunningVariance;
pub use crate::drift::ChannelDrift;
use crate::norm::{BatchNormOptions, Momentum};
use crate::statistics::moments::ChannelMoments;
use crate::statistics::running::RunningValues;

/// What is known of a layer on the host. What is not known is not looked at.
#[derive(Clone, Copy, Debug)]
pub struct LayerState<'a> {
    /// What the layer was made with: eps, momentum and the convention of the running variance matter.
    pub options: &'a BatchNormOptions,
    /// Running statistics.
    pub running: &'a RunningValues,
    /// gamma `[C]`.
    pub gamma: Option<&'a [f32]>,
    /// beta `[C]`.
    pub beta: Option<&'a [f32]>,
    /// Moments of a batch `[C]`: how many values each channel has, and how far they are from the running statistics.
    pub batch: Option<&'a [ChannelMoments]>,
}

/// From where on something is reported.
///
/// ```
/// let options = wgnorm::diagnostics::DiagnosticOptions { prunable_gamma: 1e-2, ..Default::default() };
/// assert_eq!((options.very_few_values, options.few_values), (8, 16));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiagnosticOptions {
    /// Fewer values per channel than these are very few; 8.
    pub very_few_values: u64,
    /// Fewer values per channel than these are few; 16, below which error rises in figure 1 of Wu & He 2018 (there of samples
    /// per device).
    pub few_values: u64,
    /// A running variance up to this part of eps is that of a dead channel; 0.1, where the standard deviation of x̂ is 0.3
    /// instead of 1.
    pub dead_variance_per_eps: f64,
    /// A channel whose |gamma| is at most this can be pruned; 1e-3.
    pub prunable_gamma: f64,
    /// The running statistics are not settled while what they started with has more than this weight in them; 0.05.
    pub weight_of_initial: f64,
    /// A batch mean farther from the running mean than these standard deviations has drifted; 0.5. To it comes what chance
    /// explains, 4 / sqrt(n) for n values.
    pub mean_shift: f64,
    /// A standard deviation of the batch that is more than this times the running one, or less than one over this, has
    /// drifted; 2. To its logarithm comes what chance explains, 4 / sqrt(2·n) for n values.
    pub std_ratio: f64,
}

impl Default for DiagnosticOptions {
    fn default() -> Self {
        Self {
            very_few_values: 8,
            few_values: 16,
            dead_variance_per_eps: 0.1,
            prunable_gamma: 1e-3,
            weight_of_initial: 0.05,
            mean_shift: 0.5,
            std_ratio: 2.0,
        }
    }
}

impl DiagnosticOptions {
    fn check(&self) -> Result<()> {
        let expected = "at least 0";
        for (what, got) in [
            ("dead_variance_per_eps", self.dead_variance_per_eps),
            ("prunable_gamma", self.prunable_gamma),
            ("weight_of_initial", self.weight_of_initial),
            ("mean_shift", self.mean_shift),
        ] {
            if got.is_nan() || got < 0.0 {
                return Err(Error::Threshold { what, expected, got });
            }
        }
        match self.std_ratio {
            ratio if ratio >= 1.0 => Ok(()),
            got => Err(Error::Threshold { what: "std_ratio", expected: "at least 1", got }),
        }
    }
}

/// Looks for what the literature warns of. Nothing is printed; a [`Finding`] says in words what it is and what to read. None
/// means that nothing was found, not that all is well.
///
/// For layers on the GPU: [`BatchNorm::diagnose`](crate::BatchNorm::diagnose),
/// [`FrozenBatchNorm::diagnose`](crate::FrozenBatchNorm::diagnose).
///
/// # Errors
/// [`Error::Channels`] for no channels or other channels in the batch; [`Error::Length`] for values of other lengths. Values that
/// are not finite are findings. [`Error::Epsilon`] and [`Error::Momentum`] for such options of the layer, [`Error::Threshold`]
/// for one that is negative, not a number, or a ratio below 1.
///
/// ```
/// use wgnorm::diagnostics::{DiagnosticOptions, Finding, LayerState, diagnose};
/// use wgnorm::{BatchNormOptions, RunningValues};
/// let state = LayerState {
///     options: &BatchNormOptions::pytorch(),
///     running: &RunningValues { mean: vec![0.3, 0.1], var: vec![1.2, 1e-9], batches: 500 },
///     gamma: Some(&[1.1, 0.9]),
///     beta: None,
///     batch: None,
/// };
/// let findings = diagnose(&state, &DiagnosticOptions::default())?;
/// let [Finding::DeadChannels { channels, .. }] = &findings[..] else { panic!("{findings:?}") };
/// assert_eq!(channels[0].channel, 1);
/// println!("{}", findings[0]);
/// # Ok::<(), wgnorm::Error>(())
/// ```
pub fn diagnose(state: &LayerState<'_>, options: &DiagnosticOptions) -> Result<Vec<Finding>> {
    state.options.check()?;
    options.check()?;
    check(state)?;
    let mut findings = Vec::new();
    not_numbers(state, &mut findings);
    let untouched = history(state, options, &mut findings);
    dead_and_prunable(state, options, &mut findings);
    if let Some(batch) = state.batch {
        counts(batch, options, &mut findings);
        if !untouched {
            drift(state, batch, options, &mut findings);
        }
    }
    Ok(findings)
}

fn check(state: &LayerState<'_>) -> Result<()> {
    let channels = state.running.mean.len() as u64;
    if channels == 0 {
        return Err(Error::Channels { what: "running statistics", expected: 1, got: 0 });
    }
    let lengths = [
        ("running_var", Some(state.running.var.len())),
        ("gamma", state.gamma.map(<[f32]>::len)),
        ("beta", state.beta.map(<[f32]>::len)),
    ];
    for (what, len) in lengths {
        if let Some(got) = len.map(|len| len as u64).filter(|&len| len != channels) {
            let shape = Shape::per_channel(channels);
            return Err(Error::Length { what, shape, expected: channels, got });
        }
    }
    match state.batch.map(|batch| batch.len() as u64).filter(|&len| len != channels) {
        Some(got) => Err(Error::Channels { what: "the moments of the batch", expected: channels, got }),
        None => Ok(()),
    }
}

/// The channels whose value is to be reported.
fn channels(values: impl IntoIterator<Item = f64>, reported: impl Fn(f64) -> bool) -> Vec<ChannelValue> {
    let all = values.into_iter().enumerate().map(|(channel, value)| ChannelValue { channel, value });
    all.filter(|at| reported(at.value)).collect()
}

fn wide(values: &[f32]) -> impl Iterator<Item = f64> {
    values.iter().map(|&value| f64::from(value))
}

fn not_numbers(state: &LayerState<'_>, findings: &mut Vec<Finding>) {
    let RunningValues { mean, var, .. } = state.running;
    let values = [
        ("running_mean", Some(&mean[..])),
        ("running_var", Some(&var[..])),
        ("gamma", state.gamma),
        ("beta", state.beta),
    ];
    let mut add = |what, channels: Vec<_>| {
        if !channels.is_empty() {
            findings.push(Finding::NotFinite { what, channels });
        }
    };
    for (what, values) in values {
        add(what, channels(wide(values.unwrap_or(&[])), |value| !value.is_finite()));
    }
    let batch = state.batch.unwrap_or(&[]).iter().map(|moments| moments.mean() + f64::from(moments.var));
    add("mean or variance of the batch", channels(batch, |value| !value.is_finite()));
    let negative = channels(wide(var), |var| var < 0.0);
    if !negative.is_empty() {
        findings.push(Finding::NegativeVariance { channels: negative });
    }
}

/// Whether the running statistics are those that a layer starts with.
fn history(state: &LayerState<'_>, options: &DiagnosticOptions, findings: &mut Vec<Finding>) -> bool {
    let RunningValues { mean, var, batches } = state.running;
    if *batches == 0 {
        let initial = mean.iter().all(|&mean| mean == 0.0) && var.iter().all(|&var| var == 1.0);
        if initial {
            findings.push(Finding::NeverUpdated);
        }
        return initial;
    }
    let old = match state.options.momentum {
        Momentum::WeightOfNew(new) => 1.0 - new,
        Momentum::WeightOfOld(old) => old,
        Momentum::Cumulative => 0.0,
    };
    let weight_of_initial = old.powf(f64::from(*batches));
    if weight_of_initial > options.weight_of_initial {
        let settled_after = match old {
            1.0 => f64::INFINITY,
            old => options.weight_of_initial.ln() / old.ln(),
        };
        findings.push(Finding::Unsettled { batches: *batches, weight_of_initial, settled_after });
    }
    false
}

fn dead_and_prunable(state: &LayerState<'_>, options: &DiagnosticOptions, findings: &mut Vec<Finding>) {
    let eps = state.options.eps;
    let dead =
        channels(wide(&state.running.var), |var| (0.0..=options.dead_variance_per_eps * eps).contains(&var));
    if !dead.is_empty() {
        findings.push(Finding::DeadChannels { channels: dead, eps });
    }
    let below = options.prunable_gamma;
    // As f32 has it: 1e-3 is at most 1e-3.
    let prunable = channels(wide(state.gamma.unwrap_or(&[])), |gamma| gamma.abs() <= f64::from(below as f32));
    if !prunable.is_empty() {
        findings.push(Finding::PrunableChannels { channels: prunable, at_most: below });
    }
}

fn counts(batch: &[ChannelMoments], options: &DiagnosticOptions, findings: &mut Vec<Finding>) {
    let with = |reported: &dyn Fn(u64) -> bool| {
        let all = batch.iter().enumerate().filter(|(_, moments)| reported(moments.count));
        all.map(|(channel, moments)| ChannelValue { channel, value: moments.count as f64 })
            .collect::<Vec<_>>()
    };
    let mut add = |channels: Vec<ChannelValue>, finding: &dyn Fn(Vec<ChannelValue>) -> Finding| {
        if !channels.is_empty() {
            findings.push(finding(channels));
        }
    };
    let channels_of = |channels: Vec<ChannelValue>| channels.into_iter().map(|at| at.channel).collect();
    add(with(&|count| count == 0), &|channels| Finding::NoValues { channels: channels_of(channels) });
    add(with(&|count| count == 1), &|channels| Finding::SingleValue { channels: channels_of(channels) });
    // Each channel once, by the lower of the thresholds that it is below.
    let DiagnosticOptions { very_few_values: very_few, few_values: few, .. } = *options;
    let few_values = |fewer_than: u64| move |channels| Finding::FewValues { channels, fewer_than };
    add(with(&|count| (2..very_few).contains(&count)), &few_values(very_few));
    add(with(&|count| (very_few.max(2)..few).contains(&count)), &few_values(few));
}

fn drift(
    state: &LayerState<'_>,
    batch: &[ChannelMoments],
    options: &DiagnosticOptions,
    findings: &mut Vec<Finding>,
) {
    let unbiased = state.options.running_variance == RunningVariance::Unbiased;
    let drifted = |(channel, moments): (usize, &ChannelMoments)| {
        let (mean, var) = (f64::from(state.running.mean[channel]), f64::from(state.running.var[channel]));
        let batch_var = if unbiased { moments.unbiased_var() } else { f64::from(moments.var) };
        // Two values at least have a variance; what is unsound is reported as that.
        let sound = |mean: f64, var: f64| mean.is_finite() && (0.0..f64::INFINITY).contains(&var);
        if moments.count < 2 || !sound(mean, var) || !sound(moments.mean(), batch_var) {
            return None;
        }
        let drift = ChannelDrift::between((mean, var), (moments.mean(), batch_var), state.options.eps);
        let n = moments.count as f64;
        let far = drift.mean_shift.abs() > options.mean_shift + 4.0 / n.sqrt()
            || drift.std_ratio.ln().abs() > options.std_ratio.ln() + 4.0 / (2.0 * n).sqrt();
        far.then_some(DriftedChannel { channel, count: moments.count, drift })
    };
    let channels: Vec<_> = batch.iter().enumerate().filter_map(drifted).collect();
    if !channels.is_empty() {
        findings.push(Finding::Drifted { channels });
    }
}
