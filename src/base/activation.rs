//! Activations that a layer can apply to what it has normalized.

use crate::base::custom::CustomActivation;
use crate::base::error::{Error, Result};

/// What a layer applies to `z = x̂·gamma + beta + residual`; names and definitions are PyTorch's.
///
/// NaN passes through all of them. In the backward pass the derivative is computed from x once more, so forward stores no
/// mask. `reference::activation` holds the formulas.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// z.
    #[default]
    None,
    /// max(z, 0); the gradient at 0 is 0.
    Relu,
    /// min(max(z, 0), 6); the gradient at 0 and at 6 is 0.
    Relu6,
    /// z above 0, else slope·z; the gradient at 0 is the slope.
    LeakyRelu {
        /// Slope below 0: finite; PyTorch's `negative_slope` (default 0.01).
        slope: f32,
    },
    /// z·σ(z), σ the logistic function; also known as swish.
    Silu,
    /// z·Φ(z), Φ the distribution function of N(0, 1), by erf.
    Gelu,
    /// `0.5·z·(1 + tanh(sqrt(2/π)·(z + 0.044715·z³)))`: PyTorch's `approximate="tanh"`.
    GeluTanh,
    /// The logistic function, `1 / (1 + exp(−z))`.
    Sigmoid,
    /// tanh(z).
    Tanh,
    /// `z·min(max(z + 3, 0), 6) / 6`; the gradient is 0 up to −3 and 1 from 3.
    HardSwish,
    /// A function of one's own, by WGSL: [`Activation::custom`].
    Custom(CustomActivation),
}

impl Activation {
    /// One of each that is built in, the leaky ReLU with PyTorch's slope.
    pub const ALL: [Activation; 10] = [
        Activation::None,
        Activation::Relu,
        Activation::Relu6,
        Activation::LeakyRelu { slope: 0.01 },
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::HardSwish,
    ];

    /// The name that the benchmark and conformance files use.
    pub const fn name(self) -> &'static str {
        match self {
            Activation::None => "none",
            Activation::Relu => "relu",
            Activation::Relu6 => "relu6",
            Activation::LeakyRelu { .. } => "leaky_relu",
            Activation::Silu => "silu",
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_tanh",
            Activation::Sigmoid => "sigmoid",
            Activation::Tanh => "tanh",
            Activation::HardSwish => "hard_swish",
            Activation::Custom(custom) => custom.name(),
        }
    }

    /// What kernels and plans are kept by: its name, and for one of one's own its text.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Activation::Custom(custom) => custom.key(),
            built_in => built_in.name(),
        }
    }

    /// The one of a [name](Self::name): of several custom ones the last that was made.
    pub fn named(name: &str) -> Option<Self> {
        let built_in = Self::ALL.into_iter().find(|activation| activation.name() == name);
        built_in.or_else(|| CustomActivation::named(name).map(Activation::Custom))
    }

    /// A word that [`named`](Self::named) knows it by.
    pub(crate) fn word(self) -> &'static str {
        if Self::named(self.name()) == Some(self) { self.name() } else { self.key() }
    }

    /// Whether z can be computed from y, so that a training forward pass may write y over x: none, a leaky ReLU with a
    /// positive slope, of at least [`Saved::least_slope`](crate::Saved::least_slope), and a custom one with an inverse, of at least that slope.
    pub const fn is_invertible(self) -> bool {
        self.least_slope() > 0.0
    }

    /// The least derivative of one that can be inverted; else 0.
    pub(crate) const fn least_slope(self) -> f32 {
        match self {
            Activation::None => 1.0,
            Activation::LeakyRelu { slope } if slope > 0.0 => slope.min(1.0),
            Activation::Custom(custom) => custom.functions().least_slope,
            _ => 0.0,
        }
    }

    /// Whether the derivative is 0 or 1 everywhere, so that dz is exact in every storage type.
    pub(crate) const fn is_mask(self) -> bool {
        matches!(self, Activation::None | Activation::Relu | Activation::Relu6)
    }

    pub(crate) const fn slope(self) -> f32 {
        match self {
            Activation::LeakyRelu { slope } => slope,
            _ => 0.0,
        }
    }

    pub(crate) fn check(self) -> Result<()> {
        if self.slope().is_finite() { Ok(()) } else { Err(Error::Slope { got: self.slope() }) }
    }
}

impl std::fmt::Display for Activation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
