//! What derivatives of the passes have of their own (shaders/lib/second_sums.wesl, shaders/fold/{tangents,second}.wesl).

use super::fold;
use crate::base::error::Result;
use crate::engine::build::{Build, Scratch, Whole};
use crate::engine::shader::{Derivative, Kernel, StatisticsFrom};
use crate::engine::slot::Slot;
use crate::plan::{GRADIENT_SUMS_BYTES, Records, SECOND_PARTS, TANGENT_BYTES};

/// Dispatches so many parameters and their tangents into one buffer, and the statistics of channels, if they are given, as records of slices.
pub(crate) fn pack(
    build: &mut Build<'_>,
    from: StatisticsFrom,
    (parameters, packed): (u64, Scratch),
    mut buffers: Vec<(Slot, Whole)>,
) -> Result<()> {
    let plan = build.context().plan_per_slice(parameters, 1, (1, 0), build.plan().dtype)?;
    buffers.push((Slot::PackedOut, packed.into()));
    build.dispatch_fold(Kernel::FoldTangents(from), plan, Records::default(), buffers);
    Ok(())
}

/// Dispatches the sums of slices into scratch, part by part.
pub(crate) fn reduce(build: &mut Build<'_>) {
    let plan = build.plan().clone();
    let records = Records { partials: plan.partials(), slices: plan.slices, matrix: of_part(build) };
    build.scratch(parts(build) * u64::from(records.matrix) * GRADIENT_SUMS_BYTES);
    build.dispatch_from(Kernel::ReduceSecond, None, records);
}

/// Dispatches what is subtracted, for so many statistics whose partial results lie as `records` says in each part; where it is.
pub(crate) fn means(build: &mut Build<'_>, statistics: u64, records: Records) -> Result<Scratch> {
    let parts = parts(build);
    // Parts follow each other as matrices do.
    let matrix = if records.matrix == 0 { of_part(build) } else { records.matrix };
    let totals = build.workspace(parts * statistics * GRADIENT_SUMS_BYTES);
    let plan = fold::plan_fold(build, parts * statistics, records.partials)?;
    let records = Records { matrix, ..records };
    build.dispatch_fold(Kernel::FoldGroups, plan, records, vec![(Slot::Total, totals.into())]);

    let means = build.workspace(statistics * TANGENT_BYTES);
    let plan = build.context().plan_per_slice(statistics, 1, (1, 0), build.plan().dtype)?;
    let buffers = vec![(Slot::Partials, totals.into()), (Slot::MeansOut, means.into())];
    build.dispatch_fold(Kernel::FoldSecond, plan, Records::default(), buffers);
    Ok(means)
}

/// Pairs of sums of a slice: PARTS of shaders/lib/second_sums.wesl.
fn parts(build: &Build<'_>) -> u64 {
    match build.pointwise.derivative {
        Some(Derivative::Second) if build.pointwise.activation.bends() => SECOND_PARTS,
        Some(Derivative::Second) => SECOND_PARTS - 2,
        _ => 1,
    }
}

/// Partial results of a pair.
fn of_part(build: &Build<'_>) -> u32 {
    build.plan().records * build.plan().splits
}
