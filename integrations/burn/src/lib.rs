//! wgnorm's kernels as layers of [burn](https://burn.dev), on its wgpu backend and its own buffers, with autodiff, with and without fusion.
//!
//! Two lines of difference: the device is opened by [`init`], and layers come from here. They have burn's configurations and fields.
//!
//! ```no_run
//! use burn::tensor::{Device, Tensor};
//! use wgnorm_burn::BatchNormConfig;
//! let device = wgnorm_burn::init(Device::wgpu_options())?.autodiff();
//! let norm = BatchNormConfig::new(64).init(&device);
//! let y = norm.forward(Tensor::<4>::ones([8, 64, 56, 56], &device));
//! # drop(y);
//! # Ok::<(), wgnorm_burn::Error>(())
//! ```
//!
//! On another backend, a device that is not shared, or another type than f32, f16 and bf16, burn's own operations do it; [`fallback`] counts that, or forbids it.
#![deny(missing_docs)]

mod adopt;
mod batch_norm;
mod call;
mod cross_iteration;
mod device;
mod dynamic_tanh;
mod error;
pub mod fallback;
mod fold;
mod input;
mod layers;
mod moments;
mod ops;
mod passes;
mod place;
mod problem;
mod rank;
mod recalibration;
mod statistics;
pub mod stats;

pub use adopt::{AdoptError, adopt};
pub use batch_norm::{BatchNorm, BatchNormConfig};
pub use cross_iteration::CrossIteration;
pub use device::{init, is_shared, register};
pub use dynamic_tanh::{DynamicTanh, DynamicTanhConfig};
pub use error::Error;
pub use fold::{Following, Preceding};
pub use input::{Input, Mask};
pub use layers::{
    GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig, LayerNorm, LayerNormConfig, RmsNorm,
    RmsNormConfig,
};
pub use moments::Moments;
pub use rank::Rank;
pub use recalibration::{NothingToRecalibrate, recalibrate};
pub use statistics::Statistics;
pub use wgnorm;
pub use wgnorm::Activation;
