//! Batch normalization with frozen statistics: inference, and gradients for fine-tuning.

use super::batch::BatchNorm;
use super::options::BatchNormOptions;
use super::parts::{FROZEN, Parts, affine};
use crate::base::error::{Error, Result};
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::tensor::Tensor;
use crate::engine::verdicts::together;
use crate::pass::infer;
use crate::pass::input::Input;
use crate::pass::{
    GradientTargets, Gradients, Infer, Int8, Pass, Reads, SecondGradients, SecondTargets, Spec, Statistics,
    Tangents,
};
use crate::plan::Op;
use crate::statistics::running::RunningStatistics;

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
        Ok(Self { parts: Parts::from_existing(context, options, affine(gamma, beta), running)? })
    }

    /// Prepares y. An empty batch gives an empty result. One dispatch for each window; moves 2 tensors, or 3 with a residual. y may be the
    /// tensor x itself, which is then written over.
    ///
    /// # Errors
    /// [`Error::Rank`](crate::Error::Rank), [`Error::Channels`](crate::Error::Channels),
    /// [`Error::Shape`](crate::Error::Shape), [`Error::Layout`](crate::Error::Layout), and what binding the tensors can
    /// raise.
    pub async fn prepare_infer<'a>(&self, input: impl Into<Input<'a>>, y: &Tensor) -> Result<Prepared> {
        let input = input.into();
        let spec = self.check(input)?;
        spec.check_like("y", y, input.x)?;
        if spec.cut.is_empty() {
            return Ok(Prepared::nothing(spec.context, Op::Inference));
        }
        Pass::forward(Op::Inference, spec, input, y, self.statistics()).prepare().await
    }

    /// y. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_infer`](Self::prepare_infer).
    pub async fn infer<'a>(&self, input: impl Into<Input<'a>>) -> Result<Tensor> {
        together(async {
            let input = input.into();
            self.check(input)?;
            let y = self.parts.context.zeros_like(input.x).await?;
            let inference = self.prepare_infer(input, &y).await?;
            self.parts.context.submit(&[&inference]).await?;
            Ok(y)
        })
        .await
    }

    /// Prepares a y of int8, of the shape and layout of x, by a scale for all of it ([`Int8::PerTensor`]): four values in each `u32`, in the order of x. One dispatch; reads x, and
    /// writes a byte for each value. x must begin at a multiple of four elements of its buffer, and a channel have more than two positions of a sample, or lie last.
    ///
    /// # Errors
    /// As [`prepare_infer`](Self::prepare_infer); [`Error::DType`](crate::Error::DType) for a y of another type,
    /// [`Error::NotContiguous`](crate::Error::NotContiguous), [`Error::Misaligned`](crate::Error::Misaligned), [`Error::Scale`](crate::Error::Scale), and
    /// [`Error::Unsupported`](crate::Error::Unsupported) for scales of rows, and for an x that cannot be read four values at a time.
    pub async fn prepare_infer_int8<'a>(
        &self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        int8: Int8<'_>,
    ) -> Result<Prepared> {
        let input = input.into();
        let spec = self.check(input)?;
        int8.check(input.x, y)?;
        if let Int8::PerRow(_) = int8 {
            let (what, why) =
                ("scales of rows", "its statistics are those of channels; give one scale for all");
            return Err(Error::Unsupported { layer: spec.layer, what, why });
        }
        if spec.cut.is_empty() {
            return Ok(Prepared::nothing(spec.context, Op::Inference));
        }
        Pass::forward(Op::Inference, spec, input, y, self.statistics()).as_int8(int8).prepare().await
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
        let spec = self.check(input)?;
        spec.check_targets(input, dy, targets)?;
        targets.check_any()?;
        if spec.cut.is_empty() {
            return spec.prepare_empty_sums(Op::FrozenBackward, input.x.dtype(), targets).await;
        }
        // Without an activation dz is dy.
        let activated = self.parts.reads_residual(false);
        let reads = Reads { x: targets.has_sums() || activated, residual: activated, parameters: true };
        let pass = Pass::backward(Op::FrozenBackward, spec, (input, dy), targets, reads, self.statistics());
        pass.prepare().await
    }

    /// The layer over an input that it takes.
    fn check(&self, input: Input<'_>) -> Result<Spec<'_>> {
        self.parts.check(input, FROZEN)
    }

    fn statistics(&self) -> Statistics<'_> {
        Statistics::Running(self.parts.running.slab())
    }

    /// All gradients that the layer has, through the running statistics. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_backward`](Self::prepare_backward).
    pub async fn backward<'a>(&self, input: impl Into<Input<'a>>, dy: &Tensor) -> Result<Gradients> {
        together(async {
            let input = input.into();
            let gradients = self.check(input)?.allocate(input, dy).await?;
            let backward = self.prepare_backward(input, dy, &gradients.computed(dy)).await?;
            self.parts.context.submit(&[&backward]).await?;
            Ok(gradients)
        })
        .await
    }

    /// Prepares the tangent of y, forward mode: how y changes as x, gamma and beta do, by act'(z)·(gamma·ẋ / sqrt(running_var + eps) + gammȧ·x̂ + betȧ).
    ///
    /// Of norm and activation alone: a residual and a mask are refused. Moves 3 tensors.
    ///
    /// # Errors
    /// Those of [`prepare_backward`](Self::prepare_backward); [`Error::Unsupported`](crate::Error::Unsupported) for what is refused.
    pub async fn prepare_jvp<'a>(
        &self,
        input: impl Into<Input<'a>>,
        tangents: &Tangents<'_>,
        y_tangent: &Tensor,
    ) -> Result<Prepared> {
        let input = input.into();
        self.check(input)?.prepare_jvp(input, tangents, y_tangent, self.statistics()).await
    }

    /// The tangent of y. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_jvp`](Self::prepare_jvp).
    pub async fn jvp<'a>(&self, input: impl Into<Input<'a>>, tangents: &Tangents<'_>) -> Result<Tensor> {
        together(async {
            let input = input.into();
            self.check(input)?;
            let y_tangent = self.parts.context.zeros_like(input.x).await?;
            let jvp = self.prepare_jvp(input, tangents, &y_tangent).await?;
            self.parts.context.submit(&[&jvp]).await?;
            Ok(y_tangent)
        })
        .await
    }

    /// Prepares gradients of gradients, as [`BatchNorm::prepare_double_backward`] does, through the running statistics, which are constants. Moves 5 tensors.
    ///
    /// # Errors
    /// Those of [`prepare_jvp`](Self::prepare_jvp); [`Error::Unsupported`](crate::Error::Unsupported) for an activation of one's own without a second derivative.
    pub async fn prepare_double_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        tangents: &Tangents<'_>,
        targets: &SecondTargets<'_>,
    ) -> Result<Prepared> {
        let (input, statistics) = (input.into(), self.statistics());
        self.check(input)?.prepare_double_backward((input, dy), tangents, targets, statistics).await
    }

    /// All gradients of gradients that the layer has. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_double_backward`](Self::prepare_double_backward).
    pub async fn double_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        tangents: &Tangents<'_>,
    ) -> Result<SecondGradients> {
        together(async {
            let input = input.into();
            let gradients = self.check(input)?.allocate_second(input.x).await?;
            let backward = self.prepare_double_backward(input, dy, tangents, &gradients.targets()).await?;
            self.parts.context.submit(&[&backward]).await?;
            Ok(gradients)
        })
        .await
    }

    /// Turns the layer into one in training, with the same parameters and running statistics.
    pub fn unfreeze(self) -> BatchNorm {
        BatchNorm::from_inner(self.parts)
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
}

impl infer::sealed::Sealed for FrozenBatchNorm {}

impl Infer for FrozenBatchNorm {
    async fn prepare_infer<'a>(&self, input: impl Into<Input<'a>>, y: &Tensor) -> Result<Prepared> {
        FrozenBatchNorm::prepare_infer(self, input, y).await
    }

    async fn infer<'a>(&self, input: impl Into<Input<'a>>) -> Result<Tensor> {
        FrozenBatchNorm::infer(self, input).await
    }
}
