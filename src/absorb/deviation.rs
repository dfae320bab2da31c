//! How far stored weights are from exact ones.

use super::geometry::{Geometry, Side};

/// How far stored weights and biases are from those that f64 gives, because storing rounds them (and, for tensors, because
/// the GPU computes in f32).
///
/// It is about the values alone. The convolution has rounding errors of its own, and a bias that is much larger than what is added
/// to it, as after a norm with |mean| ≫ standard deviation, lets them show.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Deviation {
    /// Largest |stored − exact| of a weight; of a scale, for a [`ScaleShift`](super::ScaleShift).
    pub weight: f64,
    /// Largest |stored − exact| of a bias; of a shift, for a [`ScaleShift`](super::ScaleShift).
    pub bias: f64,
    /// Largest sum of |stored − exact| over the weights of one output channel: by how much an output can differ for each unit of the
    /// largest |input|, bias aside.
    pub output_per_input: f64,
}

impl Deviation {
    /// By how much an output can differ at most if no input is larger in magnitude than `largest_input`:
    /// `output_per_input·largest_input + bias`.
    pub fn of_output(&self, largest_input: f64) -> f64 {
        // Without inputs to weigh, infinite inputs do not matter.
        let weights = if self.output_per_input == 0.0 { 0.0 } else { self.output_per_input * largest_input };
        weights + self.bias
    }

    /// That of values per channel.
    pub(super) fn per_channel(scale: f64, shift: f64) -> Self {
        Self { weight: scale, bias: shift, output_per_input: scale }
    }

    /// That of weights which are `values` times the scales of a norm.
    pub(super) fn of_weights(
        geometry: &Geometry,
        side: Side,
        scale: &[f64],
        (values, stored): (&[f32], &[f32]),
        (exact_bias, stored_bias): (&[f64], &[f32]),
    ) -> Self {
        let mut sums = vec![0.0; geometry.outputs];
        let mut weight: f64 = 0.0;
        for (element, (&value, &stored)) in values.iter().zip(stored).enumerate() {
            let at = geometry.channels_of(element);
            let off = (f64::from(stored) - f64::from(value) * scale[side.of(at)]).abs();
            weight = largest(weight, off);
            sums[at.output] += off;
        }
        Self {
            weight,
            bias: largest_difference(exact_bias, stored_bias),
            output_per_input: sums.into_iter().fold(0.0, largest),
        }
    }
}

pub(super) fn largest_difference(exact: &[f64], stored: &[f32]) -> f64 {
    exact.iter().zip(stored).map(|(&exact, &stored)| (f64::from(stored) - exact).abs()).fold(0.0, largest)
}

/// The larger, NaN before all: what is not a number must not pass as exact.
fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
