//! What a layer is given.

use crate::mask::Mask;
use crate::tensor::Tensor;

/// What a layer takes: x, and perhaps a residual of the same shape that is added before the activation,
/// `y = act(bn(x) + residual)`. Methods take `&Tensor` where there is none.
///
/// ```
/// use wgnorm::{Activation, BatchNorm, BatchNormOptions, Context};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let x = context.upload(&[2, 1, 2], &[-1.0, 1.0, -1.0, 1.0]).await?;
///     let residual = context.upload(&[2, 1, 2], &[0.5, 0.5, -0.5, -9.0]).await?;
///     let options = BatchNormOptions::pytorch().activation(Activation::Relu);
///     let mut layer = BatchNorm::new(&context, 1, options).await?;
///     let (y, saved) = layer.train_forward(x.plus(&residual)).await?;
///     let y = context.download(&y).await?;
///     assert!(y[0] == 0.0 && (y[1] - 1.5).abs() < 1e-4 && y[3] == 0.0);
///
///     let dy = context.upload(&[2, 1, 2], &[1.0; 4]).await?;
///     let gradients = layer.backward(x.plus(&residual), &dy, &saved).await?;
///     let d_residual = context.download(&gradients.d_residual.unwrap()).await?;
///     assert_eq!(d_residual, [0.0, 1.0, 0.0, 0.0]);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// What is normalized; in a backward pass, what forward was given, or left in its place.
    pub x: &'a Tensor,
    /// What is added to the normalized x.
    pub residual: Option<&'a Tensor>,
    /// Which positions of x count.
    pub mask: Option<&'a Mask>,
}

impl<'a> Input<'a> {
    /// The same, of which only the positions that the mask keeps count in training.
    #[must_use]
    pub fn masked(self, mask: &'a Mask) -> Self {
        Self { mask: Some(mask), ..self }
    }
}

impl<'a> From<&'a Tensor> for Input<'a> {
    fn from(x: &'a Tensor) -> Self {
        Self { x, residual: None, mask: None }
    }
}

impl Tensor {
    /// This tensor as x, with a residual.
    pub fn plus<'a>(&'a self, residual: &'a Tensor) -> Input<'a> {
        Input { x: self, residual: Some(residual), mask: None }
    }

    /// This tensor as x, of which only the positions that the mask keeps count in training.
    pub fn masked<'a>(&'a self, mask: &'a Mask) -> Input<'a> {
        Input::from(self).masked(mask)
    }
}
