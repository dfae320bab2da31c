//! Moments of many batches or ranks, pooled on the host in f64.

use crate::statistics::moments::ChannelMoments;

/// Count, mean and biased variance of one channel in f64: what moments from several batches, or several devices, are merged in on the
/// host.
///
/// ```
/// use wgnorm::statistics::{ChannelMoments, PooledMoments};
/// let batch = |count, mean: f32, var| PooledMoments::from(ChannelMoments { count, shift: mean, delta: 0.0, var });
/// let pool = batch(2, 1.0, 1.0).merge(batch(2, 5.0, 1.0));
/// assert_eq!(pool, PooledMoments { count: 4, mean: 3.0, var: 5.0 });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PooledMoments {
    /// Number of values.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Biased variance.
    pub var: f64,
}

impl PooledMoments {
    /// Moments of both (Chan, Golub & LeVeque 1983). No values are the identity.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        match (self.count, other.count) {
            (_, 0) => return self,
            (0, _) => return other,
            _ => {}
        }
        let count = self.count.saturating_add(other.count);
        let weight = other.count as f64 / count as f64;
        let distance = other.mean - self.mean;
        let mean = self.mean + distance * weight;
        let within = self.var + (other.var - self.var) * weight;
        Self { count, mean, var: within + distance * distance * weight * (1.0 - weight) }
    }

    /// The unbiased variance, `var·n / max(n − 1, 1)`.
    pub fn unbiased_var(&self) -> f64 {
        self.var * self.count as f64 / self.count.saturating_sub(1).max(1) as f64
    }

    /// Merges channel by channel, in the order of the parts.
    pub(crate) fn merge_channels(all: &mut [Self], part: impl IntoIterator<Item = Self>) {
        for (pooled, part) in all.iter_mut().zip(part) {
            *pooled = pooled.merge(part);
        }
    }
}

impl From<ChannelMoments> for PooledMoments {
    fn from(moments: ChannelMoments) -> Self {
        Self { count: moments.count, mean: moments.mean(), var: moments.var.into() }
    }
}

impl From<PooledMoments> for ChannelMoments {
    /// The mean in two parts, so that no digits are lost where it is much larger than the standard deviation.
    fn from(pooled: PooledMoments) -> Self {
        let shift = pooled.mean as f32;
        let delta = (pooled.mean - f64::from(shift)) as f32;
        Self { count: pooled.count, shift, delta, var: pooled.var as f32 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::shape::{Channels, Layout};
    use crate::reference::reduce;

    fn of(values: &[f64]) -> PooledMoments {
        let inner = values.len() as u64;
        let view = Channels { samples: 1, channels: 1, inner, layout: Layout::ChannelsFirst };
        let reduce::Moments { count, mean, var } = reduce::moments(values, view)[0];
        PooledMoments { count, mean, var }
    }

    proptest! {
        #[test]
        fn parts_merge_to_the_whole(
            values in prop::collection::vec(-1e4..1e4f64, 0..60), cut in any::<prop::sample::Index>(), shift in -1e6..1e6f64
        ) {
            let values: Vec<f64> = values.iter().map(|v| v + shift).collect();
            let (a, b) = values.split_at(cut.index(values.len() + 1));
            let (merged, whole) = (of(a).merge(of(b)), of(&values));
            prop_assert_eq!(merged.count, whole.count);
            prop_assert!((merged.mean - whole.mean).abs() <= 1e-12 * (1.0 + whole.mean.abs()) * 60.0);
            prop_assert!((merged.var - whole.var).abs() <= 1e-9 * (1.0 + whole.var));
        }
    }

    #[test]
    fn a_mean_survives_in_two_parts() {
        let pooled = PooledMoments { count: 7, mean: 1e4 + 1e-5, var: 2.0 };
        let channel = ChannelMoments::from(pooled);
        assert_eq!((channel.count, channel.shift), (7, 1e4));
        assert!((channel.mean() - pooled.mean).abs() < 1e-10);
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let nan = PooledMoments { count: 3, mean: f64::NAN, var: 1.0 };
        let merged = nan.merge(PooledMoments { count: 2, mean: 0.0, var: 1.0 });
        assert!(merged.mean.is_nan() && merged.var.is_nan());
        let most = PooledMoments { count: u64::MAX, mean: 0.0, var: 1.0 };
        assert_eq!(most.merge(most).count, u64::MAX);
    }
}
