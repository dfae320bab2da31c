//! Batch norm: what its cases ask for, where they come from, and how they run.

mod builtin;
mod layer;
mod matrix;
mod pooled;
mod renorm;
mod run;
mod sync;

use wgnorm::{BatchNormOptions, RunningValues};

use super::case::{Batch, Case};
use super::variant::Placement;

pub use run::run;

/// What batch norm is to do.
pub struct Work {
    pub options: BatchNormOptions,
    pub running: RunningValues,
    /// Which positions count: of each sample in turn.
    pub mask: Option<Vec<bool>>,
    pub task: Task,
}

pub enum Task {
    /// Training forward, and backward if there is a dy.
    Train { x: Vec<f32>, dy: Option<Vec<f32>> },
    /// Inference, and backward through the running statistics if there is a dy.
    Eval { x: Vec<f32>, dy: Option<Vec<f32>> },
    /// Training forward over several batches, then inference; batches may differ in size.
    Sequence { steps: Vec<Batch>, x_eval: Batch },
    /// Training forward and backward over the shards of several ranks, x and dy of each.
    Sync { shards: Vec<[Batch; 2]> },
}

impl Work {
    /// Whether its tensors can lie so.
    pub fn takes(&self, placement: Placement) -> bool {
        match self.task {
            // Shards are placed by themselves.
            Task::Sync { .. } => placement == Placement::Apart,
            // Batches may have one sample.
            Task::Sequence { .. } => placement != Placement::Parts,
            Task::Train { .. } | Task::Eval { .. } => true,
        }
    }
}

/// The built-in cases; with `full`, every combination of a few choices beside all pairs of many.
pub fn cases(full: bool) -> Vec<Case> {
    let mut cases = builtin::cases();
    cases.extend(matrix::pairs());
    if full {
        cases.extend(matrix::full());
    }
    cases
}
