//! Statistics as values on the GPU.
//!
//! [`Moments`] are count, mean and variance per channel, [`GradientSums`] what a backward pass through them needs; both are computed from a tensor, merged, downloaded,
//! exchanged, and given to a pass. [`Renorm`] corrects towards running statistics. What a forward pass saves is a [`Saved`](crate::Saved), whose values on the host are
//! [`SavedStatistics`].

pub(crate) mod gradient_sums;
pub(crate) mod moments;
pub(crate) mod pooled_moments;
pub(crate) mod renorm;
pub(crate) mod running;
pub(crate) mod saved;
pub(crate) mod totals;

pub use gradient_sums::{ChannelGradientSums, GradientSums};
pub use moments::{ChannelMoments, Moments};
pub use pooled_moments::PooledMoments;
pub use renorm::{Ramp, Renorm};
pub use saved::SavedStatistics;
