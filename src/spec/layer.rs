//! A layer of any norm, made from a spec: what is to be run is the same for all.

use crate::base::error::{Error, Result};
use crate::curve::{Derf, DynamicTanh};
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::tensor::Tensor;
use crate::family::{
    GroupNorm, InstanceNorm, L2Norm, LayerNorm, MeanVarianceNorm, RmsNorm, ScaleNorm, TrackedInstanceNorm,
    WeightNorm, WeightStandardization,
};
use crate::norm::{BatchNorm, FrozenBatchNorm, TrainForward};
use crate::pass::GradientTargets;
use crate::pass::input::Input;
use crate::plan::{Plan, Traffic};
use crate::spec::{Norm, Spec, Statistics};
use crate::statistics::moments::Moments;
use crate::statistics::running::{RunningStatistics, RunningValues};
use crate::statistics::saved::Saved;

/// The parameters of a layer, as far as its norm has them.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    /// gamma.
    pub gamma: Option<Tensor>,
    /// beta.
    pub beta: Option<Tensor>,
    /// alpha of a curve.
    pub alpha: Option<Tensor>,
    /// The shift of a curve.
    pub shift: Option<Tensor>,
    /// Running statistics of batch norm and tracked instance norm.
    pub running: RunningValues,
}

#[derive(Debug)]
enum Kind {
    Batch(BatchNorm),
    Frozen(FrozenBatchNorm),
    Tracked(Box<TrackedInstanceNorm>),
    Layer(LayerNorm),
    Rms(RmsNorm),
    Group(GroupNorm),
    Instance(InstanceNorm),
    MeanVariance(MeanVarianceNorm),
    L2(L2Norm),
    Scale(ScaleNorm),
    Weight(WeightNorm),
    Standardization(WeightStandardization),
    Tanh(DynamicTanh),
    Derf(Derf),
}

/// Does the same with the layer of each norm of slices, which have types of their own.
macro_rules! of_slices {
    ($kind:expr, $layer:ident => $do:expr, $($other:pat $(if $guard:expr)? => $what:expr),+ $(,)?) => {
        match $kind {
            Kind::Layer($layer) => $do,
            Kind::Rms($layer) => $do,
            Kind::Group($layer) => $do,
            Kind::Instance($layer) => $do,
            Kind::MeanVariance($layer) => $do,
            Kind::L2($layer) => $do,
            Kind::Scale($layer) => $do,
            Kind::Weight($layer) => $do,
            Kind::Standardization($layer) => $do,
            $($other $(if $guard)? => $what),+
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
    /// Whether moments come from elsewhere.
    given: bool,
}

/// A pass that is prepared.
#[derive(Debug)]
pub enum Operation {
    /// One that updates running statistics.
    Train(TrainForward),
    /// Any other.
    Plain(Prepared),
}

impl Layer {
    /// A layer with these parameters.
    ///
    /// # Errors
    /// Those of the layer that it is.
    pub async fn new(context: &Context, spec: &Spec, parameters: Parameters) -> Result<Self> {
        let Parameters { gamma, beta, alpha, shift, running } = parameters;
        let modulation = spec.modulated.then(|| [gamma.clone(), beta.clone()]);
        let (gamma, beta) = if spec.modulated { (None, None) } else { (gamma, beta) };
        let (options, shape) = (spec.norm_options(), &spec.shape);
        let trailing = |axes: usize| &shape[shape.len() - axes..];
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
                Kind::Tracked(Box::new(layer))
            }
            Norm::Layer(axes) => {
                Kind::Layer(LayerNorm::from_parts(context, trailing(*axes), options, gamma, beta)?)
            }
            Norm::Rms(axes) => {
                Kind::Rms(RmsNorm::from_parts(context, trailing(*axes), options, gamma, beta)?)
            }
            Norm::Group(groups) => {
                Kind::Group(GroupNorm::from_parts(context, *groups, shape[1], options, gamma, beta)?)
            }
            Norm::Instance => {
                Kind::Instance(InstanceNorm::from_parts(context, shape[1], options, gamma, beta)?)
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
        Ok(Self { context: context.clone(), kind, modulation, given })
    }

    /// Room for what forward leaves, if it leaves anything; of batch norm, for a y that is written over x.
    ///
    /// # Errors
    /// Those of an allocation, and of an x that is none of the layer's.
    pub async fn room_for(&self, x: &Tensor, in_place: bool) -> Result<Option<Saved>> {
        of_slices!(&self.kind,
            layer => layer.room_for(x).await.map(Some),
            Kind::Tracked(layer) => layer.room_for(x).await.map(Some),
            Kind::Batch(_) if in_place => Saved::in_place(&self.context, x).await.map(Some),
            Kind::Batch(_) => Saved::new(&self.context, x).await.map(Some),
            _ => Ok(None),
        )
    }

    /// The same input with the parameters that come with it, where these are not the layer's.
    fn given<'t>(input: Input<'t>, modulation: Option<&'t [Option<Tensor>; 2]>) -> Input<'t> {
        match modulation {
            Some([gamma, beta]) => input.modulated(gamma.as_ref(), beta.as_ref()),
            None => input,
        }
    }

    /// Prepares y. Moments that are given are computed at once.
    ///
    /// # Errors
    /// Those of the layer that it is.
    pub async fn prepare_forward(
        &mut self,
        input: Input<'_>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<Operation> {
        let modulation = self.modulation.clone();
        let input = Self::given(input, modulation.as_ref());
        let prepared = of_slices!(&mut self.kind,
            layer => layer.prepare_forward(input, y, saved).await?,
            Kind::Batch(layer) if self.given => {
                let (moments, reduce) = Moments::prepare(&self.context, input).await?;
                self.context.submit(&[&reduce]).await?;
                let input = input.with_moments(&moments);
                return layer.prepare_train_forward(input, y, saved).await.map(Operation::Train);
            },
            Kind::Batch(layer) => {
                return layer.prepare_train_forward(input, y, saved).await.map(Operation::Train);
            },
            Kind::Tracked(layer) => {
                let saved = saved.ok_or_else(nothing_saved)?;
                return layer.prepare_train_forward(input, y, saved).await.map(Operation::Train);
            },
            Kind::Frozen(layer) => layer.prepare_forward(input, y).await?,
            Kind::Tanh(layer) => layer.prepare_forward(input, y).await?,
            Kind::Derf(layer) => layer.prepare_forward(input, y).await?,
        );
        Ok(Operation::Plain(prepared))
    }

    /// Prepares the gradients from what forward has saved, if it saves anything.
    ///
    /// # Errors
    /// Those of the layer that it is; [`Error::Spec`] for what forward has not left.
    pub async fn prepare_backward(
        &self,
        input: Input<'_>,
        dy: &Tensor,
        saved: Option<&Saved>,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let input = Self::given(input, self.modulation.as_ref());
        let saved = || saved.ok_or_else(nothing_saved);
        of_slices!(&self.kind,
            layer => layer.prepare_backward(input, dy, saved()?, targets).await,
            Kind::Batch(layer) => layer.prepare_backward(input, dy, saved()?, targets).await,
            Kind::Tracked(layer) => layer.prepare_backward(input, dy, saved()?, targets).await,
            Kind::Frozen(layer) => layer.prepare_backward(input, dy, targets).await,
            Kind::Tanh(layer) => layer.prepare_backward(input, dy, targets).await,
            Kind::Derf(layer) => layer.prepare_backward(input, dy, targets).await,
        )
    }

    /// Runs a pass.
    ///
    /// # Errors
    /// Those of [`Context::submit`].
    pub async fn submit(&mut self, operation: &Operation) -> Result<()> {
        match (operation, &mut self.kind) {
            (Operation::Train(forward), Kind::Batch(layer)) => layer.submit(forward).await,
            (Operation::Train(forward), Kind::Tracked(layer)) => layer.submit(forward).await,
            (Operation::Train(_), _) => Err(Error::WrongLayer),
            (Operation::Plain(prepared), _) => self.context.submit(&[prepared]).await,
        }
    }

    /// Records a pass into a compute pass.
    ///
    /// # Errors
    /// [`Error::WrongLayer`] if it was prepared for another layer; nothing is recorded then.
    pub fn record_in(&mut self, operation: &Operation, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        match (operation, &mut self.kind) {
            (Operation::Train(forward), Kind::Batch(layer)) => forward.record_in(layer, pass),
            (Operation::Train(forward), Kind::Tracked(layer)) => layer.record_in(forward, pass),
            (Operation::Train(_), _) => Err(Error::WrongLayer),
            (Operation::Plain(prepared), _) => {
                prepared.record_in(pass);
                Ok(())
            }
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
            _ => Ok(None),
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

fn nothing_saved() -> Error {
    Error::Spec {
        reason: "the layer saves statistics in a forward pass, which its backward pass takes".to_owned(),
    }
}

impl Operation {
    fn prepared(&self) -> &Prepared {
        match self {
            Self::Train(forward) => forward.prepared(),
            Self::Plain(prepared) => prepared,
        }
    }

    /// Bytes that it moves.
    pub fn traffic(&self) -> Traffic {
        self.prepared().traffic()
    }

    /// Bytes of device memory that it holds.
    pub fn workspace_bytes(&self) -> u64 {
        self.prepared().workspace_bytes()
    }

    /// How the walk is cut into workgroups.
    pub fn plan(&self) -> Option<&Plan> {
        self.prepared().plan()
    }

    /// Keys of the kernels, one per dispatch, in order.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.prepared().kernels()
    }
}
