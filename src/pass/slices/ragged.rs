//! The passes over segments of rows: the same three steps in pieces of segments, with a tree over the pieces of each that only its length decides.

use crate::base::error::{Error, Result};
use crate::engine::build::{Build, Whole};
use crate::engine::params::flag;
use crate::engine::prepared::Prepared;
use crate::engine::segments::Segments;
use crate::engine::shader::{Kernel, Monoid, StatisticsFrom};
use crate::engine::slot::Slot;
use crate::ops::{fold, map};
use crate::pass::{OfSlices, Pass};
use crate::plan::{
    GRADIENT_SUMS_BYTES, MEANS_BYTES, MOMENTS_BYTES, NODE_PIECES, Plan, Records, SLICE_BYTES, addressed,
};

/// Invocations that fold what slices which share a statistic have left: always as many, so that bits do not depend on the device.
const TEAM: u32 = 32;

impl<'a> Pass<'a> {
    /// y, and the statistics if they are saved.
    pub(in crate::pass) async fn forward_of_segments(
        &self,
        mut build: Build<'a>,
        segments: &'a Segments,
        of: OfSlices<'a>,
    ) -> Result<Prepared> {
        build.params.flags |= of.scheme.flags() | flag::SAVE;
        self.reduce(&mut build, segments, Kernel::ReduceMoments, MOMENTS_BYTES);
        self.nodes(&mut build, segments, Monoid::Moments)?;
        let record: Whole = match of.saved {
            Some(saved) => saved.slab().into(),
            None => build.workspace(self.slices().statistics() * SLICE_BYTES).into(),
        };
        build.buffer(Slot::SavedOut, record.clone());
        build.buffer(Slot::Saved, record);
        self.fold_statistics_of(&mut build, Kernel::FoldStatistics(StatisticsFrom::Slices), Vec::new())?;
        map::forward(&mut build, StatisticsFrom::Recorded);
        build.finish(self.traffic(self.tensors.passes() + 1)).await
    }

    /// The gradients that are asked for.
    pub(in crate::pass) async fn backward_of_segments(
        &self,
        mut build: Build<'a>,
        segments: &'a Segments,
        of: OfSlices<'a>,
    ) -> Result<Prepared> {
        let Some(saved) = of.saved else { unreachable!("a backward pass has what forward saved") };
        build.params.flags |= of.scheme.flags();
        build.buffer(Slot::Saved, saved.slab());
        let kernel = Kernel::ReduceGradients { statistics: StatisticsFrom::Recorded, dx: false };
        self.reduce(&mut build, segments, kernel, GRADIENT_SUMS_BYTES);
        let columns = u64::from(build.plan().slices);
        let pieces = build.plan().splits;
        let [dx, dgamma, dbeta, dalpha] =
            [Slot::Dx, Slot::Dgamma, Slot::Dbeta, Slot::Dalpha].map(|slot| self.tensors.get(slot));
        if dgamma.is_some() || dbeta.is_some() {
            // All pieces, before the tree of each segment writes over some.
            self.fold_parameters(
                &mut build,
                columns,
                Records { partials: pieces, slices: columns as u32, matrix: 0 },
            )?;
        }
        if dx.is_none() && dalpha.is_none() {
            return build.finish(self.traffic(2)).await;
        }
        self.nodes(&mut build, segments, Monoid::GradientSums)?;
        let statistics = self.slices().statistics();
        let means = build.workspace(statistics * MEANS_BYTES);
        build.buffer(Slot::MeansOut, means);
        build.buffer(Slot::Means, means);
        let terms = build
            .pointwise
            .mean_scale
            .then(|| fold::padded_workspace(&mut build, columns, segments.segments(), GRADIENT_SUMS_BYTES));
        let buffers = terms.map(|terms| (Slot::PartialsOut, terms.into())).into_iter().collect();
        self.fold_statistics_of(&mut build, Kernel::FoldMeans { times_gamma: true }, buffers)?;
        let passes = if dx.is_some() { 5 } else { 2 };
        if dx.is_some() {
            map::backward_of_means(&mut build);
        }
        if let (Some(terms), Some(dalpha)) = (terms, dalpha) {
            let partials = addressed("segments", segments.segments(), "partial results")?;
            let records = Records { partials, slices: columns as u32, matrix: 0 };
            let context = self.spec.context;
            let dtype = build.plan().dtype;
            // The terms are sums whose first goes where dbeta would.
            let mut of_alpha = fold::gradients_of(context, self.op, columns, dtype, partials)?;
            of_alpha.value(Slot::Dbeta, dalpha)?;
            self.set_accumulation(&mut of_alpha);
            of_alpha.buffer(Slot::Partials, Whole::from(terms).before());
            fold::parameter_gradients(&mut of_alpha, columns, records, None)?;
            build = build.followed_by(of_alpha);
        }
        build.finish(self.traffic(passes)).await
    }

    /// Dispatches partial results of each piece, a row of them for each, which later dispatches read.
    fn reduce(&self, build: &mut Build<'a>, segments: &Segments, kernel: Kernel, bytes: u64) {
        build.buffer(Slot::Pieces, segments.of_pieces());
        build.buffer(Slot::Spans, segments.of_segments());
        let columns = u64::from(build.plan().slices);
        let partials = fold::padded_workspace(build, columns, segments.pieces(), bytes);
        for slot in [Slot::PartialsOut, Slot::Partials, Slot::Total] {
            build.buffer(slot, partials);
        }
        build.dispatch(kernel);
    }

    /// Dispatches the levels of the trees of long segments.
    fn nodes(&self, build: &mut Build<'a>, segments: &Segments, of: Monoid) -> Result<()> {
        let Plan { slices: columns, dtype, .. } = **build.plan();
        for (nodes, table) in segments.levels() {
            let context = self.spec.context;
            let plan =
                context.plan_per_slice(nodes * u64::from(columns), NODE_PIECES as u32, (1, 0), dtype)?;
            let records = Records { partials: 1, slices: columns, matrix: 0 };
            build.dispatch_fold(Kernel::FoldNodes(of), plan, records, vec![(Slot::Nodes, table.into())]);
        }
        Ok(())
    }

    /// Dispatches what becomes of each statistic, from what its trees have left.
    fn fold_statistics_of(
        &self,
        build: &mut Build<'a>,
        kernel: Kernel,
        buffers: Vec<(Slot, Whole)>,
    ) -> Result<()> {
        let (slices, context) = (self.slices(), self.spec.context);
        let Plan { slices: columns, dtype, .. } = **build.plan();
        let partials = addressed("segments", NODE_PIECES * slices.merged, "partial results")?;
        let team = if slices.merged > 1 { TEAM } else { 1 };
        let limit = context.capabilities().max_loop_iterations / 2;
        let needed = u64::from(partials.div_ceil(team));
        if needed > limit {
            let (what, unit) = ("a row of a segment", "partial results per invocation");
            return Err(Error::TooLarge { what, needed, unit, limit_name: "half of the loop limit", limit });
        }
        let plan = context.plan_per_slice(slices.statistics(), partials, (team, 0), dtype)?;
        let records = Records { partials, slices: columns, matrix: 0 };
        build.dispatch_fold(kernel, plan, records, buffers);
        Ok(())
    }
}
