//! The passes of spectral norm: products of the weight, as a matrix, with its directions; and maps of all of it.

use super::spec::Cut;
use super::tensors::Tensors;
use super::{OfSlices, Pass, Scheme, Spec, Statistics};
use crate::base::error::Result;
use crate::engine::build::{Build, Whole};
use crate::engine::prepared::Prepared;
use crate::engine::shader::StatisticsFrom;
use crate::engine::slab::Slab;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::ops::{map, spectral};
use crate::plan::{Op, Pattern, SLICE_BYTES, Slices, Traffic};

/// A weight as a matrix: its rows and columns as slices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    pub rows: Slices,
    pub columns: Slices,
}

/// A step of the power iteration, or the product that σ is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// v from u.
    Columns,
    /// u from v.
    Rows,
    /// None: σ by u and v as they are.
    Given,
}

/// Where directions are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directions<'a> {
    /// u, then v.
    pub state: &'a Slab,
    pub u: &'a Tensor,
    pub v: &'a Tensor,
    /// A record of σ, then what forward used of both; scratch if there is none.
    pub saved: Option<&'a Slab>,
}

impl<'a> Spec<'a> {
    /// Steps of the power iteration, the last of which finds σ, and y = W / σ.
    pub(crate) async fn prepare_spectral(
        self,
        matrix: Matrix,
        (w, y): (&'a Tensor, &'a Tensor),
        steps: &[Step],
        directions: Directions<'a>,
    ) -> Result<Prepared> {
        #[cfg(feature = "wgpu")]
        self.context.try_untrusted_driver().await?;
        let Directions { state, u, v, saved } = directions;
        let (rows, columns) = (matrix.rows.slices(), matrix.columns.slices());
        let both = rows + columns;
        let mut done: Option<(Build<'a>, Whole)> = None;
        for (i, &step) in steps.iter().enumerate() {
            let (slices, vector, place) = match step {
                Step::Columns => (matrix.columns, u, rows),
                Step::Rows | Step::Given => (matrix.rows, v, 0),
            };
            let tensors = Tensors::NONE.with(Slot::X, w).with(Slot::Gamma, vector);
            let mut build = self.over(slices, tensors)?;
            let room = match (&done, saved) {
                (_, Some(saved)) => saved.into(),
                (Some((_, room)), None) => room.before(),
                (None, None) => build.workspace(SLICE_BYTES + 4 * both).into(),
            };
            let records = slices.records(build.plan());
            let of_all = i + 1 == steps.len();
            let of = spectral::Step {
                slices: slices.slices(),
                records,
                place,
                directions: both,
                given: step == Step::Given,
                of_all,
            };
            spectral::step(&mut build, &of, state.into(), room.clone())?;
            // Of the first build it is its own, of those behind it what comes before.
            done = Some(match done {
                Some((before, room)) => (build.after(before), room),
                None => (build, room),
            });
        }
        let Some((before, room)) = done else { unreachable!("there is a step") };
        let tensors = Tensors::NONE.with(Slot::X, w).with(Slot::Y, y);
        let mut map = self.over(whole(w), tensors)?;
        map.buffer(Slot::Saved, room.before());
        map::forward(&mut map, StatisticsFrom::Recorded);
        let passes = steps.len() as u64 + 2;
        map.after(before).finish(Traffic::passes(w.byte_len(), 2, passes)).await
    }

    /// The gradient of W through σ, with u and v as forward used them.
    pub(crate) async fn prepare_spectral_backward(
        self,
        matrix: Matrix,
        (w, dy, dw): (&'a Tensor, &'a Tensor, &'a Tensor),
        saved: &'a Slab,
    ) -> Result<Prepared> {
        #[cfg(feature = "wgpu")]
        self.context.try_untrusted_driver().await?;
        let tensors = Tensors::NONE.with(Slot::X, w).with(Slot::Dy, dy);
        let mut sums = self.over(whole(w), tensors)?;
        sums.buffer(Slot::Saved, saved);
        let partials = whole(w).records(sums.plan()).partials;
        let total = Whole::from(spectral::inner_product(&mut sums, partials)?);

        let tensors = Tensors::NONE.with(Slot::Dy, dy).with(Slot::Dx, dw);
        let mut map = self.over(matrix.rows, tensors)?;
        // v takes the place of gamma.
        (map.params.gamma_step, map.params.gamma_base) = (1, 0.0);
        map.params.samples = matrix.rows.slices() as u32;
        map.buffer(Slot::Saved, saved);
        map.buffer(Slot::Partials, total.before());
        spectral::gradient(&mut map);
        map.after(sums).finish(Traffic::passes(w.byte_len(), 3, 4)).await
    }

    /// Starts a walk over the slices of tensors.
    fn over(self, slices: Slices, tensors: Tensors<'a>) -> Result<Build<'a>> {
        let statistics = Statistics::Slices(OfSlices { scheme: Scheme::Deviation, saved: None });
        let op = if tensors.has(Slot::Dy) { Op::TrainBackward } else { Op::TrainForward };
        let mut spec = Self { cut: Cut::Slices(slices), ..self };
        spec.parameters.gamma = tensors.get(Slot::Gamma);
        let pass = Pass::new(op, spec, statistics, tensors);
        pass.start(pass.walk(None))
    }
}

/// All of a tensor as one slice.
fn whole(tensor: &Tensor) -> Slices {
    let elements = tensor.shape().len();
    let (pattern, parameters) = (Pattern::Run { elements }, crate::plan::Parameters::ONE);
    Slices { pattern, merged: 1, parameters, segments: None }
}
