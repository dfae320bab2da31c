//! How far an f32 result may be from the reference, with the constants and in the manner of
//! [`reference::bounds`](crate::reference::bounds): first-order propagation of the errors of a slice's statistics and sums.
//!
//! What differs from a channel of a batch: gamma may vary within a slice, so magnitudes of sums are Σ|g·dz| and Σ|g·dz·x̂|; without a
//! mean there is no error of it. [`z`] and [`backward`] take what the passes take, and give a bound for each value of theirs.

pub use super::second_bounds::{Near, SecondBounds, Upstream, second};

use super::passes::slice_sums;
use super::scheme::length;
use super::{Affine, Gradients, Maps, Scheme, SliceStatistics, Spread};
use crate::reference::bounds::{
    FLUSHED, INV_STD, MEAN, MEAN_OF_MAGNITUDES, SUM, TINY, U, VAR, flushed, is_beyond as is_beyond_of,
};

/// Rounding g = 1 + gamma, and g·dz.
const WEIGHT: f64 = 2.0;

/// Bound of a mean.
pub fn mean(s: &SliceStatistics, scheme: &Scheme) -> f64 {
    if scheme.centred { MEAN * U * deviation(s, scheme) + U * s.mean.abs() + TINY } else { 0.0 }
}

/// The same as one number, of values with this mean of magnitudes.
pub fn single_mean(s: &SliceStatistics, scheme: &Scheme, magnitude: f64) -> f64 {
    mean(s, scheme).min(MEAN_OF_MAGNITUDES * U * magnitude + TINY)
}

/// Whether a variance is beyond f32, or has lost digits that count: what is normalized by it is NaN. Lengths have no such limits.
pub fn is_beyond(s: &SliceStatistics, scheme: &Scheme) -> bool {
    let floor = match scheme.spread {
        Spread::Deviation => scheme.eps * scheme.eps * U,
        _ => scheme.eps,
    };
    scheme.centred && is_beyond_of(s.var, floor) && !(s.var == 0.0 && scheme.eps > 0.0)
}

/// Bound of a variance or mean square.
pub fn var(s: &SliceStatistics) -> f64 {
    VAR * U * s.var + FLUSHED + TINY
}

/// Bound of inv_std.
pub fn inv_std(s: &SliceStatistics, scheme: &Scheme) -> f64 {
    spread(s, scheme) * s.inv_std
}

/// Bound of `x̂·gamma + beta`, plus the residual if there is one, for every element.
///
/// # Panics
/// Unless all lengths fit the maps.
pub fn z(
    x: &[f64],
    maps: &Maps,
    scheme: &Scheme,
    statistics: &[SliceStatistics],
    affine: Affine<'_>,
    residual: Option<&[f64]>,
) -> Vec<f64> {
    maps.expect_elements("x", x.len());
    maps.expect_statistics(statistics.len());
    affine.expect_fit(maps);
    residual.iter().for_each(|residual| maps.expect_elements("residual", residual.len()));
    let roundings = if scheme.unit_offset { 3.0 } else { 2.0 };
    (0..x.len())
        .map(|i| {
            let (s, p) = (&statistics[maps.statistic_of[i]], maps.parameter_of[i]);
            let (xhat, g, beta) = (s.normalize(x[i]), affine.weight(scheme, p), affine.shift(p));
            let normalized = g.abs() * xhat_error(s, scheme, xhat)
                + roundings * U * (g * xhat).abs()
                + 2.0 * U * beta.abs()
                + TINY;
            let added =
                residual.map_or(0.0, |residual| 2.0 * U * ((xhat * g + beta).abs() + residual[i].abs()));
            normalized + added
        })
        .collect()
}

/// Bounds of the gradients, where each dz is within `dz_error` of its true value (exact if there are none), as
/// [`bounds::dz`](crate::reference::bounds::dz) gives it for an activation.
///
/// # Panics
/// Unless all lengths fit the maps.
pub fn backward(
    x: &[f64],
    dz: &[f64],
    dz_error: Option<&[f64]>,
    maps: &Maps,
    scheme: &Scheme,
    statistics: &[SliceStatistics],
    affine: Affine<'_>,
) -> Gradients {
    let sums = slice_sums(x, dz, maps, scheme, statistics, affine);
    dz_error.iter().for_each(|errors| maps.expect_elements("dz_error", errors.len()));
    let dz_error = |i: usize| dz_error.map_or(0.0, |errors| errors[i]);
    let of = |i: usize| &statistics[maps.statistic_of[i]];
    let xhat = |i: usize| of(i).normalize(x[i]).abs();
    let weight = |i: usize| affine.weight(scheme, maps.parameter_of[i]).abs();

    // Of s1 and s2.
    let s1_error = maps.per_statistic(|i| weight(i) * (dz_error(i) + (SUM + WEIGHT) * U * dz[i].abs()));
    let s2_error = maps.per_statistic(|i| {
        let of_xhat = mean_error(of(i), scheme) + (spread(of(i), scheme) + (SUM + WEIGHT) * U) * xhat(i);
        weight(i) * (dz_error(i) * xhat(i) + dz[i].abs() * of_xhat)
    });
    let dx = (0..x.len())
        .map(|i| {
            let (s, sums) = (of(i), sums[maps.statistic_of[i]]);
            let (s1_error, s2_error) = (s1_error[maps.statistic_of[i]], s2_error[maps.statistic_of[i]]);
            let (s1, s2) = (sums.dz.abs(), sums.dz_xhat.abs());
            let share = if scheme.centred { 1.0 / s.count as f64 } else { 0.0 };
            let (pull, pull_error) = pull(s, scheme);
            let terms = weight(i) * dz[i].abs() + share * s1 + xhat(i) * pull * s2;
            let of_sums = share * s1_error + xhat(i) * pull * s2_error;
            let of_factors = (xhat_error(s, scheme, xhat(i)) * pull + xhat(i) * pull_error) * s2;
            let of_terms = weight(i) * dz_error(i) + (spread(s, scheme) + (4.0 + WEIGHT) * U) * terms;
            s.inv_std * (of_sums + of_factors + of_terms) + TINY
        })
        .collect();
    let dgamma = maps.per_parameter(|i| {
        let of_xhat = mean_error(of(i), scheme) + (spread(of(i), scheme) + SUM * U) * xhat(i);
        dz_error(i) * xhat(i) + dz[i].abs() * of_xhat
    });
    let dbeta = maps.per_parameter(|i| dz_error(i) + SUM * U * dz[i].abs());
    let tiny = |bounds: Vec<f64>| bounds.into_iter().map(|bound| bound + TINY).collect();
    Gradients { dx, dgamma: tiny(dgamma), dbeta: tiny(dbeta) }
}

/// What the error of a mean is relative to. With eps outside of the root, or none, that of a slice far below eps counts in dx.
fn deviation(s: &SliceStatistics, scheme: &Scheme) -> f64 {
    match scheme.spread {
        Spread::Variance | Spread::Constant => (s.var + scheme.eps).sqrt(),
        Spread::Deviation | Spread::Length | Spread::Direction => s.var.sqrt(),
    }
}

/// Error of inv_std, as a part of it. What is not subtracted from is squared in three scales, and nothing of it is flushed.
pub(super) fn spread(s: &SliceStatistics, scheme: &Scheme) -> f64 {
    INV_STD * U + if scheme.centred { flushed(s.inv_std) } else { 0.0 }
}

/// Error of x̂ by that of the mean, and of a difference, or a value, that is flushed to zero.
fn mean_error(s: &SliceStatistics, scheme: &Scheme) -> f64 {
    let of_mean = if scheme.centred { MEAN * U * deviation(s, scheme) } else { 0.0 };
    (of_mean + TINY) * s.inv_std
}

/// Error of x̂.
pub(super) fn xhat_error(s: &SliceStatistics, scheme: &Scheme, xhat: f64) -> f64 {
    mean_error(s, scheme) + (spread(s, scheme) + 2.0 * U) * xhat.abs()
}

/// The factor of x̂·s2, and its error. Whether a length within its own error of eps is clamped is open, so there the error is all of it.
pub(super) fn pull(s: &SliceStatistics, scheme: &Scheme) -> (f64, f64) {
    let pull = scheme.pull(s.count, s.var);
    let error = match scheme.spread {
        Spread::Variance | Spread::Constant => 0.0,
        Spread::Deviation => (spread(s, scheme) + 4.0 * U) * pull,
        Spread::Length | Spread::Direction => {
            let length = length(s.count, s.var);
            if (length - scheme.eps).abs() <= INV_STD * U * length { 1.0 } else { 0.0 }
        }
    };
    (pull, error)
}
