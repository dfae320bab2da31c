//! Ghost batch norm: statistics over parts of a batch, one update of the running statistics.
//!
//! Source: Hoffer, Hubara & Soudry, "Train longer, generalize better", 2017. The running statistics here are updated once per
//! batch, with the pooled moments of all its parts, so that momentum means what it means without parts.

use std::ops::Range;

use super::batch::BatchNorm;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::engine::bindings::check_overlap;
use crate::engine::context::Context;
use crate::engine::mask::Mask;
use crate::engine::prepared::Prepared;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::engine::verdicts::together;
use crate::pass::input::Input;
use crate::pass::{Accumulation, GradientTargets, Gradients, TrainForward};
use crate::plan::Op;
use crate::statistics::gradient_sums::GradientSums;
use crate::statistics::moments::Moments;
use crate::statistics::saved::Saved;

/// What a forward pass of ghost batch norm leaves for its backward pass: the statistics of each part.
#[derive(Debug)]
pub struct GhostSaved {
    /// Samples of x, and of each part but perhaps the last.
    samples: usize,
    size: usize,
    parts: Vec<Saved>,
}

impl GhostSaved {
    /// Room for the statistics of x in parts of `size` samples; the last has what is left.
    ///
    /// # Errors
    /// [`Error::GhostSize`] if `size` is 0, [`Error::EmptyBatch`] if x is empty, and those of [`Saved::new`].
    pub async fn new(context: &Context, x: &Tensor, size: usize) -> Result<Self> {
        let samples = x.channels()?.samples as usize;
        Self::check(x, samples, size)?;
        let mut parts = Vec::new();
        for range in ranges(samples, size) {
            parts.push(Saved::new(context, &x.slice_samples(range)?).await?);
        }
        Ok(Self { samples, size, parts })
    }

    /// The same, of what each part of x has its room in: [`Saved::from_tensor`], of `size` samples each, and of the rest.
    ///
    /// # Errors
    /// [`Error::Number`] unless there is one for each part, and those of [`new`](Self::new) but of an allocation.
    pub fn from_parts(x: &Tensor, size: usize, parts: Vec<Saved>) -> Result<Self> {
        let samples = x.channels()?.samples as usize;
        Self::check(x, samples, size)?;
        let (expected, got) = (samples.div_ceil(size), parts.len());
        if expected != got {
            return Err(Error::Number { what: "parts of a ghost batch", expected, got });
        }
        Ok(Self { samples, size, parts })
    }

    fn check(x: &Tensor, samples: usize, size: usize) -> Result<()> {
        if size == 0 {
            return Err(Error::GhostSize { samples });
        }
        if x.shape().len() == 0 {
            return Err(Error::EmptyBatch { shape: x.shape() });
        }
        Ok(())
    }

    /// Samples of a part.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The statistics of each part, in order.
    pub fn parts(&self) -> &[Saved] {
        &self.parts
    }

    /// The parts of a batch.
    fn ranges(&self, x: &Tensor) -> Result<impl Iterator<Item = (Range<usize>, &Saved)>> {
        let got = x.channels()?.samples as usize;
        if got != self.samples {
            return Err(Error::Number { what: "samples of x", expected: self.samples, got });
        }
        Ok(ranges(self.samples, self.size).zip(&self.parts))
    }
}

fn ranges(samples: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..samples).step_by(size).map(move |first| first..samples.min(first.saturating_add(size)))
}

/// Some samples of an input, as an input.
struct Samples {
    x: Tensor,
    residual: Option<Tensor>,
    mask: Option<Mask>,
}

impl Samples {
    fn of(input: Input<'_>, range: Range<usize>) -> Result<Self> {
        let residual = input.residual.map(|residual| residual.slice_samples(range.clone())).transpose()?;
        let mask = input.mask.map(|mask| mask.slice_samples(range.clone())).transpose()?;
        Ok(Self { x: input.x.slice_samples(range)?, residual, mask })
    }

    fn input(&self) -> Input<'_> {
        Input { residual: self.residual.as_ref(), mask: self.mask.as_ref(), ..Input::from(&self.x) }
    }
}

/// What holds of a batch as a whole holds of its parts.
fn check_whole(input: Input<'_>, others: &[(Slot, Option<&Tensor>)]) -> Result<()> {
    let own = [(Slot::X, Some(input.x)), (Slot::Residual, input.residual)];
    let tensors = own.iter().chain(others).filter_map(|(slot, tensor)| Some((*slot, (*tensor)?.clone())));
    check_overlap(&tensors.collect::<Vec<_>>())
}

impl BatchNorm {
    /// Prepares y with the statistics of each part of x's samples by itself, as many samples as `saved` was made for; the running
    /// statistics are updated once, with the moments of all parts together. Moves 3 tensors.
    ///
    /// # Errors
    /// [`Error::Number`] if `saved` is for another number of samples, [`Error::SingleValue`] if a part has one value per channel, and
    /// those of [`prepare_train_forward`](Self::prepare_train_forward).
    pub async fn prepare_train_forward_ghost<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: &GhostSaved,
    ) -> Result<TrainForward> {
        let input = input.into();
        self.check_composed(input)?.check_like("y", y, input.x)?;
        let context = &self.parts.context;
        check_whole(input, &[(Slot::Y, Some(y))])?;
        let (mut steps, mut all) = (Vec::new(), Vec::new());
        for (range, saved) in saved.ranges(input.x)? {
            let part = Samples::of(input, range.clone())?;
            let (moments, reduce) = Moments::prepare(context, part.input()).await?;
            let y = y.slice_samples(range)?;
            steps.push(reduce);
            let input = part.input().with_moments(&moments);
            steps.push(self.prepare_batch(input, &y, Some(saved), false).await?);
            all.push(moments);
        }
        steps.push(Moments::prepare_merge_all(context, &mut all).await?);
        steps.push(self.prepare_update(&all[0]).await?);
        saved.parts.iter().for_each(|saved| saved.note(self.noted(input)));
        let prepared = Prepared::sequence(context, Op::TrainForward, steps);
        Ok(TrainForward::of(self.parts.id, prepared))
    }

    /// Prepares the gradients of a batch whose parts were normalized by themselves: dx through the statistics of each part, dgamma and
    /// dbeta over all. With batch renorm, 16-bit dgamma and dbeta are rounded once per part.
    ///
    /// # Errors
    /// [`Error::Number`] if `saved` is for another number of samples, and those of
    /// [`prepare_backward`](Self::prepare_backward).
    pub async fn prepare_backward_ghost<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &GhostSaved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let input = input.into();
        self.check(input)?.check_targets(input, dy, targets)?;
        targets.check_any()?;
        check_whole(
            input,
            &[(Slot::Dy, Some(dy)), (Slot::Dx, targets.dx), (Slot::DResidual, targets.d_residual)],
        )?;
        // 16-bit gradients of parameters are rounded once, from the sums of all parts, where these can be added before.
        let at_once = targets.sums_dtype().is_some_and(|dtype| dtype != DType::F32)
            && self.parts.options.renorm.is_none();
        let (mut steps, mut sums) = (Vec::new(), Vec::new());
        for (range, saved) in saved.ranges(input.x)? {
            let part = Samples::of(input, range.clone())?;
            let slice = |tensor: Option<&Tensor>| {
                tensor.map(|tensor| tensor.slice_samples(range.clone())).transpose()
            };
            let (dx, d_residual) = (slice(targets.dx)?, slice(targets.d_residual)?);
            let of_part = GradientTargets {
                dx: dx.as_ref(),
                d_residual: d_residual.as_ref(),
                accumulation: if range.start == 0 { targets.accumulation } else { Accumulation::Add },
                ..*targets
            };
            let dy = dy.slice_samples(range.clone())?;
            if !at_once {
                steps.push(self.prepare_backward(part.input(), &dy, saved, &of_part).await?);
                continue;
            }
            let of_sums = GradientTargets { d_residual: of_part.d_residual, ..GradientTargets::default() };
            let (of_this, reduce) = self.prepare_gradient_sums(part.input(), &dy, saved, &of_sums).await?;
            steps.push(reduce);
            if of_part.dx.is_some() {
                let of_map = GradientTargets { dx: of_part.dx, ..GradientTargets::default() };
                let map = self.prepare_backward_from(&of_this, part.input(), &dy, saved, &of_map).await?;
                steps.push(map);
            }
            sums.push(of_this);
        }
        if let (true, Some(saved)) = (at_once, saved.parts.first()) {
            steps.push(GradientSums::prepare_merge_all(&self.parts.context, &mut sums).await?);
            steps.push(self.prepare_parameter_gradients(&sums[0], input, saved, targets).await?);
        }
        Ok(Prepared::sequence(&self.parts.context, Op::TrainBackward, steps))
    }

    /// y with the statistics of each `size` samples of x by themselves. Submitted at once.
    ///
    /// ```
    /// use wgnorm::{BatchNorm, BatchNormOptions, Context};
    /// let context = Context::headless_blocking()?;
    /// context.block_on(async {
    ///     let x = context.upload(&[4, 1], &[1.0, 3.0, 100.0, 104.0]).await?;
    ///     let mut layer = BatchNorm::new(&context, 1, BatchNormOptions::pytorch()).await?;
    ///     let (y, saved) = layer.train_forward_ghost(&x, 2).await?;
    ///     let values = context.download(&y).await?;
    ///     assert!(values.iter().zip([-1.0, 1.0, -1.0, 1.0]).all(|(y, x): (&f32, f32)| (y - x).abs() < 1e-4));
    ///     // The running mean saw all four values once: 0.1 · 52.
    ///     assert!((layer.running().download(&context).await?.mean[0] - 5.2).abs() < 1e-5);
    ///     let gradients = layer.backward_ghost(&x, &y, &saved).await?;
    ///     assert_eq!(gradients.dx.shape(), x.shape());
    ///     Ok::<(), wgnorm::Error>(())
    /// })?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::GhostSize`], and those of [`prepare_train_forward_ghost`](Self::prepare_train_forward_ghost).
    pub async fn train_forward_ghost<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        size: usize,
    ) -> Result<(Tensor, GhostSaved)> {
        together(async {
            let input = input.into();
            self.check(input)?;
            let saved = GhostSaved::new(&self.parts.context, input.x, size).await?;
            let y = self.parts.context.zeros_like(input.x).await?;
            let forward = self.prepare_train_forward_ghost(input, &y, &saved).await?;
            self.submit(&forward).await?;
            Ok((y, saved))
        })
        .await
    }

    /// All gradients of a batch whose parts were normalized by themselves. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_backward_ghost`](Self::prepare_backward_ghost).
    pub async fn backward_ghost<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &GhostSaved,
    ) -> Result<Gradients> {
        together(async {
            let input = input.into();
            let gradients = self.check(input)?.allocate(input, dy).await?;
            let backward = self.prepare_backward_ghost(input, dy, saved, &gradients.computed(dy)).await?;
            self.parts.context.submit(&[&backward]).await?;
            Ok(gradients)
        })
        .await
    }
}
