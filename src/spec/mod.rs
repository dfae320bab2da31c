//! A problem as a value: which norm, over which tensor, with what. It is checked in one place, prints as one line and is parsed back.

mod check;
mod layer;
mod norm;
mod positions;
mod rehearse;
mod text;

use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::gate::GateOrder;
use crate::base::shape::Layout;
use crate::base::variance::RunningVariance;
use crate::curve::CurveOptions;
use crate::engine::tensor::Tensor;
use crate::family::{Epsilon, NormOptions};
use crate::norm::{BatchNormOptions, Momentum};
use crate::pass::{Affine, Int8};
use crate::plan::Tuning;
use crate::statistics::renorm::Renorm;
use crate::switchable::SwitchableNormOptions;

pub use layer::{Layer, Parameters};
pub use norm::Norm;
pub(crate) use rehearse::{Rehearsed, rehearse};

/// Where batch norm's statistics come from in training.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Statistics {
    /// The batch.
    Own,
    /// Moments that were computed before.
    Given,
    /// The shards of several ranks, of so many samples each.
    Synchronised(Vec<usize>),
    /// The batch, in so many micro-batches.
    Accumulated(usize),
    /// Each ghost batch of so many samples.
    Ghost(usize),
    /// The batch, corrected towards the running statistics within the limits r_max and d_max.
    Renorm(f64, f64),
    /// So many batches after each other, then inference with what they left.
    Sequence(usize),
}

/// Which passes are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Passes {
    /// Forward.
    #[default]
    Forward,
    /// Forward and backward.
    Backward,
    /// Forward and derivatives: the tangent of y, and gradients of gradients.
    Second,
}

/// Which gradients are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// All that there are.
    #[default]
    All,
    /// All; then those of parameters once more, added to what is there.
    Added,
    /// All; then y with nothing saved, and dx without those of parameters.
    Alone,
}

/// Where tensors lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Place {
    /// Each at the start of a buffer of its own.
    #[default]
    Apart,
    /// Each at this element of a buffer of its own.
    Phase(usize),
    /// Each a few elements into a buffer of its own, not all as many.
    Shifted,
    /// All in one buffer, with gaps between them.
    Shared,
    /// Batches in two buffers each, cut at a sample.
    Parts,
    /// Batches are channels of larger ones: how many there are before and behind them.
    View(usize, usize),
    /// Samples of batches are this many elements further apart than densely.
    Gaps(usize),
    /// Each batch in another of these ways than the one before.
    Mixed,
}

/// How y is stored as int8 ([`Int8`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AsInt8 {
    /// By a scale of each row.
    PerRow,
    /// By a scale for all.
    PerTensor {
        /// The scale.
        scale: f32,
        /// What 0 is stored as.
        zero_point: i8,
    },
}

impl AsInt8 {
    /// With the scales of rows written there, if they are found.
    pub fn into_scales(self, scales: &Tensor) -> Int8<'_> {
        match self {
            Self::PerRow => Int8::PerRow(scales),
            Self::PerTensor { scale, zero_point } => Int8::PerTensor { scale, zero_point },
        }
    }
}

/// A problem: which norm, over which tensor, with what.
///
/// It prints as one line and is parsed back; what is as it usually is is left out. The first word is the norm, the second the shape in logical
/// order (N, C, spatial), the others, in any order, what else is asked for:
///
/// | words | meaning |
/// |---|---|
/// | `batch`, `frozen`, `layer:2`, `rms`, `group:32`, `instance`, `graph`, `switchable`, `switchable:unbiased`, `tracked`, `mvn:0,2,3`, `l2:1`, `scale`, `weight`, `standardization`, `spectral:1`, `spectral_u`, `tanh`, `derf` | the norm, with trailing axes (1 if not given), groups, axes, or the axis of rows |
/// | `f16`, `bf16`; `parameters=bf16`; `last` | element types, f32 else; channels last |
/// | `affine=both`, `weight`, `bias`, `none`; `offset`; `modulated`; `eps=1e-3`, `eps=type` | parameters: which, gamma as its distance from 1, of each sample |
/// | `relu`, `leaky_relu=0.2`, …; `residual`; `sum` | activation; what is added after and before the norm |
/// | `axes=1`, `axes=3,1`, `axes=none` | layer and RMS norm over these axes, with parameters of these axes in this order |
/// | `segments=3,1*20,0,5` | rows of x `[rows, C]` in segments of these lengths, of which some are repeated; all rows are one of GraphNorm if there are none |
/// | `int8`, `int8=0.05,3` | y as int8, by a scale of each row or of all, with a zero point ([`Int8`]) |
/// | `gate=last`, `gate=first` | a gate, of which the activation is: `norm(x)·act(gate)`, `norm(x·act(gate))` |
/// | `mask=3` | positions in runs of so many count, or do not |
/// | `in_place`; `backward`; `second`; `added`, `alone` | outputs over inputs; both passes; forward mode and gradients of gradients; which gradients |
/// | `given`, `sync=2+0+5`, `accumulated=3`, `ghost=2`, `renorm=1.1,0.3`, `steps=6` | where statistics come from |
/// | `new=0.1`, `old=0.99`, `cumulative`; `biased` | how running statistics are updated |
/// | `phase=1`, `shifted`, `shared`, `parts`, `view=1,2`, `gaps=4`, `mixed` | where tensors lie |
/// | `width=1`, `splits=3`, …; `integer_f16` | what is forced: the fields of [`Tuning`] |
///
/// ```
/// use wgnorm::{DType, Spec, spec};
/// let spec: Spec = "layer 4096x1024 sum relu bf16 backward".parse()?;
/// assert_eq!((&spec.norm, spec.dtype, spec.sum), (&spec::Norm::Layer(1), DType::Bf16, true));
/// assert_eq!(spec.to_string(), "layer 4096x1024 bf16 relu sum backward");
/// assert!("group:3 2x8x5x3".parse::<Spec>().unwrap_err().to_string().contains("3 groups"));
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Spec {
    /// Which norm.
    pub norm: Norm,
    /// Axis lengths of x in logical order: N, C, spatial; or any, where no axis is that of channels. Of a shard or a batch where there are
    /// several, with as many samples as it has.
    pub shape: Vec<usize>,
    /// Order of the axes in memory, where there are channels.
    pub layout: Layout,
    /// Element type of x and all that is like it.
    pub dtype: DType,
    /// Element type of parameters and their gradients.
    pub parameters: DType,
    /// Which affine parameters there are.
    pub affine: Affine,
    /// Whether gamma is stored as its distance from 1.
    pub unit_offset: bool,
    /// Groups of neighbouring places of a row that are normalized each for itself, in layer and RMS norm; 1 for all of it.
    pub groups: usize,
    /// The axes that layer and RMS norm are over, in the order that those of their parameters have, if not the last ones.
    pub axes: Option<Vec<usize>>,
    /// The lengths of the segments of rows that have statistics together, if they are in segments.
    pub segments: Option<Vec<usize>>,
    /// Whether gamma and beta are those of each sample.
    pub modulated: bool,
    /// What keeps the divisor from 0.
    pub eps: Epsilon,
    /// What is applied to what is normalized.
    pub activation: Activation,
    /// Whether a residual is added before the activation.
    pub residual: bool,
    /// Whether there is a gate in the place of a residual, and where it acts.
    pub gate: Option<GateOrder>,
    /// Whether something is added to x before the norm, and the sum written out.
    pub sum: bool,
    /// Whether there is a mask, whose positions count, or do not, in runs of so many.
    pub mask: Option<usize>,
    /// Whether outputs are written over inputs, as far as the norm can do that.
    pub in_place: bool,
    /// How y is stored, if as int8, for inference.
    pub int8: Option<AsInt8>,
    /// Which passes are run.
    pub passes: Passes,
    /// Which gradients are asked for.
    pub wanted: Wanted,
    /// Where statistics come from in training.
    pub statistics: Statistics,
    /// How a batch enters running statistics.
    pub momentum: Momentum,
    /// Which variance enters them.
    pub running_variance: RunningVariance,
    /// Where tensors lie.
    pub place: Place,
    /// What is forced instead of planned.
    pub tuning: Tuning,
}

impl Spec {
    /// A norm over a shape: the forward pass in f32, channels first, with all parameters that the norm has.
    pub fn new(norm: Norm, shape: &[usize]) -> Self {
        let BatchNormOptions { momentum, running_variance, .. } = BatchNormOptions::pytorch();
        Self {
            affine: norm.affine(),
            eps: norm.eps(),
            norm,
            shape: shape.to_vec(),
            layout: Layout::ChannelsFirst,
            dtype: DType::F32,
            parameters: DType::F32,
            unit_offset: false,
            groups: 1,
            axes: None,
            segments: None,
            modulated: false,
            activation: Activation::None,
            residual: false,
            gate: None,
            sum: false,
            mask: None,
            in_place: false,
            int8: None,
            passes: Passes::Forward,
            wanted: Wanted::All,
            statistics: Statistics::Own,
            momentum,
            running_variance,
            place: Place::Apart,
            tuning: Tuning::default(),
        }
    }

    /// Number of elements of x.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is a backward pass.
    pub fn has_backward(&self) -> bool {
        self.passes == Passes::Backward
    }

    /// Whether derivatives are taken.
    pub fn has_second(&self) -> bool {
        self.passes == Passes::Second
    }

    /// Whether its slices are rows that may be apart from each other: those of a matrix.
    #[cfg(feature = "eval")]
    pub(crate) fn has_rows_apart(&self) -> bool {
        let one = matches!(self.norm, Norm::Layer(1) | Norm::Rms(1) | Norm::Scale);
        one && self.axes.is_none() && self.groups == 1 && self.segments.is_none() && self.shape.len() == 2
    }

    /// Whether its slices are rows of x, positions with all of their values.
    pub fn is_of_rows(&self) -> bool {
        self.norm.is_of_rows() && self.axes.is_none() && self.segments.is_none()
    }

    /// Whether a forward pass writes y over x: where backward is given what it leaves there, or x is of no more use.
    pub(crate) fn writes_over_x(&self, saves: bool) -> bool {
        self.in_place
            && match self.norm {
                Norm::Batch => self.activation.is_invertible(),
                Norm::FrozenBatch | Norm::DynamicTanh | Norm::Derf => true,
                _ => !saves && !self.sum,
            }
    }

    /// Lengths of the axes of gamma and beta; of one value where there are none.
    pub fn parameter_shape(&self) -> Vec<usize> {
        let shape = &self.shape;
        if let Some(axes) = &self.axes {
            let lengths: Vec<_> = axes.iter().map(|&axis| shape[axis]).collect();
            return if lengths.is_empty() { vec![1] } else { lengths };
        }
        let own = match &self.norm {
            Norm::Layer(axes) | Norm::Rms(axes) => &shape[shape.len() - axes..],
            Norm::Weight | Norm::WeightStandardization => &shape[..1],
            Norm::MeanVariance(_) | Norm::L2(_) | Norm::Scale => &[1],
            _ => &shape[1..2],
        };
        if self.modulated { [&shape[..1], own].concat() } else { own.to_vec() }
    }

    /// The shape of alpha, if the norm has one: of a curve one value, of GraphNorm one for each channel, of switchable norm the logits of its weights of means.
    pub fn alpha_shape(&self) -> Option<Vec<usize>> {
        match self.norm {
            Norm::Graph => Some(self.parameter_shape()),
            Norm::Switchable(_) => Some(vec![3]),
            _ => self.norm.curve().map(|_| vec![1]),
        }
    }

    /// The shape of the shift, if the norm has one: that of Derf, or the logits of switchable norm's weights of variances.
    pub fn shift_shape(&self) -> Option<Vec<usize>> {
        match self.norm {
            Norm::Switchable(_) => Some(vec![3]),
            Norm::Derf => Some(vec![1]),
            _ => None,
        }
    }

    /// Options of switchable norm.
    pub(crate) fn switchable_options(&self, variance: RunningVariance) -> SwitchableNormOptions {
        SwitchableNormOptions::paper()
            .eps(self.eps.value(self.dtype))
            .affine(self.affine)
            .activation(self.activation)
            .momentum(self.momentum)
            .variance(variance)
    }

    /// The lengths of the segments that statistics are over, if they are over such.
    pub fn segment_lengths(&self) -> Option<Vec<usize>> {
        match (&self.segments, &self.norm) {
            (None, Norm::Graph) => Some(vec![self.shape[0]]),
            (segments, _) => segments.clone(),
        }
    }

    /// u and v of spectral norm, made by a function of their names and lengths; of nothing for others.
    pub(crate) fn directions_of(&self, of: impl Fn(&str, usize) -> Vec<f32>) -> (Vec<f32>, Vec<f32>) {
        let Some(options) = self.norm.spectral() else { return Default::default() };
        let rows = self.shape.get(options.axis).copied().unwrap_or(0);
        (of("/u", rows), of("/v", self.elements() / rows.max(1)))
    }

    /// Options of batch norm, or of instance norm with running statistics. One value per channel is allowed.
    pub fn batch_options(&self) -> BatchNormOptions {
        let options = BatchNormOptions::pytorch()
            .eps(self.eps.value(self.dtype))
            .momentum(self.momentum)
            .running_variance(self.running_variance)
            .affine(self.affine)
            .activation(self.activation)
            .allow_single_value(true);
        match self.statistics {
            Statistics::Renorm(r_max, d_max) => options.renorm(Renorm::fixed(r_max, d_max)),
            _ => options,
        }
    }

    /// Options of a norm of slices. Parameters of each sample are not the layer's. One value per slice is allowed.
    pub fn norm_options(&self) -> NormOptions {
        let affine = if self.modulated { Affine::None } else { self.affine };
        let mut options = self.norm.options().unwrap_or(NormOptions::layer()).affine(affine);
        options.eps = self.eps;
        options.unit_offset = self.unit_offset;
        options.activation(self.activation).allow_single_value(true)
    }

    /// Options of a curve.
    pub fn curve_options(&self) -> CurveOptions {
        CurveOptions::default().activation(self.activation).affine(self.affine)
    }
}
