//! The public layers.

mod batch;
mod diagnose;
mod frozen;
mod input;
mod options;
mod parts;
mod running;
mod saved;
mod tuning;
mod values;

pub use batch::{BatchNorm, TrainForward};
pub use frozen::FrozenBatchNorm;
pub use input::Input;
pub use options::{
    Accumulation, Affine, BatchNormOptions, GradientTargets, Gradients, Momentum, RunningVariance,
};
pub use running::{RunningStatistics, RunningValues};
#[cfg(test)]
pub(crate) use saved::SavedRecord;
pub use saved::{Saved, SavedStatistics};
