//! Batch normalization in training: statistics of the batch, running statistics, gradients through both.
//!
//! Source: Ioffe & Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
//! Shift", 2015.

use super::frozen::FrozenBatchNorm;
use super::options::{BatchNormOptions, GradientTargets, Gradients, Momentum};
use super::parts::Parts;
use super::running::RunningStatistics;
use super::saved::{Pass, Saved};
use super::tuning::{Backward, Forward, Sums};
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::variance::RunningVariance;
use crate::engine::build::{Build, Whole};
use crate::engine::context::Context;
use crate::engine::input::Input;
use crate::engine::params::flag;
use crate::engine::prepared::Prepared;
use crate::engine::shader::StatisticsFrom;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::engine::tune::Chosen;
use crate::ops::{fold, map, reduce, resident};
use crate::plan::{Op, Plan, Traffic};
use crate::statistics::moments::Moments;

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
///     let y = context.download(&layer.forward(&x).await?).await?;
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
///     layer.forward(x).await.unwrap();
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

/// A training forward pass that updates the running statistics of its layer whenever it is recorded.
///
/// Recording takes the layer by `&mut`, so a pass that was prepared before its layer was frozen cannot update the
/// statistics of the frozen layer:
///
/// ```compile_fail,E0382
/// # use wgnorm::{BatchNorm, TrainForward};
/// fn step(mut layer: BatchNorm, forward: &TrainForward, encoder: &mut wgpu::CommandEncoder) {
///     let frozen = layer.freeze();
///     forward.record(&mut layer, encoder);
/// }
/// ```
#[derive(Debug)]
pub struct TrainForward {
    pub(super) prepared: Prepared,
    pub(super) layer: u64,
}

impl TrainForward {
    /// Records the pass into a compute pass of its own.
    ///
    /// # Errors
    /// [`Error::WrongLayer`] if it was prepared for another layer; nothing is recorded then.
    pub fn record(&self, layer: &mut BatchNorm, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.check(layer)?;
        self.prepared.record(encoder);
        Ok(())
    }

    /// Records the pass into a compute pass that the caller has begun.
    ///
    /// # Errors
    /// [`Error::WrongLayer`] if it was prepared for another layer; nothing is recorded then.
    pub fn record_in(&self, layer: &mut BatchNorm, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.check(layer)?;
        self.prepared.record_in(pass);
        Ok(())
    }

    /// How the walk is cut into workgroups.
    pub fn plan(&self) -> Option<&Plan> {
        self.prepared.plan()
    }

    /// Bytes that the operation moves.
    pub fn traffic(&self) -> Traffic {
        self.prepared.traffic()
    }

    /// Bytes of device memory that it holds: [`Prepared::workspace_bytes`].
    pub fn workspace_bytes(&self) -> u64 {
        self.prepared.workspace_bytes()
    }

    /// Keys of the kernels, one per dispatch, in order.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.prepared.kernels()
    }

    pub(crate) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    fn check(&self, layer: &BatchNorm) -> Result<()> {
        if self.layer == layer.parts.id { Ok(()) } else { Err(Error::WrongLayer) }
    }
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
        Ok(Self { parts: Parts::from_existing(context, options, gamma, beta, running)? })
    }

    /// Prepares y from the statistics of the batch, with an update of the running statistics in the same recording.
    /// `saved` receives what the backward pass needs; without it there is none.
    ///
    /// Two dispatches for each window; moves 3 tensors (x twice, y once), and the residual if there is one. Where the plan holds
    /// channels in registers ([`Plan::held`]), one dispatch, which reads x once. With batch renorm ([`Renorm`](crate::Renorm)) there is
    /// one more over the channels, and no plan holds them.
    ///
    /// y may be the tensor x itself, which is then written over, with `saved` from [`Saved::in_place`] or none.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Channels`], [`Error::Shape`], [`Error::DType`], [`Error::Layout`], [`Error::EmptyBatch`],
    /// [`Error::SingleValue`], [`Error::InPlace`], and what binding the tensors can raise. Nothing changes on an error.
    pub async fn prepare_train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<TrainForward> {
        let prepared = self.prepare_noted(input.into(), y, saved, None, true).await?;
        Ok(TrainForward { prepared, layer: self.parts.id })
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
        self.prepare_noted(input.into(), y, saved, None, false).await
    }

    /// y and what the backward pass needs, from the statistics of the batch; updates the running statistics.
    /// Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_train_forward`](Self::prepare_train_forward).
    pub async fn train_forward<'a>(&mut self, input: impl Into<Input<'a>>) -> Result<(Tensor, Saved)> {
        let input = input.into();
        let (y, saved) = self.forward_outputs(input).await?;
        let forward = self.prepare_train_forward(input, &y, Some(&saved)).await?;
        self.submit(&forward).await?;
        Ok((y, saved))
    }

    /// As [`train_forward`](Self::train_forward), but running statistics stay as they are.
    ///
    /// # Errors
    /// As [`prepare_train_forward`](Self::prepare_train_forward).
    pub async fn train_forward_untracked<'a>(&self, input: impl Into<Input<'a>>) -> Result<(Tensor, Saved)> {
        let input = input.into();
        let (y, saved) = self.forward_outputs(input).await?;
        let forward = self.prepare_train_forward_untracked(input, &y, Some(&saved)).await?;
        self.parts.context.submit(&[&forward]).await?;
        Ok((y, saved))
    }

    /// Records a training forward pass of this layer and submits it.
    ///
    /// # Errors
    /// [`Error::WrongLayer`] if it was prepared for another layer; those of [`Context::submit`].
    pub async fn submit(&mut self, forward: &TrainForward) -> Result<()> {
        forward.check(self)?;
        self.parts.context.submit(&[&forward.prepared]).await
    }

    /// Prepares the gradients through the batch statistics, as many as are asked for.
    ///
    /// ```text
    /// dz = dy·act'(z), z = x̂·gamma + beta + residual        d_residual = dz
    /// dbeta = Σ dz        dgamma = Σ dz·x̂
    /// dx = gamma / sqrt(var + eps)·(dz − dbeta/n − x̂·dgamma/n)
    /// ```
    ///
    /// (with batch renorm as [`Renorm`](crate::Renorm) has it).
    ///
    /// x and the residual must be what forward saw, or x what forward left in its place if it was written over
    /// ([`Saved::in_place`]); gamma and beta are those that forward used, from `saved`. Two dispatches for each window; moves
    /// 5 tensors (x and dy twice, dx once), or 2 without dx; with an activation and a residual 2 more (the residual and
    /// d_residual once), or 3 more where d_residual has 16 bits and the derivative is not 0 or 1, or x̂ is recovered from y. Where
    /// the plan holds channels in registers ([`Plan::held`]), one dispatch, which reads each tensor once.
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
        let view = self.parts.view_input(input)?;
        targets.check_any()?;
        if saved.is_pooled() {
            return Err(Error::Pooled);
        }
        if view.count() == 0 {
            return Err(Error::EmptyBatch { shape: input.x.shape() });
        }
        let backward = Backward { view, input, dy, targets, sums: Sums::Own };
        self.prepare_checked_backward(&backward, saved).await
    }

    /// A backward pass over a tensor that is not empty.
    pub(super) async fn prepare_checked_backward(
        &self,
        backward: &Backward<'_>,
        saved: &Saved,
    ) -> Result<Prepared> {
        let Backward { view, input, dy, targets, .. } = *backward;
        self.parts.check_targets(input, dy, targets)?;
        saved.check(&self.parts.context, view.channels, view.count())?;
        input.x.check_dtype("x", saved.dtype())?;
        self.parts.check_recoverable(saved.is_in_place(), input.x.dtype())?;
        saved.check_same(self.pass(input))?;
        let chosen = self.choose_backward(backward, saved).await;
        self.assemble_backward(&chosen, backward, saved).await
    }

    /// The tensors of a backward pass that are walked.
    pub(super) fn backward_tensors<'t>(
        &self,
        backward: &Backward<'t>,
        saved: &Saved,
    ) -> Vec<(Slot, &'t Tensor)> {
        let Backward { input, dy, targets, .. } = *backward;
        let residual = input.residual.filter(|_| self.parts.reads_residual(saved.is_in_place()));
        let mut tensors = vec![(Slot::X, input.x), (Slot::Dy, dy)];
        tensors.extend(residual.map(|residual| (Slot::Residual, residual)));
        tensors.extend(targets.dx.map(|dx| (Slot::Dx, dx)));
        tensors.extend(targets.d_residual.map(|d_residual| (Slot::DResidual, d_residual)));
        tensors
    }

    /// A backward pass whose arguments are checked, planned as it was chosen.
    pub(super) async fn assemble_backward(
        &self,
        chosen: &Chosen,
        backward: &Backward<'_>,
        saved: &Saved,
    ) -> Result<Prepared> {
        let Backward { view, input: Input { x, .. }, targets, .. } = *backward;
        let from_y = saved.is_in_place();
        let tensors = self.backward_tensors(backward, saved);
        let residual = backward.input.residual.filter(|_| self.parts.reads_residual(from_y));
        let held = backward.held();
        let mut build = self.parts.build(
            chosen,
            Op::TrainBackward,
            view,
            held,
            Input { residual, ..backward.input },
            &tensors,
        )?;
        build.pointwise.from_y = from_y;
        build.pointwise.d_residual = targets.d_residual.is_some();
        build.pointwise.renorm = self.parts.options.renorm.is_some() && targets.dgamma.is_some();
        build.params.least_gamma = Saved::least_gamma(x.dtype());
        build.buffer(Slot::Saved, saved.slab());
        Parts::bind_targets(&mut build, targets)?;
        let (r, d) = (u64::from(residual.is_some()), u64::from(targets.d_residual.is_some()));
        let reduced = 2 + r + d;
        if build.plan().held > 0 {
            resident::backward(&mut build);
            let traffic = Traffic::passes(x.byte_len(), reduced + 1, reduced + 1);
            return match build.finish(traffic).await {
                // Tensors of one buffer that no dispatch can bind together, though two dispatches can bind them apart.
                Err(Error::SharedBlock { .. } | Error::Between { .. }) => {
                    Box::pin(self.assemble_backward(&chosen.streaming(), backward, saved)).await
                }
                finished => finished,
            };
        }
        match backward.sums {
            Sums::Own => reduce::gradients(&mut build, StatisticsFrom::Saved, false),
            Sums::Into(sums) => {
                reduce::gradients_into(&mut build, StatisticsFrom::Saved, sums.totals.buffer())?;
            }
            Sums::From(sums) => {
                build.params.partials = 1;
                build.buffer(Slot::Partials, sums.totals.buffer());
                map::backward(&mut build);
                let mapped = 3 + r;
                return build.finish(Traffic::passes(x.byte_len(), mapped, mapped)).await;
            }
        }
        // With a mask, no binding of the map is left for dgamma and dbeta.
        if targets.has_sums() && (targets.dx.is_none() || backward.input.mask.is_some()) {
            fold::gradients(&mut build)?;
        }
        let traffic = if targets.dx.is_some() {
            // What reduce has written as d_residual is dz, unless storing has rounded it.
            let exact = x.dtype() == DType::F32 || self.parts.options.activation.is_mask();
            if d == 1 && r == 1 && exact && !from_y {
                map::backward_of_d_residual(&mut build);
                Traffic::passes(x.byte_len(), reduced + 1, reduced + 3)
            } else {
                map::backward(&mut build);
                Traffic::passes(x.byte_len(), reduced + 1, reduced + 3 + r)
            }
        } else {
            Traffic::passes(x.byte_len(), reduced, reduced)
        };
        build.finish(traffic).await
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
        let input = input.into();
        self.parts.view_input(input)?;
        let gradients = self.parts.allocate_gradients(input, dy).await?;
        let targets = self.parts.computed(&gradients, dy);
        let backward = self.prepare_backward(input, dy, saved, &targets).await?;
        self.parts.context.submit(&[&backward]).await?;
        Ok(gradients)
    }

    /// Turns the layer into one for inference and fine-tuning, with the same parameters and running statistics.
    pub fn freeze(self) -> FrozenBatchNorm {
        FrozenBatchNorm::from_inner(self.parts)
    }

    /// gamma `[C]`, if the layer has one.
    pub fn gamma(&self) -> Option<&Tensor> {
        self.parts.gamma.as_ref()
    }

    /// beta `[C]`, if the layer has one.
    pub fn beta(&self) -> Option<&Tensor> {
        self.parts.beta.as_ref()
    }

    /// The running statistics.
    pub fn running(&self) -> &RunningStatistics {
        &self.parts.running
    }

    /// What the layer was made with.
    pub fn options(&self) -> &BatchNormOptions {
        &self.parts.options
    }

    /// An operation that updates the running statistics of this layer.
    pub(crate) fn train_forward_of(&self, prepared: Prepared) -> TrainForward {
        TrainForward { prepared, layer: self.parts.id }
    }

    pub(crate) fn from_inner(parts: Parts) -> Self {
        Self { parts }
    }

    pub(super) async fn forward_outputs(&self, input: Input<'_>) -> Result<(Tensor, Saved)> {
        let view = self.parts.view_input(input)?;
        let context = &self.parts.context;
        let saved = match view.count() {
            // Nothing will be written.
            0 => Saved::new(context, input.x).await?,
            _ => Saved::unwritten(context, input.x).await?,
        };
        Ok((context.zeros_like(input.x).await?, saved))
    }

    /// A training forward pass, which `saved` remembers if all is well.
    pub(super) async fn prepare_noted(
        &self,
        input: Input<'_>,
        y: &Tensor,
        saved: Option<&Saved>,
        moments: Option<&Moments>,
        track: bool,
    ) -> Result<Prepared> {
        let prepared = self.prepare_batch(input, y, saved, moments, track).await?;
        if let Some(saved) = saved {
            self.note(saved, input);
        }
        Ok(prepared)
    }

    /// As [`prepare_noted`](Self::prepare_noted), to be [noted](Self::note) by the caller.
    pub(super) async fn prepare_batch(
        &self,
        input: Input<'_>,
        y: &Tensor,
        saved: Option<&Saved>,
        moments: Option<&Moments>,
        track: bool,
    ) -> Result<Prepared> {
        let context = &self.parts.context;
        let (x, view) = (input.x, self.parts.view_input(input)?);
        y.check_like("y", x)?;
        if let Some(moments) = moments {
            moments.check(context, view.channels)?;
        }
        if let Some(saved) = saved {
            saved.check(context, view.channels, view.count())?;
            x.check_dtype("x", saved.dtype())?;
        }
        if view.count() == 0 {
            return match moments {
                None => Err(Error::EmptyBatch { shape: x.shape() }),
                Some(moments) if moments.count() == Some(0) => Err(Error::EmptyBatch { shape: x.shape() }),
                Some(moments) if track => Box::pin(self.prepare_update(moments)).await,
                Some(_) => Ok(Prepared::nothing(context, Op::TrainForward)),
            };
        }
        let over_x = y.is_same_place(x);
        self.parts.check_saved_in_place(over_x, saved, x.dtype())?;
        let count = moments.map_or(Some(view.count()), Moments::count);
        if count == Some(0) {
            let hint = "compute or merge them first";
            return Err(Error::Count { what: "moments", expected: count, got: view.count(), hint });
        }
        if count == Some(1) && !self.parts.options.allow_single_value {
            return Err(Error::SingleValue { shape: x.shape() });
        }
        if let Some(saved) = saved {
            let covered = moments.is_none_or(|moments| moments.covers(view.count(), input.mask.is_some()));
            if !covered && !saved.is_pooled() {
                return Err(Error::Count {
                    what: "moments",
                    expected: count,
                    got: view.count(),
                    hint: "the gradient sums of x alone would be wrong; use Saved::pooled and backward from sums over all that the moments cover",
                });
            }
        }
        let renorm = self.parts.options.renorm.is_some();
        let forward = Forward { view, input, y, moments, renorm };
        let chosen = self.choose_forward(&forward, saved).await;
        self.assemble_forward(&chosen, &forward, saved, track).await
    }

    /// Remembers in `saved` what this layer's forward pass does with an input.
    pub(super) fn note(&self, saved: &Saved, input: Input<'_>) {
        saved.note(self.pass(input));
    }

    /// A training forward pass whose arguments are checked, planned as it was chosen.
    pub(super) async fn assemble_forward(
        &self,
        chosen: &Chosen,
        forward: &Forward<'_>,
        saved: Option<&Saved>,
        track: bool,
    ) -> Result<Prepared> {
        let Forward { view, input: Input { x, .. }, moments, .. } = *forward;
        let tensors = forward.tensors();
        let held = forward.held();
        // Given moments know of a mask what there is to know.
        let seen = Input { mask: forward.input.mask.filter(|_| moments.is_none()), ..forward.input };
        let mut build = self.parts.build(chosen, Op::TrainForward, view, held, seen, &tensors)?;
        self.parts.bind_affine(&mut build)?;
        if saved.is_some_and(Saved::is_in_place) {
            build.params.flags |= flag::RECOVER;
            build.params.least_gamma = Saved::least_gamma(x.dtype());
        }
        self.bind_saved(&mut build, saved);
        self.bind_running(&mut build, track);
        let mapped = tensors.len() as u64;
        if moments.is_some_and(Moments::may_be_of_nothing) {
            build.params.flags |= flag::MASKED;
        }
        let traffic = match moments {
            None if build.plan().held > 0 => {
                resident::forward(&mut build);
                Traffic::passes(x.byte_len(), mapped, mapped)
            }
            None => {
                reduce::moments(&mut build);
                self.map_forward(&mut build)?;
                Traffic::passes(x.byte_len(), mapped, mapped + 1)
            }
            Some(moments) => {
                build.buffer(Slot::Partials, moments.buffer());
                build.params.partials = 1;
                self.map_forward(&mut build)?;
                Traffic::passes(x.byte_len(), mapped, mapped)
            }
        };
        build.finish(traffic).await
    }

    /// Dispatches y from the partial moments of the batch.
    fn map_forward(&self, build: &mut Build<'_>) -> Result<()> {
        let Some(renorm) = self.parts.options.renorm else {
            map::forward(build, StatisticsFrom::Batch);
            return Ok(());
        };
        renorm.set(&mut build.params);
        fold::renorm(build)?;
        map::forward(build, StatisticsFrom::Saved);
        Ok(())
    }

    /// Binds where the statistics are saved, if anybody reads them: the backward pass, or with batch renorm the map.
    fn bind_saved(&self, build: &mut Build<'_>, saved: Option<&Saved>) {
        let renorm = self.parts.options.renorm.is_some();
        let record: Whole = match saved {
            Some(saved) => saved.slab().into(),
            None if renorm => self.parts.create_records(build).into(),
            None => return,
        };
        build.params.flags |= flag::SAVE;
        if renorm {
            build.buffer(Slot::Saved, record.clone());
        }
        build.buffer(Slot::SavedOut, record);
    }

    /// What forward and backward must have in common.
    fn pass(&self, input: Input<'_>) -> Pass {
        Pass {
            residual: input.residual.is_some(),
            masked: input.mask.is_some(),
            renorm: self.parts.options.renorm.is_some(),
            activation: self.parts.options.activation,
        }
    }

    /// Binds the running statistics, if they are updated, or with batch renorm read.
    fn bind_running(&self, build: &mut Build<'_>, track: bool) {
        let options = &self.parts.options;
        if track || options.renorm.is_some() {
            build.buffer(Slot::RunningUpdate, self.parts.running.slab());
        }
        if !track {
            return;
        }
        build.params.flags |= flag::TRACK;
        if options.momentum == Momentum::Cumulative {
            build.params.flags |= flag::CUMULATIVE;
        }
        if options.running_variance == RunningVariance::Unbiased {
            build.params.flags |= flag::UNBIASED;
        }
        (build.params.old_weight, build.params.new_weight) = options.momentum.weights();
    }
}
