//! The norms beside batch norm: [`layer`] makes them, [`data`] says what they must compute, [`case`] runs and times them.

mod case;
mod data;
mod layer;

pub use case::Cases;
pub use data::Data;
