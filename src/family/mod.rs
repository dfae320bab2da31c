//! The norms beside batch norm: layer, RMS, group, instance norm and their kin.
//!
//! They are batch norm's three steps over other slices. A norm is a choice of two maps, element → statistic and element → parameter
//! ([`slices`]), and of what x is divided by ([`options`]); [`kinds`] makes these choices, [`norm`] is the layer that all kinds share,
//! [`forward`] and [`backward`] are its operations.

mod backward;
mod forward;
mod kinds;
mod norm;
mod options;
mod saved;
mod tracked;
mod tuning;

pub use kinds::{
    GroupNorm, InstanceNorm, L2Norm, LayerNorm, MeanVarianceNorm, RmsNorm, ScaleNorm, WeightNorm,
    WeightStandardization,
};
pub use norm::{Kind, Norm};
pub use options::{Epsilon, NormOptions};
pub use saved::{SavedSlices, SliceStatistics};
pub use tracked::TrackedInstanceNorm;
