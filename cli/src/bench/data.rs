//! What the operations of a shape are given and must give: problems, made when an operation first asks for them, and held
//! against every layout, cache state and implementation.

use std::cell::OnceCell;

use wgnorm::Spec;
use wgnorm::eval::{Draw, Problem};
use wgnorm::spec::{Norm, Passes};

use super::BenchOp;
use super::suite::Layer;
use super::variant::Variant;

/// The problems of a shape.
pub struct Data {
    spec: Spec,
    /// In training, and frozen, which batch norm alone can be. A norm of slices saves nothing in inference, but y is that of training.
    problems: [OnceCell<Result<Problem, String>>; 2],
}

/// Results by the names of what is expected, in logical order.
pub type Results = Vec<(&'static str, Vec<f32>)>;

impl Data {
    pub fn new(layer: &Layer, variant: Variant) -> Self {
        let Variant { dtype, activation, residual, in_place, sum } = variant;
        let mut spec = Spec::new(layer.norm.spec(&layer.dims), &layer.dims);
        (spec.dtype, spec.activation, spec.residual) = (dtype, activation, residual);
        (spec.in_place, spec.sum, spec.passes) = (in_place, sum, Passes::Backward);
        Self { spec, problems: Default::default() }
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
        spec
    }

    /// The problem of an operation.
    pub fn problem(&self, op: BenchOp) -> Result<&Problem, String> {
        let spec = self.spec(op);
        let problem = self.problems[usize::from(spec.norm == Norm::FrozenBatch)]
            .get_or_init(|| Problem::new(&spec, &Draw::default()).map_err(|error| error.to_string()));
        problem.as_ref().map_err(Clone::clone)
    }
}

/// Holds results against what a problem expects, within `factor` times its bounds. Returns the worst error as a fraction of
/// that, or what is wrong.
pub fn hold(problem: &Problem, results: &Results, factor: f64) -> Result<f64, String> {
    let mut worst: f64 = 0.0;
    for (name, got) in results {
        let expected = problem.expectation(name).ok_or_else(|| format!("{name}: it is not expected"))?;
        let compared = expected.compare_within(got, factor);
        if !compared.passes() {
            return Err(format!("{name}: {compared}"));
        }
        worst = worst.max(compared.worst.ratio);
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
    };

    fn data(norm: Norm, variant: Variant) -> Data {
        Data::new(&Layer { norm, dims: vec![2, 6, 5, 7], times: 1 }, variant)
    }

    /// Every norm, plain and with everything that can be fused.
    #[test]
    fn the_reference_passes_and_what_is_off_does_not() {
        for norm in NormName::value_variants().iter().map(|&name| Norm::named(name, 3)) {
            let sum = !norm.is_batch() && !norm.is_curve();
            let fused =
                Variant { dtype: DType::Bf16, activation: Activation::Relu, residual: true, sum, ..PLAIN };
            for (variant, &op) in [PLAIN, fused].iter().flat_map(|v| norm.ops().iter().map(move |op| (v, op)))
            {
                let (data, name) = (data(norm, *variant), if op.is_forward() { "y" } else { "dx" });
                let problem = data.problem(op).unwrap();
                let right = problem.expectation(name).unwrap().results();
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
        let mut sum = problem.expectation("sum").unwrap().results();
        assert_eq!(hold(problem, &vec![("sum", sum.clone())], 1.0), Ok(0.0));
        sum[5] = f32::from_bits(sum[5].to_bits() + 1);
        assert!(hold(problem, &vec![("sum", sum)], 1.0).is_err());
    }
}
