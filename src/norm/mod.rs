//! Batch norm, and what is composed of its operations: statistics over more than one tensor.
//!
//! | statistics over | |
//! |---|---|
//! | a batch | [`BatchNorm`], and with constants instead [`FrozenBatchNorm`] |
//! | several micro-batches that do not fit into memory as one | [`BatchNorm::train_forward_accumulated`], [`MicroBatch`] |
//! | parts of a batch, each by itself | [`BatchNorm::train_forward_ghost`], [`GhostSaved`] |
//! | the last steps | [`CrossIteration`] |
//! | the ranks of a [`collective`](crate::collective) | [`BatchNorm::synchronised`], [`SyncBatchNorm`] |
//! | anything else | moments as a value: [`Input::with_moments`](crate::Input::with_moments), [`BatchNorm::gradient_sums`], [`BatchNorm::backward_from`] |

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
