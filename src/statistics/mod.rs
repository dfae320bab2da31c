//! Statistics as values on the GPU: moments and gradient sums, a record per channel, which can be merged.

pub(crate) mod gradient_sums;
pub(crate) mod moments;
pub(crate) mod pooled_moments;
pub(crate) mod totals;
