//! The gradients of a norm.
//!
//! Where gamma is constant along a slice, one walk serves all: sums per slice, their folds into the means that dx subtracts and into dgamma and
//! dbeta, and dx. Where it varies (layer, RMS norm), statistics belong to rows and parameters to columns: a walk along rows has the sums of a row,
//! a walk along columns dx and on its way the sums of a column.

use super::forward::Layer;
use super::saved::{MeansRecord, SavedSlices};
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::build::{Build, Whole};
use crate::engine::params::flag;
use crate::engine::prepared::Prepared;
use crate::engine::shader::StatisticsFrom;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::norm::{Accumulation, GradientTargets};
use crate::ops::{fold, map, reduce, resident};
use crate::plan::Records;
use crate::plan::{GRADIENT_SUMS_BYTES, Op, Pattern, Plan, Traffic, row_teams};
use crate::plan::{Parameters, Slices};

/// The arguments of a backward pass, checked.
#[derive(Clone, Copy)]
pub(super) struct Backward<'a> {
    pub x: &'a Tensor,
    /// Where an activation's derivative needs it.
    pub residual: Option<&'a Tensor>,
    pub dy: &'a Tensor,
    /// What else dx consists of.
    pub d_sum: Option<&'a Tensor>,
    pub saved: &'a SavedSlices,
    pub targets: &'a GradientTargets<'a>,
}

impl<'a> Backward<'a> {
    /// The tensors that are walked.
    pub fn tensors(&self) -> Vec<(Slot, &'a Tensor)> {
        let mut tensors = vec![(Slot::X, self.x), (Slot::Dy, self.dy)];
        let optional = [
            (Slot::Residual, self.residual),
            (Slot::DSum, self.d_sum),
            (Slot::Dx, self.targets.dx),
            (Slot::DResidual, self.targets.d_residual),
        ];
        tensors.extend(optional.into_iter().filter_map(|(slot, tensor)| Some((slot, tensor?))));
        tensors
    }

    /// Passes over memory of a reduction, and of a map of dx.
    fn passes(&self) -> (u64, u64) {
        let one = |tensor: Option<&Tensor>| u64::from(tensor.is_some());
        let read = 2 + one(self.residual);
        (read + one(self.targets.d_residual), read + 1 + one(self.d_sum))
    }

    fn traffic(&self, plan_passes: u64) -> Traffic {
        Traffic::passes(self.x.byte_len(), self.tensors().len() as u64, plan_passes)
    }
}

impl Layer<'_> {
    /// The gradients that are asked for; arguments are checked.
    pub async fn prepare_backward(&self, backward: &Backward<'_>) -> Result<Prepared> {
        let chosen = self.choose_backward(backward).await;
        self.planned(&chosen).assemble_backward(backward).await
    }

    /// The same, planned as it was chosen.
    pub async fn assemble_backward(&self, backward: &Backward<'_>) -> Result<Prepared> {
        if let Some(held) = self.held(backward) {
            let build = self.start(backward, self.slices.pattern, Some(held), true)?;
            if build.plan().held > 0 {
                match self.prepare_backward_held(build, backward).await {
                    // Tensors of one buffer that no dispatch can bind together, though several dispatches can bind them apart.
                    Err(Error::SharedBlock { .. } | Error::Between { .. }) => {}
                    prepared => return prepared,
                }
            }
        }
        if !self.slices.parameters.of_place {
            return self.prepare_backward_of_slices(backward).await;
        }
        let Backward { d_sum, residual, targets, .. } = *backward;
        if let (Some(d_sum), Some(dx), true, true) =
            (d_sum, targets.dx, targets.has_sums(), residual.is_some())
        {
            // A dispatch has no binding left for it.
            if d_sum.is_same_place(dx) {
                let why = "dx cannot be written over d_sum where there is a residual and an activation; give it a tensor of its own";
                return Err(Error::InPlace { why });
            }
            let mut build = self.start(backward, self.slices.pattern, None, true)?;
            bind_targets(&mut build, targets)?;
            build.check_overlap()?;
            let normed = Box::pin(self.assemble_backward(&Backward { d_sum: None, ..*backward })).await?;
            let summed = map::prepare_sum(self.context, dx, d_sum, dx).await?;
            let floor = backward.tensors().len() as u64 * dx.byte_len();
            return Ok(
                Prepared::sequence(self.context, Op::TrainBackward, vec![normed, summed]).with_floor(floor)
            );
        }
        self.prepare_backward_of_rows(backward).await
    }

    /// The parameter gradients of nothing: zero, written or added like any other.
    pub async fn prepare_empty(
        &self,
        dtype: DType,
        parameters: Option<Shape>,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let (Some(shape), true) = (parameters.filter(|shape| shape.len() > 0), targets.has_sums()) else {
            return Ok(Prepared::nothing(self.context, Op::TrainBackward));
        };
        let mut build = fold::gradients_of(self.context, Op::TrainBackward, shape.len(), dtype, 0)?;
        bind_targets(&mut build, targets)?;
        fold::gradients(&mut build)?;
        build.finish(Traffic::default()).await
    }

    /// Values that a resident kernel holds for each of x, if one can have all gradients: x̂ and dz, and where gamma varies within a slice the
    /// sums of its place.
    pub fn held(&self, backward: &Backward<'_>) -> Option<u32> {
        let Backward { residual, d_sum, targets, .. } = *backward;
        let more = [residual, d_sum, targets.d_residual].iter().flatten().count();
        let runs = matches!(self.slices.pattern, Pattern::Run { .. } | Pattern::Segments { samples: 1, .. });
        // A dispatch has a binding for one more tensor.
        let fits = targets.dx.is_some() && runs && self.slices.merged == 1 && more <= 1;
        let held = if self.slices.parameters.of_place { 4 } else { 2 };
        fits.then_some(held)
    }

    /// All gradients by one walk over slices that a team holds, and the fold of what it leaves for dgamma and dbeta.
    async fn prepare_backward_held(&self, mut build: Build<'_>, backward: &Backward<'_>) -> Result<Prepared> {
        let targets = backward.targets;
        bind_targets(&mut build, targets)?;
        build.pointwise.d_residual = targets.d_residual.is_some();
        build.pointwise.d_sum = backward.d_sum.is_some();
        let Slices { parameters, .. } = self.slices;
        let (slices, places) = (self.slices.slices(), self.slices.count());
        let samples = if parameters.of_place { parameters.rows } else { 1 };
        let rows = slices / samples;
        let Plan { workgroup_size, team_size, .. } = **build.plan();
        let teams = match parameters.of_place {
            true => row_teams(rows, (workgroup_size / team_size).into(), self.context.capabilities()),
            false => rows,
        };
        build.params.samples = samples as u32;
        build.params.sample_rows = rows as u32;
        build.params.row_teams = teams as u32;
        let (of_parameters, records) = match parameters.of_place {
            true => {
                let records = Records {
                    partials: teams as u32,
                    slices: places as u32,
                    matrix: if samples > 1 { (teams * places) as u32 } else { 0 },
                };
                (samples * places, records)
            }
            false => self.parameter_records(build.plan())?,
        };
        let results = match parameters.of_place {
            true => samples * teams * places,
            false => slices,
        };
        let padded = of_parameters * fold::padded(records.partials.into());
        match padded > results {
            true => build.zeroed_scratch(padded * GRADIENT_SUMS_BYTES),
            false => build.scratch(results * GRADIENT_SUMS_BYTES),
        }
        resident::backward_of_slices(&mut build, samples * teams)?;
        if targets.has_sums() {
            fold::parameter_gradients(&mut build, of_parameters, records)?;
        }
        build.finish(backward.traffic(backward.tensors().len() as u64)).await
    }

    fn start(
        &self,
        backward: &Backward<'_>,
        pattern: Pattern,
        held: Option<u32>,
        rows_as_one: bool,
    ) -> Result<Build<'_>> {
        let tensors = backward.tensors();
        let mut build = self.build(Op::TrainBackward, pattern, held, rows_as_one, &tensors)?;
        build.pointwise.residual = backward.residual.is_some();
        build.buffer(Slot::Saved, backward.saved.slab());
        Ok(build)
    }

    /// A buffer for the means of all slices, bound as what they are written to and read from.
    fn bind_means(&self, build: &mut Build<'_>) -> Whole {
        let means = build.workspace(self.slices.statistics() * size_of::<MeansRecord>() as u64);
        build.buffer(Slot::MeansOut, means);
        build.buffer(Slot::Means, means);
        means.into()
    }

    async fn prepare_backward_of_slices(&self, backward: &Backward<'_>) -> Result<Prepared> {
        let targets = backward.targets;
        let mut build = self.start(backward, self.slices.pattern, None, true)?;
        bind_targets(&mut build, targets)?;
        build.pointwise.d_residual = targets.d_residual.is_some();
        build.pointwise.d_sum = backward.d_sum.is_some();
        let (parameters, records) = self.parameter_records(build.plan())?;
        let of_parameters = (parameters, u64::from(records.partials));
        reduce::gradients_of_many(&mut build, StatisticsFrom::Recorded, false, of_parameters);
        let (reduced, mapped) = backward.passes();
        if targets.has_sums() {
            fold::parameter_gradients(&mut build, parameters, records)?;
        }
        if targets.dx.is_none() {
            return build.finish(backward.traffic(reduced)).await;
        }
        self.bind_means(&mut build);
        let records = self.records(build.plan());
        fold::means(&mut build, self.slices.statistics(), records, true)?;
        map::backward_of_means(&mut build);
        build.finish(backward.traffic(reduced + mapped)).await
    }

    async fn prepare_backward_of_rows(&self, backward: &Backward<'_>) -> Result<Prepared> {
        let targets = backward.targets;
        let (reduced, mapped) = backward.passes();
        let (dx, sums, d_residual) = (targets.dx.is_some(), targets.has_sums(), targets.d_residual.is_some());
        if !dx && sums {
            let mut columns = self.build_columns(Op::TrainBackward, &backward.tensors())?;
            columns.pointwise.d_residual = d_residual;
            let columns = self.along_columns(columns, backward, StatisticsFrom::RecordedOfRow)?;
            return columns.finish(backward.traffic(reduced)).await;
        }
        // The sums of rows.
        let along_columns = match sums {
            true => self.start_columns(Op::TrainBackward, &backward.tensors())?,
            false => None,
        };
        let of_columns = along_columns.is_some();
        let mut rows = match along_columns {
            Some(build) => build,
            None => self.start(backward, self.slices.pattern, None, true)?,
        };
        rows.pointwise.residual = backward.residual.is_some();
        rows.pointwise.d_residual = d_residual;
        rows.pointwise.d_sum = backward.d_sum.is_some();
        rows.buffer(Slot::Saved, backward.saved.slab());
        let records = match of_columns {
            true => reduce::row_gradients(&mut rows, self.slices.slices())?,
            false => {
                reduce::gradients(&mut rows, StatisticsFrom::Recorded, false);
                self.records(rows.plan())
            }
        };
        if !dx {
            return rows.finish(backward.traffic(reduced)).await;
        }
        let means = self.bind_means(&mut rows);
        fold::means(&mut rows, self.slices.statistics(), records, false)?;
        if !sums {
            map::backward_of_means(&mut rows);
            return rows.finish(backward.traffic(reduced + mapped)).await;
        }
        let mut columns = self.build_columns(Op::TrainBackward, &backward.tensors())?;
        columns.pointwise.d_sum = backward.d_sum.is_some();
        columns.buffer(Slot::Means, means.before());
        let columns = self.along_columns(columns, backward, StatisticsFrom::MeansOfRow)?;
        columns.after(rows).finish(backward.traffic(reduced + mapped)).await
    }

    /// Dispatches a walk along columns, and the fold of its sums into dgamma and dbeta.
    fn along_columns<'c>(
        &self,
        mut build: Build<'c>,
        backward: &Backward<'_>,
        from: StatisticsFrom,
    ) -> Result<Build<'c>> {
        build.pointwise.residual = backward.residual.is_some();
        build.buffer(Slot::Saved, backward.saved.slab());
        bind_targets(&mut build, backward.targets)?;
        let plan = build.plan();
        let places = self.slices.count();
        let (parameters, records) = match self.slices.parameters.step {
            0 => (places, Records { partials: plan.partials(), slices: plan.slices, matrix: 0 }),
            _ => {
                let matrix = plan.matrix_splits * plan.records;
                let records = Records { partials: plan.matrix_splits, slices: plan.slices, matrix };
                (places * self.slices.parameters.rows, records)
            }
        };
        let of_parameters = (parameters, u64::from(records.partials));
        reduce::gradients_of_many(&mut build, from, from == StatisticsFrom::MeansOfRow, of_parameters);
        fold::parameter_gradients(&mut build, parameters, records)?;
        Ok(build)
    }

    /// How many parameters there are, and where the partial results of all slices that share one are.
    fn parameter_records(&self, plan: &Plan) -> Result<(u64, Records)> {
        let Parameters { rows, step, .. } = self.slices.parameters;
        let slices = self.slices.slices();
        let parameters = if step == 0 { 1 } else { rows };
        if parameters == slices {
            let merged = self.slices.merged as u32;
            let records = self.records(plan);
            return Ok((slices, Records { partials: records.partials / merged, ..records }));
        }
        let all = u64::from(plan.records) * u64::from(plan.splits);
        let needed = all / parameters;
        let partials = u32::try_from(needed).map_err(|_| Error::TooLarge {
            what: "x",
            needed,
            unit: "partial results",
            limit_name: "address range",
            limit: u32::MAX.into(),
        })?;
        Ok((parameters, Records { partials, slices: parameters as u32, matrix: 0 }))
    }
}

fn bind_targets(build: &mut Build<'_>, targets: &GradientTargets<'_>) -> Result<()> {
    build.optional(Slot::Dgamma, targets.dgamma, flag::DGAMMA)?;
    build.optional(Slot::Dbeta, targets.dbeta, flag::DBETA)?;
    if targets.accumulation == Accumulation::Add {
        build.params.flags |= flag::ACCUMULATE;
    }
    Ok(())
}
