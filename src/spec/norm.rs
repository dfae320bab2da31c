//! Which norm a problem is of.

use crate::base::variance::RunningVariance;
use crate::curve::Curve;
use crate::family::{Epsilon, NormOptions};
use crate::norm::BatchNormOptions;
use crate::pass::Affine;
use crate::spectral::{PowerOrder, SpectralNormOptions};

/// Which norm. Axes are those of x in logical order: N, C and the spatial ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Norm {
    /// [`BatchNorm`](crate::BatchNorm), in training.
    Batch,
    /// [`FrozenBatchNorm`](crate::FrozenBatchNorm).
    FrozenBatch,
    /// [`LayerNorm`](crate::LayerNorm) over so many trailing axes.
    Layer(usize),
    /// [`RmsNorm`](crate::RmsNorm) over so many trailing axes.
    Rms(usize),
    /// [`GroupNorm`](crate::GroupNorm) with so many groups.
    Group(usize),
    /// [`InstanceNorm`](crate::InstanceNorm).
    Instance,
    /// [`GraphNorm`](crate::GraphNorm).
    Graph,
    /// [`SwitchableNorm`](crate::switchable::SwitchableNorm), in training, with this variance of instances.
    Switchable(RunningVariance),
    /// [`TrackedInstanceNorm`](crate::family::TrackedInstanceNorm), in training.
    TrackedInstance,
    /// [`MeanVarianceNorm`](crate::family::MeanVarianceNorm) over these axes, in ascending order.
    MeanVariance(Vec<usize>),
    /// [`L2Norm`](crate::family::L2Norm) over these axes, in ascending order.
    L2(Vec<usize>),
    /// [`ScaleNorm`](crate::family::ScaleNorm).
    Scale,
    /// [`WeightNorm`](crate::family::WeightNorm).
    Weight,
    /// [`WeightStandardization`](crate::family::WeightStandardization).
    WeightStandardization,
    /// [`SpectralNorm`](crate::spectral::SpectralNorm) with rows along an axis, in an order of its steps.
    Spectral(usize, PowerOrder),
    /// [`DynamicTanh`](crate::DynamicTanh).
    DynamicTanh,
    /// [`Derf`](crate::Derf).
    Derf,
}

impl Norm {
    /// The name that the program, benchmarks and conformance files use.
    pub const fn name(&self) -> &'static str {
        match self {
            Norm::Batch => "batch_norm_train",
            Norm::FrozenBatch => "batch_norm_eval",
            Norm::Layer(_) => "layer_norm",
            Norm::Rms(_) => "rms_norm",
            Norm::Group(_) => "group_norm",
            Norm::Instance | Norm::TrackedInstance => "instance_norm",
            Norm::Graph => "graph_norm",
            Norm::Switchable(_) => "switchable_norm",
            Norm::MeanVariance(_) => "mvn",
            Norm::L2(_) => "l2_norm",
            Norm::Scale => "scale_norm",
            Norm::Weight => "weight_norm",
            Norm::WeightStandardization => "weight_standardization",
            Norm::Spectral(..) => "spectral_norm",
            Norm::DynamicTanh => "dynamic_tanh",
            Norm::Derf => "derf",
        }
    }

    /// Whether a forward pass leaves statistics for its backward pass: not where these are constants, or there are none.
    pub const fn saves(&self) -> bool {
        !matches!(self, Norm::FrozenBatch | Norm::Spectral(..) | Norm::DynamicTanh | Norm::Derf)
    }

    /// Whether it is batch norm, in training or frozen.
    pub const fn is_batch(&self) -> bool {
        matches!(self, Norm::Batch | Norm::FrozenBatch)
    }

    /// The function of each value that stands in the place of a norm, if it is one of those.
    pub const fn curve(&self) -> Option<Curve> {
        match self {
            Norm::DynamicTanh => Some(Curve::Tanh),
            Norm::Derf => Some(Curve::Erf),
            _ => None,
        }
    }

    /// The options of spectral norm, if it is that.
    pub const fn spectral(&self) -> Option<SpectralNormOptions> {
        match self {
            Norm::Spectral(axis, order) => Some(SpectralNormOptions::hook().axis(*axis).order(*order)),
            _ => None,
        }
    }

    /// Whether it is one of the family: a [`Norm<K>`](crate::family::Norm) over slices.
    pub const fn is_of_slices(&self) -> bool {
        !(self.is_batch() || matches!(self, Norm::Switchable(_)))
            && self.curve().is_none()
            && self.spectral().is_none()
    }

    /// Whether its slices are rows of x, positions with all of their values.
    pub const fn is_of_rows(&self) -> bool {
        matches!(self, Norm::Layer(_) | Norm::Rms(_) | Norm::Scale)
    }

    /// Whether it has channels, and so the same results in each layout.
    pub const fn has_channels(&self) -> bool {
        self.is_batch()
            || self.curve().is_some()
            || matches!(self, Norm::Group(_) | Norm::Instance | Norm::TrackedInstance | Norm::Switchable(_))
    }

    /// Whether gamma and beta can be those of each sample.
    pub const fn can_be_modulated(&self) -> bool {
        matches!(self, Norm::Layer(_) | Norm::Rms(_) | Norm::Group(_) | Norm::Instance)
    }

    /// Whether it keeps running statistics while it trains.
    pub const fn tracks(&self) -> bool {
        matches!(self, Norm::Batch | Norm::TrackedInstance | Norm::Switchable(_))
    }

    /// The parameters that it has by default, for tests of all that it can have.
    pub const fn affine(&self) -> Affine {
        match self {
            Norm::MeanVariance(_) | Norm::L2(_) | Norm::Spectral(..) => Affine::None,
            Norm::Rms(_) | Norm::Scale | Norm::Weight | Norm::WeightStandardization => Affine::Weight,
            _ => Affine::Both,
        }
    }

    /// Whether it can have these parameters.
    pub fn allows(&self, affine: Affine) -> bool {
        match self {
            Norm::MeanVariance(_) | Norm::L2(_) | Norm::Spectral(..) => affine == Affine::None,
            Norm::Weight | Norm::WeightStandardization => !affine.has_beta(),
            _ => true,
        }
    }

    /// The eps of PyTorch, or of the source of the norm.
    pub const fn eps(&self) -> Epsilon {
        match self.options() {
            _ if self.spectral().is_some() => Epsilon::Value(SpectralNormOptions::hook().eps),
            Some(options) => options.eps,
            None => Epsilon::Value(BatchNormOptions::pytorch().eps),
        }
    }

    /// Options that a norm of slices begins with.
    pub(crate) const fn options(&self) -> Option<NormOptions> {
        Some(match self {
            Norm::Layer(_) => NormOptions::layer(),
            Norm::Rms(_) => NormOptions::rms(),
            Norm::Group(_) => NormOptions::group(),
            Norm::Instance | Norm::TrackedInstance => NormOptions::instance(),
            Norm::Graph => NormOptions::graph(),
            Norm::MeanVariance(_) => NormOptions::mean_variance(),
            Norm::L2(_) => NormOptions::l2(),
            Norm::Scale => NormOptions::scale(),
            Norm::Weight => NormOptions::weight(),
            Norm::WeightStandardization => NormOptions::standardization(),
            Norm::Batch
            | Norm::FrozenBatch
            | Norm::Switchable(_)
            | Norm::Spectral(..)
            | Norm::DynamicTanh
            | Norm::Derf => {
                return None;
            }
        })
    }
}
