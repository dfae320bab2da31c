//! Switchable norm: mean and variance are mixtures of an instance's, its layer's and the batch's, with weights that are learned.
//!
//! Source: Luo, Ren, Peng, Zhang & Li, "Differentiable Learning-to-Normalize via Switchable Normalization", ICLR 2019.

mod options;

pub use self::options::SwitchableNormOptions;
use crate::base::activation::Activation;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::tensor::Tensor;
use crate::engine::verdicts::together;
use crate::norm::BatchNorm;
use crate::pass::input::Input;
use crate::pass::parameters::Parameters;
use crate::pass::spec::{Cut, Extra};
use crate::pass::switchable::Mixing;
use crate::pass::train::sealed;
use crate::pass::{GradientTargets, Gradients, Infer, Reads, Spec, Train, TrainForward, infer};
use crate::plan::{Op, Slices};
use crate::statistics::moments::{ChannelMoments, Moments};
use crate::statistics::running::RunningStatistics;
use crate::statistics::saved::{Kept, Note, Saved};

/// Switchable norm in training, of x `[N, C, …]` or `[N, …, C]`:
///
/// ```text
/// mean = Σ w_k·mean_k    variance = Σ v_k·variance_k    k: instance (n, c), layer (n), batch (c)
/// w = softmax(mean weights), v = softmax(variance weights)
/// y = act(gamma·(x − mean) / sqrt(variance + eps) + beta + residual)
/// ```
///
/// One walk over x has the moments of instances; those of layers and of the batch are merges of them. A forward pass moves 3 tensors, a backward pass 5. The batch's part enters running statistics.
///
/// The gradients of the weights, of the numbers before the softmax, are `dalpha` (means) and `dshift` (variances) of [`GradientTargets`] and [`Gradients`], `[3]` each, of instance, layer and batch.
///
/// ```
/// use wgnorm::Context;
/// use wgnorm::switchable::{SwitchableNorm, SwitchableNormOptions};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let x = context.upload(&[2, 2, 2], &[1.0, 3.0, 10.0, 14.0, -2.0, 2.0, 5.0, 5.0]).await?;
///     let mut layer = SwitchableNorm::new(&context, 2, SwitchableNormOptions::paper()).await?;
///     let (y, saved) = layer.train_forward(&x).await?;
///     // As at the beginning all weigh the same: the first mean is (2 + 7 + 1) / 3.
///     let statistics = saved.download(&context).await?;
///     assert!((statistics[0].mean() - 10.0 / 3.0).abs() < 1e-5);
///     let gradients = layer.backward(&x, &y, &saved).await?;
///     let of_means = context.download(&gradients.dalpha.unwrap()).await?;
///     // More of one is less of the others.
///     assert!(of_means.iter().sum::<f32>().abs() < 1e-4);
///     let y = layer.freeze().infer(&x).await?;
///     assert_eq!(y.shape(), x.shape());
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Debug)]
pub struct SwitchableNorm {
    parts: Parts,
}

/// Switchable norm for inference: the batch's part is that of the running statistics; instances and layers are those of x.
///
/// ```compile_fail,E0599
/// # async fn train(context: &wgnorm::Context, x: &wgnorm::Tensor) -> wgnorm::Result<()> {
/// use wgnorm::switchable::{SwitchableNorm, SwitchableNormOptions};
/// let mut layer = SwitchableNorm::new(context, 8, SwitchableNormOptions::paper()).await?.freeze();
/// layer.train_forward(x).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FrozenSwitchableNorm {
    parts: Parts,
}

#[derive(Debug)]
struct Parts {
    options: SwitchableNormOptions,
    /// gamma, beta and running statistics.
    batch: BatchNorm,
    /// What the weights are softmaxes of.
    mean_weight: Tensor,
    var_weight: Tensor,
}

const LAYER: &str = "switchable norm";
const REFUSES: &[(Extra, &str)] = &[
    (Extra::Gate, "only the norms of the family have gates; multiply what it gives"),
    (Extra::Mask, "statistics of an instance would change with it"),
    (Extra::Modulation, "its parameters are those of the layer"),
    (Extra::Sum, "only the norms of the family write the sum that they normalize"),
    (Extra::DSum, "only the norms of the family write the sum that they normalize"),
    (Extra::Moments, "its statistics are mixtures"),
];

impl Parts {
    fn new(
        options: SwitchableNormOptions,
        batch: BatchNorm,
        mean_weight: Tensor,
        var_weight: Tensor,
    ) -> Result<Self> {
        let parts = Self { options, batch, mean_weight, var_weight };
        let shape = Shape::per_channel(parts.batch.running().channels());
        parts.parameters().check_with(parts.context(), shape, [Shape::per_channel(3); 2])?;
        Ok(parts)
    }

    fn context(&self) -> &Context {
        &self.batch.parts.context
    }

    fn parameters(&self) -> Parameters<'_> {
        let (alpha, shift) = (Some(&self.mean_weight), Some(&self.var_weight));
        Parameters { alpha, shift, ..self.batch.parts.parameters() }
    }

    /// The layer over an input that fits.
    fn check<'s>(&'s self, input: Input<'s>) -> Result<Spec<'s>> {
        let (x, view) = (input.x, input.x.channels()?);
        x.check_device("x", self.context())?;
        let (expected, got) = (self.batch.running().channels(), view.channels);
        if got != expected {
            return Err(Error::Channels { what: "x", expected, got });
        }
        let cut = Cut::Slices(Slices::channels_of_samples(view, 1, false));
        cut.check_place("x", x)?;
        let spec = Spec {
            context: self.context(),
            layer: LAYER,
            cut,
            segments: None,
            has_layout: true,
            eps: self.options.eps,
            activation: self.options.activation,
            parameters: self.parameters(),
            shape: Shape::per_channel(expected),
            unit_offset: false,
            refuses: REFUSES,
        };
        spec.check_input(input)?;
        match view.inner {
            0 if view.samples > 0 => Err(Error::EmptyBatch { shape: x.shape() }),
            // A variance of one value is nothing that could be divided by none.
            1 if self.options.is_unbiased() => Err(Error::SingleValue { shape: x.shape() }),
            _ => Ok(spec),
        }
    }

    fn kept(&self, x: &Tensor) -> Result<Kept> {
        let view = x.channels()?;
        Ok(Kept::Mixtures { instances: view.samples * view.channels, count: view.inner })
    }

    fn mixing(&self) -> Mixing {
        Mixing { unbiased: self.options.is_unbiased() }
    }

    fn note(&self, input: Input<'_>) -> Note {
        Note {
            layer: LAYER,
            activation: self.options.activation,
            residual: input.residual.is_some(),
            gate: None,
            masked: false,
            renorm: false,
        }
    }
}

impl SwitchableNorm {
    /// A layer with gamma 1, beta 0, the same weight for all three, running mean 0 and running variance 1.
    ///
    /// # Errors
    /// [`Error::Channels`] for no channels, [`Error::Epsilon`], [`Error::Momentum`], [`Error::Slope`], and those of an allocation.
    pub async fn new(context: &Context, channels: usize, options: SwitchableNormOptions) -> Result<Self> {
        let batch = BatchNorm::new(context, channels, options.batch()?).await?;
        let weight = async || context.upload(&[3], &[1.0; 3]).await;
        Ok(Self { parts: Parts::new(options, batch, weight().await?, weight().await?)? })
    }

    /// A layer from existing parameters `[C]`, numbers `[3]` whose softmaxes are the weights of means and of variances (of instance, layer and batch), and running statistics. Which of gamma and beta it has
    /// follows from those that are given.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`], [`Error::ForeignDevice`], [`Error::NotContiguous`], [`Error::Epsilon`], [`Error::Momentum`], [`Error::Slope`].
    pub fn from_parts(
        context: &Context,
        options: SwitchableNormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
        [mean_weight, var_weight]: [Tensor; 2],
        running: RunningStatistics,
    ) -> Result<Self> {
        let batch = BatchNorm::from_parts(context, options.batch()?, gamma, beta, running)?;
        Ok(Self { parts: Parts::new(options, batch, mean_weight, var_weight)? })
    }

    /// Prepares y and the update of the running statistics, in the same recording: it is submitted with [`Train::submit`], or recorded with [`TrainForward::record`]. `saved`, from `room_for`, receives what the
    /// backward pass needs. y may be the tensor x if nothing is saved.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Channels`], [`Error::Shape`], [`Error::DType`], [`Error::Layout`], [`Error::NotContiguous`], [`Error::ForeignDevice`], [`Error::InPlace`], [`Error::EmptyBatch`] for instances without
    /// values, [`Error::SingleValue`] for those of one where variances are unbiased, [`Error::Unsupported`] for what an input has besides x and a residual, [`Error::TooLarge`] where no binding has room for the
    /// statistics of all instances, and what binding the tensors can raise.
    pub async fn prepare_train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<TrainForward> {
        let (parts, input) = (&self.parts, input.into());
        let (spec, x) = (parts.check(input)?, input.x);
        spec.check_like("y", y, x)?;
        if let Some(saved) = saved {
            saved.check(parts.context(), LAYER, parts.kept(x)?, x.dtype())?;
            if y.is_same_place(x) {
                let why = "y is written over x, which backward needs; save nothing, or keep x";
                return Err(Error::InPlace { why });
            }
        }
        let view = x.channels()?;
        if spec.cut.is_empty() {
            return Err(Error::EmptyBatch { shape: x.shape() });
        }
        let nothing = ChannelMoments { count: view.count(), ..ChannelMoments::default() };
        let moments = Moments::upload(parts.context(), &vec![nothing; view.channels as usize]).await?;
        let forward =
            spec.prepare_switchable((input, y), parts.mixing(), Some(&moments), None, saved).await?;
        let update = parts.batch.prepare_update(&moments).await?;
        if let Some(saved) = saved {
            saved.note(parts.note(input));
        }
        let all = Prepared::sequence(parts.context(), forward.op(), vec![forward, update]);
        Ok(TrainForward::of(parts.batch.parts.id, all))
    }

    /// y and what the backward pass needs; updates the running statistics. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_train_forward`](Self::prepare_train_forward).
    pub async fn train_forward<'a>(&mut self, input: impl Into<Input<'a>>) -> Result<(Tensor, Saved)> {
        Train::train_forward(self, input).await
    }

    /// Prepares the gradients, as many as are asked for, with weights as forward used them; gamma and beta must still be those of forward. dx may be the tensor dy itself.
    ///
    /// # Errors
    /// Those of [`prepare_train_forward`](Self::prepare_train_forward); [`Error::NoGradient`], [`Error::NoParameter`], [`Error::Residual`], [`Error::Activation`].
    pub async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let (parts, input) = (&self.parts, input.into());
        let spec = parts.check(input)?;
        targets.check_any()?;
        spec.check_targets(input, dy, targets)?;
        saved.check(parts.context(), LAYER, parts.kept(input.x)?, input.x.dtype())?;
        saved.check_same(parts.note(input))?;
        if spec.cut.is_empty() {
            return Err(Error::EmptyBatch { shape: input.x.shape() });
        }
        let residual = parts.options.activation != Activation::None;
        let reads = Reads { x: true, residual, parameters: true };
        spec.prepare_switchable_backward((input, dy), targets, reads, parts.mixing(), saved).await
    }

    /// All gradients that the layer has. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_backward`](Self::prepare_backward).
    pub async fn backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<Gradients> {
        Train::backward(self, input, dy, saved).await
    }

    /// gamma `[C]`, if the layer has one.
    pub fn gamma(&self) -> Option<&Tensor> {
        self.parts.batch.gamma()
    }

    /// beta `[C]`, if the layer has one.
    pub fn beta(&self) -> Option<&Tensor> {
        self.parts.batch.beta()
    }

    /// What the weights of means are a softmax of: of instance, layer and batch, `[3]`.
    pub fn mean_weight(&self) -> &Tensor {
        &self.parts.mean_weight
    }

    /// The same of variances.
    pub fn var_weight(&self) -> &Tensor {
        &self.parts.var_weight
    }

    /// The running statistics of the batch's part.
    pub fn running(&self) -> &RunningStatistics {
        self.parts.batch.running()
    }

    /// What the layer was made with.
    pub fn options(&self) -> &SwitchableNormOptions {
        &self.parts.options
    }

    /// Turns the layer into one for inference.
    pub fn freeze(self) -> FrozenSwitchableNorm {
        FrozenSwitchableNorm { parts: self.parts }
    }
}

impl FrozenSwitchableNorm {
    /// Prepares y. It may be the tensor x.
    ///
    /// # Errors
    /// As [`SwitchableNorm::prepare_train_forward`]; an empty x gives an empty y.
    pub async fn prepare_infer<'a>(&self, input: impl Into<Input<'a>>, y: &Tensor) -> Result<Prepared> {
        let (parts, input) = (&self.parts, input.into());
        let spec = parts.check(input)?;
        spec.check_like("y", y, input.x)?;
        if spec.cut.is_empty() {
            return Ok(Prepared::nothing(parts.context(), Op::Inference));
        }
        let running = Some(parts.batch.running().slab());
        spec.prepare_switchable((input, y), parts.mixing(), None, running, None).await
    }

    /// y. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_infer`](Self::prepare_infer).
    pub async fn infer<'a>(&self, input: impl Into<Input<'a>>) -> Result<Tensor> {
        together(async {
            let input = input.into();
            self.parts.check(input)?;
            let y = self.parts.context().zeros_like(input.x).await?;
            let inference = self.prepare_infer(input, &y).await?;
            self.parts.context().submit(&[&inference]).await?;
            Ok(y)
        })
        .await
    }

    /// The running statistics of the batch's part.
    pub fn running(&self) -> &RunningStatistics {
        self.parts.batch.running()
    }

    /// Turns the layer into one in training.
    pub fn unfreeze(self) -> SwitchableNorm {
        SwitchableNorm { parts: self.parts }
    }
}

impl sealed::Sealed for SwitchableNorm {
    fn context(&self) -> &Context {
        self.parts.context()
    }

    fn id(&self) -> Option<u64> {
        Some(self.parts.batch.parts.id)
    }
}

impl Train for SwitchableNorm {
    async fn room_for<'a>(&self, input: impl Into<Input<'a>>) -> Result<Saved> {
        let input = input.into();
        self.parts.check(input)?;
        Saved::empty(self.parts.context(), self.parts.kept(input.x)?, input.x.dtype()).await
    }

    async fn prepare_train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<TrainForward> {
        SwitchableNorm::prepare_train_forward(self, input, y, saved).await
    }

    async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        SwitchableNorm::prepare_backward(self, input, dy, saved, targets).await
    }

    async fn backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<Gradients> {
        together(async {
            let input = input.into();
            let gradients = self.parts.check(input)?.allocate(input, dy).await?;
            let backward = self.prepare_backward(input, dy, saved, &gradients.computed(dy)).await?;
            self.parts.context().submit(&[&backward]).await?;
            Ok(gradients)
        })
        .await
    }
}

impl infer::sealed::Sealed for FrozenSwitchableNorm {}

impl Infer for FrozenSwitchableNorm {
    async fn prepare_infer<'a>(&self, input: impl Into<Input<'a>>, y: &Tensor) -> Result<Prepared> {
        FrozenSwitchableNorm::prepare_infer(self, input, y).await
    }

    async fn infer<'a>(&self, input: impl Into<Input<'a>>) -> Result<Tensor> {
        FrozenSwitchableNorm::infer(self, input).await
    }
}
