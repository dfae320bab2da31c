//! Weights of convolutions and linear layers as frameworks lay them out, and which channels each weight stands between.

use crate::base::error::{Error, Result};

/// How the weights of a convolution or linear layer lie in memory, row-major; `k…` are any number of kernel axes, none for a
/// linear layer. I and O are all channels of the input and the output, of all groups together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightLayout {
    /// `[O, I/groups, k…]`: PyTorch, burn and ONNX, linear `[O, I]` (of burn: output last) and convolutions; depthwise with
    /// as many groups as inputs.
    OutputFirst {
        /// Groups of channels; 1 if all outputs see all inputs.
        groups: usize,
    },
    /// `[k…, I/groups, O]`: Keras and Flax, dense `[I, O]` and convolutions; also Flax' `ConvTranspose`.
    OutputLast {
        /// Groups of channels; 1 if all outputs see all inputs.
        groups: usize,
    },
    /// `[k…, C, m]`: Keras' `DepthwiseConv`. Each of the C inputs is a group with m outputs; output c·m + j is the j-th of input c.
    Depthwise,
    /// `[I, O/groups, k…]`: transposed convolutions of PyTorch, burn and ONNX.
    InputFirst {
        /// Groups of channels; 1 if all outputs see all inputs.
        groups: usize,
    },
    /// `[k…, O/groups, I]`: transposed convolutions of Keras.
    InputLast {
        /// Groups of channels; 1 if all outputs see all inputs.
        groups: usize,
    },
}

impl WeightLayout {
    /// The axes, as in the documentation.
    pub const fn axes(self) -> &'static str {
        match self {
            WeightLayout::OutputFirst { .. } => "[O, I/groups, k…]",
            WeightLayout::OutputLast { .. } => "[k…, I/groups, O]",
            WeightLayout::Depthwise => "[k…, C, m]",
            WeightLayout::InputFirst { .. } => "[I, O/groups, k…]",
            WeightLayout::InputLast { .. } => "[k…, O/groups, I]",
        }
    }

    /// Whether only transposed convolutions have it.
    const fn is_transposed(self) -> bool {
        matches!(self, WeightLayout::InputFirst { .. } | WeightLayout::InputLast { .. })
    }
}

/// What a convolution after a norm sees beyond the border of its input. Decides whether the shift of the norm adds the same to
/// every output, and so can become a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Border {
    /// Nothing: no padding (`valid`), or a linear layer.
    Unpadded,
    /// Values of the input itself, which the norm shifts too: reflected, replicated or circular padding.
    FromInput,
    /// Zeros, which the norm does not shift.
    Zeros,
    /// A transposed convolution: its outputs see different taps, whatever the padding.
    Transposed,
}

impl Border {
    /// Requires that what is added to every input is added to every output alike.
    pub(super) fn check(self, layout: WeightLayout) -> Result<()> {
        let why = match self {
            _ if layout.is_transposed() => TRANSPOSED,
            Border::Transposed => TRANSPOSED,
            Border::Zeros => {
                "at the border the convolution sees zeros, which the norm would not have shifted; keep the norm, or train without padding"
            }
            Border::Unpadded | Border::FromInput => return Ok(()),
        };
        Err(Error::InexactFolding { why })
    }
}

const TRANSPOSED: &str = "outputs of a transposed convolution see different taps, so the norm's shift would reach them differently";

/// Which side of the weights the norm is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Its channels are the outputs: the weights precede it.
    Outputs,
    /// Its channels are the inputs: the weights follow it.
    Inputs,
}

impl Side {
    pub fn of(self, at: Between) -> usize {
        match self {
            Side::Outputs => at.output,
            Side::Inputs => at.input,
        }
    }
}

/// The channels that a weight stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Between {
    pub output: usize,
    pub input: usize,
}

/// Weights as `[major, minor, taps]` or `[taps, minor, major]`. The major axis counts the channels of one side, all groups
/// together, the minor axis those of the other within a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub outputs: usize,
    pub inputs: usize,
    groups: usize,
    major: usize,
    minor: usize,
    taps: usize,
    major_first: bool,
    major_is_output: bool,
}

impl Geometry {
    pub fn new(layout: WeightLayout, dims: &[usize]) -> Result<Self> {
        let refuse = |groups: usize, why: &'static str| {
            let (axes, dims) = (layout.axes(), dims.to_vec());
            Err(Error::WeightShape { axes, dims, groups, why })
        };
        let (mut groups, major_first, major_is_output) = match layout {
            WeightLayout::OutputFirst { groups } => (groups, true, true),
            WeightLayout::OutputLast { groups } => (groups, false, true),
            WeightLayout::Depthwise => (1, false, true),
            WeightLayout::InputFirst { groups } => (groups, true, false),
            WeightLayout::InputLast { groups } => (groups, false, false),
        };
        let (first, last) = match *dims {
            [ref first @ .., a, b] if !major_first => (first, [a, b]),
            [a, b, ref last @ ..] if major_first => (last, [b, a]),
            _ => return refuse(groups, "there must be at least two axes"),
        };
        let [mut minor, mut major] = last;
        let all = dims.iter().try_fold(1_usize, |all, &dim| all.checked_mul(dim));
        let Some(all) = all.filter(|&all| all <= isize::MAX as usize / 8) else {
            return refuse(groups, "they are more than the machine can address");
        };
        if all == 0 {
            return refuse(groups, "there are none");
        }
        let taps = first.iter().product();
        if layout == WeightLayout::Depthwise {
            // [k…, C, m] lies in memory as [k…, 1, C·m].
            (groups, minor, major) = (minor, 1, minor * major);
        }
        if groups == 0 || !major.is_multiple_of(groups) {
            return refuse(groups, "the groups must divide the channels");
        }
        let Some(other) = minor.checked_mul(groups) else {
            return refuse(groups, "there are too many groups");
        };
        let (outputs, inputs) = if major_is_output { (major, other) } else { (other, major) };
        Ok(Self { outputs, inputs, groups, major, minor, taps, major_first, major_is_output })
    }

    /// Number of weights.
    pub fn len(&self) -> usize {
        self.major * self.minor * self.taps
    }

    /// Channels of a side.
    pub fn channels(&self, side: Side) -> usize {
        side.of(Between { output: self.outputs, input: self.inputs })
    }

    /// The channels that a weight stands between, by its index in memory.
    pub fn channels_of(&self, element: usize) -> Between {
        let (major, within) = match self.major_first {
            true => (element / (self.minor * self.taps), element / self.taps % self.minor),
            false => (element % self.major, element / self.major % self.minor),
        };
        self.between(major, self.of_group(major / (self.major / self.groups), within))
    }

    /// The weights as a batch with a norm over the channels of a side.
    pub fn rows(&self, side: Side) -> Rows {
        let &Self { groups, major, minor, taps, .. } = self;
        let all = |channels: usize| (0..channels).collect::<Vec<_>>();
        let over_major = (side == Side::Outputs) == self.major_is_output;
        let (outer, inner, channels) = match (over_major, self.major_first) {
            (true, true) => (1, minor * taps, all(major)),
            (true, false) => (taps * minor, 1, all(major)),
            (false, true) if groups == 1 => (major, taps, all(minor)),
            (false, false) if groups == 1 => (taps, major, all(minor)),
            // A channel of each group: more channels than the norm has, which repeat its own.
            (false, true) => {
                let channel = |row: usize| self.of_group(row / minor / (major / groups), row % minor);
                (1, taps, (0..major * minor).map(channel).collect())
            }
            (false, false) => {
                let channel = |row: usize| self.of_group(row % groups, row / groups);
                (taps, major / groups, (0..minor * groups).map(channel).collect())
            }
        };
        Rows { outer, inner, channels }
    }

    /// The channel among all of a channel of a group, on the minor side.
    fn of_group(&self, group: usize, within: usize) -> usize {
        group * self.minor + within
    }

    fn between(&self, major: usize, minor: usize) -> Between {
        match self.major_is_output {
            true => Between { output: major, input: minor },
            false => Between { output: minor, input: major },
        }
    }
}

/// Weights as `[outer, rows, inner]`, all of a row belonging to one channel of a norm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub outer: usize,
    pub inner: usize,
    /// The norm's channel of each row.
    pub channels: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layouts(groups: usize) -> [(WeightLayout, [usize; 4]); 5] {
        let g = groups;
        // Two kernel axes, 2 inputs and 3 outputs in each group.
        [
            (WeightLayout::OutputFirst { groups }, [3 * g, 2, 2, 3]),
            (WeightLayout::OutputLast { groups }, [2, 3, 2, 3 * g]),
            (WeightLayout::Depthwise, [2, 3, 2 * g, 3]),
            (WeightLayout::InputFirst { groups }, [2 * g, 3, 2, 3]),
            (WeightLayout::InputLast { groups }, [2, 3, 3, 2 * g]),
        ]
    }

    #[test]
    fn rows_agree_with_channels() {
        for groups in [1, 2, 4] {
            for (layout, dims) in layouts(groups) {
                let geometry = Geometry::new(layout, &dims).unwrap();
                assert_eq!(geometry.len(), dims.iter().product::<usize>(), "{layout:?}");
                for side in [Side::Outputs, Side::Inputs] {
                    let rows = geometry.rows(side);
                    assert_eq!(rows.outer * rows.channels.len() * rows.inner, geometry.len(), "{layout:?}");
                    for element in 0..geometry.len() {
                        let row = element / rows.inner % rows.channels.len();
                        let expected = side.of(geometry.channels_of(element));
                        assert_eq!(rows.channels[row], expected, "{layout:?} {side:?} [{element}]");
                        assert!(expected < geometry.channels(side));
                    }
                }
            }
        }
    }

    #[test]
    fn every_output_of_a_group_meets_every_input_of_it() {
        for (layout, dims) in layouts(2) {
            let geometry = Geometry::new(layout, &dims).unwrap();
            let groups = if layout == WeightLayout::Depthwise { 4 } else { 2 };
            let (outputs, inputs) = (geometry.outputs / groups, geometry.inputs / groups);
            let mut met = vec![0; geometry.outputs * geometry.inputs];
            for element in 0..geometry.len() {
                let at = geometry.channels_of(element);
                met[at.output * geometry.inputs + at.input] += 1;
            }
            for output in 0..geometry.outputs {
                for input in 0..geometry.inputs {
                    let expected = if output / outputs == input / inputs { 6 } else { 0 };
                    assert_eq!(met[output * geometry.inputs + input], expected, "{layout:?}");
                }
            }
        }
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let first = |groups| WeightLayout::OutputFirst { groups };
        for (layout, dims) in [
            (first(1), &[][..]),
            (first(1), &[4]),
            (WeightLayout::Depthwise, &[4]),
            (WeightLayout::OutputLast { groups: 1 }, &[4]),
            (first(0), &[4, 2]),
            (first(3), &[4, 2]),
            (WeightLayout::InputLast { groups: 2 }, &[4, 3]),
            (first(1), &[4, 2, 0]),
            (first(1), &[0, 2]),
            (first(1), &[usize::MAX, 2]),
            (first(usize::MAX), &[usize::MAX, 0]),
        ] {
            let refused = Geometry::new(layout, dims);
            assert!(matches!(refused, Err(Error::WeightShape { .. })), "{layout:?} {dims:?}: {refused:?}");
        }
    }
}
