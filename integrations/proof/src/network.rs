//! Networks for digits, of linear layers or convolutions, with a norm between or without.

use burn::module::{Module, RunningState};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{DType, Device, Tensor, activation};
use wgnorm_burn::{Activation, BatchNorm};

use crate::norm::{Kind, Norm};

#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub body: Body,
    pub kind: Kind,
    /// Deviation of weights and biases at the beginning, the head's too.
    pub deviation: Deviation,
    /// Sigmoid or ReLU.
    pub activation: Activation,
    /// Whether the norm has the activation in its pass.
    pub is_fused: bool,
    pub storage: Storage,
}

#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// So many layers of 100 units.
    Linear(usize),
    /// Three convolutions of 3×3: 8 channels of 14×14, 16 and 32 of 7×7; their means are what the head sees.
    Convolutional,
}

#[derive(Clone, Copy, Debug)]
pub enum Deviation {
    /// The same everywhere.
    Fixed(f64),
    /// So many times sqrt(2 / inputs) (He et al. 2015).
    Scaled(f64),
}

/// What norms read and write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Storage {
    F32,
    /// Forward and backward.
    F16,
    /// Rounded to bf16 forward, since burn does not compute in it by WGSL.
    Bf16,
}

const UNITS: usize = 100;
const PIXELS: usize = 784;
/// Inputs, outputs, stride.
const CONVOLUTIONS: [[usize; 3]; 3] = [[1, 8, 2], [8, 16, 2], [16, 32, 1]];

#[derive(Module, Debug)]
pub struct Network {
    pub convolutions: Vec<Conv2d>,
    pub linears: Vec<Linear>,
    pub norms: Vec<Norm>,
    head: Linear,
    /// What is done where a norm does not do it.
    #[module(skip)]
    pub activation: Activation,
    #[module(skip)]
    storage: Storage,
}

impl Shape {
    /// ReLU; weights, and biases too, of the deviation that He et al. have for weights.
    pub fn new(body: Body, kind: Kind) -> Self {
        Self {
            body,
            kind,
            deviation: Deviation::Scaled(1.0),
            activation: Activation::Relu,
            is_fused: !matches!(kind, Kind::None | Kind::Burns),
            storage: Storage::F32,
        }
    }
}

impl Network {
    pub fn new(shape: Shape, device: &Device) -> Self {
        let Shape { body, kind, deviation, activation, is_fused, storage } = shape;
        let normal = |inputs: usize| {
            let std = match deviation {
                Deviation::Fixed(std) => std,
                Deviation::Scaled(by) => by * (2.0 / inputs as f64).sqrt(),
            };
            Initializer::Normal { mean: 0.0, std }
        };
        let linear = |inputs: usize, outputs: usize| {
            LinearConfig::new(inputs, outputs).with_initializer(normal(inputs)).init(device)
        };
        let convolution = |[inputs, outputs, stride]: [usize; 3]| {
            Conv2dConfig::new([inputs, outputs], [3, 3])
                .with_stride([stride, stride])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_initializer(normal(9 * inputs))
                .init(device)
        };
        let (convolutions, linears, units): (Vec<_>, Vec<_>, Vec<_>) = match body {
            Body::Linear(depth) => {
                let linears = (0..depth).map(|i| linear(if i == 0 { PIXELS } else { UNITS }, UNITS));
                (Vec::new(), linears.collect(), vec![UNITS; depth])
            }
            Body::Convolutional => {
                let convolutions = CONVOLUTIONS.into_iter().map(convolution);
                (convolutions.collect(), Vec::new(), CONVOLUTIONS.map(|[_, outputs, _]| outputs).into())
            }
        };
        let head = linear(units[units.len() - 1], 10);
        let (inside, after) =
            if is_fused { (activation, Activation::None) } else { (Activation::None, activation) };
        let norm = |&units: &usize| Some(kind.init(units, device)?.with_activation(inside));
        let norms = units.iter().filter_map(norm).collect();
        Self { convolutions, linears, norms, head, activation: after, storage }
    }

    /// Scores of images `[N, 1, 28, 28]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.head.forward(self.features(images, 0))
    }

    /// What the activation of the last hidden layer is of, of networks of linear layers: behind its norm if there is one.
    pub fn last_inputs(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.features(images, 1);
        match (self.linears.last(), self.norms.last()) {
            (Some(linear), Some(norm)) => {
                norm.clone().with_activation(Activation::None).forward(linear.forward(x))
            }
            (Some(linear), None) => linear.forward(x),
            (None, _) => x,
        }
    }

    /// What the head sees, or would without so many linear layers.
    fn features(&self, mut images: Tensor<4>, without: usize) -> Tensor<2> {
        for (i, convolution) in self.convolutions.iter().enumerate() {
            images = self.activated(i, convolution.forward(images));
        }
        let [samples, channels, ..] = images.dims();
        if !self.convolutions.is_empty() {
            return images.mean_dim(3).mean_dim(2).reshape([samples, channels]);
        }
        let mut x = images.reshape([samples, PIXELS]);
        for (i, linear) in self.linears[..self.linears.len() - without].iter().enumerate() {
            x = self.activated(i, linear.forward(x));
        }
        x
    }

    /// The norm of a layer, and the activation.
    fn activated<const D: usize>(&self, layer: usize, x: Tensor<D>) -> Tensor<D> {
        let y = match self.norms.get(layer) {
            Some(norm) => self.storage.load(norm.forward(self.storage.store(x))),
            None => x,
        };
        match self.activation {
            Activation::Sigmoid => activation::sigmoid(y),
            Activation::Relu => activation::relu(y),
            _ => y,
        }
    }

    /// With running statistics of its own, which a clone shares.
    pub fn apart(mut self) -> Self {
        for norm in self.batch_norms() {
            for state in [&mut norm.running_mean, &mut norm.running_var] {
                *state = RunningState::new(state.value_sync());
            }
        }
        self
    }

    /// Its batch norms.
    pub fn batch_norms(&mut self) -> impl Iterator<Item = &mut BatchNorm> {
        self.norms.iter_mut().filter_map(|norm| match norm {
            Norm::Batch(norm) => Some(norm),
            _ => None,
        })
    }

    /// The inputs of the norms in inference, one after the other, of networks of linear layers. Each norm may be changed before it is run.
    pub fn walk(&mut self, images: Tensor<4>, mut change: impl FnMut(&mut Norm, &Tensor<2>)) {
        let [samples, ..] = images.dims();
        let mut x = images.reshape([samples, PIXELS]);
        for i in 0..self.linears.len() {
            x = self.linears[i].forward(x);
            if let Some(norm) = self.norms.get_mut(i) {
                change(norm, &x);
            }
            x = self.activated(i, x);
        }
    }
}

impl Storage {
    fn store<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::F32 => x,
            Self::F16 => x.cast(DType::F16),
            Self::Bf16 => rounded(x),
        }
    }

    fn load<const D: usize>(self, y: Tensor<D>) -> Tensor<D> {
        match self {
            Self::F32 => y,
            Self::F16 => y.cast(DType::F32),
            Self::Bf16 => rounded(y),
        }
    }
}

/// To the eight bits of bf16, by Veltkamp's splitting, whose derivative is 1.
pub fn rounded<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let large = x.clone() * 65537.0;
    large.clone() - (large - x)
}
