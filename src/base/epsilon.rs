//! What keeps a divisor from 0.

use super::error::{Error, Result};

/// Requires an eps that kernels can add: 0, or a normal number in f32.
pub(crate) fn check_eps(eps: f64) -> Result<()> {
    let normal = eps.is_finite() && (f32::MIN_POSITIVE..=f32::MAX).contains(&(eps as f32));
    if normal || eps == 0.0 { Ok(()) } else { Err(Error::Epsilon { got: eps }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_normal_numbers_are_taken() {
        for eps in [0.0, 1e-37, 1e-12, 1.0, 1e38] {
            assert_eq!(check_eps(eps), Ok(()));
        }
        for eps in [-1e-5, f64::NAN, f64::INFINITY, 1e-39, 1e-300, 1e39] {
            assert!(matches!(check_eps(eps), Err(Error::Epsilon { .. })), "{eps}");
        }
    }
}
