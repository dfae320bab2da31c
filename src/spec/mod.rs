//! A problem as a value: which norm, over which tensor, with what. It is checked in one place, prints as one line and is parsed back.

mod layer;
mod rehearse;
mod text;

use crate::base::activation::Activation;
use crate::base::curve::Curve;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::{Layout, Shape};
use crate::base::variance::RunningVariance;
use crate::curve::CurveOptions;
use crate::family::{Epsilon, NormOptions};
use crate::norm::{BatchNormOptions, Momentum};
use crate::pass::Affine;
use crate::plan::Tuning;
use crate::statistics::renorm::Renorm;

pub use layer::{Layer, Parameters};
pub(crate) use rehearse::rehearse;

/// Which norm. Axes are those of x in logical order: N, C and the spatial ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Norm {
    /// [`BatchNorm`](crate::BatchNorm), in training.
    Batch,
    /// [`FrozenBatchNorm`](crate::FrozenBatchNorm).
    FrozenBatch,
    /// [`LayerNorm`](crate::LayerNorm) over so many trailing axes.
    Layer(usize),
    /// [`RmsNorm`](crate::RmsNorm) over so many trailing axes.
    Rms(usize),
    /// [`GroupNorm`](crate::GroupNorm) with so many groups.
    Group(usize),
    /// [`InstanceNorm`](crate::InstanceNorm).
    Instance,
    /// [`TrackedInstanceNorm`](crate::family::TrackedInstanceNorm), in training.
    TrackedInstance,
    /// [`MeanVarianceNorm`](crate::family::MeanVarianceNorm) over these axes, in ascending order.
    MeanVariance(Vec<usize>),
    /// [`L2Norm`](crate::family::L2Norm) over these axes, in ascending order.
    L2(Vec<usize>),
    /// [`ScaleNorm`](crate::family::ScaleNorm).
    Scale,
    /// [`WeightNorm`](crate::family::WeightNorm).
    Weight,
    /// [`WeightStandardization`](crate::family::WeightStandardization).
    WeightStandardization,
    /// [`DynamicTanh`](crate::DynamicTanh).
    DynamicTanh,
    /// [`Derf`](crate::Derf).
    Derf,
}

impl Norm {
    /// The name that the program, benchmarks and conformance files use.
    pub const fn name(&self) -> &'static str {
        match self {
            Norm::Batch => "batch_norm_train",
            Norm::FrozenBatch => "batch_norm_eval",
            Norm::Layer(_) => "layer_norm",
            Norm::Rms(_) => "rms_norm",
            Norm::Group(_) => "group_norm",
            Norm::Instance | Norm::TrackedInstance => "instance_norm",
            Norm::MeanVariance(_) => "mvn",
            Norm::L2(_) => "l2_norm",
            Norm::Scale => "scale_norm",
            Norm::Weight => "weight_norm",
            Norm::WeightStandardization => "weight_standardization",
            Norm::DynamicTanh => "dynamic_tanh",
            Norm::Derf => "derf",
        }
    }

    /// Whether it is batch norm, in training or frozen.
    pub const fn is_batch(&self) -> bool {
        matches!(self, Norm::Batch | Norm::FrozenBatch)
    }

    /// The function of each value that stands in the place of a norm, if it is one of those.
    pub const fn curve(&self) -> Option<Curve> {
        match self {
            Norm::DynamicTanh => Some(Curve::Tanh),
            Norm::Derf => Some(Curve::Erf),
            _ => None,
        }
    }

    /// Whether it is one of the family: a [`Norm<K>`](crate::family::Norm) over slices.
    pub const fn is_of_slices(&self) -> bool {
        !self.is_batch() && self.curve().is_none()
    }

    /// Whether it has channels, and so the same results in each layout.
    pub const fn has_channels(&self) -> bool {
        self.is_batch()
            || self.curve().is_some()
            || matches!(self, Norm::Group(_) | Norm::Instance | Norm::TrackedInstance)
    }

    /// Whether gamma and beta can be those of each sample.
    pub const fn can_be_modulated(&self) -> bool {
        matches!(self, Norm::Layer(_) | Norm::Rms(_) | Norm::Group(_) | Norm::Instance)
    }

    /// Whether it keeps running statistics while it trains.
    pub const fn tracks(&self) -> bool {
        matches!(self, Norm::Batch | Norm::TrackedInstance)
    }

    /// The parameters that it has by default, for tests of all that it can have.
    pub const fn affine(&self) -> Affine {
        match self {
            Norm::MeanVariance(_) | Norm::L2(_) => Affine::None,
            Norm::Rms(_) | Norm::Scale | Norm::Weight | Norm::WeightStandardization => Affine::Weight,
            _ => Affine::Both,
        }
    }

    /// Whether it can have these parameters.
    pub fn allows(&self, affine: Affine) -> bool {
        match self {
            Norm::MeanVariance(_) | Norm::L2(_) => affine == Affine::None,
            Norm::Weight | Norm::WeightStandardization => !affine.has_beta(),
            _ => true,
        }
    }

    /// The eps of PyTorch, or of the source of the norm.
    pub const fn eps(&self) -> Epsilon {
        match self.options() {
            Some(options) => options.eps,
            None => Epsilon::Value(BatchNormOptions::pytorch().eps),
        }
    }

    /// Options that a norm of slices begins with.
    pub(crate) const fn options(&self) -> Option<NormOptions> {
        Some(match self {
            Norm::Layer(_) => NormOptions::layer(),
            Norm::Rms(_) => NormOptions::rms(),
            Norm::Group(_) => NormOptions::group(),
            Norm::Instance | Norm::TrackedInstance => NormOptions::instance(),
            Norm::MeanVariance(_) => NormOptions::mean_variance(),
            Norm::L2(_) => NormOptions::l2(),
            Norm::Scale => NormOptions::scale(),
            Norm::Weight => NormOptions::weight(),
            Norm::WeightStandardization => NormOptions::standardization(),
            Norm::Batch | Norm::FrozenBatch | Norm::DynamicTanh | Norm::Derf => return None,
        })
    }
}

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

/// A problem: which norm, over which tensor, with what.
///
/// It prints as one line and is parsed back; what is as it usually is is left out. The first word is the norm, the second the shape in logical
/// order (N, C, spatial), the others, in any order, what else is asked for:
///
/// | words | meaning |
/// |---|---|
/// | `batch`, `frozen`, `layer:2`, `rms`, `group:32`, `instance`, `tracked`, `mvn:0,2,3`, `l2:1`, `scale`, `weight`, `standardization`, `tanh`, `derf` | the norm, with trailing axes (1 if not given), groups or axes |
/// | `f16`, `bf16`; `parameters=bf16`; `last` | element types, f32 else; channels last |
/// | `affine=both`, `weight`, `bias`, `none`; `offset`; `modulated`; `eps=1e-3`, `eps=type` | parameters: which, gamma as its distance from 1, of each sample |
/// | `relu`, `leaky_relu=0.2`, …; `residual`; `sum` | activation; what is added after and before the norm |
/// | `mask=3` | positions in runs of so many count, or do not |
/// | `in_place`; `backward`; `added`, `alone` | outputs over inputs; both passes; which gradients |
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
    /// Whether gamma and beta are those of each sample.
    pub modulated: bool,
    /// What keeps the divisor from 0.
    pub eps: Epsilon,
    /// What is applied to what is normalized.
    pub activation: Activation,
    /// Whether a residual is added before the activation.
    pub residual: bool,
    /// Whether something is added to x before the norm, and the sum written out.
    pub sum: bool,
    /// Whether there is a mask, whose positions count, or do not, in runs of so many.
    pub mask: Option<usize>,
    /// Whether outputs are written over inputs, as far as the norm can do that.
    pub in_place: bool,
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
            modulated: false,
            activation: Activation::None,
            residual: false,
            sum: false,
            mask: None,
            in_place: false,
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
        let own = match &self.norm {
            Norm::Layer(axes) | Norm::Rms(axes) => &shape[shape.len() - axes..],
            Norm::Weight | Norm::WeightStandardization => &shape[..1],
            Norm::MeanVariance(_) | Norm::L2(_) | Norm::Scale => &[1],
            _ => &shape[1..2],
        };
        if self.modulated { [&shape[..1], own].concat() } else { own.to_vec() }
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

    /// Options of a norm of slices. Parameters of each sample are not the layer's.
    pub fn norm_options(&self) -> NormOptions {
        let affine = if self.modulated { Affine::None } else { self.affine };
        let mut options = self.norm.options().unwrap_or(NormOptions::layer()).affine(affine);
        options.eps = self.eps;
        options.unit_offset = self.unit_offset;
        options.activation(self.activation)
    }

    /// Options of a curve.
    pub fn curve_options(&self) -> CurveOptions {
        CurveOptions::default().activation(self.activation).affine(self.affine)
    }

    /// Says what is wrong with it: what no layer could be made for, or the parts that do not go together. Limits of a device are not its matter.
    ///
    /// # Errors
    /// [`Error::Spec`]; [`Error::Rank`], [`Error::TooLarge`] for a shape that no tensor has; [`Error::Slope`];
    /// [`Error::Tuning`] for what cannot be forced.
    pub fn check(&self) -> Result<()> {
        Shape::new(&self.shape)?;
        self.tuning.check()?;
        let wrong = self.wrong_shape().or_else(|| self.wrong_parameters()).or_else(|| self.wrong_choices());
        match wrong {
            Some(reason) => Err(Error::Spec { reason }),
            None => match self.activation.slope().is_finite() {
                true => Ok(()),
                false => Err(Error::Slope { got: self.activation.slope() }),
            },
        }
    }

    fn wrong_shape(&self) -> Option<String> {
        let (shape, rank) = (&self.shape, self.shape.len());
        let axes = |axes: &[usize]| {
            let ascending = axes.windows(2).all(|pair| pair[0] < pair[1]);
            (axes.is_empty() || !ascending || axes.last().is_some_and(|&axis| axis >= rank))
                .then(|| format!("axes {axes:?} of {rank}: expected some of them, in ascending order"))
        };
        match &self.norm {
            Norm::Layer(over) | Norm::Rms(over) => (*over == 0 || *over > rank)
                .then(|| format!("{over} trailing axes of {rank}: expected 1 to {rank}")),
            Norm::MeanVariance(over) | Norm::L2(over) => axes(over),
            Norm::Weight | Norm::WeightStandardization | Norm::Scale => {
                (rank < 2).then(|| format!("a shape of {rank} axes: expected 2 to 5"))
            }
            _ if rank < 2 => Some(format!("a shape of {rank} axes: expected N, C and up to 3 more")),
            Norm::Group(groups) => (*groups == 0 || !shape[1].is_multiple_of(*groups))
                .then(|| format!("{groups} groups do not divide {} channels", shape[1])),
            _ => None,
        }
        .or_else(|| match &self.statistics {
            Statistics::Synchronised(samples) => {
                let all: usize = samples.iter().sum();
                (samples.is_empty() || all != shape[0])
                    .then(|| format!("shards of {samples:?} samples: expected {} in all", shape[0]))
            }
            Statistics::Accumulated(parts) => (*parts == 0 || *parts > shape[0])
                .then(|| format!("{parts} micro-batches of {} samples: expected 1 to as many", shape[0])),
            Statistics::Ghost(size) => {
                (*size == 0).then(|| "ghost batches of 0 samples: expected 1 or more".to_owned())
            }
            Statistics::Sequence(steps) => (*steps == 0).then(|| "0 steps: expected 1 or more".to_owned()),
            _ => None,
        })
    }

    fn wrong_parameters(&self) -> Option<String> {
        let Self { norm, affine, dtype, parameters, .. } = self;
        let name = norm.name();
        if !norm.allows(*affine) {
            return Some(format!("{name} does not have {affine:?} of gamma and beta"));
        }
        if self.unit_offset && !norm.is_of_slices() {
            return Some(format!("gamma of {name} is not stored as its distance from 1"));
        }
        if self.modulated && !norm.can_be_modulated() {
            return Some(format!("parameters of each sample: {name} does not take them"));
        }
        if *parameters != DType::F32 && parameters != dtype {
            return Some(format!(
                "parameters of {parameters} beside tensors of {dtype}: expected f32 or that type"
            ));
        }
        if self.eps == Epsilon::OfType && !norm.is_of_slices() {
            return Some(format!("eps of the type: {name} takes a number"));
        }
        None
    }

    fn wrong_choices(&self) -> Option<String> {
        let Self { norm, statistics, .. } = self;
        let name = norm.name();
        let own = *statistics == Statistics::Own;
        for (is, what, can) in [
            (self.layout != Layout::ChannelsFirst, "a layout", norm.has_channels()),
            (self.sum, "a sum before it", norm.is_of_slices() && !norm.tracks()),
            (self.mask.is_some(), "a mask", !norm.is_of_slices() && own && self.mask != Some(0)),
            (!own, "statistics from elsewhere", *norm == Norm::Batch),
            (self.wanted != Wanted::All, "gradients once more without a backward pass", self.has_backward()),
        ] {
            if is && !can {
                return Some(format!("{name} does not take {what}"));
            }
        }
        let plain = matches!(statistics, Statistics::Own | Statistics::Given | Statistics::Renorm(..));
        let fused = self.residual || self.in_place || self.wanted != Wanted::All;
        if !plain && fused {
            return Some(
                "a residual, work in place and gradients once more go with statistics of one batch"
                    .to_owned(),
            );
        }
        None
    }
}
