//! A layer of any norm, made from a spec: what is to be run is the same for all.

use crate::base::error::{Error, Result};
use crate::curve::{Derf, DynamicTanh};
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::segments::Segments;
use crate::engine::tensor::Tensor;
use crate::family::{
    GraphNorm, GroupNorm, InstanceNorm, L2Norm, LayerNorm, MeanVarianceNorm, Norm as FamilyNorm, OfPlaces,
    RmsNorm, ScaleNorm, TrackedInstanceNorm, WeightNorm, WeightStandardization,
};
use crate::norm::{BatchNorm, FrozenBatchNorm};
use crate::pass::input::Input;
use crate::pass::train::sealed::Sealed;
use crate::pass::{GradientTargets, Gradients, Int8, SecondTargets, Tangents, Train, TrainForward};
use crate::spec::{Norm, Spec, Statistics};
use crate::spectral::{SpectralNorm, SpectralNormOptions};
use crate::statistics::moments::Moments;
use crate::statistics::running::{RunningStatistics, RunningValues};
use crate::statistics::saved::Saved;
use crate::switchable::SwitchableNorm;

/// The parameters of a layer, as far as its norm has them.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    /// gamma.
    pub gamma: Option<Tensor>,
    /// beta.
    pub beta: Option<Tensor>,
    /// alpha of a curve, or of GraphNorm, or the logits of switchable norm's weights of means.
    pub alpha: Option<Tensor>,
    /// The shift of a curve, or the logits of switchable norm's weights of variances.
    pub shift: Option<Tensor>,
    /// Running statistics of batch norm and tracked instance norm.
    pub running: RunningValues,
    /// u and v of spectral norm.
    pub directions: (Vec<f32>, Vec<f32>),
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few layers, each in one place")]
enum Kind {
    Batch(BatchNorm),
    Frozen(FrozenBatchNorm),
    Tracked(TrackedInstanceNorm),
    Layer(LayerNorm),
    Rms(RmsNorm),
    Group(GroupNorm),
    Instance(InstanceNorm),
    Graph(GraphNorm),
    Switchable(SwitchableNorm),
    MeanVariance(MeanVarianceNorm),
    L2(L2Norm),
    Scale(ScaleNorm),
    Weight(WeightNorm),
    Standardization(WeightStandardization),
    Spectral(SpectralNorm),
    Tanh(DynamicTanh),
    Derf(Derf),
}

/// Does the same with the layer of each norm, which have types of their own, unless it is one of those that are named.
macro_rules! in_training {
    ($kind:expr, $layer:ident => $do:expr, $($other:pat $(if $guard:expr)? => $what:expr),+ $(,)?) => {
        match $kind {
            $($other $(if $guard)? => $what,)+
            Kind::Batch($layer) => $do,
            Kind::Tracked($layer) => $do,
            Kind::Layer($layer) => $do,
            Kind::Rms($layer) => $do,
            Kind::Group($layer) => $do,
            Kind::Instance($layer) => $do,
            Kind::Graph($layer) => $do,
            Kind::Switchable($layer) => $do,
            Kind::MeanVariance($layer) => $do,
            Kind::L2($layer) => $do,
            Kind::Scale($layer) => $do,
            Kind::Weight($layer) => $do,
            Kind::Standardization($layer) => $do,
            Kind::Spectral($layer) => $do,
            Kind::Tanh($layer) => $do,
            Kind::Derf($layer) => $do,
        }
    };
}

/// Does the same with each layer that has derivatives of its passes, and something else with what is frozen.
macro_rules! with_derivatives {
    ($kind:expr, $layer:ident => $do:expr, $frozen:ident => $other:expr $(,)?) => {
        match $kind {
            Kind::Frozen($frozen) => $other,
            Kind::Batch($layer) => $do,
            Kind::Layer($layer) => $do,
            Kind::Rms($layer) => $do,
            Kind::Group($layer) => $do,
            Kind::Instance($layer) => $do,
            Kind::Graph($layer) => $do,
            Kind::MeanVariance($layer) => $do,
            Kind::L2($layer) => $do,
            Kind::Scale($layer) => $do,
            Kind::Weight($layer) => $do,
            Kind::Standardization($layer) => $do,
            Kind::Tracked(_) | Kind::Switchable(_) | Kind::Spectral(_) | Kind::Tanh(_) | Kind::Derf(_) => {
                let (layer, what) = ("this layer", "derivatives of its passes");
                let why = "only batch norm and the norms of the family have them";
                Err(Error::Unsupported { layer, what, why })
            }
        }
    };
}

/// A layer of any norm.
#[derive(Debug)]
pub struct Layer {
    context: Context,
    kind: Kind,
    /// gamma and beta of each sample.
    modulation: Option<[Option<Tensor>; 2]>,
    /// Which rows have statistics together.
    segments: Option<Segments>,
    /// Whether moments come from elsewhere.
    given: bool,
}

impl Layer {
    /// A layer with these parameters.
    ///
    /// # Errors
    /// Those of the layer that it is.
    pub async fn new(context: &Context, spec: &Spec, parameters: Parameters) -> Result<Self> {
        spec.check()?;
        let Parameters { gamma, beta, alpha, shift, running, directions } = parameters;
        let modulation = spec.modulated.then(|| [gamma.clone(), beta.clone()]);
        let (gamma, beta) = if spec.modulated { (None, None) } else { (gamma, beta) };
        let (options, shape) = (spec.norm_options(), &spec.shape);
        let running = async || RunningStatistics::upload(context, &running).await;
        let number = |what: &str, tensor: Option<Tensor>| {
            tensor.ok_or_else(|| Error::Spec { reason: format!("{} needs {what}", spec.norm.name()) })
        };
        let kind = match &spec.norm {
            Norm::Batch => {
                let options = spec.batch_options();
                Kind::Batch(BatchNorm::from_parts(context, options, gamma, beta, running().await?)?)
            }
            Norm::FrozenBatch => {
                let options = spec.batch_options();
                Kind::Frozen(FrozenBatchNorm::from_parts(context, options, gamma, beta, running().await?)?)
            }
            Norm::TrackedInstance => {
                let (options, running) = (spec.batch_options(), running().await?);
                let layer = TrackedInstanceNorm::from_parts(context, options, gamma, beta, running)?;
                Kind::Tracked(layer)
            }
            Norm::Layer(axes) => Kind::Layer(of_places(context, spec, *axes, [gamma, beta])?),
            Norm::Rms(axes) => Kind::Rms(of_places(context, spec, *axes, [gamma, beta])?),
            Norm::Group(groups) => {
                Kind::Group(GroupNorm::from_parts(context, *groups, shape[1], options, gamma, beta)?)
            }
            Norm::Instance => {
                Kind::Instance(InstanceNorm::from_parts(context, shape[1], options, gamma, beta)?)
            }
            Norm::Graph => {
                let alpha = number("alpha", alpha)?;
                Kind::Graph(GraphNorm::from_parts(context, shape[1], options, gamma, beta, alpha)?)
            }
            Norm::Switchable(variance) => {
                let (options, running) = (spec.switchable_options(*variance), running().await?);
                let weights = [number("weights of means", alpha)?, number("weights of variances", shift)?];
                let layer = SwitchableNorm::from_parts(context, options, gamma, beta, weights, running)?;
                Kind::Switchable(layer)
            }
            Norm::MeanVariance(axes) => {
                Kind::MeanVariance(MeanVarianceNorm::new(context, axes, options).await?)
            }
            Norm::L2(axes) => Kind::L2(L2Norm::new(context, axes, options).await?),
            Norm::Scale => {
                let places = shape.last().copied().unwrap_or(0);
                Kind::Scale(ScaleNorm::from_parts(context, places, options, gamma, beta)?)
            }
            Norm::Weight => Kind::Weight(WeightNorm::from_parts(context, shape[0], options, gamma)?),
            Norm::WeightStandardization => {
                Kind::Standardization(WeightStandardization::from_parts(context, shape[0], options, gamma)?)
            }
            Norm::Spectral(axis, order) => {
                let options = SpectralNormOptions::hook().axis(*axis).order(*order);
                let options = options.eps(spec.eps.value(spec.dtype));
                let (u, v) = &directions;
                Kind::Spectral(SpectralNorm::from_directions(context, shape, options, u, v).await?)
            }
            Norm::DynamicTanh => {
                let (options, alpha) = (spec.curve_options(), number("alpha", alpha)?);
                Kind::Tanh(DynamicTanh::from_parts(context, options, alpha, gamma, beta)?)
            }
            Norm::Derf => {
                let (options, alpha) = (spec.curve_options(), number("alpha", alpha)?);
                Kind::Derf(Derf::from_parts(context, options, alpha, number("a shift", shift)?, gamma, beta)?)
            }
        };
        let given = spec.statistics == Statistics::Given;
        let segments = match spec.segment_lengths() {
            Some(lengths) => Some(Segments::of_lengths(context, &lengths).await?),
            None => None,
        };
        Ok(Self { context: context.clone(), kind, modulation, segments, given })
    }

    fn around<'t>(&'t self, input: Input<'t>) -> Input<'t> {
        around(input, self.modulation.as_ref(), self.segments.as_ref())
    }

    /// Prepares a y of int8, for inference, of a norm that has one.
    ///
    /// # Errors
    /// Those of the layer; [`Error::Unsupported`] for one that has none.
    pub async fn prepare_infer_int8<'a>(
        &self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        int8: Int8<'_>,
    ) -> Result<Prepared> {
        let input = self.around(input.into());
        match &self.kind {
            Kind::Frozen(layer) => layer.prepare_infer_int8(input, y, int8).await,
            Kind::Layer(layer) => layer.prepare_infer_int8(input, y, int8).await,
            Kind::Rms(layer) => layer.prepare_infer_int8(input, y, int8).await,
            Kind::Group(layer) => layer.prepare_infer_int8(input, y, int8).await,
            Kind::Instance(layer) => layer.prepare_infer_int8(input, y, int8).await,
            Kind::Graph(layer) => layer.prepare_infer_int8(input, y, int8).await,
            Kind::MeanVariance(layer) => layer.prepare_infer_int8(input, y, int8).await,
            Kind::L2(layer) => layer.prepare_infer_int8(input, y, int8).await,
            Kind::Scale(layer) => layer.prepare_infer_int8(input, y, int8).await,
            Kind::Weight(layer) => layer.prepare_infer_int8(input, y, int8).await,
            Kind::Standardization(layer) => layer.prepare_infer_int8(input, y, int8).await,
            Kind::Batch(_)
            | Kind::Tracked(_)
            | Kind::Switchable(_)
            | Kind::Spectral(_)
            | Kind::Tanh(_)
            | Kind::Derf(_) => {
                let (layer, what) = ("this layer", "y of int8");
                let why = "only frozen batch norm and the norms of the family have it";
                Err(Error::Unsupported { layer, what, why })
            }
        }
    }

    /// Prepares the tangent of y, of a norm that has derivatives of its passes.
    ///
    /// # Errors
    /// Those of the layer; [`Error::Unsupported`] for one that has none.
    pub async fn prepare_jvp<'a>(
        &self,
        input: impl Into<Input<'a>>,
        saved: &Saved,
        tangents: &Tangents<'_>,
        y_tangent: &Tensor,
    ) -> Result<Prepared> {
        let input = self.around(input.into());
        with_derivatives!(&self.kind,
            layer => layer.prepare_jvp(input, saved, tangents, y_tangent).await,
            frozen => frozen.prepare_jvp(input, tangents, y_tangent).await,
        )
    }

    /// Prepares gradients of gradients, of a norm that has them.
    ///
    /// # Errors
    /// Those of the layer; [`Error::Unsupported`] for one that has none.
    pub async fn prepare_double_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        tangents: &Tangents<'_>,
        targets: &SecondTargets<'_>,
    ) -> Result<Prepared> {
        let input = self.around(input.into());
        with_derivatives!(&self.kind,
            layer => layer.prepare_double_backward(input, dy, saved, tangents, targets).await,
            frozen => frozen.prepare_double_backward(input, dy, tangents, targets).await,
        )
    }

    /// Room for what forward of a tensor like x leaves, where y may be written over x.
    ///
    /// # Errors
    /// Those of an allocation, and of an x that is none of the layer's.
    pub async fn room_in_place(&self, x: &Tensor) -> Result<Saved> {
        match &self.kind {
            Kind::Batch(_) => Saved::in_place(&self.context, x).await,
            _ => self.room_for(x).await,
        }
    }

    /// As `room_for`, in a tensor of so many records of `words` of f32 that `tensor` makes; its own where the layer saves nothing, or keeps it in a form of its own.
    #[cfg(feature = "eval")]
    pub(crate) async fn room_in(
        &self,
        x: &Tensor,
        tensor: impl AsyncFnOnce(&[usize]) -> Result<Tensor>,
    ) -> Result<Saved> {
        let like = self.room_for(x).await?;
        let own = matches!(self.kind, Kind::Tracked(_) | Kind::Switchable(_));
        let Some(shape) = like.shape().filter(|_| !own) else {
            return Ok(like);
        };
        let tensor = tensor(&shape).await?;
        let input = self.around(x.into());
        match &self.kind {
            Kind::Batch(_) => Saved::from_tensor(&self.context, x, &tensor),
            Kind::Layer(layer) => layer.room_in(input, &tensor),
            Kind::Rms(layer) => layer.room_in(x, &tensor),
            Kind::Group(layer) => layer.room_in(input, &tensor),
            Kind::Instance(layer) => layer.room_in(input, &tensor),
            Kind::Graph(layer) => layer.room_in(input, &tensor),
            Kind::MeanVariance(layer) => layer.room_in(x, &tensor),
            Kind::L2(layer) => layer.room_in(x, &tensor),
            Kind::Scale(layer) => layer.room_in(x, &tensor),
            Kind::Weight(layer) => layer.room_in(x, &tensor),
            Kind::Standardization(layer) => layer.room_in(x, &tensor),
            Kind::Frozen(_)
            | Kind::Tracked(_)
            | Kind::Switchable(_)
            | Kind::Spectral(_)
            | Kind::Tanh(_)
            | Kind::Derf(_) => Ok(like),
        }
    }

    /// The batch norm that it is, if it is one in training.
    pub fn batch_norm(&mut self) -> Option<&mut BatchNorm> {
        match &mut self.kind {
            Kind::Batch(layer) => Some(layer),
            _ => None,
        }
    }

    /// The running statistics as they are now, of a layer that updates them.
    ///
    /// # Errors
    /// Those of a read-back.
    pub async fn running(&self) -> Result<Option<RunningValues>> {
        match &self.kind {
            Kind::Batch(layer) => layer.running().download(&self.context).await.map(Some),
            Kind::Tracked(layer) => layer.running().download(&self.context).await.map(Some),
            Kind::Switchable(layer) => layer.running().download(&self.context).await.map(Some),
            _ => Ok(None),
        }
    }

    /// u and v as they are now, of spectral norm.
    ///
    /// # Errors
    /// Those of a read-back.
    pub async fn directions(&self) -> Result<Option<(Vec<f32>, Vec<f32>)>> {
        match &self.kind {
            Kind::Spectral(layer) => layer.directions().await.map(Some),
            _ => Ok(None),
        }
    }

    /// A tensor in the memory of u and v, of spectral norm.
    pub(crate) fn directions_memory(&self) -> Option<&Tensor> {
        match &self.kind {
            Kind::Spectral(layer) => Some(layer.memory()),
            _ => None,
        }
    }

    /// Sets u and v of spectral norm.
    ///
    /// # Errors
    /// Those of [`SpectralNorm::set_directions`]; [`Error::Unsupported`] for another norm.
    pub async fn set_directions(&mut self, u: &[f32], v: &[f32]) -> Result<()> {
        match &mut self.kind {
            Kind::Spectral(layer) => layer.set_directions(u, v).await,
            _ => {
                let (layer, what, why) = ("this layer", "u and v", "only spectral norm has them");
                Err(Error::Unsupported { layer, what, why })
            }
        }
    }

    /// The same layer for inference: batch norm's, and what is frozen or has no statistics of its own.
    #[cfg(feature = "eval")]
    pub(crate) fn freeze(self) -> Option<FrozenBatchNorm> {
        match self.kind {
            Kind::Batch(layer) => Some(layer.freeze()),
            Kind::Frozen(layer) => Some(layer),
            _ => None,
        }
    }
}

/// Layer or RMS norm over the axes of a spec, or else its trailing ones.
fn of_places<K: OfPlaces>(
    context: &Context,
    spec: &Spec,
    trailing: usize,
    [gamma, beta]: [Option<Tensor>; 2],
) -> Result<FamilyNorm<K>> {
    let (shape, options) = (&spec.shape, spec.norm_options());
    match &spec.axes {
        Some(axes) => {
            let lengths: Vec<_> = axes.iter().map(|&axis| shape[axis]).collect();
            FamilyNorm::over_from_parts(context, axes, &lengths, options, gamma, beta)
        }
        None => {
            let places = &shape[shape.len() - trailing..];
            FamilyNorm::in_groups_from_parts(context, places, spec.groups, options, gamma, beta)
        }
    }
}

/// The same input with the parameters and the segments that come with it, where these are not the layer's.
fn around<'t>(
    input: Input<'t>,
    modulation: Option<&'t [Option<Tensor>; 2]>,
    segments: Option<&'t Segments>,
) -> Input<'t> {
    let input = match modulation {
        Some([gamma, beta]) => input.modulated(gamma.as_ref(), beta.as_ref()),
        None => input,
    };
    match segments {
        Some(segments) => input.in_segments(segments),
        None => input,
    }
}

impl Sealed for Layer {
    fn context(&self) -> &Context {
        &self.context
    }

    fn id(&self) -> Option<u64> {
        match &self.kind {
            Kind::Batch(layer) => layer.id(),
            Kind::Tracked(layer) => layer.id(),
            Kind::Spectral(layer) => layer.id(),
            Kind::Switchable(layer) => layer.id(),
            _ => None,
        }
    }
}

/// What is frozen runs the passes of fine-tuning, and saves nothing.
impl Train for Layer {
    async fn room_for<'a>(&self, input: impl Into<Input<'a>>) -> Result<Saved> {
        let input = around(input.into(), None, self.segments.as_ref());
        in_training!(&self.kind,
            layer => layer.room_for(input).await,
            Kind::Frozen(_) => Saved::nothing(&self.context, input.x.dtype()).await,
        )
    }

    /// Moments that are given are computed at once.
    async fn prepare_train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<TrainForward> {
        let (modulation, segments) = (self.modulation.clone(), self.segments.clone());
        let input = around(input.into(), modulation.as_ref(), segments.as_ref());
        in_training!(&mut self.kind,
            layer => layer.prepare_train_forward(input, y, saved).await,
            Kind::Batch(layer) if self.given && input.moments.is_none() => {
                let (moments, reduce) = Moments::prepare(&self.context, input).await?;
                self.context.submit(&[&reduce]).await?;
                layer.prepare_train_forward(input.with_moments(&moments), y, saved).await
            },
            Kind::Frozen(layer) => layer.prepare_infer(input, y).await.map(Into::into),
        )
    }

    async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let input = self.around(input.into());
        in_training!(&self.kind,
            layer => Train::prepare_backward(layer, input, dy, saved, targets).await,
            Kind::Frozen(layer) => layer.prepare_backward(input, dy, targets).await,
        )
    }

    async fn train_forward<'a>(&mut self, input: impl Into<Input<'a>>) -> Result<(Tensor, Saved)> {
        let (modulation, segments) = (self.modulation.clone(), self.segments.clone());
        let input = around(input.into(), modulation.as_ref(), segments.as_ref());
        in_training!(&mut self.kind,
            layer => layer.train_forward(input).await,
            Kind::Batch(layer) if self.given && input.moments.is_none() => {
                let moments = Moments::of(&self.context, Input { modulation: None, ..input }).await?;
                layer.train_forward(input.with_moments(&moments)).await
            },
            Kind::Frozen(layer) => {
                let y = layer.infer(input).await?;
                Ok((y, Saved::nothing(&self.context, input.x.dtype()).await?))
            },
        )
    }

    async fn backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<Gradients> {
        let input = self.around(input.into());
        in_training!(&self.kind,
            layer => Train::backward(layer, input, dy, saved).await,
            Kind::Frozen(layer) => layer.backward(input, dy).await,
        )
    }
}
