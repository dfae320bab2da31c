//! A layer as its passes see it, and what its arguments must be.

use super::input::{Gate, Input};
use super::parameters::Parameters;
use super::statistics::Scheme;
use super::targets::{Accumulation, GradientTargets, Gradients, LocalGradients};
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::gate::GateOrder;
use crate::base::shape::{Channels, Shape};
use crate::engine::build::Build;
use crate::engine::context::Context;
use crate::engine::params::flag;
use crate::engine::prepared::Prepared;
use crate::engine::segments::Segments;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::ops::{curve, fold};
use crate::plan::{AffineOf, Op, Pattern, Slices, Traffic};
use crate::statistics::saved::Kept;

/// A norm over an x of some shape, as data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec<'a> {
    pub context: &'a Context,
    /// The layer's name, for errors.
    pub layer: &'static str,
    pub cut: Cut,
    /// The rows that have statistics together, where these are those of segments.
    pub segments: Option<&'a Segments>,
    /// Whether the order of axes in memory matters.
    pub has_layout: bool,
    pub eps: f64,
    pub activation: Activation,
    pub parameters: Parameters<'a>,
    /// The shape of gamma and beta; without values where there cannot be any.
    pub shape: Shape,
    /// Whether gamma is stored as its distance from 1.
    pub unit_offset: bool,
    /// What of an input it has no use for, and why.
    pub refuses: &'static [(Extra, &'static str)],
}

/// Which elements of x share a mean and a variance.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// The channels of a batch.
    Channels(Channels),
    /// Other slices.
    Slices(Slices),
}

/// What an input may have besides x and a residual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extra {
    Gate,
    Mask,
    Modulation,
    Sum,
    DSum,
    Moments,
}

impl Extra {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Mask => "mask",
            Self::Modulation => "modulation",
            Self::Sum => "sum",
            Self::DSum => "d_sum",
            Self::Moments => "moments",
        }
    }

    pub const fn is_in(self, input: &Input<'_>) -> bool {
        match self {
            Self::Gate => input.gate.is_some(),
            Self::Mask => input.mask.is_some(),
            Self::Modulation => input.modulation.is_some(),
            Self::Sum => input.sum.is_some(),
            Self::DSum => input.d_sum.is_some(),
            Self::Moments => input.moments.is_some(),
        }
    }
}

impl Cut {
    /// The same as samples, channels and positions.
    pub const fn view(&self) -> Channels {
        match self {
            Self::Channels(view) => *view,
            Self::Slices(slices) => slices.pattern.view(),
        }
    }

    pub fn slices(&self) -> Slices {
        match self {
            Self::Channels(view) => Slices::channels(*view),
            Self::Slices(slices) => *slices,
        }
    }

    /// Elements of a slice that is one run, of tensors that are such runs one after the other.
    pub const fn row(&self) -> Option<u64> {
        match self {
            Self::Slices(Slices { pattern: Pattern::Segments { samples: 1, inner, .. }, .. }) => Some(*inner),
            Self::Slices(Slices { pattern: Pattern::Run { elements }, .. }) => Some(*elements),
            _ => None,
        }
    }

    pub const fn is_empty(&self) -> bool {
        self.view().elements() == 0
    }

    /// What forward saves.
    pub const fn kept(&self, scheme: Scheme) -> Kept {
        match self {
            Self::Channels(view) => Kept::Channels { channels: view.channels, count: view.count() },
            Self::Slices(slices) => Kept::Slices {
                statistics: slices.statistics(),
                count: slices.count(),
                centred: scheme.is_centred(),
            },
        }
    }
}

impl Cut {
    /// Requires a tensor of slices that are not channels to lie as kernels can walk it: in one buffer, its rows equally far apart, or else without gaps.
    pub fn check_place(&self, what: &'static str, tensor: &Tensor) -> Result<()> {
        match self.row() {
            Some(row) => tensor.check_rows(what, row),
            None => tensor.check_contiguous(what),
        }
    }
}

impl Spec<'_> {
    /// What forward saves.
    pub fn kept(&self, scheme: Scheme) -> Kept {
        match self.segments {
            Some(segments) => Kept::Segments {
                statistics: self.cut.slices().statistics(),
                of: segments.id(),
                rescaled: self.parameters.alpha.is_some(),
            },
            None => self.cut.kept(scheme),
        }
    }

    /// Requires an input that the layer takes, all of which fits x.
    pub fn check_input(&self, input: Input<'_>) -> Result<()> {
        let refused = self.refuses.iter().find(|(extra, _)| extra.is_in(&input));
        if let Some((extra, why)) = refused {
            return Err(Error::Unsupported { layer: self.layer, what: extra.name(), why });
        }
        self.check_segments(input)?;
        self.parameters.check_beside(input.x.dtype())?;
        if let Some(Gate { order, .. }) = input.gate {
            let (what, why) = match order {
                _ if input.residual.is_some() => ("residual", "there is a gate in its place"),
                GateOrder::GateFirst if input.sum.is_some() || input.d_sum.is_some() => (
                    "sum",
                    "what is normalized is x times the gate; gate the sum behind the norm, or add before",
                ),
                _ => ("", ""),
            };
            if !what.is_empty() {
                return Err(Error::Unsupported { layer: self.layer, what, why });
            }
        }
        let others = [
            ("gate", input.gate.map(|gate| gate.gate)),
            ("residual", input.residual),
            ("addend", input.sum.map(|sum| sum.addend)),
            ("sum", input.sum.map(|sum| sum.sum)),
            ("d_sum", input.d_sum),
        ];
        for (what, tensor) in others {
            if let Some(tensor) = tensor {
                self.check_like(what, tensor, input.x)?;
            }
        }
        match (input.mask, self.cut) {
            (Some(mask), Cut::Channels(view)) => mask.check(self.context, view),
            (Some(mask), Cut::Slices(slices)) => mask.check_rows(self.context, slices.slices()),
            (None, _) => Ok(()),
        }
    }

    /// Requires segments where only a layer of them has taken them, and nothing beside.
    fn check_segments(&self, input: Input<'_>) -> Result<()> {
        let unsupported = |what, why| Err(Error::Unsupported { layer: self.layer, what, why });
        match (input.segments, self.segments) {
            (None, None) => Ok(()),
            (Some(_), None) => unsupported(
                "segments",
                "only instance, group and layer norm of `[rows, C]` and GraphNorm have statistics of them",
            ),
            (_, Some(segments)) => {
                let why = "over segments there are norm and activation alone";
                let extras =
                    [Extra::Gate, Extra::Mask, Extra::Modulation, Extra::Sum, Extra::DSum, Extra::Moments];
                if let Some(extra) = extras.into_iter().find(|extra| extra.is_in(&input)) {
                    return unsupported(extra.name(), why);
                }
                if input.residual.is_some() {
                    return unsupported("residual", why);
                }
                segments.check(self.context, input.x.shape().dims()[0] as u64)
            }
        }
    }

    /// Requires a tensor like x.
    pub fn check_like(&self, what: &'static str, tensor: &Tensor, x: &Tensor) -> Result<()> {
        if let Cut::Channels(_) = self.cut {
            return tensor.check_like(what, x);
        }
        tensor.check_shape(what, x.shape())?;
        tensor.check_dtype(what, x.dtype())?;
        self.cut.check_place(what, tensor)?;
        if tensor.layout() != x.layout() && x.shape().rank() > 2 && self.has_layout {
            return Err(Error::Layout { what, expected: x.layout(), got: tensor.layout() });
        }
        Ok(())
    }

    /// Requires that the gradients asked for exist and have the right shapes and types.
    pub fn check_targets(&self, input: Input<'_>, dy: &Tensor, targets: &GradientTargets<'_>) -> Result<()> {
        if input.sum.is_some() {
            let why = "in a backward pass x is the sum; what dx is added to is given by with_d_sum";
            return Err(Error::Unsupported { layer: self.layer, what: Extra::Sum.name(), why });
        }
        self.check_like("dy", dy, input.x)?;
        let targeted = [("dx", targets.dx), ("d_residual", targets.d_residual), ("d_gate", targets.d_gate)];
        for (what, tensor) in targeted {
            if let Some(tensor) = tensor {
                self.check_like(what, tensor, input.x)?;
            }
        }
        if targets.d_residual.is_some() && input.residual.is_none() {
            return Err(Error::NoParameter { gradient: "d_residual", parameter: "residual" });
        }
        if targets.d_gate.is_some() && input.gate.is_none() {
            return Err(Error::NoParameter { gradient: "d_gate", parameter: "gate" });
        }
        let first = input.gate.is_some_and(|gate| gate.order == GateOrder::GateFirst);
        if first && targets.d_gate.is_some() && targets.dx.is_none() {
            let why = "of a gate before the norm the gradient is written with dx, of which it is made; ask for both";
            return Err(Error::Unsupported { layer: self.layer, what: "d_gate", why });
        }
        self.check_parameter_targets(input.x.dtype(), targets)
    }

    /// Checks those of the parameters' gradients that are asked for.
    pub fn check_parameter_targets(&self, dtype: DType, targets: &GradientTargets<'_>) -> Result<()> {
        let mut first = None;
        for (slot, tensor) in targets.of_parameters() {
            let Some(tensor) = tensor else { continue };
            let gradient = slot.name();
            let (parameter, present) = self.parameters.of_gradient(slot);
            if present.is_none() {
                return Err(Error::NoParameter { gradient, parameter: parameter.name() });
            }
            let of_slices = matches!(slot, Slot::Dgamma | Slot::Dbeta);
            let shape = present.filter(|_| !of_slices).map_or(self.shape, Tensor::shape);
            tensor.check_shape(gradient, shape)?;
            tensor.check_contiguous(gradient)?;
            if tensor.dtype() != DType::F32 {
                tensor.check_dtype(gradient, dtype)?;
            }
            tensor.check_dtype(gradient, *first.get_or_insert(tensor.dtype()))?;
        }
        Ok(())
    }

    /// The parameter gradients of nothing: zero, written or added like any other.
    pub async fn prepare_empty_sums(
        &self,
        op: Op,
        dtype: DType,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        if !targets.has_sums() || self.shape.len() == 0 {
            return Ok(Prepared::nothing(self.context, op));
        }
        let nothing = || fold::gradients_of(self.context, op, self.shape.len(), dtype, 0);
        let mut build = nothing()?;
        bind_targets(&mut build, targets)?;
        match (self.parameters.alpha, self.segments) {
            (Some(_), None) => {
                curve::fold(&mut build, targets.dalpha.is_some() || targets.dshift.is_some())?;
            }
            _ => fold::gradients(&mut build)?,
        }
        if let (Some(dalpha), Some(_)) = (targets.dalpha, self.segments) {
            // One for each channel, as those of beta are.
            let alone = GradientTargets { dgamma: None, dbeta: Some(dalpha), dalpha: None, ..*targets };
            let mut of_alpha = nothing()?;
            bind_targets(&mut of_alpha, &alone)?;
            fold::gradients(&mut of_alpha)?;
            build = build.followed_by(of_alpha);
        }
        build.finish(Traffic::default()).await
    }

    /// Tensors for all gradients that the layer has.
    pub async fn allocate(&self, input: Input<'_>, dy: &Tensor) -> Result<Gradients> {
        let dx = self.context.zeros_like(input.x).await?;
        Ok(self.allocate_local(input, dy).await?.with_dx(dx))
    }

    /// The same, but for x.
    pub async fn allocate_local(&self, input: Input<'_>, dy: &Tensor) -> Result<LocalGradients> {
        let Parameters { gamma, beta, alpha, shift } = self.parameters;
        let like = async |parameter: Option<&Tensor>| match parameter {
            Some(parameter) => {
                self.context.zeros_as(parameter.shape().dims(), parameter.dtype()).await.map(Some)
            }
            None => Ok(None),
        };
        let d_residual = match input.residual {
            None => None,
            // Nothing stands between the residual and y.
            Some(_) if self.activation == Activation::None && input.mask.is_none() => Some(dy.clone()),
            Some(_) => Some(self.context.zeros_like(input.x).await?),
        };
        let d_gate = match input.gate {
            None => None,
            Some(_) => Some(self.context.zeros_like(input.x).await?),
        };
        Ok(LocalGradients {
            d_residual,
            d_gate,
            dgamma: like(gamma).await?,
            dbeta: like(beta).await?,
            dalpha: like(alpha).await?,
            dshift: like(shift).await?,
        })
    }

    /// Tells kernels how slices that are not channels lie, and which parameters are theirs.
    pub(super) fn set_slices(&self, build: &mut Build<'_>, slices: Slices) {
        let parameters = slices.parameters;
        let params = &mut build.params;
        params.merged = slices.merged as u32;
        params.count = slices.count() as f32;
        params.places = if parameters.affine == AffineOf::Place { slices.run() } else { 1 };
        if let (AffineOf::Place, Pattern::Segments { slices: each, samples: 2.., inner }) =
            (parameters.affine, slices.pattern)
        {
            (params.sample_len, params.run_places) = (each * inner, inner as u32);
        }
        params.parameter_slices = parameters.slices as u32;
        params.parameter_rows = parameters.rows as u32;
        params.parameter_step = parameters.step as u32;
        params.gamma_step = self.parameters.gamma.is_some().into();
        params.beta_step = self.parameters.beta.is_some().into();
        params.gamma_base = f32::from(u8::from(self.unit_offset || self.parameters.gamma.is_none()));
        build.pointwise.affine = parameters.affine;
    }
}

/// Binds the parameter gradients that are asked for.
pub(crate) fn bind_targets(build: &mut Build<'_>, targets: &GradientTargets<'_>) -> Result<()> {
    for (slot, tensor) in targets.of_parameters() {
        if let Some(tensor) = tensor {
            build.value(slot, tensor)?;
        }
    }
    if targets.accumulation == Accumulation::Add {
        build.params.flags |= flag::ACCUMULATE;
    }
    Ok(())
}
