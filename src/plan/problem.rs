//! What is to be done: the operation, its walk through memory, and the bytes that this must move.

use crate::shape::{Channels, Layout};
use crate::tensor::Tensor;

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

/// How the slices of a problem lie in memory, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Each slice is `runs` contiguous runs of `inner` values (shaders/walk/segments.wgsl).
    Segments {
        slices: u64,
        runs: u64,
        inner: u64,
        /// Distance between the first elements of neighbouring slices.
        slice_stride: u64,
        /// Distance between the starts of consecutive runs of a slice.
        run_stride: u64,
    },
    /// Each slice is a column of a row-major matrix (shaders/walk/columns.wgsl).
    Columns { slices: u64, rows: u64 },
}

impl Pattern {
    pub const fn is_columns(&self) -> bool {
        matches!(self, Pattern::Columns { .. })
    }
}

/// What is walked, and with which words that is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Walk {
    pub pattern: Pattern,
    pub alignment: Alignment,
}

/// Where the tensors of an operation begin within 16-byte words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alignment {
    /// All at this element of a word, and their buffers hold all of their last words.
    Same(u32),
    /// At different elements.
    Differs,
    /// A buffer ends inside of its tensor's last word.
    Cut,
}

impl Alignment {
    pub fn of<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Self {
        let mut same: Option<u32> = None;
        for tensor in tensors {
            let Some(phase) = tensor.phase() else { return Self::Cut };
            if same.is_some_and(|same| same != phase) {
                return Self::Differs;
            }
            same = Some(phase);
        }
        Self::Same(same.unwrap_or(0))
    }
}

impl Walk {
    /// The channels of a tensor.
    pub fn channels(view: Channels, alignment: Alignment) -> Self {
        let Channels { samples, channels: slices, inner, layout } = view;
        let pattern = match layout {
            // One channel is one run, in whichever layout.
            _ if slices == 1 => Self::run(samples * inner),
            Layout::ChannelsFirst if inner > 1 => Pattern::Segments {
                slices,
                runs: samples,
                inner,
                slice_stride: inner,
                run_stride: slices * inner,
            },
            Layout::ChannelsFirst | Layout::ChannelsLast => {
                Pattern::Columns { slices, rows: samples * inner }
            }
        };
        Self { pattern, alignment }
    }

    /// The whole tensor as one run.
    pub fn flat(elements: u64, alignment: Alignment) -> Self {
        Self { pattern: Self::run(elements), alignment }
    }

    const fn run(elements: u64) -> Pattern {
        Pattern::Segments {
            slices: 1,
            runs: 1,
            inner: elements,
            slice_stride: elements,
            run_stride: elements,
        }
    }
}
