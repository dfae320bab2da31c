//! Layers for inference, whichever norm they have.

use std::future::Future;

use super::input::Input;
use crate::base::error::Result;
use crate::engine::prepared::Prepared;
use crate::engine::tensor::Tensor;

/// A layer for inference, for code that is to work with any norm: [`FrozenBatchNorm`](crate::FrozenBatchNorm), the norms of the family
/// ([`Norm`](crate::family::Norm)) and curves ([`DynamicCurve`](crate::curve::DynamicCurve)), whose statistics are never those of a batch.
///
/// ```
/// use wgnorm::{BatchNorm, BatchNormOptions, Context, Infer, NormOptions, Result, RmsNorm, Tensor};
/// async fn twice(layer: &impl Infer, x: &Tensor) -> Result<Tensor> {
///     layer.infer(&layer.infer(x).await?).await
/// }
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let x = context.upload(&[1, 2], &[3.0, -3.0]).await?;
///     let batch = BatchNorm::new(&context, 2, BatchNormOptions::pytorch()).await?.freeze();
///     let rms = RmsNorm::new(&context, &[2], NormOptions::rms()).await?;
///     // Running statistics are 0 and 1 to begin with; the mean square of what has one is 1.
///     assert!((context.download(&twice(&batch, &x).await?).await?[0] - 3.0).abs() < 1e-3);
///     assert!((context.download(&twice(&rms, &x).await?).await?[0] - 1.0).abs() < 1e-3);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
pub trait Infer: sealed::Sealed {
    /// Prepares y.
    ///
    /// # Errors
    /// Those of the layer.
    fn prepare_infer<'a>(
        &self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
    ) -> impl Future<Output = Result<Prepared>>;

    /// y. Submitted at once.
    ///
    /// # Errors
    /// Those of the layer.
    fn infer<'a>(&self, input: impl Into<Input<'a>>) -> impl Future<Output = Result<Tensor>>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}
