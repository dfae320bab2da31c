//! The passes of norms whose slices are not channels: the same three steps, where statistics may belong to rows and parameters to columns.

mod backward;
mod forward;
mod ragged;

use std::ops::Range;

use super::halves::middle;
use super::{OfSlices, Pass};
use crate::base::error::{Error, Result};
use crate::engine::build::Build;
use crate::plan::{
    AffineOf, Alignment, GRADIENT_SUMS_BYTES, Parameters, Pattern, Plan, Records, Slices, Walk,
    maps_along_columns,
};

impl<'a> Pass<'a> {
    pub(in crate::pass) fn slices(&self) -> Slices {
        self.spec.cut.slices()
    }

    /// Where the partial results of all slices that share a statistic are.
    pub(in crate::pass) fn records(&self, plan: &Plan) -> Records {
        self.slices().records(plan)
    }

    /// Starts a walk along the columns of rows, where gamma varies within a row and the device gains by keeping it: by whole words, as far as a binding has room
    /// for all of a row and its parameters.
    fn start_columns(&self, of: OfSlices<'a>) -> Result<Option<Build<'a>>> {
        let context = self.spec.context;
        // Words of a strip have a statistic each where rows are in groups.
        let (slices, runs) = (self.slices(), self.spec.cut.row().is_some());
        let suits = slices.parameters.affine == AffineOf::Place && runs && slices.groups() == 1;
        if !suits || !maps_along_columns(context.capabilities(), context.tuning()) {
            return Ok(None);
        }
        match self.build_columns(of, &self.all_columns()) {
            Ok(build) => Ok((build.plan().width > 1 && self.holds_parameters(&build)).then_some(build)),
            Err(Error::TooLarge { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Walks along the columns of rows that are folded into the gradients of their parameters: one, or where no binding has room for what all columns need, one
    /// for each of several ranges.
    fn columns_in_parts(
        &self,
        of: OfSlices<'a>,
        columns: &Range<u64>,
    ) -> Result<Vec<(Range<u64>, Build<'a>)>> {
        let limit = self.spec.context.capabilities().max_binding_bytes;
        let build = self.build_columns(of, columns);
        let fits = match &build {
            Ok(build) => {
                let sums = u64::from(build.plan().records) * u64::from(build.plan().splits);
                sums * GRADIENT_SUMS_BYTES <= limit && self.holds_parameters(build)
            }
            Err(Error::TooLarge { .. }) => false,
            Err(_) => true,
        };
        let samples = self.slices().column_parameters().step > 0;
        match middle(columns.end - columns.start, 1, true) {
            Some(middle) if !fits && !samples => {
                let middle = columns.start + middle;
                let mut all = self.columns_in_parts(of, &(columns.start..middle))?;
                all.extend(self.columns_in_parts(of, &(middle..columns.end))?);
                Ok(all)
            }
            _ => Ok(vec![(columns.clone(), build?)]),
        }
    }

    /// Whether bindings have room for the parameters of a walk along columns.
    fn holds_parameters(&self, build: &Build<'_>) -> bool {
        let limit = self.spec.context.capabilities().max_binding_bytes;
        build.values().all(|tensor| tensor.byte_len() <= limit)
    }

    pub(in crate::pass) fn all_columns(&self) -> Range<u64> {
        0..self.slices().run() * self.slices().groups()
    }

    /// A walk along some columns of rows: the parameters are those of a column, the statistics those of a row.
    pub(in crate::pass) fn build_columns(&self, of: OfSlices<'a>, columns: &Range<u64>) -> Result<Build<'a>> {
        let slices = self.slices();
        let (parameters, groups) = (slices.column_parameters(), slices.groups());
        let (rows, all) = (slices.slices() / groups, slices.run() * groups);
        let places = columns.end - columns.start;
        // Samples have columns of their own where their parameters are their own.
        let pattern = match parameters.step {
            0 => Pattern::Columns { slices: places, samples: 1, inner: rows },
            _ => Pattern::Matrices { slices: places, samples: parameters.rows, inner: parameters.slices },
        };
        let some;
        let tensors = match places < all {
            false => self.tensors,
            true => {
                some = self.tensors.map(|slot, tensor| match slot.is_walked() {
                    true => tensor.block(all, 0..rows, columns.clone()),
                    false => tensor.stretch(columns.clone()),
                })?;
                some.tensors()
            }
        };
        let row = self.spec.cut.row().map(|_| places);
        let mut walk = Walk { unit_rows: 1, ..self.walk_over(&tensors, row, pattern) };
        if groups > 1 && !(slices.count().is_multiple_of(4) && columns.start.is_multiple_of(4)) {
            walk.alignment = Alignment::Groups;
        }
        let mut build = self.start_over(walk, &tensors, row)?;
        build.params.flags |= of.scheme.flags();
        build.pointwise.affine = AffineOf::Slice;
        let own = Parameters::of_slice(u32::MAX.into());
        build.params.parameter_slices = own.slices as u32;
        build.params.parameter_rows = own.rows as u32;
        build.params.parameter_step = own.step as u32;
        build.params.sample_rows = rows as u32;
        // Of runs that one slice has several of, all that begin alike have the statistics of one.
        let is_of_runs = matches!(slices.pattern, Pattern::Segments { samples: 2.., .. });
        build.params.row_cycle = if is_of_runs { rows as u32 } else { 0 };
        build.params.run_places = 0;
        if groups > 1 {
            let width = u64::from(build.plan().width);
            build.params.row_groups = groups as u32;
            build.params.group_words = (slices.count() / width) as u32;
            build.params.group_column = (columns.start / width) as u32;
        }
        Ok(build)
    }
}
