//! What a curve is made with.

use crate::base::activation::Activation;
use crate::base::error::{Error, Result};
use crate::pass::Affine;

/// What a [`DynamicCurve`](crate::curve::DynamicCurve) is made with. The default is that of the papers: gamma and beta, no activation, alpha
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
