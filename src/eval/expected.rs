//! What outputs must be, with their bounds, and how results are held against them: the one place where that is done.

use std::fmt;

use super::data::{Data, narrow, rounded};
use super::inputs::Inputs;
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::reference::activation::kinks;
use crate::reference::{WhereNan, Worst, bounds, compare_as};

/// What an output must be, and how far it may be off.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Its name: `y`, `dx`, `dweight`, `save_mean`, …
    pub name: String,
    /// How the output is stored.
    pub dtype: DType,
    /// Expected values in logical order, of the whole output or of the elements in `sample`.
    pub values: Vec<f64>,
    /// Which elements are expected, if not all.
    pub sample: Option<Vec<usize>>,
    /// Largest allowed error per value.
    pub gate: Vec<f64>,
    /// The error of the best known result, for the report, where it is another than allowed.
    pub strict: Option<Vec<f64>>,
    /// Largest error of another system's f32 result, if recorded.
    pub peer_err: Option<f64>,
}

/// How one output compares with what it must be.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The output.
    pub name: String,
    /// The place with the largest error as a fraction of its bound; its index is that of the whole output.
    pub worst: Worst,
    /// The largest error as a fraction of that of the best known result.
    pub strict_ratio: f64,
    /// Largest error of another system's f32 result, if recorded.
    pub peer_err: Option<f64>,
    /// What is wrong besides: another number of values.
    pub error: Option<String>,
}

impl Expected {
    /// An output in f32.
    pub(super) fn new(name: &str, values: Vec<f64>, bound: impl Fn(usize) -> f64) -> Self {
        Self::stored(DType::F32, name, values, bound)
    }

    /// An output that is stored as `dtype`; `bound` is that of the f32 result.
    pub(super) fn stored(dtype: DType, name: &str, values: Vec<f64>, bound: impl Fn(usize) -> f64) -> Self {
        let gate = (0..values.len()).map(|i| bounds::stored(dtype, values[i], bound(i))).collect();
        Self { name: name.to_owned(), dtype, gate, values, sample: None, strict: None, peer_err: None }
    }

    /// The gradient of a parameter, and if it is computed `twice`, that to which it was added once more.
    pub(super) fn of_parameter(
        dtype: DType,
        name: &str,
        values: Vec<f64>,
        bound: impl Fn(usize) -> f64,
        twice: bool,
    ) -> Vec<Self> {
        let once = Self::stored(dtype, name, values, &bound);
        if !twice {
            return vec![once];
        }
        let sums = once.values.iter().map(|value| 2.0 * value).collect();
        let again = Self::stored(dtype, &format!("{name}_twice"), sums, |p| once.gate[p] + bound(p));
        vec![again, once]
    }

    /// The same under another name.
    pub(super) fn named(&self, name: String) -> Self {
        Self { name, ..self.clone() }
    }

    /// `forward`, `backward` or `second`.
    pub fn pass(&self) -> &'static str {
        if self.name.starts_with("second") || self.name == "y_tangent" {
            return "second";
        }
        let gradients = ["dx", "dresidual", "dgate", "dweight", "dbias", "dalpha", "dshift", "sum_dy"];
        if gradients.iter().any(|name| self.name.starts_with(name)) { "backward" } else { "forward" }
    }

    /// y and dx must be NaN where NaN is expected; statistics may be infinite.
    fn where_nan(&self) -> WhereNan {
        match self.name.split('_').next() {
            Some("y" | "dx" | "dresidual" | "dgate") => WhereNan::Nan,
            _ => WhereNan::NonFinite,
        }
    }

    /// What a kernel without errors gives.
    pub fn results(&self) -> Vec<f32> {
        rounded(&narrow(self.values.clone()), self.dtype)
    }

    /// Compares an output, in logical order, with it.
    pub fn compare(&self, got: &[f32]) -> Compared {
        self.compare_within(got, 1.0)
    }

    /// The same, within so many times the bounds, of which errors are fractions then.
    pub fn compare_within(&self, got: &[f32], factor: f64) -> Compared {
        let sampled: Vec<f32>;
        let got = match &self.sample {
            None => got,
            Some(sample) => {
                sampled = sample.iter().map(|&i| got.get(i).copied().unwrap_or(f32::NAN)).collect();
                &sampled
            }
        };
        let compared =
            |bound: &dyn Fn(usize) -> f64| compare_as(self.dtype, got, &self.values, self.where_nan(), bound);
        let (worst, error) = match compared(&|i| factor * self.gate[i]) {
            Ok(worst) => {
                let index = self.sample.as_ref().map_or(worst.index, |sample| sample[worst.index]);
                (Worst { index, ..worst }, None)
            }
            Err(error) => {
                let nothing = Worst {
                    ratio: f64::INFINITY,
                    max_abs_err: f64::NAN,
                    index: 0,
                    got: 0.0,
                    expected: 0.0,
                    bound: 0.0,
                };
                (nothing, Some(error.to_string()))
            }
        };
        let strict = self.strict.as_ref().and_then(|strict| compared(&|i| strict[i]).ok());
        Compared {
            name: self.name.clone(),
            strict_ratio: strict.map_or(worst.ratio, |strict| strict.ratio),
            worst,
            peer_err: self.peer_err,
            error,
        }
    }
}

impl Compared {
    /// Whether every value is within its bound.
    pub fn passes(&self) -> bool {
        self.error.is_none() && self.worst.passes()
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => f.write_str(error),
            None => write!(f, "{}", self.worst),
        }
    }
}

/// Doubles the bounds of statistics, and of all that follows, where the first values of a slice are outliers.
pub(super) fn allow_for(data: Data, expectations: &mut [Expected]) {
    if data == Data::Padded {
        expectations.iter_mut().flat_map(|e| &mut e.gate).for_each(|bound| *bound *= 2.0);
    }
}

/// Sets dy to 0 where z is within the margin of a jump of the derivative, where a rounding error would show at its full height.
pub(super) fn avoid_kinks(
    activation: Activation,
    inputs: &mut Inputs,
    z: impl Fn(usize) -> f64,
    margin: impl Fn(usize) -> f64,
) {
    let kinks = kinks(activation);
    if kinks.is_empty() {
        return;
    }
    for (i, dy) in inputs.dy.iter_mut().flatten().enumerate() {
        if kinks.iter().any(|kink| (z(i) - kink).abs() <= margin(i)) {
            *dy = 0.0;
        }
    }
}
