//! Batch normalization with frozen statistics: inference, and gradients for fine-tuning.

use super::batch::BatchNorm;
use super::options::{BatchNormOptions, GradientTargets, Gradients};
use super::parts::Parts;
use super::running::RunningStatistics;
use super::tuning::{Backward, Forward, Sums};
use crate::base::error::Result;
use crate::engine::build::Build;
use crate::engine::context::Context;
use crate::engine::input::Input;
use crate::engine::prepared::Prepared;
use crate::engine::shader::{Pointwise, StatisticsFrom};
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::engine::tune::Chosen;
use crate::ops::{fold, map, reduce};
use crate::plan::{Capabilities, Op, Traffic, WalkKind};

/// A batch-norm layer that normalizes with its running statistics: `y = act((x − running_mean) /
/// sqrt(running_var + eps)·gamma + beta + residual)`.
///
/// It has no method that uses batch statistics or changes the running ones. Its backward pass is that of fine-tuning
/// with frozen batch norm. [`unfreeze`](Self::unfreeze) turns it into a layer in training.
#[derive(Debug)]
pub struct FrozenBatchNorm {
    pub(crate) parts: Parts,
}

impl FrozenBatchNorm {
    /// A layer from existing parameters `[C]` and running statistics, of a trained model for example. Which affine
    /// parameters it has follows from those that are given, whatever the options say.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::ForeignDevice`](crate::Error::ForeignDevice),
    /// [`Error::Epsilon`](crate::Error::Epsilon), [`Error::Momentum`](crate::Error::Momentum).
    pub fn from_parts(
        context: &Context,
        options: BatchNormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
        running: RunningStatistics,
    ) -> Result<Self> {
        Ok(Self { parts: Parts::from_existing(context, options, gamma, beta, running)? })
    }

    /// Prepares y. An empty batch gives an empty result. One dispatch for each window; moves 2 tensors, or 3 with a residual. y may be the
    /// tensor x itself, which is then written over.
    ///
    /// # Errors
    /// [`Error::Rank`](crate::Error::Rank), [`Error::Channels`](crate::Error::Channels),
    /// [`Error::Shape`](crate::Error::Shape), [`Error::Layout`](crate::Error::Layout), and what binding the tensors can
    /// raise.
    pub async fn prepare_forward<'a>(&self, input: impl Into<Input<'a>>, y: &Tensor) -> Result<Prepared> {
        let input = input.into();
        let (x, view) = (input.x, self.parts.view_input(input)?);
        y.check_like("y", x)?;
        if view.count() == 0 {
            return Ok(Prepared::nothing(&self.parts.context, Op::Inference));
        }
        let forward = Forward { view, input, y, moments: None, renorm: false };
        let chosen = self.choose_forward(&forward).await;
        self.assemble_forward(&chosen, &forward).await
    }

    /// An inference pass whose arguments are checked, planned as it was chosen.
    pub(super) async fn assemble_forward(&self, chosen: &Chosen, forward: &Forward<'_>) -> Result<Prepared> {
        let Forward { view, input: Input { x, .. }, .. } = *forward;
        let tensors = forward.tensors();
        // All of y is normalized, whatever a mask says.
        let seen = Input { mask: None, ..forward.input };
        let mut build = self.parts.build(chosen, Op::Inference, view, None, seen, &tensors)?;
        self.parts.bind_affine(&mut build)?;
        build.buffer(Slot::Running, self.parts.running.slab());
        map::forward(&mut build, StatisticsFrom::Running);
        let passes = tensors.len() as u64;
        build.finish(Traffic::passes(x.byte_len(), passes, passes)).await
    }

    /// y. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_forward`](Self::prepare_forward).
    pub async fn forward<'a>(&self, input: impl Into<Input<'a>>) -> Result<Tensor> {
        let input = input.into();
        self.parts.view_input(input)?;
        let y = self.parts.context.zeros_like(input.x).await?;
        let forward = self.prepare_forward(input, &y).await?;
        self.parts.context.submit(&[&forward]).await?;
        Ok(y)
    }

    /// Prepares the gradients through the running statistics, as many as are asked for.
    ///
    /// ```text
    /// dz = dy·act'(z), z = x̂·gamma + beta + residual        d_residual = dz
    /// dbeta = Σ dz        dgamma = Σ dz·x̂        dx = dz·gamma / sqrt(running_var + eps)
    /// ```
    ///
    /// One pass over memory (two where dx is written over dy and slices share words): moves 3 tensors, or 2 if dx or the
    /// parameter gradients are not asked for, and the residual and d_residual if there are. x, the residual, gamma, beta and
    /// running statistics must be those of the forward pass.
    ///
    /// # Errors
    /// [`Error::NoGradient`](crate::Error::NoGradient), [`Error::NoParameter`](crate::Error::NoParameter),
    /// [`Error::Rank`](crate::Error::Rank), [`Error::Channels`](crate::Error::Channels),
    /// [`Error::Shape`](crate::Error::Shape), [`Error::Layout`](crate::Error::Layout), and what binding the tensors can
    /// raise. An empty batch is fine: its sums
    /// are zero.
    pub async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let input = input.into();
        let view = self.parts.view_input(input)?;
        self.parts.check_targets(input, dy, targets)?;
        targets.check_any()?;
        if view.count() == 0 {
            return self.parts.prepare_empty_sums(Op::FrozenBackward, input.x.dtype(), targets).await;
        }

        let backward = Backward { view, input, dy, targets, sums: Sums::Own };
        let chosen = self.choose_backward(&backward).await;
        self.assemble_backward(&chosen, &backward).await
    }

    /// The tensors of a backward pass that are walked.
    pub(super) fn backward_tensors<'t>(&self, backward: &Backward<'t>) -> Vec<(Slot, &'t Tensor)> {
        let Backward { input, dy, targets, .. } = *backward;
        // Without an activation dz is dy.
        let activated = self.parts.reads_residual(false);
        let residual = input.residual.filter(|_| activated);
        let mut tensors = vec![(Slot::Dy, dy)];
        tensors.extend((targets.has_sums() || activated).then_some((Slot::X, input.x)));
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
    ) -> Result<Prepared> {
        let Backward { view, input: Input { x, .. }, dy, targets, .. } = *backward;
        let tensors = self.backward_tensors(backward);
        let (activated, sums) = (self.parts.reads_residual(false), targets.has_sums());
        let residual = backward.input.residual.filter(|_| activated);
        let mut build = self.parts.build(
            chosen,
            Op::FrozenBackward,
            view,
            None,
            Input { residual, ..backward.input },
            &tensors,
        )?;
        build.pointwise.d_residual = targets.d_residual.is_some();
        let over_dy = targets.dx.is_some_and(|dx| dx.is_same_place(dy));
        self.parts.bind_affine(&mut build)?;
        build.buffer(Slot::Running, self.parts.running.slab());
        let passes = tensors.len() as u64;
        let mut plan_passes = passes;
        // Where neighbouring slices share words, one would write dx over a word whose dy the other has yet to sum.
        let in_two = over_dy && build.plan().edges && build.plan().walk == WalkKind::Segments;
        // The tensors, and partial results, a mask, gamma, beta and running statistics.
        let bindings = tensors.len() + usize::from(sums) + usize::from(backward.input.mask.is_some()) + 3;
        let too_many = bindings - usize::from(over_dy) > Capabilities::STORAGE_BUFFERS as usize;
        let statistics = if too_many && !in_two {
            // gamma, beta and running statistics become one.
            self.fold_running(&mut build)?
        } else {
            StatisticsFrom::Running
        };
        let (pointwise, dx) = (build.pointwise, targets.dx.is_some());
        if !sums {
            map::frozen(&mut build, statistics, pointwise, dx);
        } else {
            Parts::bind_targets(&mut build, targets)?;
            if in_two {
                build.pointwise = Pointwise { d_residual: false, ..pointwise };
                reduce::gradients(&mut build, statistics, false);
                map::frozen(&mut build, statistics, pointwise, true);
                plan_passes += 2 + u64::from(residual.is_some()) - u64::from(!activated);
            } else {
                reduce::gradients(&mut build, statistics, dx);
            }
            fold::gradients(&mut build)?;
        }
        build.finish(Traffic::passes(x.byte_len(), passes, plan_passes)).await
    }

    /// All gradients that the layer has, through the running statistics. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_backward`](Self::prepare_backward).
    pub async fn backward<'a>(&self, input: impl Into<Input<'a>>, dy: &Tensor) -> Result<Gradients> {
        let input = input.into();
        self.parts.view_input(input)?;
        let gradients = self.parts.allocate_gradients(input, dy).await?;
        let backward = self.prepare_backward(input, dy, &self.parts.computed(&gradients, dy)).await?;
        self.parts.context.submit(&[&backward]).await?;
        Ok(gradients)
    }

    /// Turns the layer into one in training, with the same parameters and running statistics.
    pub fn unfreeze(self) -> BatchNorm {
        BatchNorm::from_inner(self.parts)
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

    pub(crate) fn from_inner(parts: Parts) -> Self {
        Self { parts }
    }

    /// The statistics and parameters of all channels in one buffer, by a dispatch over C values.
    fn fold_running(&self, build: &mut Build<'_>) -> Result<StatisticsFrom> {
        let folded = self.parts.create_records(build);
        fold::records(build, StatisticsFrom::Running, folded)?;
        Ok(StatisticsFrom::Saved)
    }
}
