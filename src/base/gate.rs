//! Gates: on which side of a norm they act.

/// Where a gate is a factor, as Mamba-2's `norm_before_gate` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GateOrder {
    /// `norm(x)·act(gate)`.
    NormFirst,
    /// `norm(x·act(gate))`.
    GateFirst,
}
