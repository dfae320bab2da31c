//! y of the channels of a batch: reduce, fold, map, or all three in one dispatch; the map alone where there is nothing to reduce.

use super::{OfBatch, Pass, Statistics};
use crate::base::error::Result;
use crate::engine::build::{Build, Whole};
use crate::engine::params::flag;
use crate::engine::prepared::Prepared;
use crate::engine::shader::{Monoid, StatisticsFrom};
use crate::engine::slab::Slab;
use crate::engine::slot::Slot;
use crate::ops::{fold, map, reduce, resident};
use crate::plan::{MOMENTS_BYTES, RUNNING_BYTES, SAVED_BYTES};
use crate::statistics::moments::Moments;
use crate::statistics::saved::Saved;

impl<'a> Pass<'a> {
    /// y from statistics that are constants, or of a function of x.
    pub(super) async fn forward_of_constants(&self, mut build: Build<'a>) -> Result<Prepared> {
        let from = self.constants(&mut build);
        map::forward(&mut build, from);
        build.finish(self.traffic(self.tensors.passes())).await
    }

    /// Where a kernel finds what x is normalized with, if that does not depend on x.
    pub(super) fn constants(&self, build: &mut Build<'a>) -> StatisticsFrom {
        match self.statistics {
            Statistics::Curve(curve) => StatisticsFrom::Curve(curve),
            Statistics::Running(running) => {
                self.bind_stretch(build, Slot::Running, running);
                StatisticsFrom::Running
            }
            Statistics::Batch(_) | Statistics::Slices(_) => unreachable!("these are of x"),
        }
    }

    /// y from the statistics of the batch, which are saved and enter the running statistics on the way.
    pub(super) async fn forward_of_batch(&self, mut build: Build<'a>, of: OfBatch<'a>) -> Result<Prepared> {
        if of.saved.is_some_and(Saved::is_in_place) {
            build.params.flags |= flag::RECOVER;
            build.params.least_gamma = Saved::least_gamma(build.plan().dtype);
        }
        self.bind_saved(&mut build, of);
        self.bind_running(&mut build, of);
        if of.moments.is_some_and(Moments::may_be_of_nothing) {
            build.params.flags |= flag::MASKED;
        }
        let mapped = self.tensors.passes();
        let passes = match of.moments {
            None if build.plan().held > 0 => {
                resident::forward(&mut build);
                mapped
            }
            None => {
                reduce::moments(&mut build);
                map_forward(&mut build, of)?;
                mapped + 1
            }
            Some(moments) => {
                build.buffer(Slot::Partials, self.stretch(&moments.slab(), MOMENTS_BYTES));
                build.params.partials = 1;
                build.pointwise.folded = true;
                map_forward(&mut build, of)?;
                mapped
            }
        };
        build.finish(self.traffic(passes)).await
    }

    /// Binds where the statistics are saved, if anybody reads them: the backward pass, or with batch renorm the map.
    fn bind_saved(&self, build: &mut Build<'_>, of: OfBatch<'_>) {
        let record: Whole = match of.saved {
            Some(saved) => self.stretch(saved.slab(), SAVED_BYTES).into(),
            None if of.renorm.is_some() => {
                build.workspace(u64::from(build.plan().slices) * SAVED_BYTES).into()
            }
            None => return,
        };
        build.params.flags |= flag::SAVE;
        if of.renorm.is_some() {
            build.buffer(Slot::Saved, record.clone());
        }
        build.buffer(Slot::SavedOut, record);
    }

    /// Binds the running statistics, if they are updated, or with batch renorm read.
    fn bind_running(&self, build: &mut Build<'_>, of: OfBatch<'_>) {
        if let Some(running) = of.running.filter(|_| of.track.is_some() || of.renorm.is_some()) {
            self.bind_stretch(build, Slot::RunningUpdate, running);
        }
        let Some(track) = of.track else { return };
        build.params.flags |= flag::TRACK;
        for (is, flag) in [(track.cumulative, flag::CUMULATIVE), (track.unbiased, flag::UNBIASED)] {
            if is {
                build.params.flags |= flag;
            }
        }
        (build.params.old_weight, build.params.new_weight) = track.weights;
    }

    /// Binds the running statistics of the channels that the pass has: means, variances and counters lie one after the other, so a part has what is between.
    pub(super) fn bind_stretch(&self, build: &mut Build<'_>, slot: Slot, running: &Slab) {
        let channels = running.bytes() / RUNNING_BYTES;
        build.params.running_step = channels as u32;
        let stretch = match self.records {
            None => running.clone(),
            Some(records) => running.stretch(4 * records.start..4 * (2 * channels + records.end)),
        };
        build.buffer(slot, stretch);
    }
}

/// Dispatches y from partial moments.
fn map_forward(build: &mut Build<'_>, of: OfBatch<'_>) -> Result<()> {
    let Some(renorm) = of.renorm else {
        let total = match of.moments {
            None => fold::apart(build, Monoid::Moments, MOMENTS_BYTES)?,
            Some(_) => None,
        };
        map::forward_of_batch(build, total);
        return Ok(());
    };
    renorm.set(&mut build.params);
    fold::renorm(build)?;
    map::forward(build, StatisticsFrom::Saved);
    Ok(())
}
