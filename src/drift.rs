//! How far running statistics have moved, per channel.

use std::fmt;

use crate::absorb::check_variances;
use crate::base::epsilon::check_eps;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::statistics::running::RunningValues;

/// How far the statistics of one channel have moved.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ChannelDrift {
    /// Mean after minus mean before, in units of the standard deviation before, `sqrt(var + eps)`: by how much x̂ is shifted.
    pub mean_shift: f64,
    /// Standard deviation after, over that before, eps included in both: by how much x̂ is stretched.
    pub std_ratio: f64,
}

impl ChannelDrift {
    /// That between two means and variances; eps must be positive, variances at least 0.
    pub(crate) fn between(before: (f64, f64), after: (f64, f64), eps: f64) -> Self {
        let std = (before.1 + eps).sqrt();
        Self { mean_shift: (after.0 - before.0) / std, std_ratio: (after.1 + eps).sqrt() / std }
    }

    /// One number to sort by: the larger of |mean shift| and |ln(ratio of standard deviations)|, 0 where nothing has moved.
    pub fn magnitude(&self) -> f64 {
        self.mean_shift.abs().max(self.std_ratio.ln().abs())
    }
}

impl fmt::Display for ChannelDrift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mean {:+.3} standard deviations, standard deviation ×{:.3}",
            self.mean_shift, self.std_ratio
        )
    }
}

/// Running statistics before and after, compared per channel: what a recalibration, or some more training, has changed.
///
/// ```
/// use wgnorm::diagnostics::DriftReport;
/// use wgnorm::RunningValues;
/// let before = RunningValues { mean: vec![0.0, 5.0], var: vec![4.0, 1.0], batches: 100 };
/// let after = RunningValues { mean: vec![1.0, 5.0], var: vec![4.0, 9.0], batches: 200 };
/// let report = DriftReport::between(&before, &after, 1e-12)?;
/// assert!((report.channels[0].mean_shift - 0.5).abs() < 1e-9);
/// assert!((report.channels[1].std_ratio - 3.0).abs() < 1e-9);
/// assert_eq!(report.worst(1), [1]);
/// println!("{report}");
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DriftReport {
    /// One for each channel; there is at least one.
    pub channels: Vec<ChannelDrift>,
    /// Batches that the statistics before had seen.
    pub batches_before: u32,
    /// Batches that the statistics after had seen.
    pub batches_after: u32,
}

/// A [`DriftReport`] in a few numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct DriftSummary {
    /// Root mean square of the channels' mean shifts.
    pub rms_mean_shift: f64,
    /// The channel whose mean has moved farthest, in units of its standard deviation.
    pub farthest_mean: usize,
    /// Geometric mean of the channels' ratios of standard deviations.
    pub mean_std_ratio: f64,
    /// The channel whose standard deviation has shrunk most, or grown least.
    pub smallest_ratio: usize,
    /// The channel whose standard deviation has grown most, or shrunk least.
    pub largest_ratio: usize,
}

impl DriftReport {
    /// From the statistics before to those after, in units of those before. Both must keep the variance in one convention
    /// ([`RunningVariance`](crate::RunningVariance)), or the ratio includes `n / (n − 1)`.
    ///
    /// # Errors
    /// [`Error::Epsilon`]; [`Error::Channels`] for no channels or another number after than before; [`Error::Length`] if means and
    /// variances differ in length; [`Error::Value`] for a value that is not finite, a negative variance, or with an eps of 0 one of 0 before.
    pub fn between(before: &RunningValues, after: &RunningValues, eps: f64) -> Result<Self> {
        check_eps(eps)?;
        for (running, mean, var) in [
            (before, "running_mean before", "running_var before"),
            (after, "running_mean after", "running_var after"),
        ] {
            check(running, mean, var)?;
        }
        let variances: Vec<_> = before.var.iter().map(|&var| f64::from(var)).collect();
        check_variances("running_var before", &variances, eps)?;
        let (expected, got) = (before.mean.len() as u64, after.mean.len() as u64);
        if expected != got {
            return Err(Error::Channels { what: "running statistics after", expected, got });
        }
        let of = |running: &RunningValues, c: usize| (running.mean[c].into(), running.var[c].into());
        let channel = |c| ChannelDrift::between(of(before, c), of(after, c), eps);
        Ok(Self {
            channels: (0..before.mean.len()).map(channel).collect(),
            batches_before: before.batches,
            batches_after: after.batches,
        })
    }

    /// The channels that have moved most, as many as asked for or as there are, the farthest first
    /// ([`ChannelDrift::magnitude`]).
    pub fn worst(&self, count: usize) -> Vec<usize> {
        let mut channels: Vec<_> = (0..self.channels.len()).collect();
        let magnitude = |&c: &usize| self.channels[c].magnitude();
        channels.sort_by(|a, b| magnitude(b).total_cmp(&magnitude(a)));
        channels.truncate(count);
        channels
    }

    /// A few numbers for all channels.
    pub fn summary(&self) -> DriftSummary {
        let mean = |of: &dyn Fn(&ChannelDrift) -> f64| {
            self.channels.iter().map(of).sum::<f64>() / self.channels.len().max(1) as f64
        };
        let most = |of: &dyn Fn(&ChannelDrift) -> f64| {
            let at = self.channels.iter().enumerate().max_by(|(_, a), (_, b)| of(a).total_cmp(&of(b)));
            at.map_or(0, |(c, _)| c)
        };
        DriftSummary {
            rms_mean_shift: mean(&|drift| drift.mean_shift.powi(2)).sqrt(),
            farthest_mean: most(&|drift| drift.mean_shift.abs()),
            mean_std_ratio: mean(&|drift| drift.std_ratio.ln()).exp(),
            smallest_ratio: most(&|drift| -drift.std_ratio),
            largest_ratio: most(&|drift| drift.std_ratio),
        }
    }
}

impl fmt::Display for DriftReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.worst(1).first().copied() else { return f.write_str("no channels") };
        let s = self.summary();
        let at = |c: usize| &self.channels[c];
        writeln!(
            f,
            "running statistics of {} channels, {} → {} batches",
            self.channels.len(),
            self.batches_before,
            self.batches_after
        )?;
        writeln!(
            f,
            "  mean moved by {:.3} standard deviations (rms), farthest {:+.3} in channel {}",
            s.rms_mean_shift,
            at(s.farthest_mean).mean_shift,
            s.farthest_mean
        )?;
        writeln!(
            f,
            "  standard deviation ×{:.3} (geometric mean), ×{:.3} in channel {} to ×{:.3} in channel {}",
            s.mean_std_ratio,
            at(s.smallest_ratio).std_ratio,
            s.smallest_ratio,
            at(s.largest_ratio).std_ratio,
            s.largest_ratio
        )?;
        write!(f, "  worst: channel {first}, {}", at(first))
    }
}

/// Requires as many finite means as variances of at least 0, and at least one.
fn check(running: &RunningValues, mean: &'static str, var: &'static str) -> Result<()> {
    let channels = running.mean.len() as u64;
    if channels == 0 {
        return Err(Error::Channels { what: mean, expected: 1, got: 0 });
    }
    if running.var.len() as u64 != channels {
        let (shape, got) = (Shape::per_channel(channels), running.var.len() as u64);
        return Err(Error::Length { what: var, shape, expected: channels, got });
    }
    let bad = |values: &[f32], holds: fn(f32) -> bool| values.iter().position(|&value| !holds(value));
    if let Some(c) = bad(&running.mean, f32::is_finite) {
        let got = running.mean[c].into();
        return Err(Error::Value { what: mean, index: c as u64, expected: "finite", got });
    }
    if let Some(c) = bad(&running.var, |var| var.is_finite() && var >= 0.0) {
        let got = running.var[c].into();
        return Err(Error::Value { what: var, index: c as u64, expected: "finite and at least 0", got });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(mean: &[f32], var: &[f32], batches: u32) -> RunningValues {
        RunningValues { mean: mean.to_vec(), var: var.to_vec(), batches }
    }

    #[test]
    fn shifts_are_in_units_of_the_old_standard_deviation() {
        // A huge mean, a channel without variance, one that stays.
        let before = running(&[1e6, 0.0, -3.0], &[0.25, 0.0, 7.0], 10);
        let after = running(&[1e6 + 1.0, 0.01, -3.0], &[0.0625, 1e-2, 7.0], 30);
        let report = DriftReport::between(&before, &after, 1e-4).unwrap();
        let close =
            |got: f64, expected: f64| assert!((got / expected - 1.0).abs() < 1e-6, "{got} {expected}");
        close(report.channels[0].mean_shift, 1.0 / 0.2501_f64.sqrt());
        close(report.channels[0].std_ratio, (0.0626_f64 / 0.2501).sqrt());
        close(report.channels[1].mean_shift, 1.0);
        close(report.channels[1].std_ratio, (1.01e-2_f64 / 1e-4).sqrt());
        assert_eq!(report.channels[2], ChannelDrift { mean_shift: 0.0, std_ratio: 1.0 });
        assert_eq!(report.channels[2].magnitude(), 0.0);
        assert_eq!((report.worst(5), report.worst(0)), (vec![1, 0, 2], vec![]));
        let summary = report.summary();
        assert_eq!(
            (summary.farthest_mean, summary.smallest_ratio, summary.largest_ratio),
            (0, 0, 1),
            "{summary:?}"
        );
        close(summary.rms_mean_shift, ((1.0 / 0.2501 + 1.0) / 3.0_f64).sqrt());
        let text = report.to_string();
        for part in ["3 channels, 10 → 30 batches", "+2.000 in channel 0", "to ×10.050 in channel 1"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn drift_there_and_back_cancels() {
        let (a, b) = (running(&[2.0], &[3.0], 0), running(&[-1.0], &[0.5], 0));
        let (there, back) =
            (DriftReport::between(&a, &b, 1e-5).unwrap(), DriftReport::between(&b, &a, 1e-5).unwrap());
        let (there, back) = (there.channels[0], back.channels[0]);
        assert!((there.std_ratio * back.std_ratio - 1.0).abs() < 1e-12);
        assert!((there.mean_shift + back.mean_shift * there.std_ratio).abs() < 1e-12);
    }

    #[test]
    fn unsound_statistics_are_refused() {
        let sound = running(&[0.0, 1.0], &[1.0, 2.0], 1);
        let none = running(&[], &[], 0);
        let equal = running(&[0.0, 1.0], &[1.0, 0.0], 1);
        assert!(DriftReport::between(&sound, &equal, 0.0).is_ok());
        let refused = DriftReport::between(&equal, &sound, 0.0);
        assert!(matches!(refused, Err(Error::Value { index: 1, .. })), "{refused:?}");
        for eps in [-1.0, f64::NAN, f64::INFINITY, 1e-300] {
            assert!(matches!(DriftReport::between(&sound, &sound, eps), Err(Error::Epsilon { .. })));
        }
        for (bad, which) in [
            (running(&[0.0], &[1.0], 1), "channels"),
            (none, "channels"),
            (running(&[0.0, 1.0], &[1.0], 1), "length"),
            (running(&[0.0, f32::NAN], &[1.0, 1.0], 1), "value"),
            (running(&[0.0, 1.0], &[1.0, -1e-30], 1), "value"),
            (running(&[0.0, 1.0], &[f32::INFINITY, 1.0], 1), "value"),
        ] {
            for refused in
                [DriftReport::between(&sound, &bad, 1e-5), DriftReport::between(&bad, &sound, 1e-5)]
            {
                let got = match refused {
                    Err(Error::Channels { .. }) => "channels",
                    Err(Error::Length { .. }) => "length",
                    Err(Error::Value { .. }) => "value",
                    other => panic!("{other:?}"),
                };
                assert_eq!(got, which);
            }
        }
    }
}
