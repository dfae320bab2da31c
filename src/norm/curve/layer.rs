//! What all curves do: parameters, checks, and the two passes.
//!
//! A curve is a normalization whose statistics are constants, so its passes are those of [`FrozenBatchNorm`](crate::FrozenBatchNorm),
//! with other modules for x̂, dx and the sums.

use super::options::{CurveGradients, CurveOptions, CurveTargets};
use super::tuning::Backward;
use crate::base::activation::Activation;
use crate::base::curve::Curve;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::{Channels, Shape};
use crate::engine::build::Build;
use crate::engine::context::Context;
use crate::engine::input::Input;
use crate::engine::params::flag;
use crate::engine::prepared::Prepared;
use crate::engine::shader::{ActivationKind, Pointwise, StatisticsFrom};
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::engine::tune::Chosen;
use crate::norm::tuning::Forward;
use crate::norm::{Accumulation, Affine};
use crate::ops::{curve, fold, map};
use crate::plan::{Capabilities, Op, Traffic, Walk, WalkKind};

#[derive(Debug)]
pub(super) struct Layer {
    pub context: Context,
    pub curve: Curve,
    pub options: CurveOptions,
    /// `None` where no parameter is per channel: then of any number.
    channels: Option<u64>,
    pub alpha: Tensor,
    pub shift: Option<Tensor>,
    pub gamma: Option<Tensor>,
    pub beta: Option<Tensor>,
}

/// The parameters of a layer that exist already.
pub(super) struct Parameters {
    pub alpha: Tensor,
    pub shift: Option<Tensor>,
    pub gamma: Option<Tensor>,
    pub beta: Option<Tensor>,
}

impl Layer {
    pub async fn new(
        context: &Context,
        curve: Curve,
        shifted: bool,
        channels: usize,
        options: CurveOptions,
    ) -> Result<Self> {
        if channels == 0 {
            return Err(Error::Channels { what: "a layer", expected: 1, got: 0 });
        }
        options.check()?;
        // Before anything is built on the host.
        context.check_size("gamma", channels as u64, 4)?;
        let filled = async |wanted: bool, len: usize, value: f32| match wanted {
            true => context.upload(&[len], &vec![value; len]).await.map(Some),
            false => Ok(None),
        };
        let parameters = Parameters {
            alpha: context.upload(&[1], &[options.alpha]).await?,
            shift: filled(shifted, 1, options.shift).await?,
            gamma: filled(options.affine.has_gamma(), channels, 1.0).await?,
            beta: filled(options.affine.has_beta(), channels, 0.0).await?,
        };
        let layer = Self::from_existing(context, curve, options, parameters)?;
        Ok(Self { channels: Some(channels as u64), ..layer })
    }

    pub fn from_existing(
        context: &Context,
        curve: Curve,
        mut options: CurveOptions,
        parameters: Parameters,
    ) -> Result<Self> {
        let Parameters { alpha, shift, gamma, beta } = parameters;
        options.affine = match (&gamma, &beta) {
            (Some(_), Some(_)) => Affine::Both,
            (Some(_), None) => Affine::Weight,
            (None, Some(_)) => Affine::Bias,
            (None, None) => Affine::None,
        };
        options.check()?;
        let channels = gamma.as_ref().or(beta.as_ref()).map(|parameter| parameter.shape().len());
        if channels == Some(0) {
            return Err(Error::Channels { what: "a layer", expected: 1, got: 0 });
        }
        let per_channel = channels.unwrap_or(1);
        for (what, parameter, len) in [
            ("alpha", Some(&alpha), 1),
            ("shift", shift.as_ref(), 1),
            ("gamma", gamma.as_ref(), per_channel),
            ("beta", beta.as_ref(), per_channel),
        ] {
            if let Some(parameter) = parameter {
                parameter.check_device(what, context)?;
                parameter.check_shape(what, Shape::per_channel(len))?;
                parameter.check_contiguous(what)?;
                parameter.check_dtype(what, alpha.dtype())?;
            }
        }
        Ok(Self { context: context.clone(), curve, options, channels, alpha, shift, gamma, beta })
    }

    /// Reads x as a batch with this layer's channels, with a residual that is like it and a mask that fits it.
    pub fn view(&self, input: Input<'_>) -> Result<Channels> {
        let Input { x, residual, mask, modulation } = input;
        let view = x.channels()?;
        if modulation.is_some() {
            let why = "its parameters are those of the layer; modulate what it gives";
            return Err(Error::Unsupported { layer: self.curve.name(), what: "modulation", why });
        }
        if let Some(expected) = self.channels.filter(|&channels| channels != view.channels) {
            return Err(Error::Channels { what: "x", expected, got: view.channels });
        }
        // 16-bit parameters, all of one type, go with tensors of their type.
        if self.alpha.dtype() != DType::F32 {
            self.alpha.check_dtype("alpha", x.dtype())?;
        }
        if let Some(residual) = residual {
            residual.check_like("residual", x)?;
        }
        if let Some(mask) = mask {
            mask.check(&self.context, view)?;
        }
        Ok(view)
    }

    pub fn walk(&self, view: Channels, masked: bool, tensors: &[(Slot, &Tensor)]) -> Walk {
        let walked: Vec<_> = tensors.iter().map(|(_, tensor)| *tensor).collect();
        Walk { masked, ..Walk::channels(view, &walked, self.context.capabilities().storage_alignment) }
    }

    /// Starts an operation over x and the tensors of its shape, planned as it was chosen; `input` is what the kernels look at, with the
    /// residual and the mask only where they do.
    fn build<'c>(
        &self,
        chosen: &'c Chosen,
        op: Op,
        view: Channels,
        input: Input<'_>,
        tensors: &[(Slot, &Tensor)],
    ) -> Result<Build<'c>> {
        let context = &chosen.context;
        let walk = self.walk(view, input.mask.is_some(), tensors);
        let plan = context.plan_walk(&walk, chosen.reason.as_deref())?;
        let mut build = Build::new(context, op, plan);
        build.params.slope = self.options.activation.slope();
        build.pointwise = Pointwise {
            activation: ActivationKind::of(self.options.activation),
            residual: input.residual.is_some(),
            ..Default::default()
        };
        if let Some(mask) = input.mask {
            build.mask(mask, view)?;
        }
        for (slot, tensor) in tensors {
            build.tensor(*slot, tensor)?;
        }
        // There is always an alpha.
        build.optional(Slot::Alpha, Some(&self.alpha), 0)?;
        build.optional(Slot::Shift, self.shift.as_ref(), flag::SHIFT)?;
        build.optional(Slot::Gamma, self.gamma.as_ref(), flag::GAMMA)?;
        build.optional(Slot::Beta, self.beta.as_ref(), flag::BETA)?;
        Ok(build)
    }

    pub async fn prepare_forward(&self, input: Input<'_>, y: &Tensor) -> Result<Prepared> {
        let view = self.view(input)?;
        y.check_like("y", input.x)?;
        if view.count() == 0 {
            return Ok(Prepared::nothing(&self.context, Op::CurveForward));
        }
        let forward = Forward { view, input, y, moments: None, renorm: false };
        let chosen = self.choose_forward(&forward).await;
        self.assemble_forward(&chosen, &forward).await
    }

    /// A forward pass whose arguments are checked, planned as it was chosen.
    pub async fn assemble_forward(&self, chosen: &Chosen, forward: &Forward<'_>) -> Result<Prepared> {
        let tensors = forward.tensors();
        // All of y is computed, whatever a mask says.
        let seen = Input { mask: None, ..forward.input };
        let mut build = self.build(chosen, Op::CurveForward, forward.view, seen, &tensors)?;
        map::forward(&mut build, StatisticsFrom::Curve(self.curve));
        let passes = tensors.len() as u64;
        build.finish(Traffic::passes(forward.input.x.byte_len(), passes, passes)).await
    }

    pub async fn prepare_backward(
        &self,
        input: Input<'_>,
        dy: &Tensor,
        targets: &CurveTargets<'_>,
    ) -> Result<Prepared> {
        let view = self.view(input)?;
        self.check_targets(view, input, dy, targets)?;
        if view.count() == 0 {
            return self.prepare_empty_sums(view, input.x.dtype(), targets).await;
        }
        let backward = Backward { view, input, dy, targets };
        let chosen = self.choose_backward(&backward).await;
        self.assemble_backward(&chosen, &backward).await
    }

    /// Checks that the gradients asked for exist and have the right shapes and types.
    fn check_targets(
        &self,
        view: Channels,
        input: Input<'_>,
        dy: &Tensor,
        targets: &CurveTargets<'_>,
    ) -> Result<()> {
        dy.check_like("dy", input.x)?;
        for (what, tensor) in [("dx", targets.dx), ("d_residual", targets.d_residual)] {
            if let Some(tensor) = tensor {
                tensor.check_like(what, input.x)?;
            }
        }
        if targets.d_residual.is_some() && input.residual.is_none() {
            return Err(Error::NoParameter { gradient: "d_residual", parameter: "residual" });
        }
        let (c, affine) = (view.channels, self.options.affine);
        for (gradient, tensor, len, parameter, exists) in [
            ("dgamma", targets.dgamma, c, "gamma", affine.has_gamma()),
            ("dbeta", targets.dbeta, c, "beta", affine.has_beta()),
            ("dalpha", targets.dalpha, 1, "alpha", true),
            ("dshift", targets.dshift, 1, "shift", self.shift.is_some()),
        ] {
            let Some(tensor) = tensor else { continue };
            if !exists {
                return Err(Error::NoParameter { gradient, parameter });
            }
            tensor.check_shape(gradient, Shape::per_channel(len))?;
            tensor.check_contiguous(gradient)?;
            if tensor.dtype() != DType::F32 {
                tensor.check_dtype(gradient, input.x.dtype())?;
            }
            tensor.check_dtype(gradient, targets.sums_dtype().unwrap_or(tensor.dtype()))?;
        }
        targets.check_any()
    }

    fn bind_targets(build: &mut Build<'_>, targets: &CurveTargets<'_>) -> Result<()> {
        build.optional(Slot::Dgamma, targets.dgamma, flag::DGAMMA)?;
        build.optional(Slot::Dbeta, targets.dbeta, flag::DBETA)?;
        build.optional(Slot::Dalpha, targets.dalpha, flag::DALPHA)?;
        build.optional(Slot::Dshift, targets.dshift, flag::DSHIFT)?;
        if targets.accumulation == Accumulation::Add {
            build.params.flags |= flag::ACCUMULATE;
        }
        Ok(())
    }

    /// The parameter gradients of an empty batch: zero, written or added like any other.
    async fn prepare_empty_sums(
        &self,
        view: Channels,
        dtype: DType,
        targets: &CurveTargets<'_>,
    ) -> Result<Prepared> {
        if !targets.has_sums() {
            return Ok(Prepared::nothing(&self.context, Op::CurveBackward));
        }
        let mut build = fold::gradients_of(&self.context, Op::CurveBackward, view.channels, dtype, 0)?;
        Self::bind_targets(&mut build, targets)?;
        curve::fold(&mut build, targets.has_sums_of_all())?;
        build.finish(Traffic::default()).await
    }

    /// Whether dz depends on z.
    fn is_activated(&self) -> bool {
        self.options.activation != Activation::None
    }

    /// The tensors of a backward pass that are walked.
    pub fn backward_tensors<'t>(&self, backward: &Backward<'t>) -> Vec<(Slot, &'t Tensor)> {
        let Backward { input, dy, targets, .. } = *backward;
        // Without an activation dz is dy.
        let residual = input.residual.filter(|_| self.is_activated());
        let mut tensors = vec![(Slot::X, input.x), (Slot::Dy, dy)];
        tensors.extend(residual.map(|residual| (Slot::Residual, residual)));
        tensors.extend(targets.dx.map(|dx| (Slot::Dx, dx)));
        tensors.extend(targets.d_residual.map(|d_residual| (Slot::DResidual, d_residual)));
        tensors
    }

    /// A backward pass whose arguments are checked, planned as it was chosen.
    pub async fn assemble_backward(&self, chosen: &Chosen, backward: &Backward<'_>) -> Result<Prepared> {
        let Backward { view, input, dy, targets } = *backward;
        let tensors = self.backward_tensors(backward);
        let residual = input.residual.filter(|_| self.is_activated());
        let seen = Input { residual, ..input };
        let mut build = self.build(chosen, Op::CurveBackward, view, seen, &tensors)?;
        build.pointwise.d_residual = targets.d_residual.is_some();
        let (pointwise, dx, sums) = (build.pointwise, targets.dx.is_some(), targets.has_sums());
        let over_dy = targets.dx.is_some_and(|dx| dx.is_same_place(dy));
        // Where neighbouring slices share words, one would write dx over a word whose dy the other has yet to sum.
        let in_two = sums && over_dy && build.plan().edges && build.plan().walk == WalkKind::Segments;
        // What one dispatch binds of the tensors; partial results, a mask, and the four parameters.
        let r = usize::from(residual.is_some());
        let walked = if in_two { 2 + r } else { tensors.len() - usize::from(over_dy) };
        let bindings = walked + usize::from(sums) + usize::from(input.mask.is_some()) + 4;
        let parameters = if bindings > Capabilities::STORAGE_BUFFERS as usize {
            curve::parameters(&mut build, StatisticsFrom::Curve(self.curve))?;
            StatisticsFrom::FoldedCurve(self.curve)
        } else {
            StatisticsFrom::Curve(self.curve)
        };
        let passes = tensors.len() as u64;
        let mut plan_passes = passes;
        if !sums {
            map::frozen(&mut build, parameters, pointwise, dx);
        } else {
            Self::bind_targets(&mut build, targets)?;
            if in_two {
                build.pointwise = Pointwise { d_residual: false, ..pointwise };
                curve::gradients(&mut build, parameters, false);
                map::frozen(&mut build, parameters, pointwise, true);
                plan_passes += 2 + r as u64;
            } else {
                curve::gradients(&mut build, parameters, dx);
            }
            curve::fold(&mut build, targets.has_sums_of_all())?;
        }
        build.finish(Traffic::passes(input.x.byte_len(), passes, plan_passes)).await
    }

    /// Tensors for all gradients that the layer has.
    pub async fn allocate_gradients(&self, input: Input<'_>, dy: &Tensor) -> Result<CurveGradients> {
        let context = &self.context;
        let like = async |parameter: &Option<Tensor>| match parameter {
            Some(parameter) => context.zeros_like(parameter).await.map(Some),
            None => Ok(None),
        };
        let d_residual = match input.residual {
            None => None,
            // Nothing stands between the residual and y.
            Some(_) if !self.is_activated() && input.mask.is_none() => Some(dy.clone()),
            Some(_) => Some(context.zeros_like(input.x).await?),
        };
        Ok(CurveGradients {
            dx: context.zeros_like(input.x).await?,
            d_residual,
            dgamma: like(&self.gamma).await?,
            dbeta: like(&self.beta).await?,
            dalpha: context.zeros_like(&self.alpha).await?,
            dshift: like(&self.shift).await?,
        })
    }

    pub async fn backward(&self, input: Input<'_>, dy: &Tensor) -> Result<CurveGradients> {
        self.view(input)?;
        let gradients = self.allocate_gradients(input, dy).await?;
        let targets = gradients.targets();
        // Not what is dy itself.
        let d_residual = targets.d_residual.filter(|d_residual| !d_residual.is_same_place(dy));
        let backward = self.prepare_backward(input, dy, &CurveTargets { d_residual, ..targets }).await?;
        self.context.submit(&[&backward]).await?;
        Ok(gradients)
    }
}
