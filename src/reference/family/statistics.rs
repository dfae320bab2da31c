//! Reduce and fold: from a slice to its statistics.

use super::{Maps, Scheme};
use crate::reference::Moments;

/// Statistics of a slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SliceStatistics {
    /// Number of values.
    pub count: u64,
    /// Mean; 0 where it is not subtracted.
    pub mean: f64,
    /// Mean squared distance from `mean`: the biased variance, or the mean square.
    pub var: f64,
    /// What the distance from `mean` is multiplied by ([`Spread`](super::Spread)).
    pub inv_std: f64,
}

impl SliceStatistics {
    /// x̂.
    pub fn normalize(&self, x: f64) -> f64 {
        (x - self.mean) * self.inv_std
    }
}

/// Statistics of every slice, in two passes: the mean, then the mean squared distance from it. A slice without values has mean and
/// variance 0.
///
/// # Panics
/// Unless there is an x for each element.
pub fn statistics(x: &[f64], maps: &Maps, scheme: &Scheme) -> Vec<SliceStatistics> {
    maps.expect_elements("x", x.len());
    let counts = maps.counts();
    let mean = if scheme.centred { means(x, maps, &counts) } else { vec![0.0; maps.statistics] };
    let squares = maps.per_statistic(|i| (x[i] - mean[maps.statistic_of[i]]).powi(2));
    (0..maps.statistics)
        .map(|s| {
            let (count, mean) = (counts[s], mean[s]);
            let var = if count == 0 { 0.0 } else { squares[s] / count as f64 };
            SliceStatistics { count, mean, var, inv_std: scheme.inv_std(count, var) }
        })
        .collect()
}

/// Means of magnitudes, which the error of a mean is relative to.
///
/// # Panics
/// Unless there is an x for each element.
pub fn magnitudes(x: &[f64], maps: &Maps) -> Vec<f64> {
    maps.expect_elements("x", x.len());
    let sums = maps.per_statistic(|i| x[i].abs());
    sums.iter().zip(maps.counts()).map(|(sum, count)| sum / count.max(1) as f64).collect()
}

/// Means, as the distance from the first value of a slice: that of equal values is exact, and so their variance is 0. A rounding error
/// in its place is much where eps is small.
fn means(x: &[f64], maps: &Maps, counts: &[u64]) -> Vec<f64> {
    let mut first = vec![0.0; maps.statistics];
    // In reverse, so that what is left is the first.
    (0..x.len()).rev().for_each(|i| first[maps.statistic_of[i]] = x[i]);
    let sums = maps.per_statistic(|i| x[i] - first[maps.statistic_of[i]]);
    (0..maps.statistics).map(|s| first[s] + sums[s] / counts[s].max(1) as f64).collect()
}

/// What the running statistics of instance norm are updated with, per channel: the means over all samples of the instances' mean and
/// biased variance, with the number of values of one instance as count. So [`Running::update`](crate::reference::fold::Running::update) with
/// unbiased variances takes the mean of these, as PyTorch does.
///
/// `statistics` are those of [`Maps::instance`], `n·channels + c`. Without samples, moments of nothing.
///
/// # Panics
/// Unless `channels` divides their number.
pub fn average_over_samples(statistics: &[SliceStatistics], channels: usize) -> Vec<Moments> {
    let len = statistics.len();
    assert!(channels > 0 && len.is_multiple_of(channels), "{len} statistics of {channels} channels");
    (0..channels)
        .map(|c| {
            let instances = || statistics.iter().skip(c).step_by(channels);
            let Some(first) = instances().next() else { return Moments::default() };
            let samples = instances().len() as f64;
            Moments {
                count: first.count,
                mean: instances().map(|s| s.mean).sum::<f64>() / samples,
                var: instances().map(|s| s.var).sum::<f64>() / samples,
            }
        })
        .collect()
}
