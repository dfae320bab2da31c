//! Fold: partial results of a slice to one (shaders/fold/). Where a map follows, the fold is its prologue and no
//! dispatch of its own; these are the dispatches for where none follows.

use crate::context::Context;
use crate::dtype::DType;
use crate::error::Result;
use crate::gpu::dispatch::{Build, Prepared};
use crate::gpu::shader::{Kernel, Monoid};
use crate::gpu::slot::Slot;
use crate::plan::{Op, Plan, Traffic, plan_per_slice};

/// Dispatches the fold of partial results into `total`.
pub(crate) fn total(build: &mut Build<'_>, of: Monoid, total: &wgpu::Buffer) -> Result<()> {
    build.buffer(Slot::Total, total);
    team_per_slice(build, Kernel::FoldTotal(of))
}

/// Dispatches the fold of partial gradient sums into dgamma and dbeta.
pub(crate) fn gradients(build: &mut Build<'_>) -> Result<()> {
    team_per_slice(build, Kernel::FoldGradients)
}

/// Starts a fold of so many partial gradient sums, which may be none.
pub(crate) fn gradients_of(
    context: &Context,
    op: Op,
    channels: u64,
    dtype: DType,
    partials: u32,
) -> Result<Build<'_>> {
    let (capabilities, tuning) = (context.capabilities(), context.tuning());
    let plan = plan_per_slice(channels, partials, (1, 0), dtype, capabilities, tuning)?;
    let mut build = Build::new(context, op, plan);
    build.params.partials = partials;
    Ok(build)
}

/// Dispatches the fold of partial moments, with running statistics before their update, into saved statistics for the map.
pub(crate) fn renorm(build: &mut Build<'_>) -> Result<()> {
    team_per_slice(build, Kernel::FoldRenorm)
}

pub(crate) fn team_per_slice(build: &mut Build<'_>, kernel: Kernel) -> Result<()> {
    let context = build.context();
    let Plan { slices, team_size, subgroup_size, dtype, .. } = *build.plan();
    let plan = plan_per_slice(
        slices.into(),
        build.params.partials,
        (team_size, subgroup_size),
        dtype,
        context.capabilities(),
        context.tuning(),
    )?;
    build.dispatch_over(kernel, plan);
    Ok(())
}

/// Dispatches the fold of running statistics into `saved`, and lets later dispatches read them from there.
pub(crate) fn running(build: &mut Build<'_>, saved: &wgpu::Buffer) -> Result<()> {
    let context = build.context();
    let Plan { slices, dtype, .. } = *build.plan();
    let plan = plan_per_slice(slices.into(), 1, (1, 0), dtype, context.capabilities(), context.tuning())?;
    build.buffer(Slot::SavedOut, saved);
    build.buffer(Slot::Saved, saved);
    build.dispatch_over(Kernel::FoldRunning, plan);
    Ok(())
}

/// An operation that merges the values in `other` into those in `total`.
pub(crate) async fn merge(
    context: &Context,
    of: Monoid,
    channels: u64,
    total: &wgpu::Buffer,
    other: &wgpu::Buffer,
) -> Result<Prepared> {
    let (capabilities, tuning) = (context.capabilities(), context.tuning());
    let plan = plan_per_slice(channels, 1, (1, 0), DType::F32, capabilities, tuning)?;
    let mut build = Build::new(context, Op::Moments, plan);
    build.buffer(Slot::Total, total);
    build.buffer(Slot::Partials, other);
    build.dispatch(Kernel::FoldMerge(of));
    build.finish(Traffic::default()).await
}
