//! What everything speaks of, and nothing of what it speaks with: shapes, element types, activations, conventions, errors. No device.

pub(crate) mod activation;
pub(crate) mod curve;
pub(crate) mod custom;
pub(crate) mod dtype;
pub(crate) mod epsilon;
pub(crate) mod error;
pub(crate) mod failure;
pub(crate) mod gate;
#[cfg(feature = "safetensors")]
pub(crate) mod report;
pub(crate) mod setters;
pub(crate) mod shape;
pub(crate) mod variance;
