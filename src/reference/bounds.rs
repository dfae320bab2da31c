//! How far an f32 result may be from the reference: the accuracy that the kernels promise.
//!
//! With `u = 2^-24`, the error of batch statistics is relative to the standard deviation, *however large the mean is*:
//! the mean errs by at most [`MEAN`]`·u·sqrt(var + eps)` and the variance by [`VAR`]`·u·var`. What follows is first-order
//! propagation through the formulas. For statistics that are given (inference) the same bounds hold with room to spare.
//! docs/NUMERICS.md says where errors come from; the constants leave a factor of three or more to the worst that
//! `wgnorm check` has seen.

use super::activation::activate;
use super::fold::Statistics;
use super::reduce::{GradientSums, channel};
use super::renorm::Correction;
use crate::base::activation::Activation;
use crate::base::custom::ActivationFunctions;
use crate::base::dtype::DType;
use crate::base::shape::Channels;

/// Unit roundoff of f32.
pub const U: f64 = 1.0 / 16_777_216.0;
/// Error of a batch mean in units of [`U`]` · sqrt(var + eps)`.
pub const MEAN: f64 = 8.0;
/// Error of a mean as one number, in units of [`U`] times the mean of magnitudes, if that is less: of few values the mean may be much smaller than they are.
pub const MEAN_OF_MAGNITUDES: f64 = 4.0;
/// What a variance may lack because a device flushes squares, which are scaled by 2^-12, and their sums below 2^-126.
pub(super) const FLUSHED: f64 = 1.0 / ((1_u128 << 113) as f64);
/// The least variance that is divided by, 2^-110; of less, the result is NaN.
pub const LEAST_VARIANCE: f64 = 1.0 / ((1_u128 << 110) as f64);
/// Error of a batch variance in units of [`U`]` · var`. Typically below 4; most is lost where outliers come
/// first in a channel.
pub const VAR: f64 = 32.0;
/// Error of `inv_std` in units of [`U`]` · inv_std`: half of the variance's, and that of the square root.
pub const INV_STD: f64 = VAR / 2.0 + 4.0;
/// Error of a sum in units of [`U`] times the sum of magnitudes.
pub const SUM: f64 = 8.0;
/// Results below the smallest normal number may be flushed to zero.
pub(crate) const TINY: f64 = 1.2e-38;

/// Bound of a batch mean.
pub fn mean(s: &Statistics, eps: f64) -> f64 {
    MEAN * U * (s.var + eps).sqrt() + U * s.mean.abs() + TINY
}

/// The same as one number, of values with this mean of magnitudes.
pub fn single_mean(s: &Statistics, eps: f64, magnitude: f64) -> f64 {
    mean(s, eps).min(MEAN_OF_MAGNITUDES * U * magnitude + TINY)
}

/// Whether a variance is beyond f32, or has lost digits that count: what is normalized by it is NaN.
pub fn is_beyond(var: f64, eps: f64) -> bool {
    let least = eps < LEAST_VARIANCE && var < LEAST_VARIANCE;
    var > f64::from(f32::MAX) || least && !(var == 0.0 && eps > 0.0)
}

/// Bound of a batch variance.
pub fn var(s: &Statistics) -> f64 {
    VAR * U * s.var + FLUSHED + TINY
}

/// Bound of `inv_std`.
pub fn inv_std(s: &Statistics) -> f64 {
    (INV_STD * U + flushed(s.inv_std)) * s.inv_std
}

/// What an inverse standard deviation is off by where squares were flushed, as a part of it.
pub(super) fn flushed(inv_std: f64) -> f64 {
    0.5 * FLUSHED * inv_std * inv_std
}

/// Error of x̂.
fn xhat_error(s: &Statistics, xhat: f64) -> f64 {
    U * (MEAN + (INV_STD + 2.0) * xhat) + flushed(s.inv_std) * xhat
}

/// Bound of `y = x̂·gamma + beta`.
pub fn y(s: &Statistics, x: f64, gamma: f64, beta: f64) -> f64 {
    let xhat = s.normalize(x).abs();
    gamma.abs() * xhat_error(s, xhat) + 2.0 * U * (gamma.abs() * xhat + beta.abs()) + TINY
}

/// Bound of `z = x̂·gamma + beta + residual`.
pub fn z(s: &Statistics, x: f64, gamma: f64, beta: f64, residual: f64) -> f64 {
    let normalized = y(s, x, gamma, beta);
    normalized + 2.0 * U * ((s.normalize(x) * gamma + beta).abs() + residual.abs())
}

/// Bound of `act(z)` for a z within its own bound.
pub fn activated(activation: Activation, z: f64, z_bound: f64) -> f64 {
    let value = activate(activation, z).abs();
    // The steepest slope, and what evaluation errs by where the value itself is small.
    let (slope, floor) = match activation {
        Activation::None | Activation::Relu | Activation::Relu6 => return z_bound,
        Activation::LeakyRelu { slope } => (f64::from(slope).abs().max(1.0), 0.0),
        Activation::Sigmoid => (0.25, 0.0),
        Activation::Tanh => (1.0, 1.0),
        Activation::Custom(custom) => return custom_activated(custom.functions(), z, z_bound),
        _ => (1.5, z.abs().min(1.0)),
    };
    slope * z_bound + EVALUATION * U * (value + floor) + TINY
}

/// Bound of `dz = dy·act'(z)`, for a z within its own bound that is farther than that from where the derivative jumps.
pub fn dz(activation: Activation, dy: f64, z: f64, z_bound: f64) -> f64 {
    let curvature = match activation {
        Activation::None | Activation::Relu | Activation::Relu6 => return 0.0,
        Activation::LeakyRelu { slope } => return 2.0 * U * (f64::from(slope) * dy).abs() + TINY,
        Activation::Custom(custom) => return custom_dz(custom.functions(), dy, z, z_bound),
        _ => 1.2,
    };
    dy.abs() * (curvature * z_bound + EVALUATION * U) + TINY
}

/// Bound of `dy·act''(z)`, for such a z.
pub fn bent(activation: Activation, dy: f64, z: f64, z_bound: f64) -> f64 {
    match activation {
        Activation::None | Activation::Relu | Activation::Relu6 | Activation::LeakyRelu { .. } => 0.0,
        Activation::HardSwish => U * dy.abs() + TINY,
        Activation::Custom(custom) => {
            let functions = custom.functions();
            let Some(second) = functions.second_derivative else { return f64::NAN };
            let here = second(z);
            let change = 1.5 * greatest(z, z_bound, |z| second(z) - here);
            dy.abs() * (change + functions.error * U * here.abs().max(1.0)) + TINY
        }
        // The third derivative of tanh is 2 at 0.
        _ => dy.abs() * (2.5 * z_bound + 2.0 * EVALUATION * U) + TINY,
    }
}

/// The greatest of what a function makes of a z within its bound.
fn greatest(z: f64, z_bound: f64, of: impl Fn(f64) -> f64) -> f64 {
    [z, z - z_bound, z + z_bound].into_iter().map(|z| of(z).abs()).fold(0.0, f64::max)
}

/// [`activated`] of functions of which nothing is known but what they are: the slope is that at and around z, and half as much again.
fn custom_activated(functions: &ActivationFunctions, z: f64, z_bound: f64) -> f64 {
    let slope = 1.5 * greatest(z, z_bound, |z| functions.derivative(z));
    let scale = functions.value(z).abs() + z.abs().min(1.0);
    slope * z_bound + functions.error * U * scale + TINY
}

/// [`dz`] of such.
fn custom_dz(functions: &ActivationFunctions, dy: f64, z: f64, z_bound: f64) -> f64 {
    let here = functions.derivative(z);
    let change = 1.5 * greatest(z, z_bound, |z| functions.derivative(z) - here);
    dy.abs() * (change + functions.error * U * here.abs().max(1.0)) + TINY
}

/// Error of evaluating an activation in units of [`U`] times its value (or 1): exp is as inexact as WGSL allows.
pub const EVALUATION: f64 = 16.0;

/// Bound of a result that is stored as `dtype`, from that of the f32 result.
pub fn stored(dtype: DType, value: f64, bound: f64) -> f64 {
    match dtype {
        DType::F32 => bound,
        // Whole numbers, whichever of two is nearer.
        DType::I8 => bound + dtype.unit_roundoff(),
        // Half of the distance of subnormal numbers.
        DType::F16 => bound + dtype.unit_roundoff() * (value.abs() + bound) + 0.5 / 16_777_216.0,
        DType::Bf16 => bound + dtype.unit_roundoff() * (value.abs() + bound) + TINY,
    }
}

/// Magnitudes of a channel's gradient sums, from which their bounds follow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Magnitudes {
    /// Σ |dy|.
    pub dy: f64,
    /// Σ |dy·x̂|.
    pub dy_xhat: f64,
    /// Σ of the errors of dy, where it is computed ([`dz`]).
    pub dy_error: f64,
    /// Σ of the errors of dy·x̂ that do not come from statistics.
    pub dy_xhat_error: f64,
}

/// Magnitudes per channel.
pub fn magnitudes(x: &[f64], dy: &[f64], view: Channels, statistics: &[Statistics]) -> Vec<Magnitudes> {
    (0..view.channels)
        .map(|c| {
            let s = &statistics[c as usize];
            let dy_xhat = channel(view, c).map(|i| (dy[i] * s.normalize(x[i])).abs()).sum();
            Magnitudes {
                dy: channel(view, c).map(|i| dy[i].abs()).sum(),
                dy_xhat,
                dy_xhat_error: flushed(s.inv_std) * dy_xhat,
                ..Magnitudes::default()
            }
        })
        .collect()
}

/// Bound of `dbeta = Σ dy`.
pub fn dbeta(m: &Magnitudes) -> f64 {
    SUM * U * m.dy + m.dy_error + TINY
}

/// Bound of `dgamma = Σ dy·x̂`.
pub fn dgamma(m: &Magnitudes) -> f64 {
    MEAN * U * m.dy + (INV_STD + SUM) * U * m.dy_xhat + m.dy_xhat_error + TINY
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
    let xhat_err = xhat_error(s, xhat) * sums.dy_xhat.abs() / n;
    gamma.abs() * s.inv_std * (sums_err + xhat_err + ((INV_STD + 4.0) * U + flushed(s.inv_std)) * terms)
        + TINY
}

/// What an error of dy, and one of x̂ beyond that of the statistics, add to [`dx`].
pub fn dx_error(
    s: &Statistics,
    sums: &GradientSums,
    view: Channels,
    gamma: f64,
    dy_error: f64,
    xhat_error: f64,
) -> f64 {
    gamma.abs() * s.inv_std * (dy_error + xhat_error * sums.dy_xhat.abs() / view.count() as f64)
}

/// Error of an x̂ that is recovered from y: its rounding error and that of storing it, over gamma.
pub fn recovered_xhat(
    activation: Activation,
    y: f64,
    y_bound: f64,
    gamma: f64,
    beta: f64,
    residual: f64,
) -> f64 {
    let slope = match activation {
        Activation::LeakyRelu { slope } if y < 0.0 => f64::from(slope),
        Activation::Custom(custom) => f64::from(custom.functions().least_slope),
        _ => 1.0,
    };
    let z = (y / slope).abs();
    let inverting = match activation {
        Activation::Custom(custom) => custom.functions().error * U * (z + 1.0),
        _ => 0.0,
    };
    ((y_bound / slope) + inverting + 4.0 * U * (z + beta.abs() + residual.abs())) / gamma.abs()
}

/// Errors of r and d of batch renorm (`limits` are r_max and d_max): where a limit acts, its own rounding error alone.
pub fn renorm(batch: &Statistics, running: &Statistics, limits: (f64, f64)) -> (f64, f64) {
    let raw = Correction::unlimited(batch, running);
    let (r_max, d_max) = limits;
    let limited = |value: f64, low: f64, high: f64, error: f64| {
        let acts = |limit: f64| 6.0 * U * limit.abs();
        match value {
            v if v - error > high => acts(high),
            v if v + error < low => acts(low),
            _ => error + acts(value.clamp(low, high)),
        }
    };
    let r_error = (INV_STD + 8.0) * U * raw.r;
    // The batch's mean errs in units of its own standard deviation.
    let d_error = MEAN * U * raw.r + 8.0 * U * raw.d.abs();
    (limited(raw.r, 1.0 / r_max, r_max, r_error), limited(raw.d, -d_max, d_max, d_error))
}

/// What errors of r and d add to [`y`] of gamma·r and beta + gamma·d.
pub fn renorm_y(s: &Statistics, x: f64, gamma: f64, beta: f64, c: &Correction, errors: (f64, f64)) -> f64 {
    let xhat = s.normalize(x).abs();
    gamma.abs() * (xhat * (errors.0 + U * c.r) + errors.1) + 2.0 * U * (beta.abs() + (gamma * c.d).abs())
}

/// Bound of `dgamma = r·Σ dy·x̂ + d·Σ dy`.
pub fn renorm_dgamma(m: &Magnitudes, sums: &GradientSums, c: &Correction, errors: (f64, f64)) -> f64 {
    let of_sums = c.r * dgamma(m) + c.d.abs() * dbeta(m);
    let (xhat_part, d_part) = (sums.dy_xhat.abs(), sums.dy.abs());
    of_sums + (errors.0 + 2.0 * U * c.r) * xhat_part + (errors.1 + 2.0 * U * c.d.abs()) * d_part + TINY
}

/// Bound of dx through frozen statistics.
pub fn frozen_dx(s: &Statistics, dy: f64, gamma: f64) -> f64 {
    8.0 * U * (gamma * s.inv_std * dy).abs() + TINY
}
