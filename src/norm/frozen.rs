//! Batch normalization with frozen statistics: inference, and gradients for fine-tuning.

use super::batch::BatchNorm;
use super::options::{BatchNormOptions, GradientTargets, Gradients};
use super::parts::Parts;
use super::running::RunningStatistics;
use crate::context::Context;
use crate::error::Result;
use crate::gpu::dispatch::Prepared;
use crate::gpu::shader::StatisticsFrom;
use crate::gpu::slot::Slot;
use crate::ops::{fold, map, reduce};
use crate::plan::{Op, Traffic};
use crate::tensor::Tensor;

/// A batch-norm layer that normalizes with its running statistics: `y = (x − running_mean) /
/// sqrt(running_var + eps)·gamma + beta`.
///
/// It has no method that uses batch statistics or changes the running ones. Its backward pass is that of fine-tuning
/// with frozen batch norm. [`unfreeze`](Self::unfreeze) turns it into a layer in training.
#[derive(Debug)]
pub struct FrozenBatchNorm {
    parts: Parts,
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

    /// Prepares y. An empty batch gives an empty result. One dispatch; moves 2 tensors.
    ///
    /// # Errors
    /// [`Error::Rank`](crate::Error::Rank), [`Error::Channels`](crate::Error::Channels),
    /// [`Error::Shape`](crate::Error::Shape), [`Error::Layout`](crate::Error::Layout), and what binding the tensors can
    /// raise.
    pub async fn prepare_forward(&self, x: &Tensor, y: &Tensor) -> Result<Prepared> {
        let view = self.parts.view(x)?;
        y.check_like("y", x)?;
        if view.count() == 0 {
            return Ok(Prepared::nothing(&self.parts.context, Op::Inference));
        }
        let mut build = self.parts.build(Op::Inference, view, &[(Slot::X, x), (Slot::Y, y)])?;
        self.parts.bind_affine(&mut build)?;
        build.buffer(Slot::Running, self.parts.running.buffer());
        map::forward(&mut build, StatisticsFrom::Running);
        build.finish(Traffic::passes(x.byte_len(), 2, 2)).await
    }

    /// y. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_forward`](Self::prepare_forward).
    pub async fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.parts.view(x)?;
        let y = self.parts.context.zeros_like(x).await?;
        let forward = self.prepare_forward(x, &y).await?;
        self.parts.context.submit(&[&forward]).await?;
        Ok(y)
    }

    /// Prepares the gradients through the running statistics, as many as are asked for.
    ///
    /// ```text
    /// dbeta = Σ dy        dgamma = Σ dy·x̂        dx = dy·gamma / sqrt(running_var + eps)
    /// ```
    ///
    /// One pass over memory: moves 3 tensors, or 2 if dx or the parameter gradients are not asked for. gamma and
    /// running statistics must be those of the forward pass.
    ///
    /// # Errors
    /// [`Error::NoGradient`](crate::Error::NoGradient), [`Error::NoParameter`](crate::Error::NoParameter),
    /// [`Error::Rank`](crate::Error::Rank), [`Error::Channels`](crate::Error::Channels),
    /// [`Error::Shape`](crate::Error::Shape), [`Error::Layout`](crate::Error::Layout), and what binding the tensors can
    /// raise. An empty batch is fine: its sums
    /// are zero.
    pub async fn prepare_backward(
        &self,
        x: &Tensor,
        dy: &Tensor,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let view = self.parts.view(x)?;
        self.parts.check_targets(x, dy, targets)?;
        let sums = targets.dgamma.is_some() || targets.dbeta.is_some();
        if view.count() == 0 {
            return match sums {
                true => self.prepare_empty_sums(targets).await,
                false => Ok(Prepared::nothing(&self.parts.context, Op::FrozenBackward)),
            };
        }

        let mut tensors = vec![(Slot::Dy, dy)];
        tensors.extend(sums.then_some((Slot::X, x)));
        tensors.extend(targets.dx.map(|dx| (Slot::Dx, dx)));
        let mut build = self.parts.build(Op::FrozenBackward, view, &tensors)?;
        self.parts.bind_affine(&mut build)?;
        build.buffer(Slot::Running, self.parts.running.buffer());
        if sums {
            Parts::bind_targets(&mut build, targets)?;
            reduce::gradients(&mut build, StatisticsFrom::Running, targets.dx.is_some());
            fold::gradients(&mut build)?;
        } else {
            map::frozen(&mut build);
        }
        let passes = tensors.len() as u64;
        build.finish(Traffic::passes(x.byte_len(), passes, passes)).await
    }

    /// All gradients that the layer has, through the running statistics. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_backward`](Self::prepare_backward).
    pub async fn backward(&self, x: &Tensor, dy: &Tensor) -> Result<Gradients> {
        self.parts.view(x)?;
        let gradients = self.parts.allocate_gradients(x).await?;
        let backward = self.prepare_backward(x, dy, &gradients.targets()).await?;
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

    /// The parameter gradients of an empty batch: zero, written or added like any other.
    async fn prepare_empty_sums(&self, targets: &GradientTargets<'_>) -> Result<Prepared> {
        let channels = self.parts.running.channels();
        let mut build = fold::empty_gradients(&self.parts.context, channels)?;
        Parts::bind_targets(&mut build, targets)?;
        fold::gradients(&mut build)?;
        build.finish(Traffic::default()).await
    }
}
