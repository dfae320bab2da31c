//! A function of each value in the place of a normalization: Dynamic Tanh and Derf, with which transformers train without one.
//!
//! Sources: Zhu, Chen, He, LeCun & Liu, "Transformers without Normalization", CVPR 2025 (Dynamic Tanh); Chen, Lu, Zhu, Sun & Liu,
//! "Stronger Normalization-Free Transformers", 2025 (Derf).

mod options;

use std::marker::PhantomData;

pub use self::options::CurveOptions;
use crate::base::activation::Activation;
pub use crate::base::curve::Curve;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::tensor::Tensor;
use crate::engine::verdicts::together;
use crate::pass::infer;
use crate::pass::input::Input;
use crate::pass::parameters::Owned;
use crate::pass::spec::{Cut, Extra};
use crate::pass::train::sealed::Sealed as InTraining;
use crate::pass::{GradientTargets, Gradients, Infer, Pass, Reads, Spec, Statistics, Train, TrainForward};
use crate::plan::Op;
use crate::statistics::saved::Saved;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Tanh {}
    impl Sealed for super::Erf {}
}

/// Which function a [`DynamicCurve`] is made of: [`Tanh`] or [`Erf`].
pub trait CurveKind: sealed::Sealed {
    /// The function.
    const CURVE: Curve;
    /// Whether new layers add a learnable shift to its argument.
    const SHIFTED: bool;
}

/// tanh(alpha·x), of a [`DynamicTanh`].
#[derive(Clone, Copy, Debug)]
pub enum Tanh {}

/// erf(alpha·x + shift), of a [`Derf`].
#[derive(Clone, Copy, Debug)]
pub enum Erf {}

impl CurveKind for Tanh {
    const CURVE: Curve = Curve::Tanh;
    const SHIFTED: bool = false;
}

impl CurveKind for Erf {
    const CURVE: Curve = Curve::Erf;
    const SHIFTED: bool = true;
}

/// Dynamic Tanh (DyT): `y = act(gamma·tanh(alpha·x) + beta + residual)`, alpha one learnable number, gamma and beta `[C]`.
///
/// Source: Zhu, Chen, He, LeCun & Liu, "Transformers without Normalization", CVPR 2025.
///
/// ```
/// use wgnorm::{Context, CurveOptions, DynamicTanh};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     // Two tokens of three channels.
///     let x = context.upload(&[2, 3], &[0.0, 2.0, -2.0, 1e9, 1.0, -1.0]).await?;
///     let layer = DynamicTanh::new(&context, 3, CurveOptions::default()).await?;
///     let y = context.download(&layer.forward(&x).await?).await?;
///     assert_eq!((y[0], y[3]), (0.0, 1.0));
///     assert!((y[1] - 1.0f32.tanh()).abs() < 1e-6 && y[2] == -y[1]);
///
///     let dy = context.upload(&[2, 3], &[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]).await?;
///     let gradients = layer.backward(&x, &dy).await?;
///     // Σ dy·(1 − tanh²(alpha·x))·x: the value at 0 adds nothing.
///     let dalpha = context.download(&gradients.dalpha.unwrap()).await?[0];
///     assert!((dalpha - 2.0 * (1.0 - 1.0f32.tanh().powi(2))).abs() < 1e-6);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
pub type DynamicTanh = DynamicCurve<Tanh>;

/// Derf: `y = act(gamma·erf(alpha·x + shift) + beta + residual)`, alpha and shift learnable numbers, gamma and beta `[C]`.
///
/// Source: Chen, Lu, Zhu, Sun & Liu, "Stronger Normalization-Free Transformers", 2025.
///
/// ```
/// use wgnorm::{Context, CurveOptions, Derf};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let x = context.upload(&[2, 1], &[0.0, 2.0]).await?;
///     let layer = Derf::new(&context, 1, CurveOptions::default()).await?;
///     let y = context.download(&layer.forward(&x).await?).await?;
///     assert!(y[0] == 0.0 && (y[1] - 0.842_700_8).abs() < 1e-6); // erf(1)
///
///     // The slope at 0 is 2/√π, which alone the shift sees of this dy.
///     let dy = context.upload(&[2, 1], &[1.0, 0.0]).await?;
///     let gradients = layer.backward(&x, &dy).await?;
///     let dshift = context.download(&gradients.dshift.unwrap()).await?[0];
///     assert!((dshift - 1.128_379_2).abs() < 1e-6);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
pub type Derf = DynamicCurve<Erf>;

/// A layer that squashes each value instead of normalizing it: [`DynamicTanh`], [`Derf`].
///
/// Of x `[N, C]`, `[N, L, C]`, `[N, C, H, W]` or any other batch, in both layouts:
///
/// ```text
/// u = alpha·x + shift           (alpha and shift are one number each, of all channels)
/// z = gamma·f(u) + beta + residual
/// y = act(z)
/// ```
///
/// There are no statistics, so training and inference are the same pass, batches may be of any size, and every value is independent of
/// all others. What a backward pass needs is x. The parameters are tensors on the GPU that an optimizer updates where they are; passes
/// that are prepared see what they hold when they run.
///
/// NaN passes through. ±∞ gives ±gamma + beta, with a derivative of 0.
#[derive(Debug)]
pub struct DynamicCurve<K> {
    context: Context,
    options: CurveOptions,
    /// `None` where no parameter is per channel: then of any number.
    channels: Option<u64>,
    parameters: Owned,
    kind: PhantomData<fn() -> K>,
}

/// What of an input a curve has no use for.
const REFUSES: &[(Extra, &str)] = &[
    (Extra::Modulation, "its parameters are those of the layer; modulate what it gives"),
    (Extra::Sum, "only the norms of the family write the sum that they normalize"),
    (Extra::DSum, "only the norms of the family write the sum that they normalize"),
    (Extra::Gate, "only the norms of the family have gates; multiply what it gives"),
    (Extra::Moments, "it has no statistics"),
];

impl DynamicTanh {
    /// A layer from existing parameters: alpha `[1]`, gamma and beta `[C]`, all f32 or all of the 16-bit type of x. Which affine
    /// parameters it has follows from those that are given, whatever the options say; without any it takes every number of channels.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`],
    /// [`Error::NotContiguous`], [`Error::ForeignDevice`],
    /// [`Error::Channels`] for no channels, [`Error::Value`],
    /// [`Error::Slope`].
    pub fn from_parts(
        context: &Context,
        options: CurveOptions,
        alpha: Tensor,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
    ) -> Result<Self> {
        Self::existing(context, options, Owned { alpha: Some(alpha), shift: None, gamma, beta })
    }
}

impl Derf {
    /// A layer from existing parameters: alpha and shift `[1]`, gamma and beta `[C]`, all f32 or all of the 16-bit type of x. Which
    /// affine parameters it has follows from those that are given, whatever the options say; without any it takes every number of
    /// channels.
    ///
    /// # Errors
    /// As [`DynamicTanh::from_parts`].
    pub fn from_parts(
        context: &Context,
        options: CurveOptions,
        alpha: Tensor,
        shift: Tensor,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
    ) -> Result<Self> {
        Self::existing(context, options, Owned { alpha: Some(alpha), shift: Some(shift), gamma, beta })
    }
}

impl<K: CurveKind> DynamicCurve<K> {
    /// A layer for `channels` channels with gamma 1, beta 0, and alpha and shift of the options, all f32.
    ///
    /// # Errors
    /// [`Error::Channels`] for no channels, [`Error::Value`] for an alpha or shift that is
    /// not finite, [`Error::Slope`], and those of an allocation.
    pub async fn new(context: &Context, channels: usize, options: CurveOptions) -> Result<Self> {
        if channels == 0 {
            return Err(Error::Channels { what: "a layer", expected: 1, got: 0 });
        }
        options.check()?;
        let channels = channels as u64;
        let affine = Owned::affine(context, options.affine, Shape::per_channel(channels), 1.0).await?;
        let alpha = Some(context.upload(&[1], &[options.alpha]).await?);
        let shift = match K::SHIFTED {
            true => Some(context.upload(&[1], &[options.shift]).await?),
            false => None,
        };
        let layer = Self::existing(context, options, Owned { alpha, shift, ..affine })?;
        Ok(Self { channels: Some(channels), ..layer })
    }

    fn existing(context: &Context, mut options: CurveOptions, parameters: Owned) -> Result<Self> {
        options.affine = parameters.get().affine();
        options.check()?;
        let channels = parameters.gamma.as_ref().or(parameters.beta.as_ref());
        let channels = channels.map(|parameter| parameter.shape().len());
        if channels == Some(0) {
            return Err(Error::Channels { what: "a layer", expected: 1, got: 0 });
        }
        parameters.get().check(context, Shape::per_channel(channels.unwrap_or(1)))?;
        Ok(Self { context: context.clone(), options, channels, parameters, kind: PhantomData })
    }

    /// The layer over an input that it takes.
    fn check(&self, input: Input<'_>) -> Result<Spec<'_>> {
        let view = input.x.channels()?;
        let got = view.channels;
        if let Some(expected) = self.channels.filter(|&expected| expected != got) {
            return Err(Error::Channels { what: "x", expected, got });
        }
        let spec = Spec {
            context: &self.context,
            layer: K::CURVE.name(),
            cut: Cut::Channels(view),
            segments: None,
            has_layout: true,
            // There is nothing to be kept from 0.
            eps: 0.0,
            activation: self.options.activation,
            parameters: self.parameters.get(),
            shape: Shape::per_channel(got),
            unit_offset: false,
            refuses: REFUSES,
        };
        spec.check_input(input)?;
        Ok(spec)
    }

    /// Prepares y. An empty batch gives an empty result. One dispatch for each window; moves 2 tensors, or 3 with a residual. y may be
    /// the tensor x itself, which is then written over: where no backward pass is to follow, which needs x. A mask makes no difference.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Channels`], [`Error::Shape`],
    /// [`Error::DType`], [`Error::Layout`], and what binding the tensors can raise.
    pub async fn prepare_forward<'a>(&self, input: impl Into<Input<'a>>, y: &Tensor) -> Result<Prepared> {
        let input = input.into();
        let spec = self.check(input)?;
        spec.check_like("y", y, input.x)?;
        if spec.cut.is_empty() {
            return Ok(Prepared::nothing(&self.context, Op::CurveForward));
        }
        Pass::forward(Op::CurveForward, spec, input, y, Statistics::Curve(K::CURVE)).prepare().await
    }

    /// y. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_forward`](Self::prepare_forward).
    pub async fn forward<'a>(&self, input: impl Into<Input<'a>>) -> Result<Tensor> {
        together(async {
            let input = input.into();
            self.check(input)?;
            let y = self.context.zeros_like(input.x).await?;
            let forward = self.prepare_forward(input, &y).await?;
            self.context.submit(&[&forward]).await?;
            Ok(y)
        })
        .await
    }

    /// Prepares the gradients, as many as are asked for.
    ///
    /// ```text
    /// dz = dy·act'(z)                            d_residual = dz
    /// dx = dz·gamma·alpha·f'(u)
    /// dbeta = Σ dz                               dgamma = Σ dz·f(u)              over the values of a channel
    /// dalpha = Σ dz·gamma·f'(u)·x                dshift = Σ dz·gamma·f'(u)       over all values
    /// ```
    ///
    /// One pass over memory (two where dx is written over dy and slices share words): moves x, dy and dx, and the residual and d_residual
    /// if there are; where gradients of parameters are asked for, one dispatch more over C values, and another for dalpha and dshift.
    /// x, the residual and all parameters must be those of the forward pass. What a mask leaves out has a dz of 0.
    ///
    /// # Errors
    /// [`Error::NoGradient`], [`Error::NoParameter`],
    /// [`Error::Rank`], [`Error::Channels`], [`Error::Shape`],
    /// [`Error::DType`], [`Error::Layout`], [`Error::Mask`], and what
    /// binding the tensors can raise. An empty batch is fine: its sums are zero.
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
            return spec.prepare_empty_sums(Op::CurveBackward, input.x.dtype(), targets).await;
        }
        // Without an activation dz is dy.
        let residual = self.options.activation != Activation::None;
        let reads = Reads { x: true, residual, parameters: true };
        let statistics = Statistics::Curve(K::CURVE);
        Pass::backward(Op::CurveBackward, spec, (input, dy), targets, reads, statistics).prepare().await
    }

    /// All gradients that the layer has. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_backward`](Self::prepare_backward).
    pub async fn backward<'a>(&self, input: impl Into<Input<'a>>, dy: &Tensor) -> Result<Gradients> {
        together(async {
            let input = input.into();
            let gradients = self.check(input)?.allocate(input, dy).await?;
            let backward = self.prepare_backward(input, dy, &gradients.computed(dy)).await?;
            self.context.submit(&[&backward]).await?;
            Ok(gradients)
        })
        .await
    }

    /// alpha, `[1]`.
    pub fn alpha(&self) -> &Tensor {
        let alpha = self.parameters.alpha.as_ref();
        alpha.unwrap_or_else(|| unreachable!("every curve is made with one"))
    }

    /// The shift, `[1]`, if the layer has one: a [`Derf`] has.
    pub fn shift(&self) -> Option<&Tensor> {
        self.parameters.shift.as_ref()
    }

    /// gamma `[C]`, if the layer has one.
    pub fn gamma(&self) -> Option<&Tensor> {
        self.parameters.gamma.as_ref()
    }

    /// beta `[C]`, if the layer has one.
    pub fn beta(&self) -> Option<&Tensor> {
        self.parameters.beta.as_ref()
    }

    /// What the layer was made with.
    pub fn options(&self) -> &CurveOptions {
        &self.options
    }
}

impl<K: CurveKind> InTraining for DynamicCurve<K> {
    fn context(&self) -> &Context {
        &self.context
    }
}

/// Nothing is saved: what a backward pass needs is x.
impl<K: CurveKind> Train for DynamicCurve<K> {
    async fn room_for<'a>(&self, input: impl Into<Input<'a>>) -> Result<Saved> {
        let x = input.into().x;
        self.check(x.into())?;
        Saved::nothing(&self.context, x.dtype()).await
    }

    async fn prepare_train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        _: Option<&Saved>,
    ) -> Result<TrainForward> {
        self.prepare_forward(input, y).await.map(Into::into)
    }

    async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        _: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        DynamicCurve::prepare_backward(self, input, dy, targets).await
    }

    async fn backward<'a>(&self, input: impl Into<Input<'a>>, dy: &Tensor, _: &Saved) -> Result<Gradients> {
        DynamicCurve::backward(self, input, dy).await
    }
}

impl<K: CurveKind> infer::sealed::Sealed for DynamicCurve<K> {}

impl<K: CurveKind> Infer for DynamicCurve<K> {
    async fn prepare_infer<'a>(&self, input: impl Into<Input<'a>>, y: &Tensor) -> Result<Prepared> {
        self.prepare_forward(input, y).await
    }

    async fn infer<'a>(&self, input: impl Into<Input<'a>>) -> Result<Tensor> {
        self.forward(input).await
    }
}
