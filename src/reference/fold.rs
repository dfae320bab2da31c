//! Fold: from moments or running statistics to what a map needs, and the update of running statistics. Twin of
//! shaders/fold/.

use super::reduce::Moments;
use crate::base::variance::RunningVariance;
use crate::norm::Momentum;

/// What a map needs to know of a channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Mean.
    pub mean: f64,
    /// Biased variance.
    pub var: f64,
    /// `1 / sqrt(var + eps)`.
    pub inv_std: f64,
}

impl Statistics {
    /// Statistics with the given eps.
    pub fn new(mean: f64, var: f64, eps: f64) -> Self {
        Self { mean, var, inv_std: 1.0 / (var + eps).sqrt() }
    }

    /// x̂.
    pub fn normalize(&self, x: f64) -> f64 {
        (x - self.mean) * self.inv_std
    }
}

/// Running statistics of a channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Running {
    /// Running mean.
    pub mean: f64,
    /// Running variance.
    pub var: f64,
    /// Batches so far.
    pub batches: u64,
}

impl Running {
    /// The running statistics after one more batch.
    pub fn update(self, batch: Moments, momentum: Momentum, variance: RunningVariance) -> Self {
        let batches = self.batches + 1;
        let new = match momentum {
            Momentum::WeightOfNew(new) => new,
            Momentum::WeightOfOld(old) => 1.0 - old,
            Momentum::Cumulative => 1.0 / batches as f64,
        };
        let var = match variance {
            RunningVariance::Biased => batch.var,
            RunningVariance::Unbiased => {
                batch.var * batch.count as f64 / batch.count.saturating_sub(1).max(1) as f64
            }
        };
        Self {
            mean: (1.0 - new) * self.mean + new * batch.mean,
            var: (1.0 - new) * self.var + new * var,
            batches,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_update_by_hand() {
        let start = Running { mean: 1.0, var: 2.0, batches: 4 };
        let batch = Moments { count: 5, mean: 6.0, var: 8.0 };
        let update = |momentum, variance| start.update(batch, momentum, variance);
        assert_eq!(
            update(Momentum::WeightOfNew(0.5), RunningVariance::Biased),
            Running { mean: 3.5, var: 5.0, batches: 5 }
        );
        assert_eq!(update(Momentum::WeightOfNew(0.5), RunningVariance::Unbiased).var, 6.0);
        assert_eq!(update(Momentum::WeightOfOld(0.75), RunningVariance::Biased).mean, 2.25);
        // The fifth batch of a cumulative average weighs a fifth.
        assert_eq!(update(Momentum::Cumulative, RunningVariance::Biased).mean, 2.0);
        // One value has no unbiased variance; the factor is guarded.
        let one = Moments { count: 1, mean: 6.0, var: 0.0 };
        assert_eq!(start.update(one, Momentum::WeightOfNew(1.0), RunningVariance::Unbiased).var, 0.0);
    }
}
