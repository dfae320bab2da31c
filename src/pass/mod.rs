//! Passes: what every layer does, forward and backward, whatever its norm.
//!
//! A layer is a [`Spec`] and parameters. Its [`Input`] is checked against the spec; then a [`Pass`] says all that an operation depends on, as data: the
//! spec, the tensors by their slots, where the statistics come from and go to. [`Pass::prepare`] chooses a plan ([`tuning`]), starts a walk over the tensors and
//! lets [`forward`], [`backward`] or [`slices`] say which kernels are dispatched over it.

mod backward;
mod forward;
mod halves;
pub(crate) mod infer;
pub(crate) mod input;
pub(crate) mod int8;
mod moments;
pub(crate) mod parameters;
mod second;
mod slices;
pub(crate) mod spec;
pub(crate) mod spectral;
pub(crate) mod statistics;
pub(crate) mod switchable;
pub(crate) mod tangents;
pub(crate) mod targets;
mod tensors;
pub(crate) mod train;
#[cfg(feature = "wgpu")]
mod trial;
#[cfg(feature = "wgpu")]
mod tuning;

pub use infer::Infer;
pub use int8::Int8;
pub use parameters::Affine;
pub use tangents::{SecondGradients, SecondTargets, Tangents};
pub use targets::{Accumulation, GradientTargets, Gradients, LocalGradients};

pub use train::{Train, TrainForward};

pub(crate) use spec::Spec;
pub(crate) use statistics::{OfBatch, OfSlices, Scheme, Statistics, Sums, Tracking};

use std::sync::Arc;

use self::halves::Stretch;
use self::input::Input;
use self::spec::Cut;
use self::tensors::Tensors;
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::gate::GateOrder;
use crate::engine::build::Build;
use crate::engine::mask::Mask;
use crate::engine::params::flag;
use crate::engine::prepared::Prepared;
use crate::engine::shader::{ActivationKind, Pointwise};
use crate::engine::slab::Slab;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::plan::{AffineOf, Op, Part, Pattern, Plan, Traffic, Tuning, Walk};

/// A pass of a layer over tensors that have been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass<'a> {
    pub op: Op,
    pub spec: Spec<'a>,
    pub statistics: Statistics<'a>,
    tensors: Tensors<'a>,
    mask: Option<&'a Mask>,
    /// How the tensor in the place of a residual enters, if it is a gate.
    gate: Option<GateOrder>,
    /// How y is stored, if as int8.
    int8: Option<Int8<'a>>,
    accumulation: Accumulation,
    /// Which records are its own, where it is a part of another pass.
    records: Option<Stretch>,
    /// Where it leaves the gradient sums of parameters that it shares with other parts, instead of writing their gradients.
    totals: Option<&'a Slab>,
    /// Why its plan is not simply the policy's, if it is not.
    reason: Option<&'a str>,
}

/// Which tensors of an input a backward pass looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reads {
    pub x: bool,
    pub residual: bool,
    /// gamma and its kin: not where they are saved beside the statistics.
    pub parameters: bool,
}

impl<'a> Pass<'a> {
    fn new(op: Op, spec: Spec<'a>, statistics: Statistics<'a>, tensors: Tensors<'a>) -> Self {
        Self {
            op,
            spec,
            statistics,
            tensors,
            mask: None,
            gate: None,
            int8: None,
            accumulation: Accumulation::Write,
            records: None,
            totals: None,
            reason: None,
        }
    }

    /// y of an input.
    pub fn forward(
        op: Op,
        spec: Spec<'a>,
        input: Input<'a>,
        y: &'a Tensor,
        statistics: Statistics<'a>,
    ) -> Self {
        let tensors = spec
            .parameters
            .tensors()
            .with(Slot::X, input.x)
            .with(Slot::Residual, input.residual.or(input.gate.map(|gate| gate.gate)))
            .with(Slot::Addend, input.sum.map(|sum| sum.addend))
            .with(Slot::Sum, input.sum.map(|sum| sum.sum))
            .with(Slot::Y, y);
        // All of y is computed, whatever a mask says; it is of interest where x is reduced over positions.
        let mask = input.mask.filter(|_| statistics.are_over_positions());
        let gate = input.gate.map(|gate| gate.order);
        Self { mask, gate, ..Self::new(op, spec, statistics, tensors) }
    }

    /// The same with a y of int8.
    pub fn as_int8(self, int8: Int8<'a>) -> Self {
        Self { int8: Some(int8), ..self }
    }

    /// The gradients that are asked for.
    pub fn backward(
        op: Op,
        spec: Spec<'a>,
        (input, dy): (Input<'a>, &'a Tensor),
        targets: &GradientTargets<'a>,
        reads: Reads,
        statistics: Statistics<'a>,
    ) -> Self {
        let parameters = if reads.parameters { spec.parameters.tensors() } else { Tensors::NONE };
        let tensors = parameters
            .and(targets.tensors())
            .with(Slot::X, Some(input.x).filter(|_| reads.x))
            .with(
                Slot::Residual,
                input.residual.filter(|_| reads.residual).or(input.gate.map(|gate| gate.gate)),
            )
            .with(Slot::DSum, input.d_sum)
            .with(Slot::Dy, dy);
        let accumulation = targets.accumulation;
        let gate = input.gate.map(|gate| gate.order);
        Self { mask: input.mask, gate, accumulation, ..Self::new(op, spec, statistics, tensors) }
    }

    /// The operation, planned as it is fastest as far as that is known.
    pub async fn prepare(&self) -> Result<Prepared> {
        #[cfg(feature = "wgpu")]
        self.spec.context.try_untrusted_driver().await?;
        #[cfg(feature = "wgpu")]
        let chosen = self.choose().await;
        #[cfg(feature = "wgpu")]
        let planned = self.planned(&chosen);
        #[cfg(not(feature = "wgpu"))]
        let planned = self;
        planned.assemble().await
    }

    /// The operation, as one.
    async fn assemble_whole(&self) -> Result<Prepared> {
        let build = self.start(self.walk(self.held()))?;
        if build.plan().held == 0 {
            return self.dispatch(build).await;
        }
        match self.dispatch(build).await {
            // Tensors of one buffer that no dispatch can bind together, though several dispatches can bind them apart.
            Err(Error::SharedBlock { .. } | Error::Between { .. }) => {
                let reason = "streamed: tensors that share a buffer cannot all be bound by one dispatch";
                let pass = Self { reason: Some(reason), ..*self };
                pass.dispatch(pass.start(pass.walk(None))?).await
            }
            prepared => prepared,
        }
    }

    /// Dispatches the kernels over a walk.
    async fn dispatch(&self, build: Build<'a>) -> Result<Prepared> {
        let forward = self.tensors.has(Slot::Y);
        match self.statistics {
            Statistics::Batch(of) if forward => self.forward_of_batch(build, of).await,
            Statistics::Batch(of) => self.backward_of_batch(build, of).await,
            Statistics::Slices(of) if forward => self.forward_of_slices(build, of).await,
            Statistics::Slices(of) => self.backward_of_slices(build, of).await,
            Statistics::Running(_) | Statistics::Curve(_) if forward => {
                self.forward_of_constants(build).await
            }
            Statistics::Running(_) | Statistics::Curve(_) => self.backward_of_constants(build).await,
        }
    }

    /// Values that a resident kernel of the pass holds for each of x, if there is one.
    fn held(&self) -> Option<u32> {
        let Self { tensors, statistics, .. } = self;
        let forward = tensors.has(Slot::Y);
        match statistics {
            Statistics::Batch(of) if forward => {
                let plain = of.moments.is_none() && of.renorm.is_none() && self.mask.is_none();
                Op::TrainForward.held().filter(|_| plain)
            }
            // Without both the sums and dx there is none.
            Statistics::Batch(of) => {
                let both = tensors.has(Slot::Dx) && matches!(of.sums, Sums::Own) && self.mask.is_none();
                Op::TrainBackward.held().filter(|_| both)
            }
            Statistics::Slices(_) if forward => {
                // A dispatch has no binding left for scales beside a sum and a residual.
                let scales = matches!(self.int8, Some(Int8::PerRow(_)));
                let full = scales && tensors.has(Slot::Sum) && tensors.has(Slot::Residual);
                let slices = self.spec.cut.slices();
                let apart = slices.merged == 1 && !slices.is_of_matrices();
                Op::TrainForward.held().filter(|_| apart && !full)
            }
            Statistics::Slices(_) => self.held_backward_of_slices(),
            Statistics::Running(_) | Statistics::Curve(_) => None,
        }
    }

    /// How the tensors are walked.
    fn walk(&self, held: Option<u32>) -> Walk {
        let tensors: Vec<_> = aligned(&self.tensors).collect();
        let alignment = self.spec.context.capabilities().storage_alignment;
        let walk = match self.spec.cut {
            Cut::Channels(view) => Walk::channels(view, &tensors, alignment),
            Cut::Slices(slices) => {
                let walk = self.walk_over(&self.tensors, self.spec.cut.row(), slices.pattern);
                // A row of columns that has parameters of its own, or may be of another segment, is walked by itself.
                let apart = slices.parameters.affine == AffineOf::Row || slices.segments.is_some();
                let unit_rows = if apart { 1 } else { walk.unit_rows };
                return Walk { held, unit_rows, ..walk };
            }
        };
        let is_map = matches!(self.statistics, Statistics::Running(_) | Statistics::Curve(_))
            && !self.tensors.has(Slot::Dy);
        let foldable = match self.statistics {
            Statistics::Batch(of) => of.renorm.is_none() && of.moments.is_none(),
            Statistics::Running(_) | Statistics::Curve(_) => !is_map,
            Statistics::Slices(_) => false,
        };
        Walk { held, merges: !is_map, foldable, masked: self.mask.is_some(), ..walk }
    }

    /// How tensors, of rows of so many elements if they are rows, are walked if they are cut in some way.
    fn walk_over(&self, tensors: &Tensors<'_>, row: Option<u64>, pattern: Pattern) -> Walk {
        let tensors: Vec<_> = aligned(tensors).collect();
        let walk = Walk::over(pattern, &tensors, self.spec.context.capabilities().storage_alignment);
        match row {
            Some(row) => walk.of_rows(row, &tensors),
            None => walk,
        }
    }

    /// Starts an operation over a walk, with all tensors bound.
    fn start(&self, walk: Walk) -> Result<Build<'a>> {
        self.start_over(walk, &self.tensors, self.spec.cut.row())
    }

    /// The same over views of them, of rows of so many elements if they are rows.
    fn start_over(&self, walk: Walk, tensors: &Tensors<'_>, row: Option<u64>) -> Result<Build<'a>> {
        let spec = &self.spec;
        let plan = self.plan(&walk, tensors)?;
        let parts = walk.parts;
        let mut build = Build::new(spec.context, self.op, plan);
        build.params.eps = spec.eps as f32;
        build.params.slope = spec.activation.slope();
        if let Some(int8) = self.int8 {
            (build.params.y_scale, build.params.y_zero) = int8.given();
            let mut starts = part_starts(&parts);
            let whole =
                parts.iter().all(|part| part.phase == 0) && starts.all(|start| start.is_multiple_of(4));
            let of_rows = matches!(int8, Int8::PerRow(_));
            if of_rows && build.plan().partials() > 1 {
                let why = "a row is longer than one team can walk";
                return Err(Error::Unsupported { layer: spec.layer, what: "scales of rows", why });
            }
            let shared = of_rows && build.plan().edges;
            if build.plan().width != 4 || !whole || shared {
                let why = "four of its values are one word, so x must begin at a multiple of four, and rows be of as many";
                return Err(Error::Unsupported { layer: spec.layer, what: "y of int8", why });
            }
        }
        build.pointwise = Pointwise {
            activation: ActivationKind::of(spec.activation),
            residual: tensors.has(Slot::Residual),
            gate: self.gate,
            int8: self.int8.map(Int8::kind),
            without_beta: self.gate.is_some() && !tensors.has(Slot::Beta),
            d_residual: tensors.has(Slot::DResidual),
            sum: tensors.has(Slot::Sum),
            d_sum: tensors.has(Slot::DSum),
            ragged: spec.segments.is_some(),
            mean_scale: spec.segments.is_some() && tensors.has(Slot::Alpha),
            uncentred: matches!(self.statistics, Statistics::Slices(of) if !of.scheme.is_centred()),
            ..Pointwise::default()
        };
        match spec.cut {
            Cut::Channels(view) => {
                if let Some(mask) = self.mask {
                    build.mask(mask, view)?;
                }
            }
            Cut::Slices(slices) => {
                spec.set_slices(&mut build, slices);
                build.pointwise.marked = self.mask.is_some();
            }
        }
        if let Some(row) = row {
            build.take_rows(row);
        }
        for (slot, tensor) in tensors.walked() {
            build.tensor(slot, tensor)?;
        }
        for (slot, tensor) in tensors.values() {
            build.value(slot, tensor)?;
        }
        self.set_accumulation(&mut build);
        build.params.first_record = self.first_record() as u32;
        Ok(build)
    }

    /// The plan of a walk; in windows so short that bindings have room for the parameters of their places, if these are wider than x.
    fn plan(&self, walk: &Walk, tensors: &Tensors<'_>) -> Result<Arc<Plan>> {
        if let (Some(segments), Pattern::Columns { slices: columns, .. }) = (self.spec.segments, walk.pattern)
        {
            return self.spec.context.plan_ragged(walk, columns, segments.pieces());
        }
        let whole_rows;
        let mut context = self.spec.context;
        if let Some(Int8::PerRow(_)) = self.int8 {
            // The scale of a row is found by the team that stores it.
            if let Some(got) = context.tuning().splits.filter(|&splits| splits > 1) {
                let expected = "1 where rows have scales".to_owned();
                return Err(Error::Tuning { choice: "splits", expected, got: got.into() });
            }
            whole_rows = context.with_tuning(Tuning { splits: Some(1), ..*context.tuning() });
            context = &whole_rows;
        }
        let limit = context.capabilities().max_binding_bytes;
        let widest = tensors.values().filter(|(_, tensor)| tensor.byte_len() > limit);
        let widest = widest.map(|(_, tensor)| tensor.dtype().size()).max().unwrap_or(0);
        if self.spec.cut.slices().parameters.affine != AffineOf::Place || widest <= walk.dtype.size() {
            return context.plan_walk(walk, self.reason);
        }
        let short = limit * walk.dtype.size() / widest;
        let window_bytes = context.tuning().window_bytes.map_or(short, |forced| forced.min(short));
        let tuning = Tuning { window_bytes: Some(window_bytes), ..*context.tuning() };
        context.with_tuning(tuning).plan_walk(walk, self.reason)
    }

    fn set_accumulation(&self, build: &mut Build<'_>) {
        if self.accumulation == Accumulation::Add {
            build.params.flags |= flag::ACCUMULATE;
        }
    }

    /// Whether dz depends on z.
    fn is_activated(&self) -> bool {
        self.spec.activation != Activation::None
    }

    /// Traffic that moves every tensor once at the least, and so many times as it is done.
    fn traffic(&self, passes: u64) -> Traffic {
        if let (Some(_), Some(y)) = (self.int8, self.tensors.get(Slot::Y)) {
            // y is less than a pass.
            let wide = Traffic::passes(self.tensors.bytes(), self.tensors.passes() - 1, passes - 1);
            return wide.plus(Traffic::passes(y.byte_len(), 1, 1));
        }
        Traffic::passes(self.tensors.bytes(), self.tensors.passes(), passes)
    }
}

/// Tensors whose values lie in words as those of x do: not a y of int8, which begins at a whole one.
fn aligned<'a>(tensors: &Tensors<'a>) -> impl Iterator<Item = &'a Tensor> {
    tensors.walked().map(|(_, tensor)| tensor).filter(|tensor| tensor.dtype() != DType::I8)
}

/// The elements that parts of a tensor begin with.
fn part_starts(parts: &[Part]) -> impl Iterator<Item = u64> {
    parts.iter().scan(0, |next, part| {
        let start = *next;
        *next += part.elements;
        Some(start)
    })
}
