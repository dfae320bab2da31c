//! Distributions of x, the hostile ones among them, and other reproducible values.

use wgnorm::reference::reduce;
use wgnorm::{Channels, DType, Layout, Shape};

use crate::random;

/// Distributions of x, within each slice: a channel of batch norm, a row of layer norm.
#[derive(Clone, Copy)]
pub enum Data {
    /// Near N(0, 1).
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
    /// Below the smallest normal number.
    Subnormal,
    /// Mean 1e20, spread 1e14: squares of values overflow, the variance does not.
    HugeMean,
    /// Standard deviation 1e18: squares are near overflow, the variance is not.
    HugeSpread,
    /// Slice 0 holds ±1e20: its variance overflows. The others are normal.
    OverflowInOne,
    /// Slice 0 holds a NaN.
    NanInOne,
    /// Slice 0 holds an infinity.
    InfInOne,
}

pub const HOSTILE: [(&str, Data); 12] = [
    ("large_mean", Data::LargeMean),
    ("first_zero", Data::FirstZero),
    ("padded", Data::Padded),
    ("drift", Data::Drift),
    ("constant", Data::Constant),
    ("tiny", Data::Tiny),
    ("subnormal", Data::Subnormal),
    ("huge_mean", Data::HugeMean),
    ("huge_spread", Data::HugeSpread),
    ("overflow_in_one", Data::OverflowInOne),
    ("nan_in_one", Data::NanInOne),
    ("inf_in_one", Data::InfInOne),
];

/// The element types of batches.
pub const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// Uniform pseudo-random numbers in [-1, 1).
pub fn uniform(seed: &str, len: usize) -> Vec<f64> {
    random::uniform(random::seed_of(seed)).take(len).collect()
}

/// Sums of three uniform numbers: variance 1, bounded, bell-shaped.
pub fn bell(seed: &str, len: usize) -> Vec<f64> {
    let parts: Vec<_> = (0..3).map(|i| uniform(&format!("{seed}/{i}"), len)).collect();
    (0..len).map(|i| parts[0][i] + parts[1][i] + parts[2][i]).collect()
}

/// x whose channels are distributed so.
pub fn x_of(seed: &str, dims: &[usize], data: Data) -> Vec<f32> {
    let view = view(dims);
    let channels = (0..view.channels).map(|c| reduce::channel(view, c).collect());
    x_of_slices(seed, view.elements() as usize, channels, data)
}

/// x whose slices, each the flat indices of its elements, are distributed so.
pub fn x_of_slices(
    seed: &str,
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
                Data::Subnormal => 1e-41 * z,
                Data::HugeMean => 1e20 + 1e14 * z,
                Data::HugeSpread => 1e18 * z,
                Data::OverflowInOne if slice == 0 => 1e20 * z.signum(),
                Data::NanInOne if slice == 0 && position == 1 => f64::NAN,
                Data::InfInOne if slice == 0 && position == 1 => f64::INFINITY,
                Data::OverflowInOne | Data::NanInOne | Data::InfInOne => z,
            } as f32;
        }
    }
    x
}

/// A shape as names of cases have it.
pub fn name_of(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// A shape in logical order as channels.
pub fn view(dims: &[usize]) -> Channels {
    Shape::new(dims).and_then(|shape| shape.channels(Layout::ChannelsFirst)).expect("a valid shape")
}

pub fn narrow(values: Vec<f64>) -> Vec<f32> {
    values.into_iter().map(|value| value as f32).collect()
}

pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// What x holds where it is stored as `dtype`. What overflows in f32 is infinite in f16, so there it is what its own squares would
/// overflow of.
pub fn stored(mut x: Vec<f32>, dtype: DType, data: Data) -> Vec<f32> {
    if dtype == DType::F16 && matches!(data, Data::OverflowInOne) {
        x.iter_mut().for_each(|x| *x = x.clamp(-6e4, 6e4));
    }
    rounded(&x, dtype)
}

/// Values as a type stores them.
pub fn rounded(values: &[f32], dtype: DType) -> Vec<f32> {
    dtype.decode(&dtype.encode(values))
}
