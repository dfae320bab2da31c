//! Inputs of one shape on the host, and what an operation must make of them: computed once, held against every layout,
//! cache state and implementation.

use std::cell::OnceCell;

use wgnorm::reference::bounds::{self, Magnitudes};
use wgnorm::reference::{self, GradientSums, Statistics, WhereNan, batch, compare, reduce};
use wgnorm::{BatchNormOptions, Channels, Layout, Result, RunningValues, Shape};

use super::BenchOp;
use crate::random;

pub const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();

/// Inputs in logical order; the f32 values that are uploaded.
pub struct Data {
    pub dims: Vec<usize>,
    pub view: Channels,
    pub x: Vec<f32>,
    pub dy: Vec<f32>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
    pub running: RunningValues,
    wide: OnceCell<Wide>,
    batch: OnceCell<Vec<Statistics>>,
    forward: [OnceCell<Vec<f64>>; 2],
    backward: [OnceCell<Backward>; 2],
}

/// The same values for the reference.
struct Wide {
    x: Vec<f64>,
    dy: Vec<f64>,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    running: Vec<Statistics>,
}

/// Gradients, and what their bounds depend on.
struct Backward {
    dx: Vec<f64>,
    sums: Vec<GradientSums>,
    magnitudes: Vec<Magnitudes>,
}

/// Results of an operation in logical order.
pub enum Results {
    Forward { y: Vec<f32>, saved_inv_std: Option<Vec<f32>> },
    Backward { dx: Vec<f32>, dgamma: Vec<f32>, dbeta: Vec<f32> },
}

impl Data {
    pub fn new(dims: &[usize]) -> Result<Self> {
        let view = Shape::new(dims)?.channels(Layout::ChannelsFirst)?;
        let len = view.elements() as usize;
        let c = view.channels as usize;
        Ok(Self {
            dims: dims.to_vec(),
            view,
            x: values(1, len, 0.5, 2.0),
            dy: values(2, len, 0.0, 1.0),
            gamma: values(3, c, 1.0, 0.5),
            beta: values(4, c, 0.0, 0.5),
            running: RunningValues { mean: values(5, c, 0.5, 0.1), var: values(6, c, 1.3, 0.2), batches: 0 },
            wide: OnceCell::new(),
            batch: OnceCell::new(),
            forward: Default::default(),
            backward: Default::default(),
        })
    }

    /// Compares results with the reference, within `factor` times the bounds of the crate. Returns the worst error as
    /// a fraction of that, or what is wrong.
    pub fn check(&self, op: BenchOp, results: &Results, factor: f64) -> Result<f64, String> {
        let (view, w, s) = (self.view, self.wide(), self.statistics(op));
        let channel = |i: usize| view.channel_of(i as u64) as usize;
        let mut worst = 0.0_f64;
        let mut hold = |what: &str, got: &[f32], expected: &[f64], bound: &dyn Fn(usize) -> f64| {
            let found = compare(got, expected, WhereNan::Nan, |i| factor * bound(i))
                .map_err(|error| format!("{what}: {error}"))?;
            worst = worst.max(found.ratio);
            if found.passes() { Ok(()) } else { Err(format!("{what}: {found}")) }
        };
        match results {
            Results::Forward { y, saved_inv_std } => {
                hold("y", y, self.forward(op), &|i| {
                    let c = channel(i);
                    bounds::y(&s[c], w.x[i], w.gamma[c], w.beta[c])
                })?;
                if let Some(got) = saved_inv_std {
                    let expected: Vec<_> = s.iter().map(|s| s.inv_std).collect();
                    hold("inv_std", got, &expected, &|c| bounds::inv_std(&s[c]))?;
                }
            }
            Results::Backward { dx, dgamma, dbeta } => {
                let Backward { dx: expected, sums, magnitudes: m } = self.backward(op);
                hold("dx", dx, expected, &|i| {
                    let c = channel(i);
                    match op {
                        BenchOp::FrozenBackward => bounds::frozen_dx(&s[c], w.dy[i], w.gamma[c]),
                        _ => bounds::dx(&s[c], &m[c], &sums[c], view, w.x[i], w.dy[i], w.gamma[c]),
                    }
                })?;
                let expected: Vec<_> = sums.iter().map(|sums| sums.dy_xhat).collect();
                hold("dgamma", dgamma, &expected, &|c| bounds::dgamma(&m[c]))?;
                let expected: Vec<_> = sums.iter().map(|sums| sums.dy).collect();
                hold("dbeta", dbeta, &expected, &|c| bounds::dbeta(&m[c]))?;
            }
        }
        Ok(worst)
    }

    fn wide(&self) -> &Wide {
        self.wide.get_or_init(|| Wide {
            x: widen(&self.x),
            dy: widen(&self.dy),
            gamma: widen(&self.gamma),
            beta: widen(&self.beta),
            running: widen(&self.running.mean)
                .into_iter()
                .zip(widen(&self.running.var))
                .map(|(mean, var)| Statistics::new(mean, var, OPTIONS.eps))
                .collect(),
        })
    }

    /// The statistics that an operation uses.
    fn statistics(&self, op: BenchOp) -> &[Statistics] {
        if op.is_frozen() {
            return &self.wide().running;
        }
        self.batch.get_or_init(|| {
            let moments = reference::reduce::moments(&self.wide().x, self.view);
            moments.iter().map(|m| Statistics::new(m.mean, m.var, OPTIONS.eps)).collect()
        })
    }

    fn forward(&self, op: BenchOp) -> &[f64] {
        self.forward[usize::from(op.is_frozen())].get_or_init(|| {
            let w = self.wide();
            batch::inference(&w.x, self.view, self.statistics(op), Some(&w.gamma), Some(&w.beta))
        })
    }

    fn backward(&self, op: BenchOp) -> &Backward {
        self.backward[usize::from(op.is_frozen())].get_or_init(|| {
            let (w, s, view) = (self.wide(), self.statistics(op), self.view);
            let sums = reduce::gradient_sums(&w.x, &w.dy, view, s);
            let dx = match op {
                BenchOp::FrozenBackward => reference::map::frozen(&w.dy, view, s, Some(&w.gamma)),
                _ => reference::map::backward(&w.x, &w.dy, view, s, &sums, Some(&w.gamma)),
            };
            Backward { dx, sums, magnitudes: bounds::magnitudes(&w.x, &w.dy, view, s) }
        })
    }
}

/// Uniform pseudo-random numbers in `shift ± scale`.
fn values(seed: u64, len: usize, shift: f64, scale: f64) -> Vec<f32> {
    random::uniform(seed).take(len).map(|u| (u * scale + shift) as f32).collect()
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow(values: &[f64]) -> Vec<f32> {
        values.iter().map(|&value| value as f32).collect()
    }

    #[test]
    fn the_reference_passes_and_what_is_off_does_not() {
        let data = Data::new(&[2, 3, 5, 7]).unwrap();
        for op in BenchOp::ALL {
            let right = |moved: f32| match op.is_forward() {
                true => {
                    let mut y = narrow(data.forward(op));
                    y[17] += moved;
                    Results::Forward { y, saved_inv_std: None }
                }
                false => {
                    let Backward { dx, sums, .. } = data.backward(op);
                    let part =
                        |value: &dyn Fn(&GradientSums) -> f64| sums.iter().map(|s| value(s) as f32).collect();
                    let mut dgamma: Vec<f32> = part(&|sums| sums.dy_xhat);
                    dgamma[1] += moved;
                    Results::Backward { dx: narrow(dx), dgamma, dbeta: part(&|sums| sums.dy) }
                }
            };
            assert!(data.check(op, &right(0.0), 1.0).is_ok(), "{op:?}");
            assert!(data.check(op, &right(1e-3), 1.0).is_err(), "{op:?}");
            assert!(data.check(op, &right(f32::NAN), 1e6).is_err(), "{op:?}");
        }
    }
}
