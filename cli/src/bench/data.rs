//! Inputs of one shape on the host, and what an operation of batch norm must make of them: computed once, held against every layout,
//! cache state and implementation.

use std::cell::OnceCell;

use wgnorm::reference::activation::kinks;
use wgnorm::reference::bounds::{self, Magnitudes};
use wgnorm::reference::{self, GradientSums, Statistics, batch, map, reduce};
use wgnorm::{Activation, BatchNormOptions, Channels, DType, Layout, Result, RunningValues, Shape};

use super::BenchOp;
use super::expected::{Worst, clear_kinks};
use super::variant::Variant;
use wgnorm::eval::random;

pub const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();

/// Inputs in logical order; the values that are uploaded, already rounded to the element type.
pub struct Data {
    pub dims: Vec<usize>,
    pub view: Channels,
    pub variant: Variant,
    pub x: Vec<f32>,
    pub residual: Option<Vec<f32>>,
    pub dy: Vec<f32>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
    pub running: RunningValues,
    wide: OnceCell<Wide>,
    dy_wide: OnceCell<Vec<f64>>,
    batch: OnceCell<Vec<Statistics>>,
    z: [OnceCell<Vec<f64>>; 2],
    y: [OnceCell<Vec<f64>>; 2],
    backward: [OnceCell<Backward>; 2],
}

/// The same values for the reference.
struct Wide {
    x: Vec<f64>,
    residual: Option<Vec<f64>>,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    running: Vec<Statistics>,
}

/// Gradients, and what their bounds depend on.
struct Backward {
    dx: Vec<f64>,
    /// `None` where it is dy.
    dz: Option<Vec<f64>>,
    sums: Vec<GradientSums>,
    magnitudes: Vec<Magnitudes>,
}

/// Results of an operation in logical order.
pub enum Results {
    Forward { y: Vec<f32>, saved_inv_std: Option<Vec<f32>> },
    Backward { dx: Vec<f32>, d_residual: Option<Vec<f32>>, dgamma: Vec<f32>, dbeta: Vec<f32> },
}

impl Data {
    pub fn new(dims: &[usize], variant: Variant) -> Result<Self> {
        let view = Shape::new(dims)?.channels(Layout::ChannelsFirst)?;
        let len = view.elements() as usize;
        let c = view.channels as usize;
        let stored = |seed, shift, scale| rounded(variant.dtype, values(seed, len, shift, scale));
        let mut data = Self {
            dims: dims.to_vec(),
            view,
            variant,
            x: stored(1, 0.5, 2.0),
            residual: variant.residual.then(|| stored(7, 0.0, 1.0)),
            dy: stored(2, 0.0, 1.0),
            gamma: values(3, c, 1.0, 0.5),
            beta: values(4, c, 0.0, 0.5),
            running: RunningValues { mean: values(5, c, 0.5, 0.1), var: values(6, c, 1.3, 0.2), batches: 0 },
            wide: OnceCell::new(),
            dy_wide: OnceCell::new(),
            batch: OnceCell::new(),
            z: Default::default(),
            y: Default::default(),
            backward: Default::default(),
        };
        data.clear_kinks();
        Ok(data)
    }

    /// Clears dy where an operation's derivative may jump.
    fn clear_kinks(&mut self) {
        if kinks(self.variant.activation).is_empty() {
            return;
        }
        let mut dy = std::mem::take(&mut self.dy);
        for op in [BenchOp::TrainBackward, BenchOp::FrozenBackward] {
            let z = self.z(op);
            clear_kinks(&mut dy, self.variant.activation, |i| z[i] + self.residual(i));
        }
        self.dy = dy;
    }

    /// Compares results with the reference, within `factor` times the bounds of the crate. Returns the worst error as
    /// a fraction of that, or what is wrong.
    pub fn check(&self, op: BenchOp, results: &Results, factor: f64) -> Result<f64, String> {
        let (w, s, dtype) = (self.wide(), self.statistics(op), self.variant.dtype);
        let mut worst = Worst::within(factor);
        match results {
            Results::Forward { y, saved_inv_std } => {
                worst.hold("y", dtype, y, self.y(op), |i| self.y_bound(op, i))?;
                if let Some(got) = saved_inv_std {
                    let expected: Vec<_> = s.iter().map(|s| s.inv_std).collect();
                    worst.hold("inv_std", DType::F32, got, &expected, |c| bounds::inv_std(&s[c]))?;
                }
            }
            Results::Backward { dx, d_residual, dgamma, dbeta } => {
                let backward = self.backward(op);
                let Backward { dx: expected, sums, magnitudes: m, .. } = backward;
                let dz = backward.dz.as_deref().unwrap_or(self.dy_wide());
                worst.hold("dx", dtype, dx, expected, |i| {
                    let c = self.channel(i);
                    let (s, gamma) = (&s[c], w.gamma[c]);
                    let of_exact = match op {
                        BenchOp::FrozenBackward => bounds::frozen_dx(s, dz[i], gamma),
                        _ => bounds::dx(s, &m[c], &sums[c], self.view, w.x[i], dz[i], gamma),
                    };
                    let (dz_error, xhat_error) = (self.dz_error(op, i), self.xhat_error(op, i));
                    let of_errors = bounds::dx_error(s, &sums[c], self.view, gamma, dz_error, xhat_error);
                    bounds::stored(dtype, expected[i], of_exact + of_errors)
                })?;
                if let Some(got) = d_residual {
                    worst.hold("d_residual", dtype, got, dz, |i| {
                        bounds::stored(dtype, dz[i], self.dz_error(op, i))
                    })?;
                }
                let expected: Vec<_> = sums.iter().map(|sums| sums.dy_xhat).collect();
                worst.hold("dgamma", DType::F32, dgamma, &expected, |c| bounds::dgamma(&m[c]))?;
                let expected: Vec<_> = sums.iter().map(|sums| sums.dy).collect();
                worst.hold("dbeta", DType::F32, dbeta, &expected, |c| bounds::dbeta(&m[c]))?;
            }
        }
        Ok(worst.ratio)
    }

    fn channel(&self, i: usize) -> usize {
        self.view.channel_of(i as u64) as usize
    }

    fn residual(&self, i: usize) -> f64 {
        self.residual.as_ref().map_or(0.0, |residual| residual[i].into())
    }

    /// Bound of z, the residual included.
    fn z_bound(&self, op: BenchOp, i: usize) -> f64 {
        let (w, c) = (self.wide(), self.channel(i));
        bounds::z(&self.statistics(op)[c], w.x[i], w.gamma[c], w.beta[c], self.residual(i))
    }

    /// Bound of y as it is stored.
    fn y_bound(&self, op: BenchOp, i: usize) -> f64 {
        let bound = if self.variant.is_fused() {
            let z = self.z(op)[i] + self.residual(i);
            bounds::activated(self.variant.activation, z, self.z_bound(op, i))
        } else {
            let (w, c) = (self.wide(), self.channel(i));
            bounds::y(&self.statistics(op)[c], w.x[i], w.gamma[c], w.beta[c])
        };
        bounds::stored(self.variant.dtype, self.y(op)[i], bound)
    }

    /// Bound of dz; it is exact where it is dy.
    fn dz_error(&self, op: BenchOp, i: usize) -> f64 {
        match self.variant.activation {
            Activation::None => 0.0,
            activation => bounds::dz(activation, self.dy[i].into(), self.z_bound(op, i)),
        }
    }

    /// Error of an x̂ that is recovered from the y that was stored.
    fn xhat_error(&self, op: BenchOp, i: usize) -> f64 {
        if !self.variant.recovers(op) {
            return 0.0;
        }
        let (w, c) = (self.wide(), self.channel(i));
        let (y, bound) = (self.y(op)[i], self.y_bound(op, i));
        bounds::recovered_xhat(self.variant.activation, y, bound, w.gamma[c], w.beta[c], self.residual(i))
    }

    fn wide(&self) -> &Wide {
        self.wide.get_or_init(|| Wide {
            x: widen(&self.x),
            residual: self.residual.as_deref().map(widen),
            gamma: widen(&self.gamma),
            beta: widen(&self.beta),
            running: widen(&self.running.mean)
                .into_iter()
                .zip(widen(&self.running.var))
                .map(|(mean, var)| Statistics::new(mean, var, OPTIONS.eps))
                .collect(),
        })
    }

    fn dy_wide(&self) -> &[f64] {
        self.dy_wide.get_or_init(|| widen(&self.dy))
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

    /// `x̂·gamma + beta`.
    fn z(&self, op: BenchOp) -> &[f64] {
        self.z[usize::from(op.is_frozen())].get_or_init(|| {
            let w = self.wide();
            batch::inference(&w.x, self.view, self.statistics(op), Some(&w.gamma), Some(&w.beta))
        })
    }

    fn y(&self, op: BenchOp) -> &[f64] {
        if !self.variant.is_fused() {
            return self.z(op);
        }
        self.y[usize::from(op.is_frozen())].get_or_init(|| {
            map::activated(self.z(op), self.wide().residual.as_deref(), self.variant.activation)
        })
    }

    fn backward(&self, op: BenchOp) -> &Backward {
        self.backward[usize::from(op.is_frozen())].get_or_init(|| {
            let (w, s, view, dy) = (self.wide(), self.statistics(op), self.view, self.dy_wide());
            let activation = self.variant.activation;
            let dz = (activation != Activation::None)
                .then(|| map::dz(self.z(op), w.residual.as_deref(), dy, activation));
            let gradient = dz.as_deref().unwrap_or(dy);
            let sums = reduce::gradient_sums(&w.x, gradient, view, s);
            let dx = match op {
                BenchOp::FrozenBackward => map::frozen(gradient, view, s, Some(&w.gamma)),
                _ => map::backward(&w.x, gradient, view, s, &sums, Some(&w.gamma)),
            };
            let mut magnitudes = bounds::magnitudes(&w.x, gradient, view, s);
            if dz.is_some() || self.variant.recovers(op) {
                for (i, dz) in gradient.iter().enumerate() {
                    let c = self.channel(i);
                    let dz_error = self.dz_error(op, i);
                    magnitudes[c].dy_error += dz_error;
                    magnitudes[c].dy_xhat_error +=
                        dz_error * s[c].normalize(w.x[i]).abs() + dz.abs() * self.xhat_error(op, i);
                }
            }
            Backward { dx, dz, sums, magnitudes }
        })
    }
}

/// The values that a type stores.
pub fn rounded(dtype: DType, values: Vec<f32>) -> Vec<f32> {
    match dtype {
        DType::F32 => values,
        _ => dtype.decode(&dtype.encode(&values)),
    }
}

/// Uniform pseudo-random numbers in `shift ± scale`.
pub fn values(seed: u64, len: usize, shift: f64, scale: f64) -> Vec<f32> {
    random::uniform(seed).take(len).map(|u| (u * scale + shift) as f32).collect()
}

pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::expected::KINK_MARGIN;
    use super::*;

    fn narrow(values: &[f64]) -> Vec<f32> {
        values.iter().map(|&value| value as f32).collect()
    }

    #[test]
    fn the_reference_passes_and_what_is_off_does_not() {
        for (op, variant) in BenchOp::ALL.iter().flat_map(|&op| variants().map(move |variant| (op, variant)))
        {
            let data = Data::new(&[2, 3, 5, 7], variant).unwrap();
            let stored = |values: &[f64]| rounded(variant.dtype, narrow(values));
            let right = |moved: f32| match op.is_forward() {
                true => {
                    let mut y = stored(data.y(op));
                    y[17] += moved;
                    Results::Forward { y, saved_inv_std: None }
                }
                false => {
                    let Backward { dx, dz, sums, .. } = data.backward(op);
                    let part =
                        |value: &dyn Fn(&GradientSums) -> f64| sums.iter().map(|s| value(s) as f32).collect();
                    let mut dgamma: Vec<f32> = part(&|sums| sums.dy_xhat);
                    dgamma[1] += moved;
                    let d_residual = dz.as_ref().map(|dz| stored(dz));
                    Results::Backward { dx: stored(dx), d_residual, dgamma, dbeta: part(&|sums| sums.dy) }
                }
            };
            // More than what half precision and an x̂ recovered from it lose.
            let moved = if variant == Variant::default() { 1e-3 } else { 9.0 };
            assert!(data.check(op, &right(0.0), 1.0).is_ok(), "{op:?} {variant:?}");
            assert!(data.check(op, &right(moved), 1.0).is_err(), "{op:?} {variant:?}");
            assert!(data.check(op, &right(f32::NAN), 1e6).is_err(), "{op:?} {variant:?}");
        }
    }

    /// Every element type with every activation, plain, with a residual and in place.
    fn variants() -> impl Iterator<Item = Variant> {
        let kinds = [(false, false), (true, false), (true, true)];
        let types = [DType::F32, DType::F16, DType::Bf16];
        types.into_iter().flat_map(move |dtype| {
            Activation::ALL.into_iter().flat_map(move |activation| {
                kinds.map(|(residual, in_place)| Variant {
                    dtype,
                    activation,
                    residual,
                    in_place,
                    sum: false,
                })
            })
        })
    }

    #[test]
    fn there_is_no_gradient_at_a_kink() {
        let variant = Variant { activation: Activation::Relu, residual: true, ..Default::default() };
        let data = Data::new(&[8, 3, 20, 20], variant).unwrap();
        let near = |op, i: usize| (data.z(op)[i] + data.residual(i)).abs() < KINK_MARGIN;
        let both = [BenchOp::TrainBackward, BenchOp::FrozenBackward];
        let cleared: Vec<_> = (0..data.dy.len()).filter(|&i| both.iter().any(|&op| near(op, i))).collect();
        assert!(!cleared.is_empty() && cleared.iter().all(|&i| data.dy[i] == 0.0), "{cleared:?}");
        assert!(data.dy.iter().filter(|dy| **dy == 0.0).count() <= cleared.len() + 1);
    }
}
