//! Batch renorm: batch norm whose x̂ is corrected towards what the running statistics would give. Twin of shaders/fold/renorm.wesl.
//!
//! Source: Ioffe, "Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized Models", 2017.

use super::batch::{self, Gradients};
use super::fold::{Running, Statistics};
use super::reduce::Moments;
use crate::base::shape::Channels;

/// How x̂ of a channel is corrected: `x̂·r + d`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correction {
    /// The factor.
    pub r: f64,
    /// The summand.
    pub d: f64,
}

impl Correction {
    /// No correction: what batch norm is.
    pub const NONE: Self = Self { r: 1.0, d: 0.0 };

    /// Before limits: x̂·r + d is what the running statistics give.
    pub fn unlimited(batch: &Statistics, running: &Statistics) -> Self {
        Self { r: running.inv_std / batch.inv_std, d: (batch.mean - running.mean) * running.inv_std }
    }

    /// r from 1 / r_max to r_max, d from −d_max to d_max. NaN stays, unless a limit is closed.
    pub fn new(batch: &Statistics, running: &Statistics, (r_max, d_max): (f64, f64)) -> Self {
        let raw = Self::unlimited(batch, running);
        Self {
            r: if r_max == 1.0 { 1.0 } else { raw.r.clamp(1.0 / r_max, r_max) },
            d: if d_max == 0.0 { 0.0 } else { raw.d.clamp(-d_max, d_max) },
        }
    }

    /// gamma and beta of the batch norm that does the same: `gamma·r` and `beta + gamma·d`.
    pub fn affine(&self, gamma: f64, beta: f64) -> (f64, f64) {
        (gamma * self.r, beta + gamma * self.d)
    }
}

/// Results of a training forward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// `(x̂·r + d)·gamma + beta`.
    pub y: Vec<f64>,
    /// Moments of the batch per channel.
    pub moments: Vec<Moments>,
    /// Statistics of the batch per channel.
    pub statistics: Vec<Statistics>,
    /// r and d per channel.
    pub corrections: Vec<Correction>,
    /// `gamma·r` per channel.
    pub gamma: Vec<f64>,
    /// `beta + gamma·d` per channel.
    pub beta: Vec<f64>,
}

/// Training forward: statistics of the batch, corrected by running statistics from before the batch, within limits r_max and d_max.
pub fn train_forward(
    x: &[f64],
    view: Channels,
    running: &[Running],
    limits: (f64, f64),
    gamma: Option<&[f64]>,
    beta: Option<&[f64]>,
    eps: f64,
) -> Forward {
    let plain = batch::train_forward(x, view, None, None, eps);
    let corrections: Vec<_> = plain
        .statistics
        .iter()
        .zip(running)
        .map(|(batch, running)| {
            Correction::new(batch, &Statistics::new(running.mean, running.var, eps), limits)
        })
        .collect();
    let affine = |(c, correction): (usize, &Correction)| {
        correction.affine(gamma.map_or(1.0, |gamma| gamma[c]), beta.map_or(0.0, |beta| beta[c]))
    };
    let (gamma, beta): (Vec<_>, Vec<_>) = corrections.iter().enumerate().map(affine).unzip();
    let batch::Forward { y, moments, statistics } =
        batch::train_forward(x, view, Some(&gamma), Some(&beta), eps);
    Forward { y, moments, statistics, corrections, gamma, beta }
}

/// Gradients through batch statistics, with r and d as constants.
pub fn backward(x: &[f64], dy: &[f64], view: Channels, forward: &Forward) -> Gradients {
    let plain = batch::backward(x, dy, view, &forward.statistics, Some(&forward.gamma));
    let dgamma = plain.dgamma.iter().zip(&plain.dbeta).zip(&forward.corrections);
    let dgamma = dgamma.map(|((dy_xhat, dy), c)| c.r * dy_xhat + c.d * dy).collect();
    Gradients { dgamma, ..plain }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::shape::Layout;

    const VIEW: Channels = Channels { samples: 3, channels: 2, inner: 4, layout: Layout::ChannelsFirst };
    const EPS: f64 = 1e-3;
    const RUNNING: [Running; 2] =
        [Running { mean: 0.3, var: 2.0, batches: 9 }, Running { mean: -1.0, var: 0.2, batches: 9 }];

    fn values(seed: u64, len: usize) -> Vec<f64> {
        (0..len as u64).map(|i| (((i + 1) * 7919 + seed * 104_729) % 1009) as f64 / 300.0 - 1.5).collect()
    }

    #[test]
    fn by_hand() {
        // Mean 4, variance 5, with eps 4 σB = 3; σ = sqrt(32 + 4) = 6: r = 1/2, d = (4 − 1)/6.
        let view = Channels { samples: 2, channels: 1, inner: 2, layout: Layout::ChannelsFirst };
        let running = [Running { mean: 1.0, var: 32.0, batches: 0 }];
        let x = [1.0, 3.0, 5.0, 7.0];
        let out = |limits| train_forward(&x, view, &running, limits, Some(&[6.0]), Some(&[1.0]), 4.0);
        assert_eq!(out((3.0, 5.0)).corrections, [Correction { r: 0.5, d: 0.5 }]);
        // (x − 1)/6·6 + 1.
        assert_eq!(out((3.0, 5.0)).y, [1.0, 3.0, 5.0, 7.0]);
        assert_eq!(out((1.25, 0.25)).corrections, [Correction { r: 0.8, d: 0.25 }]);
        let closed = out((1.0, 0.0));
        assert_eq!(closed.corrections, [Correction::NONE]);
        assert_eq!(closed.y, batch::train_forward(&x, view, Some(&[6.0]), Some(&[1.0]), 4.0).y);
        let far = [Running { mean: 100.0, var: 1e-9, batches: 0 }];
        let limited = train_forward(&x, view, &far, (3.0, 5.0), None, None, 1e-9);
        assert_eq!(limited.corrections, [Correction { r: 3.0, d: -5.0 }]);
    }

    #[test]
    fn nan_stays_unless_limits_are_closed() {
        let batch = Statistics::new(0.0, 1.0, EPS);
        let running = Statistics::new(f64::NAN, f64::NAN, EPS);
        let c = Correction::new(&batch, &running, (3.0, 5.0));
        assert!(c.r.is_nan() && c.d.is_nan());
        assert_eq!(Correction::new(&batch, &running, (1.0, 0.0)), Correction::NONE);
    }

    #[test]
    fn gradients_are_finite_differences_with_r_and_d_frozen() {
        let (x, dy, gamma, beta) = (values(1, 24), values(2, 24), values(3, 2), values(4, 2));
        for limits in [(1.5, 0.2), (100.0, 100.0), (1.0, 5.0), (3.0, 0.0)] {
            let forward = train_forward(&x, VIEW, &RUNNING, limits, Some(&gamma), Some(&beta), EPS);
            let got = backward(&x, &dy, VIEW, &forward);
            let loss = |x: &[f64], gamma: &[f64], beta: &[f64]| {
                let s = batch::train_forward(x, VIEW, None, None, EPS).statistics;
                let y = |i: usize| {
                    let c = VIEW.channel_of(i as u64) as usize;
                    let Correction { r, d } = forward.corrections[c];
                    (s[c].normalize(x[i]) * r + d) * gamma[c] + beta[c]
                };
                (0..x.len()).map(|i| y(i) * dy[i]).sum::<f64>()
            };
            let numeric = |v: &[f64], loss: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
                let at = |i: usize, h: f64| {
                    let mut moved = v.to_vec();
                    moved[i] += h;
                    loss(&moved)
                };
                (0..v.len()).map(|i| (at(i, 1e-5) - at(i, -1e-5)) / 2e-5).collect()
            };
            for (got, expected) in [
                (&got.dx, numeric(&x, &|x| loss(x, &gamma, &beta))),
                (&got.dgamma, numeric(&gamma, &|gamma| loss(&x, gamma, &beta))),
                (&got.dbeta, numeric(&beta, &|beta| loss(&x, &gamma, beta))),
            ] {
                for (g, e) in got.iter().zip(&expected) {
                    assert!((g - e).abs() <= 1e-7 * (1.0 + e.abs()), "{limits:?}: {got:?} {expected:?}");
                }
            }
        }
    }
}
