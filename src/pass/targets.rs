//! Which gradients are asked of a backward pass, and where they go.

use super::tensors::Tensors;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::setters::setters;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;

/// Whether parameter gradients replace or add to what their tensors hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accumulation {
    /// Written: what was there before does not matter.
    #[default]
    Write,
    /// Added, for gradients over several micro-batches.
    Add,
}

/// Where a backward pass puts its gradients; those that are `None` are not computed.
///
/// Those of parameters are f32, or of the type of x, and all of one type.
///
/// ```
/// # use wgnorm::{Accumulation, Context, GradientTargets};
/// # let context = Context::headless_blocking()?;
/// # let (dx, dgamma) = context.block_on(async { Ok::<_, wgnorm::Error>((context.zeros(&[2, 3]).await?, context.zeros(&[3]).await?)) })?;
/// let targets = GradientTargets::default().dx(&dx).dgamma(&dgamma).accumulation(Accumulation::Add);
/// assert!(targets.dbeta.is_none());
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct GradientTargets<'a> {
    /// Gradient of x, like x. May be the tensor dy itself, which is then written over.
    pub dx: Option<&'a Tensor>,
    /// Gradient of the residual, like x. Without an activation it equals dy, which then saves the pass.
    pub d_residual: Option<&'a Tensor>,
    /// Gradient of the gate, like x; of one before the norm beside dx.
    pub d_gate: Option<&'a Tensor>,
    /// Gradient of gamma, of its shape: `[C]` in batch norm.
    pub dgamma: Option<&'a Tensor>,
    /// Gradient of beta, of its shape.
    pub dbeta: Option<&'a Tensor>,
    /// Gradient of alpha: of a curve `[1]`; of [`GraphNorm`](crate::GraphNorm) `[C]`; of the numbers whose softmax are [`SwitchableNorm`](crate::switchable::SwitchableNorm)'s weights of means `[3]`.
    pub dalpha: Option<&'a Tensor>,
    /// Gradient of a curve's shift, `[1]`; of the numbers whose softmax are switchable norm's weights of variances `[3]`.
    pub dshift: Option<&'a Tensor>,
    /// Whether the gradients of parameters are written or added to.
    pub accumulation: Accumulation,
}

setters!(impl<'a> GradientTargets<'a> {
    dx: &'a Tensor,
    d_residual: &'a Tensor,
    d_gate: &'a Tensor,
    dgamma: &'a Tensor,
    dbeta: &'a Tensor,
    dalpha: &'a Tensor,
    dshift: &'a Tensor,
});

impl<'a> GradientTargets<'a> {
    /// The same, with gradients of parameters written or added.
    #[must_use]
    pub fn accumulation(self, accumulation: Accumulation) -> Self {
        Self { accumulation, ..self }
    }

    /// The gradients of parameters by their slots.
    pub(crate) fn of_parameters(&self) -> [(Slot, Option<&'a Tensor>); 4] {
        let Self { dgamma, dbeta, dalpha, dshift, .. } = *self;
        [(Slot::Dgamma, dgamma), (Slot::Dbeta, dbeta), (Slot::Dalpha, dalpha), (Slot::Dshift, dshift)]
    }

    /// With those that are walked.
    pub(super) fn tensors(&self) -> Tensors<'a> {
        let walked =
            Tensors::NONE.with(Slot::Dx, self.dx).with(Slot::DResidual, self.d_residual.or(self.d_gate));
        self.of_parameters().into_iter().fold(walked, |all, (slot, tensor)| all.with(slot, tensor))
    }

    /// Requires at least one.
    pub(crate) fn check_any(&self) -> Result<()> {
        let walked = self.dx.is_some() || self.d_residual.is_some() || self.d_gate.is_some();
        if walked || self.has_sums() { Ok(()) } else { Err(Error::NoGradient) }
    }

    /// Requires that these are not among them, which another call computes.
    pub(crate) fn check_without(&self, slots: &[Slot], instead: &'static str) -> Result<()> {
        let tensors = self.tensors();
        match slots.iter().find(|slot| tensors.has(**slot)) {
            Some(slot) => Err(Error::NotHere { gradient: slot.name(), instead }),
            None => Ok(()),
        }
    }

    /// Whether gradients of parameters are asked for.
    pub(crate) fn has_sums(&self) -> bool {
        self.sums_dtype().is_some()
    }

    /// The type of the parameters' gradients, if any is asked for.
    pub(crate) fn sums_dtype(&self) -> Option<DType> {
        self.of_parameters().into_iter().find_map(|(_, tensor)| tensor).map(Tensor::dtype)
    }
}

/// The gradients of a backward pass that allocates them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Gradients {
    /// Gradient of x, like x.
    pub dx: Tensor,
    /// Gradient of the residual, if there is one. Without an activation and a mask it is the tensor dy itself.
    pub d_residual: Option<Tensor>,
    /// Gradient of the gate, if there is one.
    pub d_gate: Option<Tensor>,
    /// Gradient of gamma, of its shape, if the layer has one.
    pub dgamma: Option<Tensor>,
    /// Gradient of beta, of its shape, if the layer has one.
    pub dbeta: Option<Tensor>,
    /// Gradient of alpha, if the layer has one ([`GradientTargets::dalpha`]).
    pub dalpha: Option<Tensor>,
    /// Gradient of the shift, if the layer has one.
    pub dshift: Option<Tensor>,
}

/// The gradients that a tensor's own sums give: all but that of x.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LocalGradients {
    /// Gradient of the residual, if there is one. Without an activation and a mask it is the tensor dy itself.
    pub d_residual: Option<Tensor>,
    /// Gradient of the gate, if there is one.
    pub d_gate: Option<Tensor>,
    /// This tensor's part of the gradient of gamma, if the layer has one.
    pub dgamma: Option<Tensor>,
    /// This tensor's part of the gradient of beta, if the layer has one.
    pub dbeta: Option<Tensor>,
    /// This tensor's part of the gradient of alpha, if the layer is a curve.
    pub dalpha: Option<Tensor>,
    /// This tensor's part of the gradient of the shift, if the layer has one.
    pub dshift: Option<Tensor>,
}

impl LocalGradients {
    /// Together with the gradient of x.
    pub fn with_dx(self, dx: Tensor) -> Gradients {
        let Self { d_residual, d_gate, dgamma, dbeta, dalpha, dshift } = self;
        Gradients { dx, d_residual, d_gate, dgamma, dbeta, dalpha, dshift }
    }

    /// What is to be computed of them: not a gradient of the residual that is dy itself.
    pub(crate) fn computed(&self, dy: &Tensor) -> GradientTargets<'_> {
        GradientTargets {
            dx: None,
            d_residual: self.d_residual.as_ref().filter(|d_residual| !d_residual.is_same_place(dy)),
            d_gate: self.d_gate.as_ref(),
            dgamma: self.dgamma.as_ref(),
            dbeta: self.dbeta.as_ref(),
            dalpha: self.dalpha.as_ref(),
            dshift: self.dshift.as_ref(),
            accumulation: Accumulation::Write,
        }
    }
}

impl Gradients {
    /// These tensors as targets to write.
    pub fn targets(&self) -> GradientTargets<'_> {
        GradientTargets {
            dx: Some(&self.dx),
            d_residual: self.d_residual.as_ref(),
            d_gate: self.d_gate.as_ref(),
            dgamma: self.dgamma.as_ref(),
            dbeta: self.dbeta.as_ref(),
            dalpha: self.dalpha.as_ref(),
            dshift: self.dshift.as_ref(),
            accumulation: Accumulation::Write,
        }
    }

    /// What is to be computed of them: not a gradient of the residual that is dy itself.
    pub(crate) fn computed(&self, dy: &Tensor) -> GradientTargets<'_> {
        let targets = self.targets();
        let d_residual = targets.d_residual.filter(|d_residual| !d_residual.is_same_place(dy));
        GradientTargets { d_residual, ..targets }
    }
}
