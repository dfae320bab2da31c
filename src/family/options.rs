//! What a norm of the family is made with.

use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::epsilon::check_eps;
use crate::base::error::Result;
use crate::pass::Affine;

/// What keeps the divisor from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Epsilon {
    /// This value: 0, or positive, finite and a normal number in f32.
    Value(f64),
    /// The machine epsilon of the type of x, the distance from 1 to the next number: `eps=None` of PyTorch's `rms_norm`. 2^-23 in f32, 2^-10 in f16,
    /// 2^-7 in bf16.
    OfType,
}

impl Epsilon {
    /// The value for tensors of a type.
    pub const fn value(self, dtype: DType) -> f64 {
        match self {
            Epsilon::Value(value) => value,
            Epsilon::OfType => 2.0 * dtype.unit_roundoff(),
        }
    }
}

/// What a norm of the family is made with. Start from the layer and the framework whose conventions you follow.
///
/// ```
/// use wgnorm::{Activation, Affine, NormOptions};
/// let options = NormOptions::layer().eps(1e-6).affine(Affine::Weight).activation(Activation::Silu);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct NormOptions {
    /// What keeps the divisor from 0.
    pub eps: Epsilon,
    /// Which affine parameters the layer has.
    pub affine: Affine,
    /// Whether gamma is stored as its distance from 1, so that weight decay pulls it to 1 and 0 is its neutral value: Gemma's RMS norm, the scale
    /// of adaptive layer norm.
    pub unit_offset: bool,
    /// What is applied to the normalized values, and a residual that is added to them.
    pub activation: Activation,
    /// Whether group and instance norm take one value per slice in training.
    pub allow_single_value: bool,
}

impl NormOptions {
    const fn new(eps: Epsilon, affine: Affine) -> Self {
        let activation = Activation::None;
        Self { eps, affine, unit_offset: false, activation, allow_single_value: false }
    }

    /// `torch.nn.LayerNorm`: eps 1e-5, weight and bias. Keras has eps 1e-3, Flax 1e-6.
    pub const fn layer() -> Self {
        Self::new(Epsilon::Value(1e-5), Affine::Both)
    }

    /// `torch.nn.RMSNorm`: the machine epsilon of the type, weight. Llama has eps 1e-5 or 1e-6.
    pub const fn rms() -> Self {
        Self::new(Epsilon::OfType, Affine::Weight)
    }

    /// The RMS norm of Gemma: eps 1e-6, a weight that is stored as its distance from 1.
    pub const fn gemma() -> Self {
        Self { unit_offset: true, ..Self::new(Epsilon::Value(1e-6), Affine::Weight) }
    }

    /// `torch.nn.GroupNorm` and ONNX `GroupNormalization` (opset 21): eps 1e-5, weight and bias per channel. Keras has eps 1e-3.
    pub const fn group() -> Self {
        Self::new(Epsilon::Value(1e-5), Affine::Both)
    }

    /// `torch.nn.InstanceNorm2d`: eps 1e-5, no weight, no bias.
    pub const fn instance() -> Self {
        Self::new(Epsilon::Value(1e-5), Affine::None)
    }

    /// PyTorch Geometric's `GraphNorm`: eps 1e-5, weight and bias per channel, beside the mean scale.
    pub const fn graph() -> Self {
        Self::new(Epsilon::Value(1e-5), Affine::Both)
    }

    /// ONNX `MeanVarianceNormalization`: 1e-9 is added to the standard deviation; no parameters.
    pub const fn mean_variance() -> Self {
        Self::new(Epsilon::Value(1e-9), Affine::None)
    }

    /// `torch.nn.functional.normalize`: a length of at least 1e-12; no parameters.
    pub const fn l2() -> Self {
        Self::new(Epsilon::Value(1e-12), Affine::None)
    }

    /// ScaleNorm (Nguyen & Salazar 2019): a length of at least 1e-5, one weight for all.
    pub const fn scale() -> Self {
        Self::new(Epsilon::Value(1e-5), Affine::Weight)
    }

    /// `torch.nn.utils.parametrizations.weight_norm`: a weight for each row, no eps. A row of zeros gives zeros, and its gradients are zero, where PyTorch's are NaN.
    pub const fn weight() -> Self {
        Self::new(Epsilon::Value(0.0), Affine::Weight)
    }

    /// Weight standardization with the biased variance, as in BiT and timm: eps 1e-6, no parameters.
    pub const fn standardization() -> Self {
        Self::new(Epsilon::Value(1e-6), Affine::None)
    }

    /// Sets what keeps the divisor from 0: positive, finite and a normal number in f32; or 0, with which a slice without spread, or without length, gives NaN, as in
    /// PyTorch (not weight norm, whose rows of zeros give zeros).
    #[must_use]
    pub const fn eps(mut self, eps: f64) -> Self {
        self.eps = Epsilon::Value(eps);
        self
    }

    /// Sets the affine parameters.
    #[must_use]
    pub const fn affine(mut self, affine: Affine) -> Self {
        self.affine = affine;
        self
    }

    /// Sets whether gamma is stored as its distance from 1.
    #[must_use]
    pub const fn unit_offset(mut self, unit_offset: bool) -> Self {
        self.unit_offset = unit_offset;
        self
    }

    /// Sets what is applied to the normalized values, in the same pass over memory.
    #[must_use]
    pub const fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Allows one value per slice of group or instance norm in training: y is beta, dx is zero (NaN with an eps of 0). Nothing can be learned from it, so it is refused unless
    /// asked for. Inference always takes it; of the other norms, so does training.
    #[must_use]
    pub const fn allow_single_value(mut self, allow: bool) -> Self {
        self.allow_single_value = allow;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if let Epsilon::Value(got) = self.eps {
            check_eps(got)?;
        }
        self.activation.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Error;

    #[test]
    fn machine_epsilons_are_those_of_the_types() {
        assert_eq!(Epsilon::OfType.value(DType::F32), f64::from(f32::EPSILON));
        assert_eq!(Epsilon::OfType.value(DType::F16), f64::from(half::f16::EPSILON));
        assert_eq!(Epsilon::OfType.value(DType::Bf16), f64::from(half::bf16::EPSILON));
    }

    #[test]
    fn eps_out_of_range_is_refused() {
        for eps in [-1e-5, f64::NAN, f64::INFINITY, 1e-39, 1e39] {
            assert!(matches!(NormOptions::layer().eps(eps).check(), Err(Error::Epsilon { .. })), "{eps}");
        }
        for options in [
            NormOptions::layer(),
            NormOptions::rms(),
            NormOptions::gemma(),
            NormOptions::group(),
            NormOptions::instance(),
            NormOptions::graph(),
            NormOptions::mean_variance(),
            NormOptions::l2(),
            NormOptions::scale(),
            NormOptions::weight(),
            NormOptions::standardization(),
        ] {
            assert_eq!(options.check(), Ok(()));
        }
    }
}
