//! Comparing a result with the reference: lengths first, NaN fails, and the worst place is told.

use std::fmt;

use crate::base::dtype::DType;

/// What a result must be where the expected value is NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhereNan {
    /// NaN: for y and dx.
    Nan,
    /// NaN or infinite: for statistics and parameter gradients.
    NonFinite,
}

/// The worst element of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worst {
    /// Worst `|got − expected| / bound`; infinite where one is finite and the other is not as it should be.
    pub ratio: f64,
    /// Largest `|got − expected|` among the finite ones.
    pub max_abs_err: f64,
    /// Index with the worst ratio.
    pub index: usize,
    /// Result there.
    pub got: f64,
    /// Expected value there.
    pub expected: f64,
    /// Bound there.
    pub bound: f64,
}

impl Worst {
    /// Whether every element is within its bound. NaN is not.
    pub fn passes(&self) -> bool {
        self.ratio <= 1.0
    }
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "index {}: got {:e}, expected {:e}, error {:.3e}, bound {:.3e}",
            self.index,
            self.got,
            self.expected,
            (self.got - self.expected).abs(),
            self.bound
        )
    }
}

/// Results of another length than expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} values, got {got}")]
pub struct LengthMismatch {
    /// Expected number of values.
    pub expected: usize,
    /// Number of values of the result.
    pub got: usize,
}

/// Compares f32 results with f64 expectations, element by element, against a bound for each.
///
/// Where the expected value is infinite, or too large for f32, the result must not be finite.
///
/// # Errors
/// [`LengthMismatch`].
pub fn compare(
    got: &[f32],
    expected: &[f64],
    where_nan: WhereNan,
    bound: impl Fn(usize) -> f64,
) -> Result<Worst, LengthMismatch> {
    compare_as(DType::F32, got, expected, where_nan, bound)
}

/// As [`compare`], for results that were stored as `dtype`: where the expected value is beyond its largest, infinity is right,
/// and so is what is within the bound.
///
/// # Errors
/// [`LengthMismatch`].
pub fn compare_as(
    dtype: DType,
    got: &[f32],
    expected: &[f64],
    where_nan: WhereNan,
    bound: impl Fn(usize) -> f64,
) -> Result<Worst, LengthMismatch> {
    if got.len() != expected.len() {
        return Err(LengthMismatch { expected: expected.len(), got: got.len() });
    }
    let mut worst = Worst { ratio: 0.0, max_abs_err: 0.0, index: 0, got: 0.0, expected: 0.0, bound: 0.0 };
    for (index, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let bound = bound(index);
        let ratio = if expected.is_nan() {
            let right = match where_nan {
                WhereNan::Nan => got.is_nan(),
                WhereNan::NonFinite => !got.is_finite(),
            };
            if right { 0.0 } else { f64::INFINITY }
        } else if expected.abs() > f64::from(f32::MAX) {
            if got.is_finite() { f64::INFINITY } else { 0.0 }
        } else if dtype != DType::F32
            && bound < 0.01 * dtype.max().max(expected.abs())
            && expected.abs() > dtype.max() - bound
            && f64::from(got) == f64::INFINITY.copysign(expected)
        {
            0.0
        } else {
            let error = (f64::from(got) - expected).abs();
            if error.is_finite() {
                worst.max_abs_err = worst.max_abs_err.max(error);
            }
            // Written so that NaN, of the result or of the bound, does not pass.
            if error == 0.0 {
                0.0
            } else if error <= bound {
                error / bound
            } else {
                (error / bound).max(1.0 + f64::EPSILON)
            }
        };
        if index == 0 || ratio > worst.ratio || ratio.is_nan() {
            worst = Worst { ratio, index, got: got.into(), expected, bound, ..worst };
            if ratio.is_nan() {
                worst.ratio = f64::INFINITY;
            }
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(got: f32, expected: f64, bound: f64) -> f64 {
        compare(&[1.0, got, 2.0], &[1.0, expected, 2.0], WhereNan::Nan, |_| bound).unwrap().ratio
    }

    #[test]
    fn what_is_within_the_bound_passes() {
        assert_eq!(ratio(3.0, 3.0, 0.0), 0.0);
        assert_eq!(ratio(3.5, 3.0, 1.0), 0.5);
        assert_eq!(ratio(f32::NAN, f64::NAN, 0.0), 0.0);
        assert_eq!(ratio(f32::INFINITY, f64::INFINITY, 0.0), 0.0);
        assert_eq!(ratio(f32::INFINITY, 1e39, 0.0), 0.0);
    }

    #[test]
    fn what_is_wrong_fails() {
        for (got, expected, bound) in [
            (3.5, 3.0, 0.4),
            (3.0000002, 3.0, 0.0),
            (f32::NAN, 3.0, 1e300),
            (f32::NAN, 3.0, f64::INFINITY),
            (f32::INFINITY, 3.0, 1e300),
            (3.0, f64::NAN, 1e300),
            (f32::INFINITY, f64::NAN, 1e300),
            (3.0, f64::INFINITY, 1e300),
            (3.4e38, 1e39, 1e300),
            (3.5, 3.0, f64::NAN),
        ] {
            let ratio = ratio(got, expected, bound);
            assert!(ratio > 1.0, "{got} for {expected} within {bound}: ratio {ratio}");
        }
    }

    #[test]
    fn statistics_may_be_infinite_where_nan_is_expected() {
        let passes = |got| compare(&[got], &[f64::NAN], WhereNan::NonFinite, |_| 0.0).unwrap().passes();
        assert!(passes(f32::INFINITY) && passes(f32::NAN) && !passes(0.0));
    }

    #[test]
    fn infinity_is_right_beyond_the_largest_value_of_a_type() {
        let passes = |got, expected, bound| {
            compare_as(DType::F16, &[got], &[expected], WhereNan::Nan, |_| bound).unwrap().passes()
        };
        assert!(passes(f32::INFINITY, 4.8e7, 2.5e4) && passes(f32::NEG_INFINITY, -65530.0, 100.0));
        assert!(!passes(f32::NEG_INFINITY, 4.8e7, 2.5e4) && !passes(f32::INFINITY, 6e4, 100.0));
        // A bound that allows everything shows nothing.
        assert!(!passes(f32::INFINITY, 6e4, 1e5) && !passes(f32::INFINITY, 4.8e7, 1e7));
    }

    #[test]
    fn lengths_must_agree() {
        let mismatch = compare(&[1.0], &[1.0, 2.0], WhereNan::Nan, |_| 1.0);
        assert_eq!(mismatch, Err(LengthMismatch { expected: 2, got: 1 }));
    }

    #[test]
    fn the_worst_place_is_told() {
        let worst =
            compare(&[1.0, 2.5, 4.0], &[1.0, 2.0, 3.0], WhereNan::Nan, |i| if i == 1 { 0.1 } else { 1.0 })
                .unwrap();
        assert_eq!((worst.index, worst.got, worst.max_abs_err), (1, 2.5, 1.0));
    }
}
