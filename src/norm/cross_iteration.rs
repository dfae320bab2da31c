//! Cross-iteration statistics: those of the last steps merged.

use std::collections::VecDeque;

use super::batch::BatchNorm;
use crate::base::error::{Error, Result};
use crate::engine::tensor::Tensor;
use crate::engine::verdicts::together;
use crate::pass::input::Input;
use crate::pass::{GradientTargets, Gradients};
use crate::statistics::moments::{ChannelMoments, Moments};
use crate::statistics::saved::Saved;

/// Moments of the last steps of training, with which a layer normalizes instead of those of the batch alone: for batches too small
/// to have good statistics.
///
/// Source: Yao et al., "Cross-Iteration Batch Normalization", 2021, **without** its Taylor correction: moments of earlier steps are
/// taken as they were, though parameters have changed since. That is fair while learning rates are small; the paper has
/// the correction for where they are not. The gradient takes earlier steps as constants.
///
/// ```
/// use wgnorm::norm::CrossIteration;
/// use wgnorm::{BatchNorm, BatchNormOptions, Context};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let mut layer = BatchNorm::new(&context, 1, BatchNormOptions::pytorch()).await?;
///     let mut last = CrossIteration::new(2)?;
///     let a = context.upload(&[2, 1], &[0.0, 2.0]).await?;
///     let b = context.upload(&[2, 1], &[4.0, 6.0]).await?;
///     last.train_forward(&mut layer, &a).await?;
///     let (y, saved) = last.train_forward(&mut layer, &b).await?;
///     // Of 0, 2, 4, 6: mean 3, variance 5.
///     assert!((context.download(&y).await?[0] - 1.0 / 5.0_f32.sqrt()).abs() < 1e-5);
///     let gradients = last.backward(&layer, &b, &y, &saved).await?;
///     assert_eq!(gradients.dx.shape(), b.shape());
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Debug)]
pub struct CrossIteration {
    steps: usize,
    last: VecDeque<Moments>,
}

impl CrossIteration {
    /// For the last `steps` steps, the current one included.
    ///
    /// # Errors
    /// [`Error::Empty`] if `steps` is 0.
    pub fn new(steps: usize) -> Result<Self> {
        if steps == 0 {
            return Err(Error::Empty { what: "cross-iteration statistics" });
        }
        Ok(Self { steps, last: VecDeque::new() })
    }

    /// Steps whose moments are held: the last one and those before it, at most as many as [`new`](Self::new) was asked for.
    pub fn held(&self) -> usize {
        self.last.len()
    }

    /// Forgets all steps, for a change of what the layer sees.
    pub fn clear(&mut self) {
        self.last.clear();
    }

    /// y of x, normalized with the moments of the last steps, x among them. The running statistics are updated with those of x alone, so
    /// that no value enters them twice. Submitted at once.
    ///
    /// # Errors
    /// [`Error::EmptyBatch`], [`Error::SingleValue`], and those of
    /// [`BatchNorm::train_forward`]. Nothing changes on an error.
    pub async fn train_forward<'a>(
        &mut self,
        layer: &mut BatchNorm,
        input: impl Into<Input<'a>>,
    ) -> Result<(Tensor, Saved)> {
        together(async {
            let input = input.into();
            layer.check_composed(input)?;
            let (y, saved) = layer.forward_outputs(input).await?;
            let saved = saved.pooled();
            self.train_forward_into(layer, input, &y, Some(&saved)).await?;
            Ok((y, saved))
        })
        .await
    }

    /// As [`train_forward`](Self::train_forward), into tensors that are there; `saved` must be [pooled](Saved::pooled).
    ///
    /// # Errors
    /// As [`train_forward`](Self::train_forward); [`Error::Shape`], [`Error::DType`], [`Error::Layout`] of y.
    pub async fn train_forward_into<'a>(
        &mut self,
        layer: &mut BatchNorm,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<()> {
        let input = input.into();
        let context = layer.parts.context.clone();
        let view = layer.check_composed(input)?.cut.view();
        layer.parts.check_count(view.count(), input.x.shape())?;
        let (current, reduce) = Moments::prepare(&context, input).await?;
        let identity = vec![ChannelMoments::default(); view.channels as usize];
        let mut merged = Moments::upload(&context, &identity).await?;
        let mut steps = vec![reduce];
        let kept = self.steps - 1;
        for moments in self.last.iter().rev().take(kept).rev().chain([&current]) {
            steps.push(merged.prepare_merge(&context, moments).await?);
        }
        let input = input.with_moments(&merged);
        steps.push(layer.prepare_train_forward_untracked(input, y, saved).await?);
        steps.push(layer.prepare_update(&current).await?);
        context.submit(&steps.iter().collect::<Vec<_>>()).await?;
        if self.last.len() > kept {
            self.last.pop_front();
        }
        self.last.push_back(current);
        Ok(())
    }

    /// All gradients of the step that `saved` is of, in which the values of earlier steps are constants. Submitted at once.
    ///
    /// # Errors
    /// As [`BatchNorm::gradient_sums`].
    pub async fn backward<'a>(
        &self,
        layer: &BatchNorm,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<Gradients> {
        together(async {
            let input = input.into();
            let gradients = layer.check(input)?.allocate(input, dy).await?;
            Self::backward_into(layer, input, dy, saved, &gradients.computed(dy)).await?;
            Ok(gradients)
        })
        .await
    }

    /// As [`backward`](Self::backward), into tensors that are there, as many as are asked for.
    ///
    /// # Errors
    /// As [`BatchNorm::prepare_gradient_sums`] and [`BatchNorm::prepare_backward_from`]; [`Error::NoGradient`] without any target.
    pub async fn backward_into<'a>(
        layer: &BatchNorm,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<()> {
        let input = input.into();
        targets.check_any()?;
        let of_sums = GradientTargets { dx: None, ..*targets };
        let (sums, reduce) = layer.prepare_gradient_sums(input, dy, saved, &of_sums).await?;
        let mut steps = vec![reduce];
        if targets.dx.is_some() {
            let of_map = GradientTargets { dx: targets.dx, ..GradientTargets::default() };
            steps.push(layer.prepare_backward_from(&sums, input, dy, saved, &of_map).await?);
        }
        layer.parts.context.submit(&steps.iter().collect::<Vec<_>>()).await
    }
}
