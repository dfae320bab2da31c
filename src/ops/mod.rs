//! Host side of the kernels: which tensors they take, which dispatches they make, what they move.

pub(crate) mod fold;
pub(crate) mod map;
pub(crate) mod reduce;

use crate::tensor::Tensor;

/// Whether a walk over these tensors can use 16-byte words.
pub(crate) fn wide<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> bool {
    tensors.into_iter().all(Tensor::is_wide_aligned)
}
