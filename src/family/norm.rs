//! The layers of the family, which differ in their slices and in nothing else.

use super::backward::Backward;
use super::forward::{Affine as Bound, Forward, Layer};
use super::options::{NormOptions, Scheme};
use super::saved::{SavedSlices, SlicePass};
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::context::Context;
use crate::engine::input::{Input, Modulation};
use crate::engine::prepared::Prepared;
use crate::engine::tensor::Tensor;
use crate::norm::{Affine, GradientTargets, Gradients};
use crate::plan::Op;
use crate::plan::Slices;

/// What makes a norm the one that it is: its slices.
pub trait Kind: sealed::Sealed {}

pub(crate) mod sealed {
    use super::*;

    /// What a kind of norm decides.
    pub trait Sealed: std::fmt::Debug {
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

        /// Whether one value per slice is refused, because nothing can be learned from it.
        fn refuses_single_values(&self) -> bool {
            false
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
/// of its slices in a [`SavedSlices`]; [`infer`](Self::infer) saves nothing.
///
/// Tensors must be contiguous, in one buffer. Values may be f32, f16 or bf16; gamma and beta f32 or of the type of x.
#[derive(Debug)]
pub struct Norm<K> {
    pub(super) context: Context,
    pub(super) kind: K,
    pub(super) options: NormOptions,
    pub(super) gamma: Option<Tensor>,
    pub(super) beta: Option<Tensor>,
}

/// What has been checked of the arguments of a pass.
struct Checked<'a> {
    layer: Layer<'a>,
    /// The shape of gamma and beta.
    parameters: Option<Shape>,
}

impl<K: Kind> Norm<K> {
    /// A layer whose gamma is neutral and whose beta is 0.
    pub(super) async fn initial(context: &Context, kind: K, options: NormOptions) -> Result<Self> {
        options.check()?;
        let (mut gamma, mut beta) = (None, None);
        if let Some(shape) = kind.parameters() {
            context.check_size("a parameter", shape.len(), 4)?;
            let initial = if options.unit_offset { 0.0 } else { kind.initial_gamma() };
            let values = vec![initial; shape.len() as usize];
            if options.affine.has_gamma() {
                gamma = Some(context.upload(shape.dims(), &values).await?);
            }
            if options.affine.has_beta() {
                beta = Some(context.zeros(shape.dims()).await?);
            }
        }
        Self::existing(context, kind, options, gamma, beta)
    }

    pub(super) fn existing(
        context: &Context,
        kind: K,
        mut options: NormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
    ) -> Result<Self> {
        options.check()?;
        options.affine = match (&gamma, &beta) {
            (Some(_), Some(_)) => Affine::Both,
            (Some(_), None) => Affine::Weight,
            (None, Some(_)) => Affine::Bias,
            (None, None) => Affine::None,
        };
        for (what, parameter) in [("gamma", &gamma), ("beta", &beta)] {
            let Some(parameter) = parameter else { continue };
            let Some(shape) = kind.parameters() else {
                return Err(Error::Unsupported { layer: kind.name(), what, why: "it has no parameters" });
            };
            parameter.check_device(what, context)?;
            parameter.check_shape(what, shape)?;
            parameter.check_contiguous(what)?;
        }
        if let (Some(gamma), Some(beta)) = (&gamma, &beta) {
            beta.check_dtype("beta", gamma.dtype())?;
        }
        Ok(Self { context: context.clone(), kind, options, gamma, beta })
    }

    /// gamma, if the layer has one.
    pub fn gamma(&self) -> Option<&Tensor> {
        self.gamma.as_ref()
    }

    /// beta, if the layer has one.
    pub fn beta(&self) -> Option<&Tensor> {
        self.beta.as_ref()
    }

    /// What the layer was made with.
    pub fn options(&self) -> &NormOptions {
        &self.options
    }

    /// Room for the statistics of a tensor like x.
    ///
    /// # Errors
    /// Those of a forward pass of x, and of an allocation.
    pub async fn room_for(&self, x: &Tensor) -> Result<SavedSlices> {
        let slices = self.kind.slices(x, false)?;
        SavedSlices::new(&self.context, slices.statistics(), slices.count(), x.dtype()).await
    }

    /// As [`room_for`](Self::room_for), in a tensor of the caller's, `[S, 4]` of f32 for S statistics, a row for each in the order of the slices: the two parts
    /// of the mean (their sum is the mean), 1 / sqrt(var + eps), the biased variance. What it holds before forward has run, it holds.
    ///
    /// The tensor must begin at a multiple of the device's `min_storage_buffer_offset_alignment` (at most 256 bytes) of its buffer.
    ///
    /// # Errors
    /// Those of a forward pass of x; [`Error::Shape`], [`Error::DType`], [`Error::NotContiguous`], [`Error::ForeignDevice`], [`Error::Misaligned`].
    pub fn room_in(&self, x: &Tensor, tensor: &Tensor) -> Result<SavedSlices> {
        let slices = self.kind.slices(x, false)?;
        SavedSlices::in_tensor(&self.context, tensor, slices.statistics(), slices.count(), x.dtype())
    }

    /// As [`room_for`](Self::room_for), for a forward pass that runs before anybody can look at it.
    async fn unwritten_for(&self, x: &Tensor) -> Result<SavedSlices> {
        let slices = self.kind.slices(x, false)?;
        SavedSlices::unwritten(&self.context, slices.statistics(), slices.count(), x.dtype()).await
    }

    /// Prepares y; `saved`, from [`room_for`](Self::room_for), receives what the backward pass needs, without it there is none.
    ///
    /// Moves 3 tensors (x twice, y once), and the residual if there is one; where the plan holds slices in registers
    /// ([`Plan::held`](crate::Plan::held)), 2. y may be the tensor x itself if nothing is saved. An empty x gives an empty y.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Shape`], [`Error::Channels`], [`Error::DType`], [`Error::Layout`], [`Error::NotContiguous`],
    /// [`Error::SingleValue`], [`Error::EmptyBatch`] for slices without values, [`Error::Unsupported`] for a mask, or modulation where it cannot be,
    /// [`Error::InPlace`], and what binding the tensors can raise. Nothing changes on an error.
    pub async fn prepare_forward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&SavedSlices>,
    ) -> Result<Prepared> {
        self.prepare(input.into(), None, y, saved).await
    }

    /// As [`prepare_forward`](Self::prepare_forward), of the sum of x and an addend, which is written out: the residual stream of a pre-norm
    /// transformer. The norm is that of the sum as it is stored.
    ///
    /// Moves 5 tensors (x, the addend and y once, the sum twice), or 4 where slices are held. The sum may be x or the addend itself.
    ///
    /// # Errors
    /// As [`prepare_forward`](Self::prepare_forward).
    pub async fn prepare_forward_of_sum<'a>(
        &self,
        input: impl Into<Input<'a>>,
        addend: &Tensor,
        sum: &Tensor,
        y: &Tensor,
        saved: Option<&SavedSlices>,
    ) -> Result<Prepared> {
        self.prepare(input.into(), Some((addend, sum)), y, saved).await
    }

    /// y, and what the backward pass needs. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_forward`](Self::prepare_forward).
    pub async fn forward<'a>(&self, input: impl Into<Input<'a>>) -> Result<(Tensor, SavedSlices)> {
        let input = input.into();
        self.check(input)?;
        let saved = self.unwritten_for(input.x).await?;
        let y = self.context.zeros_like(input.x).await?;
        let forward = self.prepare_forward(input, &y, Some(&saved)).await?;
        self.context.submit(&[&forward]).await?;
        Ok((y, saved))
    }

    /// y alone. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_forward`](Self::prepare_forward).
    pub async fn infer<'a>(&self, input: impl Into<Input<'a>>) -> Result<Tensor> {
        let input = input.into();
        self.check(input)?;
        let y = self.context.zeros_like(input.x).await?;
        let forward = self.prepare_forward(input, &y, None).await?;
        self.context.submit(&[&forward]).await?;
        Ok(y)
    }

    /// y, the sum of x and an addend whose norm it is, and what the backward pass needs. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_forward`](Self::prepare_forward).
    pub async fn forward_of_sum<'a>(
        &self,
        input: impl Into<Input<'a>>,
        addend: &Tensor,
    ) -> Result<(Tensor, Tensor, SavedSlices)> {
        let input = input.into();
        self.check(input)?;
        let saved = self.unwritten_for(input.x).await?;
        let y = self.context.zeros_like(input.x).await?;
        let sum = self.context.zeros_like(input.x).await?;
        let forward = self.prepare_forward_of_sum(input, addend, &sum, &y, Some(&saved)).await?;
        self.context.submit(&[&forward]).await?;
        Ok((y, sum, saved))
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
    /// # Errors
    /// [`Error::NoGradient`], [`Error::NoParameter`], [`Error::Number`], [`Error::Residual`], [`Error::Activation`], and those of
    /// [`prepare_forward`](Self::prepare_forward).
    pub async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &SavedSlices,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        self.prepare_gradients(input.into(), dy, None, saved, targets).await
    }

    /// As [`prepare_backward`](Self::prepare_backward), after a forward pass of a sum: x is the sum, and `d_sum` the gradient that it has from
    /// elsewhere, which dx includes. dx is then the gradient of either of what was added. It may be the tensor `d_sum` itself, but where an
    /// activation needs the residual.
    ///
    /// # Errors
    /// As [`prepare_backward`](Self::prepare_backward).
    pub async fn prepare_backward_of_sum<'a>(
        &self,
        sum: impl Into<Input<'a>>,
        dy: &Tensor,
        d_sum: &Tensor,
        saved: &SavedSlices,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        self.prepare_gradients(sum.into(), dy, Some(d_sum), saved, targets).await
    }

    /// All gradients that the layer has. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_backward`](Self::prepare_backward).
    pub async fn backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &SavedSlices,
    ) -> Result<Gradients> {
        self.all_gradients(input.into(), dy, None, saved).await
    }

    /// As [`backward`](Self::backward), after a forward pass of a sum.
    ///
    /// # Errors
    /// As [`prepare_backward`](Self::prepare_backward).
    pub async fn backward_of_sum<'a>(
        &self,
        sum: impl Into<Input<'a>>,
        dy: &Tensor,
        d_sum: &Tensor,
        saved: &SavedSlices,
    ) -> Result<Gradients> {
        self.all_gradients(sum.into(), dy, Some(d_sum), saved).await
    }

    async fn all_gradients(
        &self,
        input: Input<'_>,
        dy: &Tensor,
        d_sum: Option<&Tensor>,
        saved: &SavedSlices,
    ) -> Result<Gradients> {
        let checked = self.check(input)?;
        let Layer { affine, .. } = checked.layer;
        let like = async |parameter: Option<&Tensor>| match (parameter, checked.parameters) {
            (Some(parameter), Some(shape)) => {
                self.context.zeros_as(shape.dims(), parameter.dtype()).await.map(Some)
            }
            _ => Ok(None),
        };
        let d_residual = match input.residual {
            None => None,
            // Nothing stands between the residual and y.
            Some(_) if self.options.activation == Activation::None => Some(dy.clone()),
            Some(_) => Some(self.context.zeros_like(input.x).await?),
        };
        let gradients = Gradients {
            dx: self.context.zeros_like(input.x).await?,
            d_residual,
            dgamma: like(affine.gamma).await?,
            dbeta: like(affine.beta).await?,
        };
        let targets = gradients.targets();
        let d_residual = targets.d_residual.filter(|d_residual| !d_residual.is_same_place(dy));
        let targets = GradientTargets { d_residual, ..targets };
        let backward = self.prepare_gradients(input, dy, d_sum, saved, &targets).await?;
        self.context.submit(&[&backward]).await?;
        Ok(gradients)
    }

    async fn prepare(
        &self,
        input: Input<'_>,
        addend: Option<(&Tensor, &Tensor)>,
        y: &Tensor,
        saved: Option<&SavedSlices>,
    ) -> Result<Prepared> {
        let Checked { layer, .. } = self.check(input)?;
        let Input { x, residual, .. } = input;
        self.check_like("y", y, x)?;
        if let Some((addend, sum)) = addend {
            self.check_like("addend", addend, x)?;
            self.check_like("sum", sum, x)?;
        }
        let Slices { pattern, .. } = layer.slices;
        if let Some(saved) = saved {
            saved.check(&self.context, layer.slices.statistics(), layer.slices.count(), x.dtype())?;
            if y.is_same_place(x) && addend.is_none() {
                return Err(Error::InPlace {
                    why: "y is written over x, which backward needs; save nothing, or keep x",
                });
            }
        }
        if pattern.elements() == 0 {
            return Ok(Prepared::nothing(&self.context, Op::TrainForward));
        }
        let prepared = layer.prepare_forward(&Forward { x, residual, addend, y, saved }).await?;
        if let Some(saved) = saved {
            saved.note(self.pass(input));
        }
        Ok(prepared)
    }

    async fn prepare_gradients(
        &self,
        input: Input<'_>,
        dy: &Tensor,
        d_sum: Option<&Tensor>,
        saved: &SavedSlices,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let Checked { layer, parameters } = self.check(input)?;
        let Input { x, residual, .. } = input;
        targets.check_any()?;
        self.check_like("dy", dy, x)?;
        for (what, tensor) in [("d_sum", d_sum), ("dx", targets.dx), ("d_residual", targets.d_residual)] {
            if let Some(tensor) = tensor {
                self.check_like(what, tensor, x)?;
            }
        }
        if targets.d_residual.is_some() && residual.is_none() {
            return Err(Error::NoParameter { gradient: "d_residual", parameter: "residual" });
        }
        check_parameter_targets(x, layer.affine, parameters, targets)?;
        saved.check(&self.context, layer.slices.statistics(), layer.slices.count(), x.dtype())?;
        saved.check_same(self.pass(input))?;
        // Without an activation dz is dy, whatever the residual is.
        let residual = residual.filter(|_| self.options.activation != Activation::None);
        if layer.slices.pattern.elements() == 0 {
            return layer.prepare_empty(x.dtype(), parameters, targets).await;
        }
        layer.prepare_backward(&Backward { x, residual, dy, d_sum, saved, targets }).await
    }

    /// What forward and backward must have in common.
    fn pass(&self, input: Input<'_>) -> SlicePass {
        SlicePass {
            residual: input.residual.is_some(),
            activation: self.options.activation,
            layer: self.kind.name(),
        }
    }

    /// Reads x, its residual and modulation as this layer does.
    fn check<'s>(&'s self, input: Input<'s>) -> Result<Checked<'s>> {
        let Input { x, residual, mask, modulation } = input;
        let unsupported = |what, why| Err(Error::Unsupported { layer: self.kind.name(), what, why });
        if mask.is_some() {
            return unsupported(
                "mask",
                "its statistics are those of each sample; pad x where it is to have no effect",
            );
        }
        x.check_device("x", &self.context)?;
        x.check_contiguous("x")?;
        if let Some(residual) = residual {
            self.check_like("residual", residual, x)?;
        }
        let slices = self.kind.slices(x, modulation.is_some())?;
        if slices.count() == 0 && slices.statistics() > 0 {
            return Err(Error::EmptyBatch { shape: x.shape() });
        }
        if slices.count() == 1 && self.kind.refuses_single_values() {
            return Err(Error::SingleValue { shape: x.shape() });
        }
        let own = self.kind.parameters();
        let (affine, parameters) = match modulation {
            None => {
                (Bound { gamma: self.gamma(), beta: self.beta(), unit_offset: self.options.unit_offset }, own)
            }
            Some(_) if self.gamma.is_some() || self.beta.is_some() => {
                return unsupported("modulation", "it has parameters of its own; make it with Affine::None");
            }
            Some(Modulation { gamma, beta }) => {
                let Some(own) = own else { return unsupported("modulation", "it has no parameters") };
                let mut dims = vec![x.shape().dims()[0]];
                dims.extend(own.dims());
                let shape = Shape::new(&dims)?;
                for (what, parameter) in [("gamma", gamma), ("beta", beta)] {
                    if let Some(parameter) = parameter {
                        parameter.check_device(what, &self.context)?;
                        parameter.check_shape(what, shape)?;
                        parameter.check_contiguous(what)?;
                    }
                }
                if let (Some(gamma), Some(beta)) = (gamma, beta) {
                    beta.check_dtype("beta", gamma.dtype())?;
                }
                (Bound { gamma, beta, unit_offset: self.options.unit_offset }, Some(shape))
            }
        };
        // 16-bit parameters go with tensors of their type.
        for (what, parameter) in [("gamma", affine.gamma), ("beta", affine.beta)] {
            if let Some(parameter) = parameter.filter(|parameter| parameter.dtype() != DType::F32) {
                parameter.check_dtype(what, x.dtype())?;
            }
        }
        let NormOptions { eps, activation, .. } = self.options;
        let layer = Layer {
            context: &self.context,
            reason: None,
            name: self.kind.name(),
            slices,
            scheme: self.kind.scheme(),
            eps: eps.value(x.dtype()),
            activation,
            affine,
        };
        Ok(Checked { layer, parameters })
    }

    /// Requires a tensor like x.
    fn check_like(&self, what: &'static str, tensor: &Tensor, x: &Tensor) -> Result<()> {
        tensor.check_shape(what, x.shape())?;
        tensor.check_dtype(what, x.dtype())?;
        tensor.check_contiguous(what)?;
        if tensor.layout() != x.layout() && x.shape().rank() > 2 && self.kind.has_layout() {
            return Err(Error::Layout { what, expected: x.layout(), got: tensor.layout() });
        }
        Ok(())
    }
}

/// Checks those of the parameters' gradients that are asked for.
fn check_parameter_targets(
    x: &Tensor,
    affine: Bound<'_>,
    parameters: Option<Shape>,
    targets: &GradientTargets<'_>,
) -> Result<()> {
    let mut dtype = None;
    for (gradient, tensor, parameter, exists) in [
        ("dgamma", targets.dgamma, "gamma", affine.gamma.is_some()),
        ("dbeta", targets.dbeta, "beta", affine.beta.is_some()),
    ] {
        let Some(tensor) = tensor else { continue };
        let Some(shape) = parameters.filter(|_| exists) else {
            return Err(Error::NoParameter { gradient, parameter });
        };
        tensor.check_shape(gradient, shape)?;
        tensor.check_contiguous(gradient)?;
        if tensor.dtype() != DType::F32 {
            tensor.check_dtype(gradient, x.dtype())?;
        }
        tensor.check_dtype(gradient, *dtype.get_or_insert(tensor.dtype()))?;
    }
    Ok(())
}
