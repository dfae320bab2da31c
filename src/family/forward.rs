//! y of a norm: reduce, fold, map over its slices, or all three in one dispatch.

use super::options::Scheme;
use super::saved::{SavedSlices, SliceRecord};
use crate::base::activation::Activation;
use crate::base::error::{Error, Result};
use crate::engine::build::{Build, Whole};
use crate::engine::context::Context;
use crate::engine::params::flag;
use crate::engine::prepared::Prepared;
use crate::engine::shader::{ActivationKind, Pointwise, StatisticsFrom};
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::ops::{fold, map, reduce, resident};
use crate::plan::Records;
use crate::plan::{Op, Pattern, Plan, Traffic, Walk, maps_along_columns};
use crate::plan::{Parameters, Slices};

/// The arguments of a forward pass, checked.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a> {
    pub x: &'a Tensor,
    pub residual: Option<&'a Tensor>,
    /// What is added to x before the norm, and where the sum goes.
    pub addend: Option<(&'a Tensor, &'a Tensor)>,
    pub y: &'a Tensor,
    pub saved: Option<&'a SavedSlices>,
}

impl<'a> Forward<'a> {
    /// The tensors that are walked.
    pub fn tensors(&self) -> Vec<(Slot, &'a Tensor)> {
        let mut tensors = vec![(Slot::X, self.x), (Slot::Y, self.y)];
        tensors.extend(self.residual.map(|residual| (Slot::Residual, residual)));
        let summed = self.addend.into_iter();
        tensors.extend(summed.flat_map(|(addend, sum)| [(Slot::Addend, addend), (Slot::Sum, sum)]));
        tensors
    }
}

/// A layer as its kernels see it.
#[derive(Clone, Copy)]
pub(super) struct Affine<'a> {
    pub gamma: Option<&'a Tensor>,
    pub beta: Option<&'a Tensor>,
    pub unit_offset: bool,
}

/// What forward and backward passes have in common.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    pub context: &'a Context,
    /// Why plans are forced, if they are.
    pub reason: Option<&'a str>,
    /// The layer's name.
    pub name: &'static str,
    pub slices: Slices,
    pub scheme: Scheme,
    pub eps: f64,
    pub activation: Activation,
    pub affine: Affine<'a>,
}

impl<'a> Layer<'a> {
    /// How tensors that are cut as a pattern says are walked.
    pub fn walk(
        &self,
        pattern: Pattern,
        held: Option<u32>,
        rows_as_one: bool,
        tensors: &[(Slot, &Tensor)],
    ) -> Walk {
        let walked: Vec<_> = tensors.iter().map(|(_, tensor)| *tensor).collect();
        let walk = Walk::over(pattern, &walked, self.context.capabilities().storage_alignment);
        let unit_rows = if rows_as_one { walk.unit_rows } else { 1 };
        Walk { held, unit_rows, ..walk }
    }

    /// Starts an operation over tensors that are cut as a pattern says.
    pub fn build(
        &self,
        op: Op,
        pattern: Pattern,
        held: Option<u32>,
        rows_as_one: bool,
        tensors: &[(Slot, &Tensor)],
    ) -> Result<Build<'a>> {
        let walk = self.walk(pattern, held, rows_as_one, tensors);
        let plan = self.context.plan_walk(&walk, self.reason)?;
        let mut build = Build::new(self.context, op, plan);
        let Slices { parameters, merged, .. } = self.slices;
        let params = &mut build.params;
        params.eps = self.eps as f32;
        params.slope = self.activation.slope();
        params.flags |= self.scheme.flags();
        params.merged = merged as u32;
        params.count = self.slices.count() as f32;
        params.places = if parameters.of_place { self.slices.count() } else { 1 };
        params.parameter_slices = parameters.slices as u32;
        params.parameter_rows = parameters.rows as u32;
        params.parameter_step = parameters.step as u32;
        params.gamma_step = self.affine.gamma.is_some().into();
        params.beta_step = self.affine.beta.is_some().into();
        params.gamma_base = f32::from(u8::from(self.affine.unit_offset || self.affine.gamma.is_none()));
        build.pointwise = Pointwise {
            activation: ActivationKind::of(self.activation),
            of_place: parameters.of_place,
            ..Pointwise::default()
        };
        for (slot, tensor) in tensors {
            build.tensor(*slot, tensor)?;
        }
        build.optional(Slot::Gamma, self.affine.gamma, flag::GAMMA)?;
        build.optional(Slot::Beta, self.affine.beta, flag::BETA)?;
        Ok(build)
    }

    /// Where the partial results of all slices that share a statistic are.
    pub fn records(&self, plan: &Plan) -> Records {
        self.slices.records(plan)
    }

    fn folds_in_map(&self) -> bool {
        self.slices.folds_in_map()
    }

    /// y, whose arguments are checked.
    pub async fn prepare_forward(&self, forward: &Forward<'_>) -> Result<Prepared> {
        let chosen = self.choose_forward(forward).await;
        self.planned(&chosen).assemble_forward(forward).await
    }

    /// The same, planned as it was chosen.
    pub async fn assemble_forward(&self, forward: &Forward<'_>) -> Result<Prepared> {
        let held = Op::TrainForward.held().filter(|_| self.folds_in_map());
        match self.prepare_forward_with(forward, held).await {
            // Tensors of one buffer that no dispatch can bind together, though several dispatches can bind them apart.
            Err(Error::SharedBlock { .. } | Error::Between { .. }) if held.is_some() => {
                self.prepare_forward_with(forward, None).await
            }
            prepared => prepared,
        }
    }

    async fn prepare_forward_with(&self, forward: &Forward<'_>, held: Option<u32>) -> Result<Prepared> {
        let Forward { x, residual, addend, saved, .. } = *forward;
        let tensors = forward.tensors();
        let mut build = self.build(Op::TrainForward, self.slices.pattern, held, true, &tensors)?;
        if let Some((addend, sum)) = addend {
            let over = sum.is_same_place(x) || sum.is_same_place(addend);
            // Words of two slices are read for both, so no slice may write over them.
            if over && build.plan().edges {
                build.check_overlap()?;
                return Box::pin(self.prepare_sum_first(forward, addend, sum)).await;
            }
            build.pointwise.sum = true;
        }
        build.pointwise.residual = residual.is_some();
        let passes = tensors.len() as u64;
        let held = build.plan().held > 0;
        if !held && let Some(columns) = self.start_columns(Op::TrainForward, &tensors)? {
            return self.prepare_forward_along_columns(build, columns, forward).await;
        }
        if let Some(saved) = saved.filter(|_| held || self.folds_in_map()) {
            build.params.flags |= flag::SAVE;
            build.buffer(Slot::SavedOut, saved.slab());
        }
        if held {
            resident::forward_of_slices(&mut build);
            return build.finish(Traffic::passes(x.byte_len(), passes, passes)).await;
        }
        reduce::moments(&mut build);
        // The map reads the sum where the reduction has left it.
        let summed = addend.map(|_| (Slot::X, Slot::Sum));
        if self.folds_in_map() {
            map::forward_of(&mut build, StatisticsFrom::Slices, summed);
        } else {
            let record = self.fold_statistics(&mut build, saved)?;
            build.buffer(Slot::Saved, record);
            map::forward_of(&mut build, StatisticsFrom::Recorded, summed);
        }
        build.finish(Traffic::passes(x.byte_len(), passes, passes + 1)).await
    }

    /// Dispatches the fold of partial moments into records, those that are saved or others.
    fn fold_statistics(&self, build: &mut Build<'_>, saved: Option<&SavedSlices>) -> Result<Whole> {
        let record: Whole = match saved {
            Some(saved) => saved.slab().into(),
            None => build.workspace(self.slices.statistics() * size_of::<SliceRecord>() as u64).into(),
        };
        build.params.flags |= flag::SAVE;
        build.buffer(Slot::SavedOut, record.clone());
        let records = self.records(build.plan());
        fold::statistics(build, self.slices.statistics(), records)?;
        Ok(record)
    }

    /// Moments by a walk along rows, y by one along columns, where gamma and beta stay in registers.
    async fn prepare_forward_along_columns(
        &self,
        mut rows: Build<'_>,
        mut columns: Build<'_>,
        forward: &Forward<'_>,
    ) -> Result<Prepared> {
        let Forward { x, residual, addend, saved, .. } = *forward;
        reduce::moments(&mut rows);
        let record = self.fold_statistics(&mut rows, saved)?;
        columns.pointwise.residual = residual.is_some();
        columns.buffer(Slot::Saved, record.before());
        let summed = addend.map(|_| (Slot::X, Slot::Sum));
        map::forward_of(&mut columns, StatisticsFrom::RecordedOfRow, summed);
        let passes = 2 + u64::from(residual.is_some()) + if addend.is_some() { 2 } else { 0 };
        columns.after(rows).finish(Traffic::passes(x.byte_len(), passes, passes + 1)).await
    }

    /// Starts a walk along the columns of rows, where gamma varies within a row and the device gains by keeping it: by whole words.
    pub fn start_columns(&self, op: Op, tensors: &[(Slot, &Tensor)]) -> Result<Option<Build<'a>>> {
        if !self.slices.parameters.of_place
            || !maps_along_columns(self.context.capabilities(), self.context.tuning())
        {
            return Ok(None);
        }
        let build = self.build_columns(op, tensors)?;
        Ok((build.plan().width > 1).then_some(build))
    }

    /// A walk along the columns of rows: the parameters are those of a column, the statistics those of a row.
    pub fn build_columns(&self, op: Op, tensors: &[(Slot, &Tensor)]) -> Result<Build<'a>> {
        let Slices { parameters, .. } = self.slices;
        let (rows, places) = (self.slices.slices(), self.slices.count());
        // Samples have columns of their own where their parameters are their own.
        let pattern = match parameters.step {
            0 => Pattern::Columns { slices: places, samples: 1, inner: rows },
            _ => Pattern::Matrices { slices: places, samples: parameters.rows, inner: parameters.slices },
        };
        let mut build = self.build(op, pattern, None, false, tensors)?;
        build.pointwise.of_place = false;
        let own = Parameters::of_slice(u32::MAX.into());
        build.params.parameter_slices = own.slices as u32;
        build.params.parameter_rows = own.rows as u32;
        build.params.parameter_step = own.step as u32;
        build.params.sample_rows = rows as u32;
        Ok(build)
    }

    /// The sum by a map of its own, and the norm of it.
    async fn prepare_sum_first(
        &self,
        forward: &Forward<'_>,
        addend: &Tensor,
        sum: &Tensor,
    ) -> Result<Prepared> {
        let summed = map::prepare_sum(self.context, forward.x, addend, sum).await?;
        let normed = self.assemble_forward(&Forward { x: sum, addend: None, ..*forward }).await?;
        // x, the addend, the sum, y, and the residual.
        let tensors = 4 + u64::from(forward.residual.is_some());
        Ok(normed.after(summed).with_floor(tensors * sum.byte_len()))
    }
}
