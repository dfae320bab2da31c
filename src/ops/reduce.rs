//! Reduce: per slice, the moments of x (shaders/reduce/moments.wesl) or the gradient sums
//! (shaders/reduce/gradients.wesl), as one partial result per team and tile.

use std::sync::Arc;

use crate::base::error::Result;
use crate::engine::build::Build;
use crate::engine::shader::{Kernel, Monoid, StatisticsFrom};
use crate::engine::slab::Slab;
use crate::engine::slot::Slot;
use crate::ops::fold;
use crate::plan::Records;
use crate::plan::{GRADIENT_SUMS_BYTES, MOMENTS_BYTES, Plan, SQUARES_BYTES};

/// Dispatches the moments of x, or for norms that subtract no mean its squares, into scratch, one record per slice (or component) and tile.
pub(crate) fn moments(build: &mut Build<'_>) {
    let (bytes, kernel) = match build.pointwise.uncentred {
        true => (SQUARES_BYTES, Kernel::ReduceSquares),
        false => (MOMENTS_BYTES, Kernel::ReduceMoments),
    };
    build.scratch(partials(build) * bytes);
    build.dispatch(kernel);
}

/// Dispatches the moments of x into `moments`, one record per slice: at once where there is one partial result per slice, else
/// by a fold.
pub(crate) fn moments_into(build: &mut Build<'_>, total: &Slab) -> Result<()> {
    if build.plan().partials() == 1 {
        build.buffer(Slot::PartialsOut, total);
        build.dispatch(Kernel::ReduceMoments);
        return Ok(());
    }
    moments(build);
    fold::total(build, Monoid::Moments, total)
}

/// Dispatches the gradient sums of x and dy into scratch, and dx on the way if `dx`.
pub(crate) fn gradients(build: &mut Build<'_>, statistics: StatisticsFrom, dx: bool) {
    build.scratch(partials(build) * GRADIENT_SUMS_BYTES);
    build.dispatch(Kernel::ReduceGradients { statistics, dx });
}

/// Dispatches the gradient sums of x and dy into `total`, one record per slice. What follows finds the partial results as ever.
pub(crate) fn gradients_into(build: &mut Build<'_>, statistics: StatisticsFrom, total: &Slab) -> Result<()> {
    if build.plan().partials() == 1 {
        build.buffer(Slot::PartialsOut, total);
        build.buffer(Slot::Partials, total);
        build.dispatch(Kernel::ReduceGradients { statistics, dx: false });
        return Ok(());
    }
    gradients(build, statistics, false);
    fold::total(build, Monoid::GradientSums, total)
}

/// As [`gradients`], of slices whose partial results, `per_parameter` of them for each of `parameters`, are folded into the gradients of
/// parameters that many slices share.
pub(crate) fn gradients_of_many(
    build: &mut Build<'_>,
    statistics: StatisticsFrom,
    dx: bool,
    (parameters, per_parameter): (u64, u64),
) {
    let (partials, padded) = (partials(build), parameters * fold::padded(per_parameter));
    match padded > partials {
        true => build.zeroed_scratch(padded * GRADIENT_SUMS_BYTES),
        false => build.scratch(partials * GRADIENT_SUMS_BYTES),
    }
    build.dispatch(Kernel::ReduceGradients { statistics, dx });
}

/// Dispatches the gradient sums of so many rows by a walk along columns, and dx on the way if `dx`; where they are.
pub(crate) fn row_gradients(
    build: &mut Build<'_>,
    statistics: StatisticsFrom,
    dx: bool,
    rows: u64,
) -> Records {
    let Plan { workgroup_size, team_size, strip, ref windows, .. } = **build.plan();
    let teams = workgroup_size / team_size;
    // TOGETHER of shaders/lib/teams.wesl.
    let together = 1 << teams.trailing_zeros().min(3);
    // One partial result of a row for so many neighbouring teams that walk it, in whole workgroups.
    let words = windows.iter().map(|window| window.run_words).max().unwrap_or(0);
    let strips = words.div_ceil(teams * strip) * teams / together;
    let shuffled = build.context().tuning().subgroups.unwrap_or(true);
    let subgroup_size = build.context().capabilities().subgroup_size.filter(|_| shuffled).unwrap_or(0);
    let plan = Arc::new(Plan { subgroup_size, ..Plan::clone(build.plan()) });
    // A strip of no words writes none.
    build.zeroed_scratch(u64::from(strips) * rows * GRADIENT_SUMS_BYTES);
    build.dispatch_over(Kernel::ReduceRowGradients { statistics, dx }, plan);
    Records { partials: strips, slices: rows as u32, matrix: 0 }
}

fn partials(build: &Build<'_>) -> u64 {
    u64::from(build.plan().records) * u64::from(build.plan().splits)
}
