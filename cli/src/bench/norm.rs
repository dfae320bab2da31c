//! Which norm is benchmarked, and what shapes, layouts and operations it has.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Serialize, Serializer};
use wgnorm::spectral::PowerOrder;
use wgnorm::{Activation, GateOrder, Layout, RunningVariance, Shape, spec};

use super::BenchOp;
use super::variant::Variant;
use crate::layout;

/// The norms by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum NormName {
    /// Channels of a batch
    Batch,
    /// The last axis
    Layer,
    /// The last axis, without a mean
    Rms,
    /// Groups of channels of each sample (--groups)
    Group,
    /// Each channel of each sample
    Instance,
    /// Each channel of each graph of rows (--segments), with a learned part of the mean subtracted
    Graph,
    /// Each channel of each sample, by a mixture of its statistics, its layer's and the batch's
    Switchable,
    /// All axes but the second, without parameters
    MeanVariance,
    /// The second axis, divided by its length
    L2,
    /// The last axis, divided by its length, with one parameter
    Scale,
    /// All axes but the first, divided by their length
    Weight,
    /// All axes but the first
    Standardization,
    /// All axes but the first, of a matrix of them divided by its greatest singular value
    Spectral,
    /// No norm: tanh of each value
    DynamicTanh,
    /// No norm: erf of each value
    Derf,
}

/// A norm with what it takes beside a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Norm {
    pub name: NormName,
    /// Of group norm.
    pub groups: Option<usize>,
    /// Of norms over any axes, if they are others than usual.
    pub axes: Option<Axes>,
    /// Rows of a segment, on average, of norms over segments of rows.
    pub segments: Option<usize>,
}

/// Axes in any order, as in `3,1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axes([Option<usize>; Shape::MAX_RANK]);

impl Axes {
    pub fn list(self) -> Vec<usize> {
        self.0.into_iter().flatten().collect()
    }
}

impl FromStr for Axes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |axis: &str| axis.parse().map_err(|_| format!("{axis:?} is no axis"));
        let axes = text.split(',').map(number).collect::<Result<Vec<usize>, _>>()?;
        let mut all = [None; Shape::MAX_RANK];
        if axes.len() > all.len() {
            return Err(format!("{} axes: a tensor has at most {}", axes.len(), all.len()));
        }
        all.iter_mut().zip(axes).for_each(|(place, axis)| *place = Some(axis));
        Ok(Self(all))
    }
}

impl fmt::Display for Axes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.list().iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }
}

impl Serialize for Axes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Norm {
    pub const BATCH: Self = Self::plain(NormName::Batch);

    /// A norm without groups.
    pub const fn plain(name: NormName) -> Self {
        Self { name, groups: None, axes: None, segments: None }
    }

    /// Group norm.
    pub const fn group(groups: usize) -> Self {
        Self { groups: Some(groups), ..Self::plain(NormName::Group) }
    }

    /// A norm by name; only group norm takes the groups.
    pub fn named(name: NormName, groups: usize) -> Self {
        if name == NormName::Group { Self::group(groups) } else { Self::plain(name) }
    }

    /// The same over these axes.
    pub fn over(self, axes: Option<Axes>) -> Result<Self, String> {
        use NormName::{L2, Layer, MeanVariance, Rms};
        match axes {
            Some(_) if !matches!(self.name, Layer | Rms | MeanVariance | L2) => {
                Err(format!("--axes: not of {}; choose layer, rms, mean_variance or l2", self.name()))
            }
            axes => Ok(Self { axes, ..self }),
        }
    }

    /// The same over segments of so many rows on average.
    pub fn in_segments(self, segments: Option<usize>) -> Result<Self, String> {
        use NormName::{Graph, Group, Instance, Layer};
        match segments {
            Some(_) if !matches!(self.name, Layer | Group | Instance | Graph) => {
                Err(format!("--segments: not of {}; choose layer, group, instance or graph", self.name()))
            }
            segments => Ok(Self { segments, ..self }),
        }
    }

    /// The lengths of its segments of so many rows: 1 to nearly twice the average, by a generator that pytorch.py has too.
    pub fn segment_lengths(self, rows: usize) -> Option<Vec<usize>> {
        let (average, mut left, mut state) = (self.segments?, rows, 1_u64);
        let mut lengths = Vec::new();
        while left > 0 {
            state = (state * 1_103_515_245 + 12345) % (1 << 31);
            let length = (1 + (state >> 16) as usize % (2 * average - 1)).min(left);
            lengths.push(length);
            left -= length;
        }
        Some(lengths)
    }

    /// The name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self.name {
            NormName::Batch => "batch",
            NormName::Layer => "layer",
            NormName::Rms => "rms",
            NormName::Group => "group",
            NormName::Instance => "instance",
            NormName::Graph => "graph",
            NormName::Switchable => "switchable",
            NormName::MeanVariance => "mean_variance",
            NormName::L2 => "l2",
            NormName::Scale => "scale",
            NormName::Weight => "weight",
            NormName::Standardization => "standardization",
            NormName::Spectral => "spectral",
            NormName::DynamicTanh => "dynamic_tanh",
            NormName::Derf => "derf",
        }
    }

    /// The name with the number of groups, the axes, or the rows of segments, if there are any.
    pub fn label(self) -> String {
        label(self.name(), self.groups, self.axes.map(|axes| axes.to_string()).as_deref(), self.segments)
    }

    pub fn is_batch(self) -> bool {
        self.name == NormName::Batch
    }

    /// Whether a function of each value stands in the place of a norm.
    pub const fn is_curve(self) -> bool {
        matches!(self.name, NormName::DynamicTanh | NormName::Derf)
    }

    /// Whether statistics are mixtures.
    pub const fn is_switchable(self) -> bool {
        matches!(self.name, NormName::Switchable)
    }

    /// Whether it is of all of a weight.
    pub const fn is_spectral(self) -> bool {
        matches!(self.name, NormName::Spectral)
    }

    /// The norm over a shape; batch norm in training. Where axes can be chosen and are not, they are those of ONNX's default, and of PyTorch's.
    pub fn spec(self, dims: &[usize]) -> spec::Norm {
        match self.name {
            NormName::MeanVariance if self.axes.is_some() => spec::Norm::MeanVariance(self.ascending_axes()),
            NormName::L2 if self.axes.is_some() => spec::Norm::L2(self.ascending_axes()),
            NormName::Batch => spec::Norm::Batch,
            NormName::Layer => spec::Norm::Layer(1),
            NormName::Rms => spec::Norm::Rms(1),
            NormName::Group => spec::Norm::Group(self.groups.unwrap_or(1)),
            NormName::Instance => spec::Norm::Instance,
            NormName::Graph => spec::Norm::Graph,
            NormName::Switchable => spec::Norm::Switchable(RunningVariance::Biased),
            NormName::MeanVariance => {
                spec::Norm::MeanVariance((0..dims.len()).filter(|&axis| axis != 1).collect())
            }
            NormName::L2 => spec::Norm::L2(vec![1]),
            NormName::Scale => spec::Norm::Scale,
            NormName::Weight => spec::Norm::Weight,
            NormName::Standardization => spec::Norm::WeightStandardization,
            NormName::Spectral => spec::Norm::Spectral(0, PowerOrder::VFirst),
            NormName::DynamicTanh => spec::Norm::DynamicTanh,
            NormName::Derf => spec::Norm::Derf,
        }
    }

    fn ascending_axes(self) -> Vec<usize> {
        let mut axes = self.axes.map(Axes::list).unwrap_or_default();
        axes.sort_unstable();
        axes
    }

    /// The axes of layer and RMS norm, if they are not the last.
    pub fn axes_of_spec(self) -> Option<Vec<usize>> {
        self.axes.filter(|_| matches!(self.name, NormName::Layer | NormName::Rms)).map(Axes::list)
    }

    /// Whether the order of axes in memory is a choice: not where slices are rows, or those of segments, or chosen by axis.
    const fn has_layout(self) -> bool {
        self.segments.is_none()
            && matches!(
                self.name,
                NormName::Batch
                    | NormName::Group
                    | NormName::Instance
                    | NormName::Switchable
                    | NormName::DynamicTanh
                    | NormName::Derf
            )
    }

    /// The layouts to time of those that were asked for; none asks for all.
    pub fn layouts(self, wanted: &[Layout]) -> Result<Vec<Layout>, String> {
        match self.has_layout() {
            true if wanted.is_empty() => Ok(layout::ALL.to_vec()),
            true => Ok(wanted.to_vec()),
            false if wanted.is_empty() || wanted.contains(&Layout::ChannelsFirst) => {
                Ok(vec![Layout::ChannelsFirst])
            }
            false => Err(format!(
                "--layout: {} norm has one, that of the shape (channels_first in the results)",
                self.name()
            )),
        }
    }

    /// The operations that there are.
    pub fn ops(self) -> &'static [BenchOp] {
        if self.is_batch() {
            &[BenchOp::TrainForward, BenchOp::TrainBackward, BenchOp::Inference, BenchOp::FrozenBackward]
        } else if self.is_curve() || self.is_spectral() || self.is_switchable() {
            &[BenchOp::TrainForward, BenchOp::TrainBackward]
        } else {
            &[BenchOp::TrainForward, BenchOp::TrainBackward, BenchOp::Inference]
        }
    }

    /// Says why a shape is none of this norm's.
    pub fn check_shape(self, dims: &[usize]) -> Result<(), String> {
        let shape = Shape::new(dims).map_err(|error| error.to_string())?;
        if shape.len() == 0 {
            return Err(format!("shape {shape} has no elements"));
        }
        let few = |of: &str| Err(format!("shape {shape} has fewer than 2 values per {of}"));
        if let Some(axes) = self.axes {
            let list = axes.list();
            let twice = list.iter().enumerate().any(|(i, axis)| list[..i].contains(axis));
            if twice || list.iter().any(|&axis| axis >= dims.len()) {
                return Err(format!("--axes {axes}: expected some of those of {shape}, each once"));
            }
        }
        if (self.segments.is_some() || self.name == NormName::Graph) && dims.len() != 2 {
            return Err(format!("shape {shape}: rows in segments are of a shape of 2 axes, ROWS,C"));
        }
        match self {
            Self { segments: Some(_), .. } | Self { name: NormName::Graph, .. } => Ok(()),
            Self { name: NormName::Spectral, .. } if dims.len() < 2 => {
                Err(format!("shape {shape}: a weight has at least 2 axes"))
            }
            Self { name: NormName::Batch, .. } if shape.len() < 2 * dims[1] as u64 => few("channel"),
            Self { name: NormName::Instance, .. } if shape.len() < 2 * (dims[0] * dims[1]) as u64 => {
                few("instance")
            }
            Self { groups: Some(groups), .. } if groups == 0 || !dims[1].is_multiple_of(groups) => Err(
                format!("shape {shape}: {groups} groups do not divide {} channels; set --groups", dims[1]),
            ),
            Self { groups: Some(groups), .. } if shape.len() < 2 * (dims[0] * groups) as u64 => few("group"),
            _ => Ok(()),
        }
    }

    /// Says why an operation is not possible.
    pub fn check_op(self, op: BenchOp, variant: Variant) -> Result<(), String> {
        if variant.int8 && (op != BenchOp::Inference || self.is_curve()) {
            return Err(format!(
                "--int8: {} of {} has no y of int8; choose --op inference",
                op.name(),
                self.name()
            ));
        }
        let Variant { residual, in_place, sum, gate, .. } = variant;
        if op.is_derivative() && (self.is_curve() || residual || in_place || sum || gate.is_some()) {
            return Err(format!(
                "--op {}: of norms and activations alone; leave out --residual, --in-place, --sum and --gate",
                op.name()
            ));
        }
        if self.is_batch() {
            return match (variant.sum, variant.gate) {
                (true, _) => Err("--sum: batch norm has no sum before it; choose another --norm".to_owned()),
                (_, Some(_)) => Err("--gate: batch norm has none; choose another --norm".to_owned()),
                _ => variant.check(op),
            };
        }
        if (self.segments.is_some() || self.name == NormName::Graph)
            && !(op != BenchOp::FrozenBackward
                && !op.is_derivative()
                && Variant { activation: Activation::None, ..variant }.is_plain())
        {
            return Err(format!(
                "--op {}: over segments there are train_forward, train_backward and inference, and an activation at the most",
                op.name()
            ));
        }
        let beside = variant.sum || variant.gate.is_some() || variant.int8;
        if self.is_switchable() && (beside || !self.ops().contains(&op)) {
            return Err(format!(
                "--op {}: switchable norm has train_forward and train_backward, with an activation and a residual at the most",
                op.name()
            ));
        }
        if self.is_spectral() {
            return match self.ops().contains(&op) && variant.is_plain() {
                true => Ok(()),
                false => Err(format!(
                    "--op {}: spectral norm, of a weight, has train_forward and train_backward, and nothing fused",
                    op.name()
                )),
            };
        }
        if self.is_curve() {
            if !self.ops().contains(&op) {
                let name = self.name();
                return Err(format!(
                    "--op {}: {name} has no statistics; choose train_forward or train_backward",
                    op.name()
                ));
            }
            return match variant.sum || variant.in_place || variant.gate.is_some() {
                true => {
                    Err(format!("--sum, --gate, --in-place: not of {}; choose another --norm", self.name()))
                }
                false => Ok(()),
            };
        }
        if variant.sum && variant.gate == Some(GateOrder::GateFirst) {
            return Err(
                "--gate first: what is multiplied is no sum; choose --gate last, or no --sum".to_owned()
            );
        }
        if op == BenchOp::FrozenBackward {
            return Err(format!(
                "--op frozen_backward: {} norm has no running statistics that could be frozen; its backward pass is \
                 train_backward",
                self.name()
            ));
        }
        if op == BenchOp::TrainForward && variant.in_place && !variant.sum {
            return Err(format!(
                "--in-place: train_forward of {} norm cannot write y over x, which backward needs; choose other \
                 operations with --op, or --sum, which writes the sum over x",
                self.name()
            ));
        }
        Ok(())
    }
}

/// A norm's name with the number of groups, the axes, or the rows of segments, if there are any.
pub fn label(name: &str, groups: Option<usize>, axes: Option<&str>, segments: Option<usize>) -> String {
    let groups = groups.map(|groups| groups.to_string()).unwrap_or_default();
    let axes = axes.map(|axes| format!("_over_{}", axes.replace(',', "_"))).unwrap_or_default();
    let segments = segments.map(|rows| format!("_in_segments_of_{rows}")).unwrap_or_default();
    format!("{name}{groups}{axes}{segments}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for &name in NormName::value_variants() {
            assert_eq!(name.to_possible_value().unwrap().get_name(), Norm::plain(name).name());
        }
        assert_eq!((Norm::BATCH.label(), Norm::group(32).label()), ("batch".into(), "group32".into()));
    }

    #[test]
    fn shapes_are_refused_where_nothing_can_be_learned_from_them() {
        let of = |name, dims: &[usize]| Norm::named(name, 4).check_shape(dims);
        for (name, right, wrong) in [
            (NormName::Batch, &[2, 8][..], &[1, 8][..]),
            (NormName::Group, &[1, 8], &[1, 4]),
            (NormName::Group, &[1, 8], &[2, 6, 5]),
            (NormName::Instance, &[1, 8, 2], &[4, 8, 1]),
            (NormName::Layer, &[1, 8], &[0, 8]),
        ] {
            assert_eq!(of(name, right), Ok(()), "{name:?}");
            assert!(of(name, wrong).is_err(), "{name:?}");
        }
        assert!(Norm::group(0).check_shape(&[2, 8]).is_err());
    }

    #[test]
    fn what_a_norm_does_not_have_is_told() {
        let (layer, plain) = (Norm::plain(NormName::Layer), Variant::default());
        assert!(layer.check_op(BenchOp::FrozenBackward, plain).unwrap_err().contains("running statistics"));
        assert!(layer.ops().iter().all(|&op| layer.check_op(op, plain).is_ok()));
        let in_place = Variant { in_place: true, ..plain };
        assert!(layer.check_op(BenchOp::TrainForward, in_place).is_err());
        assert!(layer.check_op(BenchOp::TrainForward, Variant { sum: true, ..in_place }).is_ok());
        assert!(layer.check_op(BenchOp::Inference, in_place).is_ok());
        assert!(Norm::BATCH.check_op(BenchOp::TrainForward, Variant { sum: true, ..plain }).is_err());
        assert_eq!(layer.layouts(&[]), Ok(vec![Layout::ChannelsFirst]));
        assert!(layer.layouts(&[Layout::ChannelsLast]).is_err());
        assert_eq!(Norm::group(2).layouts(&[]).unwrap().len(), 2);
    }
}
