//! The norms beside batch norm: layer, RMS, group, instance norm and their kin.
//!
//! They are batch norm's three steps over other slices. A norm is a choice of two maps, element → statistic and element → parameter, and of what x is
//! divided by; all are one type, [`Norm`], over its [`Kind`].
//!
//! | | x̂ | over |
//! |---|---|---|
//! | [`LayerNorm`] | `(x − mean) / sqrt(var + eps)` | trailing axes, or any |
//! | [`RmsNorm`] | `x / sqrt(mean(x²) + eps)` | trailing axes, or any |
//! | [`GroupNorm`] | `(x − mean) / sqrt(var + eps)` | groups of channels of each sample |
//! | [`InstanceNorm`], [`TrackedInstanceNorm`] | the same | each channel of each sample |
//! | [`GraphNorm`] | `(x − alpha·mean) / sqrt(mean of its square + eps)` | each channel of each segment |
//! | [`MeanVarianceNorm`] | `(x − mean) / (sqrt(var) + eps)` | any axes |
//! | [`L2Norm`], [`ScaleNorm`] | `x / max(‖x‖, eps)` | any axes, the last axis |
//! | [`WeightNorm`], [`WeightStandardization`] | `v / ‖v‖`, `(w − mean) / sqrt(var + eps)` | each index of a weight's first axis |

mod arranged;
mod axes;
mod int8;
mod kinds;
mod layers;
mod norm;
mod options;
mod passes;
mod places;
mod tracked;
mod train;

pub use kinds::{
    GraphNorm, GroupNorm, InstanceNorm, L2Norm, LayerNorm, MeanVarianceNorm, RmsNorm, ScaleNorm, WeightNorm,
    WeightStandardization,
};
pub use norm::{Kind, Norm};
pub use options::{Epsilon, NormOptions};
pub use places::OfPlaces;
pub use tracked::TrackedInstanceNorm;

pub use crate::pass::input::{Gate, Modulation, Sum};
