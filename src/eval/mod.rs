//! Problems with data, expectations and bounds: what `wgnorm check`, the benchmark, the tests and integrations hold results against.
//!
//! A [`Problem`] is made of a [`Spec`](crate::Spec) and a [`Draw`]: inputs with kinks avoided, and what f64 makes of them, with the bounds that
//! kernels keep. [`Problem::run`] runs it on a device; [`Expected::compare`] says how an output compares. [`table`] has the cases that
//! must hold on every adapter. All but running uses no context, threads or files.
//!
//! ```
//! use wgnorm::Context;
//! use wgnorm::eval::{Draw, Problem};
//! let context = Context::headless_blocking()?;
//! let problem = Problem::new(&"batch 3x4x7x5 bf16 relu residual backward".parse()?, &Draw::default())?;
//! let outcome = context.block_on(problem.run(&context));
//! assert!(outcome.passes(), "{:?}", outcome.failures());
//! # Ok::<(), wgnorm::Error>(())
//! ```

mod arena;
mod batch;
mod builtins;
mod covering;
mod curve;
mod custom;
mod data;
#[cfg(not(target_family = "wasm"))]
mod devices;
mod expected;
mod gate;
mod graph;
mod inputs;
mod int8;
pub mod layout;
mod modules;
mod operands;
mod parts;
mod pooled;
mod problem;
pub mod random;
mod run;
mod sample;
mod second;
mod slices;
mod spectral;
mod switchable;
pub mod table;
mod variant;

/// Whether what the device says comes late to calls of this thread, as in a browser, instead of at once: for tests of errors.
pub use crate::engine::verdicts::late::set as late_verdicts;
pub use crate::spec::{Layer, Parameters};
pub use builtins::{LostNans, keeps_subnormals, lost_nans};
pub use custom::{activation_faults, custom_activations};
pub use data::{Data, Draw, Gamma, narrow, rounded, widen};
#[cfg(not(target_family = "wasm"))]
pub use devices::{Compiled, Devices, files, read_shaders, trim};
pub use expected::{Compared, Expected};
pub use inputs::{Inputs, Part};
pub use modules::{Kernel, kernels};
pub use operands::Operands;
pub use problem::Problem;
pub use run::{Outcome, Outputs, Plan, other_bits};
pub use sample::sample;
pub use table::Case;
pub use variant::{Variant, Variants, all as variants};
