//! How a spectral norm is found.

use crate::base::error::{Error, Result};

/// In which order the vectors of a power iteration follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PowerOrder {
    /// v of u, then u of v: the paper, and PyTorch's hook `torch.nn.utils.spectral_norm`.
    #[default]
    VFirst,
    /// u of v, then v of u: PyTorch's parametrization `torch.nn.utils.parametrizations.spectral_norm`.
    UFirst,
}

/// Steps of a forward pass at most: each is dispatches of its own.
const MOST_ITERATIONS: u64 = 1024;

/// Options of a [`SpectralNorm`](super::SpectralNorm).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SpectralNormOptions {
    /// The axis of the weight that is that of its outputs, the rows of the matrix: 0 in a convolution or a linear layer, 1 in a transposed convolution.
    pub axis: usize,
    /// Steps of the power iteration for each forward pass in training, at most 1024. With 0 vectors stay as they are.
    pub iterations: u32,
    /// The order of the two halves of a step.
    pub order: PowerOrder,
    /// The least length that is divided by.
    pub eps: f64,
}

impl SpectralNormOptions {
    /// One step for each forward pass, v first, eps 1e-12, rows along axis 0: `torch.nn.utils.spectral_norm`.
    pub const fn hook() -> Self {
        Self { axis: 0, iterations: 1, order: PowerOrder::VFirst, eps: 1e-12 }
    }

    /// The same, u first: `torch.nn.utils.parametrizations.spectral_norm`.
    pub const fn parametrization() -> Self {
        Self { order: PowerOrder::UFirst, ..Self::hook() }
    }

    /// The same with rows along another axis.
    #[must_use]
    pub const fn axis(self, axis: usize) -> Self {
        Self { axis, ..self }
    }

    /// The same with so many steps.
    #[must_use]
    pub const fn iterations(self, iterations: u32) -> Self {
        Self { iterations, ..self }
    }

    /// The same with another order.
    #[must_use]
    pub const fn order(self, order: PowerOrder) -> Self {
        Self { order, ..self }
    }

    /// The same with another least length.
    #[must_use]
    pub const fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    pub(super) fn check(&self) -> Result<()> {
        let (what, unit, limit_name) = ("iterations of a forward pass", "steps", "most steps");
        let (needed, limit) = (self.iterations.into(), MOST_ITERATIONS);
        if needed > limit {
            return Err(Error::TooLarge { what, needed, unit, limit_name, limit });
        }
        // As kernels have it.
        match self.eps >= 0.0 && (self.eps as f32).is_finite() {
            true => Ok(()),
            false => Err(Error::Epsilon { got: self.eps }),
        }
    }
}
