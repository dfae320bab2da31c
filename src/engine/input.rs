//! What a layer is given.

use crate::engine::mask::Mask;
use crate::engine::tensor::Tensor;

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
///     let (y, saved) = layer.train_forward(x.with_residual(&residual)).await?;
///     let y = context.download(&y).await?;
///     assert!(y[0] == 0.0 && (y[1] - 1.5).abs() < 1e-4 && y[3] == 0.0);
///
///     let dy = context.upload(&[2, 1, 2], &[1.0; 4]).await?;
///     let gradients = layer.backward(x.with_residual(&residual), &dy, &saved).await?;
///     let d_residual = context.download(&gradients.d_residual.unwrap()).await?;
///     assert_eq!(d_residual, [0.0, 1.0, 0.0, 0.0]);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Input<'a> {
    /// What is normalized; in a backward pass, what forward was given, or left in its place.
    pub x: &'a Tensor,
    /// What is added to the normalized x.
    pub residual: Option<&'a Tensor>,
    /// Which positions of x count.
    pub mask: Option<&'a Mask>,
    /// gamma and beta of each sample, for norms that are not batch norm.
    pub modulation: Option<Modulation<'a>>,
}

/// Affine parameters that come with the input instead of the layer: adaptive instance norm (Huang & Belongie 2017), FiLM (Perez et al. 2018),
/// adaptive layer norm (Peebles & Xie 2023). Their gradients are of the same shape.
#[derive(Clone, Copy, Debug, Default)]
pub struct Modulation<'a> {
    /// gamma, `[N, C]` for the channels of each sample, or `[N, …]` for the normalized shape; 1 where there is none.
    pub gamma: Option<&'a Tensor>,
    /// beta, of the same shape; 0 where there is none.
    pub beta: Option<&'a Tensor>,
}

impl<'a> Input<'a> {
    /// The same, with a residual that is added to the normalized x, before the activation.
    #[must_use]
    pub fn with_residual(self, residual: &'a Tensor) -> Self {
        Self { residual: Some(residual), ..self }
    }

    /// The same, of which only the positions that the mask keeps count in training.
    #[must_use]
    pub fn masked(self, mask: &'a Mask) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// The same, with gamma and beta of each sample.
    #[must_use]
    pub fn modulated(self, gamma: Option<&'a Tensor>, beta: Option<&'a Tensor>) -> Self {
        Self { modulation: Some(Modulation { gamma, beta }), ..self }
    }
}

impl<'a> From<&'a Tensor> for Input<'a> {
    fn from(x: &'a Tensor) -> Self {
        Self { x, residual: None, mask: None, modulation: None }
    }
}

impl Tensor {
    /// This tensor as x, with a residual that is added to the normalized x, before the activation: `act(norm(x) + residual)`. The norm of a sum is
    /// [`Norm::forward_of_sum`](crate::Norm::forward_of_sum).
    pub fn with_residual<'a>(&'a self, residual: &'a Tensor) -> Input<'a> {
        Input::from(self).with_residual(residual)
    }

    /// This tensor as x, with gamma and beta of each sample.
    pub fn modulated<'a>(&'a self, gamma: Option<&'a Tensor>, beta: Option<&'a Tensor>) -> Input<'a> {
        Input::from(self).modulated(gamma, beta)
    }

    /// This tensor as x, of which only the positions that the mask keeps count in training.
    pub fn masked<'a>(&'a self, mask: &'a Mask) -> Input<'a> {
        Input::from(self).masked(mask)
    }
}
