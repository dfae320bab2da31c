//! The batch-norm layers of a model in a `safetensors` file: found, loaded, saved and converted between frameworks.
//! (Feature `safetensors`.)
//!
//! A [`ModelState`] keeps all tensors of a file, those of other layers too. What is not changed is written as it was read:
//! layers that are loaded and saved again give the file byte for byte.
//!
//! | | gamma | beta | running mean | running variance | batches | variance | separator |
//! |---|---|---|---|---|---|---|---|
//! | [PyTorch](Naming::pytorch) | `weight` | `bias` | `running_mean` | `running_var` | `num_batches_tracked` | unbiased | `.` |
//! | [Keras 3](Naming::keras) | `gamma` | `beta` | `moving_mean` | `moving_variance` | | biased | `/` |
//! | [Flax](Naming::flax) | `params…scale` | `params…bias` | `batch_stats…mean` | `batch_stats…var` | | biased | `.` |
//! | [burn](Naming::burn) | `gamma` | `beta` | `running_mean` | `running_var` | | biased | `.` |
//!
//! # What a file does not say
//! - *eps, momentum.* They are configuration in every framework, so the caller gives them ([`LayerSpec`]). The same
//!   momentum has another number elsewhere: [`Framework::momentum`], [`weight_of_new`], [`weight_of_old`].
//! - *How many values an update of the variance saw.* Biased and unbiased variance differ by n/(n − 1), so one becomes the
//!   other only where the caller knows n ([`rebias`]). Nothing is converted, or left unconverted, without being told so
//!   ([`Rebias`]).
//! - *How many batches there were*, except in PyTorch's. The counter is then 0, as PyTorch takes it; a cumulative average, which
//!   depends on it, is refused unless the caller gives it ([`LayerSpec::batches`]; 0 starts the average anew).
//!
//! # Values
//! Values are loaded as they are: NaN, infinities and negative variances too. F32 stays as it is, F16 and BF16 widen exactly, F64
//! loads where all values are f32 or rounding is allowed ([`LoadOptions::allow_rounding`]). No other type is a parameter's.
//!
//! ```
//! use wgnorm::state::{LayerSpec, LoadOptions, ModelState, Naming, SaveOptions};
//! use wgnorm::{BatchNorm, BatchNormOptions, Context};
//! let context = Context::headless_blocking()?;
//! context.block_on(async {
//!     // A file with one layer.
//!     let layer = BatchNorm::new(&context, 3, BatchNormOptions::pytorch()).await?;
//!     let mut state = ModelState::new();
//!     state.save(&context, &Naming::pytorch(), &[("bn1", (&layer).into())], &SaveOptions::default()).await?;
//!     let file = state.to_bytes().into_owned();
//!
//!     // Its layers, and one of them on the GPU.
//!     let state = ModelState::from_bytes(file)?;
//!     let found = state.layers(&Naming::pytorch())?;
//!     assert_eq!((found.layers[0].name.as_str(), found.layers[0].channels), ("bn1", 3));
//!     let specs = [LayerSpec::new("bn1", 3, BatchNormOptions::pytorch())];
//!     let (layers, report) = state.load(&context, &Naming::pytorch(), &specs, &LoadOptions::strict()).await?;
//!     assert!(layers[0].gamma().is_some() && report.missing.is_empty());
//!     Ok::<(), wgnorm::Error>(())
//! })?;
//! # Ok::<(), wgnorm::Error>(())
//! ```

mod archive;
mod convert;
mod count;
mod float;
mod found;
mod header;
mod load;
mod model;
mod naming;
mod parameters;
mod save;
mod shards;
mod spectral;
mod values;

pub use crate::base::report::{LoadReport, Mismatch};
pub use convert::{Rebias, rebias, weight_of_new, weight_of_old};
pub use float::FloatType;
pub use found::{FoundLayer, FoundLayers};
pub use load::{LayerSpec, LoadOptions};
pub use model::{ModelState, TensorEntry};
pub use naming::{Framework, Naming};
pub use parameters::{GRAPH_NORM, SWITCHABLE_NORM};
pub use save::{LayerRef, SaveOptions};
pub use spectral::{SpectralNaming, SpectralValues};
pub use values::LayerValues;
