//! How tensors lie in memory, for the policy.

use crate::base::dtype::DType;
use crate::base::shape::Channels;
use crate::engine::tensor::Tensor;
use crate::plan::{Alignment, Part, Pattern, Slices, Walk};

/// Values of the widest word.
const WORD: u64 = 4;

impl Walk {
    /// The channels of tensors that share a shape, a layout and a type.
    pub fn channels(view: Channels, tensors: &[&Tensor], storage_alignment: u64) -> Self {
        let strided = tensors.iter().any(|tensor| !tensor.is_dense());
        let pattern = match view.channels {
            // One channel is one run, in whichever layout.
            1 if !strided => Pattern::Run { elements: view.elements() },
            _ => Slices::channels(view).pattern,
        };
        Self::over(pattern, tensors, storage_alignment)
    }

    /// The same, of tensors that are rows of so many elements, equally far apart.
    pub fn of_rows(self, len: u64, tensors: &[&Tensor]) -> Self {
        if !self.strided {
            return self;
        }
        let apart = tensors.iter().map(|tensor| tensor.rows_apart(len).unwrap_or(len));
        let longest = apart.clone().max().unwrap_or(len);
        let whole = len.is_multiple_of(WORD) && apart.clone().all(|apart| apart.is_multiple_of(WORD));
        let rows = match self.pattern {
            Pattern::Matrices { inner, .. } => inner,
            pattern => pattern.elements() / len.max(1),
        };
        let alignment = match self.alignment {
            Alignment::Same if !whole => Alignment::Differs,
            alignment => alignment,
        };
        let row_bytes = longest * self.dtype.size();
        Self { alignment, sample_bytes: rows * row_bytes, row_bytes, ..self }
    }

    /// All values of dense tensors of the same shape and type as one run.
    pub fn flat(tensors: &[&Tensor], storage_alignment: u64) -> Self {
        let elements = tensors.iter().map(|tensor| tensor.shape().len()).max().unwrap_or(0);
        Self { merges: false, ..Self::over(Pattern::Run { elements }, tensors, storage_alignment) }
    }

    /// Tensors of the same shape and type, cut as a pattern says.
    pub fn over(pattern: Pattern, tensors: &[&Tensor], storage_alignment: u64) -> Self {
        let sample_len = tensors.iter().map(|tensor| tensor.sample_len()).max().unwrap_or(1).max(1);
        let mut cuts: Vec<u64> = tensors.iter().flat_map(|tensor| tensor.part_starts()).collect();
        cuts.sort_unstable();
        cuts.dedup();
        cuts.push(pattern.elements() / sample_len);
        let mut alignment = Alignment::Same;
        let strided = tensors.iter().any(|tensor| !tensor.is_dense());
        let parts = cuts
            .windows(2)
            .map(|cut| {
                let places: Vec<_> = tensors.iter().map(|tensor| tensor.word_place(cut[0], cut[1])).collect();
                let phase = places.iter().flatten().next().copied().unwrap_or(0);
                if places.iter().any(Option::is_none) {
                    alignment = Alignment::Cut;
                } else if places.iter().any(|&place| place != Some(phase)) && alignment == Alignment::Same {
                    alignment = Alignment::Differs;
                }
                Part { elements: (cut[1] - cut[0]) * sample_len, phase }
            })
            .collect::<Vec<_>>();
        // Where rows or samples are apart, words must be whole in each of them.
        let whole_rows = match pattern {
            Pattern::Columns { slices, .. } | Pattern::Matrices { slices, .. } => slices.is_multiple_of(WORD),
            _ => sample_len.is_multiple_of(WORD),
        };
        let whole_strides = tensors.iter().all(|tensor| tensor.strides_are_multiples_of(WORD));
        if strided && !(whole_rows && whole_strides && parts.iter().all(|part| part.phase == 0)) {
            alignment = Alignment::Differs;
        }
        let dtype = tensors.first().map_or(DType::F32, |tensor| tensor.dtype());
        Self {
            pattern,
            dtype,
            tensors: tensors.len(),
            held: None,
            merges: true,
            foldable: false,
            masked: false,
            unit_rows: pattern.unit_rows(),
            alignment,
            parts,
            strided,
            sample_bytes: match strided {
                true => tensors.iter().map(|tensor| tensor.sample_stride()).max().unwrap_or(0) * dtype.size(),
                // Samples are those of the pattern, which need not be those of the tensors.
                false => pattern.sample() * dtype.size(),
            },
            row_bytes: match strided {
                true => tensors.iter().map(|tensor| tensor.row_stride()).max().unwrap_or(0) * dtype.size(),
                false => 0,
            },
            slack: tensors
                .iter()
                .flat_map(|tensor| tensor.locations())
                .map(|location| location.bytes.start % storage_alignment)
                .max()
                .unwrap_or(0),
        }
    }
}
