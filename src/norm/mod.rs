//! Batch norm, and what is composed of its operations.

mod accumulated;
mod batch;
mod composition;
mod cross_iteration;
mod frozen;
mod ghost;
mod options;
mod parts;
mod pooled;
mod synchronised;
mod train;
mod values;

pub use accumulated::{AccumulatedGradients, MicroBatch, MicroBatchGradient};
pub use batch::BatchNorm;
pub use cross_iteration::CrossIteration;
pub use frozen::FrozenBatchNorm;
pub use ghost::GhostSaved;
pub use options::{BatchNormOptions, Momentum};
pub(crate) use parts::Parts;
pub use synchronised::{SyncBackward, SyncBatchNorm, SyncTrainForward};

pub use crate::pass::LocalGradients;
