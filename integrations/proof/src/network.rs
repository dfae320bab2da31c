//! Networks of linear layers, with a norm between or without.

use burn::module::Module;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation};
use wgnorm_burn::{
    Activation, BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, LayerNorm, LayerNormConfig,
};

/// Which norm stands before each activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    None,
    Batch,
    Layer,
    Group,
}

#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub kind: Kind,
    /// Hidden layers, of 100 units each.
    pub depth: usize,
    /// Deviation of weights at the beginning.
    pub deviation: Deviation,
    /// Sigmoid or ReLU.
    pub activation: Activation,
}

#[derive(Clone, Copy, Debug)]
pub enum Deviation {
    /// The same everywhere.
    Fixed(f64),
    /// So many times sqrt(2 / inputs) (He et al. 2015).
    Scaled(f64),
}

const UNITS: usize = 100;
const GROUPS: usize = 10;
const PIXELS: usize = 784;

#[derive(Module, Debug)]
pub struct Network {
    linears: Vec<Linear>,
    head: Linear,
    batch: Vec<BatchNorm>,
    layer: Vec<LayerNorm>,
    group: Vec<GroupNorm>,
    #[module(skip)]
    activation: Activation,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::None, Self::Batch, Self::Layer, Self::Group];

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "no norm",
            Self::Batch => "batch norm",
            Self::Layer => "layer norm",
            Self::Group => "group norm",
        }
    }
}

impl Network {
    pub fn new(shape: Shape, device: &Device) -> Self {
        let Shape { kind, depth, deviation, activation } = shape;
        let linear = |from: usize, to: usize| {
            let std = match deviation {
                Deviation::Fixed(std) => std,
                Deviation::Scaled(by) => by * (2.0 / from as f64).sqrt(),
            };
            LinearConfig::new(from, to).with_initializer(Initializer::Normal { mean: 0.0, std }).init(device)
        };
        let count = |of: Kind| if kind == of { depth } else { 0 };
        let batch = |_| BatchNormConfig::new(UNITS).init(device).with_activation(activation);
        let layer = |_| LayerNormConfig::new(UNITS).init(device).with_activation(activation);
        let group = |_| GroupNormConfig::new(GROUPS, UNITS).init(device).with_activation(activation);
        Self {
            linears: (0..depth).map(|i| linear(if i == 0 { PIXELS } else { UNITS }, UNITS)).collect(),
            head: linear(UNITS, 10),
            batch: (0..count(Kind::Batch)).map(batch).collect(),
            layer: (0..count(Kind::Layer)).map(layer).collect(),
            group: (0..count(Kind::Group)).map(group).collect(),
            activation,
        }
    }

    /// Scores of images `[N, 1, 28, 28]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = flat(images);
        for i in 0..self.linears.len() {
            x = self.hidden(i, x);
        }
        self.head.forward(x)
    }

    /// What the activation of the last hidden layer is of, where a norm has been before it or not.
    pub fn last_inputs(&self, images: Tensor<4>) -> Tensor<2> {
        let last = self.linears.len() - 1;
        let mut x = flat(images);
        for i in 0..last {
            x = self.hidden(i, x);
        }
        let x = self.linears[last].forward(x);
        match (self.batch.get(last), self.layer.get(last), self.group.get(last)) {
            (Some(norm), ..) => norm.clone().with_activation(Activation::None).forward(x),
            (_, Some(norm), _) => norm.clone().with_activation(Activation::None).forward(x),
            (.., Some(norm)) => norm.clone().with_activation(Activation::None).forward(x),
            _ => x,
        }
    }

    fn hidden(&self, i: usize, x: Tensor<2>) -> Tensor<2> {
        let x = self.linears[i].forward(x);
        match (self.batch.get(i), self.layer.get(i), self.group.get(i)) {
            (Some(norm), ..) => norm.forward(x),
            (_, Some(norm), _) => norm.forward(x),
            (.., Some(norm)) => norm.forward(x),
            _ if self.activation == Activation::Sigmoid => activation::sigmoid(x),
            _ => activation::relu(x),
        }
    }
}

fn flat(images: Tensor<4>) -> Tensor<2> {
    let [samples, ..] = images.dims();
    images.reshape([samples, PIXELS])
}
