//! How far an f32 result may be from the reference: the accuracy that the kernels promise.
//!
//! With `u = 2^-24`, batch statistics err by at most `STATISTICS·u` relative to the standard deviation, *however
//! large the mean is*: the mean by that fraction of `sqrt(var + eps)`, `inv_std` by that fraction of itself. What
//! follows is first-order propagation through the formulas. For statistics that are given (inference), the same holds
//! with the rounding of `x − mean`. docs/NUMERICS.md derives the constants.

use super::fold::Statistics;
use super::reduce::{GradientSums, channel};
use crate::shape::ChannelsFirst;

/// Unit roundoff of f32.
pub const U: f64 = 1.0 / 16_777_216.0;
/// Error of statistics in units of [`U`].
pub const STATISTICS: f64 = 16.0;
/// Error of a sum in units of [`U`] times the sum of magnitudes.
pub const SUM: f64 = 16.0;
/// Results below the smallest normal number may be flushed to zero.
const TINY: f64 = 1.2e-38;

/// Bound of a batch mean.
pub fn mean(s: &Statistics, eps: f64) -> f64 {
    STATISTICS * U * (s.var + eps).sqrt() + U * s.mean.abs() + TINY
}

/// Bound of a batch variance.
pub fn var(s: &Statistics) -> f64 {
    STATISTICS * U * s.var + TINY
}

/// Bound of `inv_std`.
pub fn inv_std(s: &Statistics) -> f64 {
    STATISTICS * U * s.inv_std
}

/// Bound of `y = x̂·gamma + beta`.
pub fn y(s: &Statistics, x: f64, gamma: f64, beta: f64) -> f64 {
    let xhat = s.normalize(x).abs();
    STATISTICS * U * gamma.abs() * (1.0 + xhat) + 2.0 * U * beta.abs() + TINY
}

/// Magnitudes of a channel's gradient sums, from which their bounds follow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Magnitudes {
    /// Σ |dy|.
    pub dy: f64,
    /// Σ |dy·x̂|.
    pub dy_xhat: f64,
}

/// Magnitudes per channel.
pub fn magnitudes(x: &[f64], dy: &[f64], view: ChannelsFirst, statistics: &[Statistics]) -> Vec<Magnitudes> {
    (0..view.channels)
        .map(|c| Magnitudes {
            dy: channel(view, c).map(|i| dy[i].abs()).sum(),
            dy_xhat: channel(view, c).map(|i| (dy[i] * statistics[c as usize].normalize(x[i])).abs()).sum(),
        })
        .collect()
}

/// Bound of `dbeta = Σ dy`.
pub fn dbeta(m: &Magnitudes) -> f64 {
    SUM * U * m.dy + TINY
}

/// Bound of `dgamma = Σ dy·x̂`.
pub fn dgamma(m: &Magnitudes) -> f64 {
    STATISTICS * U * m.dy + (STATISTICS + SUM) * U * m.dy_xhat + TINY
}

/// Bound of dx through batch statistics.
pub fn dx(
    s: &Statistics,
    m: &Magnitudes,
    sums: &GradientSums,
    view: ChannelsFirst,
    x: f64,
    dy: f64,
    gamma: f64,
) -> f64 {
    let n = view.count() as f64;
    let xhat = s.normalize(x).abs();
    let terms = dy.abs() + sums.dy.abs() / n + xhat * sums.dy_xhat.abs() / n;
    let sums_err = dbeta(m) / n + xhat * dgamma(m) / n;
    let xhat_err = STATISTICS * U * (1.0 + xhat) * sums.dy_xhat.abs() / n;
    gamma.abs() * s.inv_std * (sums_err + xhat_err + (STATISTICS + 4.0) * U * terms) + TINY
}

/// Bound of dx through frozen statistics.
pub fn frozen_dx(s: &Statistics, dy: f64, gamma: f64) -> f64 {
    8.0 * U * (gamma * s.inv_std * dy).abs() + TINY
}
