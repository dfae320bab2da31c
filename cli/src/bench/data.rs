//! What the operations of a shape are given and must give: problems, made when an operation first asks for them, and held
//! against every layout, cache state and implementation.
//!
//! The reference takes a tenth of a microsecond for each value, so what is large is a smaller batch many times over: statistics
//! and gradients of x are those of the smaller one, and sums over the batch are so many times its own.

use std::cell::OnceCell;

use wgnorm::eval::{Draw, Problem};
use wgnorm::spec::{AsInt8, Norm, Passes};
use wgnorm::{Context, Layout, Spec, Tensor};

use super::BenchOp;
use super::suite::Layer;
use super::variant::Variant;
use crate::layout;

/// The problems of a shape.
pub struct Data {
    spec: Spec,
    copies: usize,
    /// In training, and frozen, which batch norm alone can be. A norm of slices saves nothing in inference, but y is that of training.
    problems: [OnceCell<Result<Posed, String>>; 3],
}

/// What is run, and the inputs and results of a batch of which it is so many copies.
pub struct Posed {
    pub spec: Spec,
    pub problem: Problem,
    pub copies: usize,
}

/// Values of which a batch is not taken several times, and the least of the one that is.
const MOST_VALUES: usize = 1 << 23;
const PART_VALUES: usize = 1 << 21;

/// How many times over the shape is a smaller batch.
fn copies_of(norm: &Norm, shape: &[usize]) -> usize {
    let repeats = matches!(norm, Norm::Batch | Norm::Layer { .. } | Norm::Rms { .. } | Norm::Group(_));
    let sample: usize = shape[1..].iter().product();
    if !repeats || shape[0] * sample <= MOST_VALUES {
        return 1;
    }
    let part = |samples: &usize| shape[0].is_multiple_of(*samples) && samples * sample >= PART_VALUES;
    // Parts begin where a binding can.
    let aligned = |samples: &usize| (samples * sample).is_multiple_of(256);
    (2..shape[0]).filter(part).find(aligned).map_or(1, |samples| shape[0] / samples)
}

/// The names of gradients of parameters: of gamma, beta, alpha and the shift.
pub const GRADIENTS: [&str; 4] = ["dweight", "dbias", "dalpha", "dshift"];
/// The same of gradients of gradients.
pub const SECOND_GRADIENTS: [&str; 2] = ["second_dweight", "second_dbias"];

/// Results by the names of what is expected, in logical order.
pub type Results = Vec<(&'static str, Vec<f32>)>;

impl Data {
    pub fn new(layer: &Layer, variant: Variant) -> Self {
        let Variant { dtype, activation, residual, in_place, sum, gate, int8 } = variant;
        let mut spec = Spec::new(layer.norm.spec(&layer.dims), &layer.dims);
        spec.axes = layer.norm.axes_of_spec();
        spec.segments = layer.norm.segment_lengths(layer.dims[0]);
        (spec.dtype, spec.activation, spec.residual) = (dtype, activation, residual);
        (spec.in_place, spec.sum, spec.gate, spec.passes) = (in_place, sum, gate, Passes::Backward);
        if int8 {
            spec.passes = Passes::Forward;
            spec.int8 = Some(match spec.norm {
                _ if spec.is_of_rows() => AsInt8::PerRow,
                _ => AsInt8::PerTensor { scale: 0.05, zero_point: 0 },
            });
        }
        let copies = if spec.segments.is_some() { 1 } else { copies_of(&spec.norm, &spec.shape) };
        Self { copies, spec, problems: Default::default() }
    }

    /// Bytes of a tensor of the shape.
    pub fn tensor_bytes(&self) -> u64 {
        self.spec.elements() as u64 * self.spec.dtype.size()
    }

    /// What an operation is of.
    pub fn spec(&self, op: BenchOp) -> Spec {
        let mut spec = self.spec.clone();
        if spec.norm.is_batch() && op.is_frozen() {
            spec.norm = Norm::FrozenBatch;
        }
        if op.is_derivative() {
            spec.passes = Passes::Second;
        }
        spec
    }

    /// The problem of an operation.
    pub fn problem(&self, op: BenchOp) -> Result<&Posed, String> {
        let (spec, copies) = (self.spec(op), self.copies);
        let place = if op.is_derivative() { 2 } else { usize::from(spec.norm == Norm::FrozenBatch) };
        let posed = self.problems[place].get_or_init(|| {
            let mut part = spec.clone();
            part.shape[0] /= copies;
            let problem = Problem::new(&part, &Draw::default()).map_err(|error| error.to_string())?;
            Ok(Posed { spec, problem, copies })
        });
        posed.as_ref().map_err(Clone::clone)
    }
}

impl Posed {
    /// The values of a tensor of the shape, in logical order: those of its first part, and of every other that does not have the same bits.
    pub async fn parts(&self, context: &Context, tensor: &Tensor) -> wgnorm::Result<Vec<Vec<f32>>> {
        let dims = &self.problem.spec.shape;
        if self.copies == 1 {
            return Ok(vec![layout::download(context, dims, tensor).await?]);
        }
        let all = context.download(tensor).await?;
        let len = all.len() / self.copies;
        let bits = |part: &[f32]| part.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let first = bits(&all[..len]);
        let others = all.chunks(len).skip(1).filter(|part| bits(part) != first);
        let logical = |part| layout::rearranged(part, dims, tensor.layout(), Layout::ChannelsFirst);
        Ok([&all[..len]].into_iter().chain(others).map(logical).collect())
    }
}

/// Holds results against what a problem expects, within `factor` times its bounds. Returns the worst error as a fraction of
/// that, or what is wrong.
pub fn hold(posed: &Posed, results: &Results, factor: f64) -> Result<f64, String> {
    let mut worst: f64 = 0.0;
    for (name, got) in results {
        let expected =
            posed.problem.expectation(name).ok_or_else(|| format!("{name}: it is not expected"))?;
        for part in got.chunks(expected.values.len().max(1)) {
            // Gradients of parameters are sums over the batch; what else is not of a part has a part for each.
            let summed = GRADIENTS.contains(name) || SECOND_GRADIENTS.contains(name);
            let of_one = |value: &f32| value / if summed { posed.copies as f32 } else { 1.0 };
            let part: Vec<f32> = part.iter().map(of_one).collect();
            let compared = expected.compare_within(&part, factor);
            if !compared.passes() {
                return Err(format!("{name}: {compared}"));
            }
            worst = worst.max(compared.worst.ratio);
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use wgnorm::{Activation, DType};

    use super::*;
    use crate::bench::norm::{Norm, NormName};

    const PLAIN: Variant = Variant {
        dtype: DType::F32,
        activation: Activation::None,
        residual: false,
        in_place: false,
        sum: false,
        gate: None,
        int8: false,
    };

    fn data(norm: Norm, variant: Variant) -> Data {
        let dims = if norm.name == NormName::Graph { vec![70, 6] } else { vec![2, 6, 5, 7] };
        Data::new(&Layer { norm, dims, times: 1 }, variant)
    }

    /// Every norm, plain and with everything that can be fused.
    #[test]
    fn the_reference_passes_and_what_is_off_does_not() {
        for norm in NormName::value_variants().iter().map(|&name| Norm::named(name, 3)) {
            let sum = !norm.is_batch() && !norm.is_curve() && !norm.is_switchable();
            let alone = norm.is_spectral() || norm.name == NormName::Graph;
            let fused = match alone {
                true => Variant { dtype: DType::Bf16, ..PLAIN },
                false => {
                    Variant { dtype: DType::Bf16, activation: Activation::Relu, residual: true, sum, ..PLAIN }
                }
            };
            for (variant, &op) in [PLAIN, fused].iter().flat_map(|v| norm.ops().iter().map(move |op| (v, op)))
            {
                let (data, name) = (data(norm, *variant), if op.is_forward() { "y" } else { "dx" });
                let problem = data.problem(op).unwrap();
                let right = problem.problem.expectation(name).unwrap().results();
                let held = |by: f32, factor| {
                    let mut moved = right.clone();
                    moved[17] += by;
                    hold(problem, &vec![(name, moved)], factor)
                };
                assert!(held(0.0, 1.0).is_ok(), "{norm:?} {variant:?} {op:?}");
                assert!(held(9.0, 1.0).is_err(), "{norm:?} {variant:?} {op:?}");
                assert!(held(9.0, 1e9).is_ok(), "{norm:?} {variant:?} {op:?}");
                assert!(held(f32::NAN, 1e9).is_err(), "{norm:?} {variant:?} {op:?}");
            }
        }
    }

    #[test]
    fn only_batch_norm_has_a_problem_of_its_own_where_it_is_frozen() {
        let same = |norm| {
            let data = data(norm, PLAIN);
            let [train, frozen] =
                [BenchOp::TrainForward, BenchOp::Inference].map(|op| data.problem(op).unwrap());
            std::ptr::eq(train, frozen)
        };
        assert!(!same(Norm::BATCH) && same(Norm::group(2)));
    }

    #[test]
    fn a_sum_is_held_to_the_bit() {
        let data = data(Norm::plain(NormName::Rms), Variant { sum: true, ..PLAIN });
        let problem = data.problem(BenchOp::Inference).unwrap();
        let mut sum = problem.problem.expectation("sum").unwrap().results();
        assert_eq!(hold(problem, &vec![("sum", sum.clone())], 1.0), Ok(0.0));
        sum[5] = f32::from_bits(sum[5].to_bits() + 1);
        assert!(hold(problem, &vec![("sum", sum)], 1.0).is_err());
    }

    #[test]
    fn what_is_large_is_a_smaller_batch_several_times() {
        let copies = |line: &str| {
            let spec: Spec = line.parse().unwrap();
            copies_of(&spec.norm, &spec.shape)
        };
        assert_eq!((copies("batch 8x256x56x56"), copies("batch 32x256x56x56")), (1, 8));
        assert_eq!((copies("batch 31x256x56x56"), copies("weight 8192x4096")), (1, 1));
        assert_eq!(copies("layer 131072x1024"), 64);
    }

    #[test]
    fn gradients_of_parameters_are_of_all_copies() {
        let layer = Layer { norm: Norm::BATCH, dims: vec![64, 64, 64, 64], times: 1 };
        let data = Data::new(&layer, PLAIN);
        let posed = data.problem(BenchOp::TrainBackward).unwrap();
        assert_eq!(posed.copies, 8);
        let one = posed.problem.expectation("dbias").unwrap().results();
        let all = one.iter().map(|value| value * 8.0).collect();
        assert!(hold(posed, &vec![("dbias", all)], 1.0).is_ok());
        assert!(hold(posed, &vec![("dbias", one)], 1.0).is_err());
    }
}
