//! Reduce: per slice, the moments of x (shaders/reduce/moments.wgsl) or the gradient sums
//! (shaders/reduce/gradients.wgsl), as one partial result per team and tile.

use crate::gpu::dispatch::Build;
use crate::gpu::shader::{Kernel, StatisticsFrom};
use crate::gpu::slot::Slot;
use crate::plan::{GRADIENT_SUMS_BYTES, MOMENTS_BYTES};

/// Dispatches the moments of x into scratch, one record per slice (or component) and tile.
pub(crate) fn moments(build: &mut Build<'_>) {
    build.scratch(partials(build) * MOMENTS_BYTES);
    build.dispatch(Kernel::ReduceMoments);
}

/// Dispatches the moments of x straight into `moments`, one record per slice; the plan must give one partial result
/// per slice.
pub(crate) fn moments_into(build: &mut Build<'_>, moments: &wgpu::Buffer) {
    build.buffer(Slot::PartialsOut, moments);
    build.dispatch(Kernel::ReduceMoments);
}

/// Dispatches the gradient sums of x and dy into scratch, and dx on the way if `dx`.
pub(crate) fn gradients(build: &mut Build<'_>, statistics: StatisticsFrom, dx: bool) {
    build.scratch(partials(build) * GRADIENT_SUMS_BYTES);
    build.dispatch(Kernel::ReduceGradients { statistics, dx });
}

fn partials(build: &Build<'_>) -> u64 {
    u64::from(build.plan().records) * u64::from(build.plan().splits)
}
