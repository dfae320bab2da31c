//! The forward and the backward pass.

use super::{Affine, Gradients, Maps, Scheme, SliceStatistics, statistics};

/// `z = x̂·gamma + beta`, before residual and activation, and the statistics that it takes.
///
/// # Panics
/// Unless x, gamma and beta fit the maps.
pub fn forward(
    x: &[f64],
    maps: &Maps,
    scheme: &Scheme,
    affine: Affine<'_>,
) -> (Vec<f64>, Vec<SliceStatistics>) {
    affine.expect_fit(maps);
    let statistics = statistics(x, maps, scheme);
    let z = (0..x.len())
        .map(|i| {
            let (s, p) = (maps.statistic_of[i], maps.parameter_of[i]);
            statistics[s].normalize(x[i]) * affine.weight(scheme, p) + affine.shift(p)
        })
        .collect();
    (z, statistics)
}

/// Sums over a slice that its dx needs, with g = gamma, or 1 + gamma.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SliceSums {
    /// s1 = Σ g·dz.
    pub dz: f64,
    /// s2 = Σ g·dz·x̂.
    pub dz_xhat: f64,
}

/// s1 and s2 of every slice.
///
/// # Panics
/// Unless all lengths fit the maps.
pub fn slice_sums(
    x: &[f64],
    dz: &[f64],
    maps: &Maps,
    scheme: &Scheme,
    statistics: &[SliceStatistics],
    affine: Affine<'_>,
) -> Vec<SliceSums> {
    maps.expect_elements("x", x.len());
    maps.expect_elements("dz", dz.len());
    maps.expect_statistics(statistics.len());
    affine.expect_fit(maps);
    let weighted = |i: usize| affine.weight(scheme, maps.parameter_of[i]) * dz[i];
    let xhat = |i: usize| statistics[maps.statistic_of[i]].normalize(x[i]);
    let s1 = maps.per_statistic(weighted);
    let s2 = maps.per_statistic(|i| weighted(i) * xhat(i));
    s1.into_iter().zip(s2).map(|(dz, dz_xhat)| SliceSums { dz, dz_xhat }).collect()
}

/// Gradients of x, gamma and beta from dz, the gradient of z, with g = gamma, or 1 + gamma:
///
/// - `dx = inv_std·(g·dz − s1/n − x̂·pull·s2)`, with the sums s1 = Σ g·dz and s2 = Σ g·dz·x̂ over the n values of the slice;
///   s1 only where the mean is subtracted, and the factor of s2 by [`Scheme::pull`], 1/n for a variance;
/// - `dgamma = Σ dz·x̂` and `dbeta = Σ dz` over the elements of a parameter, whether the norm has these or not.
///
/// # Panics
/// Unless all lengths fit the maps.
pub fn backward(
    x: &[f64],
    dz: &[f64],
    maps: &Maps,
    scheme: &Scheme,
    statistics: &[SliceStatistics],
    affine: Affine<'_>,
) -> Gradients {
    let sums = slice_sums(x, dz, maps, scheme, statistics, affine);
    let xhat = |i: usize| statistics[maps.statistic_of[i]].normalize(x[i]);
    let dx = (0..x.len())
        .map(|i| {
            let (s, sums) = (statistics[maps.statistic_of[i]], sums[maps.statistic_of[i]]);
            let of_mean = if scheme.centred { sums.dz / s.count as f64 } else { 0.0 };
            let of_spread = xhat(i) * scheme.pull(s.count, s.var) * sums.dz_xhat;
            s.inv_std * (affine.weight(scheme, maps.parameter_of[i]) * dz[i] - of_mean - of_spread)
        })
        .collect();
    Gradients { dx, dgamma: maps.per_parameter(|i| dz[i] * xhat(i)), dbeta: maps.per_parameter(|i| dz[i]) }
}
