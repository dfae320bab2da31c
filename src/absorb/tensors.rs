//! Weights in tensors: the kernel of inference scales them, as a batch whose channels are those of the norm.

use super::deviation::Deviation;
use super::geometry::{Border, Geometry, Side, WeightLayout};
use super::host::Task;
use super::norm::{Exact, check_representable};
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::context::Context;
use crate::engine::tensor::Tensor;
use crate::engine::tune::Autotuning;
use crate::norm::{BatchNormOptions, FrozenBatchNorm};
use crate::ops::map::prepare_copy;
use crate::statistics::running::{RunningStatistics, RunningValues};

/// Weights and bias of a convolution or linear layer, in GPU memory, of any element type.
#[derive(Clone, Copy, Debug)]
pub struct TensorWeights<'a> {
    /// The weights, contiguous, of 2 to 5 axes (as memory lies; [`Tensor::layout`] does not matter). Its buffer needs `COPY_SRC`.
    pub weight: &'a Tensor,
    /// The bias `[O]`, if there is one, contiguous; may be of another element type. Its buffer needs `COPY_SRC`.
    pub bias: Option<&'a Tensor>,
    /// What the axes of the weight are.
    pub layout: WeightLayout,
}

/// Where folded weights go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// Into new tensors.
    #[default]
    New,
    /// Over the weight and, if there is one, the bias.
    InPlace,
}

/// Weights and bias in GPU memory that do what they did and a batch norm besides.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AbsorbedTensors {
    /// The weights, like those that were given; in place, the tensor itself.
    pub weight: Tensor,
    /// The bias `[O]`, of the element type of the one that was given, else of the weight's.
    pub bias: Tensor,
    /// What rounding has changed.
    pub deviation: Deviation,
    /// What the layer applied to its result, and the caller now has to.
    pub activation: Activation,
}

/// Part of the largest value of a type that is left for the error of the GPU, beyond which a result counts as too large.
const SLACK: f64 = 1e-6;

impl FrozenBatchNorm {
    /// The weights of the convolution or linear layer before this norm, so that the norm can be left out, as
    /// [`InferenceNorm::absorb_into_preceding`](super::InferenceNorm::absorb_into_preceding). What of the layer is left to do is the
    /// [activation](AbsorbedTensors::activation), and the residual.
    ///
    /// The weights are scaled on the GPU in f32 and rounded to their type, by one inference dispatch; biases are computed in f64 on the host.
    /// To check and to [report](AbsorbedTensors::deviation), weights are downloaded before and after, so it is for loading a model and
    /// not for a loop. Everything that was submitted before has run then. The layer stays as it is.
    ///
    /// # Errors
    /// [`Error::ForeignDevice`], [`Error::NotContiguous`], [`Error::BufferUsage`], [`Error::WeightShape`], [`Error::Shape`] for the
    /// bias, [`Error::Channels`], [`Error::Value`] for values that are not finite or a negative running variance,
    /// [`Error::Unrepresentable`] for results beyond the type, [`Error::Overlap`] if in place weight and bias share bytes, and what binding
    /// the tensors can raise. Nothing is written then.
    ///
    /// ```
    /// use wgnorm::absorb::{Destination, TensorWeights, WeightLayout};
    /// use wgnorm::{BatchNorm, BatchNormOptions, Context};
    /// let context = Context::headless_blocking()?;
    /// context.block_on(async {
    ///     let weight = context.upload(&[2, 1, 3, 3], &[1.0; 18]).await?;
    ///     let weights = TensorWeights { weight: &weight, bias: None, layout: WeightLayout::OutputFirst { groups: 1 } };
    ///     let layer = BatchNorm::new(&context, 2, BatchNormOptions::pytorch().eps(3.0)).await?.freeze();
    ///     // var is 1 and mean 0 still: scale is 1 / sqrt(1 + 3).
    ///     let absorbed = layer.absorb_into_preceding(&weights, Destination::New).await?;
    ///     assert_eq!(context.download(&absorbed.weight).await?, [0.5; 18]);
    ///     assert_eq!(context.download(&absorbed.bias).await?, [0.0; 2]);
    ///     Ok::<(), wgnorm::Error>(())
    /// })?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    pub async fn absorb_into_preceding(
        &self,
        weights: &TensorWeights<'_>,
        destination: Destination,
    ) -> Result<AbsorbedTensors> {
        self.absorb(weights, Side::Outputs, None, destination).await
    }

    /// The weights of the convolution or linear layer after this norm, so that the norm can be left out, as
    /// [`InferenceNorm::absorb_into_following`](super::InferenceNorm::absorb_into_following). A residual of the layer would stand between
    /// the two, so there must be none.
    ///
    /// # Errors
    /// [`Error::InexactFolding`] where it would not be exact, as with an activation, which would stand between the two; else
    /// as [`absorb_into_preceding`](Self::absorb_into_preceding).
    pub async fn absorb_into_following(
        &self,
        weights: &TensorWeights<'_>,
        border: Border,
        destination: Destination,
    ) -> Result<AbsorbedTensors> {
        if self.options().activation != Activation::None {
            let why = "the layer's activation stands between the norm and what follows";
            return Err(Error::InexactFolding { why });
        }
        self.absorb(weights, Side::Inputs, Some(border), destination).await
    }

    async fn absorb(
        &self,
        weights: &TensorWeights<'_>,
        side: Side,
        border: Option<Border>,
        destination: Destination,
    ) -> Result<AbsorbedTensors> {
        // Plans are not worth measuring for what runs once.
        let context = &self.context().with_autotuning(Autotuning::Off);
        let &TensorWeights { weight, bias, layout } = weights;
        let geometry = Geometry::new(layout, weight.shape().dims())?;
        check_tensors(context, weights, geometry.outputs as u64, destination)?;
        let exact = self.exact_values().await?;
        let task = Task { exact: &exact, geometry, side };
        let values = context.download(weight).await?;
        let bias_values = match bias {
            Some(bias) => Some(context.download(bias).await?),
            None => None,
        };
        task.check(&values, bias_values.as_deref(), border.map(|border| (border, layout)))?;
        let biases = task.exact_bias(&values, bias_values.as_deref());
        let bias_type = bias.unwrap_or(weight).dtype();
        check_representable("scale", exact.scale.iter().copied(), DType::F32, SLACK)?;
        check_representable("the folded weight", task.exact_weights(&values), weight.dtype(), SLACK)?;
        check_representable("the folded bias", biases.iter().copied(), bias_type, SLACK)?;

        let rounded: Vec<_> = biases.iter().map(|&bias| bias as f32).collect();
        let uploaded = context.upload_as(&[rounded.len()], &rounded, bias_type).await?;
        let (weight_to, bias_to) = match destination {
            Destination::New => (context.zeros_like(weight).await?, uploaded.clone()),
            Destination::InPlace => (weight.clone(), bias.unwrap_or(&uploaded).clone()),
        };
        let rows = geometry.rows(side);
        let scaling = scaling_layer(context, &exact, &rows.channels).await?;
        let view = |tensor: &Tensor| {
            let dims = [rows.outer, rows.channels.len(), rows.inner];
            // Values of channels that follow each other are rows of columns.
            let dims = if rows.inner == 1 { &dims[..2] } else { &dims[..] };
            let (buffer, offset) = (tensor.memory().clone(), tensor.byte_offset());
            Tensor::in_buffer(context, buffer, offset, dims, tensor.dtype())
        };
        let scale = scaling.prepare_infer(&view(weight)?, &view(&weight_to)?).await?;
        let mut operations = vec![&scale];
        let copy;
        if let (Destination::InPlace, Some(bias)) = (destination, bias) {
            copy = prepare_copy(context, &uploaded, bias).await?;
            operations.push(&copy);
        }
        context.submit(&operations).await?;

        let stored = (context.download(&weight_to).await?, context.download(&bias_to).await?);
        let deviation = task.deviation((&values, &stored.0), (&biases, &stored.1));
        let activation = self.options().activation;
        Ok(AbsorbedTensors { weight: weight_to, bias: bias_to, deviation, activation })
    }
}

fn check_tensors(
    context: &Context,
    weights: &TensorWeights<'_>,
    outputs: u64,
    destination: Destination,
) -> Result<()> {
    let tensors = [("weight", Some(weights.weight)), ("bias", weights.bias)];
    for (what, tensor) in tensors.into_iter().filter_map(|(what, tensor)| tensor.map(|tensor| (what, tensor)))
    {
        tensor.check_device(what, context)?;
        tensor.check_contiguous(what)?;
    }
    let Some(bias) = weights.bias else { return Ok(()) };
    bias.check_shape("bias", Shape::per_channel(outputs))?;
    match weights.weight.overlap(bias) {
        Some((first, second)) if destination == Destination::InPlace => Err(Error::Overlap {
            first: "weight",
            second: "bias",
            first_range: (first.start, first.end),
            second_range: (second.start, second.end),
        }),
        _ => Ok(()),
    }
}

/// A layer that multiplies each row of weights with the scale of its channel: mean and beta are 0.
async fn scaling_layer(context: &Context, exact: &Exact, channels: &[usize]) -> Result<FrozenBatchNorm> {
    context.check_size("the folded norm", channels.len() as u64, 12)?;
    // The values were f32, or 16 bits, before they were widened.
    let of_rows = |values: &[f64]| channels.iter().map(|&c| values[c] as f32).collect::<Vec<_>>();
    let running = RunningValues { mean: vec![0.0; channels.len()], var: of_rows(&exact.var), batches: 0 };
    let running = RunningStatistics::upload(context, &running).await?;
    let gamma = context.upload(&[channels.len()], &of_rows(&exact.gamma)).await?;
    let options = BatchNormOptions::pytorch().eps(exact.eps);
    FrozenBatchNorm::from_parts(context, options, Some(gamma), None, running)
}
