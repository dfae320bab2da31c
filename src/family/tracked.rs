//! Instance normalization with running statistics.

use super::kinds::InstanceNorm;
use super::options::NormOptions;
use crate::base::error::{Error, Result};
use crate::base::shape::Channels;
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::slab::{self, Slab};
use crate::engine::tensor::Tensor;
use crate::engine::verdicts::together;
use crate::norm::{BatchNorm, BatchNormOptions, FrozenBatchNorm};
use crate::ops::{fold, map};
use crate::pass::input::Input;
use crate::pass::train::sealed::Sealed;
use crate::pass::{GradientTargets, Gradients, Train, TrainForward};
use crate::plan::{MOMENTS_BYTES, Op, SLICE_BYTES};
use crate::statistics::moments::{ChannelMoments, Moments};
use crate::statistics::running::RunningStatistics;
use crate::statistics::saved::Saved;

/// Instance normalization that keeps running statistics while it trains: PyTorch's `InstanceNorm2d(track_running_stats=True)`.
///
/// Training normalizes each channel of each sample by its own statistics, as [`InstanceNorm`] does; the running statistics take the average over
/// the samples of their means, and that of their variances (unbiased, if the options say so). Inference with them is frozen batch norm: [`freeze`](Self::freeze).
/// As there, nothing updates statistics but what takes `&mut self` and says train.
///
/// ```
/// use wgnorm::family::TrackedInstanceNorm;
/// use wgnorm::{BatchNormOptions, Context};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let x = context.upload(&[2, 1, 2], &[1.0, 3.0, 5.0, 9.0]).await?;
///     let mut layer = TrackedInstanceNorm::new(&context, 1, BatchNormOptions::pytorch()).await?;
///     let (y, saved) = layer.train_forward(&x).await?;
///     let gradients = layer.backward(&x, &y, &saved).await?;
///     let running = layer.running().download(&context).await?;
///     // Means 2 and 7, unbiased variances 2 and 8, with a weight of 0.1.
///     assert!((running.mean[0] - 0.45).abs() < 1e-6 && (running.var[0] - 1.4).abs() < 1e-6);
///     let y = layer.freeze().infer(&x).await?;
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Debug)]
pub struct TrackedInstanceNorm {
    norm: InstanceNorm,
    /// The same parameters with the running statistics.
    batch: BatchNorm,
}

impl TrackedInstanceNorm {
    /// A layer with gamma 1, beta 0, running mean 0 and running variance 1.
    ///
    /// # Errors
    /// As [`BatchNorm::new`]; [`Error::Unsupported`] for options with batch renorm.
    pub async fn new(context: &Context, channels: usize, options: BatchNormOptions) -> Result<Self> {
        Self::with(context, BatchNorm::new(context, channels, options).await?)
    }

    /// A layer from existing parameters `[C]` and running statistics.
    ///
    /// # Errors
    /// As [`BatchNorm::from_parts`]; [`Error::Unsupported`] for options with batch renorm.
    pub fn from_parts(
        context: &Context,
        options: BatchNormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
        running: RunningStatistics,
    ) -> Result<Self> {
        Self::with(context, BatchNorm::from_parts(context, options, gamma, beta, running)?)
    }

    fn with(context: &Context, batch: BatchNorm) -> Result<Self> {
        let BatchNormOptions { eps, affine, activation, renorm, allow_single_value, .. } = *batch.options();
        if renorm.is_some() {
            let why = "it corrects towards statistics over all samples";
            return Err(Error::Unsupported { layer: "instance norm", what: "batch renorm", why });
        }
        let options = NormOptions::instance().eps(eps).affine(affine).activation(activation);
        let options = options.allow_single_value(allow_single_value);
        let channels = batch.running().channels() as usize;
        let (gamma, beta) = (batch.gamma().cloned(), batch.beta().cloned());
        Ok(Self { norm: InstanceNorm::from_parts(context, channels, options, gamma, beta)?, batch })
    }

    /// Prepares y and the update of the running statistics, in the same recording. As [`InstanceNorm::prepare_forward`](crate::family::Norm::prepare_forward),
    /// and two dispatches over the channels. It is submitted with [`submit`](Self::submit), or recorded with
    /// [`TrainForward::record`]: what updates running statistics needs this layer. Without `saved` there is no backward pass.
    ///
    /// # Errors
    /// As [`Norm::prepare_forward`](crate::family::Norm::prepare_forward); [`Error::Unsupported`] for modulation.
    pub async fn prepare_train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<TrainForward> {
        let input = input.into();
        let prepared = match saved {
            Some(saved) => self.prepare_tracked(input, y, saved).await?,
            None if y.is_same_place(input.x) => {
                let why = "the running statistics are averages of what is saved, which needs an x that stays; give y a tensor of its own";
                return Err(Error::InPlace { why });
            }
            // The running statistics are averages of what would be saved.
            None => self.prepare_tracked(input, y, &self.norm.room_for(input.x).await?).await?,
        };
        Ok(TrainForward::of(self.batch.parts.id, prepared))
    }

    async fn prepare_tracked(&self, input: Input<'_>, y: &Tensor, saved: &Saved) -> Result<Prepared> {
        if input.modulation.is_some() {
            let why = "its running statistics go with its own parameters; use InstanceNorm";
            return Err(Error::Unsupported { layer: "tracked instance norm", what: "modulation", why });
        }
        if input.segments.is_some() {
            let why = "its running statistics are averages over samples of one size; use InstanceNorm";
            return Err(Error::Unsupported { layer: "tracked instance norm", what: "segments", why });
        }
        let context = &self.norm.context;
        let forward = self.norm.prepare_forward(input, y, Some(saved)).await?;
        let view = input.x.channels()?;
        if view.elements() == 0 {
            return Ok(forward);
        }
        let nothing = ChannelMoments { count: view.inner, ..ChannelMoments::default() };
        let moments = Moments::upload(context, &vec![nothing; view.channels as usize]).await?;
        let average = averages(context, view, saved.slab(), &moments.slab()).await?;
        let update = self.batch.prepare_update(&moments).await?;
        Ok(Prepared::sequence(context, forward.op(), vec![forward, average, update]))
    }

    /// Records a training forward pass of this layer and submits it.
    ///
    /// # Errors
    /// [`Error::WrongLayer`] if it was prepared for another layer; those of [`Context::submit`].
    pub async fn submit(&mut self, forward: &TrainForward) -> Result<()> {
        Train::submit(self, forward).await
    }

    /// Room for the statistics of a tensor like x.
    ///
    /// # Errors
    /// As [`Norm::room_for`](crate::family::Norm::room_for).
    pub async fn room_for<'a>(&self, input: impl Into<Input<'a>>) -> Result<Saved> {
        self.norm.room_for(input).await
    }

    /// y and what the backward pass needs; updates the running statistics. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_train_forward`](Self::prepare_train_forward).
    pub async fn train_forward<'a>(&mut self, input: impl Into<Input<'a>>) -> Result<(Tensor, Saved)> {
        together(async {
            let input = input.into();
            let saved = self.norm.room_for(input.x).await?;
            let y = self.norm.context.zeros_like(input.x).await?;
            let forward = self.prepare_train_forward(input, &y, Some(&saved)).await?;
            self.submit(&forward).await?;
            Ok((y, saved))
        })
        .await
    }

    /// Prepares the gradients: [`Norm::prepare_backward`](crate::family::Norm::prepare_backward).
    ///
    /// # Errors
    /// As there.
    pub async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        self.norm.prepare_backward(input, dy, saved, targets).await
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
        self.norm.backward(input, dy, saved).await
    }

    /// The layer for inference: with running statistics it is batch norm's.
    pub fn freeze(self) -> FrozenBatchNorm {
        self.batch.freeze()
    }

    /// gamma `[C]`, if the layer has one.
    pub fn gamma(&self) -> Option<&Tensor> {
        self.batch.gamma()
    }

    /// beta `[C]`, if the layer has one.
    pub fn beta(&self) -> Option<&Tensor> {
        self.batch.beta()
    }

    /// The running statistics.
    pub fn running(&self) -> &RunningStatistics {
        self.batch.running()
    }

    /// What the layer was made with.
    pub fn options(&self) -> &BatchNormOptions {
        self.batch.options()
    }
}

impl Sealed for TrackedInstanceNorm {
    fn context(&self) -> &Context {
        &self.norm.context
    }

    fn id(&self) -> Option<u64> {
        Some(self.batch.parts.id)
    }
}

impl Train for TrackedInstanceNorm {
    async fn room_for<'a>(&self, input: impl Into<Input<'a>>) -> Result<Saved> {
        TrackedInstanceNorm::room_for(self, input).await
    }

    async fn prepare_train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<TrainForward> {
        TrackedInstanceNorm::prepare_train_forward(self, input, y, saved).await
    }

    async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        TrackedInstanceNorm::prepare_backward(self, input, dy, saved, targets).await
    }

    async fn backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<Gradients> {
        TrackedInstanceNorm::backward(self, input, dy, saved).await
    }
}

/// The average over samples of what is saved of each channel, as moments; where no binding has room for all of it, of copies of some channels at a time.
async fn averages(context: &Context, view: Channels, saved: &Slab, total: &Slab) -> Result<Prepared> {
    let Channels { samples, channels, inner, .. } = view;
    if saved.bytes() <= context.capabilities().max_binding_bytes {
        return fold::averages(context, (samples, channels, inner), saved, total).await;
    }
    let words = SLICE_BYTES / 4;
    let all = saved.as_rows(context, channels * words)?;
    let mut steps = Vec::new();
    for range in slab::parts(channels, samples * SLICE_BYTES, context) {
        let many = range.end - range.start;
        let bytes = samples * many * SLICE_BYTES;
        let copy = Slab::new(context, "saved statistics", bytes).await?;
        let rows = copy.as_rows(context, many * words)?;
        for sample in 0..samples {
            let from =
                all.block(channels * words, sample..sample + 1, range.start * words..range.end * words)?;
            let to = rows.block(many * words, sample..sample + 1, 0..many * words)?;
            steps.push(map::prepare_copy(context, &from, &to).await?.without_traffic());
        }
        let total = total.stretch(range.start * MOMENTS_BYTES..range.end * MOMENTS_BYTES);
        steps.push(
            fold::averages(context, (samples, many, inner), &copy, &total).await?.with_workspace(bytes),
        );
    }
    Ok(Prepared::sequence(context, Op::Moments, steps))
}
