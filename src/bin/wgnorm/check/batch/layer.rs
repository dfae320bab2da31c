//! From a set-up of a layer to a case: inputs, what the f64 reference makes of them, and how far results may be off.

use wgnorm::reference::bounds::{self, Magnitudes};
use wgnorm::reference::fold::Running;
use wgnorm::reference::{GradientSums, Statistics, map, reduce};
use wgnorm::{Activation, BatchNormOptions, Channels, DType, Layout, RunningValues, Saved};

use super::{Task, Work};
use crate::check::case::{self, Case, Content, Expected, Problem};
use crate::check::data::{self, Data, bell, narrow, rounded, uniform, view, widen, x_of};
use crate::check::expect::{allow_for, avoid_kinks, expected, of_parameter, stored};
use crate::check::variant::Variants;
use crate::layout;

/// What is to be computed, of which data.
#[derive(Clone)]
pub struct Setup {
    pub name: String,
    pub dims: Vec<usize>,
    pub data: Data,
    pub options: BatchNormOptions,
    pub gamma: bool,
    pub beta: bool,
    pub dtype: DType,
    pub parameters: DType,
    pub residual: bool,
    pub in_place: bool,
    /// Whether gradients of parameters are also added to what is there.
    pub twice: bool,
    /// Whether gamma changes its sign from channel to channel.
    pub signs: bool,
    /// What gamma is multiplied by.
    pub gain: f32,
    /// A channel whose gamma is too small for x̂ to be recovered from y.
    pub lost: Option<usize>,
    /// All that there are, or one.
    pub layout: Option<Layout>,
    pub variants: Variants,
}

impl Setup {
    /// f32, gamma and beta, nothing but the norm.
    pub fn new(name: String, dims: &[usize], data: Data) -> Self {
        Self {
            name,
            dims: dims.to_vec(),
            data,
            options: BatchNormOptions::pytorch(),
            gamma: true,
            beta: true,
            dtype: DType::F32,
            parameters: DType::F32,
            residual: false,
            in_place: false,
            twice: true,
            signs: false,
            gain: 1.0,
            lost: None,
            layout: None,
            variants: Variants::All,
        }
    }

    fn x(&self) -> Vec<f32> {
        data::stored(x_of(&self.name, &self.dims, self.data), self.dtype, self.data)
    }

    /// Training forward and backward.
    pub fn train(self) -> Case {
        let (layer, view) = (Layer::new(&self), view(&self.dims));
        let x = self.x();
        let wide = widen(&x);
        let moments = reduce::moments(&wide, view);
        let mut statistics: Vec<_> =
            moments.iter().map(|m| Statistics::new(m.mean, m.var, self.options.eps)).collect();
        // A variance beyond f32 is NaN in y, and in all that follows from it, never a finite number.
        for s in statistics.iter_mut().filter(|s| s.var > f64::from(f32::MAX)) {
            s.inv_std = f64::NAN;
        }
        let over_x = self.in_place && self.options.activation.is_invertible();
        let twin = Twin::new(&self, &layer, view, wide, statistics);
        let (s, eps) = (&twin.statistics, self.options.eps);
        let running: Vec<_> = (0..s.len())
            .map(|c| {
                layer.running(c).update(moments[c], self.options.momentum, self.options.running_variance)
            })
            .collect();
        let mut expectations = vec![
            twin.expect_y(),
            expected("save_mean", s.iter().map(|s| s.mean).collect(), |c| bounds::mean(&s[c], eps)),
            expected("save_var", s.iter().map(|s| s.var).collect(), |c| bounds::var(&s[c])),
            expected("save_invstd", s.iter().map(|s| s.inv_std).collect(), |c| bounds::inv_std(&s[c])),
            expected("running_mean", running.iter().map(|r| r.mean).collect(), |c| {
                bounds::mean(&s[c], eps) + 8.0 * bounds::U * (s[c].mean.abs() + layer.running(c).mean.abs())
            }),
            expected("running_var", running.iter().map(|r| r.var).collect(), |c| {
                2.0 * bounds::var(&s[c]) + 8.0 * bounds::U * layer.running(c).var
            }),
        ];
        if over_x {
            let least = f64::from(Saved::least_gamma(self.dtype));
            let recoverable = (0..s.len()).map(|c| f64::from(u8::from(layer.gamma(c).abs() >= least)));
            expectations.push(expected("recoverable", recoverable.collect(), |_| 0.0));
        }
        let through = if over_x { Through::BatchFromY } else { Through::Batch };
        expectations.extend(twin.expect_gradients(through));
        allow_for(self.data, &mut expectations);
        let (dy, residual) = (twin.dy32, twin.residual32);
        layer.case("train", self, Task::Train { x, dy: Some(dy) }, residual, expectations)
    }

    /// Inference, and backward through the running statistics.
    pub fn eval(self) -> Case {
        let (mut layer, view) = (Layer::new(&self), view(&self.dims));
        let x = self.x();
        let wide = widen(&x);
        // Running statistics near those of the data, so that x̂ is of order one also for large means.
        if view.count() > 0 {
            for (c, m) in reduce::moments(&wide, view).iter().enumerate() {
                if m.var.is_finite() && m.var < 1e37 {
                    layer.running.mean[c] += m.mean as f32;
                    layer.running.var[c] += m.var as f32;
                }
            }
        }
        let statistics = (0..view.channels as usize)
            .map(|c| Statistics::new(layer.running(c).mean, layer.running(c).var, self.options.eps))
            .collect();
        let twin = Twin::new(&self, &layer, view, wide, statistics);
        let mut expectations = vec![twin.expect_y()];
        expectations.extend(twin.expect_gradients(Through::Running));
        let (dy, residual) = (twin.dy32, twin.residual32);
        layer.case("eval", self, Task::Eval { x, dy: Some(dy) }, residual, expectations)
    }
}

/// Parameters and running statistics of a case.
pub struct Layer {
    gamma: Option<Vec<f32>>,
    beta: Option<Vec<f32>>,
    running: RunningValues,
}

impl Layer {
    pub fn new(setup: &Setup) -> Self {
        let (seed, c) = (&setup.name, view(&setup.dims).channels as usize);
        let values = |what: &str, shift: f64| -> Vec<f32> {
            narrow(uniform(&format!("{seed}/{what}"), c)).iter().map(|v| v + shift as f32).collect()
        };
        let mut gamma = values("gamma", 1.5);
        if setup.signs {
            gamma.iter_mut().skip(1).step_by(2).for_each(|gamma| *gamma = -*gamma);
        }
        gamma.iter_mut().for_each(|gamma| *gamma *= setup.gain);
        if let Some(lost) = setup.lost {
            gamma[lost] = 0.5 * Saved::least_gamma(setup.dtype);
        }
        Self {
            gamma: setup.gamma.then(|| rounded(&gamma, setup.parameters)),
            beta: setup.beta.then(|| rounded(&values("beta", 0.0), setup.parameters)),
            running: RunningValues { mean: values("mean", 0.2), var: values("var", 1.4), batches: 0 },
        }
    }

    pub fn gamma(&self, c: usize) -> f64 {
        self.gamma.as_ref().map_or(1.0, |gamma| gamma[c].into())
    }

    fn beta(&self, c: usize) -> f64 {
        self.beta.as_ref().map_or(0.0, |beta| beta[c].into())
    }

    /// gamma and beta of all channels.
    pub fn affine(&self) -> (Vec<f64>, Vec<f64>) {
        let c = self.running.mean.len();
        ((0..c).map(|c| self.gamma(c)).collect(), (0..c).map(|c| self.beta(c)).collect())
    }

    pub fn running(&self, c: usize) -> Running {
        Running { mean: self.running.mean[c].into(), var: self.running.var[c].into(), batches: 0 }
    }

    /// What inference gives with the given statistics.
    pub fn expect_inference(
        &self,
        setup: &Setup,
        name: &str,
        x: Vec<f64>,
        statistics: Vec<Statistics>,
    ) -> Expected {
        let y = Twin::new(setup, self, view(&setup.dims), x, statistics).expect_y();
        Expected { name: name.to_owned(), ..y }
    }

    pub fn case(
        self,
        kind: &str,
        setup: Setup,
        task: Task,
        residual: Option<Vec<f32>>,
        expected: Vec<Expected>,
    ) -> Case {
        let Self { gamma, beta, running } = self;
        // At rank 2 they are the same.
        let all = if setup.dims.len() == 2 { &layout::ALL[..1] } else { &layout::ALL };
        Case {
            name: format!("builtin.{kind}.{}", setup.name),
            op: format!("batch_norm_{kind}"),
            dtype: setup.dtype.name().to_owned(),
            content: Content::Problem(Box::new(Problem {
                dims: setup.dims,
                stored: Layout::ChannelsFirst,
                layouts: setup.layout.map_or(all.to_vec(), |layout| vec![layout]),
                variants: setup.variants,
                dtype: setup.dtype,
                parameters: setup.parameters,
                gamma,
                beta,
                residual,
                in_place: setup.in_place,
                work: case::Work::Batch(Work { options: setup.options, running, mask: None, task }),
                expected,
            })),
        }
    }
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
struct Twin<'a> {
    setup: &'a Setup,
    layer: &'a Layer,
    view: Channels,
    statistics: Vec<Statistics>,
    x: Vec<f64>,
    /// `x̂·gamma + beta`, and with the residual.
    normalized: Vec<f64>,
    z: Vec<f64>,
    z_bound: Vec<f64>,
    residual: Option<Vec<f64>>,
    residual32: Option<Vec<f32>>,
    dy: Vec<f64>,
    dy32: Vec<f32>,
}

impl<'a> Twin<'a> {
    fn new(
        setup: &'a Setup,
        layer: &'a Layer,
        view: Channels,
        x: Vec<f64>,
        statistics: Vec<Statistics>,
    ) -> Self {
        let (gamma, beta) = (layer.gamma.as_deref().map(widen), layer.beta.as_deref().map(widen));
        let normalized = map::forward(&x, view, &statistics, gamma.as_deref(), beta.as_deref());
        let random =
            |what: &str| rounded(&narrow(bell(&format!("{}/{what}", setup.name), x.len())), setup.dtype);
        let residual32 = setup.residual.then(|| random("residual"));
        let residual = residual32.as_deref().map(widen);
        let z = map::activated(&normalized, residual.as_deref(), Activation::None);
        let z_bound: Vec<_> = (0..x.len())
            .map(|i| {
                let c = channel(view, i);
                let (s, gamma, beta) = (&statistics[c], layer.gamma(c), layer.beta(c));
                match &residual {
                    Some(residual) => bounds::z(s, x[i], gamma, beta, residual[i]),
                    None => bounds::y(s, x[i], gamma, beta),
                }
            })
            .collect();
        let mut dy32 = random("dy");
        avoid_kinks(setup.options.activation, &mut dy32, &z, |i| {
            let scale = (normalized[i].abs() + layer.beta(channel(view, i)).abs()).max(1.0);
            (1e-3 * scale).max(4.0 * z_bound[i])
        });
        let dy = widen(&dy32);
        Self { setup, layer, view, statistics, x, normalized, z, z_bound, residual, residual32, dy, dy32 }
    }

    fn activation(&self) -> Activation {
        self.setup.options.activation
    }

    /// An output of the type of x.
    fn stored(&self, name: &str, values: Vec<f64>, bound: impl Fn(usize) -> f64) -> Expected {
        stored(self.setup.dtype, name, values, bound)
    }

    fn expect_y(&self) -> Expected {
        let y = map::activated(&self.normalized, self.residual.as_deref(), self.activation());
        self.stored("y", y, |i| bounds::activated(self.activation(), self.z[i], self.z_bound[i]))
    }

    /// Error of an x̂ that is recovered from y, beyond that of the statistics.
    fn recovered(&self, i: usize) -> f64 {
        let (c, activation) = (channel(self.view, i), self.activation());
        let (gamma, beta) = (self.layer.gamma(c), self.layer.beta(c));
        let residual = self.residual.as_ref().map_or(0.0, |residual| residual[i]);
        let rounding = 2.0
            * bounds::U
            * ((self.normalized[i] - beta).abs() + beta.abs() + self.normalized[i].abs() + residual.abs());
        let y = map::activated(&self.z[i..=i], None, activation)[0];
        let y_bound = bounds::activated(activation, self.z[i], rounding);
        let y_bound = bounds::stored(self.setup.dtype, y, y_bound);
        bounds::recovered_xhat(activation, y, y_bound, gamma, beta, residual)
    }

    fn expect_gradients(&self, through: Through) -> Vec<Expected> {
        let Self { view, statistics: s, x, dy, layer, .. } = self;
        let (view, activation, len) = (*view, self.activation(), self.x.len());
        let dz = map::dz(&self.normalized, self.residual.as_deref(), dy, activation);
        let dz_error: Vec<_> = (0..len).map(|i| bounds::dz(activation, dy[i], self.z_bound[i])).collect();
        let from_y = through == Through::BatchFromY;
        let xhat_error: Vec<_> = (0..len).map(|i| if from_y { self.recovered(i) } else { 0.0 }).collect();

        let mut sums = reduce::gradient_sums(x, &dz, view, s);
        let mut m = bounds::magnitudes(x, &dz, view, s);
        for (c, m) in m.iter_mut().enumerate() {
            for i in reduce::channel(view, c as u64) {
                m.dy_error += dz_error[i];
                // A derivative without error, or an x̂, adds none, not even times NaN.
                let of_dz = if dz_error[i] == 0.0 { 0.0 } else { dz_error[i] * s[c].normalize(x[i]).abs() };
                let of_xhat = (dz[i].abs() + dz_error[i]) * xhat_error[i];
                m.dy_xhat_error += of_dz + if xhat_error[i] == 0.0 { 0.0 } else { of_xhat };
            }
        }
        if from_y {
            // What cannot be recovered is NaN.
            for (c, sums) in sums.iter_mut().enumerate() {
                if layer.gamma(c).abs() < f64::from(Saved::least_gamma(self.setup.dtype)) {
                    sums.dy_xhat = f64::NAN;
                }
            }
        }
        let gamma = layer.gamma.as_deref().map(widen);
        let mut all = vec![match through {
            Through::Running => {
                let dx = map::frozen(&dz, view, s, gamma.as_deref());
                self.stored("dx", dx, |i| {
                    let (c, gamma) = (channel(view, i), layer.gamma(channel(view, i)));
                    bounds::frozen_dx(&s[c], dz[i], gamma) + gamma.abs() * s[c].inv_std * dz_error[i]
                })
            }
            Through::Batch | Through::BatchFromY => {
                let dx = map::backward(x, &dz, view, s, &sums, gamma.as_deref());
                self.stored("dx", dx, |i| {
                    let (c, gamma) = (channel(view, i), layer.gamma(channel(view, i)));
                    bounds::dx(&s[c], &m[c], &sums[c], view, x[i], dz[i], gamma)
                        + bounds::dx_error(&s[c], &sums[c], view, gamma, dz_error[i], xhat_error[i])
                })
            }
        }];
        all.extend(self.expect_parameters(&sums, &m));
        if self.residual.is_some() {
            all.push(self.stored("dresidual", dz, |i| dz_error[i]));
        }
        all
    }

    /// The expected gradients of the parameters that the layer has.
    fn expect_parameters(&self, sums: &[GradientSums], m: &[Magnitudes]) -> Vec<Expected> {
        let Setup { parameters, twice, .. } = *self.setup;
        let mut all = Vec::new();
        let mut push = |name: &str, values: Vec<f64>, bound: fn(&Magnitudes) -> f64| {
            all.extend(of_parameter(parameters, name, values, |c| bound(&m[c]), twice));
        };
        if self.layer.gamma.is_some() {
            push("dweight", sums.iter().map(|s| s.dy_xhat).collect(), bounds::dgamma);
        }
        if self.layer.beta.is_some() {
            push("dbias", sums.iter().map(|s| s.dy).collect(), bounds::dbeta);
        }
        all
    }
}

/// Channel of a flat index.
pub fn channel(view: Channels, i: usize) -> usize {
    view.channel_of(i as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::expect::tests::{assert_differs, assert_tells_wrong_from_right, problem};

    fn problems() -> Vec<Problem> {
        let mut problems = Vec::new();
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            for activation in Activation::ALL {
                for both in [false, true] {
                    let base = Setup::new("comparer".to_owned(), &[3, 4, 7, 5], Data::Normal);
                    let options = base.options.activation(activation);
                    let base = Setup { dtype, parameters: dtype, options, signs: true, ..base };
                    let setup = Setup { residual: both, in_place: both, ..base };
                    problems.extend([problem(setup.clone().train()), problem(setup.eval())]);
                }
            }
        }
        problems
    }

    #[test]
    fn rounded_expectations_pass_and_wrong_ones_fail() {
        for problem in problems() {
            let place = format!("{} {} {}", problem.dtype, problem.work.activation(), problem.in_place);
            assert_tells_wrong_from_right(&place, &problem);
        }
    }

    #[test]
    fn a_forgotten_activation_or_residual_fails() {
        let with = |activation, residual| {
            let setup = Setup::new("forgotten".to_owned(), &[3, 4, 7, 5], Data::Normal);
            let options = setup.options.activation(activation);
            problem(Setup { dtype: DType::Bf16, options, residual, ..setup }.train())
        };
        for activation in Activation::ALL.into_iter().skip(1) {
            for forgetful in [with(Activation::None, true), with(activation, false)] {
                let names = ["y", "dx", "dweight", "dbias"];
                assert_differs(activation.name(), &with(activation, true), &forgetful, &names);
            }
        }
    }
}
