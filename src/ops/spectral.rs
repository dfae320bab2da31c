//! What spectral norm has of its own (shaders/lib/product_sums.wesl, shaders/fold/direction.wesl, shaders/{fold,map}/rank_one.wesl).

use super::fold;
use crate::base::error::{Error, Result};
use crate::engine::build::{Build, Scratch, Whole};
use crate::engine::shader::{Kernel, Monoid, StatisticsFrom};
use crate::engine::slot::Slot;
use crate::plan::{Capabilities, GRADIENT_SUMS_BYTES, LOOP_LIMIT, Records};

/// A step of the power iteration.
pub(crate) struct Step {
    /// Slices that the product is of, and where their partial results are.
    pub slices: u64,
    pub records: Records,
    /// Where the direction lies among both, and how many values these have.
    pub place: u64,
    pub directions: u64,
    /// No direction is made of the product, but σ of the one that is there.
    pub given: bool,
    /// The spectral norm is found.
    pub of_all: bool,
}

/// Dispatches the product of the slices and the vector that is bound as gamma, and what becomes of it in `directions` and `saved`.
pub(crate) fn step(build: &mut Build<'_>, step: &Step, directions: Whole, saved: Whole) -> Result<()> {
    let records = u64::from(build.plan().records) * u64::from(build.plan().splits);
    build.scratch(records * GRADIENT_SUMS_BYTES);
    build.dispatch(Kernel::ReduceProduct);
    let totals = build.workspace(step.slices * GRADIENT_SUMS_BYTES);
    let plan = fold::plan_fold(build, step.slices, step.records.partials)?;
    build.dispatch_fold(Kernel::FoldGroups, plan, step.records, vec![(Slot::Total, totals.into())]);

    build.params.first_record = step.place as u32;
    build.params.samples = step.directions as u32;
    let capabilities = build.context().capabilities();
    let team = capabilities.max_workgroup_size.min(256);
    let team = 1 << team.ilog2();
    check_loops(step, team, capabilities)?;
    let plan = build.context().plan_per_slice(1, step.slices as u32, (team, 0), build.plan().dtype)?;
    let records = Records { partials: step.slices as u32, slices: 1, matrix: 0 };
    let buffers = vec![(Slot::Partials, totals.into()), (Slot::Total, directions), (Slot::SavedOut, saved)];
    build.dispatch_fold(
        Kernel::FoldDirection { given: step.given, of_all: step.of_all },
        plan,
        records,
        buffers,
    );
    Ok(())
}

/// One workgroup makes a direction: its invocations go over the product for the greatest of it, for its length in chunks, and for what is written.
fn check_loops(step: &Step, team: u32, capabilities: &Capabilities) -> Result<()> {
    let rounds = |values: u64| values.div_ceil(team.into());
    let written = if step.given { step.directions } else { step.slices };
    let needed = 2 * rounds(step.slices) + 2 * rounds(step.slices).div_ceil(32) + rounds(written) + 64;
    let limit = capabilities.max_loop_iterations;
    let (what, unit) = ("a direction of a weight", "loop iterations per invocation");
    match needed < limit {
        true => Ok(()),
        false => Err(Error::TooLarge { what, needed, unit, limit_name: LOOP_LIMIT, limit }),
    }
}

/// Dispatches Σ G∘W / σ, from the record that is bound as what is saved; where it is.
pub(crate) fn inner_product(build: &mut Build<'_>, partials: u32) -> Result<Scratch> {
    super::reduce::gradients(build, StatisticsFrom::Recorded, false);
    let total = build.workspace(GRADIENT_SUMS_BYTES);
    let plan = fold::plan_fold(build, 1, partials)?;
    let records = Records { partials, slices: 1, matrix: 0 };
    build.dispatch_fold(
        Kernel::FoldTotal(Monoid::GradientSums),
        plan,
        records,
        vec![(Slot::Total, total.into())],
    );
    Ok(total)
}

/// Dispatches the gradient of the weight.
pub(crate) fn gradient(build: &mut Build<'_>) {
    build.dispatch(Kernel::MapBackward { statistics: StatisticsFrom::RankOne, dx: true });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_is_as_long_as_a_workgroup_can_go_over() {
        let of = |slices: u64, given: bool| {
            let records = Records { partials: 1, slices: 1, matrix: 0 };
            let step = Step { slices, records, place: 0, directions: 2 * slices, given, of_all: true };
            check_loops(&step, 256, &crate::plan::table::LAVAPIPE)
        };
        assert!(of(5_400_000, false).is_ok() && of(4_000_000, true).is_ok());
        for wrong in [of(5_500_000, false), of(4_200_000, true)] {
            assert!(matches!(wrong, Err(Error::TooLarge { limit: 65535, .. })), "{wrong:?}");
        }
    }
}
