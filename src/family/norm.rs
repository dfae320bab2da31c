//! The layers of the family, which differ in their slices and in nothing else.

use super::axes::Arrangement;
use super::options::NormOptions;
use super::passes::{Passes, checked};
#[cfg(doc)]
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::shape::Shape;
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::tensor::Tensor;
use crate::pass::input::Input;
use crate::pass::parameters::Owned;
use crate::pass::{GradientTargets, Gradients, Scheme, SecondGradients, SecondTargets, Tangents};
use crate::plan::Slices;
use crate::statistics::saved::Saved;

/// What makes a norm the one that it is: its slices.
pub trait Kind: sealed::Sealed {}

pub(crate) mod sealed {
    use super::*;

    /// What a kind of norm decides.
    pub trait Sealed: std::fmt::Debug + Send + Sync {
        /// The layer's name, for errors.
        fn name(&self) -> &'static str;

        /// What x is divided by.
        fn scheme(&self) -> Scheme;

        /// The slices of x, with parameters of the layer's own or, if it is modulated, of each sample.
        fn slices(&self, x: &Tensor, modulated: bool) -> Result<Slices>;

        /// The shape of gamma and beta, if there can be any.
        fn parameters(&self) -> Option<Shape>;

        /// What gamma begins with.
        fn initial_gamma(&self) -> f32 {
            1.0
        }

        /// Whether training refuses one value per slice unless it is asked for.
        fn refuses_single_values(&self) -> bool {
            false
        }

        /// Whether its slices are rows of x, positions with all of their values, of which a mask leaves some out.
        fn is_of_rows(&self) -> bool {
            false
        }

        /// How x and the parameters are put into another order for a layer whose walk is known, where they must be.
        fn arrangement(&self, _x: Shape) -> Option<Arrangement> {
            None
        }

        /// Groups of a row that have statistics of their own.
        fn groups(&self) -> u64 {
            1
        }

        /// Channels that share the statistics of a segment of rows, where there are such.
        fn merged_in_segments(&self) -> Option<u64> {
            None
        }

        /// Whether there are no statistics without them.
        fn needs_segments(&self) -> bool {
            false
        }

        /// The shape of what is subtracted of the mean, if that is a parameter.
        fn alpha(&self) -> Option<Shape> {
            None
        }

        /// Whether the order of axes in memory matters.
        fn has_layout(&self) -> bool {
            true
        }
    }
}

/// A norm whose slices are not the channels of a batch: [`LayerNorm`](crate::LayerNorm), [`RmsNorm`](crate::RmsNorm),
/// [`GroupNorm`](crate::GroupNorm), [`InstanceNorm`](crate::InstanceNorm) and their kin, which differ in their [`Kind`].
///
/// ```text
/// x̂ = (x − mean) / sqrt(var + eps)          over each slice (biased variance)
/// y = act(x̂·gamma + beta + residual)
/// ```
///
/// There are no running statistics, so training and inference are one: a forward pass that is to be followed by a backward pass saves the statistics
/// of its slices in a [`Saved`]; [`infer`](Self::infer) saves nothing.
///
/// Tensors must lie in one buffer, without gaps, but that rows (slices that are one run: those of layer and RMS norm) may be equally far apart: a part of the last axis of
/// a wider tensor, for example, as queries are of packed queries, keys and values. Values may be f32, f16 or bf16; gamma and beta f32 or of the type of x.
#[derive(Debug)]
pub struct Norm<K> {
    pub(super) context: Context,
    pub(super) kind: K,
    pub(super) options: NormOptions,
    parameters: Owned,
}

impl<K: Kind> Norm<K> {
    /// A layer whose gamma is neutral and whose beta is 0.
    pub(super) async fn initial(context: &Context, kind: K, options: NormOptions) -> Result<Self> {
        options.check()?;
        let gamma = if options.unit_offset { 0.0 } else { kind.initial_gamma() };
        let parameters = match kind.parameters() {
            Some(shape) => Owned::affine(context, options.affine, shape, gamma).await?,
            None => Owned::default(),
        };
        Self::with(context, kind, options, parameters)
    }

    pub(super) fn existing(
        context: &Context,
        kind: K,
        options: NormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
    ) -> Result<Self> {
        Self::with(context, kind, options, Owned { gamma, beta, ..Owned::default() })
    }

    /// A layer with these parameters.
    pub(super) fn with(context: &Context, kind: K, options: NormOptions, parameters: Owned) -> Result<Self> {
        let options = checked(context, &kind, options, &parameters)?;
        Ok(Self { context: context.clone(), kind, options, parameters })
    }

    /// Its passes, which are those of every kind.
    pub(super) fn passes(&self) -> Passes<'_> {
        let Self { context, kind, options, parameters } = self;
        Passes { context, kind, options, parameters }
    }

    /// gamma, if the layer has one.
    pub fn gamma(&self) -> Option<&Tensor> {
        self.parameters.gamma.as_ref()
    }

    /// beta, if the layer has one.
    pub fn beta(&self) -> Option<&Tensor> {
        self.parameters.beta.as_ref()
    }

    /// The part of the mean that is subtracted, of GraphNorm.
    pub fn alpha(&self) -> Option<&Tensor> {
        self.parameters.alpha.as_ref()
    }

    /// What the layer was made with.
    pub fn options(&self) -> &NormOptions {
        &self.options
    }

    /// Room for the statistics of a tensor like x, or of one in the same segments ([`Input::in_segments`]).
    ///
    /// # Errors
    /// Those of a forward pass of x, and of an allocation.
    pub async fn room_for<'a>(&self, input: impl Into<Input<'a>>) -> Result<Saved> {
        let input = input.into();
        Saved::empty(&self.context, self.passes().kept(input)?, input.x.dtype()).await
    }

    /// As [`room_for`](Self::room_for), in a tensor of the caller's, `[S, 4]` of f32 for S statistics, a row for each in the order of the slices: the two parts
    /// of the mean (their sum is the mean), 1 / sqrt(var + eps), the biased variance. Of [`GraphNorm`](crate::GraphNorm) alpha·mean, and the mean of x̂ instead of the variance. Of norms that subtract no mean: a power of two and 0, what x times that power
    /// of two is multiplied with, the root of the mean square. What it holds before forward has run, it holds.
    ///
    /// The tensor must begin at a multiple of the device's `min_storage_buffer_offset_alignment` (at most 256 bytes) of its buffer.
    ///
    /// # Errors
    /// Those of a forward pass of x; [`Error::Shape`], [`Error::DType`], [`Error::NotContiguous`], [`Error::ForeignDevice`], [`Error::Misaligned`].
    pub fn room_in<'a>(&self, input: impl Into<Input<'a>>, tensor: &Tensor) -> Result<Saved> {
        let input = input.into();
        Saved::in_tensor(&self.context, tensor, self.passes().kept(input)?, input.x.dtype())
    }

    /// Prepares y; `saved`, from [`room_for`](Self::room_for), receives what the backward pass needs, without it there is none.
    ///
    /// Moves 3 tensors (x twice, y once), and the residual if there is one; where the plan holds slices in registers
    /// ([`Plan::held`](crate::tuning::Plan::held)), 2. Of a sum ([`Input::plus`]) 5 (x, the addend and y once, the sum twice), or 4. y may be the tensor x itself if
    /// nothing is saved. An empty x gives an empty y.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Shape`], [`Error::Channels`], [`Error::DType`], [`Error::Layout`], [`Error::NotContiguous`],
    /// [`Error::SingleValue`] if statistics are saved, [`Error::EmptyBatch`] for slices without values, [`Error::Unsupported`] for a mask where slices are no rows, or modulation where it cannot be,
    /// [`Error::InPlace`], and what binding the tensors can raise. Nothing changes on an error.
    pub async fn prepare_forward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<Prepared> {
        self.passes().prepare_forward(input.into(), y, saved).await
    }

    /// y, and what the backward pass needs. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_forward`](Self::prepare_forward).
    pub async fn forward<'a>(&self, input: impl Into<Input<'a>>) -> Result<(Tensor, Saved)> {
        self.passes().forward(input.into()).await
    }

    /// y alone. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_forward`](Self::prepare_forward).
    pub async fn infer<'a>(&self, input: impl Into<Input<'a>>) -> Result<Tensor> {
        self.passes().infer(input.into()).await
    }

    /// Prepares the gradients, as many as are asked for.
    ///
    /// ```text
    /// dz = dy·act'(z), z = x̂·gamma + beta + residual        d_residual = dz
    /// dbeta = Σ dz        dgamma = Σ dz·x̂
    /// dx = (gamma·dz − mean(gamma·dz) − x̂·mean(gamma·dz·x̂)) / sqrt(var + eps)        means over each slice
    /// ```
    ///
    /// x and the residual must be what forward saw, and gamma and beta still those that it used. Moves 5 tensors (x and dy twice, dx once), or
    /// 2 without dx; with an activation and a residual 3 more. dx may be the tensor dy itself.
    ///
    /// With a gate ([`Input::gated`]) behind the norm dz = dy·act(gate) and d_gate = dy·z·act'(gate); before it, with u = x·act(gate) in the place of x,
    /// dx = du·act(gate) and d_gate = du·x·act'(gate).
    ///
    /// After a forward pass of a sum, x is the sum, and [`Input::with_d_sum`] gives the gradient that it has from elsewhere.
    ///
    /// # Errors
    /// [`Error::NoGradient`], [`Error::NoParameter`], [`Error::Number`], [`Error::Residual`], [`Error::Gate`], [`Error::Activation`],
    /// [`Error::Unsupported`] for d_gate without dx where the gate is before the norm, and those of
    /// [`prepare_forward`](Self::prepare_forward).
    pub async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        self.passes().prepare_backward(input.into(), dy, saved, targets).await
    }

    /// All gradients that the layer has. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_backward`](Self::prepare_backward).
    pub async fn backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<Gradients> {
        self.passes().backward(input.into(), dy, saved).await
    }

    /// Prepares the tangent of y, forward mode: how y changes as x, gamma and beta do.
    ///
    /// ```text
    /// x̂ changes by (ẋ − mean(ẋ) − x̂·mean(ẋ·x̂)) / sqrt(var + eps)        means over each slice
    /// y by act'(z)·(gamma·(that) + gammȧ·x̂ + betȧ)
    /// ```
    ///
    /// x must be what forward saw, and gamma and beta still those that it used. Of norm and activation alone: a residual, a gate, a sum, a mask are refused. Moves 5 (x and its tangent twice) tensors.
    ///
    /// # Errors
    /// Those of [`prepare_backward`](Self::prepare_backward); [`Error::Unsupported`] for what is refused, and over axes that no walk has.
    pub async fn prepare_jvp<'a>(
        &self,
        input: impl Into<Input<'a>>,
        saved: &Saved,
        tangents: &Tangents<'_>,
        y_tangent: &Tensor,
    ) -> Result<Prepared> {
        self.passes().prepare_jvp(input.into(), saved, tangents, y_tangent).await
    }

    /// The tangent of y. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_jvp`](Self::prepare_jvp).
    pub async fn jvp<'a>(
        &self,
        input: impl Into<Input<'a>>,
        saved: &Saved,
        tangents: &Tangents<'_>,
    ) -> Result<Tensor> {
        self.passes().jvp(input.into(), saved, tangents).await
    }

    /// Prepares gradients of gradients, as PyTorch's double backward gives them: of a scalar whose gradients by dx, dgamma and dbeta are the
    /// [`Tangents`], those by dy, x, gamma and beta. Gradient penalties (WGAN-GP, Gulrajani et al. 2017) and products with a Hessian are made of them.
    ///
    /// ddy is [`prepare_jvp`](Self::prepare_jvp)'s tangent of y, the others are how dx, dgamma and dbeta change in that direction (the Hessian is symmetric).
    /// Moves 8 (x, dy and the tangent of x twice) tensors.
    ///
    /// ```
    /// use wgnorm::{Context, LayerNorm, NormOptions, Tangents};
    /// let context = Context::headless_blocking()?;
    /// context.block_on(async {
    ///     let x = context.upload(&[2, 3], &[1.0, 2.0, 4.0, 3.0, -1.0, 0.5]).await?;
    ///     let dy = context.upload(&[2, 3], &[0.3, -0.2, 0.1, 1.0, 0.5, -0.5]).await?;
    ///     let layer = LayerNorm::new(&context, &[3], NormOptions::layer()).await?;
    ///     let (_, saved) = layer.forward(&x).await?;
    ///     let gradients = layer.backward(&x, &dy, &saved).await?;
    ///     // A penalty of ‖dx‖²/2, whose gradient by dx is dx.
    ///     let second = layer.double_backward(&x, &dy, &saved, &Tangents::of_x(&gradients.dx)).await?;
    ///     // All values of a row by as much change nothing.
    ///     let dx = context.download(&second.dx).await?;
    ///     assert!((dx[0] + dx[1] + dx[2]).abs() < 1e-6);
    ///     Ok::<(), wgnorm::Error>(())
    /// })?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`prepare_jvp`](Self::prepare_jvp); [`Error::Unsupported`] for an activation of one's own without a second derivative.
    pub async fn prepare_double_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        tangents: &Tangents<'_>,
        targets: &SecondTargets<'_>,
    ) -> Result<Prepared> {
        self.passes().prepare_double_backward((input.into(), dy), saved, tangents, targets).await
    }

    /// All gradients of gradients that the layer has. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_double_backward`](Self::prepare_double_backward).
    pub async fn double_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        tangents: &Tangents<'_>,
    ) -> Result<SecondGradients> {
        self.passes().double_backward((input.into(), dy), saved, tangents).await
    }
}
