//! What batch norm must give, in training and frozen: the f64 reference with the bounds of each output.

use std::borrow::Cow;

use super::data::{Draw, widen};
use super::expected::{Expected, allow_for, avoid_kinks};
use super::inputs::{Inputs, channels};
use super::int8;
use crate::base::shape::Channels;
use crate::reference::bounds::{self, Magnitudes};
use crate::reference::fold::Running;
use crate::reference::{GradientSums, Moments, Statistics, map, masked, reduce};
use crate::spec::{Spec, Wanted};
use crate::statistics::saved::Saved;

/// Training forward, and backward if there is a dy. Clears dy at kinks.
pub(super) fn train(spec: &Spec, draw: &Draw, inputs: &mut Inputs) -> Vec<Expected> {
    let view = channels(&spec.shape);
    let eps = spec.batch_options().eps;
    let moments = reduce::moments(&widen(&inputs.x), view);
    let mut statistics: Vec<_> = moments.iter().map(|m| Statistics::new(m.mean, m.var, eps)).collect();
    // A variance beyond the limits is NaN in y, and in all that follows from it, never a finite number.
    for s in statistics.iter_mut().filter(|s| bounds::is_beyond(s.var, eps)) {
        s.inv_std = f64::NAN;
    }
    let over_x = spec.in_place && spec.activation.is_invertible();
    let twin = Twin::new(spec, inputs, view, statistics);
    let s = &twin.statistics;
    let running: Vec<_> = (0..s.len()).map(|c| updated(running(inputs, c), moments[c], spec)).collect();
    let before = &inputs.running;
    let magnitudes: Vec<_> = (0..view.channels)
        .map(|c| {
            let sum: f64 = reduce::channel(view, c).map(|i| f64::from(inputs.x[i].abs())).sum();
            sum / view.count() as f64
        })
        .collect();
    let of_mean = |c: usize| bounds::single_mean(&s[c], eps, magnitudes[c]);
    let mut expected = vec![
        twin.expect_y(),
        Expected::new("save_mean", s.iter().map(|s| s.mean).collect(), of_mean),
        Expected::new("save_var", s.iter().map(|s| s.var).collect(), |c| bounds::var(&s[c])),
        Expected::new("save_invstd", s.iter().map(|s| s.inv_std).collect(), |c| bounds::inv_std(&s[c])),
        Expected::new("running_mean", running.iter().map(|r| r.mean).collect(), |c| {
            of_mean(c) + 8.0 * bounds::U * (s[c].mean.abs() + f64::from(before.mean[c]).abs())
        }),
        Expected::new("running_var", running.iter().map(|r| r.var).collect(), |c| {
            2.0 * bounds::var(&s[c]) + 8.0 * bounds::U * f64::from(before.var[c])
        }),
    ];
    if over_x {
        let least = f64::from(Saved::least_gamma(spec.dtype));
        let recoverable = (0..s.len()).map(|c| f64::from(u8::from(inputs.gamma(c).abs() >= least)));
        expected.push(Expected::new("recoverable", recoverable.collect(), |_| 0.0));
    }
    expected.extend(twin.expect_gradients(inputs, if over_x { Through::BatchFromY } else { Through::Batch }));
    allow_for(draw.data, &mut expected);
    expected
}

/// Inference, and backward through the running statistics if there is a dy. Clears dy at kinks.
pub(super) fn frozen(spec: &Spec, inputs: &mut Inputs) -> Vec<Expected> {
    let view = channels(&spec.shape);
    let eps = spec.batch_options().eps;
    let statistics = (0..view.channels as usize)
        .map(|c| Statistics::new(running(inputs, c).mean, running(inputs, c).var, eps))
        .collect();
    let twin = Twin::new(spec, inputs, view, statistics);
    let mut expected = vec![twin.expect_y()];
    expected.extend(twin.expect_gradients(inputs, Through::Running));
    expected
}

/// The running statistics of a channel before.
pub(super) fn running(inputs: &Inputs, c: usize) -> Running {
    let before = &inputs.running;
    Running { mean: before.mean[c].into(), var: before.var[c].into(), batches: before.batches.into() }
}

/// The same after a batch, whose variance kernels have in f32 before it is weighted.
pub(super) fn updated(before: Running, batch: Moments, spec: &Spec) -> Running {
    let var = if batch.var > f32::MAX.into() { f64::INFINITY } else { batch.var };
    before.update(Moments { var, ..batch }, spec.momentum, spec.running_variance)
}

/// Running statistics after a batch whose moments are known; those of a channel without values stay.
pub(super) fn expect_running(spec: &Spec, inputs: &Inputs, moments: &[Moments]) -> [Expected; 2] {
    let after: Vec<_> = moments
        .iter()
        .enumerate()
        .map(|(c, batch)| match batch.count {
            0 => running(inputs, c),
            _ => updated(running(inputs, c), *batch, spec),
        })
        .collect();
    let bound = |value: f64| 64.0 * bounds::U * (1.0 + value.abs());
    [
        Expected::new("running_mean", after.iter().map(|r| r.mean).collect(), |c| bound(after[c].mean)),
        Expected::new("running_var", after.iter().map(|r| r.var).collect(), |c| bound(after[c].var)),
    ]
}

/// What a backward pass goes through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Through {
    /// Batch statistics, from x.
    Batch,
    /// Batch statistics, from the y that was written over x.
    BatchFromY,
    /// Running statistics.
    Running,
}

/// The reference's view of a layer at work, with the error of each step.
pub(super) struct Twin<'a> {
    spec: &'a Spec,
    view: Channels,
    pub statistics: Vec<Statistics>,
    x: Vec<f64>,
    /// `x̂·gamma + beta`.
    normalized: Vec<f64>,
    residual: Option<Vec<f64>>,
    gamma: Option<Vec<f64>>,
    beta: Option<Vec<f64>>,
}

impl<'a> Twin<'a> {
    /// Clears dy at kinks.
    pub fn new(spec: &'a Spec, inputs: &mut Inputs, view: Channels, statistics: Vec<Statistics>) -> Self {
        let x = widen(&inputs.x);
        let [gamma, beta, residual] =
            [&inputs.gamma, &inputs.beta, &inputs.residual].map(|values| values.as_deref().map(widen));
        let normalized = map::forward(&x, view, &statistics, gamma.as_deref(), beta.as_deref());
        let twin = Self { spec, view, statistics, x, normalized, residual, gamma, beta };
        avoid_kinks(
            spec.activation,
            inputs,
            |i| twin.z(i),
            |i| {
                let scale = (twin.normalized[i].abs() + twin.beta(twin.channel(i)).abs()).max(1.0);
                (1e-3 * scale).max(4.0 * twin.z_bound(i))
            },
        );
        twin
    }

    /// What the activation is applied to.
    fn z(&self, i: usize) -> f64 {
        self.normalized[i] + self.residual.as_ref().map_or(0.0, |residual| residual[i])
    }

    fn z_bound(&self, i: usize) -> f64 {
        let c = self.channel(i);
        let (s, x, gamma, beta) = (&self.statistics[c], self.x[i], self.gamma(c), self.beta(c));
        match &self.residual {
            Some(residual) => bounds::z(s, x, gamma, beta, residual[i]),
            None => bounds::y(s, x, gamma, beta),
        }
    }

    fn channel(&self, i: usize) -> usize {
        self.view.channel_of(i as u64) as usize
    }

    fn gamma(&self, c: usize) -> f64 {
        self.gamma.as_ref().map_or(1.0, |gamma| gamma[c])
    }

    fn beta(&self, c: usize) -> f64 {
        self.beta.as_ref().map_or(0.0, |beta| beta[c])
    }

    /// An output of the type of x.
    fn stored(&self, name: &str, values: Vec<f64>, bound: impl Fn(usize) -> f64) -> Expected {
        Expected::stored(self.spec.dtype, name, values, bound)
    }

    pub fn expect_y(&self) -> Expected {
        let activation = self.spec.activation;
        let y = map::activated(&self.normalized, self.residual.as_deref(), activation);
        let bound = |i: usize| bounds::activated(activation, self.z(i), self.z_bound(i));
        match self.spec.int8 {
            // By a scale for all: the first is y.
            Some(int8) => int8::expected(int8, &y, bound, y.len().max(1)).swap_remove(0),
            None => self.stored("y", y, bound),
        }
    }

    /// Error of an x̂ that is recovered from y, beyond that of the statistics.
    fn recovered(&self, i: usize) -> f64 {
        let (c, activation) = (self.channel(i), self.spec.activation);
        let (gamma, beta) = (self.gamma(c), self.beta(c));
        let residual = self.residual.as_ref().map_or(0.0, |residual| residual[i]);
        let rounding = 2.0
            * bounds::U
            * ((self.normalized[i] - beta).abs() + beta.abs() + self.normalized[i].abs() + residual.abs());
        let y = map::activated(&[self.z(i)], None, activation)[0];
        let y_bound = bounds::activated(activation, self.z(i), rounding);
        let y_bound = bounds::stored(self.spec.dtype, y, y_bound);
        bounds::recovered_xhat(activation, y, y_bound, gamma, beta, residual)
    }

    fn expect_gradients(&self, inputs: &Inputs, through: Through) -> Vec<Expected> {
        let Some(dy) = inputs.dy.as_deref().map(widen) else { return Vec::new() };
        let Self { spec, view, statistics: s, x, .. } = self;
        let (view, activation) = (*view, spec.activation);
        // What a mask leaves out has a dz of 0.
        let counts = |i: usize| inputs.keep.as_ref().is_none_or(|keep| masked::counts(view, keep, i));
        let mut dz = map::dz(&self.normalized, self.residual.as_deref(), &dy, activation);
        let mut x = Cow::Borrowed(x);
        for i in (0..x.len()).filter(|&i| !counts(i)) {
            (x.to_mut()[i], dz[i]) = (s[self.channel(i)].mean, 0.0);
        }
        let x = &*x;
        let from_y = through == Through::BatchFromY;
        let xhat_error = |i: usize| if from_y { self.recovered(i) } else { 0.0 };
        let dz_error = |i: usize| match counts(i) {
            true => {
                let z_bound = self.z_bound(i) + self.gamma(self.channel(i)).abs() * xhat_error(i);
                bounds::dz(activation, dy[i], self.z(i), z_bound)
            }
            false => 0.0,
        };

        let mut sums = reduce::gradient_sums(x, &dz, view, s);
        let mut m = bounds::magnitudes(x, &dz, view, s);
        for (c, m) in m.iter_mut().enumerate() {
            for i in reduce::channel(view, c as u64) {
                let (of_dz, of_xhat) = (dz_error(i), xhat_error(i));
                m.dy_error += of_dz;
                // A derivative without error, or an x̂, adds none, not even times NaN.
                let times_xhat = if of_dz == 0.0 { 0.0 } else { of_dz * s[c].normalize(x[i]).abs() };
                let times_dz = if of_xhat == 0.0 { 0.0 } else { (dz[i].abs() + of_dz) * of_xhat };
                m.dy_xhat_error += times_xhat + times_dz;
            }
        }
        if from_y {
            // What cannot be recovered is NaN.
            for (c, sums) in sums.iter_mut().enumerate() {
                if self.gamma(c).abs() < f64::from(Saved::least_gamma(spec.dtype)) {
                    sums.dy_xhat = f64::NAN;
                }
            }
        }
        let gamma = self.gamma.as_deref();
        let dx = match through {
            Through::Running => {
                let dx = map::frozen(&dz, view, s, gamma);
                self.stored("dx", dx, |i| {
                    let (c, gamma) = (self.channel(i), self.gamma(self.channel(i)));
                    bounds::frozen_dx(&s[c], dz[i], gamma) + gamma.abs() * s[c].inv_std * dz_error(i)
                })
            }
            Through::Batch | Through::BatchFromY => {
                let dx = map::backward(x, &dz, view, s, &sums, gamma);
                self.stored("dx", dx, |i| {
                    let (c, gamma) = (self.channel(i), self.gamma(self.channel(i)));
                    bounds::dx(&s[c], &m[c], &sums[c], view, x[i], dz[i], gamma)
                        + bounds::dx_error(&s[c], &sums[c], view, gamma, dz_error(i), xhat_error(i))
                })
            }
        };
        let mut all = self.expect_parameters(&sums, &m);
        if spec.wanted == Wanted::Alone {
            all.push(dx.named("dx_alone".to_owned()));
        }
        all.insert(0, dx);
        if self.residual.is_some() {
            all.push(self.stored("dresidual", dz, dz_error));
        }
        all
    }

    /// The expected gradients of the parameters that the layer has.
    fn expect_parameters(&self, sums: &[GradientSums], m: &[Magnitudes]) -> Vec<Expected> {
        let Spec { parameters, wanted, .. } = *self.spec;
        let mut all = Vec::new();
        let mut push = |name: &str, values: Vec<f64>, bound: fn(&Magnitudes) -> f64| {
            all.extend(Expected::of_parameter(
                parameters,
                name,
                values,
                |c| bound(&m[c]),
                wanted == Wanted::Added,
            ));
        };
        if self.gamma.is_some() {
            push("dweight", sums.iter().map(|s| s.dy_xhat).collect(), bounds::dgamma);
        }
        if self.beta.is_some() {
            push("dbias", sums.iter().map(|s| s.dy).collect(), bounds::dbeta);
        }
        all
    }
}
