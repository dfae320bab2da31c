//! Map: one pass over the elements with the statistics of each channel. Twin of shaders/map/.

use super::activation::{activate, gradient};
use super::fold::Statistics;
use super::reduce::{GradientSums, channel};
use crate::base::activation::Activation;
use crate::base::shape::Channels;

/// `y = x̂·gamma + beta`; gamma is 1 and beta 0 where they are absent.
pub fn forward(
    x: &[f64],
    view: Channels,
    statistics: &[Statistics],
    gamma: Option<&[f64]>,
    beta: Option<&[f64]>,
) -> Vec<f64> {
    per_element(x.len(), view, |c, i| {
        statistics[c].normalize(x[i]) * gamma.map_or(1.0, |g| g[c]) + beta.map_or(0.0, |b| b[c])
    })
}

/// `act(z + residual)` of `z = x̂·gamma + beta`.
pub fn activated(z: &[f64], residual: Option<&[f64]>, activation: Activation) -> Vec<f64> {
    let added = |i: usize| z[i] + residual.map_or(0.0, |residual| residual[i]);
    (0..z.len()).map(|i| activate(activation, added(i))).collect()
}

/// dz, the gradient before the activation, `dy·act'(z + residual)`: the dy of [`backward`] and [`frozen`], and d_residual.
pub fn dz(z: &[f64], residual: Option<&[f64]>, dy: &[f64], activation: Activation) -> Vec<f64> {
    let added = |i: usize| z[i] + residual.map_or(0.0, |residual| residual[i]);
    (0..z.len()).map(|i| gradient(activation, added(i), dy[i])).collect()
}

/// dx through batch statistics: `gamma·inv_std·(dy − Σdy/n − x̂·Σdy·x̂/n)`.
pub fn backward(
    x: &[f64],
    dy: &[f64],
    view: Channels,
    statistics: &[Statistics],
    sums: &[GradientSums],
    gamma: Option<&[f64]>,
) -> Vec<f64> {
    let n = view.count() as f64;
    per_element(x.len(), view, |c, i| {
        let s = statistics[c];
        let centred = dy[i] - sums[c].dy / n - s.normalize(x[i]) * sums[c].dy_xhat / n;
        gamma.map_or(1.0, |g| g[c]) * s.inv_std * centred
    })
}

/// dx through frozen statistics: `gamma·inv_std·dy`.
pub fn frozen(dy: &[f64], view: Channels, statistics: &[Statistics], gamma: Option<&[f64]>) -> Vec<f64> {
    per_element(dy.len(), view, |c, i| gamma.map_or(1.0, |g| g[c]) * statistics[c].inv_std * dy[i])
}

fn per_element(len: usize, view: Channels, value: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut out = vec![0.0; len];
    for c in 0..view.channels {
        for i in channel(view, c) {
            out[i] = value(c as usize, i);
        }
    }
    out
}
