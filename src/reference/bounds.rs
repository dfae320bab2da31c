//! How far an f32 result may be from the reference: the accuracy that the kernels promise.
//!
//! With `u = 2^-24`, the error of batch statistics is relative to the standard deviation, *however large the mean is*:
//! the mean errs by at most [`MEAN`]`·u·sqrt(var + eps)` and the variance by [`VAR`]`·u·var`. What follows is first-order
//! propagation through the formulas. For statistics that are given (inference) the same bounds hold with room to spare.
//! docs/NUMERICS.md says where errors come from; the constants leave a factor of three or more to the worst that
//! `wgnorm check` has seen.

use super::fold::Statistics;
use super::reduce::{GradientSums, channel};
use crate::shape::Channels;

/// Unit roundoff of f32.
pub const U: f64 = 1.0 / 16_777_216.0;
/// Error of a batch mean in units of [`U`]` · sqrt(var + eps)`.
pub const MEAN: f64 = 8.0;
/// Error of a batch variance in units of [`U`]` · var`. Typically below 4; most is lost where outliers come
/// first in a channel.
pub const VAR: f64 = 32.0;
/// Error of `inv_std` in units of [`U`]` · inv_std`: half of the variance's, and that of the square root.
pub const INV_STD: f64 = VAR / 2.0 + 4.0;
/// Error of a sum in units of [`U`] times the sum of magnitudes.
pub const SUM: f64 = 8.0;
/// Results below the smallest normal number may be flushed to zero.
const TINY: f64 = 1.2e-38;

/// Bound of a batch mean.
pub fn mean(s: &Statistics, eps: f64) -> f64 {
    MEAN * U * (s.var + eps).sqrt() + U * s.mean.abs() + TINY
}

/// Bound of a batch variance.
pub fn var(s: &Statistics) -> f64 {
    VAR * U * s.var + TINY
}

/// Bound of `inv_std`.
pub fn inv_std(s: &Statistics) -> f64 {
    INV_STD * U * s.inv_std
}

/// Error of x̂.
fn xhat_error(xhat: f64) -> f64 {
    U * (MEAN + (INV_STD + 2.0) * xhat)
}

/// Bound of `y = x̂·gamma + beta`.
pub fn y(s: &Statistics, x: f64, gamma: f64, beta: f64) -> f64 {
    let xhat = s.normalize(x).abs();
    gamma.abs() * xhat_error(xhat) + 2.0 * U * (gamma.abs() * xhat + beta.abs()) + TINY
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
pub fn magnitudes(x: &[f64], dy: &[f64], view: Channels, statistics: &[Statistics]) -> Vec<Magnitudes> {
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
    MEAN * U * m.dy + (INV_STD + SUM) * U * m.dy_xhat + TINY
}

/// Bound of dx through batch statistics.
pub fn dx(
    s: &Statistics,
    m: &Magnitudes,
    sums: &GradientSums,
    view: Channels,
    x: f64,
    dy: f64,
    gamma: f64,
) -> f64 {
    let n = view.count() as f64;
    let xhat = s.normalize(x).abs();
    let terms = dy.abs() + sums.dy.abs() / n + xhat * sums.dy_xhat.abs() / n;
    let sums_err = dbeta(m) / n + xhat * dgamma(m) / n;
    let xhat_err = xhat_error(xhat) * sums.dy_xhat.abs() / n;
    gamma.abs() * s.inv_std * (sums_err + xhat_err + (INV_STD + 4.0) * U * terms) + TINY
}

/// Bound of dx through frozen statistics.
pub fn frozen_dx(s: &Statistics, dy: f64, gamma: f64) -> f64 {
    8.0 * U * (gamma * s.inv_std * dy).abs() + TINY
}
