//! Statistics as values on the GPU: moments and gradient sums, a record per channel, which can be merged; running statistics, how they are corrected
//! towards, and what a forward pass saves.

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
