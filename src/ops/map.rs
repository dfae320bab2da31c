//! Map: one pass over memory, element by element, with the statistics of each slice from a fold
//! (shaders/map/).

use crate::context::Context;
use crate::error::Result;
use crate::gpu::dispatch::{Build, Prepared};
use crate::gpu::shader::{Kernel, StatisticsFrom};
use crate::gpu::slot::Slot;
use crate::plan::{Alignment, Op, Traffic, Walk, plan_walk};
use crate::tensor::Tensor;

/// Dispatches y = x̂·gamma + beta.
pub(crate) fn forward(build: &mut Build<'_>, statistics: StatisticsFrom) {
    build.dispatch(Kernel::MapForward(statistics));
}

/// Dispatches dx through batch statistics, with dgamma and dbeta from the same sums.
pub(crate) fn backward(build: &mut Build<'_>) {
    build.dispatch(Kernel::MapBackward);
}

/// Dispatches dx through frozen statistics alone.
pub(crate) fn frozen(build: &mut Build<'_>) {
    build.dispatch(Kernel::MapFrozen);
}

/// Prepares y = x for two tensors of one shape: the plainest map, and the yardstick that the benchmark holds every
/// kernel against.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes differ, and what binding the tensors can raise.
pub async fn prepare_copy(context: &Context, x: &Tensor, y: &Tensor) -> Result<Prepared> {
    y.check_shape("y", x.shape())?;
    if x.shape().len() == 0 {
        return Ok(Prepared::nothing(context, Op::Copy));
    }
    let walk = Walk::flat(x.shape().len(), Alignment::of([x, y]));
    let plan = plan_walk(&walk, context.capabilities(), context.tuning())?;
    let mut build = Build::new(context, Op::Copy, plan);
    build.tensor(Slot::X, x)?;
    build.tensor(Slot::Y, y)?;
    build.dispatch(Kernel::MapCopy);
    build.finish(Traffic::passes(x.byte_len(), 2, 2)).await
}
