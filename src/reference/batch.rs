//! The operations of a batch-norm layer, composed from reduce, fold and map.

use super::fold::Statistics;
use super::reduce::Moments;
use super::{map, reduce};
use crate::base::shape::Channels;

/// Results of a training forward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// `x̂·gamma + beta`.
    pub y: Vec<f64>,
    /// Moments of the batch per channel.
    pub moments: Vec<Moments>,
    /// Statistics per channel.
    pub statistics: Vec<Statistics>,
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
}

/// Training forward: statistics of the batch, normalize, scale and shift.
pub fn train_forward(
    x: &[f64],
    view: Channels,
    gamma: Option<&[f64]>,
    beta: Option<&[f64]>,
    eps: f64,
) -> Forward {
    let moments = reduce::moments(x, view);
    let statistics: Vec<_> = moments.iter().map(|m| Statistics::new(m.mean, m.var, eps)).collect();
    let y = map::forward(x, view, &statistics, gamma, beta);
    Forward { y, moments, statistics }
}

/// Inference from given statistics.
pub fn inference(
    x: &[f64],
    view: Channels,
    statistics: &[Statistics],
    gamma: Option<&[f64]>,
    beta: Option<&[f64]>,
) -> Vec<f64> {
    map::forward(x, view, statistics, gamma, beta)
}

/// Gradients through batch statistics.
pub fn backward(
    x: &[f64],
    dy: &[f64],
    view: Channels,
    statistics: &[Statistics],
    gamma: Option<&[f64]>,
) -> Gradients {
    let sums = reduce::gradient_sums(x, dy, view, statistics);
    Gradients {
        dx: map::backward(x, dy, view, statistics, &sums, gamma),
        dgamma: sums.iter().map(|s| s.dy_xhat).collect(),
        dbeta: sums.iter().map(|s| s.dy).collect(),
    }
}

/// Gradients through frozen statistics.
pub fn frozen_backward(
    x: &[f64],
    dy: &[f64],
    view: Channels,
    statistics: &[Statistics],
    gamma: Option<&[f64]>,
) -> Gradients {
    let sums = reduce::gradient_sums(x, dy, view, statistics);
    Gradients {
        dx: map::frozen(dy, view, statistics, gamma),
        dgamma: sums.iter().map(|s| s.dy_xhat).collect(),
        dbeta: sums.iter().map(|s| s.dy).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::shape::Layout;

    const VIEW: Channels = Channels { samples: 3, channels: 2, inner: 4, layout: Layout::ChannelsFirst };
    const EPS: f64 = 1e-3;

    /// Values without structure.
    fn values(seed: u64, len: usize) -> Vec<f64> {
        (0..len as u64).map(|i| (((i + 1) * 7919 + seed * 104_729) % 1009) as f64 / 300.0 - 1.5).collect()
    }

    /// dL/dv by central differences, for L = Σ dy·y.
    fn numeric(v: &[f64], dy: &[f64], y_of: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
        let h = 1e-5;
        let loss = |v: &[f64]| y_of(v).iter().zip(dy).map(|(y, dy)| y * dy).sum::<f64>();
        (0..v.len())
            .map(|i| {
                let mut moved = v.to_vec();
                moved[i] = v[i] + h;
                let above = loss(&moved);
                moved[i] = v[i] - h;
                (above - loss(&moved)) / (2.0 * h)
            })
            .collect()
    }

    fn assert_close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(expected) {
            assert!((g - e).abs() <= 1e-8 * (1.0 + e.abs()), "{got:?} is not {expected:?}");
        }
    }

    #[test]
    fn forward_by_hand() {
        // Channel 0 holds 1, 3, 5, 7: mean 4, variance 5; with eps 4 the divisor is 3.
        let view = Channels { samples: 2, channels: 2, inner: 2, layout: Layout::ChannelsFirst };
        let x = [1.0, 3.0, 10.0, 10.0, 5.0, 7.0, 10.0, 10.0];
        let out = train_forward(&x, view, Some(&[3.0, 2.0]), Some(&[0.5, -1.0]), 4.0);
        assert_close(&out.y, &[-2.5, -0.5, -1.0, -1.0, 1.5, 3.5, -1.0, -1.0]);
        assert_eq!(out.moments[0], Moments { count: 4, mean: 4.0, var: 5.0 });
    }

    #[test]
    fn backward_by_hand() {
        // x̂ = (−1, 1), dy = (1, 3): dbeta 4, dgamma 2; dy − 2 − x̂·1 = (0, 0).
        let view = Channels { samples: 1, channels: 1, inner: 2, layout: Layout::ChannelsFirst };
        let statistics = [Statistics::new(0.0, 1.0, 0.0)];
        let out = backward(&[-1.0, 1.0], &[1.0, 3.0], view, &statistics, Some(&[5.0]));
        assert_eq!(out, Gradients { dx: vec![0.0, 0.0], dgamma: vec![2.0], dbeta: vec![4.0] });
        let out = frozen_backward(&[-1.0, 1.0], &[1.0, 3.0], view, &statistics, Some(&[5.0]));
        assert_eq!(out.dx, [5.0, 15.0]);
    }

    #[test]
    fn training_gradients_are_finite_differences() {
        let (x, dy) = (values(1, 24), values(2, 24));
        let (gamma, beta) = (values(3, 2), values(4, 2));
        let statistics = train_forward(&x, VIEW, None, None, EPS).statistics;
        let out = backward(&x, &dy, VIEW, &statistics, Some(&gamma));
        let y = |x: &[f64], g: &[f64], b: &[f64]| train_forward(x, VIEW, Some(g), Some(b), EPS).y;
        assert_close(&out.dx, &numeric(&x, &dy, |x| y(x, &gamma, &beta)));
        assert_close(&out.dgamma, &numeric(&gamma, &dy, |g| y(&x, g, &beta)));
        assert_close(&out.dbeta, &numeric(&beta, &dy, |b| y(&x, &gamma, b)));
        // Without gamma.
        let out = backward(&x, &dy, VIEW, &statistics, None);
        assert_close(&out.dx, &numeric(&x, &dy, |x| train_forward(x, VIEW, None, None, EPS).y));
    }

    #[test]
    fn frozen_gradients_are_finite_differences() {
        let (x, dy) = (values(5, 24), values(6, 24));
        let (gamma, beta) = (values(7, 2), values(8, 2));
        let statistics = [Statistics::new(0.3, 0.7, EPS), Statistics::new(-2.0, 1.9, EPS)];
        let out = frozen_backward(&x, &dy, VIEW, &statistics, Some(&gamma));
        let y = |x: &[f64], g: &[f64], b: &[f64]| inference(x, VIEW, &statistics, Some(g), Some(b));
        assert_close(&out.dx, &numeric(&x, &dy, |x| y(x, &gamma, &beta)));
        assert_close(&out.dgamma, &numeric(&gamma, &dy, |g| y(&x, g, &beta)));
        assert_close(&out.dbeta, &numeric(&beta, &dy, |b| y(&x, &gamma, b)));
    }
}
