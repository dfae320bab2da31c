//! The gradients through the statistics of slices.
//!
//! Where gamma is constant along a slice, one walk serves all: sums per slice, their folds into the means that dx subtracts and into dgamma and
//! dbeta, and dx. Where it varies (layer, RMS norm), statistics belong to rows and parameters to columns: a walk along rows has the sums of a row,
//! a walk along columns dx and on its way the sums of a column.

use std::ops::Range;

use crate::base::error::{Error, Result};
use crate::base::gate::GateOrder;
use crate::engine::build::{Build, Whole};
use crate::engine::prepared::Prepared;
use crate::engine::shader::StatisticsFrom;
use crate::engine::slot::Slot;
use crate::ops::{fold, map, reduce, resident};
use crate::pass::{OfSlices, Pass};
use crate::plan::{
    AffineOf, GRADIENT_SUMS_BYTES, MEANS_BYTES, Parameters, Pattern, Plan, Records, SLICE_BYTES, addressed,
    row_teams,
};

impl<'a> Pass<'a> {
    /// The gradients that are asked for.
    pub(in crate::pass) async fn backward_of_slices(
        &self,
        mut build: Build<'a>,
        of: OfSlices<'a>,
    ) -> Result<Prepared> {
        if let Some(segments) = self.spec.segments {
            return self.backward_of_segments(build, segments, of).await;
        }
        build.params.flags |= of.scheme.flags();
        if build.plan().held > 0 {
            self.bind_recorded(&mut build, of)?;
            return self.backward_held(build).await;
        }
        let affine = self.slices().parameters.affine;
        if affine == AffineOf::Slice {
            self.bind_recorded(&mut build, of)?;
            return self.backward_of_walk(build).await;
        }
        let tensors = &self.tensors;
        let (d_sum, dx) = (tensors.get(Slot::DSum), tensors.get(Slot::Dx));
        if let (Some(d_sum), Some(dx), true, true) =
            (d_sum, dx, tensors.has_sums(), tensors.has(Slot::Residual))
        {
            // A dispatch has no binding left for it.
            if d_sum.is_same_place(dx) {
                let why = "dx cannot be written over d_sum where there is a residual and an activation; give it a tensor of its own";
                return Err(Error::InPlace { why });
            }
            // That dispatch takes all values one after the other.
            d_sum.check_contiguous("d_sum")?;
            dx.check_contiguous("dx")?;
            build.check_overlap()?;
            let without = Self { tensors: tensors.with(Slot::DSum, None), ..*self };
            let normed = Box::pin(without.assemble()).await?;
            let context = self.spec.context;
            let summed = map::prepare_sum(context, dx, d_sum, dx).await?;
            let all = Prepared::sequence(context, self.op, vec![normed, summed]);
            return Ok(all.with_floor(tensors.passes() * dx.byte_len()));
        }
        match affine {
            AffineOf::Row => self.backward_of_columns(build, of).await,
            _ => self.backward_of_rows(build, of).await,
        }
    }

    /// Binds what forward has saved, with the rows marked that do not count.
    fn bind_recorded(&self, build: &mut Build<'a>, of: OfSlices<'a>) -> Result<()> {
        let Some(saved) = of.saved else { unreachable!("a backward pass has what forward saved") };
        match self.mask {
            Some(mask) => {
                fold::marks(build, &self.stretch(saved.slab(), SLICE_BYTES), mask, self.slices().slices())
            }
            None => {
                build.buffer(Slot::Saved, self.stretch(saved.slab(), SLICE_BYTES));
                Ok(())
            }
        }
    }

    /// Values that a resident kernel holds for each of x, if one can have all gradients: x̂ and dz, and where gamma varies within a slice the
    /// sums of its place.
    pub(in crate::pass) fn held_backward_of_slices(&self) -> Option<u32> {
        let (tensors, slices) = (&self.tensors, self.slices());
        let more = [Slot::Residual, Slot::DSum, Slot::DResidual].iter().filter(|slot| tensors.has(**slot));
        // A dispatch has a binding for one more tensor, and one where beta is not read: it is where z is computed anew.
        let room = match self.gate {
            Some(GateOrder::GateFirst) => 2,
            Some(GateOrder::NormFirst) if !tensors.has(Slot::Beta) => 2,
            _ => 1,
        };
        let runs = matches!(slices.pattern, Pattern::Run { .. } | Pattern::Segments { samples: 1, .. });
        let fits = tensors.has(Slot::Dx) && runs && slices.merged == 1 && more.count() <= room;
        fits.then_some(if slices.parameters.affine == AffineOf::Place { 4 } else { 2 })
    }

    /// All gradients by one walk over slices that a team holds, and the fold of what it leaves for dgamma and dbeta.
    async fn backward_held(&self, mut build: Build<'a>) -> Result<Prepared> {
        let Parameters { affine, rows: samples, .. } = self.slices().parameters;
        let of_place = affine == AffineOf::Place;
        let (slices, places) = (self.slices().slices(), self.slices().count());
        let samples = if of_place { samples } else { 1 };
        let rows = slices / samples;
        let Plan { workgroup_size, team_size, .. } = **build.plan();
        let teams = match of_place {
            true => {
                let capabilities = self.spec.context.capabilities();
                row_teams(rows, (workgroup_size / team_size).into(), workgroup_size, capabilities)
            }
            false => rows,
        };
        build.params.samples = samples as u32;
        build.params.sample_rows = rows as u32;
        build.params.row_teams = teams as u32;
        let (of_parameters, records) = match of_place {
            true => {
                let matrix = if samples > 1 { (teams * places) as u32 } else { 0 };
                (samples * places, Records { partials: teams as u32, slices: places as u32, matrix })
            }
            false => self.parameter_records(build.plan())?,
        };
        let results = if of_place { samples * teams * places } else { slices };
        let padded = of_parameters * fold::padded(records.partials.into());
        match padded > results {
            true => build.zeroed_scratch(padded * GRADIENT_SUMS_BYTES),
            false => build.scratch(results * GRADIENT_SUMS_BYTES),
        }
        resident::backward_of_slices(&mut build, samples * teams)?;
        if self.tensors.has_sums() {
            self.fold_parameters(&mut build, of_parameters, records)?;
        }
        build.finish(self.traffic(self.tensors.passes())).await
    }

    /// Passes over memory of a reduction, and of a map of dx.
    pub(in crate::pass) fn passes(&self) -> (u64, u64) {
        let one = |slot| u64::from(self.tensors.has(slot));
        let read = 2 + one(Slot::Residual);
        let (of_gate, of_residual) = match self.gate {
            Some(GateOrder::GateFirst) => (one(Slot::DResidual), 0),
            _ => (0, one(Slot::DResidual)),
        };
        (read + of_residual, read + 1 + one(Slot::DSum) + of_gate)
    }

    /// A buffer for the means of all slices, bound as what they are written to and read from.
    fn bind_means(&self, build: &mut Build<'a>) -> Whole {
        let means = build.workspace(self.slices().statistics() * MEANS_BYTES);
        build.buffer(Slot::MeansOut, means);
        build.buffer(Slot::Means, means);
        means.into()
    }

    /// By walks over slices with a parameter each.
    async fn backward_of_walk(&self, mut build: Build<'a>) -> Result<Prepared> {
        let (parameters, records) = self.parameter_records(build.plan())?;
        let of_parameters = (parameters, u64::from(records.partials));
        reduce::gradients_of_many(&mut build, StatisticsFrom::Recorded, false, of_parameters);
        let (reduced, mapped) = self.passes();
        if self.tensors.has_sums() {
            self.fold_parameters(&mut build, parameters, records)?;
        }
        if !self.tensors.has(Slot::Dx) {
            return build.finish(self.traffic(reduced)).await;
        }
        self.bind_means(&mut build);
        let records = self.records(build.plan());
        fold::means(&mut build, self.slices().statistics(), records, true)?;
        map::backward_of_means(&mut build);
        build.finish(self.traffic(reduced + mapped)).await
    }

    /// By walks along rows and columns.
    async fn backward_of_rows(&self, along_rows: Build<'a>, of: OfSlices<'a>) -> Result<Prepared> {
        let (reduced, mapped) = self.passes();
        let (dx, sums) = (self.tensors.has(Slot::Dx), self.tensors.has_sums());
        if !dx && sums {
            let mut all: Option<Build<'a>> = None;
            for (range, mut columns) in self.columns_in_parts(of, &self.all_columns())? {
                self.bind_recorded(&mut columns, of)?;
                let columns = self.along_columns(columns, &range, StatisticsFrom::RecordedOfRow)?;
                all = Some(match all {
                    Some(before) => columns.after(before),
                    None => columns,
                });
            }
            let Some(all) = all else { unreachable!("there is a range of columns") };
            return all.finish(self.traffic(reduced)).await;
        }
        // The sums of rows.
        let along_columns = if sums { self.start_columns(of)? } else { None };
        let (mut rows, records) = match along_columns {
            Some(mut build) => {
                self.bind_recorded(&mut build, of)?;
                let rows = self.slices().slices();
                let records = reduce::row_gradients(&mut build, StatisticsFrom::RecordedOfRow, false, rows);
                (build, records)
            }
            None => {
                let mut build = along_rows;
                self.bind_recorded(&mut build, of)?;
                reduce::gradients(&mut build, StatisticsFrom::Recorded, false);
                let records = self.records(build.plan());
                (build, records)
            }
        };
        if !dx {
            return rows.finish(self.traffic(reduced)).await;
        }
        let means = self.bind_means(&mut rows);
        fold::means(&mut rows, self.slices().statistics(), records, false)?;
        if !sums {
            map::backward_of_means(&mut rows);
            return rows.finish(self.traffic(reduced + mapped)).await;
        }
        for (range, mut columns) in self.columns_in_parts(of, &self.all_columns())? {
            // That is written already; of a gate before the norm, beside dx.
            columns.pointwise.d_residual &= self.gate == Some(GateOrder::GateFirst);
            columns.buffer(Slot::Means, means.before());
            let columns = self.along_columns(columns, &range, StatisticsFrom::MeansOfRow)?;
            rows = columns.after(rows);
        }
        rows.finish(self.traffic(reduced + mapped)).await
    }

    /// By walks along columns, down which gamma varies: their sums, then dx, and on its way the sums of rows.
    async fn backward_of_columns(&self, mut build: Build<'a>, of: OfSlices<'a>) -> Result<Prepared> {
        let (reduced, mapped) = self.passes();
        let (dx, sums) = (self.tensors.has(Slot::Dx), self.tensors.has_sums());
        self.bind_recorded(&mut build, of)?;
        if !dx && sums {
            self.row_sums(&mut build, StatisticsFrom::Recorded)?;
            return build.finish(self.traffic(reduced)).await;
        }
        reduce::gradients(&mut build, StatisticsFrom::Recorded, false);
        if !dx {
            return build.finish(self.traffic(reduced)).await;
        }
        let means = self.bind_means(&mut build);
        let records = self.records(build.plan());
        fold::means(&mut build, self.slices().statistics(), records, false)?;
        if !sums {
            map::backward_of_means(&mut build);
            return build.finish(self.traffic(reduced + mapped)).await;
        }
        let mut of_rows = self.start(self.walk(None))?;
        // As after a walk along rows.
        of_rows.pointwise.d_residual &= self.gate == Some(GateOrder::GateFirst);
        of_rows.params.flags |= of.scheme.flags();
        of_rows.buffer(Slot::Means, means.before());
        self.row_sums(&mut of_rows, StatisticsFrom::Means)?;
        of_rows.after(build).finish(self.traffic(reduced + mapped)).await
    }

    /// Dispatches the gradient sums of rows, with dx if the means that it subtracts are there, and their fold into dgamma and dbeta: a row of each matrix has the same
    /// parameters.
    pub(in crate::pass) fn row_sums(&self, build: &mut Build<'a>, from: StatisticsFrom) -> Result<()> {
        let parameters = self.slices().count();
        let rows = self.slices().pattern.elements() / u64::from(build.plan().slices);
        build.params.sample_rows = rows as u32;
        let records = reduce::row_gradients(build, from, from.has_means(), rows);
        // Those of a strip follow each other, matrix by matrix.
        let partials = u64::from(records.partials) * (rows / parameters);
        let partials = addressed("x", partials, "partial results")?;
        build.zeroed_scratch(parameters * fold::padded(partials.into()) * GRADIENT_SUMS_BYTES);
        let records = Records { partials, slices: parameters as u32, matrix: 0 };
        self.fold_parameters(build, parameters, records)
    }

    /// Dispatches a walk along columns, and the fold of its sums into dgamma and dbeta.
    pub(in crate::pass) fn along_columns(
        &self,
        mut build: Build<'a>,
        columns: &Range<u64>,
        from: StatisticsFrom,
    ) -> Result<Build<'a>> {
        let plan = build.plan();
        let Parameters { rows, step, .. } = self.slices().column_parameters();
        let places = columns.end - columns.start;
        let (parameters, records) = match step {
            0 => (places, Records { partials: plan.partials(), slices: plan.slices, matrix: 0 }),
            _ => {
                let matrix = plan.matrix_splits * plan.records;
                (places * rows, Records { partials: plan.matrix_splits, slices: plan.slices, matrix })
            }
        };
        let of_parameters = (parameters, u64::from(records.partials));
        reduce::gradients_of_many(&mut build, from, from == StatisticsFrom::MeansOfRow, of_parameters);
        let bytes = columns.start * GRADIENT_SUMS_BYTES..columns.end * rows * GRADIENT_SUMS_BYTES;
        let totals = self.totals.map(|totals| totals.stretch(bytes));
        fold::parameter_gradients(&mut build, parameters, records, totals.as_ref())?;
        Ok(build)
    }

    /// Dispatches the fold of partial gradient sums to those of so many parameters, and these where they go.
    pub(in crate::pass) fn fold_parameters(
        &self,
        build: &mut Build<'_>,
        parameters: u64,
        records: Records,
    ) -> Result<()> {
        fold::parameter_gradients(build, parameters, records, self.totals)
    }

    /// How many parameters there are, and where the partial results of all slices that share one are.
    pub(in crate::pass) fn parameter_records(&self, plan: &Plan) -> Result<(u64, Records)> {
        let slices = self.slices();
        let Parameters { rows, step, .. } = slices.parameters;
        let parameters = if step == 0 { 1 } else { rows };
        if parameters == slices.slices() {
            let records = self.records(plan);
            let partials = records.partials / slices.merged as u32;
            return Ok((parameters, Records { partials, ..records }));
        }
        let all = u64::from(plan.records) * u64::from(plan.splits);
        let partials = addressed("x", all / parameters, "partial results")?;
        Ok((parameters, Records { partials, slices: parameters as u32, matrix: 0 }))
    }
}
