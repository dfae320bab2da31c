//! The parameters of a network as one vector: gradients of ranks that are averaged, weights that are, and how long a gradient is.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};

/// Gradients on the host, one after the other.
pub fn flat(network: &impl Module, gradients: &GradientsParams) -> Vec<f32> {
    let mut all = Vec::new();
    walk(network, &mut Read { gradients, all: &mut all });
    all
}

/// Gradients from the host.
pub fn gradients(network: &impl Module, flat: &[f32]) -> GradientsParams {
    let mut gradients = GradientsParams::new();
    walk(network, &mut Write { gradients: &mut gradients, left: flat });
    gradients
}

/// What takes `from` a part of the way to `to` in gradient descent at a rate of that part: the weights of one minus those of the other.
pub fn difference<M: Module>(from: &M, to: &M) -> GradientsParams {
    let mut weights = GradientsParams::new();
    walk(to, &mut Weights { of: &mut weights });
    let mut gradients = GradientsParams::new();
    walk(from, &mut Minus { to: &weights, gradients: &mut gradients });
    gradients
}

/// The root of the sum of the squares.
pub fn length(of: impl IntoIterator<Item = f32>) -> f64 {
    of.into_iter().map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

fn walk(module: &impl Module, visitor: &mut impl ModuleVisitor) {
    module.visit(visitor);
}

struct Read<'a> {
    gradients: &'a GradientsParams,
    all: &'a mut Vec<f32>,
}

struct Write<'a> {
    gradients: &'a mut GradientsParams,
    left: &'a [f32],
}

struct Weights<'a> {
    of: &'a mut GradientsParams,
}

struct Minus<'a> {
    to: &'a GradientsParams,
    gradients: &'a mut GradientsParams,
}

impl ModuleVisitor for Read<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.all.extend(gradient.into_data().iter::<f32>());
        }
    }
}

impl ModuleVisitor for Write<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Running statistics have no gradients.
        if !param.val().is_require_grad() {
            return;
        }
        let dims = param.val().dims();
        let (own, left) = self.left.split_at(dims.iter().product());
        let device = param.val().device().without_autodiff();
        let gradient = Tensor::<D>::from_data(TensorData::new(own.to_vec(), dims), &device);
        self.gradients.register(param.id, gradient);
        self.left = left;
    }
}

impl ModuleVisitor for Weights<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.val().is_require_grad() {
            self.of.register(param.id, param.val().inner());
        }
    }
}

impl ModuleVisitor for Minus<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(to) = self.to.get::<D>(param.id) {
            self.gradients.register(param.id, param.val().inner() - to);
        }
    }
}
