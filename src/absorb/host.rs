//! Weights in slices.

use super::deviation::Deviation;
use super::geometry::{Border, Geometry, Side, WeightLayout};
use super::norm::{Exact, InferenceNorm, check_representable, check_values};
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;

/// Weights and bias of a convolution or linear layer, on the host.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// The weights, row-major.
    pub values: &'a [f32],
    /// Their axes, of any number from two.
    pub dims: &'a [usize],
    /// What the axes are.
    pub layout: WeightLayout,
    /// The bias `[O]`, if there is one.
    pub bias: Option<&'a [f32]>,
}

/// Weights and bias that do what they did and a batch norm besides.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Absorbed {
    /// The weights, in the order of those that were given.
    pub weight: Vec<f32>,
    /// The bias `[O]`.
    pub bias: Vec<f32>,
    /// What rounding has changed.
    pub deviation: Deviation,
}

impl<T: Copy + Into<f64>> InferenceNorm<'_, T> {
    /// The weights of the convolution or linear layer before this norm, so that the norm can be left out: `norm(conv(x))` is the new
    /// convolution of x. Exact for every stride, padding, dilation, grouping, and for transposed convolutions, because the norm sees
    /// outputs alone. Computed in f64, rounded once.
    ///
    /// ```text
    /// w'[o, …] = w[o, …]·scale[o]        b'[o] = (b[o] − mean[o])·scale[o] + beta[o]
    /// ```
    ///
    /// # Errors
    /// Those of [`scale_shift`](Self::scale_shift) but for results; [`Error::WeightShape`]; [`Error::Length`] for weights or
    /// bias; [`Error::Channels`] unless the outputs are the norm's channels; [`Error::Value`] for a weight or bias that is not
    /// finite; [`Error::Unrepresentable`] for one beyond f32.
    pub fn absorb_into_preceding(&self, weights: &Weights<'_>) -> Result<Absorbed> {
        absorb(&self.exact()?, weights, Side::Outputs, None)
    }

    /// The weights of the convolution or linear layer after this norm, so that the norm can be left out: `conv(norm(x))` is the new
    /// convolution of x. Exact only where the norm's shift adds the same to every output: see [`Border`]. With another border it is
    /// refused, unless the shift is 0 in every channel. Nothing may stand between the two, such as an activation. Computed in f64,
    /// rounded once.
    ///
    /// ```text
    /// w'[o, i, …] = w[o, i, …]·scale[i]        b'[o] = b[o] + Σ w[o, i, …]·shift[i]
    /// ```
    ///
    /// # Errors
    /// [`Error::InexactFolding`] where it would not be exact; else as [`absorb_into_preceding`](Self::absorb_into_preceding), with the
    /// inputs as the norm's channels.
    ///
    /// ```
    /// use wgnorm::absorb::{Border, InferenceNorm, WeightLayout, Weights};
    /// let norm: InferenceNorm =
    ///     InferenceNorm { mean: &[1.0, 2.0], var: &[1.0, 1.0], gamma: None, beta: None, eps: 1e-12 };
    /// let (values, layout) = (&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], WeightLayout::OutputFirst { groups: 1 });
    /// let weights = Weights { values, dims: &[1, 2, 3], layout, bias: None };
    /// let absorbed = norm.absorb_into_following(&weights, Border::Unpadded)?;
    /// assert_eq!(absorbed.bias, [-6.0 - 2.0 * 15.0]);
    ///
    /// let padded = norm.absorb_into_following(&weights, Border::Zeros);
    /// assert!(padded.unwrap_err().to_string().contains("at the border"));
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    pub fn absorb_into_following(&self, weights: &Weights<'_>, border: Border) -> Result<Absorbed> {
        absorb(&self.exact()?, weights, Side::Inputs, Some(border))
    }
}

fn absorb(exact: &Exact, weights: &Weights<'_>, side: Side, border: Option<Border>) -> Result<Absorbed> {
    let &Weights { values, dims, layout, bias } = weights;
    let geometry = Geometry::new(layout, dims)?;
    if values.len() != geometry.len() {
        let (expected, got) = (geometry.len() as u64, values.len() as u64);
        let shape = Shape::new(dims).unwrap_or(Shape::per_channel(expected));
        return Err(Error::Length { what: "weight", shape, expected, got });
    }
    let task = Task { exact, geometry, side };
    task.check(values, bias, border.map(|border| (border, layout)))?;
    let biases = task.exact_bias(values, bias);
    check_representable("the folded weight", task.exact_weights(values), DType::F32, 0.0)?;
    check_representable("the folded bias", biases.iter().copied(), DType::F32, 0.0)?;
    let weight: Vec<_> = task.exact_weights(values).map(|weight| weight as f32).collect();
    let bias: Vec<_> = biases.iter().map(|&bias| bias as f32).collect();
    let deviation = task.deviation((values, &weight), (&biases, &bias));
    Ok(Absorbed { weight, bias, deviation })
}

/// A norm and weights on one of its sides.
pub(super) struct Task<'a> {
    pub exact: &'a Exact,
    pub geometry: Geometry,
    pub side: Side,
}

impl Task<'_> {
    /// Requires sound values that fit the norm, and on its far side that the result is exact.
    pub fn check(
        &self,
        values: &[f32],
        bias: Option<&[f32]>,
        border: Option<(Border, WeightLayout)>,
    ) -> Result<()> {
        let (expected, got) = (self.exact.scale.len() as u64, self.geometry.channels(self.side) as u64);
        if expected != got {
            let what = match self.side {
                Side::Outputs => "the output of the weight before the norm",
                Side::Inputs => "the input of the weight after the norm",
            };
            return Err(Error::Channels { what, expected, got });
        }
        let outputs = self.geometry.outputs as u64;
        if let Some(bias) = bias.filter(|bias| bias.len() as u64 != outputs) {
            let (shape, got) = (Shape::per_channel(outputs), bias.len() as u64);
            return Err(Error::Length { what: "bias", shape, expected: outputs, got });
        }
        for (what, values) in [("weight", values), ("bias", bias.unwrap_or(&[]))] {
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                let got = values[index].into();
                return Err(Error::Value { what, index: index as u64, expected: "finite", got });
            }
        }
        check_values("scale", &self.exact.scale, "finite in f64", f64::is_finite)?;
        let shift = self.exact.shift();
        check_values("shift", &shift, "finite in f64", f64::is_finite)?;
        match border {
            Some((border, layout)) if shift.iter().any(|&shift| shift != 0.0) => border.check(layout),
            _ => Ok(()),
        }
    }

    pub fn exact_weights(&self, values: &[f32]) -> impl Iterator<Item = f64> {
        values.iter().enumerate().map(|(element, &value)| {
            f64::from(value) * self.exact.scale[self.side.of(self.geometry.channels_of(element))]
        })
    }

    /// The biases, `[O]`.
    pub fn exact_bias(&self, values: &[f32], bias: Option<&[f32]>) -> Vec<f64> {
        if self.side == Side::Outputs {
            return self.exact.normalized(bias);
        }
        let shift = self.exact.shift();
        let mut sums = vec![0.0; self.geometry.outputs];
        for (element, &value) in values.iter().enumerate() {
            let at = self.geometry.channels_of(element);
            sums[at.output] += f64::from(value) * shift[at.input];
        }
        for (sum, &bias) in sums.iter_mut().zip(bias.unwrap_or(&[])) {
            *sum += f64::from(bias);
        }
        sums
    }

    pub fn deviation(&self, weights: (&[f32], &[f32]), biases: (&[f64], &[f32])) -> Deviation {
        Deviation::of_weights(&self.geometry, self.side, &self.exact.scale, weights, biases)
    }
}
