//! From a set-up of a norm to a case: inputs, what the f64 reference makes of them, and how far results may be off.

use wgnorm::reference::family::{self, Affine as Parameters, Maps, SliceStatistics, bounds as slice_bounds};
use wgnorm::reference::fold::Running;
use wgnorm::reference::{bounds, map};
use wgnorm::{Activation, Affine, BatchNormOptions, DType, Layout, NormOptions, RunningValues};

use super::{Of, Sum, Tracked, Work};
use crate::check::case::{self, Case, Content, Expected, Problem};
use crate::check::data::{self, Data, bell, narrow, rounded, uniform, widen, x_of_slices};
use crate::check::expect::{allow_for, avoid_kinks, expected, of_parameter, stored};
use crate::check::variant::Variants;
use crate::layout;

/// What is to be computed, of which data.
#[derive(Clone)]
pub struct Setup {
    pub name: String,
    pub of: Of,
    /// In logical order.
    pub dims: Vec<usize>,
    pub data: Data,
    /// Its affine parameters are those that the case has.
    pub options: NormOptions,
    pub dtype: DType,
    pub parameters: DType,
    pub residual: bool,
    /// Whether an addend comes before the norm.
    pub sum: bool,
    pub modulated: bool,
    pub in_place: bool,
    pub again: Again,
    /// How running statistics are updated, if there are any.
    pub tracked: Option<BatchNormOptions>,
    /// All that there are, or one.
    pub layout: Option<Layout>,
    pub variants: Variants,
}

/// What is run besides both passes with all that they can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    Nothing,
    /// Gradients of parameters, added to what is there.
    Twice,
    /// y with nothing saved, dx without gradients of parameters.
    Alone,
}

impl Setup {
    /// f32, the norm's parameters, nothing but the norm.
    pub fn new(name: String, of: Of, dims: &[usize], data: Data) -> Self {
        let affine = match of {
            Of::Layer(_) | Of::Group(_) | Of::Instance => Affine::Both,
            Of::Rms(_) | Of::Scale | Of::Weight | Of::Standardization => Affine::Weight,
            Of::MeanVariance(_) | Of::L2(_) => Affine::None,
        };
        Self {
            name,
            options: of.options().affine(affine),
            of,
            dims: dims.to_vec(),
            data,
            dtype: DType::F32,
            parameters: DType::F32,
            residual: false,
            sum: false,
            modulated: false,
            in_place: false,
            again: Again::Twice,
            tracked: None,
            layout: None,
            variants: Variants::All,
        }
    }

    /// Forward and backward.
    pub fn case(self) -> Case {
        let inputs = Inputs::new(&self);
        let mut expected = inputs.expectations(&self);
        allow_for(self.data, &mut expected);
        let Inputs { x, addend, d_sum, dy, residual, gamma, beta, running, .. } = inputs;
        let all =
            if self.of.has_channels() && self.dims.len() > 2 { &layout::ALL } else { &layout::ALL[..1] };
        let work = Work {
            options: self.options,
            modulated: self.modulated,
            x,
            sum: self.sum.then_some(Sum { addend, d_sum }),
            dy: Some(dy),
            tracked: self.tracked.map(|options| Tracked { options, running }),
            of: self.of,
        };
        Case {
            name: format!("builtin.{}.{}", work.of.op(), self.name),
            op: work.of.op().to_owned(),
            dtype: self.dtype.name().to_owned(),
            content: Content::Problem(Box::new(Problem {
                dims: self.dims,
                stored: Layout::ChannelsFirst,
                layouts: self.layout.map_or(all.to_vec(), |layout| vec![layout]),
                variants: self.variants,
                dtype: self.dtype,
                parameters: self.parameters,
                gamma,
                beta,
                residual,
                in_place: self.in_place,
                work: case::Work::Family(work),
                expected,
            })),
        }
    }
}

/// The tensors of a case on the host.
struct Inputs {
    maps: Maps,
    x: Vec<f32>,
    addend: Vec<f32>,
    d_sum: Vec<f32>,
    dy: Vec<f32>,
    residual: Option<Vec<f32>>,
    gamma: Option<Vec<f32>>,
    beta: Option<Vec<f32>>,
    running: RunningValues,
}

impl Inputs {
    fn new(setup: &Setup) -> Self {
        let Setup { name, of, dims, options, dtype, parameters, .. } = setup;
        let maps = of.maps(dims);
        let mut slices = vec![Vec::new(); maps.statistics];
        maps.statistic_of.iter().enumerate().for_each(|(i, &s)| slices[s].push(i));
        let maps = if setup.modulated { maps.modulated(dims[0]) } else { maps };
        let x = x_of_slices(name, maps.len(), slices, setup.data);
        let random = |what: &str| rounded(&narrow(bell(&format!("{name}/{what}"), maps.len())), *dtype);
        let parameter = |what: &str, shift: f32| {
            let values = narrow(uniform(&format!("{name}/{what}"), maps.parameters));
            rounded(&values.into_iter().map(|value| value + shift).collect::<Vec<_>>(), *parameters)
        };
        let channels = if setup.tracked.is_some() { dims[1] } else { 0 };
        let channel = |what: &str, shift: f32| {
            let values = narrow(uniform(&format!("{name}/{what}"), channels));
            values.into_iter().map(|value| value + shift).collect()
        };
        let mut inputs = Self {
            x: data::stored(x, *dtype, setup.data),
            addend: random("addend"),
            d_sum: random("d_sum"),
            dy: random("dy"),
            residual: setup.residual.then(|| random("residual")),
            // Negative here and there, as g.
            gamma: options
                .affine
                .has_gamma()
                .then(|| parameter("gamma", if options.unit_offset { -0.4 } else { 0.6 })),
            beta: options.affine.has_beta().then(|| parameter("beta", 0.0)),
            running: RunningValues { mean: channel("mean", 0.2), var: channel("var", 1.4), batches: 0 },
            maps,
        };
        let twin = Twin::new(setup, &inputs);
        let mut dy = inputs.dy.clone();
        avoid_kinks(options.activation, &mut dy, &twin.z, |i| {
            let scale = twin.normalized[i].abs() + twin.affine().shift(inputs.maps.parameter_of[i]).abs();
            (1e-3 * scale.max(1.0)).max(4.0 * twin.z_bound[i])
        });
        inputs.dy = dy;
        inputs
    }

    /// What is normalized: x, or the sum as it is stored.
    fn normalized(&self, setup: &Setup) -> Vec<f32> {
        if !setup.sum {
            return self.x.clone();
        }
        let sum: Vec<f32> = self.x.iter().zip(&self.addend).map(|(x, addend)| x + addend).collect();
        rounded(&sum, setup.dtype)
    }

    fn expectations(&self, setup: &Setup) -> Vec<Expected> {
        let Setup { dtype, parameters, options, again, .. } = *setup;
        let twin = Twin::new(setup, self);
        let Twin { scheme, statistics, x, .. } = &twin;
        let (maps, affine, activation) = (&self.maps, twin.affine(), options.activation);
        let scheme = *scheme;
        let y = map::activated(&twin.normalized, twin.residual.as_deref(), activation);
        let y = stored(dtype, "y", y, |i| bounds::activated(activation, twin.z[i], twin.z_bound[i]));
        let of_slices =
            |name: &str, value: fn(&SliceStatistics) -> f64, bound: &dyn Fn(&SliceStatistics) -> f64| {
                expected(name, statistics.iter().map(value).collect(), |s| bound(&statistics[s]))
            };
        let mut all = vec![
            of_slices("save_mean", |s| s.mean, &|s| slice_bounds::mean(s, &scheme)),
            of_slices("save_var", |s| s.var, &slice_bounds::var),
            of_slices("save_invstd", |s| s.inv_std, &slice_bounds::inv_std),
        ];
        if let Some(options) = setup.tracked {
            all.extend(self.expect_running(setup, &options, statistics));
        }
        if setup.sum {
            all.push(expected("sum", widen(&self.normalized(setup)), |_| 0.0));
        }

        let dy = widen(&self.dy);
        let dz = map::dz(&twin.normalized, twin.residual.as_deref(), &dy, activation);
        let dz_error: Vec<_> =
            (0..dz.len()).map(|i| bounds::dz(activation, dy[i], twin.z_bound[i])).collect();
        let mut gradients = family::backward(x, &dz, maps, &scheme, statistics, affine);
        let mut bound = slice_bounds::backward(x, &dz, Some(&dz_error), maps, &scheme, statistics, affine);
        if setup.sum {
            // Where a map of its own adds d_sum, dx is stored in between.
            let between =
                if setup.residual && activation != Activation::None { dtype.unit_roundoff() } else { 0.0 };
            for (i, d_sum) in widen(&self.d_sum).into_iter().enumerate() {
                let stored = between * (gradients.dx[i].abs() + bound.dx[i]);
                gradients.dx[i] += d_sum;
                bound.dx[i] += stored + bounds::U * (gradients.dx[i].abs() + d_sum.abs());
            }
        }
        all.push(stored(dtype, "dx", gradients.dx, |i| bound.dx[i]));
        if again == Again::Alone {
            let alone = |expected: &Expected| Expected {
                name: format!("{}_alone", expected.name),
                ..expected.clone()
            };
            all.extend([alone(&y), alone(all.last().expect("dx"))]);
        }
        all.push(y);
        let twice = again == Again::Twice;
        for (name, is, values, bound) in [
            ("dweight", self.gamma.is_some(), gradients.dgamma, bound.dgamma),
            ("dbias", self.beta.is_some(), gradients.dbeta, bound.dbeta),
        ] {
            if is {
                all.extend(of_parameter(parameters, name, values, |p| bound[p], twice));
            }
        }
        if setup.residual {
            all.push(stored(dtype, "dresidual", dz, |i| dz_error[i]));
        }
        all
    }

    fn expect_running(
        &self,
        setup: &Setup,
        options: &BatchNormOptions,
        statistics: &[SliceStatistics],
    ) -> [Expected; 2] {
        let average = family::average_over_samples(statistics, setup.dims[1]);
        let before = |c: usize| Running {
            mean: self.running.mean[c].into(),
            var: self.running.var[c].into(),
            batches: 0,
        };
        let after: Vec<_> = (0..average.len())
            .map(|c| before(c).update(average[c], options.momentum, options.running_variance))
            .collect();
        let bound = |value: f64| 64.0 * bounds::U * (1.0 + value.abs());
        [
            expected("running_mean", after.iter().map(|r| r.mean).collect(), |c| bound(after[c].mean)),
            expected("running_var", after.iter().map(|r| r.var).collect(), |c| bound(after[c].var)),
        ]
    }
}

/// The reference's view of a norm at work, with the error of each step.
struct Twin {
    scheme: family::Scheme,
    x: Vec<f64>,
    statistics: Vec<SliceStatistics>,
    gamma: Option<Vec<f64>>,
    beta: Option<Vec<f64>>,
    residual: Option<Vec<f64>>,
    /// `x̂·gamma + beta`, and with the residual.
    normalized: Vec<f64>,
    z: Vec<f64>,
    z_bound: Vec<f64>,
}

impl Twin {
    fn new(setup: &Setup, inputs: &Inputs) -> Self {
        let (maps, scheme) = (&inputs.maps, setup.of.scheme(&setup.options, setup.dtype));
        let x = widen(&inputs.normalized(setup));
        let mut statistics = family::statistics(&x, maps, &scheme);
        // A variance beyond f32 is NaN in y, and in all that follows from it, never a finite number.
        for s in statistics.iter_mut().filter(|s| s.var > f64::from(f32::MAX)) {
            s.inv_std = f64::NAN;
        }
        let [gamma, beta, residual] =
            [&inputs.gamma, &inputs.beta, &inputs.residual].map(|values| values.as_deref().map(widen));
        let affine = Parameters { gamma: gamma.as_deref(), beta: beta.as_deref() };
        let normalized: Vec<_> = (0..x.len())
            .map(|i| {
                let (s, p) = (&statistics[maps.statistic_of[i]], maps.parameter_of[i]);
                s.normalize(x[i]) * affine.weight(&scheme, p) + affine.shift(p)
            })
            .collect();
        let z = map::activated(&normalized, residual.as_deref(), Activation::None);
        let z_bound = slice_bounds::z(&x, maps, &scheme, &statistics, affine, residual.as_deref());
        Self { scheme, x, statistics, gamma, beta, residual, normalized, z, z_bound }
    }

    fn affine(&self) -> Parameters<'_> {
        Parameters { gamma: self.gamma.as_deref(), beta: self.beta.as_deref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::expect::tests::{assert_differs, assert_tells_wrong_from_right, problem};

    fn norms() -> Vec<Of> {
        vec![
            Of::Layer(1),
            Of::Layer(3),
            Of::Rms(2),
            Of::Group(2),
            Of::Instance,
            Of::MeanVariance(vec![0, 2, 3]),
            Of::L2(vec![1]),
            Of::Scale,
            Of::Weight,
            Of::Standardization,
        ]
    }

    fn setup(of: Of) -> Setup {
        Setup::new("comparer".to_owned(), of, &[3, 4, 7, 5], Data::Normal)
    }

    #[test]
    fn rounded_expectations_pass_and_wrong_ones_fail() {
        for of in norms() {
            for dtype in [DType::F32, DType::F16, DType::Bf16] {
                for activation in [Activation::None, Activation::Relu, Activation::Silu] {
                    for both in [false, true] {
                        let plain = setup(of.clone());
                        let options = plain.options.activation(activation);
                        let again = if both { Again::Alone } else { Again::Twice };
                        let setup = Setup {
                            options,
                            dtype,
                            parameters: dtype,
                            residual: both,
                            sum: both,
                            again,
                            ..plain
                        };
                        let place = format!("{of:?} {dtype} {activation} {both}");
                        assert_tells_wrong_from_right(&place, &problem(setup.case()));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_forgotten_fails() {
        let with = |of: &Of, change: &dyn Fn(&mut Setup)| {
            let mut setup = Setup { dtype: DType::Bf16, ..setup(of.clone()) };
            change(&mut setup);
            problem(setup.case())
        };
        for of in [Of::Layer(1), Of::Rms(2), Of::Group(2), Of::Instance] {
            for (what, change, names) in [
                (
                    "activation",
                    &(|s: &mut Setup| s.options.activation = Activation::Gelu) as &dyn Fn(&mut Setup),
                    &["y", "dx", "dweight"][..],
                ),
                (
                    "residual",
                    &|s| {
                        s.residual = true;
                        s.options.activation = Activation::Silu
                    },
                    &["y", "dx", "dweight"],
                ),
                ("sum", &|s| s.sum = true, &["y", "dx", "dweight"]),
                ("affine", &|s| s.options.affine = Affine::None, &["y", "dx"]),
            ] {
                let place = format!("{of:?} without {what}");
                assert_differs(&place, &with(&of, change), &with(&of, &|_| {}), names);
            }
        }
    }

    #[test]
    fn what_is_wrong_with_one_slice_stays_there() {
        for data in [Data::NanInOne, Data::InfInOne, Data::OverflowInOne] {
            for of in norms() {
                let setup = Setup { data, ..setup(of.clone()) };
                let maps = of.maps(&setup.dims);
                let problem = problem(setup.case());
                for name in ["y", "dx"] {
                    let values =
                        &problem.expected.iter().find(|expected| expected.name == name).unwrap().values;
                    let stays = |i: usize| values[i].is_nan() == (maps.statistic_of[i] == 0);
                    assert!((0..values.len()).all(stays), "{of:?} {name}");
                }
            }
        }
    }
}
