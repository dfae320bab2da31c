//! Batch norm with a mask: the same operations over the values that count.

use super::batch::{Forward, Gradients};
use super::fold::Statistics;
use super::map;
use super::reduce::{self, GradientSums, Moments};
use crate::base::shape::{Channels, Layout};

/// Whether the element at a flat index counts; `keep` has a truth value for each sample and position.
pub fn counts(view: Channels, keep: &[bool], index: usize) -> bool {
    let (c, inner) = (view.channels as usize, view.inner as usize);
    match view.layout {
        Layout::ChannelsFirst => keep[index / (c * inner) * inner + index % inner],
        Layout::ChannelsLast => keep[index / c],
    }
}

/// Moments per channel of the values that count, in two passes.
pub fn moments(x: &[f64], view: Channels, keep: &[bool]) -> Vec<Moments> {
    (0..view.channels)
        .map(|c| {
            let kept: Vec<f64> =
                reduce::channel(view, c).filter(|&i| counts(view, keep, i)).map(|i| x[i]).collect();
            let n = kept.len() as f64;
            if kept.is_empty() {
                return Moments::default();
            }
            let mean = kept.iter().sum::<f64>() / n;
            let var = kept.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
            Moments { count: kept.len() as u64, mean, var }
        })
        .collect()
}

/// Training forward: all values are normalized with the statistics of those that count, of which a channel without any gives beta.
pub fn train_forward(
    x: &[f64],
    view: Channels,
    keep: &[bool],
    gamma: Option<&[f64]>,
    beta: Option<&[f64]>,
    eps: f64,
) -> Forward {
    let moments = moments(x, view, keep);
    let statistics: Vec<_> = moments
        .iter()
        .map(|m| match m.count {
            0 => Statistics { mean: 0.0, var: 0.0, inv_std: 0.0 },
            _ => Statistics::new(m.mean, m.var, eps),
        })
        .collect();
    let y = map::forward(x, view, &statistics, gamma, beta);
    Forward { y, moments, statistics }
}

/// Gradient sums per channel over the values that count.
pub fn gradient_sums(
    x: &[f64],
    dy: &[f64],
    view: Channels,
    keep: &[bool],
    statistics: &[Statistics],
) -> Vec<GradientSums> {
    (0..view.channels)
        .map(|c| {
            let s = statistics[c as usize];
            let kept = reduce::channel(view, c).filter(|&i| counts(view, keep, i));
            GradientSums {
                dy: kept.clone().map(|i| dy[i]).sum(),
                dy_xhat: kept.map(|i| dy[i] * s.normalize(x[i])).sum(),
            }
        })
        .collect()
}

/// Gradients through batch statistics: dx is 0 where values do not count.
pub fn backward(
    x: &[f64],
    dy: &[f64],
    view: Channels,
    keep: &[bool],
    forward: &Forward,
    gamma: Option<&[f64]>,
) -> Gradients {
    let s = &forward.statistics;
    let sums = gradient_sums(x, dy, view, keep, s);
    let dx = (0..x.len())
        .map(|i| {
            if !counts(view, keep, i) {
                return 0.0;
            }
            let c = view.channel_of(i as u64) as usize;
            let n = forward.moments[c].count as f64;
            let g = gamma.map_or(1.0, |gamma| gamma[c]);
            let xhat = s[c].normalize(x[i]);
            g * s[c].inv_std * (dy[i] - sums[c].dy / n - xhat * sums[c].dy_xhat / n)
        })
        .collect();
    Gradients {
        dx,
        dgamma: sums.iter().map(|s| s.dy_xhat).collect(),
        dbeta: sums.iter().map(|s| s.dy).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_finite_differences_and_what_is_masked_does_not_matter() {
        for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
            let view = Channels { samples: 3, channels: 2, inner: 3, layout };
            let keep = [true, false, true, true, true, false, false, true, true];
            let value =
                |i: usize, seed: usize| ((i + 1) * 7919 + seed * 104_729) as f64 % 1009.0 / 300.0 - 1.5;
            let x: Vec<f64> = (0..18).map(|i| value(i, 1)).collect();
            let dy: Vec<f64> = (0..18).map(|i| value(i, 2)).collect();
            let gamma = [1.5, -0.5];
            let loss = |x: &[f64]| -> f64 {
                let y = train_forward(x, view, &keep, Some(&gamma), None, 1e-3).y;
                (0..18).filter(|&i| counts(view, &keep, i)).map(|i| y[i] * dy[i]).sum()
            };
            let forward = train_forward(&x, view, &keep, Some(&gamma), None, 1e-3);
            let got = backward(&x, &dy, view, &keep, &forward, Some(&gamma));
            for i in 0..18 {
                let mut moved = x.clone();
                moved[i] += 1e-5;
                let above = loss(&moved);
                moved[i] -= 2e-5;
                let numeric = (above - loss(&moved)) / 2e-5;
                assert!((got.dx[i] - numeric).abs() < 1e-8, "{i}: {} {numeric}", got.dx[i]);
            }
            assert_eq!(forward.moments.iter().map(|m| m.count).collect::<Vec<_>>(), [6, 6]);
        }
    }

    #[test]
    fn without_a_mask_it_is_batch_norm() {
        let view = Channels { samples: 2, channels: 1, inner: 2, layout: Layout::ChannelsFirst };
        let x = [1.0, 2.0, 3.0, 5.0];
        let all = [true; 4];
        let plain = super::super::batch::train_forward(&x, view, None, None, 1e-5);
        assert_eq!(train_forward(&x, view, &all, None, None, 1e-5), plain);
        let none = train_forward(&x, view, &[false; 4], None, Some(&[7.0]), 1e-5);
        assert_eq!(none.y, [7.0; 4]);
    }
}
