//! Fold: partial results of a slice to one (shaders/fold/). Where a map follows, the fold is its prologue and no
//! dispatch of its own; these are the dispatches for where none follows.

use std::sync::Arc;

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::{Channels, Layout};
use crate::engine::build::{Build, Scratch, Whole};
use crate::engine::context::Context;
use crate::engine::mask::Mask;
use crate::engine::prepared::Prepared;
use crate::engine::shader::{Kernel, Monoid, StatisticsFrom};
use crate::engine::slab::Slab;
use crate::engine::slot::Slot;
use crate::plan::Records;
use crate::plan::{Capabilities, GRADIENT_SUMS_BYTES, Op, Plan, SLICE_BYTES, Traffic};

/// Dispatches the fold of partial results into `total`.
pub(crate) fn total(build: &mut Build<'_>, of: Monoid, total: &Slab) -> Result<()> {
    build.buffer(Slot::Total, total);
    team_per_slice(build, Kernel::FoldTotal(of))
}

/// Dispatches the fold of partial results, where that is not the prologue of the map that follows but a dispatch of its own; where the totals are then.
pub(crate) fn apart(build: &mut Build<'_>, of: Monoid, bytes: u64) -> Result<Option<Scratch>> {
    let plan = build.plan().clone();
    if !plan.folds_apart {
        return Ok(None);
    }
    let (context, slices, partials) = (build.context(), plan.slices, plan.partials());
    let total = build.workspace(u64::from(slices) * bytes);
    let teams = apart_teams(partials, context);
    let fold = context.plan_per_slice(slices.into(), partials, teams, plan.dtype)?;
    let records = Records { partials, slices, matrix: 0 };
    build.dispatch_fold(Kernel::FoldTotal(of), fold, records, vec![(Slot::Total, total.into())]);
    Ok(Some(total))
}

/// Members of a team that has nothing to do but merge so many partial results, a few each, and invocations of a subgroup by whose shuffles they do.
fn apart_teams(partials: u32, context: &Context) -> (u32, u32) {
    let capabilities = context.capabilities();
    let shuffles = context.tuning().subgroups.unwrap_or(true);
    let widest = capabilities.max_workgroup_size.min(capabilities.max_workgroup_bytes / 20).min(256);
    let team_size = (partials.next_power_of_two() / 4).clamp(8, 1 << widest.max(8).ilog2());
    (team_size, capabilities.subgroup_size.filter(|_| shuffles).unwrap_or(0))
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
    let plan = context.plan_per_slice(channels, partials, (1, 0), dtype)?;
    let mut build = Build::new(context, op, plan);
    build.params.partials = partials;
    Ok(build)
}

/// Dispatches the fold of partial moments, with running statistics before their update, into saved statistics for the map.
pub(crate) fn renorm(build: &mut Build<'_>) -> Result<()> {
    team_per_slice(build, Kernel::FoldStatistics(StatisticsFrom::Batch))
}

pub(crate) fn team_per_slice(build: &mut Build<'_>, kernel: Kernel) -> Result<()> {
    let Plan { slices, team_size, subgroup_size, dtype, folds_apart, .. } = **build.plan();
    let partials = build.params.partials;
    let teams = match folds_apart {
        true => apart_teams(build.plan().partials(), build.context()),
        false => (team_size, subgroup_size),
    };
    let plan = build.context().plan_per_slice(slices.into(), partials, teams, dtype)?;
    build.dispatch_over(kernel, plan);
    Ok(())
}

/// Dispatches the statistics of slices, or of groups of them, from partial moments, into the buffer bound as `SavedOut`.
pub(crate) fn statistics(build: &mut Build<'_>, statistics: u64, records: Records) -> Result<()> {
    let plan = plan_fold(build, statistics, records.partials)?;
    build.dispatch_fold(Kernel::FoldStatistics(StatisticsFrom::Slices), plan, records, Vec::new());
    Ok(())
}

/// Dispatches the means that dx subtracts from partial gradient sums, into the buffer bound as `MeansOut`.
pub(crate) fn means(
    build: &mut Build<'_>,
    statistics: u64,
    records: Records,
    times_gamma: bool,
) -> Result<()> {
    let plan = plan_fold(build, statistics, records.partials)?;
    build.dispatch_fold(Kernel::FoldMeans { times_gamma }, plan, records, Vec::new());
    Ok(())
}

/// Dispatches the fold of partial gradient sums, which may be many, into dgamma and dbeta of so many parameters, or into their `totals`.
pub(crate) fn parameter_gradients(
    build: &mut Build<'_>,
    parameters: u64,
    mut records: Records,
    totals: Option<&Slab>,
) -> Result<()> {
    let mut buffers = Vec::new();
    // Level by level to as many as one team takes. What a level lacks to whole rows is zero, and adds nothing.
    while records.partials > MOST_PARTIALS && records.matrix == 0 {
        let many = records.partials.div_ceil(PARTIALS_OF_LEVEL);
        let of_level = u64::from(many) * parameters;
        let partials = records.partials.div_ceil(many);
        let level = Records { partials, slices: records.slices * many, ..records };
        let bytes = padded(many.into()) * parameters * GRADIENT_SUMS_BYTES;
        let total = build.zeroed_workspace(bytes);
        let plan = plan_fold(build, of_level, partials)?;
        let mut bound = buffers;
        bound.push((Slot::Total, total.into()));
        build.dispatch_fold(Kernel::FoldTotal(Monoid::GradientSums), plan, level, bound);
        buffers = vec![(Slot::Partials, total.into())];
        records = Records { partials: many, slices: parameters as u32, matrix: 0 };
    }
    let plan = plan_fold(build, parameters, records.partials)?;
    let kernel = match totals {
        None => Kernel::FoldGradients,
        Some(totals) => {
            buffers.push((Slot::Total, totals.into()));
            Kernel::FoldTotal(Monoid::GradientSums)
        }
    };
    build.dispatch_fold(kernel, plan, records, buffers);
    Ok(())
}

/// Prepares the average over samples of the records of `count` values each, as moments per channel.
pub(crate) async fn averages(
    context: &Context,
    (samples, channels, count): (u64, u64, u64),
    saved: impl Into<Whole>,
    total: &Slab,
) -> Result<Prepared> {
    let capabilities = context.capabilities();
    let team = team_within_limit(samples as u32, if capabilities.cpu { 8 } else { 64 }, capabilities)?;
    let plan = context.plan_per_slice(channels, samples as u32, (team, 0), DType::F32)?;
    let mut build = Build::new(context, Op::Moments, plan);
    build.params.partials = samples as u32;
    build.params.count = count as f32;
    build.buffer(Slot::Partials, saved);
    build.buffer(Slot::Total, total);
    build.dispatch(Kernel::FoldTotal(Monoid::Averages));
    build.finish(Traffic::default()).await
}

/// Partial results that one team folds at most, and how many it folds where there are more.
const MOST_PARTIALS: u32 = 4096;
const PARTIALS_OF_LEVEL: u32 = 1024;

/// Partial results per slice that there must be room for: whole rows of the first level.
pub(crate) fn padded(partials: u64) -> u64 {
    let more = partials > MOST_PARTIALS.into();
    if more { partials.next_multiple_of(PARTIALS_OF_LEVEL.into()) } else { partials }
}

/// Room for partial results, `partials` of each of so many slices, with what the fold reads beyond them as zero, if it does.
pub(crate) fn padded_workspace(build: &mut Build<'_>, slices: u64, partials: u64, bytes: u64) -> Scratch {
    let padded = padded(partials);
    match padded > partials {
        true => build.zeroed_workspace(slices * padded * bytes),
        false => build.workspace(slices * partials * bytes),
    }
}

pub(crate) fn plan_fold(build: &Build<'_>, slices: u64, partials: u32) -> Result<Arc<Plan>> {
    let context = build.context();
    let capabilities = context.capabilities();
    let Plan { mut team_size, mut subgroup_size, dtype, .. } = **build.plan();
    // Nothing else merges these, so the team need not be that of a walk: it is larger where there is much to merge.
    let larger = if capabilities.cpu { 8 } else { 64 };
    if partials > 256 && team_size < larger && context.tuning().workgroup_size.is_none() {
        (team_size, subgroup_size) = (larger, 0);
    }
    let enough = team_within_limit(partials, team_size, capabilities)?;
    if enough > team_size {
        (team_size, subgroup_size) = (enough, 0);
    }
    context.plan_per_slice(slices, partials, (team_size, subgroup_size), dtype)
}

/// The smallest team, of `least` or of twice as many any number of times, whose invocations fold so many partial results within the loop limit.
fn team_within_limit(partials: u32, least: u32, capabilities: &Capabilities) -> Result<u32> {
    // Half of the limit leaves room for what an invocation does besides. The largest value that is merged has 20 bytes.
    let most = capabilities.max_loop_iterations / 2;
    let widest = capabilities.max_workgroup_size.min(capabilities.max_workgroup_bytes / 20);
    let mut team_size = least;
    while u64::from(partials.div_ceil(team_size)) > most && 2 * team_size <= widest {
        team_size *= 2;
    }
    let needed = u64::from(partials.div_ceil(team_size));
    if needed > most {
        return Err(Error::TooLarge {
            what: "a slice of x",
            needed,
            unit: "partial results per invocation",
            limit_name: "half of the loop limit",
            limit: most,
        });
    }
    Ok(team_size)
}

/// Dispatches statistics, or what a curve has in their place, into `saved`, one record per slice, and lets later dispatches read them from there.
pub(crate) fn records(build: &mut Build<'_>, from: StatisticsFrom, saved: Scratch) -> Result<()> {
    let Plan { slices, dtype, .. } = **build.plan();
    let plan = build.context().plan_per_slice(slices.into(), 1, (1, 0), dtype)?;
    build.buffer(Slot::SavedOut, saved);
    build.buffer(Slot::Saved, saved);
    build.dispatch_over(Kernel::FoldRecords(from), plan);
    Ok(())
}

/// Dispatches a copy of what forward has saved of so many rows, with those marked that a mask leaves out, and lets later dispatches read it.
pub(crate) fn marks(build: &mut Build<'_>, saved: &Slab, mask: &Mask, rows: u64) -> Result<()> {
    let plan = build.context().plan_per_slice(rows, 1, (1, 0), build.plan().dtype)?;
    let marked = build.workspace((u64::from(build.params.first_record) + rows) * SLICE_BYTES);
    build.bits_of(mask, Channels { samples: rows, channels: 1, inner: 1, layout: Layout::ChannelsLast });
    let buffers = vec![
        (Slot::Saved, saved.into()),
        (Slot::Mask, mask.buffer().into()),
        (Slot::SavedOut, marked.into()),
    ];
    build.dispatch_fold(Kernel::FoldMarks, plan, Records::default(), buffers);
    build.buffer(Slot::Saved, marked);
    Ok(())
}

/// An operation that merges the values in `other` into those in `total`.
pub(crate) async fn merge(
    context: &Context,
    of: Monoid,
    channels: u64,
    total: &Slab,
    other: &Slab,
) -> Result<Prepared> {
    let plan = context.plan_per_slice(channels, 1, (1, 0), DType::F32)?;
    let mut build = Build::new(context, Op::Moments, plan);
    build.buffer(Slot::Total, total);
    build.buffer(Slot::Partials, other);
    build.dispatch(Kernel::FoldMerge(of));
    build.finish(Traffic::default()).await
}
