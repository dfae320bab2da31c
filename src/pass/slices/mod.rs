//! The passes of norms whose slices are not channels: the same three steps, where statistics may belong to rows and parameters to columns.

mod backward;
mod forward;

use super::{OfSlices, Pass};
use crate::base::error::Result;
use crate::engine::build::Build;
use crate::plan::{Parameters, Pattern, Plan, Records, Slices, Walk, maps_along_columns};

impl<'a> Pass<'a> {
    fn slices(&self) -> Slices {
        self.spec.cut.slices()
    }

    /// Where the partial results of all slices that share a statistic are.
    fn records(&self, plan: &Plan) -> Records {
        self.slices().records(plan)
    }

    /// Starts a walk along the columns of rows, where gamma varies within a row and the device gains by keeping it: by whole words.
    fn start_columns(&self, of: OfSlices<'a>) -> Result<Option<Build<'a>>> {
        let context = self.spec.context;
        if !self.slices().parameters.of_place || !maps_along_columns(context.capabilities(), context.tuning())
        {
            return Ok(None);
        }
        let build = self.build_columns(of)?;
        Ok((build.plan().width > 1).then_some(build))
    }

    /// A walk along the columns of rows: the parameters are those of a column, the statistics those of a row.
    fn build_columns(&self, of: OfSlices<'a>) -> Result<Build<'a>> {
        let slices = self.slices();
        let parameters = slices.parameters;
        let (rows, places) = (slices.slices(), slices.count());
        // Samples have columns of their own where their parameters are their own.
        let pattern = match parameters.step {
            0 => Pattern::Columns { slices: places, samples: 1, inner: rows },
            _ => Pattern::Matrices { slices: places, samples: parameters.rows, inner: parameters.slices },
        };
        let mut build = self.start(Walk { unit_rows: 1, ..self.walk_over(pattern) })?;
        build.params.flags |= of.scheme.flags();
        build.pointwise.of_place = false;
        let own = Parameters::of_slice(u32::MAX.into());
        build.params.parameter_slices = own.slices as u32;
        build.params.parameter_rows = own.rows as u32;
        build.params.parameter_step = own.step as u32;
        build.params.sample_rows = rows as u32;
        Ok(build)
    }
}
