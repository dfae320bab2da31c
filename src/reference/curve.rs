//! A function of x in the place of the normalization: Dynamic Tanh and Derf. Twin of shaders/curve/.
//!
//! [`forward`] gives z, before a residual and the activation are applied ([`map::activated`](super::map::activated)); [`backward`] takes
//! dz ([`map::dz`](super::map::dz)). The bounds are first-order propagation of the rounding of u and of what [`VALUE`] and [`slope_error`]
//! say of the kernels' functions.

use super::activation::erf;
use super::bounds::{SUM, U};
use super::reduce::channel;
use crate::base::curve::Curve;
use crate::base::shape::Channels;

/// Error of tanh and erf in units of [`U`] times their value, however small: that of exp is as WGSL allows it. With a correctly
/// rounded exp they err by 2.5 (tanh) and 3.5 (erf).
pub const VALUE: f64 = 8.0;
/// Results below the smallest normal number may be flushed to zero.
const TINY: f64 = 1.2e-38;

/// f(u).
pub fn value(curve: Curve, u: f64) -> f64 {
    match curve {
        Curve::Tanh => u.tanh(),
        Curve::Erf => erf(u),
    }
}

/// f'(u).
pub fn slope(curve: Curve, u: f64) -> f64 {
    match curve {
        Curve::Tanh => {
            // 1 − tanh² keeps no digits far from 0.
            let e = (-2.0 * u.abs()).exp();
            4.0 * e / ((1.0 + e) * (1.0 + e))
        }
        Curve::Erf => std::f64::consts::FRAC_2_SQRT_PI * (-u * u).exp(),
    }
}

/// What a layer has: `z = gamma·f(alpha·x + shift) + beta`; gamma is 1 and beta 0 where they are absent.
#[derive(Clone, Copy, Debug)]
pub struct Parameters<'a> {
    /// The function f.
    pub curve: Curve,
    /// Factor of x, the same for all channels.
    pub alpha: f64,
    /// What is added to alpha·x, the same for all channels.
    pub shift: f64,
    /// gamma per channel.
    pub gamma: Option<&'a [f64]>,
    /// beta per channel.
    pub beta: Option<&'a [f64]>,
}

impl Parameters<'_> {
    /// `u = alpha·x + shift`.
    pub fn argument(&self, x: f64) -> f64 {
        self.alpha * x + self.shift
    }

    /// gamma of a channel.
    pub fn gamma(&self, c: usize) -> f64 {
        self.gamma.map_or(1.0, |gamma| gamma[c])
    }

    /// beta of a channel.
    pub fn beta(&self, c: usize) -> f64 {
        self.beta.map_or(0.0, |beta| beta[c])
    }

    /// f(u).
    fn xhat(&self, x: f64) -> f64 {
        value(self.curve, self.argument(x))
    }

    /// f'(u).
    fn slope(&self, x: f64) -> f64 {
        slope(self.curve, self.argument(x))
    }

    /// x·f'(u), and its limit where an infinite x meets a slope that has vanished.
    fn slope_x(&self, x: f64) -> f64 {
        let slope = self.slope(x);
        if slope == 0.0 { 0.0 } else { x * slope }
    }
}

/// Gradients of a backward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// Gradient of x.
    pub dx: Vec<f64>,
    /// Gradient of gamma.
    pub dgamma: Vec<f64>,
    /// Gradient of beta.
    pub dbeta: Vec<f64>,
    /// Gradient of alpha.
    pub dalpha: f64,
    /// Gradient of the shift.
    pub dshift: f64,
}

/// `z = gamma·f(alpha·x + shift) + beta`.
pub fn forward(x: &[f64], view: Channels, p: &Parameters<'_>) -> Vec<f64> {
    let of = |i: usize, c: usize| p.gamma(c) * p.xhat(x[i]) + p.beta(c);
    (0..x.len()).map(|i| of(i, view.channel_of(i as u64) as usize)).collect()
}

/// `dx = dz·gamma·alpha·f'(u)`, `dgamma = Σ dz·f(u)` and `dbeta = Σ dz` over a channel, `dalpha = Σ dz·gamma·f'(u)·x` and
/// `dshift = Σ dz·gamma·f'(u)` over all values.
pub fn backward(x: &[f64], dz: &[f64], view: Channels, p: &Parameters<'_>) -> Gradients {
    let gamma = |i: usize| p.gamma(view.channel_of(i as u64) as usize);
    let per_channel = |of: &dyn Fn(usize) -> f64| {
        (0..view.channels).map(|c| channel(view, c).map(of).sum()).collect::<Vec<f64>>()
    };
    Gradients {
        dx: (0..x.len()).map(|i| dz[i] * gamma(i) * p.alpha * p.slope(x[i])).collect(),
        dgamma: per_channel(&|i| dz[i] * p.xhat(x[i])),
        dbeta: per_channel(&|i| dz[i]),
        dalpha: (0..x.len()).map(|i| dz[i] * gamma(i) * p.slope_x(x[i])).sum(),
        dshift: (0..x.len()).map(|i| dz[i] * gamma(i) * p.slope(x[i])).sum(),
    }
}

/// Error of u: two roundings.
fn argument_error(p: &Parameters<'_>, x: f64) -> f64 {
    2.0 * U * ((p.alpha * x).abs() + p.shift.abs()) + TINY
}

/// Error of f(u): second derivatives are below 1.
fn xhat_error(p: &Parameters<'_>, x: f64) -> f64 {
    // So far from 0, f is ±1 whatever the error of u.
    if p.slope(x) == 0.0 {
        return VALUE * U;
    }
    let u_error = argument_error(p, x).min(1.0);
    p.slope(x) * u_error + u_error * u_error + VALUE * U * p.xhat(x).abs() + TINY
}

/// Error of f'(u): that of exp, which grows with its argument, and of u; third derivatives are below 2.3.
pub fn slope_error(p: &Parameters<'_>, x: f64) -> f64 {
    let (u, u_error) = (p.argument(x), argument_error(p, x).min(1.0));
    let (exponent, curvature) = match p.curve {
        Curve::Tanh => (2.0 * u.abs(), 2.0 * p.xhat(x).abs()),
        Curve::Erf => (u * u, 2.0 * u.abs()),
    };
    let steepest = p.slope(x) * curvature;
    let evaluation = U * (16.0 + 8.0 * exponent) * p.slope(x);
    // Where u is infinite nothing is left.
    if p.slope(x) == 0.0 { TINY } else { steepest * u_error + 2.0 * u_error * u_error + evaluation + TINY }
}

/// Bound of z.
pub fn z_bound(p: &Parameters<'_>, x: f64, c: usize, residual: Option<f64>) -> f64 {
    let (scaled, beta) = (p.gamma(c) * p.xhat(x), p.beta(c));
    let z = p.gamma(c).abs() * xhat_error(p, x) + 2.0 * U * (scaled.abs() + beta.abs()) + TINY;
    z + residual.map_or(0.0, |residual| 2.0 * U * ((scaled + beta).abs() + residual.abs()))
}

/// Bound of dx, of a dz that is off by so much.
pub fn dx_bound(p: &Parameters<'_>, x: f64, c: usize, dz: f64, dz_error: f64) -> f64 {
    let scale = (p.gamma(c) * p.alpha).abs();
    let slope = p.slope(x);
    let product = dz.abs() * (scale * (slope_error(p, x) + 8.0 * U * slope) + TINY);
    product + scale * slope * dz_error + TINY
}

/// Bounds of the gradients of parameters.
#[derive(Clone, Debug)]
pub struct SumBounds {
    /// Of dgamma.
    pub dgamma: Vec<f64>,
    /// Of dbeta.
    pub dbeta: Vec<f64>,
    /// Of dalpha.
    pub dalpha: f64,
    /// Of dshift.
    pub dshift: f64,
}

/// Bounds of all sums of [`backward`], of a dz whose errors are `dz_error`.
pub fn sum_bounds(
    x: &[f64],
    dz: &[f64],
    view: Channels,
    p: &Parameters<'_>,
    dz_error: impl Fn(usize) -> f64,
) -> SumBounds {
    let per_channel = |of: &dyn Fn(usize) -> f64| {
        (0..view.channels).map(|c| channel(view, c).map(of).sum::<f64>() + TINY).collect::<Vec<f64>>()
    };
    // Of one term whose factor of dz is off by so much.
    let term = |i: usize, factor: f64, factor_error: f64| {
        SUM * U * (dz[i] * factor).abs() + dz[i].abs() * factor_error + dz_error(i) * factor.abs()
    };
    let of_all = |factor: &dyn Fn(f64) -> (f64, f64)| {
        let of = |i: usize| {
            let gamma = p.gamma(view.channel_of(i as u64) as usize).abs();
            let (factor, error) = factor(x[i]);
            gamma * term(i, factor, error + 4.0 * U * factor.abs())
        };
        (0..x.len()).map(of).sum::<f64>() + TINY
    };
    let error_x = |x: f64| if p.slope(x) == 0.0 { TINY } else { slope_error(p, x) * x.abs() };
    SumBounds {
        dgamma: per_channel(&|i| term(i, p.xhat(x[i]), xhat_error(p, x[i]))),
        dbeta: per_channel(&|i| term(i, 1.0, 0.0)),
        dalpha: of_all(&|x| (p.slope_x(x), error_x(x))),
        dshift: of_all(&|x| (p.slope(x), slope_error(p, x))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::shape::Layout;

    /// Values without structure, between −2 and 2.
    fn values(seed: u64, len: usize) -> Vec<f64> {
        (0..len as u64).map(|i| (((i + 1) * 7919 + seed * 104_729) % 1009) as f64 / 250.0 - 2.0).collect()
    }

    fn assert_close(what: &str, got: f64, expected: f64, relative: f64) {
        assert!((got - expected).abs() <= relative * expected.abs(), "{what}: {got:e} is not {expected:e}");
    }

    #[test]
    fn values_and_slopes_by_hand() {
        // Computed with 40 digits (mpmath).
        for (curve, u, expected, expected_slope) in [
            (Curve::Tanh, 1e-12, 1e-12, 1.0),
            (Curve::Tanh, 0.5, 0.462_117_157_260_009_8, 0.786_447_732_965_927_4),
            (Curve::Tanh, 20.0, 1.0, 1.699_341_702_116_636_5e-17),
            (Curve::Erf, 1e-12, 1.128_379_167_095_512_6e-12, std::f64::consts::FRAC_2_SQRT_PI),
            (Curve::Erf, 0.5, 0.520_499_877_813_046_5, 0.878_782_578_935_444_8),
            (Curve::Erf, 2.2, 0.998_137_153_702_018, 0.008_922_155_064_916_205),
            (Curve::Erf, 9.0, 1.0, 7.492_073_428_245_974e-36),
        ] {
            for sign in [1.0, -1.0] {
                assert_close("value", value(curve, sign * u), sign * expected, 4e-15);
                assert_close("slope", slope(curve, sign * u), expected_slope, 2e-13);
            }
        }
        for curve in Curve::ALL {
            let at = |u: f64| (value(curve, u), slope(curve, u));
            assert_eq!((at(f64::INFINITY), at(f64::NEG_INFINITY)), ((1.0, 0.0), (-1.0, 0.0)));
            assert!(at(f64::NAN).0.is_nan() && at(f64::NAN).1.is_nan());
            assert_eq!(at(0.0).0, 0.0);
        }
    }

    #[test]
    fn an_infinite_x_has_no_gradient() {
        let view = Channels { samples: 1, channels: 1, inner: 2, layout: Layout::ChannelsFirst };
        for curve in Curve::ALL {
            let p = Parameters { curve, alpha: 0.5, shift: 0.25, gamma: None, beta: None };
            let x = [f64::INFINITY, f64::NEG_INFINITY];
            assert_eq!(forward(&x, view, &p), [1.0, -1.0]);
            let got = backward(&x, &[1.0, 2.0], view, &p);
            let expected = Gradients {
                dx: vec![0.0; 2],
                dgamma: vec![-1.0],
                dbeta: vec![3.0],
                dalpha: 0.0,
                dshift: 0.0,
            };
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn gradients_are_finite_differences() {
        for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
            let view = Channels { samples: 3, channels: 2, inner: 4, layout };
            let (x, dy) = (values(1, 24), values(2, 24));
            let (gamma, beta) = (values(3, 2), values(4, 2));
            for curve in Curve::ALL {
                let p = Parameters { curve, alpha: 0.7, shift: -0.3, gamma: Some(&gamma), beta: Some(&beta) };
                let loss = |x: &[f64], p: &Parameters<'_>| {
                    forward(x, view, p).iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>()
                };
                let difference = |loss: &dyn Fn(f64) -> f64| (loss(1e-5) - loss(-1e-5)) / 2e-5;
                let moved = |v: &[f64], i: usize, h: f64| {
                    let mut moved = v.to_vec();
                    moved[i] += h;
                    moved
                };
                let got = backward(&x, &dy, view, &p);
                let held = |what: &str, got: f64, expected: f64| {
                    assert!((got - expected).abs() <= 1e-8, "{curve} {what}: {got} is not {expected}");
                };
                for i in 0..x.len() {
                    held("dx", got.dx[i], difference(&|h| loss(&moved(&x, i, h), &p)));
                }
                for c in 0..2 {
                    let of_gamma = |h| loss(&x, &Parameters { gamma: Some(&moved(&gamma, c, h)), ..p });
                    held("dgamma", got.dgamma[c], difference(&of_gamma));
                    let of_beta = |h| loss(&x, &Parameters { beta: Some(&moved(&beta, c, h)), ..p });
                    held("dbeta", got.dbeta[c], difference(&of_beta));
                }
                held(
                    "dalpha",
                    got.dalpha,
                    difference(&|h| loss(&x, &Parameters { alpha: p.alpha + h, ..p })),
                );
                held(
                    "dshift",
                    got.dshift,
                    difference(&|h| loss(&x, &Parameters { shift: p.shift + h, ..p })),
                );
            }
        }
    }
}
