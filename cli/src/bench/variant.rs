//! How the tensors of a case are stored and what is fused with its operation.

use std::sync::LazyLock;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use wgnorm::eval::custom_activations;
use wgnorm::{Activation, DType, GateOrder};

use super::BenchOp;

/// What can be asked for beside operation, shape and layout.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Variant {
    pub dtype: DType,
    pub activation: Activation,
    /// Whether a residual is added before the activation.
    pub residual: bool,
    /// Whether y is written over x, where that is possible, and dx over dy.
    pub in_place: bool,
    /// Whether something is added to x before the norm, and the sum written out; not of batch norm.
    pub sum: bool,
    /// A gate in the place of a residual; not of batch norm.
    pub gate: Option<GateOrder>,
    /// y as int8, of inference alone.
    pub int8: bool,
}

impl Variant {
    /// Whether nothing is fused with the norm.
    pub const fn is_plain(self) -> bool {
        let Self { activation, residual, in_place, sum, gate, int8, .. } = self;
        matches!(activation, Activation::None) && !residual && !in_place && !sum && gate.is_none() && !int8
    }

    /// Whether anything happens in the passes of the operation besides normalizing.
    pub fn is_fused(self) -> bool {
        self.sum || self.residual || self.gate.is_some() || self.int8 || self.activation != Activation::None
    }

    /// Says why an operation of batch norm is not possible.
    pub fn check(self, op: BenchOp) -> Result<(), String> {
        if op == BenchOp::TrainForward && self.in_place && !self.activation.is_invertible() {
            return Err(format!(
                "--in-place: train_forward cannot write y over x with {}, because backward could not recover x from \
                 y; choose an activation that can be inverted (none, leaky_relu) or other operations with --op",
                self.activation
            ));
        }
        Ok(())
    }

    /// What is fused, as the tables show it.
    pub fn fused_label(
        sum: bool,
        gate: Option<&str>,
        activation: &str,
        residual: bool,
        int8: bool,
    ) -> String {
        let gate = gate.map(|gate| format!("gate {gate}"));
        let parts = [
            sum.then_some("sum"),
            gate.as_deref(),
            residual.then_some("residual"),
            (activation != "none").then_some(activation),
            int8.then_some("int8"),
        ];
        let fused = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        if fused.is_empty() { "none".to_owned() } else { fused }
    }
}

/// Parses the name of an element type.
pub fn dtype_parser() -> impl TypedValueParser<Value = DType> {
    parser(&DType::ALL, DType::name)
}

/// What a gate is called: by where it acts.
pub const fn gate_name(gate: GateOrder) -> &'static str {
    match gate {
        GateOrder::NormFirst => "last",
        GateOrder::GateFirst => "first",
    }
}

/// Parses it.
pub fn gate_parser() -> impl TypedValueParser<Value = GateOrder> {
    parser(&[GateOrder::NormFirst, GateOrder::GateFirst], gate_name)
}

/// Parses the name of an activation.
pub fn activation_parser() -> impl TypedValueParser<Value = Activation> {
    static ALL: LazyLock<Vec<Activation>> =
        LazyLock::new(|| [&Activation::ALL[..], custom_activations()].concat());
    parser(&ALL, Activation::name)
}

fn parser<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.iter().map(move |&value| name(value))).try_map(move |wanted| {
        let found = all.iter().copied().find(|&value| name(value) == wanted);
        found.ok_or_else(|| format!("no {wanted:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAKY: Activation = Activation::LeakyRelu { slope: 0.01 };

    #[test]
    fn only_what_can_be_inverted_trains_in_place() {
        let variant = |activation| Variant { activation, in_place: true, ..Default::default() };
        for op in BenchOp::ALL {
            assert_eq!(variant(Activation::Relu).check(op).is_err(), op == BenchOp::TrainForward);
            assert!(variant(LEAKY).check(op).is_ok() && variant(Activation::None).check(op).is_ok());
            assert!(Variant { in_place: false, ..variant(Activation::Relu) }.check(op).is_ok());
        }
    }

    #[test]
    fn labels_name_what_is_fused() {
        assert_eq!(Variant::fused_label(false, None, "none", false, false), "none");
        assert_eq!(Variant::fused_label(false, None, "none", true, false), "residual");
        assert_eq!(Variant::fused_label(true, None, "none", false, false), "sum");
        assert_eq!(Variant::fused_label(true, None, "relu", true, true), "sum, residual, relu, int8");
        assert_eq!(Variant::fused_label(false, Some("last"), "silu", false, false), "gate last, silu");
    }
}
