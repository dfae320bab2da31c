//! The norms beside batch norm: layer, RMS, group, instance norm and their kin.
//!
//! They are batch norm's three steps over other slices. A norm is a choice of two maps, element → statistic and element → parameter
//! ([`Slices`](crate::plan::Slices)), and of what x is divided by ([`Scheme`](crate::pass::Scheme)); [`kinds`] makes these choices, [`norm`] is the layer that
//! all kinds share.

mod kinds;
mod norm;
mod options;
mod tracked;

pub use kinds::{
    GroupNorm, InstanceNorm, L2Norm, LayerNorm, MeanVarianceNorm, RmsNorm, ScaleNorm, WeightNorm,
    WeightStandardization,
};
pub use norm::{Kind, Norm};
pub use options::{Epsilon, NormOptions};
pub use tracked::TrackedInstanceNorm;

pub use crate::pass::input::{Modulation, Sum};
