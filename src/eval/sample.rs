//! Problems of all kinds by number: what a soak runs, and what no table would think of.

use super::data::{Data, Draw, Gamma};
use super::problem::Problem;
use super::random::uniform;
use super::variant;
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::base::shape::{Layout, Shape};
use crate::base::variance::RunningVariance;
use crate::norm::Momentum;
use crate::pass::Affine;
use crate::plan::{Slices, Tuning};
use crate::spec::{Norm, Passes, Place, Spec, Statistics, Wanted};
use crate::spectral::PowerOrder;

/// Lengths of axes around which things change: words, vectors, workgroups.
const LENGTHS: [usize; 24] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 100, 257, 1000];

/// What x may be like in f32 besides normal, and in 16 bits.
const OF_F32: [Data; 11] = [
    Data::LargeMean,
    Data::FirstZero,
    Data::Outlier,
    Data::Drift,
    Data::Constant,
    Data::Tiny,
    Data::HugeMean,
    Data::HugeSpread,
    Data::OverflowInOne,
    Data::NanInOne,
    Data::InfInOne,
];

/// What a weight may be like: of an infinite one nothing is a number.
const OF_WEIGHTS: [Data; 5] = [Data::LargeMean, Data::Outlier, Data::Tiny, Data::HugeMean, Data::NanInOne];

/// The problem of a number, with what it expects, and its values: the same at any time and on any machine.
pub fn sample(number: u64) -> (Problem, Draw) {
    let mut dice = Dice(Box::new(uniform(number ^ 0x005E_ED0F_50AC)));
    loop {
        let spec = dice.spec();
        let draw = Draw { data: dice.data(&spec), gamma: Gamma::Plain, seed: number };
        if spec.check().is_err() || !variant::takes(&spec, spec.place) {
            continue;
        }
        match Problem::new(&spec, &draw) {
            Ok(problem) => return (problem, draw),
            Err(Error::Spec { .. }) => {}
            Err(error) => unreachable!("what is checked is a problem: {spec}: {error}"),
        }
    }
}

struct Dice(Box<dyn Iterator<Item = f64>>);

impl Dice {
    /// From 0 to below so many.
    fn below(&mut self, many: usize) -> usize {
        let number = self.0.next().unwrap_or(0.0);
        (((number + 1.0) / 2.0 * many as f64) as usize).min(many - 1)
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// Whether something happens that does once in so many times.
    fn once_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    /// One of these once in so many times.
    fn perhaps<T: Clone>(&mut self, many: usize, all: &[T]) -> Option<T> {
        self.once_in(many).then(|| self.of(all))
    }

    /// Axes with few elements in all, or once in a while many.
    fn shape(&mut self, rank: usize) -> Vec<usize> {
        let most = match self.below(40) {
            0 => 1 << 19,
            1..4 => 1 << 16,
            _ => 1 << 13,
        };
        loop {
            let shape: Vec<usize> = (0..rank).map(|_| self.of(&LENGTHS)).collect();
            if shape.iter().product::<usize>() <= most {
                return shape;
            }
        }
    }

    fn norm(&mut self, rank: usize, shape: &[usize]) -> Norm {
        let mut axes: Vec<usize> = (0..rank).filter(|_| self.once_in(2)).collect();
        if axes.is_empty() {
            axes.push(rank - 1);
        }
        let over = 1 + self.below(rank.max(2) - 1);
        let divisors: Vec<usize> = (1..=shape[1]).filter(|groups| shape[1].is_multiple_of(*groups)).collect();
        match self.below(24) {
            0..5 => Norm::Batch,
            5 | 6 => Norm::FrozenBatch,
            7 | 8 => Norm::Layer(over),
            9 | 10 => Norm::Rms(over),
            11 | 12 => Norm::Group(self.of(&divisors)),
            13 => Norm::Instance,
            14 => Norm::TrackedInstance,
            15 if Shape::new(shape).and_then(|shape| Slices::over_axes(shape, &axes)).is_ok() => {
                self.of(&[Norm::MeanVariance(axes.clone()), Norm::L2(axes)])
            }
            15 => Norm::Layer(over),
            16 => Norm::Scale,
            17 => Norm::Weight,
            18 => Norm::WeightStandardization,
            19 | 20 => Norm::Switchable(self.of(&[RunningVariance::Biased, RunningVariance::Unbiased])),
            21 => Norm::Graph,
            22 => Norm::Spectral(self.below(rank), self.of(&[PowerOrder::VFirst, PowerOrder::UFirst])),
            _ => self.of(&[Norm::DynamicTanh, Norm::Derf]),
        }
    }

    /// Lengths of segments of rows, some of them none.
    fn segments(&mut self, spec: &Spec) -> Option<Vec<usize>> {
        let takes = matches!(spec.norm, Norm::Layer(1) | Norm::Group(_) | Norm::Instance | Norm::Graph);
        if !takes || spec.shape.len() != 2 || spec.axes.is_some() || !self.once_in(2) {
            return None;
        }
        let (mut lengths, mut left) = (Vec::new(), spec.shape[0]);
        while left > 0 {
            let length = if self.once_in(6) { 0 } else { self.of(&LENGTHS).min(left) };
            lengths.push(length);
            left -= length;
        }
        Some(lengths)
    }

    fn spec(&mut self) -> Spec {
        let rank = 2 + self.below(4);
        let shape = self.shape(rank);
        let norm = self.norm(rank, &shape);
        // A graph is of rows.
        let shape = if norm == Norm::Graph { shape[..2].to_vec() } else { shape };
        let mut spec = Spec::new(norm, &shape);
        // Nothing: what batch norm refuses in training, and samples with parameters of their own are not.
        let has_rows = spec.norm.can_be_modulated() || !spec.norm.is_of_slices();
        if self.once_in(60) && !spec.norm.tracks() && has_rows {
            spec.shape[0] = 0;
        }
        spec.axes = self.axes(&spec);
        spec.segments = self.segments(&spec);
        spec.dtype = self.of(&DType::ALL);
        spec.parameters = self.of(&[DType::F32, spec.dtype]);
        if self.once_in(3) && spec.norm.has_channels() {
            spec.layout = Layout::ChannelsLast;
        }
        if let Some(affine) = self.perhaps(3, &[Affine::Both, Affine::Weight, Affine::Bias, Affine::None]) {
            spec.affine = affine;
        }
        spec.unit_offset = self.once_in(8);
        spec.modulated = self.once_in(5) && spec.shape[0] > 0;
        spec.activation = self.perhaps(2, &Activation::ALL).unwrap_or_default();
        spec.residual = self.once_in(4);
        spec.sum = self.once_in(5);
        spec.mask = self.perhaps(6, &[1, 2, 3, 5]);
        // What an instance norm tracks it takes from x.
        spec.in_place = self.once_in(6) && spec.norm != Norm::TrackedInstance;
        if !self.once_in(4) {
            spec.passes = Passes::Backward;
            spec.wanted = self.of(&[Wanted::All, Wanted::Added, Wanted::Alone]);
        }
        if self.once_in(3) && spec.norm == Norm::Batch {
            spec.statistics = self.statistics(shape[0]);
        }
        spec.momentum = self.of(&[
            spec.momentum,
            Momentum::WeightOfNew(1.0),
            Momentum::WeightOfOld(0.99),
            Momentum::Cumulative,
        ]);
        spec.running_variance = self.of(&[RunningVariance::Biased, RunningVariance::Unbiased]);
        // A gradient of a sum that is added after an activation of a residual takes no rows that are apart.
        if self.once_in(2) && spec.shape[0] > 0 && !(spec.sum && spec.residual) {
            spec.place = self.place();
        }
        if self.once_in(2) {
            spec.tuning = self.tuning(spec.elements());
        }
        if spec.norm.spectral().is_some() || spec.segments.is_some() || spec.norm == Norm::Graph {
            alone(&mut spec);
        }
        spec
    }

    /// Axes of layer and RMS norm, in any order.
    fn axes(&mut self, spec: &Spec) -> Option<Vec<usize>> {
        if !matches!(spec.norm, Norm::Layer(1) | Norm::Rms(1)) || !self.once_in(2) {
            return None;
        }
        let mut axes: Vec<usize> = (0..spec.shape.len()).filter(|_| self.once_in(2)).collect();
        if self.once_in(3) {
            axes.reverse();
        }
        Some(axes)
    }

    fn statistics(&mut self, samples: usize) -> Statistics {
        let first = self.below(samples + 1);
        let parts = 1 + self.below(4);
        self.of(&[
            Statistics::Given,
            Statistics::Synchronised(vec![first, samples - first]),
            Statistics::Accumulated(parts),
            Statistics::Ghost(parts),
            Statistics::Renorm(1.5, 0.5),
            Statistics::Sequence(parts),
        ])
    }

    fn place(&mut self) -> Place {
        let by = 1 + self.below(5);
        let more = self.below(5);
        self.of(&[
            Place::Phase(by.min(3)),
            Place::Shifted,
            Place::Shared,
            Place::Parts,
            Place::View(by, more),
            Place::Gaps(by),
            Place::Mixed,
        ])
    }

    fn tuning(&mut self, elements: usize) -> Tuning {
        let teams = [(8, 8), (32, 8), (32, 16), (64, 1), (64, 64), (96, 32), (128, 2), (256, 4), (256, 256)];
        let (workgroup_size, team_size) = self.perhaps(2, &teams).unzip();
        Tuning {
            width: self.perhaps(4, &[1, 4]),
            workgroup_size,
            team_size,
            splits: self.perhaps(4, &[1, 2, 3, 7, 100]),
            rows: self.perhaps(6, &[1, 2, 3]),
            strip: self.perhaps(4, &[1, 2, 4, 8, 16]),
            resident: self.perhaps(3, &[true, false]),
            subgroups: self.perhaps(5, &[true, false]),
            group_bytes: self.perhaps(8, &[1, 1000]),
            along_columns: self.perhaps(5, &[true, false]),
            folds_apart: self.perhaps(5, &[true, false]),
            window_bytes: self.perhaps(6, &[1024, 5000]).filter(|_| elements < 1 << 14),
            binding_bytes: self.perhaps(4, &[1 << 20]),
            integer_f16: self.once_in(5),
            ..Tuning::default()
        }
    }

    /// What the reference has bounds for.
    fn data(&mut self, spec: &Spec) -> Data {
        match spec.dtype {
            _ if !self.once_in(3) || spec.norm.curve().is_some() => Data::Normal,
            DType::F32 if spec.norm.spectral().is_some() => self.of(&OF_WEIGHTS),
            DType::F32 => self.of(&OF_F32),
            DType::F16 | DType::Bf16 | DType::I8 => Data::ShiftedMean,
        }
    }
}

/// Leaves out what there is not beside segments, and of a weight.
fn alone(spec: &mut Spec) {
    (spec.residual, spec.sum, spec.modulated, spec.mask) = (false, false, false, None);
    if spec.norm.spectral().is_some() {
        (spec.activation, spec.wanted) = (Activation::None, Wanted::All);
        (spec.affine, spec.unit_offset) = (Affine::None, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_problem_that_its_line_repeats() {
        let mut kinds = std::collections::BTreeSet::new();
        for number in 0..300 {
            let (problem, _) = sample(number);
            let line = problem.spec.to_string();
            assert_eq!(line.parse(), Ok(problem.spec.clone()), "{number}: {line}");
            assert_eq!(sample(number).0.inputs.x.len(), problem.inputs.x.len());
            kinds.insert(line.split([' ', ':']).next().unwrap_or_default().to_owned());
        }
        assert_eq!(kinds.len(), 18, "{kinds:?}");
    }
}
