//! Batch normalization for [wgpu](https://docs.rs/wgpu): fused forward and backward kernels.
//!
//! Start with [`Context`] and [`BatchNorm`].
#![deny(missing_docs)]
#![doc(test(attr(deny(unused_must_use))))]

mod context;
mod dtype;
mod error;
mod gpu;
mod moments;
mod norm;
mod ops;
mod plan;
pub mod reference;
mod shape;
mod tensor;

pub use context::Context;
pub use dtype::DType;
pub use error::{Error, Result};
pub use gpu::adapter::{ContextOptions, ShaderChecks, adapters};
pub use gpu::dispatch::Prepared;
pub use moments::{ChannelMoments, Moments};
pub use norm::{
    Accumulation, Affine, BatchNorm, BatchNormOptions, FrozenBatchNorm, GradientTargets, Gradients, Momentum,
    RunningStatistics, RunningValues, RunningVariance, Saved, SavedStatistics, TrainForward,
};
pub use ops::map::prepare_copy;
pub use plan::{Capabilities, Op, Plan, Traffic, Tuning};
pub use shape::{ChannelsFirst, Layout, Shape};
pub use tensor::Tensor;
