//! The same layer in another framework's conventions: which weight is called momentum, which variance runs.

use crate::base::error::{Error, Result};
use crate::base::variance::RunningVariance;
use crate::norm::Momentum;

/// What to do where the running variance of a file and that of a layer are not the same.
///
/// Inference takes the numbers as they are, whichever they are. Training adds to them, and what is added is in the
/// layer's convention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rebias {
    /// An error, so that no convention is lost by accident.
    #[default]
    Refuse,
    /// Take the numbers as they are, as for inference or where n/(n − 1) is nearly 1.
    Keep,
    /// Convert them; each update saw so many values per channel (N·H·W).
    Count(u64),
}

/// Running variances in another convention: times n/(n − 1) to unbiased, (n − 1)/n to biased, in f64 and rounded once.
///
/// Exact (but for the rounding) if every update saw n = `count` values per channel. What is left in the average of the
/// initial variance 1 is scaled with the rest.
///
/// # Errors
/// [`Error::VarianceCount`] without a count, or one below 2: an unbiased variance of one value does not exist.
/// [`Error::Conversion`] if a finite variance would become infinite. A conversion to the same convention is none, whatever the count.
///
/// ```
/// use wgnorm::{RunningVariance, state::rebias};
/// let unbiased = rebias(&[1.5, 3.0], RunningVariance::Biased, RunningVariance::Unbiased, Some(4))?;
/// assert_eq!(unbiased, [2.0, 4.0]);
/// assert!(rebias(&[1.5], RunningVariance::Biased, RunningVariance::Unbiased, None).is_err());
/// # Ok::<(), wgnorm::Error>(())
/// ```
pub fn rebias(
    var: &[f32],
    from: RunningVariance,
    to: RunningVariance,
    count: Option<u64>,
) -> Result<Vec<f32>> {
    if from == to {
        return Ok(var.to_vec());
    }
    let Some(n) = count.filter(|&n| n >= 2) else { return Err(Error::VarianceCount { got: count }) };
    let (n, less) = (n as f64, (n - 1) as f64);
    let (times, over) = match to {
        RunningVariance::Unbiased => (n, less),
        RunningVariance::Biased => (less, n),
    };
    let converted: Vec<f32> = var.iter().map(|&var| (f64::from(var) * times / over) as f32).collect();
    if var.iter().zip(&converted).any(|(var, converted)| var.is_finite() && !converted.is_finite()) {
        let (what, why) = ("a running variance", "it would be larger than f32 can hold");
        return Err(Error::Conversion { what, why });
    }
    Ok(converted)
}

/// A momentum as the weight of the new value, as PyTorch and burn give it.
///
/// # Errors
/// [`Error::Momentum`]; [`Error::Conversion`] for a cumulative average, whose weight changes, and where 1 − w loses so many
/// digits that updates would be others.
///
/// ```
/// use wgnorm::{Momentum, state::weight_of_new};
/// assert_eq!(weight_of_new(Momentum::WeightOfOld(0.75))?, 0.25);
/// # Ok::<(), wgnorm::Error>(())
/// ```
pub fn weight_of_new(momentum: Momentum) -> Result<f64> {
    let weight = match momentum {
        Momentum::WeightOfNew(new) => new,
        Momentum::WeightOfOld(old) => 1.0 - old,
        Momentum::Cumulative => return cumulative(),
    };
    same(momentum, Momentum::WeightOfNew(weight)).map(|()| weight)
}

/// A momentum as the weight of the old value, as Keras, Flax and ONNX give it.
///
/// # Errors
/// As [`weight_of_new`].
pub fn weight_of_old(momentum: Momentum) -> Result<f64> {
    let weight = match momentum {
        Momentum::WeightOfOld(old) => old,
        Momentum::WeightOfNew(new) => 1.0 - new,
        Momentum::Cumulative => return cumulative(),
    };
    same(momentum, Momentum::WeightOfOld(weight)).map(|()| weight)
}

fn cumulative() -> Result<f64> {
    Err(Error::Conversion {
        what: "a cumulative average to a momentum",
        why: "its weight changes with every batch",
    })
}

/// Both weights are f32 where they are used, and must be the same numbers there.
fn same(from: Momentum, to: Momentum) -> Result<()> {
    from.check()?;
    match from.weights() == to.weights() {
        true => Ok(()),
        false => Err(Error::Conversion {
            what: "a momentum",
            why: "1 − weight has too few digits to give the same updates",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use RunningVariance::{Biased, Unbiased};

    #[test]
    fn variances_are_scaled_by_the_count() {
        for n in [2u64, 3, 49, 100_000_000, u64::MAX] {
            for var in [0.0f32, 1e-40, 0.1, 7.0, 1e30] {
                let up = rebias(&[var], Biased, Unbiased, Some(n)).unwrap()[0];
                let expected = (f64::from(var) * (n as f64 / (n as f64 - 1.0))) as f32;
                assert!((up - expected).abs() <= expected * f32::EPSILON, "{n} {var}");
                let back = rebias(&[up], Unbiased, Biased, Some(n)).unwrap()[0];
                assert!((back - var).abs() <= var * 2.0 * f32::EPSILON + 2e-45, "{n} {var} {back}");
            }
        }
        assert_eq!(rebias(&[2.0], Biased, Unbiased, Some(2)), Ok(vec![4.0]));
        assert_eq!(rebias(&[4.0], Unbiased, Biased, Some(2)), Ok(vec![2.0]));
        let odd = rebias(&[f32::INFINITY, f32::NAN, -1.0], Biased, Unbiased, Some(2)).unwrap();
        assert!(odd[0] == f32::INFINITY && odd[1].is_nan() && odd[2] == -2.0);
    }

    #[test]
    fn without_a_count_there_is_no_other_variance() {
        for count in [None, Some(0), Some(1)] {
            for (from, to) in [(Biased, Unbiased), (Unbiased, Biased)] {
                assert_eq!(rebias(&[1.0], from, to, count), Err(Error::VarianceCount { got: count }));
            }
            assert_eq!(rebias(&[1.0], Biased, Biased, count), Ok(vec![1.0]));
        }
        let too_large = rebias(&[f32::MAX], Biased, Unbiased, Some(2));
        assert!(matches!(too_large, Err(Error::Conversion { .. })), "{too_large:?}");
    }

    #[test]
    fn momenta_keep_their_updates_or_are_refused() {
        for weight in [0.0, 0.01, 0.1, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
            for momentum in [Momentum::WeightOfNew(weight), Momentum::WeightOfOld(weight)] {
                let (new, old) = (weight_of_new(momentum).unwrap(), weight_of_old(momentum).unwrap());
                assert_eq!(Momentum::WeightOfNew(new).weights(), momentum.weights(), "{momentum:?}");
                assert_eq!(Momentum::WeightOfOld(old).weights(), momentum.weights(), "{momentum:?}");
            }
        }
        // 1 − 1e-12 has four digits of 1e-12 left.
        assert!(matches!(weight_of_old(Momentum::WeightOfNew(1e-12)), Err(Error::Conversion { .. })));
        assert_eq!(weight_of_new(Momentum::WeightOfNew(1e-12)), Ok(1e-12));
        for momentum in [Momentum::WeightOfNew(1.5), Momentum::WeightOfOld(f64::NAN)] {
            assert!(matches!(weight_of_old(momentum), Err(Error::Momentum { .. })));
            assert!(matches!(weight_of_new(momentum), Err(Error::Momentum { .. })));
        }
        assert!(matches!(weight_of_new(Momentum::Cumulative), Err(Error::Conversion { .. })));
    }
}
