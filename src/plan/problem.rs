//! What is to be done: the operation, its walk through memory, and the bytes that this must move.

use crate::shape::ChannelsFirst;

/// An operation of a batch-norm layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// Batch statistics, normalize, scale and shift.
    TrainForward,
    /// Gradients through batch statistics.
    TrainBackward,
    /// Normalize with running statistics.
    Inference,
    /// Gradients through running statistics.
    FrozenBackward,
    /// Moments of a tensor as a value.
    Moments,
    /// Copy a tensor: the benchmark's yardstick.
    Copy,
}

impl Op {
    /// The name that the benchmark's files use.
    pub const fn name(self) -> &'static str {
        match self {
            Op::TrainForward => "train_forward",
            Op::TrainBackward => "train_backward",
            Op::Inference => "inference",
            Op::FrozenBackward => "frozen_backward",
            Op::Moments => "moments",
            Op::Copy => "copy",
        }
    }
}

/// Bytes of tensor data that an operation moves; values per channel are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// What any implementation must move: each input read once, each output written once.
    pub floor_bytes: u64,
    /// What the chosen plan moves.
    pub plan_bytes: u64,
}

impl Traffic {
    /// Traffic of `floor` and `plan` passes over a tensor of `bytes`.
    pub(crate) const fn passes(bytes: u64, floor: u64, plan: u64) -> Self {
        Self { floor_bytes: bytes * floor, plan_bytes: bytes * plan }
    }
}

/// How the slices of a problem lie in memory, in elements: each slice is `runs` contiguous runs of `inner` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Walk {
    pub slices: u64,
    pub runs: u64,
    pub inner: u64,
    /// Distance between the first elements of neighbouring slices.
    pub slice_stride: u64,
    /// Distance between the starts of consecutive runs of a slice.
    pub run_stride: u64,
    /// Whether every tensor of the walk starts on a multiple of 16 bytes.
    pub aligned: bool,
}

impl Walk {
    /// Channels of a channels-first tensor.
    pub fn channels(view: ChannelsFirst, aligned: bool) -> Self {
        Self {
            slices: view.channels,
            runs: view.samples,
            inner: view.inner,
            slice_stride: view.inner,
            run_stride: view.channels * view.inner,
            aligned,
        }
    }

    /// The whole tensor as one run.
    pub fn flat(elements: u64, aligned: bool) -> Self {
        Self { slices: 1, runs: 1, inner: elements, slice_stride: elements, run_stride: elements, aligned }
    }
}
