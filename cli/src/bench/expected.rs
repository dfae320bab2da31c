//! How results are held against what the reference expects, of batch norm, the family and the curves alike.

use wgnorm::reference::activation::kinks;
use wgnorm::reference::{WhereNan, compare_as};
use wgnorm::{Activation, DType};

/// dy is 0 where z is this close to a kink of the activation: rounding may put z on the other side, with another
/// derivative.
pub const KINK_MARGIN: f64 = 1e-3;

/// Clears dy where the derivative of the activation may jump at z, the residual included.
pub fn clear_kinks(dy: &mut [f32], activation: Activation, z: impl Fn(usize) -> f64) {
    let kinks = kinks(activation);
    for (i, dy) in dy.iter_mut().enumerate() {
        if kinks.iter().any(|kink| (z(i) - kink).abs() < KINK_MARGIN) {
            *dy = 0.0;
        }
    }
}

/// The worst error so far, as a fraction of `factor` times its bound.
pub struct Worst {
    factor: f64,
    pub ratio: f64,
}

impl Worst {
    pub fn within(factor: f64) -> Self {
        Self { factor, ratio: 0.0 }
    }

    /// Compares a result that was stored as `dtype`, and says what is wrong.
    pub fn hold(
        &mut self,
        what: &str,
        dtype: DType,
        got: &[f32],
        expected: &[f64],
        bound: impl Fn(usize) -> f64,
    ) -> Result<(), String> {
        let found = compare_as(dtype, got, expected, WhereNan::Nan, |i| self.factor * bound(i))
            .map_err(|error| format!("{what}: {error}"))?;
        self.ratio = self.ratio.max(found.ratio);
        if found.passes() { Ok(()) } else { Err(format!("{what}: {found}")) }
    }
}
