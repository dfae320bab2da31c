//! The norms beside batch norm: `setup` describes and runs one, on tensors among guards, and holds it against the reference.

mod affine;
mod errors;
mod plans;
mod setup;
mod shapes;
mod sums;
mod weights;
