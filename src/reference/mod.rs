//! The CPU reference in f64: obvious, slow, and what every kernel is tested against.
//!
//! The same three steps as the kernels: [`reduce`], [`fold`], [`map`], and [`batch`], which composes them to the
//! operations of a layer; [`activation`] is applied in between. [`family`] is every norm whose statistics are those of the tensor at hand, by its
//! two index maps. [`compare`] holds a result against it and [`bounds`] says how far it may be off. Inputs are f64; widen f32 data exactly with `f64::from`. Lengths must fit the view; a
//! mismatch panics, as an index out of bounds does.
//!
//! ```
//! use wgnorm::{Channels, Layout, reference};
//! // One channel with the values 1, 2, 3, 4.
//! let view = Channels { samples: 2, channels: 1, inner: 2, layout: Layout::ChannelsFirst };
//! let out = reference::batch::train_forward(&[1.0, 2.0, 3.0, 4.0], view, None, None, 0.0);
//! assert_eq!(out.statistics[0].mean, 2.5);
//! assert_eq!(out.statistics[0].var, 1.25);
//! ```

pub mod activation;
pub mod batch;
pub mod bounds;
mod compare;
pub mod curve;
pub mod family;
pub mod fold;
pub mod gate;
pub mod graph;
pub mod map;
pub mod masked;
pub mod reduce;
pub mod renorm;
pub mod spectral;
pub mod switchable;

pub use compare::{LengthMismatch, WhereNan, Worst, compare, compare_as};
pub use fold::Statistics;
pub use reduce::{GradientSums, Moments};
