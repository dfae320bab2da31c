//! Batch normalization in training: statistics of the batch, running statistics, gradients through both.
//!
//! Source: Ioffe & Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
//! Shift", 2015.

use super::frozen::FrozenBatchNorm;
use super::options::{BatchNormOptions, Momentum};
use super::parts::{COMPOSED, IN_TRAINING, Parts, affine};
use crate::base::error::{Error, Result};
use crate::base::variance::RunningVariance;
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::tensor::Tensor;
use crate::engine::verdicts::together;
use crate::pass::input::Input;
use crate::pass::{
    GradientTargets, Gradients, OfBatch, Pass, Reads, Scheme, SecondGradients, SecondTargets, Spec,
    Statistics, Sums, Tangents, Tracking, Train, TrainForward,
};
use crate::plan::Op;
use crate::statistics::moments::Moments;
use crate::statistics::running::RunningStatistics;
use crate::statistics::saved::{Note, Saved};

/// A batch-norm layer in training.
///
/// Per channel, over samples and positions of x `[N, C]`, `[N, C, L]`, `[N, C, H, W]` or `[N, C, D, H, W]`:
///
/// ```text
/// mean, var = moments of x            (biased variance)
/// x̂ = (x − mean) / sqrt(var + eps)
/// y = act(x̂·gamma + beta + residual)
/// ```
///
/// The activation is one of the layer's options, by default none; the residual is given with x
/// ([`Tensor::with_residual`]), and most often there is none.
///
/// There is no mode flag. What updates running statistics takes `&mut self` and says train; inference is another type,
/// [`FrozenBatchNorm`], to which [`freeze`](Self::freeze) turns this one.
///
/// ```
/// use wgnorm::{BatchNorm, BatchNormOptions, Context};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let x = context.upload(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0]).await?;
///     let mut layer = BatchNorm::new(&context, 1, BatchNormOptions::pytorch()).await?;
///     let (y, saved) = layer.train_forward(&x).await?;
///     let gradients = layer.backward(&x, &y, &saved).await?;
///     // Σ x̂ = 0 and Σ x̂² = n, so the gradient of y²/2 with respect to gamma is n.
///     let dgamma = context.download(&gradients.dgamma.unwrap()).await?;
///     assert!((dgamma[0] - 4.0).abs() < 1e-4);
///
///     let layer = layer.freeze();
///     let y = context.download(&layer.infer(&x).await?).await?;
///     assert!(y[0] < y[3]);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
///
/// What has been frozen cannot train by mistake; this does not compile:
///
/// ```compile_fail,E0599
/// # use wgnorm::{Context, FrozenBatchNorm, Tensor};
/// async fn inference(layer: &mut FrozenBatchNorm, x: &Tensor) {
///     layer.train_forward(x).await.unwrap();
/// }
/// ```
///
/// Nor can a layer in training infer with batch statistics by mistake; the method does not exist:
///
/// ```compile_fail,E0599
/// # use wgnorm::{BatchNorm, Tensor};
/// async fn inference(layer: &BatchNorm, x: &Tensor) {
///     layer.infer(x).await.unwrap();
/// }
/// ```
///
/// Nor can running statistics change through a shared reference:
///
/// ```compile_fail,E0596
/// # use wgnorm::{BatchNorm, Tensor};
/// async fn step(layer: &BatchNorm, x: &Tensor) {
///     layer.train_forward(x).await.unwrap();
/// }
/// ```
#[derive(Debug)]
pub struct BatchNorm {
    pub(crate) parts: Parts,
}

impl BatchNorm {
    /// A layer for `channels` channels with gamma 1, beta 0, running mean 0 and running variance 1.
    ///
    /// # Errors
    /// [`Error::Channels`] for no channels, [`Error::Epsilon`], [`Error::Momentum`], [`Error::RenormLimit`],
    /// [`Error::RenormRamp`], and those of an allocation.
    pub async fn new(context: &Context, channels: usize, options: BatchNormOptions) -> Result<Self> {
        Ok(Self { parts: Parts::new(context, channels, options).await? })
    }

    /// A layer from existing parameters `[C]` and running statistics. Which affine parameters it has follows from
    /// those that are given, whatever the options say.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::ForeignDevice`], [`Error::Epsilon`], [`Error::Momentum`], [`Error::RenormLimit`],
    /// [`Error::RenormRamp`].
    pub fn from_parts(
        context: &Context,
        options: BatchNormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
        running: RunningStatistics,
    ) -> Result<Self> {
        Ok(Self { parts: Parts::from_existing(context, options, affine(gamma, beta), running)? })
    }

    /// Prepares y from the statistics of the batch, with an update of the running statistics in the same recording.
    /// `saved` receives what the backward pass needs; without it there is none.
    ///
    /// Two dispatches for each window; moves 3 tensors (x twice, y once), and the residual if there is one. Where the plan holds
    /// channels in registers ([`Plan::held`](crate::tuning::Plan::held)), one dispatch, which reads x once. With batch renorm ([`Renorm`](crate::statistics::Renorm)) there is
    /// one more over the channels, and no plan holds them.
    ///
    /// y may be the tensor x itself, which is then written over, with `saved` from [`Saved::in_place`] or none.
    ///
    /// With moments that were computed before ([`Input::with_moments`]), of x or of more than x, there is one dispatch for each window, which moves 2
    /// tensors. An empty x is fine then: running statistics are updated, if the moments are of any values.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Channels`], [`Error::Shape`], [`Error::DType`], [`Error::Layout`], [`Error::EmptyBatch`],
    /// [`Error::SingleValue`], [`Error::InPlace`], [`Error::Unsupported`], and what binding the tensors can raise; with moments [`Error::Count`] if
    /// `saved` is given, they do not cover exactly as many values per channel as x holds, and `saved` is not [pooled](Saved::pooled): the gradient sums
    /// of x alone would then be wrong. Nothing changes on an error.
    pub async fn prepare_train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<TrainForward> {
        let prepared = self.prepare_noted(input.into(), y, saved, true).await?;
        Ok(TrainForward::of(self.parts.id, prepared))
    }

    /// As [`prepare_train_forward`](Self::prepare_train_forward), but running statistics stay as they are: for
    /// recomputing activations (checkpointing), and for layers that do not track.
    ///
    /// # Errors
    /// As [`prepare_train_forward`](Self::prepare_train_forward).
    pub async fn prepare_train_forward_untracked<'a>(
        &self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<Prepared> {
        self.prepare_noted(input.into(), y, saved, false).await
    }

    /// y and what the backward pass needs, from the statistics of the batch; updates the running statistics.
    /// With moments that were computed before, what is saved is [pooled](Saved::pooled). Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_train_forward`](Self::prepare_train_forward).
    pub async fn train_forward<'a>(&mut self, input: impl Into<Input<'a>>) -> Result<(Tensor, Saved)> {
        together(async {
            let input = input.into();
            let (y, saved) = self.forward_outputs(input).await?;
            let forward = self.prepare_train_forward(input, &y, Some(&saved)).await?;
            self.submit(&forward).await?;
            Ok((y, saved))
        })
        .await
    }

    /// As [`train_forward`](Self::train_forward), but running statistics stay as they are.
    ///
    /// # Errors
    /// As [`prepare_train_forward`](Self::prepare_train_forward).
    pub async fn train_forward_untracked<'a>(&self, input: impl Into<Input<'a>>) -> Result<(Tensor, Saved)> {
        together(async {
            let input = input.into();
            let (y, saved) = self.forward_outputs(input).await?;
            let forward = self.prepare_train_forward_untracked(input, &y, Some(&saved)).await?;
            self.parts.context.submit(&[&forward]).await?;
            Ok((y, saved))
        })
        .await
    }

    /// Records a training forward pass of this layer and submits it.
    ///
    /// # Errors
    /// [`Error::WrongLayer`] if it was prepared for another layer; those of [`Context::submit`].
    pub async fn submit(&mut self, forward: &TrainForward) -> Result<()> {
        Train::submit(self, forward).await
    }

    /// Prepares the gradients through the batch statistics, as many as are asked for.
    ///
    /// ```text
    /// dz = dy·act'(z), z = x̂·gamma + beta + residual        d_residual = dz
    /// dbeta = Σ dz        dgamma = Σ dz·x̂
    /// dx = gamma / sqrt(var + eps)·(dz − dbeta/n − x̂·dgamma/n)
    /// ```
    ///
    /// (with batch renorm as [`Renorm`](crate::statistics::Renorm) has it).
    ///
    /// x and the residual must be what forward saw, or x what forward left in its place if it was written over
    /// ([`Saved::in_place`]); gamma and beta are those that forward used, from `saved`. Two dispatches for each window; moves
    /// 5 tensors (x and dy twice, dx once), or 2 without dx; with an activation and a residual 2 more (the residual and
    /// d_residual once), or 3 more where d_residual has 16 bits and the derivative is not 0 or 1, or x̂ is recovered from y. Where
    /// the plan holds channels in registers ([`Plan::held`](crate::tuning::Plan::held)), one dispatch, which reads each tensor once.
    ///
    /// # Errors
    /// [`Error::NoGradient`], [`Error::NoParameter`], [`Error::Rank`], [`Error::Channels`], [`Error::Shape`],
    /// [`Error::DType`], [`Error::Layout`], [`Error::EmptyBatch`], [`Error::Count`], [`Error::Residual`],
    /// [`Error::Activation`], [`Error::Renormalized`], [`Error::InPlace`], and what binding the tensors can raise.
    pub async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let input = input.into();
        let spec = self.check(input)?;
        targets.check_any()?;
        if saved.is_pooled() {
            return Err(Error::Pooled);
        }
        if spec.cut.is_empty() {
            return Err(Error::EmptyBatch { shape: input.x.shape() });
        }
        self.prepare_backward_with(spec, (input, dy), saved, targets, Sums::Own).await
    }

    /// A backward pass over a tensor that is not empty.
    pub(super) async fn prepare_backward_with(
        &self,
        spec: Spec<'_>,
        (input, dy): (Input<'_>, &Tensor),
        saved: &Saved,
        targets: &GradientTargets<'_>,
        sums: Sums<'_>,
    ) -> Result<Prepared> {
        spec.check_targets(input, dy, targets)?;
        saved.check(spec.context, spec.layer, spec.cut.kept(Scheme::Deviation), input.x.dtype())?;
        self.parts.check_recoverable(saved.is_in_place(), input.x.dtype())?;
        saved.check_same(self.noted(input))?;
        let renorm = self.parts.options.renorm;
        let of = OfBatch { moments: None, saved: Some(saved), running: None, track: None, renorm, sums };
        // gamma and beta are those that forward has saved.
        let residual = self.parts.reads_residual(saved.is_in_place());
        let reads = Reads { x: true, residual, parameters: false };
        let statistics = Statistics::Batch(of);
        Pass::backward(Op::TrainBackward, spec, (input, dy), targets, reads, statistics).prepare().await
    }

    /// All gradients that the layer has, through the batch statistics. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_backward`](Self::prepare_backward).
    pub async fn backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<Gradients> {
        together(async {
            let input = input.into();
            let gradients = self.check(input)?.allocate(input, dy).await?;
            let backward = self.prepare_backward(input, dy, saved, &gradients.computed(dy)).await?;
            self.parts.context.submit(&[&backward]).await?;
            Ok(gradients)
        })
        .await
    }

    /// Prepares the tangent of y, forward mode: how y changes as x, gamma and beta do.
    ///
    /// ```text
    /// x̂ changes by (ẋ − mean(ẋ) − x̂·mean(ẋ·x̂)) / sqrt(var + eps)        means over each channel
    /// y by act'(z)·(gamma·(that) + gammȧ·x̂ + betȧ)
    /// ```
    ///
    /// x must be what forward saw; gamma and beta are those that forward used, from `saved`. Of norm and activation alone: a residual, a gate, a sum, a mask are refused. Moves 5 (x and its tangent twice) tensors.
    ///
    /// # Errors
    /// Those of [`prepare_backward`](Self::prepare_backward); [`Error::Unsupported`] for what is refused: batch renorm, y written over x, and what an input has besides x.
    pub async fn prepare_jvp<'a>(
        &self,
        input: impl Into<Input<'a>>,
        saved: &Saved,
        tangents: &Tangents<'_>,
        y_tangent: &Tensor,
    ) -> Result<Prepared> {
        let input = input.into();
        let (spec, statistics) = self.check_differentiated(input, saved)?;
        spec.prepare_jvp(input, tangents, y_tangent, statistics).await
    }

    /// The tangent of y. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_jvp`](Self::prepare_jvp).
    pub async fn jvp<'a>(
        &self,
        input: impl Into<Input<'a>>,
        saved: &Saved,
        tangents: &Tangents<'_>,
    ) -> Result<Tensor> {
        together(async {
            let input = input.into();
            self.check(input)?;
            let y_tangent = self.parts.context.zeros_like(input.x).await?;
            let jvp = self.prepare_jvp(input, saved, tangents, &y_tangent).await?;
            self.parts.context.submit(&[&jvp]).await?;
            Ok(y_tangent)
        })
        .await
    }

    /// Prepares gradients of gradients, as PyTorch's double backward gives them: of a scalar whose gradients by dx, dgamma and dbeta are the
    /// [`Tangents`], those by dy, x, gamma and beta. Gradient penalties (WGAN-GP, Gulrajani et al. 2017) and products with a Hessian are made of them.
    ///
    /// ddy is [`prepare_jvp`](Self::prepare_jvp)'s tangent of y, the others are how dx, dgamma and dbeta change in that direction (the Hessian is symmetric).
    /// Moves 8 (x, dy and the tangent of x twice) tensors.
    ///
    /// # Errors
    /// Those of [`prepare_jvp`](Self::prepare_jvp); [`Error::Unsupported`] for an activation of one's own without a second derivative.
    pub async fn prepare_double_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        tangents: &Tangents<'_>,
        targets: &SecondTargets<'_>,
    ) -> Result<Prepared> {
        let input = input.into();
        let (spec, statistics) = self.check_differentiated(input, saved)?;
        spec.prepare_double_backward((input, dy), tangents, targets, statistics).await
    }

    /// All gradients of gradients that the layer has. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_double_backward`](Self::prepare_double_backward).
    pub async fn double_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        tangents: &Tangents<'_>,
    ) -> Result<SecondGradients> {
        together(async {
            let input = input.into();
            let gradients = self.check(input)?.allocate_second(input.x).await?;
            let backward =
                self.prepare_double_backward(input, dy, saved, tangents, &gradients.targets()).await?;
            self.parts.context.submit(&[&backward]).await?;
            Ok(gradients)
        })
        .await
    }

    /// The layer over an input whose forward pass has saved the statistics of this batch alone.
    fn check_differentiated<'s>(
        &'s self,
        input: Input<'s>,
        saved: &'s Saved,
    ) -> Result<(Spec<'s>, Statistics<'s>)> {
        let spec = self.check(input)?;
        spec.check_alone(input)?;
        if saved.is_pooled() {
            return Err(Error::Pooled);
        }
        saved.check(spec.context, spec.layer, spec.cut.kept(Scheme::Deviation), input.x.dtype())?;
        saved.check_same(self.noted(input))?;
        let refused = [
            (saved.is_in_place(), "derivatives of a pass in place", "x̂ is not recovered twice; keep x"),
            (self.parts.options.renorm.is_some(), "derivatives", "batch renorm has none of its passes"),
        ];
        if let Some((_, what, why)) = refused.into_iter().find(|(is, ..)| *is) {
            return Err(Error::Unsupported { layer: spec.layer, what, why });
        }
        if spec.cut.is_empty() {
            return Err(Error::EmptyBatch { shape: input.x.shape() });
        }
        let sums = Sums::Own;
        let of =
            OfBatch { moments: None, saved: Some(saved), running: None, track: None, renorm: None, sums };
        Ok((spec, Statistics::Batch(of)))
    }

    /// Turns the layer into one for inference and fine-tuning, with the same parameters and running statistics.
    pub fn freeze(self) -> FrozenBatchNorm {
        FrozenBatchNorm::from_inner(self.parts)
    }

    /// gamma `[C]`, if the layer has one.
    pub fn gamma(&self) -> Option<&Tensor> {
        self.parts.parameters().gamma
    }

    /// beta `[C]`, if the layer has one.
    pub fn beta(&self) -> Option<&Tensor> {
        self.parts.parameters().beta
    }

    /// The running statistics.
    pub fn running(&self) -> &RunningStatistics {
        &self.parts.running
    }

    /// What the layer was made with.
    pub fn options(&self) -> &BatchNormOptions {
        &self.parts.options
    }

    pub(crate) fn from_inner(parts: Parts) -> Self {
        Self { parts }
    }

    /// The layer over an input that it takes.
    pub(super) fn check(&self, input: Input<'_>) -> Result<Spec<'_>> {
        self.parts.check(input, IN_TRAINING)
    }

    /// The same, of an input whose moments are the call's affair.
    pub(super) fn check_composed(&self, input: Input<'_>) -> Result<Spec<'_>> {
        self.parts.check(input, COMPOSED)
    }

    /// What a forward pass is about to write.
    pub(super) async fn forward_outputs(&self, input: Input<'_>) -> Result<(Tensor, Saved)> {
        self.check(input)?;
        let context = &self.parts.context;
        let saved = Saved::for_forward(context, input.x).await?;
        let saved = if input.moments.is_some() { saved.pooled() } else { saved };
        Ok((context.zeros_like(input.x).await?, saved))
    }

    /// A training forward pass, which `saved` remembers if all is well.
    async fn prepare_noted(
        &self,
        input: Input<'_>,
        y: &Tensor,
        saved: Option<&Saved>,
        track: bool,
    ) -> Result<Prepared> {
        let prepared = self.prepare_batch(input, y, saved, track).await?;
        if let Some(saved) = saved {
            saved.note(self.noted(input));
        }
        Ok(prepared)
    }

    /// As [`prepare_noted`](Self::prepare_noted), to be [noted](Self::noted) by the caller.
    pub(super) async fn prepare_batch(
        &self,
        input: Input<'_>,
        y: &Tensor,
        saved: Option<&Saved>,
        track: bool,
    ) -> Result<Prepared> {
        let (spec, x) = (self.check(input)?, input.x);
        spec.check_like("y", y, x)?;
        if let Some(moments) = input.moments {
            moments.check(spec.context, self.parts.running.channels())?;
        }
        if let Some(saved) = saved {
            saved.check(spec.context, spec.layer, spec.cut.kept(Scheme::Deviation), x.dtype())?;
        }
        if spec.cut.is_empty() {
            return match input.moments {
                None => Err(Error::EmptyBatch { shape: x.shape() }),
                Some(moments) if moments.count() == Some(0) => Err(Error::EmptyBatch { shape: x.shape() }),
                Some(moments) if track => Box::pin(self.prepare_update(moments)).await,
                Some(_) => Ok(Prepared::nothing(spec.context, Op::TrainForward)),
            };
        }
        self.parts.check_saved_in_place(y.is_same_place(x), saved, x.dtype())?;
        self.check_moments(input, spec.cut.view().count(), saved)?;
        let of = OfBatch {
            moments: input.moments,
            saved,
            running: Some(self.parts.running.slab()),
            track: track.then(|| self.tracking()),
            renorm: self.parts.options.renorm,
            sums: Sums::Own,
        };
        Pass::forward(Op::TrainForward, spec, input, y, Statistics::Batch(of)).prepare().await
    }

    /// Requires statistics over enough values, and over those of x alone where backward is to take its sums.
    fn check_moments(&self, input: Input<'_>, values: u64, saved: Option<&Saved>) -> Result<()> {
        let count = input.moments.map_or(Some(values), Moments::count);
        let what = "moments";
        if count == Some(0) {
            let hint = "compute or merge them first";
            return Err(Error::Count { what, expected: count, got: values, hint });
        }
        if count == Some(1) && !self.parts.options.allow_single_value {
            return Err(Error::SingleValue { shape: input.x.shape() });
        }
        let covered = input.moments.is_none_or(|moments| moments.covers(values, input.mask.is_some()));
        if covered || saved.is_none_or(Saved::is_pooled) {
            return Ok(());
        }
        let hint = "the gradient sums of x alone would be wrong; use Saved::pooled and backward from sums over all that the moments cover";
        Err(Error::Count { what, expected: count, got: values, hint })
    }

    /// What forward and backward must have in common.
    pub(super) fn noted(&self, input: Input<'_>) -> Note {
        let BatchNormOptions { activation, renorm, .. } = self.parts.options;
        Note {
            layer: "batch norm",
            activation,
            residual: input.residual.is_some(),
            gate: None,
            masked: input.mask.is_some(),
            renorm: renorm.is_some(),
        }
    }

    /// How a batch enters the running statistics.
    fn tracking(&self) -> Tracking {
        let BatchNormOptions { momentum, running_variance, .. } = self.parts.options;
        Tracking {
            weights: momentum.weights(),
            cumulative: momentum == Momentum::Cumulative,
            unbiased: running_variance == RunningVariance::Unbiased,
        }
    }
}
