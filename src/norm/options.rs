//! What batch norm is made with.

use crate::base::activation::Activation;
use crate::base::epsilon::check_eps;
use crate::base::error::{Error, Result};
use crate::base::variance::RunningVariance;
use crate::pass::Affine;
use crate::statistics::renorm::Renorm;

/// How a batch enters the running statistics. The same word means opposite things in different frameworks, so the
/// weight is named by what it weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Momentum {
    /// `running = (1 − w)·running + w·batch`: PyTorch's and burn's `momentum` (default 0.1).
    WeightOfNew(f64),
    /// `running = w·running + (1 − w)·batch`: the `momentum` of Keras, Flax (default 0.99) and ONNX (default 0.9).
    WeightOfOld(f64),
    /// The average over all batches so far: PyTorch's `momentum=None`. The number of batches is counted on the GPU.
    Cumulative,
}

impl Momentum {
    /// Weights of the old and the new value; zero for the cumulative average, which takes them from its counter.
    pub(crate) fn weights(self) -> (f32, f32) {
        match self {
            Momentum::WeightOfNew(new) => ((1.0 - new) as f32, new as f32),
            Momentum::WeightOfOld(old) => (old as f32, (1.0 - old) as f32),
            Momentum::Cumulative => (0.0, 0.0),
        }
    }

    pub(crate) fn check(self) -> Result<()> {
        match self {
            Momentum::WeightOfNew(got) | Momentum::WeightOfOld(got) if !(0.0..=1.0).contains(&got) => {
                Err(Error::Momentum { got })
            }
            _ => Ok(()),
        }
    }
}

/// What a [`BatchNorm`](crate::BatchNorm) is made with. Start from the framework whose conventions you follow.
///
/// ```
/// use wgnorm::{Affine, BatchNormOptions, Momentum};
/// let options = BatchNormOptions::pytorch()
///     .eps(1e-3)
///     .momentum(Momentum::Cumulative)
///     .affine(Affine::Weight);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BatchNormOptions {
    /// What is added to the variance.
    pub eps: f64,
    /// How a batch enters the running statistics.
    pub momentum: Momentum,
    /// Which variance of a batch enters the running variance.
    pub running_variance: RunningVariance,
    /// Which affine parameters the layer has.
    pub affine: Affine,
    /// What is applied to the normalized values.
    pub activation: Activation,
    /// Whether one value per channel is allowed in training.
    pub allow_single_value: bool,
    /// Whether training corrects x̂ towards the running statistics: batch renorm.
    pub renorm: Option<Renorm>,
}

impl BatchNormOptions {
    const fn new(eps: f64, momentum: Momentum, running_variance: RunningVariance) -> Self {
        Self {
            eps,
            momentum,
            running_variance,
            affine: Affine::Both,
            activation: Activation::None,
            allow_single_value: false,
            renorm: None,
        }
    }

    /// `torch.nn.BatchNorm2d`: eps 1e-5, weight of the new value 0.1, unbiased running variance.
    pub const fn pytorch() -> Self {
        Self::new(1e-5, Momentum::WeightOfNew(0.1), RunningVariance::Unbiased)
    }

    /// `keras.layers.BatchNormalization` (Keras 3): eps 1e-3, weight of the old value 0.99, biased running variance.
    pub const fn keras() -> Self {
        Self::new(1e-3, Momentum::WeightOfOld(0.99), RunningVariance::Biased).allow_single_value(true)
    }

    /// `flax.linen.BatchNorm`: eps 1e-5, weight of the old value 0.99, biased running variance.
    pub const fn flax() -> Self {
        Self::new(1e-5, Momentum::WeightOfOld(0.99), RunningVariance::Biased).allow_single_value(true)
    }

    /// ONNX `BatchNormalization` (opset 15): eps 1e-5, weight of the old value 0.9, biased running variance.
    pub const fn onnx() -> Self {
        Self::new(1e-5, Momentum::WeightOfOld(0.9), RunningVariance::Biased).allow_single_value(true)
    }

    /// `burn::nn::BatchNorm`: eps 1e-5, weight of the new value 0.1, biased running variance.
    pub const fn burn() -> Self {
        Self::new(1e-5, Momentum::WeightOfNew(0.1), RunningVariance::Biased).allow_single_value(true)
    }

    /// Sets what is added to the variance: 0, or positive, finite and a normal number in f32. With 0, a channel whose values are all equal gives NaN, as in
    /// PyTorch.
    #[must_use]
    pub const fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Sets how a batch enters the running statistics.
    #[must_use]
    pub const fn momentum(mut self, momentum: Momentum) -> Self {
        self.momentum = momentum;
        self
    }

    /// Sets which variance enters the running variance.
    #[must_use]
    pub const fn running_variance(mut self, running_variance: RunningVariance) -> Self {
        self.running_variance = running_variance;
        self
    }

    /// Sets the affine parameters.
    #[must_use]
    pub const fn affine(mut self, affine: Affine) -> Self {
        self.affine = affine;
        self
    }

    /// Sets what is applied to the normalized values, and a residual that is added to them, in the same pass over memory.
    #[must_use]
    pub const fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Allows one value per channel in training, as TensorFlow and Keras do: y is beta, dx is zero. PyTorch refuses
    /// it, because nothing can be learned from it, and so does the preset.
    #[must_use]
    pub const fn allow_single_value(mut self, allow: bool) -> Self {
        self.allow_single_value = allow;
        self
    }

    /// Makes training that of batch renorm; inference stays as it is.
    #[must_use]
    pub const fn renorm(mut self, renorm: Renorm) -> Self {
        self.renorm = Some(renorm);
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_eps(self.eps)?;
        self.activation.check()?;
        self.renorm.map_or(Ok(()), Renorm::check)?;
        self.momentum.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn momentum_conventions_agree() {
        let (old, new) = Momentum::WeightOfOld(0.99).weights();
        assert_eq!((old, new), (0.99, 0.01));
        assert_eq!(Momentum::WeightOfNew(0.01).weights(), (old, new));
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let options = BatchNormOptions::pytorch();
        assert_eq!(options.eps(-1e-5).check(), Err(Error::Epsilon { got: -1e-5 }));
        assert_eq!(options.eps(0.0).check(), Ok(()));
        for weight in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            for momentum in [Momentum::WeightOfNew(weight), Momentum::WeightOfOld(weight)] {
                assert!(matches!(options.momentum(momentum).check(), Err(Error::Momentum { .. })));
            }
        }
        assert_eq!(options.momentum(Momentum::WeightOfNew(0.0)).check(), Ok(()));
        assert_eq!(options.momentum(Momentum::WeightOfOld(1.0)).check(), Ok(()));
    }
}
