//! Host side of the kernels: which tensors they take, which dispatches they make, what they move.

pub(crate) mod curve;
pub(crate) mod fold;
pub(crate) mod map;
pub(crate) mod reduce;
pub(crate) mod resident;
pub(crate) mod second;
pub(crate) mod spectral;
