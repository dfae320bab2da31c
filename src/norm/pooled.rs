//! Training with statistics that are values: moments and gradient sums that were computed before, merged from several tensors
//! perhaps. Synchronised, accumulated and ghost batch norm are compositions of these operations.

use super::batch::{BatchNorm, TrainForward};
use super::options::{Accumulation, GradientTargets, Gradients};
use super::parts::Parts;
use super::running::RunningValues;
use super::saved::Saved;
use super::tuning::{Backward, Sums};
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::engine::input::Input;
use crate::engine::prepared::Prepared;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::ops::fold;
use crate::plan::{Op, Traffic};
use crate::statistics::gradient_sums::GradientSums;
use crate::statistics::moments::Moments;

/// The gradients of a tensor that its own sums give: all but that of x.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LocalGradients {
    /// Gradient of the residual, if there is one. Without an activation and a mask it is the tensor dy itself.
    pub d_residual: Option<Tensor>,
    /// This tensor's part of the gradient of gamma, `[C]`, if the layer has one.
    pub dgamma: Option<Tensor>,
    /// This tensor's part of the gradient of beta, `[C]`, if the layer has one.
    pub dbeta: Option<Tensor>,
}

impl LocalGradients {
    /// Together with the gradient of x.
    pub fn with_dx(self, dx: Tensor) -> Gradients {
        let Self { d_residual, dgamma, dbeta } = self;
        Gradients { dx, d_residual, dgamma, dbeta }
    }
}

impl BatchNorm {
    /// As [`prepare_train_forward`](Self::prepare_train_forward), with moments that were computed before, of x or of
    /// more than x. One dispatch for each window. An empty x is fine: running statistics are updated, if the moments are of
    /// any values.
    ///
    /// # Errors
    /// Besides those, [`Error::Count`] if `saved` is given, the moments do not cover exactly as many values per
    /// channel as x holds, and `saved` is not [pooled](Saved::pooled): the gradient sums of x alone would then be wrong.
    pub async fn prepare_train_forward_from<'a>(
        &mut self,
        moments: &Moments,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<TrainForward> {
        let prepared = self.prepare_noted(input.into(), y, saved, Some(moments), true).await?;
        Ok(TrainForward { prepared, layer: self.parts.id })
    }

    /// As [`prepare_train_forward_from`](Self::prepare_train_forward_from), but running statistics stay as they are.
    ///
    /// # Errors
    /// As [`prepare_train_forward_from`](Self::prepare_train_forward_from).
    pub async fn prepare_train_forward_from_untracked<'a>(
        &self,
        moments: &Moments,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<Prepared> {
        self.prepare_noted(input.into(), y, saved, Some(moments), false).await
    }

    /// y and what the backward pass needs, [pooled](Saved::pooled), from moments that were computed before; updates the running
    /// statistics with them. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_train_forward_from`](Self::prepare_train_forward_from).
    pub async fn train_forward_from<'a>(
        &mut self,
        moments: &Moments,
        input: impl Into<Input<'a>>,
    ) -> Result<(Tensor, Saved)> {
        let input = input.into();
        let (y, saved) = self.forward_outputs(input).await?;
        let saved = saved.pooled();
        let forward = self.prepare_train_forward_from(moments, input, &y, Some(&saved)).await?;
        self.submit(&forward).await?;
        Ok((y, saved))
    }

    /// As [`train_forward_from`](Self::train_forward_from), but running statistics stay as they are.
    ///
    /// # Errors
    /// As [`prepare_train_forward_from`](Self::prepare_train_forward_from).
    pub async fn train_forward_from_untracked<'a>(
        &self,
        moments: &Moments,
        input: impl Into<Input<'a>>,
    ) -> Result<(Tensor, Saved)> {
        let input = input.into();
        let (y, saved) = self.forward_outputs(input).await?;
        let saved = saved.pooled();
        let forward = self.prepare_train_forward_from_untracked(moments, input, &y, Some(&saved)).await?;
        self.parts.context.submit(&[&forward]).await?;
        Ok((y, saved))
    }

    /// Prepares one update of the running statistics with moments, as a training forward pass makes it. Channels whose count is 0
    /// stay as they are. Whether a count is 1 is only known of moments whose count is known on the host.
    ///
    /// # Errors
    /// [`Error::Channels`], [`Error::ForeignDevice`], [`Error::SingleValue`], and those of an allocation.
    pub async fn prepare_running_update(&mut self, moments: &Moments) -> Result<TrainForward> {
        let prepared = self.prepare_update(moments).await?;
        Ok(TrainForward { prepared, layer: self.parts.id })
    }

    /// The update is part of what comes before every map with statistics of a batch; so here it comes before the least
    /// map that there is, of a value per channel that nobody looks at.
    pub(crate) async fn prepare_update(&self, moments: &Moments) -> Result<Prepared> {
        let parts = &self.parts;
        moments.check(&parts.context, parts.running.channels())?;
        if moments.count() == Some(0) {
            return Ok(Prepared::nothing(&parts.context, Op::TrainForward));
        }
        let parameter = parts.gamma.as_ref().or(parts.beta.as_ref());
        let dtype = parameter.map_or(DType::F32, Tensor::dtype);
        let shape = [1, parts.running.channels() as usize];
        let x = parts.context.zeros_as(&shape, dtype).await?;
        let y = parts.context.zeros_as(&shape, dtype).await?;
        let update = self.prepare_batch((&x).into(), &y, None, Some(moments), true).await?;
        Ok(update.without_traffic())
    }

    /// Updates the running statistics with moments, once. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_running_update`](Self::prepare_running_update).
    pub async fn update_running(&mut self, moments: &Moments) -> Result<()> {
        let update = self.prepare_running_update(moments).await?;
        self.submit(&update).await
    }

    /// Prepares the gradient sums of x and dy as a value, and the gradients that come with them, as many as are asked for: all but
    /// dx. Until it has run, the sums are 0. Moves 2 tensors, and the residual and d_residual if there are.
    ///
    /// dgamma and dbeta are those of x and dy alone: their sum over everything that the statistics cover is that of the whole.
    ///
    /// # Errors
    /// [`Error::NotHere`] for dx, and those of [`prepare_backward`](Self::prepare_backward) but [`Error::Pooled`],
    /// [`Error::NoGradient`] and [`Error::EmptyBatch`]: an empty x is fine, its sums are zero.
    pub async fn prepare_gradient_sums<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<(GradientSums, Prepared)> {
        let input = input.into();
        let view = self.parts.view_input(input)?;
        if targets.dx.is_some() {
            return Err(Error::NotHere { gradient: "dx", instead: "prepare_backward_from" });
        }
        let sums = GradientSums::empty(&self.parts.context, view.channels as usize).await?;
        if view.count() == 0 {
            self.parts.check_targets(input, dy, targets)?;
            let op = Op::TrainBackward;
            return Ok((sums, self.parts.prepare_empty_sums(op, input.x.dtype(), targets).await?));
        }
        let backward = Backward { view, input, dy, targets, sums: Sums::Into(&sums) };
        let prepared = self.prepare_checked_backward(&backward, saved).await?;
        Ok((sums, prepared))
    }

    /// Prepares dx from the gradient sums over everything that the statistics cover. Moves 3 tensors, and the residual if there is
    /// one and an activation.
    ///
    /// Sums of x alone, where the statistics cover more, give the gradient in which all other values are constants.
    ///
    /// # Errors
    /// [`Error::NotHere`] for anything but dx, [`Error::NoGradient`] without it, and those of
    /// [`prepare_backward`](Self::prepare_backward) but [`Error::Pooled`] and [`Error::EmptyBatch`]: an empty x is fine.
    pub async fn prepare_backward_from<'a>(
        &self,
        sums: &GradientSums,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let input = input.into();
        let view = self.parts.view_input(input)?;
        for (gradient, tensor) in
            [("d_residual", targets.d_residual), ("dgamma", targets.dgamma), ("dbeta", targets.dbeta)]
        {
            if tensor.is_some() {
                return Err(Error::NotHere { gradient, instead: "prepare_gradient_sums" });
            }
        }
        targets.check_any()?;
        sums.totals.check(&self.parts.context, view.channels)?;
        if view.count() == 0 {
            self.parts.check_targets(input, dy, targets)?;
            return Ok(Prepared::nothing(&self.parts.context, Op::TrainBackward));
        }
        let backward = Backward { view, input, dy, targets, sums: Sums::From(sums) };
        self.prepare_checked_backward(&backward, saved).await
    }

    /// dgamma and dbeta, as far as they are asked for, from gradient sums; of an input, and what was saved of it, that they cover.
    pub(super) async fn prepare_parameter_gradients(
        &self,
        sums: &GradientSums,
        input: Input<'_>,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        self.parts.check_parameter_targets(input, targets)?;
        if !targets.has_sums() {
            return Ok(Prepared::nothing(&self.parts.context, Op::TrainBackward));
        }
        let (context, channels) = (&self.parts.context, self.parts.running.channels());
        let mut build = fold::gradients_of(context, Op::TrainBackward, channels, input.x.dtype(), 1)?;
        build.buffer(Slot::Partials, sums.totals.buffer());
        build.buffer(Slot::Saved, saved.slab());
        build.pointwise.renorm = self.parts.options.renorm.is_some() && targets.dgamma.is_some();
        Parts::bind_targets(&mut build, targets)?;
        fold::gradients(&mut build)?;
        build.finish(Traffic::default()).await
    }

    /// The gradient sums of x and dy, and the gradients that come with them. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_gradient_sums`](Self::prepare_gradient_sums).
    pub async fn gradient_sums<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<(GradientSums, LocalGradients)> {
        let input = input.into();
        self.parts.view_input(input)?;
        let gradients = self.parts.allocate_local_gradients(input, dy).await?;
        let computed = gradients.d_residual.as_ref().filter(|d_residual| !d_residual.is_same_place(dy));
        let targets = GradientTargets {
            dx: None,
            d_residual: computed,
            dgamma: gradients.dgamma.as_ref(),
            dbeta: gradients.dbeta.as_ref(),
            accumulation: Accumulation::Write,
        };
        let (sums, prepared) = self.prepare_gradient_sums(input, dy, saved, &targets).await?;
        self.parts.context.submit(&[&prepared]).await?;
        Ok((sums, gradients))
    }

    /// dx from the gradient sums over everything that the statistics cover. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_backward_from`](Self::prepare_backward_from).
    pub async fn backward_from<'a>(
        &self,
        sums: &GradientSums,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<Tensor> {
        let input = input.into();
        self.parts.view_input(input)?;
        let dx = self.parts.context.zeros_like(input.x).await?;
        let targets = GradientTargets { dx: Some(&dx), ..GradientTargets::default() };
        let backward = self.prepare_backward_from(sums, input, dy, saved, &targets).await?;
        self.parts.context.submit(&[&backward]).await?;
        Ok(dx)
    }

    /// Replaces the running statistics, after everything that was submitted before and before everything that is submitted later.
    ///
    /// # Errors
    /// [`Error::Channels`], [`Error::Length`]; they stay as they were then.
    pub async fn set_running(&mut self, values: &RunningValues) -> Result<()> {
        self.parts.running.write(&self.parts.context, values).await
    }

    /// Puts the running statistics back to where they started: mean 0, variance 1, no batches. PyTorch's `reset_running_stats`.
    ///
    /// # Errors
    /// Those of a write to the device.
    #[doc(alias = "reset_running_stats")]
    pub async fn reset_running(&mut self) -> Result<()> {
        let initial = RunningValues::initial(self.parts.running.channels() as usize);
        self.set_running(&initial).await
    }
}
