//! Folding for inference: a trained batch norm disappears into the weights beside it.
//!
//! With running statistics, batch norm is one multiplication and one addition per channel, `y = x·scale + shift`, with
//! `scale = gamma / sqrt(var + eps)` and `shift = beta − mean·scale`. So it can be taken over by
//!
//! - the convolution or linear layer **before** it, always ([`absorb_into_preceding`](InferenceNorm::absorb_into_preceding)):
//!   `w'[o] = w[o]·scale[o]`, `b'[o] = (b[o] − mean[o])·scale[o] + beta[o]`; PyTorch's `fuse_conv_bn_weights`, Jacob et al. 2018
//!   (<https://arxiv.org/abs/1712.05877>, section 3.2);
//! - the one **after** it, where each output sees every channel through all taps
//!   ([`absorb_into_following`](InferenceNorm::absorb_into_following)): `w'[o,i] = w[o,i]·scale[i]`,
//!   `b'[o] = b[o] + Σ w[o,i]·shift[i]`;
//! - the caller's own epilogue ([`ScaleShift`]).
//!
//! The values come from slices ([`InferenceNorm`], [`Weights`]) or from a [`FrozenBatchNorm`](crate::FrozenBatchNorm) and
//! [tensors](TensorWeights), whose weights are scaled on the GPU, by the kernel of inference. Every result says how far
//! what is stored is from what it should be ([`Deviation`]).
//!
//! What a layer computes besides is not folded: an activation stays the caller's
//! ([`AbsorbedTensors::activation`]), and so does a residual.
//!
//! (Elsewhere in this crate, *fold* is a step of every operation; here the word is *absorb*.)
//!
//! ```
//! use wgnorm::absorb::{InferenceNorm, WeightLayout, Weights};
//! // A batch norm of two channels after a 1×1 convolution from three channels to two, without bias.
//! let norm: InferenceNorm = InferenceNorm {
//!     mean: &[1.0, -2.0],
//!     var: &[4.0, 0.25],
//!     gamma: Some(&[1.0, 3.0]),
//!     beta: Some(&[1.0, 0.0]),
//!     eps: 1e-12,
//! };
//! let weights = Weights {
//!     values: &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
//!     dims: &[2, 3, 1, 1],
//!     layout: WeightLayout::OutputFirst { groups: 1 },
//!     bias: None,
//! };
//! let absorbed = norm.absorb_into_preceding(&weights)?;
//! assert_eq!(absorbed.weight, [0.5, 1.0, 1.5, 24.0, 30.0, 36.0]);
//! assert_eq!(absorbed.bias, [0.5, 12.0]);
//! // By this much outputs can differ for inputs up to 1000, besides the rounding of the convolution itself.
//! assert!(absorbed.deviation.of_output(1000.0) < 1e-2);
//! # Ok::<(), wgnorm::Error>(())
//! ```

mod deviation;
mod geometry;
mod host;
mod norm;
#[cfg(feature = "wgpu")]
mod tensors;

pub use deviation::Deviation;
pub use geometry::{Border, WeightLayout};
pub use host::{Absorbed, Weights};
pub(crate) use norm::check_variances;
pub use norm::{InferenceNorm, ScaleShift};
#[cfg(feature = "wgpu")]
pub use tensors::{AbsorbedTensors, Destination, TensorWeights};
