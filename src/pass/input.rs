//! What a layer is given.

use crate::base::gate::GateOrder;
use crate::engine::mask::Mask;
use crate::engine::segments::Segments;
use crate::engine::tensor::Tensor;
use crate::statistics::moments::Moments;

/// What a layer takes: x, and perhaps more. Methods take `&Tensor` where there is nothing else.
///
/// | | | taken by |
/// |---|---|---|
/// | [`with_residual`](Self::with_residual) | `y = act(norm(x) + residual)` | all layers |
/// | [`gated`](Self::gated) | `y = norm(x)·act(gate)`, or `norm(x·act(gate))` | the norms of the family |
/// | [`plus`](Self::plus) | `y = norm(x + addend)`, and the sum is written out | the norms of the family |
/// | [`masked`](Self::masked) | only some positions count | batch norm, curves; layer norm, RMS norm, ScaleNorm |
/// | [`modulated`](Self::modulated) | gamma and beta of each sample | the norms of the family |
/// | [`in_segments`](Self::in_segments) | statistics of each segment of rows | instance, group and layer norm, GraphNorm |
/// | [`with_moments`](Self::with_moments) | mean and variance that were computed before | batch norm in training |
///
/// A layer that does not take something says so: [`Error::Unsupported`](crate::Error::Unsupported).
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
    /// What is a factor of the normalized x, or of x, instead of a residual; for norms that are not batch norm.
    pub gate: Option<Gate<'a>>,
    /// Which positions of x count.
    pub mask: Option<&'a Mask>,
    /// gamma and beta of each sample, for norms that are not batch norm.
    pub modulation: Option<Modulation<'a>>,
    /// What is added to x before the norm, and where the sum goes; for norms that are not batch norm.
    pub sum: Option<Sum<'a>>,
    /// In a backward pass after that, with the sum as x: the gradient that the sum has from elsewhere.
    pub d_sum: Option<&'a Tensor>,
    /// Moments with which a forward pass of batch norm in training normalizes, instead of those of x.
    pub moments: Option<&'a Moments>,
    /// Which rows of x have statistics together.
    pub segments: Option<&'a Segments>,
}

/// A gate, of the shape, type and layout of x: its activation, which is that of the layer, is a factor.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// What the activation is applied to.
    pub gate: &'a Tensor,
    /// Of what it is a factor.
    pub order: GateOrder,
}

/// A sum before a norm, of the shape, type and layout of x: the residual stream of a pre-norm transformer. The norm is that of the sum as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct Sum<'a> {
    /// What is added to x.
    pub addend: &'a Tensor,
    /// Where the sum is written; it may be the tensor x, or the addend.
    pub sum: &'a Tensor,
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
    pub fn with_residual(self, residual: impl Into<Option<&'a Tensor>>) -> Self {
        Self { residual: residual.into(), ..self }
    }

    /// The same, with a gate instead of a residual: `norm(x)·act(gate)` or `norm(x·act(gate))`, with the activation of the layer ([`Activation::None`](crate::Activation)
    /// for a plain factor). For norms that are not batch norm.
    ///
    /// Nothing but x, the gate and the statistics is kept for the backward pass, which gives the gradients of both
    /// ([`GradientTargets::d_gate`](crate::GradientTargets)).
    ///
    /// ```
    /// use wgnorm::{Activation, Context, GateOrder, NormOptions, RmsNorm};
    /// let context = Context::headless_blocking()?;
    /// context.block_on(async {
    ///     let x = context.upload(&[1, 2], &[3.0, 4.0]).await?;
    ///     let gate = context.upload(&[1, 2], &[0.0, 100.0]).await?;
    ///     // Mamba-2's RMSNormGated: silu(0) is 0, silu(100) is 100.
    ///     let layer = RmsNorm::new(&context, &[2], NormOptions::rms().activation(Activation::Silu)).await?;
    ///     let (y, saved) = layer.forward(x.gated(&gate, GateOrder::NormFirst)).await?;
    ///     let y = context.download(&y).await?;
    ///     assert!(y[0] == 0.0 && (y[1] - 113.137).abs() < 1e-2);
    ///     let dy = context.upload(&[1, 2], &[1.0, 0.0]).await?;
    ///     let gradients = layer.backward(x.gated(&gate, GateOrder::NormFirst), &dy, &saved).await?;
    ///     // x̂·silu'(0), and 0.
    ///     let d_gate = context.download(&gradients.d_gate.unwrap()).await?;
    ///     assert!((d_gate[0] - 0.4243).abs() < 1e-3 && d_gate[1] == 0.0);
    ///     Ok::<(), wgnorm::Error>(())
    /// })?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    #[must_use]
    pub fn gated(self, gate: &'a Tensor, order: GateOrder) -> Self {
        Self { gate: Some(Gate { gate, order }), ..self }
    }

    /// The same, of which only the positions that the mask keeps count in training.
    #[must_use]
    pub fn masked(self, mask: impl Into<Option<&'a Mask>>) -> Self {
        Self { mask: mask.into(), ..self }
    }

    /// The same, with an addend: what is normalized is `x + addend`, which is written to `sum`. In a backward pass the sum is x.
    ///
    /// ```
    /// use wgnorm::{Context, LayerNorm, NormOptions};
    /// let context = Context::headless_blocking()?;
    /// context.block_on(async {
    ///     let x = context.upload(&[1, 2], &[1.0, 2.0]).await?;
    ///     let addend = context.upload(&[1, 2], &[0.0, 5.0]).await?;
    ///     let sum = context.zeros_like(&x).await?;
    ///     let layer = LayerNorm::new(&context, &[2], NormOptions::layer()).await?;
    ///     let (y, saved) = layer.forward(x.plus(&addend, &sum)).await?;
    ///     assert_eq!(context.download(&sum).await?, [1.0, 7.0]);
    ///     // The sum goes on to the next layer, whose gradient comes back as d_sum.
    ///     let d_sum = context.upload(&[1, 2], &[1.0, 1.0]).await?;
    ///     let gradients = layer.backward(sum.with_d_sum(&d_sum), &y, &saved).await?;
    ///     assert!((context.download(&gradients.dx).await?[0] - 1.0).abs() < 1e-3);
    ///     Ok::<(), wgnorm::Error>(())
    /// })?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    #[must_use]
    pub fn plus(self, addend: &'a Tensor, sum: &'a Tensor) -> Self {
        Self { sum: Some(Sum { addend, sum }), ..self }
    }

    /// The same, in a backward pass after a forward pass of a sum: dx includes this gradient that the sum has from elsewhere, and is then the gradient of
    /// either of what was added. It may be the tensor dx, but where an activation needs the residual.
    #[must_use]
    pub fn with_d_sum(self, d_sum: impl Into<Option<&'a Tensor>>) -> Self {
        Self { d_sum: d_sum.into(), ..self }
    }

    /// The same, normalized with moments that were computed before, of x or of more than x, perhaps merged from several tensors, devices or processes. An
    /// empty x is fine then. A backward pass takes what was saved, whether they are given again or not.
    #[must_use]
    pub fn with_moments(self, moments: impl Into<Option<&'a Moments>>) -> Self {
        Self { moments: moments.into(), ..self }
    }

    /// The same, x `[rows, C]`, with statistics of each segment of rows instead of each row: instance norm over the rows of a segment, for each of the C channels; group norm over the channels of a group
    /// too; layer norm over all channels, PyTorch Geometric's `LayerNorm(mode="graph")`, with gamma and beta for each channel as always. Norm and activation alone: no residual, gate, mask,
    /// modulation or sum. A backward pass is given the same segments (or a clone). See [`Segments`].
    #[must_use]
    pub fn in_segments(self, segments: &'a Segments) -> Self {
        Self { segments: Some(segments), ..self }
    }

    /// The same, with gamma and beta of each sample.
    #[must_use]
    pub fn modulated(self, gamma: Option<&'a Tensor>, beta: Option<&'a Tensor>) -> Self {
        Self { modulation: Some(Modulation { gamma, beta }), ..self }
    }
}

impl<'a> From<&'a Tensor> for Input<'a> {
    fn from(x: &'a Tensor) -> Self {
        Self {
            x,
            residual: None,
            gate: None,
            mask: None,
            modulation: None,
            sum: None,
            d_sum: None,
            moments: None,
            segments: None,
        }
    }
}

impl Tensor {
    /// This tensor as x, with a residual that is added to the normalized x, before the activation: `act(norm(x) + residual)`. The norm of a sum is
    /// [`plus`](Self::plus).
    pub fn with_residual<'a>(&'a self, residual: &'a Tensor) -> Input<'a> {
        Input::from(self).with_residual(residual)
    }

    /// This tensor as x, with a gate ([`Input::gated`]).
    pub fn gated<'a>(&'a self, gate: &'a Tensor, order: GateOrder) -> Input<'a> {
        Input::from(self).gated(gate, order)
    }

    /// This tensor as x, with gamma and beta of each sample.
    pub fn modulated<'a>(&'a self, gamma: Option<&'a Tensor>, beta: Option<&'a Tensor>) -> Input<'a> {
        Input::from(self).modulated(gamma, beta)
    }

    /// This tensor as x, of which only the positions that the mask keeps count in training.
    pub fn masked<'a>(&'a self, mask: &'a Mask) -> Input<'a> {
        Input::from(self).masked(mask)
    }

    /// This tensor as x `[rows, C]`, with statistics of each segment of rows ([`Input::in_segments`]).
    pub fn in_segments<'a>(&'a self, segments: &'a Segments) -> Input<'a> {
        Input::from(self).in_segments(segments)
    }

    /// This tensor as x, with an addend: what is normalized is the sum of both, which is written out ([`Input::plus`]).
    pub fn plus<'a>(&'a self, addend: &'a Tensor, sum: &'a Tensor) -> Input<'a> {
        Input::from(self).plus(addend, sum)
    }

    /// This tensor, a sum, as x of a backward pass, with the gradient that it has from elsewhere ([`Input::with_d_sum`]).
    pub fn with_d_sum<'a>(&'a self, d_sum: &'a Tensor) -> Input<'a> {
        Input::from(self).with_d_sum(d_sum)
    }

    /// This tensor as x, normalized with moments that were computed before ([`Input::with_moments`]).
    pub fn with_moments<'a>(&'a self, moments: &'a Moments) -> Input<'a> {
        Input::from(self).with_moments(moments)
    }
}
