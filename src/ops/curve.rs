//! A function of x in the place of the normalization: the map, the reduction and the folds of batch norm through frozen statistics,
//! with other modules (shaders/curve/), and one fold more, for what all channels have in common.

use crate::base::error::Result;
use crate::engine::build::Build;
use crate::engine::shader::{Kernel, StatisticsFrom};
use crate::engine::slot::Slot;
use crate::ops::fold;
use crate::plan::CURVE_SUMS_BYTES;
use crate::plan::Records;

/// Dispatches the gradient sums of x and dy into scratch, and dx on the way if `dx`.
pub(crate) fn gradients(build: &mut Build<'_>, parameters: StatisticsFrom, dx: bool) {
    let partials = u64::from(build.plan().records) * u64::from(build.plan().splits);
    build.scratch(partials * CURVE_SUMS_BYTES);
    build.dispatch(Kernel::ReduceGradients { statistics: parameters, dx });
}

/// Dispatches the fold of partial gradient sums into dgamma and dbeta, and if `of_all`, that of all channels into dalpha and
/// dshift.
pub(crate) fn fold(build: &mut Build<'_>, of_all: bool) -> Result<()> {
    let slices = build.plan().slices;
    let totals = build.workspace(u64::from(slices) * CURVE_SUMS_BYTES);
    build.buffer(Slot::Total, totals);
    fold::team_per_slice(build, Kernel::FoldCurve)?;
    if of_all {
        // The channels are partial results of one slice.
        let records = Records { partials: slices, slices: 1, matrix: 0 };
        let plan = fold::plan_fold(build, 1, slices)?;
        build.dispatch_fold(Kernel::FoldAlpha, plan, records, vec![(Slot::Partials, totals.into())]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::shader;

    #[test]
    fn records_have_the_same_size_in_rust_and_wgsl() {
        let linked = shader::example(Kernel::FoldCurve).link();
        let module = naga::front::wgsl::parse_str(&linked.text).unwrap();
        let (size, _) = shader::reflect::struct_layout(&module, "GradientSumsRecord");
        assert_eq!(size as u64, CURVE_SUMS_BYTES);
    }
}
