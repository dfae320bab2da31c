//! The passes of switchable norm: those of instance norm, whose statistics are mixtures, and whose gradients go back through what is mixed.

use super::{GradientTargets, OfSlices, Pass, Reads, Scheme, Spec, Statistics};
use crate::base::error::Result;
use crate::engine::build::{Build, Scratch, Whole};
use crate::engine::prepared::Prepared;
use crate::engine::shader::{Kernel, Monoid, StatisticsFrom};
use crate::engine::slab::Slab;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::ops::{fold, map, reduce};
use crate::pass::input::Input;
use crate::plan::{GRADIENT_SUMS_BYTES, MEANS_BYTES, MOMENTS_BYTES, Op, Records, SLICE_BYTES, addressed};
use crate::statistics::moments::Moments;
use crate::statistics::saved::{Saved, mixtures_of};

/// Which variance instances have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mixing {
    pub unbiased: bool,
}

/// Instances, samples and channels.
#[derive(Clone, Copy, Debug)]
struct Extent {
    samples: u64,
    channels: u64,
}

impl Extent {
    const fn instances(self) -> u64 {
        self.samples * self.channels
    }

    /// The records of all instances, of which each is a slice.
    fn each(self) -> Result<Records> {
        Ok(Records { partials: 1, slices: addressed("x", self.channels, "instances")?, matrix: 0 })
    }

    /// Those of a sample together.
    fn layers(self) -> Result<Records> {
        let channels = addressed("x", self.channels, "instances")?;
        Ok(Records { partials: channels, slices: 1, matrix: channels })
    }

    /// Those of a channel.
    fn batch(self) -> Result<Records> {
        Ok(Records {
            partials: addressed("x", self.samples, "instances")?,
            slices: addressed("x", self.channels, "instances")?,
            matrix: 0,
        })
    }
}

impl<'a> Spec<'a> {
    /// y of an x that is not empty. The moments of the batch go to `batch`, or are those of `running`.
    pub(crate) async fn prepare_switchable(
        self,
        (input, y): (Input<'a>, &'a Tensor),
        mixing: Mixing,
        batch: Option<&'a Moments>,
        running: Option<&'a Slab>,
        saved: Option<&'a Saved>,
    ) -> Result<Prepared> {
        #[cfg(feature = "wgpu")]
        self.context.try_untrusted_driver().await?;
        let statistics = Statistics::Slices(OfSlices { scheme: Scheme::Deviation, saved: None });
        let op = if running.is_some() { Op::Inference } else { Op::TrainForward };
        let pass = Pass::forward(op, self, input, y, statistics);
        let (mut build, extent) = pass.start_mixed()?;
        let instances = extent.instances();
        reduce::moments(&mut build);
        let own = build.workspace(instances * MOMENTS_BYTES);
        build.pointwise.unbiased = mixing.unbiased;
        let records = pass.records(build.plan());
        total(&mut build, Monoid::Moments, instances, records, (None, own.into()))?;
        build.pointwise.unbiased = false;
        let layers = build.workspace(extent.samples * MOMENTS_BYTES);
        total(&mut build, Monoid::Moments, extent.samples, extent.layers()?, (Some(own), layers.into()))?;
        if let Some(batch) = batch {
            let into = (Some(own), batch.slab().into());
            total(&mut build, Monoid::Moments, extent.channels, extent.batch()?, into)?;
        }
        let (records, mixtures): (Whole, Whole) = match saved {
            Some(saved) => of_saved(saved, instances),
            None => {
                let range = mixtures_of(instances);
                let mixtures = build.workspace(range.end - range.start);
                (build.workspace(instances * SLICE_BYTES).into(), mixtures.into())
            }
        };
        let mut buffers = vec![
            (Slot::Partials, own.into()),
            (Slot::Layers, layers.into()),
            (Slot::SavedOut, records.clone()),
            (Slot::MixturesOut, mixtures),
        ];
        buffers.extend(batch.map(|batch| (Slot::Batch, batch.slab().into())));
        if let Some(running) = running {
            build.params.running_step = addressed("x", extent.channels, "instances")?;
            buffers.push((Slot::Running, running.into()));
        }
        let kernel = Kernel::FoldMixture { running: running.is_some() };
        each(&mut build, kernel, extent, buffers)?;
        build.buffer(Slot::Saved, records);
        map::forward(&mut build, StatisticsFrom::Recorded);
        build.finish(pass.traffic(pass.tensors.passes() + 1)).await
    }

    /// The gradients of an x that is not empty.
    pub(crate) async fn prepare_switchable_backward(
        self,
        (input, dy): (Input<'a>, &'a Tensor),
        targets: &GradientTargets<'a>,
        reads: Reads,
        mixing: Mixing,
        saved: &'a Saved,
    ) -> Result<Prepared> {
        #[cfg(feature = "wgpu")]
        self.context.try_untrusted_driver().await?;
        let statistics = Statistics::Slices(OfSlices { scheme: Scheme::Deviation, saved: Some(saved) });
        let pass = Pass::backward(Op::TrainBackward, self, (input, dy), targets, reads, statistics);
        let (mut build, extent) = pass.start_mixed()?;
        let instances = extent.instances();
        let (records, mixtures) = of_saved(saved, instances);
        build.buffer(Slot::Saved, records);
        let (parameters, of_parameter) = pass.parameter_records(build.plan())?;
        let per_parameter = (parameters, u64::from(of_parameter.partials));
        reduce::gradients_of_many(&mut build, StatisticsFrom::Recorded, false, per_parameter);
        let [dx, dgamma, dbeta, dmeans, dvariances] =
            [Slot::Dx, Slot::Dgamma, Slot::Dbeta, Slot::Dalpha, Slot::Dshift]
                .map(|slot| pass.tensors.get(slot));
        if dgamma.is_some() || dbeta.is_some() {
            pass.fold_parameters(&mut build, parameters, of_parameter)?;
        }
        let (reduced, mapped) = pass.passes();
        let weights = dmeans.is_some() || dvariances.is_some();
        if dx.is_none() && !weights {
            return build.finish(pass.traffic(reduced)).await;
        }
        let sums = build.workspace(instances * GRADIENT_SUMS_BYTES);
        let partials = pass.records(build.plan());
        total(&mut build, Monoid::GradientSums, instances, partials, (None, sums.into()))?;
        let own = build.workspace(instances * GRADIENT_SUMS_BYTES);
        let buffers = vec![(Slot::Partials, sums.into()), (Slot::Total, own.into())];
        each(&mut build, Kernel::FoldMixtureSums, extent, buffers)?;
        let layers = build.workspace(extent.samples * GRADIENT_SUMS_BYTES);
        let into = (Some(own), layers.into());
        total(&mut build, Monoid::GradientSums, extent.samples, extent.layers()?, into)?;
        let batch = build.workspace(extent.channels * GRADIENT_SUMS_BYTES);
        let into = (Some(own), batch.into());
        total(&mut build, Monoid::GradientSums, extent.channels, extent.batch()?, into)?;
        let means = build.workspace(instances * MEANS_BYTES);
        let terms = fold::padded_workspace(&mut build, 3, instances, GRADIENT_SUMS_BYTES);
        let buffers = vec![
            (Slot::Partials, own.into()),
            (Slot::Layers, layers.into()),
            (Slot::Batch, batch.into()),
            (Slot::Mixtures, mixtures),
            (Slot::MeansOut, means.into()),
            (Slot::PartialsOut, terms.into()),
        ];
        build.pointwise.unbiased = mixing.unbiased;
        each(&mut build, Kernel::FoldMixtureMeans, extent, buffers)?;
        build.pointwise.unbiased = false;
        if dx.is_some() {
            build.buffer(Slot::Means, means);
            map::backward_of_means(&mut build);
        }
        if weights {
            let partials = addressed("x", instances, "instances")?;
            let mut of_weights =
                fold::gradients_of(self.context, Op::TrainBackward, 3, build.plan().dtype, partials)?;
            for (slot, tensor) in [(Slot::Dbeta, dmeans), (Slot::Dgamma, dvariances)] {
                if let Some(tensor) = tensor {
                    of_weights.value(slot, tensor)?;
                }
            }
            pass.set_accumulation(&mut of_weights);
            of_weights.buffer(Slot::Partials, Whole::from(terms).before());
            let records = Records { partials, slices: 3, matrix: 0 };
            fold::parameter_gradients(&mut of_weights, 3, records, None)?;
            build = build.followed_by(of_weights);
        }
        let passes = if dx.is_some() { reduced + mapped } else { reduced };
        build.finish(pass.traffic(passes)).await
    }
}

impl<'a> Pass<'a> {
    /// Starts a walk over instances.
    fn start_mixed(&self) -> Result<(Build<'a>, Extent)> {
        let build = self.start(self.walk(None))?;
        let view = self.spec.cut.slices();
        let channels = self.spec.shape.len();
        Ok((build, Extent { samples: view.slices() / channels, channels }))
    }
}

/// Where the records of so many instances are, and their mixtures.
fn of_saved(saved: &Saved, instances: u64) -> (Whole, Whole) {
    let slab = saved.slab();
    (slab.stretch(0..instances * SLICE_BYTES).into(), slab.stretch(mixtures_of(instances)).into())
}

/// Dispatches the totals of so many slices, from partial results or other totals.
fn total(
    build: &mut Build<'_>,
    of: Monoid,
    slices: u64,
    records: Records,
    (from, into): (Option<Scratch>, Whole),
) -> Result<()> {
    let plan = fold::plan_fold(build, slices, records.partials)?;
    let mut buffers = vec![(Slot::Total, into)];
    buffers.extend(from.map(|from| (Slot::Partials, from.into())));
    build.dispatch_fold(Kernel::FoldTotal(of), plan, records, buffers);
    Ok(())
}

/// Dispatches a kernel that has an invocation for each instance.
fn each(build: &mut Build<'_>, kernel: Kernel, extent: Extent, buffers: Vec<(Slot, Whole)>) -> Result<()> {
    let plan = build.context().plan_per_slice(extent.instances(), 1, (1, 0), build.plan().dtype)?;
    build.dispatch_fold(kernel, plan, extent.each()?, buffers);
    Ok(())
}
