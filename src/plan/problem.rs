//! What is to be done: the operation, its walk through memory, and the bytes that this must move.

use crate::base::dtype::DType;
use crate::base::shape::{Channels, Layout};

/// An operation of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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
    /// How y changes as x and the parameters do: forward mode.
    Tangent,
    /// Gradients of gradients.
    SecondBackward,
    /// Moments of a tensor as a value.
    Moments,
    /// A function of x in the place of the normalization, scale and shift.
    CurveForward,
    /// Gradients through that function.
    CurveBackward,
    /// Copy a tensor: the benchmark's yardstick.
    Copy,
    /// A program of one's own ([`wgsl::Program`](crate::wgsl::Program)).
    Own,
}

impl Op {
    /// The name that the benchmark's files use.
    pub const fn name(self) -> &'static str {
        match self {
            Op::TrainForward => "train_forward",
            Op::TrainBackward => "train_backward",
            Op::Inference => "inference",
            Op::FrozenBackward => "frozen_backward",
            Op::Tangent => "tangent",
            Op::SecondBackward => "second_backward",
            Op::Moments => "moments",
            Op::CurveForward => "curve_forward",
            Op::CurveBackward => "curve_backward",
            Op::Copy => "copy",
            Op::Own => "own",
        }
    }
}

impl Op {
    /// Values that a resident kernel of the operation holds for each of x, if there is one: forward x, backward x̂ and dz.
    pub(crate) const fn held(self) -> Option<u32> {
        match self {
            Op::TrainForward => Some(1),
            Op::TrainBackward => Some(2),
            _ => None,
        }
    }
}

/// Bytes of tensor data that an operation moves; values per channel are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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

    /// Traffic of both.
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            floor_bytes: self.floor_bytes + other.floor_bytes,
            plan_bytes: self.plan_bytes + other.plan_bytes,
        }
    }
}

/// How the slices of a problem lie in memory, in elements of a dense tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    /// One slice, which is one run (shaders/walk/segments.wesl).
    Run { elements: u64 },
    /// Each slice is a run of `inner` values in each sample (shaders/walk/segments.wesl).
    Segments { slices: u64, samples: u64, inner: u64 },
    /// Each slice is a column of a row-major matrix with `inner` rows per sample (shaders/walk/columns.wesl).
    Columns { slices: u64, samples: u64, inner: u64 },
    /// Each slice is a column of one of `samples` row-major matrices with `inner` rows (shaders/walk/columns.wesl).
    Matrices { slices: u64, samples: u64, inner: u64 },
}

impl Pattern {
    /// The same as samples, channels and positions.
    pub const fn view(&self) -> Channels {
        match *self {
            Pattern::Run { elements } => {
                Channels { samples: 1, channels: 1, inner: elements, layout: Layout::ChannelsFirst }
            }
            Pattern::Segments { slices, samples, inner } => {
                Channels { samples, channels: slices, inner, layout: Layout::ChannelsFirst }
            }
            Pattern::Columns { slices, samples, inner } | Pattern::Matrices { slices, samples, inner } => {
                Channels { samples, channels: slices, inner, layout: Layout::ChannelsLast }
            }
        }
    }

    pub const fn is_columns(&self) -> bool {
        matches!(self, Pattern::Columns { .. } | Pattern::Matrices { .. })
    }

    pub(crate) const fn unit_rows(&self) -> u64 {
        match *self {
            Pattern::Matrices { inner, .. } => inner,
            _ => 0,
        }
    }

    /// Elements of a sample.
    pub const fn sample(&self) -> u64 {
        match *self {
            Pattern::Run { elements } => elements,
            Pattern::Segments { slices, inner, .. }
            | Pattern::Columns { slices, inner, .. }
            | Pattern::Matrices { slices, inner, .. } => slices * inner,
        }
    }

    pub const fn elements(&self) -> u64 {
        match *self {
            Pattern::Run { elements } => elements,
            Pattern::Segments { slices, samples, inner }
            | Pattern::Columns { slices, samples, inner }
            | Pattern::Matrices { slices, samples, inner } => slices * samples * inner,
        }
    }
}

/// What is walked, and with which words that is possible.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Walk {
    pub pattern: Pattern,
    pub dtype: DType,
    /// How many tensors are walked.
    pub tensors: usize,
    /// Values that a resident kernel holds for each place of a tensor, where the operation has one.
    pub held: Option<u32>,
    /// Whether workgroups of a slice leave partial results, which somebody merges: not where all are maps.
    pub merges: bool,
    /// Whether their fold may be a dispatch of its own, before the map that follows.
    pub foldable: bool,
    /// Whether a mask leaves out some values.
    pub masked: bool,
    /// Rows of columns that share statistics: those of a matrix, or 1 where each row has its own; 0 for all. As many as divide them may be taken as one.
    pub unit_rows: u64,
    pub alignment: Alignment,
    /// The ranges of elements that lie in one buffer each, of all tensors, in order.
    pub parts: Vec<Part>,
    /// Whether samples or rows of a tensor are further apart than in a dense one.
    pub strided: bool,
    /// The longest distance between neighbouring samples of any of the tensors, in bytes.
    pub sample_bytes: u64,
    /// The longest distance between neighbouring rows of a sample, in bytes, where these are apart; else 0.
    pub row_bytes: u64,
    /// Bytes by which the longest binding of a whole tensor exceeds the tensor itself.
    pub slack: u64,
}

/// A range of the elements of all tensors that lies in one buffer of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    pub elements: u64,
    /// Element of a word at which it begins.
    pub phase: u32,
}

/// How the tensors of an operation lie within words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Alignment {
    /// All begin at the same element of a word, and their buffers hold all of their last words.
    Same,
    /// At different elements, or not at whole words where rows or samples are apart.
    Differs,
    /// A buffer ends inside of its tensor's last word.
    Cut,
    /// A word could hold values of two groups of a row.
    Groups,
    /// Neighbours in one tensor are not neighbours in another.
    Permuted,
}

impl Walk {
    /// How the tensors lie in memory, in words, as far as it differs from dense ones at the start of a word.
    pub fn place(&self) -> String {
        let mut words = Vec::new();
        let phase = self.parts.iter().map(|part| part.phase).max().unwrap_or(0);
        match self.alignment {
            Alignment::Same if phase > 0 => words.push(format!("phase {phase}")),
            Alignment::Same => {}
            Alignment::Differs => words.push("unaligned".to_owned()),
            Alignment::Cut => words.push("cut".to_owned()),
            Alignment::Groups => words.push("groups".to_owned()),
            Alignment::Permuted => words.push("permuted".to_owned()),
        }
        if self.strided {
            words.push(format!("rows {} samples {} bytes apart", self.row_bytes, self.sample_bytes));
        }
        words.join(" ")
    }

    /// Whether a part of every tensor can be bound as it is.
    pub fn fits(&self, part: &Part, limit: u64) -> bool {
        let bytes = match self.pattern {
            Pattern::Segments { slices, inner, .. }
            | Pattern::Columns { slices, inner, .. }
            | Pattern::Matrices { slices, inner, .. }
                if self.strided =>
            {
                part.elements / (slices * inner).max(1) * self.sample_bytes
            }
            _ => part.elements * self.dtype.size(),
        };
        let around = if self.slack > 0 { self.slack + 16 } else { 0 };
        bytes.next_multiple_of(16).saturating_add(around) <= limit
    }

    /// A dense walk at one place of a word, without tensors.
    #[cfg(test)]
    pub fn dense(view: Channels, phase: u32) -> Self {
        let Channels { samples, channels: slices, inner, layout } = view;
        let pattern = match layout {
            _ if slices == 1 => Pattern::Run { elements: samples * inner },
            Layout::ChannelsFirst if inner > 1 => Pattern::Segments { slices, samples, inner },
            Layout::ChannelsFirst | Layout::ChannelsLast => Pattern::Columns { slices, samples, inner },
        };
        Self::plain(pattern, samples, phase)
    }

    /// A dense walk over one buffer, without tensors.
    #[cfg(test)]
    pub fn plain(pattern: Pattern, samples: u64, phase: u32) -> Self {
        Self {
            pattern,
            dtype: DType::F32,
            tensors: 2,
            held: None,
            merges: true,
            foldable: false,
            masked: false,
            unit_rows: pattern.unit_rows(),
            alignment: Alignment::Same,
            parts: vec![Part { elements: pattern.elements(), phase }],
            strided: false,
            sample_bytes: 4 * pattern.elements() / samples.max(1),
            row_bytes: 0,
            slack: 0,
        }
    }
}
