//! What a curve is made with, and where its gradients go.

use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::setters::setters;
use crate::engine::tensor::Tensor;
use crate::norm::{Accumulation, Affine};

/// What a [`DynamicCurve`](crate::DynamicCurve) is made with. The default is that of the papers: gamma and beta, no activation, alpha
/// 0.5, shift 0.
///
/// ```
/// use wgnorm::{Affine, CurveOptions};
/// // In language models, the wider they are, the smaller the alpha to begin with (Zhu et al. 2025).
/// let options = CurveOptions::default().alpha(0.2).affine(Affine::Weight);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CurveOptions {
    /// Which affine parameters the layer has.
    pub affine: Affine,
    /// What is applied to `gamma·f(u) + beta`, and a residual that is added to it.
    pub activation: Activation,
    /// alpha of a new layer.
    pub alpha: f32,
    /// shift of a new layer, where it has one.
    pub shift: f32,
}

impl Default for CurveOptions {
    fn default() -> Self {
        Self { affine: Affine::Both, activation: Activation::None, alpha: 0.5, shift: 0.0 }
    }
}

impl CurveOptions {
    /// Sets the affine parameters.
    #[must_use]
    pub const fn affine(mut self, affine: Affine) -> Self {
        self.affine = affine;
        self
    }

    /// Sets what is applied in the same pass over memory.
    #[must_use]
    pub const fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Sets alpha of a new layer: a finite number.
    #[must_use]
    pub const fn alpha(mut self, alpha: f32) -> Self {
        self.alpha = alpha;
        self
    }

    /// Sets the shift of a new layer: a finite number.
    #[must_use]
    pub const fn shift(mut self, shift: f32) -> Self {
        self.shift = shift;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        for (what, value) in [("alpha", self.alpha), ("shift", self.shift)] {
            if !value.is_finite() {
                return Err(Error::Value { what, index: 0, expected: "finite", got: value.into() });
            }
        }
        self.activation.check()
    }
}

/// Where the backward pass of a curve puts its gradients; those that are `None` are not computed.
///
/// Those of parameters are f32, or of the type of x, and all of one type.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CurveTargets<'a> {
    /// Gradient of x, like x. May be the tensor dy itself, which is then written over.
    pub dx: Option<&'a Tensor>,
    /// Gradient of the residual, like x. Without an activation it equals dy, which then saves the pass.
    pub d_residual: Option<&'a Tensor>,
    /// Gradient of gamma, `[C]`.
    pub dgamma: Option<&'a Tensor>,
    /// Gradient of beta, `[C]`.
    pub dbeta: Option<&'a Tensor>,
    /// Gradient of alpha, `[1]`.
    pub dalpha: Option<&'a Tensor>,
    /// Gradient of the shift, `[1]`.
    pub dshift: Option<&'a Tensor>,
    /// Whether the gradients of parameters are written or added to.
    pub accumulation: Accumulation,
}

setters!(impl<'a> CurveTargets<'a> {
    dx: &'a Tensor,
    d_residual: &'a Tensor,
    dgamma: &'a Tensor,
    dbeta: &'a Tensor,
    dalpha: &'a Tensor,
    dshift: &'a Tensor,
});

impl CurveTargets<'_> {
    /// The same, with gradients of parameters written or added.
    #[must_use]
    pub fn accumulation(self, accumulation: Accumulation) -> Self {
        Self { accumulation, ..self }
    }

    /// The gradients of parameters.
    fn of_parameters(&self) -> [Option<&Tensor>; 4] {
        [self.dgamma, self.dbeta, self.dalpha, self.dshift]
    }

    /// Requires at least one.
    pub(super) fn check_any(&self) -> Result<()> {
        let none = self.dx.is_none() && self.d_residual.is_none() && !self.has_sums();
        if none { Err(Error::NoGradient) } else { Ok(()) }
    }

    /// Whether gradients of parameters are asked for.
    pub(super) fn has_sums(&self) -> bool {
        self.of_parameters().iter().any(Option::is_some)
    }

    /// Whether gradients of what all channels have in common are asked for.
    pub(super) fn has_sums_of_all(&self) -> bool {
        self.dalpha.is_some() || self.dshift.is_some()
    }

    /// The type of the parameters' gradients, if any is asked for.
    pub(super) fn sums_dtype(&self) -> Option<DType> {
        self.of_parameters().into_iter().flatten().map(Tensor::dtype).next()
    }
}

/// The gradients of a backward pass that allocates them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CurveGradients {
    /// Gradient of x, like x.
    pub dx: Tensor,
    /// Gradient of the residual, if there is one. Without an activation and a mask it is the tensor dy itself.
    pub d_residual: Option<Tensor>,
    /// Gradient of gamma, `[C]`, if the layer has one.
    pub dgamma: Option<Tensor>,
    /// Gradient of beta, `[C]`, if the layer has one.
    pub dbeta: Option<Tensor>,
    /// Gradient of alpha, `[1]`.
    pub dalpha: Tensor,
    /// Gradient of the shift, `[1]`, if the layer has one.
    pub dshift: Option<Tensor>,
}

impl CurveGradients {
    /// These tensors as targets to write.
    pub fn targets(&self) -> CurveTargets<'_> {
        CurveTargets {
            dx: Some(&self.dx),
            d_residual: self.d_residual.as_ref(),
            dgamma: self.dgamma.as_ref(),
            dbeta: self.dbeta.as_ref(),
            dalpha: Some(&self.dalpha),
            dshift: self.dshift.as_ref(),
            accumulation: Accumulation::Write,
        }
    }
}
