//! The public layers.

mod accumulated;
mod batch;
mod composition;
mod cross_iteration;
mod curve;
mod frozen;
mod ghost;
mod options;
mod parts;
mod pooled;
mod renorm;
mod running;
mod saved;
mod synchronised;
mod tuning;
mod values;

pub use accumulated::{AccumulatedGradients, MicroBatch, MicroBatchGradient};
pub use batch::{BatchNorm, TrainForward};
pub use cross_iteration::CrossIteration;
pub use curve::{
    CurveGradients, CurveKind, CurveOptions, CurveTargets, Derf, DynamicCurve, DynamicTanh, Erf, Tanh,
};
pub use frozen::FrozenBatchNorm;
pub use ghost::GhostSaved;
pub use options::{Accumulation, Affine, BatchNormOptions, GradientTargets, Gradients, Momentum};
pub(crate) use parts::Parts;
pub use pooled::LocalGradients;
pub use renorm::{Ramp, Renorm};
pub use running::{RunningStatistics, RunningValues};
#[cfg(test)]
pub(crate) use saved::SavedRecord;
pub use saved::{Saved, SavedStatistics};
pub use synchronised::{SyncBackward, SyncBatchNorm, SyncTrainForward};
