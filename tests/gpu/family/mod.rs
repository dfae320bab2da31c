//! The norms beside batch norm: what their results alone do not show. That they are right is the table's matter.

mod axes;
mod errors;
mod gated;
mod int8;
mod limits;
mod padded;
mod plans;
mod weights;
