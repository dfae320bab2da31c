//! Distributions of x, the hostile ones among them, and other reproducible values.

use std::fmt;

use super::random::{derived, uniform};
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};

/// Distributions of x, within each slice: a channel of batch norm, a row of layer norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Data {
    /// Near N(0, 1).
    #[default]
    Normal,
    /// Mean 1e4, standard deviation 0.1.
    LargeMean,
    /// Mean 300, standard deviation 4: large for 16-bit types.
    ShiftedMean,
    /// As `LargeMean`, with 0 as the first element of each slice (padding, ReLU).
    FirstZero,
    /// As `LargeMean`, with 0 as the first 40 elements of each slice: the first shift of every invocation of a small
    /// workgroup is an outlier, which docs/NUMERICS.md allows twice the error.
    Padded,
    /// One value a thousand standard deviations from the others.
    Outlier,
    /// The mean moves by 1000 standard deviations along the slice.
    Drift,
    /// One value per slice.
    Constant,
    /// Standard deviation 1e-7 about a mean of 1e-3.
    Tiny,
    /// Standard deviation 2^-53: the variance is nearly the least that kernels promise.
    Least,
    /// Standard deviation 2^-60: the variance is below that.
    Lost,
    /// Below the smallest normal number.
    Subnormal,
    /// Mean 1e20, spread 1e14: squares of values overflow, the variance does not.
    HugeMean,
    /// Standard deviation 1e18: squares are near overflow, the variance is not.
    HugeSpread,
    /// Each slice of another magnitude, from 2^-120 to 2^126.
    Magnitudes,
    /// Each value of another magnitude, from 2^-60 to 2^60 times that of its slice, which is from 2^-60 to 2^60.
    MixedMagnitudes,
    /// Slice 0 holds zeros. The others are normal.
    ZeroInOne,
    /// Slice 0 holds ±1e20: its variance overflows. The others are normal.
    OverflowInOne,
    /// Slice 0 holds a NaN.
    NanInOne,
    /// Slice 0 holds an infinity.
    InfInOne,
}

/// All of them by name.
const NAMES: [(&str, Data); 20] = [
    ("normal", Data::Normal),
    ("large_mean", Data::LargeMean),
    ("shifted_mean", Data::ShiftedMean),
    ("first_zero", Data::FirstZero),
    ("padded", Data::Padded),
    ("outlier", Data::Outlier),
    ("drift", Data::Drift),
    ("constant", Data::Constant),
    ("tiny", Data::Tiny),
    ("least", Data::Least),
    ("lost", Data::Lost),
    ("subnormal", Data::Subnormal),
    ("huge_mean", Data::HugeMean),
    ("huge_spread", Data::HugeSpread),
    ("magnitudes", Data::Magnitudes),
    ("mixed_magnitudes", Data::MixedMagnitudes),
    ("zero_in_one", Data::ZeroInOne),
    ("overflow_in_one", Data::OverflowInOne),
    ("nan_in_one", Data::NanInOne),
    ("inf_in_one", Data::InfInOne),
];

impl Data {
    /// Those that rounding, overflow or non-finite values could spoil.
    pub const HOSTILE: [Data; 12] = [
        Data::LargeMean,
        Data::FirstZero,
        Data::Padded,
        Data::Drift,
        Data::Constant,
        Data::Tiny,
        Data::Subnormal,
        Data::HugeMean,
        Data::HugeSpread,
        Data::OverflowInOne,
        Data::NanInOne,
        Data::InfInOne,
    ];

    /// Its name in lines.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, data)| *data == self).map_or("normal", |(name, _)| name)
    }
}

/// What gamma is like, besides being near 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Gamma {
    /// Of one sign in batch norm, negative here and there in the other norms.
    #[default]
    Plain,
    /// Its sign changes from channel to channel.
    Signs,
    /// So large that y overflows f16 where x does not.
    Large,
    /// Near 1e36: beside an inv_std of more than 400, their product is beyond f32.
    Huge,
    /// Too small in this channel for x̂ to be recovered from y.
    Lost(usize),
}

/// What values a problem has.
///
/// As part of a line: `data=drift gamma=signs seed=7`, each left out where it is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Draw {
    /// How x is distributed.
    pub data: Data,
    /// What gamma is like.
    pub gamma: Gamma,
    /// What pseudo-random numbers begin with.
    pub seed: u64,
}

impl Draw {
    /// Takes the words of a line that are its own, and returns the others.
    ///
    /// # Errors
    /// [`Error::Spec`] for values that these words do not have.
    pub fn take(line: &str) -> Result<(Self, String)> {
        let mut draw = Self::default();
        let mut others = Vec::new();
        let wrong = |word: &str| Error::Spec { reason: format!("{word:?}: not a value that this can be") };
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some(("data", name)) => {
                    let found = NAMES.iter().find(|(known, _)| *known == name);
                    draw.data = found.ok_or_else(|| wrong(word))?.1;
                }
                Some(("seed", seed)) => draw.seed = seed.parse().map_err(|_| wrong(word))?,
                Some(("gamma", "signs")) => draw.gamma = Gamma::Signs,
                Some(("gamma", "large")) => draw.gamma = Gamma::Large,
                Some(("gamma", "huge")) => draw.gamma = Gamma::Huge,
                Some(("gamma", lost)) => {
                    let channel = lost.strip_prefix("lost:").and_then(|channel| channel.parse().ok());
                    draw.gamma = Gamma::Lost(channel.ok_or_else(|| wrong(word))?);
                }
                _ => others.push(word),
            }
        }
        Ok((draw, others.join(" ")))
    }
}

impl fmt::Display for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if self.data != Data::Normal {
            words.push(format!("data={}", self.data.name()));
        }
        match self.gamma {
            Gamma::Plain => {}
            Gamma::Signs => words.push("gamma=signs".to_owned()),
            Gamma::Large => words.push("gamma=large".to_owned()),
            Gamma::Huge => words.push("gamma=huge".to_owned()),
            Gamma::Lost(channel) => words.push(format!("gamma=lost:{channel}")),
        }
        if self.seed != 0 {
            words.push(format!("seed={}", self.seed));
        }
        f.write_str(&words.join(" "))
    }
}

/// Uniform pseudo-random numbers in [-1, 1) for a part of what has a seed.
pub(super) fn uniform_of(seed: u64, what: &str, len: usize) -> Vec<f64> {
    uniform(derived(seed, what)).take(len).collect()
}

/// Sums of three uniform numbers: variance 1, bounded, bell-shaped.
pub(super) fn bell(seed: u64, len: usize) -> Vec<f64> {
    let [a, b, c] = [0, 1, 2].map(|i| uniform(derived(seed, &format!("/{i}"))));
    a.zip(b).zip(c).map(|((a, b), c)| a + b + c).take(len).collect()
}

/// x whose slices, each the flat indices of its elements, are distributed so.
pub(super) fn x_of(
    seed: u64,
    elements: usize,
    slices: impl IntoIterator<Item = Vec<usize>>,
    data: Data,
) -> Vec<f32> {
    let normal = bell(seed, elements);
    let mut x = vec![0.0; elements];
    for (slice, indices) in slices.into_iter().enumerate() {
        let (k, count) = (slice as f64, indices.len() as f64);
        for (position, i) in indices.into_iter().enumerate() {
            let z = normal[i];
            x[i] = match data {
                Data::Normal => 0.3 * k.min(10.0) + z * (1.0 + 0.1 * k.min(10.0)),
                Data::LargeMean => 1e4 + 0.1 * z,
                Data::ShiftedMean => 300.0 + 4.0 * z,
                Data::FirstZero if position == 0 => 0.0,
                Data::Padded if position < 40 => 0.0,
                Data::FirstZero | Data::Padded => 1e4 + 0.1 * z,
                Data::Outlier if position == 2 => 1e3,
                Data::Outlier => z,
                Data::Drift => 1e3 * position as f64 / count + z,
                Data::Constant => 3.7 - 1e3 * k,
                Data::Tiny => 1e-3 + 1e-7 * z,
                Data::Least => z * 2_f64.powi(-53),
                Data::Lost => z * 2_f64.powi(-60),
                Data::Subnormal => 1e-41 * z,
                Data::HugeMean => 1e20 + 1e14 * z,
                Data::HugeSpread => 1e18 * z,
                // Steps that reach all magnitudes, a few slices or many.
                Data::Magnitudes => z * 2_f64.powi((slice * 101 + 190) as i32 % 247 - 120),
                Data::MixedMagnitudes => {
                    let of = |index: usize| 2_f64.powi((index * 53) as i32 % 121 - 60);
                    z * of(slice) * of(position + slice)
                }
                Data::ZeroInOne if slice == 0 => 0.0,
                Data::OverflowInOne if slice == 0 => 1e20 * z.signum(),
                Data::NanInOne if slice == 0 && position == 1 => f64::NAN,
                Data::InfInOne if slice == 0 && position == 1 => f64::INFINITY,
                Data::ZeroInOne | Data::OverflowInOne | Data::NanInOne | Data::InfInOne => z,
            } as f32;
        }
    }
    x
}

/// As f32.
pub fn narrow(values: Vec<f64>) -> Vec<f32> {
    values.into_iter().map(|value| value as f32).collect()
}

/// As f64.
pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// What x holds where it is stored as `dtype`. What overflows in f32 is infinite in f16, so there it is what its own squares would
/// overflow of.
pub(super) fn stored(mut x: Vec<f32>, dtype: DType, data: Data) -> Vec<f32> {
    if dtype == DType::F16 && matches!(data, Data::OverflowInOne) {
        x.iter_mut().for_each(|x| *x = x.clamp(-6e4, 6e4));
    }
    rounded(&x, dtype)
}

/// Values as a type stores them.
pub fn rounded(values: &[f32], dtype: DType) -> Vec<f32> {
    dtype.decode(&dtype.encode(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        for line in
            ["", "data=drift", "gamma=signs seed=7", "data=tiny gamma=lost:1 seed=18446744073709551615"]
        {
            let (draw, rest) = Draw::take(&format!("batch {line} 2x3 relu")).unwrap();
            assert_eq!((draw.to_string().as_str(), rest.as_str()), (line, "batch 2x3 relu"));
        }
        for wrong in ["data=blue", "seed=-1", "gamma=lost", "gamma=lost:x"] {
            assert!(Draw::take(wrong).is_err(), "{wrong}");
        }
    }
}
