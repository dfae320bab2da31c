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
//! # Ok::<(), wgnorm_burn::InitError>(())
//! ```
//!
//! On another backend, a device that is not shared, or a type that is not f32, burn's own operations do it; [`fallback`] counts that, or forbids it.
#![deny(missing_docs)]

mod batch_norm;
mod device;
pub mod fallback;
mod layers;
mod ops;
mod place;
mod problem;

pub use batch_norm::{BatchNorm, BatchNormConfig};
pub use device::{InitError, init, is_shared, register};
pub use layers::{
    GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig, LayerNorm, LayerNormConfig, RmsNorm,
    RmsNormConfig,
};
pub use wgnorm;
