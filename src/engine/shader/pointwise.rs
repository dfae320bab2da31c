//! What kernels do to each element, as far as it decides their modules.

use super::kernel::{Kernel, Monoid, StatisticsFrom};
use crate::base::activation::Activation;
use crate::base::gate::GateOrder;
use crate::plan::AffineOf;

/// An activation without its parameters, which are uniforms: what decides the modules of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ActivationKind {
    key: &'static str,
    is_custom: bool,
    /// Whether it has a second derivative that is not 0.
    bends: bool,
}

impl ActivationKind {
    pub const NONE: Self = Self::of(Activation::None);

    pub const fn of(activation: Activation) -> Self {
        use Activation::{Custom, LeakyRelu, None, Relu, Relu6};
        let straight = matches!(activation, None | Relu | Relu6 | LeakyRelu { .. });
        Self { key: activation.key(), is_custom: matches!(activation, Custom(_)), bends: !straight }
    }

    /// Whether it has a second derivative that is not 0.
    pub const fn bends(self) -> bool {
        self.bends
    }

    /// The module that stands for `activation`.
    pub const fn module(self) -> &'static str {
        if self.is_custom { "custom" } else { self.key }
    }

    /// The key of an activation of one's own, whose text is a module too.
    pub const fn custom(self) -> Option<&'static str> {
        if self.is_custom { Some(self.key) } else { None }
    }
}

/// By what a y that is stored as int8 is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Int8Kind {
    PerRow,
    PerTensor,
}

/// What a kernel does to each element beside the normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pointwise {
    pub activation: ActivationKind,
    /// A residual is added before the activation; or there is a gate in its place.
    pub residual: bool,
    /// What the activation is that of, if not of the normalized.
    pub gate: Option<GateOrder>,
    /// With a gate: there is no beta.
    pub without_beta: bool,
    /// The gradient of the residual is written.
    pub d_residual: bool,
    /// Slot `X` holds y, from which x̂ is recovered.
    pub from_y: bool,
    /// Some positions do not count.
    pub masked: bool,
    /// Some slices, which are rows, do not count.
    pub marked: bool,
    /// dgamma is that of batch renorm.
    pub renorm: bool,
    /// No mean is subtracted: slices that are not channels are reduced to their squares.
    pub uncentred: bool,
    /// Along what gamma and beta vary, of norms whose slices are not channels.
    pub affine: AffineOf,
    /// What is normalized is a sum, which is written.
    pub sum: bool,
    /// The gradient of that sum is added to dx.
    pub d_sum: bool,
    /// A map finds one total of each slice instead of partial results: it folds nothing, and needs no workgroup memory.
    pub folded: bool,
    /// y is stored as int8.
    pub int8: Option<Int8Kind>,
    /// What is computed are derivatives of the passes.
    pub derivative: Option<Derivative>,
    /// The tangent of y is written.
    pub y_tangent: bool,
    /// Slices are those of segments.
    pub ragged: bool,
    /// Only a part of the mean is subtracted.
    pub mean_scale: bool,
    /// Variances of instances are unbiased.
    pub unbiased: bool,
}

/// Derivatives of the passes (lib/second.wesl).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Derivative {
    /// Of the forward pass.
    Tangent,
    /// Of the backward pass too.
    Second,
}

impl Default for Pointwise {
    fn default() -> Self {
        Self {
            activation: ActivationKind::NONE,
            residual: false,
            gate: None,
            without_beta: false,
            d_residual: false,
            from_y: false,
            masked: false,
            marked: false,
            renorm: false,
            uncentred: false,
            affine: AffineOf::Slice,
            sum: false,
            d_sum: false,
            folded: false,
            int8: None,
            derivative: None,
            y_tangent: false,
            ragged: false,
            mean_scale: false,
            unbiased: false,
        }
    }
}

impl Pointwise {
    /// As far as it makes a difference to a kernel.
    pub fn of(self, kernel: Kernel) -> Self {
        let nothing = Self::default();
        let gate_first = self.gate == Some(GateOrder::GateFirst);
        // The gradient of a gate behind the norm asks for z; before it none does.
        let without_beta = match self.gate {
            Some(GateOrder::NormFirst) => self.without_beta && self.d_residual,
            _ => false,
        };
        let activated = self.activation != ActivationKind::NONE;
        // Without an activation dz is dy, whatever the residual is, unless x̂ has to be recovered.
        let residual = self.residual && (activated || self.from_y || self.gate.is_some());
        let Self {
            activation,
            gate,
            d_residual,
            masked,
            marked,
            renorm,
            uncentred,
            affine,
            sum,
            d_sum,
            folded,
            int8,
            derivative,
            y_tangent,
            ragged,
            mean_scale,
            unbiased,
            ..
        } = self;
        match kernel {
            Kernel::MapForward(from) => {
                let folded = folded && from == StatisticsFrom::Batch;
                Self {
                    activation,
                    residual: self.residual,
                    gate,
                    uncentred,
                    affine,
                    folded,
                    int8,
                    ragged,
                    ..nothing
                }
            }
            Kernel::MapInt8(_) => {
                Self { activation, residual: self.residual, gate, uncentred, affine, int8, ..nothing }
            }
            Kernel::ResidentForward(_) => {
                Self { activation, residual: self.residual, gate, uncentred, affine, sum, int8, ..nothing }
            }
            Kernel::ReduceRowGradients { dx, .. } => {
                let d_residual = d_residual && (dx || !gate_first);
                let d_sum = d_sum && dx;
                Self {
                    activation,
                    residual,
                    gate,
                    without_beta,
                    d_residual,
                    marked,
                    uncentred,
                    affine,
                    d_sum,
                    derivative,
                    y_tangent,
                    ..nothing
                }
            }
            // Of these most makes a difference.
            Kernel::ReduceGradients { dx, .. } => {
                let d_residual = d_residual && (dx || !gate_first);
                let d_sum = d_sum && dx;
                Self {
                    residual,
                    without_beta,
                    d_residual,
                    renorm: false,
                    sum: false,
                    d_sum,
                    folded: false,
                    mean_scale: false,
                    unbiased: false,
                    ..self
                }
            }
            Kernel::ResidentBackward(_) => {
                Self { residual, without_beta, masked: false, sum: false, folded: false, ..self }
            }
            Kernel::MapBackward { statistics, .. } if statistics.has_means() => {
                // With a mask it writes no dgamma.
                let folded = folded && statistics == StatisticsFrom::Gradients;
                let d_residual = d_residual && gate_first;
                let renorm = renorm && !masked;
                Self {
                    residual,
                    without_beta: false,
                    d_residual,
                    renorm,
                    sum: false,
                    folded,
                    mean_scale: false,
                    unbiased: false,
                    ..self
                }
            }
            Kernel::MapBackward { .. } => Self {
                activation,
                residual: self.residual && activated,
                d_residual,
                masked,
                uncentred,
                affine,
                derivative,
                y_tangent,
                ..nothing
            },
            Kernel::ReduceMoments | Kernel::ReduceSquares if gate_first => {
                Self { activation, residual, gate, ..nothing }
            }
            Kernel::ReduceMoments => Self { masked, sum, ragged, ..nothing },
            Kernel::ReduceSquares => Self { sum, ..nothing },
            Kernel::FoldStatistics(_) | Kernel::FoldMeans { .. } => {
                Self { uncentred, ragged, mean_scale, ..nothing }
            }
            Kernel::ReduceProduct => Self { affine, ..nothing },
            Kernel::ReduceSecond if derivative == Some(Derivative::Tangent) => {
                Self { uncentred, affine, derivative, ..nothing }
            }
            Kernel::ReduceSecond => Self { activation, uncentred, affine, derivative, ..nothing },
            Kernel::FoldSecond => {
                // Which of those that bend makes no difference.
                let bends = activation.bends && derivative == Some(Derivative::Second);
                let any = if bends { Activation::Silu } else { Activation::None };
                Self { activation: ActivationKind::of(any), uncentred, derivative, ..nothing }
            }
            Kernel::FoldTotal(Monoid::Moments) | Kernel::FoldMixtureMeans => Self { unbiased, ..nothing },
            Kernel::MapCopy => Self { sum, ..nothing },
            Kernel::FoldGradients => Self { renorm, ..nothing },
            _ => nothing,
        }
    }

    pub fn key(self) -> String {
        let mut key = String::new();
        if self.activation != ActivationKind::NONE {
            key += &format!(" {}", self.activation.key);
        }
        for (is, name) in [
            (self.gate == Some(GateOrder::NormFirst), " gate last"),
            (self.gate == Some(GateOrder::GateFirst), " gate first"),
            (self.without_beta, " without beta"),
            (self.residual && self.gate.is_none(), " residual"),
            (self.d_residual, " d_residual"),
            (self.from_y, " from_y"),
            (self.masked, " masked"),
            (self.marked, " marked"),
            (self.renorm, " renorm"),
            (self.uncentred, " uncentred"),
            (self.affine == AffineOf::Place, " affine of place"),
            (self.affine == AffineOf::Row, " affine of row"),
            (self.sum, " sum"),
            (self.d_sum, " d_sum"),
            (self.folded, " folded"),
            (self.int8 == Some(Int8Kind::PerRow), " int8 of rows"),
            (self.int8 == Some(Int8Kind::PerTensor), " int8"),
            (self.derivative == Some(Derivative::Tangent), " tangent"),
            (self.derivative == Some(Derivative::Second), " second"),
            (self.y_tangent, " y_tangent"),
            (self.ragged, " ragged"),
            (self.mean_scale, " mean scale"),
            (self.unbiased, " unbiased"),
        ] {
            if is {
                key += name;
            }
        }
        key
    }
}
