//! How statistics are mixed, and which of them.

use crate::base::activation::Activation;
use crate::base::error::Result;
use crate::base::variance::RunningVariance;
use crate::norm::{BatchNormOptions, Momentum};
use crate::pass::Affine;

/// Options of a [`SwitchableNorm`](super::SwitchableNorm).
///
/// ```
/// use wgnorm::switchable::SwitchableNormOptions;
/// use wgnorm::{Activation, Momentum};
/// let options = SwitchableNormOptions::paper().activation(Activation::Relu).momentum(Momentum::WeightOfNew(0.1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SwitchableNormOptions {
    /// What is added to the mixed variance.
    pub eps: f64,
    /// Which of gamma and beta there are.
    pub affine: Affine,
    /// What is applied to the normalized values, and a residual that is added to them.
    pub activation: Activation,
    /// How a batch enters the running statistics.
    pub momentum: Momentum,
    /// Whether the variance of an instance is divided by its number of values, or by one less. That of layers and of the batch is made of it either way, and runs as it is.
    pub variance: RunningVariance,
}

impl SwitchableNormOptions {
    /// The paper (Luo et al. 2019, equation 3): biased variances, eps 1e-5, a tenth of each batch in the running statistics.
    pub const fn paper() -> Self {
        Self {
            eps: 1e-5,
            affine: Affine::Both,
            activation: Activation::None,
            momentum: Momentum::WeightOfOld(0.9),
            variance: RunningVariance::Biased,
        }
    }

    /// The authors' program (`switchablenorms/Switchable-Normalization`, `SwitchNorm2d`), whose variances of instances are unbiased: for models that were trained with it.
    pub const fn authors() -> Self {
        Self { variance: RunningVariance::Unbiased, ..Self::paper() }
    }

    /// The same with another eps.
    #[must_use]
    pub const fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// The same with these of gamma and beta.
    #[must_use]
    pub const fn affine(self, affine: Affine) -> Self {
        Self { affine, ..self }
    }

    /// The same with another activation.
    #[must_use]
    pub const fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// The same with another momentum.
    #[must_use]
    pub const fn momentum(self, momentum: Momentum) -> Self {
        Self { momentum, ..self }
    }

    /// The same with another variance of instances.
    #[must_use]
    pub const fn variance(self, variance: RunningVariance) -> Self {
        Self { variance, ..self }
    }

    pub(super) const fn is_unbiased(&self) -> bool {
        matches!(self.variance, RunningVariance::Unbiased)
    }

    /// Those of the part that keeps running statistics: what it is given runs as it is.
    pub(super) fn batch(&self) -> Result<BatchNormOptions> {
        let options = BatchNormOptions::pytorch()
            .eps(self.eps)
            .momentum(self.momentum)
            .running_variance(RunningVariance::Biased)
            .affine(self.affine)
            .activation(self.activation)
            .allow_single_value(true);
        options.check()?;
        Ok(options)
    }
}
