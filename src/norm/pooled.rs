//! Training with statistics that are values: moments and gradient sums that were computed before, merged from several tensors
//! perhaps. Synchronised, accumulated and ghost batch norm are compositions of these operations.

use super::batch::BatchNorm;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::engine::prepared::Prepared;
use crate::engine::slab::{self, Slab};
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::engine::verdicts::together;
use crate::ops::fold;
use crate::pass::input::Input;
use crate::pass::spec::bind_targets;
use crate::pass::{GradientTargets, LocalGradients, Sums, TrainForward};
use crate::plan::{GRADIENT_SUMS_BYTES, Op, SAVED_BYTES, Traffic};
use crate::statistics::gradient_sums::GradientSums;
use crate::statistics::moments::Moments;
use crate::statistics::running::RunningValues;
use crate::statistics::saved::Saved;

impl BatchNorm {
    /// Prepares one update of the running statistics with moments, as a training forward pass makes it. Channels whose count is 0
    /// stay as they are. Whether a count is 1 is only known of moments whose count is known on the host.
    ///
    /// # Errors
    /// [`Error::Channels`](crate::Error::Channels), [`Error::ForeignDevice`](crate::Error::ForeignDevice), [`Error::SingleValue`](crate::Error::SingleValue), and those of an allocation.
    pub async fn prepare_running_update(&mut self, moments: &Moments) -> Result<TrainForward> {
        let prepared = self.prepare_update(moments).await?;
        Ok(TrainForward::of(self.parts.id, prepared))
    }

    /// The update is part of what comes before every map with statistics of a batch; so here it comes before the least
    /// map that there is, of a value per channel that nobody looks at.
    pub(crate) async fn prepare_update(&self, moments: &Moments) -> Result<Prepared> {
        let parts = &self.parts;
        moments.check(&parts.context, parts.running.channels())?;
        if moments.count() == Some(0) {
            return Ok(Prepared::nothing(&parts.context, Op::TrainForward));
        }
        let parameter = parts.parameters().gamma.or(parts.parameters().beta);
        let dtype = parameter.map_or(DType::F32, Tensor::dtype);
        let shape = [1, parts.running.channels() as usize];
        let x = parts.context.zeros_as(&shape, dtype).await?;
        let y = parts.context.zeros_as(&shape, dtype).await?;
        let update = self.prepare_batch(x.with_moments(moments), &y, None, true).await?;
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
    /// [`Error::NotHere`](crate::Error::NotHere) for dx, and those of [`prepare_backward`](Self::prepare_backward) but [`Error::Pooled`](crate::Error::Pooled),
    /// [`Error::NoGradient`](crate::Error::NoGradient) and [`Error::EmptyBatch`](crate::Error::EmptyBatch): an empty x is fine, its sums are zero.
    pub async fn prepare_gradient_sums<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<(GradientSums, Prepared)> {
        let input = input.into();
        let spec = self.check(input)?;
        targets.check_without(&[Slot::Dx], "prepare_backward_from")?;
        let sums = GradientSums::empty(spec.context, self.parts.running.channels() as usize).await?;
        if spec.cut.is_empty() {
            spec.check_targets(input, dy, targets)?;
            let op = Op::TrainBackward;
            return Ok((sums, spec.prepare_empty_sums(op, input.x.dtype(), targets).await?));
        }
        let of = (input, dy);
        let prepared = self.prepare_backward_with(spec, of, saved, targets, Sums::Into(&sums)).await?;
        Ok((sums, prepared))
    }

    /// Prepares dx from the gradient sums over everything that the statistics cover. Moves 3 tensors, and the residual if there is
    /// one and an activation.
    ///
    /// Sums of x alone, where the statistics cover more, give the gradient in which all other values are constants.
    ///
    /// # Errors
    /// [`Error::NotHere`](crate::Error::NotHere) for anything but dx, [`Error::NoGradient`](crate::Error::NoGradient) without it, and those of
    /// [`prepare_backward`](Self::prepare_backward) but [`Error::Pooled`](crate::Error::Pooled) and [`Error::EmptyBatch`](crate::Error::EmptyBatch): an empty x is fine.
    pub async fn prepare_backward_from<'a>(
        &self,
        sums: &GradientSums,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let input = input.into();
        let spec = self.check(input)?;
        targets.check_without(&[Slot::DResidual, Slot::Dgamma, Slot::Dbeta], "prepare_gradient_sums")?;
        targets.check_any()?;
        sums.totals.check(spec.context, self.parts.running.channels())?;
        if spec.cut.is_empty() {
            spec.check_targets(input, dy, targets)?;
            return Ok(Prepared::nothing(spec.context, Op::TrainBackward));
        }
        self.prepare_backward_with(spec, (input, dy), saved, targets, Sums::From(sums)).await
    }

    /// dgamma and dbeta, as far as they are asked for, from gradient sums; of an input, and what was saved of it, that they cover.
    pub(super) async fn prepare_parameter_gradients(
        &self,
        sums: &GradientSums,
        input: Input<'_>,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        self.check(input)?.check_parameter_targets(input.x.dtype(), targets)?;
        if !targets.has_sums() {
            return Ok(Prepared::nothing(&self.parts.context, Op::TrainBackward));
        }
        let (context, channels) = (&self.parts.context, self.parts.running.channels());
        let (sums, saved, dtype) = (sums.totals.slab(), saved.slab(), input.x.dtype());
        let mut folds = Vec::new();
        for range in slab::parts(channels, SAVED_BYTES, context) {
            let stretch = |slab: &Slab, bytes: u64| slab.stretch(range.start * bytes..range.end * bytes);
            let channels = range.end - range.start;
            let mut build = fold::gradients_of(context, Op::TrainBackward, channels, dtype, 1)?;
            build.buffer(Slot::Partials, stretch(&sums, GRADIENT_SUMS_BYTES));
            build.buffer(Slot::Saved, stretch(saved, SAVED_BYTES));
            build.pointwise.renorm = self.parts.options.renorm.is_some() && targets.dgamma.is_some();
            let of = |tensor: Option<&Tensor>| tensor.map(|all| all.stretch(range.clone())).transpose();
            let (dgamma, dbeta) = (of(targets.dgamma)?, of(targets.dbeta)?);
            let part = GradientTargets { dgamma: dgamma.as_ref(), dbeta: dbeta.as_ref(), ..*targets };
            bind_targets(&mut build, &part)?;
            fold::gradients(&mut build)?;
            folds.push(build.finish(Traffic::default()).await?);
        }
        Ok(Prepared::sequence(context, Op::TrainBackward, folds))
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
        together(async {
            let input = input.into();
            let gradients = self.check(input)?.allocate_local(input, dy).await?;
            let targets = gradients.computed(dy);
            let (sums, prepared) = self.prepare_gradient_sums(input, dy, saved, &targets).await?;
            self.parts.context.submit(&[&prepared]).await?;
            Ok((sums, gradients))
        })
        .await
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
        together(async {
            let input = input.into();
            self.check(input)?;
            let dx = self.parts.context.zeros_like(input.x).await?;
            let targets = GradientTargets { dx: Some(&dx), ..GradientTargets::default() };
            let backward = self.prepare_backward_from(sums, input, dy, saved, &targets).await?;
            self.parts.context.submit(&[&backward]).await?;
            Ok(dx)
        })
        .await
    }

    /// Replaces the running statistics, after everything that was submitted before and before everything that is submitted later.
    ///
    /// # Errors
    /// [`Error::Channels`](crate::Error::Channels), [`Error::Length`](crate::Error::Length); they stay as they were then.
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
