//! Derivatives of the passes: how y changes as x and the parameters do, and gradients of gradients (shaders/lib/second.wesl).
//!
//! The same three steps for all norms: sums over each slice, what is subtracted of it, and a walk that writes what was asked for and on its way sums the
//! gradients of parameters. Channels of a batch are slices as others are; constants have nothing to sum.

use super::spec::Cut;
use super::tensors::Tensors;
use super::{OfSlices, Pass, Scheme, Statistics};
use crate::base::error::Result;
use crate::engine::build::{Build, Whole};
use crate::engine::prepared::Prepared;
use crate::engine::shader::{Derivative, StatisticsFrom};
use crate::engine::slot::Slot;
use crate::ops::{map, reduce, second};
use crate::plan::{AffineOf, PACKED_BYTES, SAVED_BYTES, SLICE_BYTES};

/// What the walk that writes has from the dispatches before it.
struct Found {
    /// Parameters and their tangents.
    packed: Whole,
    /// Records of slices, with what is subtracted of them if there is.
    records: Whole,
    from: StatisticsFrom,
}

impl<'a> Pass<'a> {
    /// The operation, whose tensors say what it is: with a dy gradients of gradients.
    pub async fn prepare_derivatives(&self) -> Result<Prepared> {
        #[cfg(feature = "wgpu")]
        self.spec.context.try_untrusted_driver().await?;
        let of = |reads: bool| {
            let kept = self.tensors.all().filter(|(slot, _)| match slot {
                Slot::Gamma | Slot::Beta | Slot::GammaTangent | Slot::BetaTangent => reads,
                _ => !(reads && slot.writes()),
            });
            kept.fold(Tensors::NONE, |all, (slot, tensor)| all.with(slot, tensor))
        };
        let reading = Self { tensors: of(true), ..*self };
        let (before, found, passes) = reading.sums_of_slices()?;
        let writing = Self { tensors: of(false), ..*self };
        let written = writing.walk_that_writes(&found)?;
        let passes = passes + self.tensors.passes();
        written.after(before).finish(self.traffic(passes)).await
    }

    fn derivative(&self) -> Derivative {
        if self.tensors.has(Slot::Dy) { Derivative::Second } else { Derivative::Tangent }
    }

    /// Starts a walk for kernels that differentiate.
    fn start_derivatives(&self, walk: crate::plan::Walk) -> Result<Build<'a>> {
        let mut build = self.start(walk)?;
        self.set_derivative(&mut build);
        Ok(build)
    }

    fn set_derivative(&self, build: &mut Build<'a>) {
        build.pointwise.derivative = Some(self.derivative());
        build.pointwise.y_tangent = self.tensors.has(Slot::YTangent);
        if let Statistics::Slices(of) = self.statistics {
            build.params.flags |= of.scheme.flags();
        }
        if let Cut::Channels(_) = self.spec.cut {
            self.spec.set_slices(build, self.slices());
            // What is beside each other is there for each channel.
            (build.params.gamma_step, build.params.beta_step, build.params.gamma_base) = (1, 1, 0.0);
        }
    }

    /// Dispatches parameters and their tangents into one buffer, and the sums of slices, if statistics depend on x, with what is subtracted for them.
    fn sums_of_slices(&self) -> Result<(Build<'a>, Found, u64)> {
        let mut build = self.start_derivatives(self.walk(None))?;
        let (slices, parameters) = (self.slices(), self.packed_parameters());
        let packed = build.workspace(parameters * PACKED_BYTES);
        let of_channels = || slices.slices() * SLICE_BYTES;
        let records: Whole = match self.statistics {
            Statistics::Batch(of) => {
                let records = build.workspace(of_channels());
                let Some(saved) = of.saved else { unreachable!("there is what forward saved") };
                let saved = self.stretch(saved.slab(), SAVED_BYTES);
                let around = vec![(Slot::Saved, saved.into()), (Slot::SavedOut, records.into())];
                second::pack(&mut build, StatisticsFrom::Saved, (parameters, packed), around)?;
                records.into()
            }
            Statistics::Running(running) => {
                let records = build.workspace(of_channels());
                self.bind_stretch(&mut build, Slot::Running, running);
                let around = vec![(Slot::SavedOut, records.into())];
                second::pack(&mut build, StatisticsFrom::Running, (parameters, packed), around)?;
                records.into()
            }
            Statistics::Slices(of) => {
                second::pack(&mut build, StatisticsFrom::Recorded, (parameters, packed), Vec::new())?;
                let Some(saved) = of.saved else { unreachable!("there is what forward saved") };
                self.stretch(saved.slab(), SLICE_BYTES).into()
            }
            Statistics::Curve(_) => unreachable!("a curve has no slices"),
        };
        build.buffer(Slot::Packed, packed);
        build.buffer(Slot::Saved, records.clone());
        let packed = Whole::from(packed).before();
        if let Statistics::Running(_) = self.statistics {
            return Ok((
                build,
                Found { packed, records: records.before(), from: StatisticsFrom::Recorded },
                0,
            ));
        }
        second::reduce(&mut build);
        let records = self.records(build.plan());
        let means = second::means(&mut build, slices.statistics(), records)?;
        let found = Found { packed, records: Whole::from(means).before(), from: StatisticsFrom::Means };
        Ok((build, found, self.tensors.passes()))
    }

    /// A walk with all outputs, and the fold of what it sums.
    fn walk_that_writes(&self, found: &Found) -> Result<Build<'a>> {
        let (sums, dx) = (self.tensors.has_sums(), self.tensors.has(Slot::Dx));
        let affine = self.slices().parameters.affine;
        let bind = |build: &mut Build<'a>| {
            let slot = if found.from.has_means() { Slot::Means } else { Slot::Saved };
            build.buffer(slot, found.records.clone());
            build.buffer(Slot::Packed, found.packed.clone());
        };
        if sums && affine == AffineOf::Place {
            let (columns, of) = (self.all_columns(), OfSlices { scheme: self.scheme(), saved: None });
            let mut build = self.build_columns(of, &columns)?;
            self.set_derivative(&mut build);
            bind(&mut build);
            return self.along_columns(build, &columns, StatisticsFrom::MeansOfRow);
        }
        let mut build = self.start_derivatives(self.walk(None))?;
        bind(&mut build);
        match affine {
            _ if !sums => map::derivatives(&mut build, found.from, dx),
            AffineOf::Row => self.row_sums(&mut build, found.from)?,
            _ => {
                let (parameters, records) = self.parameter_records(build.plan())?;
                let of_parameters = (parameters, u64::from(records.partials));
                reduce::gradients_of_many(&mut build, found.from, dx, of_parameters);
                self.fold_parameters(&mut build, parameters, records)?;
            }
        }
        Ok(build)
    }

    fn scheme(&self) -> Scheme {
        match self.statistics {
            Statistics::Slices(of) => of.scheme,
            _ => Scheme::Deviation,
        }
    }

    /// How many parameters kernels know of: of one for all, or none, one.
    fn packed_parameters(&self) -> u64 {
        let slices = self.slices();
        let parameters = slices.parameters;
        match (parameters.affine, parameters.step) {
            (AffineOf::Slice, 0) => 1,
            (_, 0) => slices.count(),
            (_, step) => parameters.rows * step,
        }
    }
}
