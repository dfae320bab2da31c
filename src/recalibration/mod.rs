//! Recalibration: running statistics replaced by those of a whole data set.

mod state;

use crate::base::error::{Error, Result};
use crate::base::variance::RunningVariance;
use crate::drift::DriftReport;
use crate::engine::context::Context;
use crate::norm::BatchNorm;
use crate::pass::input::Input;
use crate::statistics::moments::{ChannelMoments, Moments};
use crate::statistics::pooled_moments::PooledMoments;
use crate::statistics::running::RunningValues;

/// 6 GB of moments.
const MOST_CHANNELS: usize = 1 << 28;

/// Exact statistics of all values of a data set, batch by batch: "precise" batch norm, without an average of averages.
///
/// Moments of each batch are computed on the GPU and pooled on the host in f64, so the spread between batches counts, and a last
/// batch that is smaller counts for less. PyTorch's `update_bn` averages the unbiased variances of batches instead, and so
/// misses both. Source: Wu & Johnson, "Rethinking \"Batch\" in BatchNorm", 2021, section 3 (PreciseBN).
///
/// A recalibration is a value: [`to_bytes`](Self::to_bytes) keeps it, [`from_bytes`](Self::from_bytes) goes on, and
/// [`merge`](Self::merge) joins those of several processes.
///
/// ```
/// use wgnorm::recalibration::Recalibration;
/// use wgnorm::{BatchNorm, BatchNormOptions, Context};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let mut layer = BatchNorm::new(&context, 1, BatchNormOptions::keras()).await?;
///     let mut recalibration = Recalibration::new(1)?.of_batches(2);
///     for batch in [vec![0.0, 2.0, 4.0], vec![10.0]] {
///         let x = context.upload(&[batch.len(), 1], &batch).await?;
///         let progress = recalibration.add(&context, &x).await?;
///         println!("{progress}");
///     }
///     // To go on in another process:
///     let recalibration = Recalibration::from_bytes(&recalibration.to_bytes())?;
///     let drift = recalibration.finish(&mut layer).await?;
///     let running = layer.running().download(&context).await?;
///     assert_eq!((running.mean[0], running.var[0], running.batches), (4.0, 14.0, 2));
///     assert!((drift.channels[0].mean_shift - 4.0).abs() < 1e-2);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Recalibration {
    pooled: Vec<PooledMoments>,
    batches: u64,
    of_batches: Option<u64>,
}

/// How far a recalibration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Batches so far.
    pub batches: u64,
    /// Batches there will be, if known.
    pub of_batches: Option<u64>,
    /// Values per channel so far, of the channel that has most.
    pub values: u64,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { batches, of_batches, values } = self;
        match of_batches {
            Some(all) => write!(f, "{batches} of {all} batches, {values} values per channel"),
            None => write!(f, "{batches} batches, {values} values per channel"),
        }
    }
}

impl Recalibration {
    /// For a layer of so many channels; no batches yet.
    ///
    /// # Errors
    /// [`Error::Channels`] for no channels; [`Error::TooLarge`] for more than 2^28, or than there is memory for.
    pub fn new(channels: usize) -> Result<Self> {
        if channels == 0 {
            return Err(Error::Channels { what: "a recalibration", expected: 1, got: 0 });
        }
        let mut pooled = Vec::new();
        if channels > MOST_CHANNELS || pooled.try_reserve_exact(channels).is_err() {
            let (needed, limit) = (channels as u64, MOST_CHANNELS as u64);
            let (what, unit, limit_name) =
                ("a recalibration", "channels", "what there is memory for, at most,");
            return Err(Error::TooLarge { what, needed, unit, limit_name, limit });
        }
        pooled.resize(channels, PooledMoments::default());
        Ok(Self { pooled, batches: 0, of_batches: None })
    }

    /// Says how many batches there will be, for [`Progress`] alone.
    #[must_use]
    pub fn of_batches(self, batches: u64) -> Self {
        Self { of_batches: Some(batches), ..self }
    }

    /// Adds a batch `[N, C, …]`, or of a masked one what counts. Waits for its moments. An empty one counts as no batch.
    ///
    /// # Errors
    /// [`Error::Channels`], and those of [`Moments::of`] and of a read-back. Nothing is added then.
    pub async fn add<'a>(&mut self, context: &Context, x: impl Into<Input<'a>>) -> Result<Progress> {
        let input = x.into();
        self.check(input.x.channels()?.channels)?;
        let (moments, prepared) = Moments::prepare(context, input).await?;
        self.add_moments(&moments.download_after(context, &[&prepared]).await?)
    }

    /// Adds a batch whose moments are known, one for each channel.
    ///
    /// # Errors
    /// [`Error::Channels`].
    pub fn add_moments(&mut self, channels: &[ChannelMoments]) -> Result<Progress> {
        self.check(channels.len() as u64)?;
        if channels.iter().any(|channel| channel.count > 0) {
            PooledMoments::merge_channels(&mut self.pooled, channels.iter().map(|&channel| channel.into()));
            self.batches = self.batches.saturating_add(1);
        }
        Ok(self.progress())
    }

    /// Adds what another recalibration has seen, of another part of the data.
    ///
    /// # Errors
    /// [`Error::Channels`].
    pub fn merge(&mut self, other: &Self) -> Result<Progress> {
        self.check(other.pooled.len() as u64)?;
        PooledMoments::merge_channels(&mut self.pooled, other.pooled.iter().copied());
        self.batches = self.batches.saturating_add(other.batches);
        Ok(self.progress())
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let values = self.pooled.iter().map(|channel| channel.count).max().unwrap_or(0);
        Progress { batches: self.batches, of_batches: self.of_batches, values }
    }

    /// The pooled moments, one for each channel.
    pub fn pooled(&self) -> &[PooledMoments] {
        &self.pooled
    }

    /// What running statistics would be, in a convention of the variance.
    ///
    /// # Errors
    /// [`Error::NothingPooled`] if a channel has no values.
    pub fn running(&self, variance: RunningVariance) -> Result<RunningValues> {
        if let Some(channel) = self.pooled.iter().position(|channel| channel.count == 0) {
            return Err(Error::NothingPooled { channel });
        }
        let var_of = |channel: &PooledMoments| match variance {
            RunningVariance::Biased => channel.var,
            RunningVariance::Unbiased => channel.unbiased_var(),
        };
        Ok(RunningValues {
            mean: self.pooled.iter().map(|channel| channel.mean as f32).collect(),
            var: self.pooled.iter().map(|channel| var_of(channel) as f32).collect(),
            batches: u32::try_from(self.batches).unwrap_or(u32::MAX),
        })
    }

    /// Replaces the running statistics of a layer, in its convention of the variance, and says how far they have moved. The
    /// number of batches becomes that of the recalibration.
    ///
    /// # Errors
    /// [`Error::NothingPooled`] if a channel has no values, [`Error::Channels`], and those of a read-back; the statistics stay as they
    /// are then. [`Error::Value`] if those before or those of the data are no statistics to compare, not finite or negative;
    /// [`running`](Self::running) and [`BatchNorm::set_running`] replace them without comparing.
    pub async fn finish(&self, layer: &mut BatchNorm) -> Result<DriftReport> {
        let after = self.running(layer.options().running_variance)?;
        self.check(layer.running().channels())?;
        let before = layer.running().download(&layer.parts.context).await?;
        let drift = DriftReport::between(&before, &after, layer.options().eps)?;
        layer.set_running(&after).await?;
        Ok(drift)
    }

    fn check(&self, got: u64) -> Result<()> {
        let expected = self.pooled.len() as u64;
        if expected == got { Ok(()) } else { Err(Error::Channels { what: "a batch", expected, got }) }
    }
}
