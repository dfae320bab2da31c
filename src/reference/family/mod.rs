//! The family: every norm that takes its statistics from the tensor at hand, by the two index maps that make it one of them.
//!
//! A norm divides a tensor into slices that share a mean and a variance, and gives each element a gamma and a beta. These two
//! maps, element → statistic and element → parameter, are independent, and here they are taken literally: [`Maps`] lists both
//! for every element in memory order, and [`Scheme`] says what is made of a slice.
//!
//! | norm | maps | scheme |
//! |---|---|---|
//! | layer norm (Ba, Kiros & Hinton 2016) | [`Maps::layer`] | [`Scheme::standard`] |
//! | RMS norm (Zhang & Sennrich 2019) | [`Maps::layer`] | [`Scheme::rms`] |
//! | either over any axes (WebNN, Keras, ConvNeXt) | [`Maps::over`] | the same |
//! | group norm (Wu & He 2018) | [`Maps::group`] | [`Scheme::standard`] |
//! | instance norm (Ulyanov, Vedaldi & Lempitsky 2016) | [`Maps::instance`] | [`Scheme::standard`] |
//! | either, and layer norm, over segments of rows (PyTorch Geometric) | [`Maps::in_segments`] | [`Scheme::standard`] |
//! | AdaLN, AdaIN, FiLM: gamma and beta of a condition | any, [`Maps::modulated`] | any |
//! | L2 normalization | [`Maps::layer`] | [`Scheme::length`] |
//! | ScaleNorm (Nguyen & Salazar 2019) | [`Maps::scalar`] | [`Scheme::length`] |
//! | weight norm (Salimans & Kingma 2016) | [`Maps::rows`] | [`Scheme::direction`] |
//! | weight standardization (Qiao et al. 2019) | [`Maps::rows`] | [`Scheme::standard`] |
//! | MeanVarianceNormalization of ONNX | [`Maps::axes`] | [`Scheme::deviation`] |
//!
//! [`forward`] gives `z = x̂·gamma + beta` and [`backward`] takes dz; a residual and an activation lie in between, by
//! [`map::activated`](super::map::activated) and [`map::dz`](super::map::dz). [`tangent`] is forward mode and [`second`] has gradients of
//! gradients. Lengths must fit the maps; a mismatch panics.
//!
//! ```
//! use wgnorm::reference::family::{self, Affine, Maps, Scheme};
//! // Two rows of two features. RMS norm of (1, 7): the mean square is 25.
//! let maps = Maps::layer(&[2, 2], 1);
//! let affine = Affine { gamma: Some(&[10.0, 1.0]), beta: None };
//! let (z, statistics) = family::forward(&[1.0, 7.0, 0.0, 0.0], &maps, &Scheme::rms(1e-6), affine);
//! assert!((z[0] - 2.0).abs() < 1e-6 && (z[1] - 1.4).abs() < 1e-6);
//! assert_eq!(z[2..], [0.0, 0.0]);
//! assert_eq!(statistics[0].var, 25.0);
//! ```

pub mod bounds;
mod maps;
mod passes;
mod scheme;
mod second;
mod second_bounds;
mod statistics;
#[cfg(test)]
mod tests;

pub use super::batch::Gradients;
pub use maps::Maps;
pub use passes::{SliceSums, backward, forward, slice_sums};
pub use scheme::{Affine, Scheme, Spread};
pub use second::{SecondGradients, Tangents, second, tangent};
pub use statistics::{SliceStatistics, average_over_samples, magnitudes, statistics};
