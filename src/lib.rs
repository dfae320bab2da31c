//! Normalization layers for [wgpu](https://docs.rs/wgpu): fused forward and backward kernels in WGSL.
//!
//! - [`Context`] holds a device, its own or the application's; [`Tensor`] is a range of a GPU buffer with a shape.
//! - [`BatchNorm`] trains, [`FrozenBatchNorm`] infers and fine-tunes; `freeze` and `unfreeze` turn one into the other. [`LayerNorm`], [`RmsNorm`],
//!   [`GroupNorm`], [`InstanceNorm`] and their kin are in [`family`], [`DynamicTanh`] and [`Derf`] in [`curve`], [`SpectralNorm`](spectral::SpectralNorm) in [`spectral`], [`SwitchableNorm`](switchable::SwitchableNorm) in [`switchable`]. [`Train`] and [`Infer`] are any of them.
//! - What a pass is given is an [`Input`]: `&x`, or `x.with_residual(&r)`, `x.masked(&mask)`, `x.plus(&addend, &sum)`, … What is asked of a backward pass are
//!   [`GradientTargets`].
//! - Every operation is prepared once, with all checks and allocations, and recorded any number of times: [`Prepared`],
//!   [`TrainForward`]. Methods without `prepare_` prepare, record and submit.
//!
//! | module | for |
//! |---|---|
//! | [`statistics`] | mean and variance, and gradient sums, as values on the GPU that can be merged; batch renorm |
//! | [`norm`] | batch norm over micro-batches, ghost batches, the last steps, or the ranks of a [`collective`] |
//! | [`recalibration`], [`diagnostics`] | running statistics of a whole data set; what the literature warns of, found in a layer |
//! | [`absorb`] | a layer folded into the weights beside it |
//! | `state` (feature `safetensors`) | the layers of a model loaded and saved by PyTorch's, Keras', Flax' or burn's names |
//! | [`tuning`] | how operations are planned, forced and measured plans, what a device can do |
//! | [`recipe`] | operations as data, for programs that run them without this crate; no device is needed to make them |
//! | [`wgsl`] | kernels of your own on the crate's walks, reductions and element types |
//! | [`spec`], `eval` (feature `eval`) | a problem as a value, one line of text; running one, and holding it against what must come out |
//! | [`reference`](mod@reference) | the f64 twin of the kernels, with the bounds that they keep |
//!
//! ```
//! use wgnorm::{BatchNorm, BatchNormOptions, Context};
//! let context = Context::headless_blocking()?;
//! context.block_on(async {
//!     let x = context.upload(&[2, 3, 2, 2], &[0.5; 24]).await?;
//!     let mut layer = BatchNorm::new(&context, 3, BatchNormOptions::pytorch()).await?;
//!     let (y, saved) = layer.train_forward(&x).await?;
//!     let gradients = layer.backward(&x, &y, &saved).await?;
//!     // Constant channels: x̂ is 0, and so y is beta.
//!     assert!(context.download(&y).await?.iter().all(|&value| value == 0.0));
//!     assert_eq!(gradients.dx.shape().dims(), [2, 3, 2, 2]);
//!     Ok::<(), wgnorm::Error>(())
//! })?;
//! # Ok::<(), wgnorm::Error>(())
//! ```
//!
//! Work is asynchronous: results come back as futures, [`Context::block_on`] waits for them where threads may block. Nothing
//! needs a feature that a browser lacks.
#![deny(missing_docs)]
// What runs operations is there for devices.
#![cfg_attr(not(feature = "wgpu"), allow(dead_code, unused_imports))]

pub mod absorb;
mod base;
pub mod collective;
pub mod curve;
pub mod diagnostics;
mod drift;
mod engine;
#[cfg(feature = "eval")]
pub mod eval;
pub mod family;
pub mod norm;
mod ops;
mod pass;
mod plan;
mod program;
pub mod recalibration;
pub mod recipe;
pub mod reference;
pub mod spec;
pub mod spectral;
#[cfg(feature = "safetensors")]
pub mod state;
pub mod statistics;
pub mod switchable;
pub mod tuning;
#[cfg(feature = "wgpu")]
mod warm;
mod wesl;
pub mod wgsl;

pub use base::activation::Activation;
pub use base::custom::{ActivationFunctions, CustomActivation};
pub use base::dtype::DType;
pub use base::error::{Error, Result};
pub use base::gate::GateOrder;
pub use base::shape::{Channels, Layout, Shape};
pub use base::variance::RunningVariance;
#[doc(inline)]
pub use curve::{CurveOptions, Derf, DynamicTanh};
#[cfg(feature = "wgpu")]
pub use engine::adapter::ContextOptions;
pub use engine::context::Context;
pub use engine::mask::Mask;
pub use engine::prepared::Prepared;
pub use engine::segments::Segments;
pub use engine::tensor::Tensor;
#[doc(inline)]
pub use family::{GraphNorm, GroupNorm, InstanceNorm, LayerNorm, NormOptions, RmsNorm};
#[doc(inline)]
pub use norm::{BatchNorm, BatchNormOptions, FrozenBatchNorm, Momentum};
pub use pass::input::Input;
pub use pass::{Accumulation, Affine, GradientTargets, Gradients, Infer, Int8, Train, TrainForward};
pub use pass::{SecondGradients, SecondTargets, Tangents};
#[doc(inline)]
pub use spec::Spec;
pub use statistics::running::{RunningStatistics, RunningValues};
pub use statistics::saved::Saved;

/// The `mpi` whose types [`MpiCollective`](collective::MpiCollective) takes.
#[cfg(all(feature = "mpi", not(target_family = "wasm")))]
pub use ::mpi;
/// The wgpu whose types this crate's interface uses.
#[cfg(feature = "wgpu")]
pub use wgpu;

/// The example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
