//! Resident: reduce, fold and map of a training pass in one dispatch (shaders/resident/), where the plan holds slices in
//! registers.

use crate::base::error::Result;
use crate::engine::build::Build;
use crate::engine::shader::{Kernel, StatisticsFrom};

/// Dispatches y from the statistics of x, which is read once.
pub(crate) fn forward(build: &mut Build<'_>) {
    build.dispatch(Kernel::ResidentForward(StatisticsFrom::Batch));
}

/// As [`forward`], of slices that are not channels.
pub(crate) fn forward_of_slices(build: &mut Build<'_>) {
    build.dispatch(Kernel::ResidentForward(StatisticsFrom::Slices));
}

/// Dispatches dx of slices that are not channels, shared out among so many teams for each sample, and the partial results of dgamma and
/// dbeta.
pub(crate) fn backward_of_slices(build: &mut Build<'_>, teams: u64) -> Result<()> {
    let plan = build.context().plan_with_teams(build.plan(), teams)?;
    build.dispatch_over(Kernel::ResidentBackward(StatisticsFrom::Recorded), plan);
    Ok(())
}

/// Dispatches all gradients through batch statistics, with x and dy read once.
pub(crate) fn backward(build: &mut Build<'_>) {
    build.dispatch(Kernel::ResidentBackward(StatisticsFrom::Saved));
}
