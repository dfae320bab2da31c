//! Reduce: per channel, moments of x or gradient sums. Twin of shaders/reduce/.

use super::fold::Statistics;
use crate::base::shape::{Channels, Layout};

/// Count, mean and biased variance of a set of values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// Number of values.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Biased variance.
    pub var: f64,
}

impl Moments {
    /// Moments of the union of two disjoint sets (Chan, Golub & LeVeque 1983).
    pub fn merge(self, other: Self) -> Self {
        if other.count == 0 {
            return self;
        }
        if self.count == 0 {
            return other;
        }
        let count = self.count + other.count;
        let w = other.count as f64 / count as f64;
        let d = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + d * w,
            var: (1.0 - w) * self.var + w * other.var + d * (d * w * (1.0 - w)),
        }
    }
}

/// Σ dy and Σ dy·x̂ of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GradientSums {
    /// Σ dy, which is dbeta.
    pub dy: f64,
    /// Σ dy·x̂, which is dgamma.
    pub dy_xhat: f64,
}

/// Indices of the elements of one channel, in order.
pub fn channel(view: Channels, c: u64) -> impl Iterator<Item = usize> + Clone {
    let (sample_stride, start, stride) = match view.layout {
        Layout::ChannelsFirst => (view.channels * view.inner, c * view.inner, 1),
        Layout::ChannelsLast => (view.inner * view.channels, c, view.channels),
    };
    (0..view.samples)
        .flat_map(move |n| (0..view.inner).map(move |i| (n * sample_stride + start + i * stride) as usize))
}

/// Moments per channel in two passes: the mean, then the mean squared deviation from it.
pub fn moments(x: &[f64], view: Channels) -> Vec<Moments> {
    (0..view.channels)
        .map(|c| {
            let count = view.count();
            if count == 0 {
                return Moments::default();
            }
            let n = count as f64;
            let mean = channel(view, c).map(|i| x[i]).sum::<f64>() / n;
            let var = channel(view, c).map(|i| (x[i] - mean) * (x[i] - mean)).sum::<f64>() / n;
            Moments { count, mean, var }
        })
        .collect()
}

/// Gradient sums per channel.
pub fn gradient_sums(x: &[f64], dy: &[f64], view: Channels, statistics: &[Statistics]) -> Vec<GradientSums> {
    (0..view.channels)
        .map(|c| {
            let s = statistics[c as usize];
            GradientSums {
                dy: channel(view, c).map(|i| dy[i]).sum(),
                dy_xhat: channel(view, c).map(|i| dy[i] * s.normalize(x[i])).sum(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn moments_of(values: &[f64]) -> Moments {
        let view =
            Channels { samples: 1, channels: 1, inner: values.len() as u64, layout: Layout::ChannelsFirst };
        moments(values, view)[0]
    }

    #[test]
    fn channels_are_every_element_once() {
        for (layout, second) in [(Layout::ChannelsFirst, [2, 3, 8, 9]), (Layout::ChannelsLast, [1, 4, 7, 10])]
        {
            let view = Channels { samples: 2, channels: 3, inner: 2, layout };
            assert_eq!(channel(view, 1).collect::<Vec<_>>(), second);
            let mut all: Vec<_> = (0..3).flat_map(|c| channel(view, c)).collect();
            all.sort_unstable();
            assert_eq!(all, (0..12).collect::<Vec<_>>());
            assert!((0..3).all(|c| channel(view, c).all(|i| view.channel_of(i as u64) == c)));
        }
    }

    #[test]
    fn moments_by_hand() {
        assert_eq!(
            moments_of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]),
            Moments { count: 8, mean: 5.0, var: 4.0 }
        );
        assert_eq!(moments_of(&[]), Moments::default());
    }

    proptest! {
        #[test]
        fn merging_parts_gives_the_whole(
            values in prop::collection::vec(-1e3..1e3f64, 1..40), cut in any::<prop::sample::Index>()
        ) {
            let (a, b) = values.split_at(cut.index(values.len() + 1));
            let merged = moments_of(a).merge(moments_of(b));
            let whole = moments_of(&values);
            prop_assert_eq!(merged.count, whole.count);
            prop_assert!((merged.mean - whole.mean).abs() <= 1e-10);
            prop_assert!((merged.var - whole.var).abs() <= 1e-12 * (1.0 + whole.var) * 1e3);
        }
    }
}
