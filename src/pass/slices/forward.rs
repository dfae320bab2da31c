//! y: reduce, fold, map over slices, or all three in one dispatch.

use crate::base::error::Result;
use crate::engine::build::{Build, Whole};
use crate::engine::params::flag;
use crate::engine::prepared::Prepared;
use crate::engine::shader::StatisticsFrom;
use crate::engine::slot::Slot;
use crate::ops::{fold, map, reduce, resident};
use crate::pass::{OfSlices, Pass};
use crate::plan::SLICE_BYTES;

impl<'a> Pass<'a> {
    /// y of an x, or of the sum of x and an addend, whose statistics are saved if that is asked for.
    pub(in crate::pass) async fn forward_of_slices(
        &self,
        mut build: Build<'a>,
        of: OfSlices<'a>,
    ) -> Result<Prepared> {
        if let Some(segments) = self.spec.segments {
            return self.forward_of_segments(build, segments, of).await;
        }
        let tensors = &self.tensors;
        let sum_is_over = [Slot::X, Slot::Addend].iter().any(|input| tensors.is_over(Slot::Sum, *input));
        // Words of two slices are read for both, so no slice may write over them.
        if sum_is_over && build.plan().edges {
            build.check_overlap()?;
            return Box::pin(self.forward_after_sum()).await;
        }
        build.params.flags |= of.scheme.flags();
        let held = build.plan().held > 0;
        let folds_in_map = self.slices().folds_in_map(build.plan());
        // The map reads the sum where the reduction has left it.
        let summed = tensors.has(Slot::Sum).then_some((Slot::X, Slot::Sum));
        let once = self.traffic(tensors.passes());
        let twice = self.traffic(tensors.passes() + 1);
        if let Some(int8) = self.int8
            && let Some(scales) = int8.scales(self.spec.context, self.slices().slices())?
        {
            build.buffer(Slot::Scales, &scales);
            if !held {
                reduce::moments(&mut build);
                map::int8_of_rows(&mut build, summed);
                return build.finish(twice).await;
            }
        }
        if !held
            && self.int8.is_none()
            && let Some(columns) = self.start_columns(of)?
        {
            // Moments by a walk along rows, y by one along columns, where gamma and beta stay in registers.
            let (mut rows, mut columns) = (build, columns);
            reduce::moments(&mut rows);
            let record = self.fold_statistics(&mut rows, of)?;
            columns.buffer(Slot::Saved, record.before());
            map::forward_of(&mut columns, StatisticsFrom::RecordedOfRow, summed);
            return columns.after(rows).finish(twice).await;
        }
        if let Some(saved) = of.saved.filter(|_| held || folds_in_map) {
            build.params.flags |= flag::SAVE;
            build.buffer(Slot::SavedOut, self.stretch(saved.slab(), SLICE_BYTES));
        }
        if held {
            resident::forward_of_slices(&mut build);
            return build.finish(once).await;
        }
        reduce::moments(&mut build);
        if folds_in_map {
            let records = self.records(build.plan());
            map::forward_of_slices(&mut build, records, summed);
        } else {
            let record = self.fold_statistics(&mut build, of)?;
            build.buffer(Slot::Saved, record);
            map::forward_of(&mut build, StatisticsFrom::Recorded, summed);
        }
        build.finish(twice).await
    }

    /// Dispatches the fold of partial moments into records, those that are saved or others.
    fn fold_statistics(&self, build: &mut Build<'a>, of: OfSlices<'a>) -> Result<Whole> {
        let statistics = self.slices().statistics();
        let record: Whole = match of.saved {
            Some(saved) => self.stretch(saved.slab(), SLICE_BYTES).into(),
            None => build.workspace(statistics * SLICE_BYTES).into(),
        };
        build.params.flags |= flag::SAVE;
        build.buffer(Slot::SavedOut, record.clone());
        let records = self.records(build.plan());
        fold::statistics(build, statistics, records)?;
        Ok(record)
    }

    /// The sum by a map of its own, and the norm of it.
    async fn forward_after_sum(&self) -> Result<Prepared> {
        let (tensors, context) = (self.tensors, self.spec.context);
        let of_sum = [Slot::X, Slot::Addend, Slot::Sum].map(|slot| tensors.get(slot));
        let [Some(x), Some(addend), Some(sum)] = of_sum else {
            unreachable!("there is a sum to be written over one of these")
        };
        let summed = map::prepare_sum(context, x, addend, sum).await?;
        let tensors = tensors.with(Slot::X, sum).with(Slot::Addend, None).with(Slot::Sum, None);
        let normed = Self { tensors, ..*self }.assemble().await?;
        // What goes between them is neither input nor output.
        Ok(normed.after(summed).with_floor(self.tensors.passes() * sum.byte_len()))
    }
}
