//! Which norm stands before each activation, and the layer that it is.

use burn::module::Module;
use burn::nn;
use burn::tensor::{Device, Tensor};
use wgnorm_burn::{
    Activation, BatchNorm, BatchNormConfig, CrossIteration, DynamicTanh, DynamicTanhConfig, GroupNorm,
    GroupNormConfig, LayerNorm, LayerNormConfig, RmsNorm, RmsNormConfig, Statistics,
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    None,
    Batch,
    /// By the statistics of so many samples at a time.
    Ghost(usize),
    /// Its limits grow in training: [`Norm::at`].
    Renorm,
    /// By those of so many steps.
    CrossIteration(usize),
    /// With another weight of the newest statistics in the running ones than a tenth.
    Momentum(f64),
    /// burn's own batch norm.
    Burns,
    Layer,
    Rms,
    /// Of so many groups.
    Group(usize),
    Tanh,
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Norm {
    Batch(BatchNorm),
    Burns(nn::BatchNorm),
    Layer(LayerNorm),
    Rms(RmsNorm),
    Group(GroupNorm),
    Tanh(DynamicTanh),
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "no norm",
            Self::Batch | Self::Momentum(_) | Self::Burns => "batch norm",
            Self::Ghost(_) => "ghost batches",
            Self::Renorm => "batch renorm",
            Self::CrossIteration(_) => "cross-iteration batch norm",
            Self::Layer => "layer norm",
            Self::Rms => "RMS norm",
            Self::Group(_) => "group norm",
            Self::Tanh => "Dynamic Tanh",
        }
    }

    /// The layer for so many units or channels.
    ///
    /// # Panics
    /// For cross-iteration over no steps, groups that do not divide the channels.
    pub fn init(self, units: usize, device: &Device) -> Option<Norm> {
        let batch = || BatchNormConfig::new(units).init(device);
        let by = |statistics| Some(Norm::Batch(batch().with_statistics(statistics)));
        match self {
            Self::None => None,
            Self::Batch => Some(Norm::Batch(batch())),
            Self::Ghost(samples) => by(Statistics::Ghost(samples)),
            Self::Renorm => by(Statistics::Renorm { r_max: 1.0, d_max: 0.0 }),
            Self::CrossIteration(steps) => {
                by(Statistics::CrossIteration(CrossIteration::new(steps).expect("a step at least")))
            }
            Self::Momentum(weight) => Some(Norm::Batch(BatchNorm { momentum: weight, ..batch() })),
            Self::Burns => Some(Norm::Burns(nn::BatchNormConfig::new(units).init(device))),
            Self::Layer => Some(Norm::Layer(LayerNormConfig::new(units).init(device))),
            Self::Rms => Some(Norm::Rms(RmsNormConfig::new(units).init(device))),
            Self::Group(groups) => Some(Norm::Group(GroupNormConfig::new(groups, units).init(device))),
            Self::Tanh => Some(Norm::Tanh(DynamicTanhConfig::new(units).init(device))),
        }
    }
}

impl Norm {
    /// With an activation in the same pass, which burn's own does not have.
    pub fn with_activation(self, activation: Activation) -> Self {
        match self {
            Self::Batch(norm) => Self::Batch(norm.with_activation(activation)),
            Self::Burns(norm) => Self::Burns(norm),
            Self::Layer(norm) => Self::Layer(norm.with_activation(activation)),
            Self::Rms(norm) => Self::Rms(norm.with_activation(activation)),
            Self::Group(norm) => Self::Group(norm.with_activation(activation)),
            Self::Tanh(norm) => Self::Tanh(norm.with_activation(activation)),
        }
    }

    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Batch(norm) => norm.forward(x),
            Self::Burns(norm) => norm.forward(x),
            Self::Layer(norm) => norm.forward(x),
            Self::Rms(norm) => norm.forward(x),
            Self::Group(norm) => norm.forward(x),
            Self::Tanh(norm) => norm.forward(x),
        }
    }

    /// As it is at a step of so many: batch renorm begins as batch norm, for a fifth of the steps, and has its limits (3 and 5, as in the paper) at two fifths.
    pub fn at(&mut self, step: usize, steps: usize) {
        if let Self::Batch(BatchNorm { statistics: Statistics::Renorm { r_max, d_max }, .. }) = self {
            let grown = (5.0 * step as f64 / steps.max(1) as f64 - 1.0).clamp(0.0, 1.0);
            (*r_max, *d_max) = (1.0 + 2.0 * grown, 5.0 * grown);
        }
    }
}
