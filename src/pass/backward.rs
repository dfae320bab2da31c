//! The gradients of the channels of a batch: through its statistics, or through constants.

use super::{OfBatch, Pass, Statistics, Sums};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::engine::build::Build;
use crate::engine::prepared::Prepared;
use crate::engine::shader::{Monoid, Pointwise, StatisticsFrom};
use crate::engine::slot::Slot;
use crate::ops::{curve, fold, map, reduce, resident};
use crate::plan::{Capabilities, GRADIENT_SUMS_BYTES, SAVED_BYTES, WalkKind};
use crate::statistics::saved::Saved;

impl<'a> Pass<'a> {
    /// Through the statistics of the batch: sums per channel, and dx from them.
    pub(super) async fn backward_of_batch(&self, mut build: Build<'a>, of: OfBatch<'a>) -> Result<Prepared> {
        let tensors = &self.tensors;
        let (sums, dx, residual) = (tensors.has_sums(), tensors.has(Slot::Dx), tensors.has(Slot::Residual));
        let from_y = of.saved.is_some_and(Saved::is_in_place);
        build.pointwise.from_y = from_y;
        build.pointwise.renorm = of.renorm.is_some() && tensors.has(Slot::Dgamma);
        build.params.least_gamma = Saved::least_gamma(build.plan().dtype);
        if let Some(saved) = of.saved {
            build.buffer(Slot::Saved, self.stretch(saved.slab(), SAVED_BYTES));
        }
        // Each tensor once; and what a map reads again.
        let once = tensors.passes();
        if build.plan().held > 0 {
            resident::backward(&mut build);
            return build.finish(self.traffic(once)).await;
        }
        match of.sums {
            Sums::Own => reduce::gradients(&mut build, StatisticsFrom::Saved, false),
            Sums::Into(sums) => {
                let sums = self.stretch(&sums.totals.slab(), GRADIENT_SUMS_BYTES);
                reduce::gradients_into(&mut build, StatisticsFrom::Saved, &sums)?;
            }
            Sums::From(sums) => {
                build.params.partials = 1;
                build.pointwise.folded = true;
                build.buffer(Slot::Partials, self.stretch(&sums.totals.slab(), GRADIENT_SUMS_BYTES));
                map::backward(&mut build, None);
                return build.finish(self.traffic(once)).await;
            }
        }
        // With a mask, no binding of the map is left for dgamma and dbeta.
        if sums && (!dx || self.mask.is_some()) {
            fold::gradients(&mut build)?;
        }
        if !dx {
            return build.finish(self.traffic(once)).await;
        }
        let total = fold::apart(&mut build, Monoid::GradientSums, GRADIENT_SUMS_BYTES)?;
        // What reduce has written as d_residual is dz, unless storing has rounded it.
        let exact = build.plan().dtype == DType::F32 || self.spec.activation.is_mask();
        let read = if tensors.has(Slot::DResidual) && residual && exact && !from_y {
            map::backward_of_d_residual(&mut build, total);
            2
        } else {
            map::backward(&mut build, total);
            2 + u64::from(residual)
        };
        build.finish(self.traffic(once + read)).await
    }

    /// Through statistics that are constants, or a function of x: dx and the sums in one pass over memory.
    pub(super) async fn backward_of_constants(&self, mut build: Build<'a>) -> Result<Prepared> {
        let tensors = &self.tensors;
        let (sums, dx) = (tensors.has_sums(), tensors.has(Slot::Dx));
        let is_curve = matches!(self.statistics, Statistics::Curve(_));
        let over_dy = tensors.is_over(Slot::Dx, Slot::Dy);
        // Where neighbouring slices share words, one would write dx over a word whose dy the other has yet to sum.
        let in_two = sums && over_dy && build.plan().edges && build.plan().walk == WalkKind::Segments;
        let residual = tensors.has(Slot::Residual);
        // What one dispatch binds: tensors, partial results, a mask; gamma and beta with running statistics, or with alpha and the shift.
        let walked = match in_two {
            true => 2 + usize::from(residual),
            false => tensors.passes() as usize - usize::from(over_dy),
        };
        let parameters = if is_curve { 4 } else { 3 };
        let bindings = walked + usize::from(sums) + usize::from(self.mask.is_some()) + parameters;
        let mut from = self.constants(&mut build);
        if bindings > Capabilities::STORAGE_BUFFERS as usize {
            from = fold_constants(&mut build, from)?;
        }
        let once = tensors.passes();
        if !sums {
            map::frozen(&mut build, from, dx);
            return build.finish(self.traffic(once)).await;
        }
        let mut again = 0;
        if in_two {
            let pointwise = build.pointwise;
            build.pointwise = Pointwise { d_residual: false, ..pointwise };
            self.reduce_constants(&mut build, from, false);
            build.pointwise = pointwise;
            map::frozen(&mut build, from, true);
            // dy, the residual, and x where dx depends on it.
            let reads_x = is_curve || self.is_activated();
            again = 1 + u64::from(residual) + u64::from(reads_x);
        } else {
            self.reduce_constants(&mut build, from, dx);
        }
        match is_curve {
            true => curve::fold(&mut build, tensors.has(Slot::Dalpha) || tensors.has(Slot::Dshift))?,
            false => fold::gradients(&mut build)?,
        }
        build.finish(self.traffic(once + again)).await
    }

    fn reduce_constants(&self, build: &mut Build<'a>, from: StatisticsFrom, dx: bool) {
        match self.statistics {
            Statistics::Curve(_) => curve::gradients(build, from, dx),
            _ => reduce::gradients(build, from, dx),
        }
    }
}

/// Makes one buffer of the statistics and parameters of all channels, by a dispatch over C values; where kernels find them then.
fn fold_constants(build: &mut Build<'_>, from: StatisticsFrom) -> Result<StatisticsFrom> {
    let folded = build.workspace(u64::from(build.plan().slices) * SAVED_BYTES);
    fold::records(build, from, folded)?;
    Ok(match from {
        StatisticsFrom::Curve(curve) => StatisticsFrom::FoldedCurve(curve),
        _ => StatisticsFrom::Saved,
    })
}
