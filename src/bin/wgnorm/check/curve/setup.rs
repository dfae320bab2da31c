//! From a set-up of a curve to a case: inputs, what the f64 reference makes of them, and how far results may be off.

use wgnorm::reference::curve::{self, Parameters};
use wgnorm::reference::{bounds, map};
use wgnorm::{Activation, Affine, Curve, CurveOptions, DType, Layout};

use super::super::case::{self, Case, Content, Expected, Problem};
use super::super::data::{self, Data, bell, narrow, rounded, uniform, view, widen, x_of};
use super::super::expect::{avoid_kinks, of_parameter, stored};
use super::super::variant::Variants;
use super::{Work, is_shifted, op};
use crate::layout;

/// What is to be computed, of which data.
#[derive(Clone)]
pub struct Setup {
    pub name: String,
    pub curve: Curve,
    /// In logical order.
    pub dims: Vec<usize>,
    pub data: Data,
    pub affine: Affine,
    pub activation: Activation,
    pub dtype: DType,
    pub parameters: DType,
    pub residual: bool,
    pub in_place: bool,
    pub variants: Variants,
}

impl Setup {
    /// f32, gamma and beta, nothing but the curve.
    pub fn new(name: String, curve: Curve, dims: &[usize], data: Data) -> Self {
        Self {
            name,
            curve,
            dims: dims.to_vec(),
            data,
            affine: Affine::Both,
            activation: Activation::None,
            dtype: DType::F32,
            parameters: DType::F32,
            residual: false,
            in_place: false,
            variants: Variants::One("repeat"),
        }
    }

    /// Forward and backward.
    pub fn case(self) -> Case {
        let inputs = Inputs::new(&self);
        let expected = inputs.expectations(&self);
        let Inputs { x, dy, residual, gamma, beta, alpha, shift } = inputs;
        let layouts: &[Layout] = if self.dims.len() > 2 { &layout::ALL } else { &layout::ALL[..1] };
        let options = CurveOptions::default().activation(self.activation).affine(self.affine);
        let work = Work { curve: self.curve, options, alpha, shift, x, dy };
        Case {
            name: format!("builtin.{}.{}", op(self.curve), self.name),
            op: op(self.curve).to_owned(),
            dtype: self.dtype.name().to_owned(),
            content: Content::Problem(Box::new(Problem {
                dims: self.dims,
                stored: Layout::ChannelsFirst,
                layouts: layouts.to_vec(),
                variants: self.variants,
                dtype: self.dtype,
                parameters: self.parameters,
                gamma,
                beta,
                residual,
                in_place: self.in_place,
                work: case::Work::Curve(work),
                expected,
            })),
        }
    }
}

/// The tensors of a case on the host.
struct Inputs {
    x: Vec<f32>,
    dy: Vec<f32>,
    residual: Option<Vec<f32>>,
    gamma: Option<Vec<f32>>,
    beta: Option<Vec<f32>>,
    alpha: f32,
    shift: f32,
}

impl Inputs {
    fn new(setup: &Setup) -> Self {
        let Setup { name, curve, dims, dtype, parameters, .. } = setup;
        let view = view(dims);
        let random =
            |what: &str| rounded(&narrow(bell(&format!("{name}/{what}"), view.elements() as usize)), *dtype);
        let parameter = |what: &str, shift: f32| {
            let values = narrow(uniform(&format!("{name}/{what}"), dims[1]));
            rounded(&values.into_iter().map(|value| value + shift).collect::<Vec<_>>(), *parameters)
        };
        let mut inputs = Self {
            x: data::stored(x_of(name, dims, setup.data), *dtype, setup.data),
            dy: random("dy"),
            residual: setup.residual.then(|| random("residual")),
            // Negative here and there.
            gamma: setup.affine.has_gamma().then(|| parameter("gamma", 0.6)),
            beta: setup.affine.has_beta().then(|| parameter("beta", 0.0)),
            // Of few bits, so that every type of parameters has them.
            alpha: 0.75,
            shift: if is_shifted(*curve) { -0.25 } else { 0.0 },
        };
        let twin = Twin::new(setup, &inputs);
        let mut dy = std::mem::take(&mut inputs.dy);
        avoid_kinks(setup.activation, &mut dy, &twin.with_residual, |i| (4.0 * twin.z_bound[i]).max(1e-3));
        inputs.dy = dy;
        inputs
    }

    fn expectations(&self, setup: &Setup) -> Vec<Expected> {
        let Setup { dtype, parameters, activation, dims, .. } = setup;
        let view = view(dims);
        let twin = Twin::new(setup, self);
        let p = twin.parameters(setup, self);
        let Twin { x, residual, z, with_residual, z_bound, .. } = &twin;
        let channel = |i: usize| view.channel_of(i as u64) as usize;
        let dy = widen(&self.dy);
        let y = map::activated(z, residual.as_deref(), *activation);
        let dz = map::dz(z, residual.as_deref(), &dy, *activation);
        let dz_bound: Vec<_> = (0..dz.len()).map(|i| bounds::dz(*activation, dy[i], z_bound[i])).collect();
        let gradients = curve::backward(x, &dz, view, &p);
        let sums = curve::sum_bounds(x, &dz, view, &p, |i| dz_bound[i]);
        let mut all = vec![
            stored(*dtype, "y", y, |i| bounds::activated(*activation, with_residual[i], z_bound[i])),
            stored(*dtype, "dx", gradients.dx, |i| curve::dx_bound(&p, x[i], channel(i), dz[i], dz_bound[i])),
        ];
        for (name, is, values, bound) in [
            ("dweight", self.gamma.is_some(), gradients.dgamma, sums.dgamma),
            ("dbias", self.beta.is_some(), gradients.dbeta, sums.dbeta),
            ("dalpha", true, vec![gradients.dalpha], vec![sums.dalpha]),
            ("dshift", is_shifted(setup.curve), vec![gradients.dshift], vec![sums.dshift]),
        ] {
            if is {
                all.extend(of_parameter(*parameters, name, values, |p| bound[p], true));
            }
        }
        if setup.residual {
            all.push(stored(*dtype, "dresidual", dz, |i| dz_bound[i]));
        }
        all
    }
}

/// The reference's view of a curve at work, with the error of each step.
struct Twin {
    x: Vec<f64>,
    residual: Option<Vec<f64>>,
    gamma: Option<Vec<f64>>,
    beta: Option<Vec<f64>>,
    /// `gamma·f(u) + beta`, and with the residual.
    z: Vec<f64>,
    with_residual: Vec<f64>,
    z_bound: Vec<f64>,
}

impl Twin {
    fn new(setup: &Setup, inputs: &Inputs) -> Self {
        let wide = |values: &Option<Vec<f32>>| values.as_deref().map(widen);
        let mut twin = Self {
            x: widen(&inputs.x),
            residual: wide(&inputs.residual),
            gamma: wide(&inputs.gamma),
            beta: wide(&inputs.beta),
            z: Vec::new(),
            with_residual: Vec::new(),
            z_bound: Vec::new(),
        };
        let (view, p) = (view(&setup.dims), twin.parameters(setup, inputs));
        let added = |i: usize| twin.residual.as_ref().map(|residual| residual[i]);
        let z = curve::forward(&twin.x, view, &p);
        let with_residual = map::activated(&z, twin.residual.as_deref(), Activation::None);
        let bound = |i: usize| curve::z_bound(&p, twin.x[i], view.channel_of(i as u64) as usize, added(i));
        let z_bound = (0..z.len()).map(bound).collect();
        (twin.z, twin.with_residual, twin.z_bound) = (z, with_residual, z_bound);
        twin
    }

    fn parameters(&self, setup: &Setup, inputs: &Inputs) -> Parameters<'_> {
        Parameters {
            curve: setup.curve,
            alpha: inputs.alpha.into(),
            shift: inputs.shift.into(),
            gamma: self.gamma.as_deref(),
            beta: self.beta.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::expect::tests::{assert_differs, assert_tells_wrong_from_right, problem};
    use super::*;

    fn setup(curve: Curve) -> Setup {
        Setup::new("comparer".to_owned(), curve, &[3, 5, 7, 3], Data::Normal)
    }

    #[test]
    fn rounded_expectations_pass_and_wrong_ones_fail() {
        for curve in Curve::ALL {
            for dtype in [DType::F32, DType::F16, DType::Bf16] {
                for activation in [Activation::None, Activation::Relu, Activation::Silu] {
                    for residual in [false, true] {
                        let setup = Setup { activation, dtype, parameters: dtype, residual, ..setup(curve) };
                        let place = format!("{curve} {dtype} {activation} {residual}");
                        assert_tells_wrong_from_right(&place, &problem(setup.case()));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_forgotten_fails() {
        for curve in Curve::ALL {
            let plain = Setup { dtype: DType::Bf16, ..setup(curve) };
            let activated = Setup { activation: Activation::Silu, ..plain.clone() };
            let names = ["y", "dx", "dweight", "dalpha"];
            let of = |setup: &Setup| problem(setup.clone().case());
            assert_differs("activation", &of(&activated), &of(&plain), &names);
            let added = Setup { residual: true, ..activated.clone() };
            assert_differs("residual", &of(&added), &of(&activated), &names);
            let bare = Setup { affine: Affine::None, ..plain.clone() };
            assert_differs("affine", &of(&plain), &of(&bare), &["y", "dx", "dalpha"]);
        }
    }

    #[test]
    fn large_arguments_leave_no_room() {
        for curve in Curve::ALL {
            for data in [Data::HugeSpread, Data::InfInOne] {
                let problem = problem(Setup { data, ..setup(curve) }.case());
                let y = problem.expected.iter().find(|expected| expected.name == "y").unwrap();
                assert!(y.gate.iter().all(|&bound| bound < 1e-4), "{curve}: {:?}", y.gate);
            }
        }
    }
}
