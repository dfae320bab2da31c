//! A y of int8: what it must be, and the scales of its rows.

use super::expected::Expected;
use crate::base::dtype::DType;
use crate::reference::bounds::U;
use crate::spec::AsInt8;

/// y in rows of so many values, with its bounds before it is stored, as int8 and scales. Values may be on either side of a half.
pub(super) fn expected(int8: AsInt8, y: &[f64], bound: impl Fn(usize) -> f64, row: usize) -> Vec<Expected> {
    let (scales, errors) = match int8 {
        AsInt8::PerTensor { scale, .. } => (vec![f64::from(scale); y.len().div_ceil(row.max(1))], Vec::new()),
        AsInt8::PerRow => {
            (0..y.len()).step_by(row.max(1)).map(|first| scale_of(y, &bound, first..first + row)).unzip()
        }
    };
    let zero = match int8 {
        AsInt8::PerTensor { zero_point, .. } => f64::from(zero_point),
        AsInt8::PerRow => 0.0,
    };
    let of = |i: usize| (i / row, scales[i / row]);
    let value = |i: usize| match of(i).1 {
        // NaN has no int8, and of nothing but zeros there are zeros.
        scale if (y[i] / scale).is_nan() => zero,
        scale => (y[i] / scale + zero).clamp(-128.0, 127.0),
    };
    // Steps by which y and its scale are off; and the quotient's own rounding.
    let gate = |i: usize| match of(i) {
        (_, scale) if (y[i] / scale).is_nan() => 0.0,
        (row, scale) => {
            let of_scale = errors.get(row).map_or(0.0, |error| error / scale);
            bound(i) / scale + (y[i] / scale).abs() * (of_scale + 8.0 * U) + 4.0 * U * zero.abs()
        }
    };
    let mut all = vec![Expected::stored(DType::I8, "y", (0..y.len()).map(value).collect(), gate)];
    if int8 == AsInt8::PerRow {
        all.push(Expected::new("scales", scales.clone(), |row| errors[row]));
    }
    all
}

/// The scale of a row, and its error: of NaN NaN.
fn scale_of(y: &[f64], bound: &impl Fn(usize) -> f64, row: std::ops::Range<usize>) -> (f64, f64) {
    let greatest = |so_far: f64, value: f64| {
        if so_far.is_nan() || value.is_nan() { f64::NAN } else { so_far.max(value) }
    };
    let magnitude = row.clone().map(|i| y[i].abs()).fold(0.0, greatest);
    let error = row.map(bound).fold(0.0, f64::max);
    (magnitude / 127.0, (error + 4.0 * U * magnitude) / 127.0)
}
