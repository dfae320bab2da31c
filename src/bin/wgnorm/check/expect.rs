//! What outputs must be: expected values with their bounds, of any norm.

use wgnorm::reference::activation::kinks;
use wgnorm::reference::bounds;
use wgnorm::{Activation, DType};

use super::case::Expected;
use super::data::Data;

/// An output in f32.
pub fn expected(name: &str, values: Vec<f64>, bound: impl Fn(usize) -> f64) -> Expected {
    stored(DType::F32, name, values, bound)
}

/// An output that is stored as `dtype`; `bound` is that of the f32 result.
pub fn stored(dtype: DType, name: &str, values: Vec<f64>, bound: impl Fn(usize) -> f64) -> Expected {
    let gate: Vec<_> = (0..values.len()).map(|i| bounds::stored(dtype, values[i], bound(i))).collect();
    let strict = gate.clone();
    Expected { name: name.to_owned(), dtype, strict, gate, values, sample: None, peer_err: None }
}

/// The gradient of a parameter, and if it is computed `twice`, that to which it was added once more.
pub fn of_parameter(
    dtype: DType,
    name: &str,
    values: Vec<f64>,
    bound: impl Fn(usize) -> f64,
    twice: bool,
) -> Vec<Expected> {
    let once = stored(dtype, name, values, &bound);
    if !twice {
        return vec![once];
    }
    let sums = once.values.iter().map(|value| 2.0 * value).collect();
    let again = stored(dtype, &format!("{name}_twice"), sums, |p| once.gate[p] + bound(p));
    vec![again, once]
}

/// Doubles the bounds of statistics, and of all that follows, where the first values of a slice are outliers.
pub fn allow_for(data: Data, expectations: &mut [Expected]) {
    if matches!(data, Data::Padded) {
        for bound in expectations.iter_mut().flat_map(|e| e.gate.iter_mut().chain(&mut e.strict)) {
            *bound *= 2.0;
        }
    }
}

/// Sets dy to 0 where z is within the margin of a jump of the derivative, where a rounding error would show at its full height.
pub fn avoid_kinks(activation: Activation, dy: &mut [f32], z: &[f64], margin: impl Fn(usize) -> f64) {
    for (i, dy) in dy.iter_mut().enumerate() {
        if kinks(activation).iter().any(|kink| (z[i] - kink).abs() <= margin(i)) {
            *dy = 0.0;
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::check::case::{Case, Content, Problem};
    use crate::check::data::{narrow, rounded};
    use crate::check::run::judge;

    pub fn problem(case: Case) -> Problem {
        match case.content {
            Content::Problem(problem) => *problem,
            _ => panic!("{} is no problem", case.name),
        }
    }

    /// What a kernel without errors gives.
    pub fn results(expected: &Expected) -> Vec<f32> {
        rounded(&narrow(expected.values.clone()), expected.dtype)
    }

    /// Rounded expectations pass, and values or NaN that they are not fail.
    pub fn assert_tells_wrong_from_right(place: &str, problem: &Problem) {
        for expected in &problem.expected {
            let mut got = results(expected);
            assert_eq!(judge(expected, &got).1, None, "{place} {}", expected.name);
            let largest = (0..got.len()).max_by(|&a, &b| got[a].abs().total_cmp(&got[b].abs())).unwrap();
            got[largest] = got[largest] * 1.1 + f32::MIN_POSITIVE;
            assert!(judge(expected, &got).1.is_some(), "{place} {} {largest}", expected.name);
            got[largest] = f32::NAN;
            assert!(judge(expected, &got).1.is_some(), "{place} {} NaN", expected.name);
        }
    }

    /// Of the named outputs, what `forgetful` expects is wrong for `problem`.
    pub fn assert_differs(place: &str, problem: &Problem, forgetful: &Problem, names: &[&str]) {
        for name in names {
            let of = |problem: &'_ Problem| {
                problem.expected.iter().find(|expected| expected.name == *name).cloned().unwrap()
            };
            assert!(judge(&of(problem), &results(&of(forgetful))).1.is_some(), "{place} {name}");
        }
    }
}
