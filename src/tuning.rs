//! How operations are planned: plans and why they are as they are ([`Plan`]), what can be forced of one ([`Tuning`]), plans that are measured on the device at
//! hand and kept ([`Autotuning`]), the bytes that an operation moves ([`Traffic`]), and what a device can do ([`Capabilities`]).
//!
//! ```
//! use wgnorm::tuning::Tuning;
//! use wgnorm::{BatchNorm, BatchNormOptions, Context};
//! let context = Context::headless_blocking()?;
//! context.block_on(async {
//!     let x = context.zeros(&[8, 4, 16, 16]).await?;
//!     let y = context.zeros_like(&x).await?;
//!     // Two workgroups for each channel.
//!     let forced = context.with_tuning(Tuning::default().splits(2));
//!     let layer = BatchNorm::new(&forced, 4, BatchNormOptions::pytorch()).await?;
//!     let forward = layer.prepare_train_forward_untracked(&x, &y, None).await?;
//!     assert_eq!(forward.plan().unwrap().splits, 2);
//!     println!("{}", forward.plan().unwrap());
//!     Ok::<(), wgnorm::Error>(())
//! })?;
//! # Ok::<(), wgnorm::Error>(())
//! ```

#[cfg(feature = "wgpu")]
pub use crate::engine::adapter::{ShaderChecks, adapters};
#[cfg(feature = "wgpu")]
pub use crate::engine::disk_cache::PipelineCacheState;
#[cfg(feature = "wgpu")]
pub use crate::engine::tune::{Autotuning, IgnoredTuning, LoadedTunings, PinnedTuning, TuningSource};
pub use crate::ops::map::prepare_copy;
pub use crate::plan::{Capabilities, Hardware, Op, Plan, Traffic, Tuning, WalkKind, Window};
