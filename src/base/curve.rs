//! Functions that stand in the place of a normalization: their statistics are constants.

/// The function f of a [`DynamicCurve`](crate::curve::DynamicCurve), odd and between −1 and 1; `reference::curve` holds the formulas.
///
/// NaN passes through; ±∞ gives ±1, with a derivative of 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Curve {
    /// tanh(u): Dynamic Tanh.
    Tanh,
    /// erf(u), `2/√π·∫₀ᵘ exp(−t²) dt`: Derf.
    Erf,
}

impl Curve {
    /// One of each.
    pub const ALL: [Curve; 2] = [Curve::Tanh, Curve::Erf];

    /// The name in kernel keys.
    pub const fn name(self) -> &'static str {
        match self {
            Curve::Tanh => "tanh",
            Curve::Erf => "erf",
        }
    }
}

impl std::fmt::Display for Curve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
