//! The norms that are timed, and their modules: burn's, or those of this project in burn.

use burn::module::{Param, RunningState};
use burn::nn::{
    BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, LayerNorm, LayerNormConfig, RmsNorm,
    RmsNormConfig,
};
use burn::tensor::{Device, Tensor};

use crate::check::Values;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    Batch,
    Layer,
    Rms,
    Group(usize),
}

/// Whose layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Layers {
    /// Of burn.
    Burn,
    /// Of `integrations/burn`, in burn all the same.
    Wgnorm,
}

/// A module with the parameters of a case.
pub enum Module {
    Batch(BatchNorm),
    Layer(LayerNorm),
    Rms(RmsNorm),
    Group(GroupNorm),
    OurBatch(wgnorm_burn::BatchNorm),
    OurLayer(wgnorm_burn::LayerNorm),
    OurRms(wgnorm_burn::RmsNorm),
    OurGroup(wgnorm_burn::GroupNorm),
}

impl Norm {
    /// The norm of a name in the files, if it is timed here.
    pub fn named(name: &str, groups: Option<usize>) -> Option<Self> {
        match (name, groups) {
            ("batch", None) => Some(Self::Batch),
            ("layer", None) => Some(Self::Layer),
            ("rms", None) => Some(Self::Rms),
            ("group", Some(groups)) => Some(Self::Group(groups)),
            _ => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Layer => "layer",
            Self::Rms => "rms",
            Self::Group(_) => "group",
        }
    }

    pub const fn groups(self) -> Option<usize> {
        if let Self::Group(groups) = self { Some(groups) } else { None }
    }

    /// The name with the number of groups, if there are any.
    pub fn label(self) -> String {
        self.groups().map_or_else(|| self.name().to_owned(), |groups| format!("{}{groups}", self.name()))
    }

    /// Length of gamma.
    pub fn parameters(self, shape: &[usize]) -> usize {
        match self {
            Self::Batch | Self::Group(_) => shape[1],
            Self::Layer | Self::Rms => shape[shape.len() - 1],
        }
    }

    pub fn has_beta(self) -> bool {
        self != Self::Rms
    }
}

impl Module {
    pub fn new(values: &Values, device: &Device, tensor: impl Fn(&[f32]) -> Tensor<1>) -> Self {
        let (gamma, beta) =
            (Param::from_tensor(tensor(&values.gamma)), Param::from_tensor(tensor(&values.beta)));
        let len = values.gamma.len();
        match values.norm {
            Norm::Batch => {
                let mut module = BatchNormConfig::new(len).init(device);
                (module.gamma, module.beta) = (gamma, beta);
                module.running_mean = RunningState::new(tensor(&values.mean));
                module.running_var = RunningState::new(tensor(&values.var));
                Self::Batch(module)
            }
            Norm::Layer => {
                let mut module = LayerNormConfig::new(len).init(device);
                (module.gamma, module.beta) = (gamma, Some(beta));
                Self::Layer(module)
            }
            Norm::Rms => {
                let mut module = RmsNormConfig::new(len).init(device);
                module.gamma = gamma;
                Self::Rms(module)
            }
            Norm::Group(groups) => {
                let mut module = GroupNormConfig::new(groups, len).init(device);
                (module.gamma, module.beta) = (Some(gamma), Some(beta));
                Self::Group(module)
            }
        }
    }

    /// The module with the same parameters of this project.
    pub fn ours(self) -> Self {
        match self {
            Self::Batch(module) => Self::OurBatch(module.into()),
            // The epsilon of its configuration, which `new` leaves as it is.
            Self::Layer(module) => Self::OurLayer(wgnorm_burn::LayerNorm::with(module, 1e-5)),
            Self::Rms(module) => Self::OurRms(module.into()),
            Self::Group(module) => Self::OurGroup(module.into()),
            ours => ours,
        }
    }

    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Batch(module) => module.forward(x),
            Self::Layer(module) => module.forward(x),
            Self::Rms(module) => module.forward(x),
            Self::Group(module) => module.forward(x),
            Self::OurBatch(module) => module.forward(x),
            Self::OurLayer(module) => module.forward(x),
            Self::OurRms(module) => module.forward(x),
            Self::OurGroup(module) => module.forward(x),
        }
    }

    /// gamma, and beta if there is one.
    pub fn parameters(&self) -> Vec<Tensor<1>> {
        let (gamma, beta) = match self {
            Self::Batch(module) => (Some(&module.gamma), Some(&module.beta)),
            Self::Layer(module) => (Some(&module.gamma), module.beta.as_ref()),
            Self::Rms(module) => (Some(&module.gamma), None),
            Self::Group(module) => (module.gamma.as_ref(), module.beta.as_ref()),
            Self::OurBatch(module) => (Some(&module.gamma), Some(&module.beta)),
            Self::OurLayer(module) => (Some(&module.gamma), module.beta.as_ref()),
            Self::OurRms(module) => (Some(&module.gamma), None),
            Self::OurGroup(module) => (module.gamma.as_ref(), module.beta.as_ref()),
        };
        [gamma, beta].into_iter().flatten().map(Param::val).collect()
    }
}
