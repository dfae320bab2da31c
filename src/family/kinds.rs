//! The norms of the family: what their slices are.

use super::axes::{Arrangement, Axes};
use super::norm::sealed::Sealed;
use super::norm::{Kind, Norm};
use super::places::{OfPlaces, Places, rows_of};
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::tensor::Tensor;
use crate::pass::Scheme;
use crate::plan::{Parameters, Slices};

/// Trailing axes of x are normalized, or any: [`LayerNorm`].
#[derive(Clone, Copy, Debug)]
pub struct Layer(pub(super) Places);

/// As [`Layer`], by the root of the mean square: [`RmsNorm`].
#[derive(Clone, Copy, Debug)]
pub struct Rms(pub(super) Places);

/// Groups of channels of each sample: [`GroupNorm`].
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub(super) groups: u64,
    pub(super) channels: u64,
}

/// Each channel of each sample: [`InstanceNorm`].
#[derive(Clone, Copy, Debug)]
pub struct Instance {
    pub(super) channels: u64,
}

/// Each channel of each segment of rows, of whose mean a part is subtracted that is learned: [`GraphNorm`].
#[derive(Clone, Copy, Debug)]
pub struct Graph {
    pub(super) channels: u64,
}

/// Any axes, centred and scaled without parameters: [`MeanVarianceNorm`].
#[derive(Clone, Copy, Debug)]
pub struct MeanVariance {
    pub(super) axes: Axes,
}

/// Any axes, divided by their length: [`L2Norm`].
#[derive(Clone, Copy, Debug)]
pub struct Length {
    pub(super) axes: Axes,
}

/// The last axis, divided by its length, with one parameter for all: [`ScaleNorm`].
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub(super) places: u64,
}

/// Rows of a weight, divided by their length, with a parameter each: [`WeightNorm`].
#[derive(Clone, Copy, Debug)]
pub struct Weight {
    pub(super) rows: u64,
}

/// Rows of a weight, centred and scaled: [`WeightStandardization`].
#[derive(Clone, Copy, Debug)]
pub struct Standardization {
    pub(super) rows: u64,
}

/// Layer normalization (Ba, Kiros & Hinton, "Layer Normalization", 2016): over the trailing axes of x `[…, normalized shape]`, with gamma and beta
/// of the normalized shape.
///
/// ```
/// use wgnorm::{Context, LayerNorm, NormOptions};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     // Two rows of four values.
///     let x = context.upload(&[2, 4], &[1.0, 2.0, 3.0, 4.0, -8.0, 0.0, 0.0, 8.0]).await?;
///     let layer = LayerNorm::new(&context, &[4], NormOptions::layer()).await?;
///     let (y, saved) = layer.forward(&x).await?;
///     assert!((context.download(&y).await?[3] - 1.3416).abs() < 1e-3);
///     let gradients = layer.backward(&x, &y, &saved).await?;
///     assert_eq!(gradients.dgamma.unwrap().shape().dims(), [4]);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
///
/// Modulated ([`Tensor::modulated`]), for adaptive layer norm (Peebles & Xie, "Scalable Diffusion Models with Transformers", 2023), gamma and beta
/// are `[N, normalized shape]`, for each sample of x `[N, …]`.
pub type LayerNorm = Norm<Layer>;

/// Root mean square normalization (Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019): as [`LayerNorm`], without a mean,
/// `x̂ = x / sqrt(mean(x²) + eps)`.
///
/// ```
/// use wgnorm::{Context, NormOptions, RmsNorm};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let x = context.upload(&[1, 2], &[3.0, 4.0]).await?;
///     let layer = RmsNorm::new(&context, &[2], NormOptions::gemma()).await?;
///     let y = context.download(&layer.infer(&x).await?).await?;
///     assert!((y[0] - 3.0 / 12.5_f32.sqrt()).abs() < 1e-6);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
pub type RmsNorm = Norm<Rms>;

/// Group normalization (Wu & He, "Group Normalization", 2018): over groups of neighbouring channels of each sample of x `[N, C, …]` or `[N, …, C]`,
/// with gamma and beta `[C]`, as PyTorch and ONNX opset 21 have them.
///
/// ```
/// use wgnorm::{Context, GroupNorm, NormOptions};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let x = context.upload(&[1, 4, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).await?;
///     let layer = GroupNorm::new(&context, 2, 4, NormOptions::group()).await?;
///     let y = context.download(&layer.infer(&x).await?).await?;
///     assert!((y[0] - y[4]).abs() < 1e-6);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
pub type GroupNorm = Norm<Group>;

/// Instance normalization (Ulyanov, Vedaldi & Lempitsky, "Instance Normalization: The Missing Ingredient for Fast Stylization", 2016): over each
/// channel of each sample of x `[N, C, …]` or `[N, …, C]`, with gamma and beta `[C]`. With running statistics it is
/// [`TrackedInstanceNorm`](crate::family::TrackedInstanceNorm).
///
/// ```
/// use wgnorm::{Context, InstanceNorm, NormOptions};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let x = context.upload(&[1, 2, 2], &[1.0, 2.0, 30.0, 40.0]).await?;
///     // The statistics of a style, as adaptive instance norm (Huang & Belongie 2017) gives them.
///     let style = (context.upload(&[1, 2], &[2.0, 3.0]).await?, context.upload(&[1, 2], &[0.5, 0.0]).await?);
///     let layer = InstanceNorm::new(&context, 2, NormOptions::instance()).await?;
///     let y = context.download(&layer.infer(x.modulated(Some(&style.0), Some(&style.1))).await?).await?;
///     assert!((y[0] + 1.5).abs() < 1e-3 && (y[3] - 3.0).abs() < 1e-3);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
pub type InstanceNorm = Norm<Instance>;

/// GraphNorm (Cai, Luo, Xu, He, Liu & Wang, "GraphNorm: A Principled Approach to Accelerating Graph Neural Network Training", ICML 2021; PyTorch Geometric's `GraphNorm`): over each channel of each
/// graph of x `[nodes, C]`, with gamma, beta and alpha, what is subtracted of the mean, `[C]`:
///
/// ```text
/// o = x − alpha·mean        y = act(gamma·o / sqrt(mean(o²) + eps) + beta)
/// ```
///
/// The graphs are [`Segments`](crate::Segments) that come with x.
///
/// ```
/// use wgnorm::{Context, GraphNorm, NormOptions, Segments};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let x = context.upload(&[4, 1], &[3.0, 5.0, 1.0, 1.0]).await?;
///     let graphs = Segments::of_lengths(&context, &[2, 2]).await?;
///     let alpha = context.upload(&[1], &[0.0]).await?;
///     let layer = GraphNorm::from_parts(&context, 1, NormOptions::graph(), None, None, alpha)?;
///     let (y, saved) = layer.forward(x.in_segments(&graphs)).await?;
///     // Nothing is subtracted, so that a graph whose nodes are all alike still says something.
///     let y = context.download(&y).await?;
///     assert!((y[0] - 3.0 / 17.0_f32.sqrt()).abs() < 1e-4 && (y[2] - 1.0).abs() < 1e-4);
///     let dy = context.upload(&[4, 1], &[0.0, 0.0, 1.0, -1.0]).await?;
///     let gradients = layer.backward(x.in_segments(&graphs), &dy, &saved).await?;
///     assert_eq!(gradients.dalpha.unwrap().shape().dims(), [1]);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
pub type GraphNorm = Norm<Graph>;

/// Mean-variance normalization (ONNX `MeanVarianceNormalization`): `(x − mean) / (sqrt(var) + eps)` over any axes, without parameters. Where
/// all values are equal, y and dx are 0 (other systems give NaN for dx).
pub type MeanVarianceNorm = Norm<MeanVariance>;

/// Division by the length over any axes, `x / max(‖x‖, eps)`: PyTorch's `normalize`. Where eps has replaced the length, dx is dy / eps.
///
/// ```
/// use wgnorm::family::L2Norm;
/// use wgnorm::{Context, NormOptions};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let x = context.upload(&[1, 2, 1], &[3.0, 4.0]).await?;
///     let layer = L2Norm::new(&context, &[1], NormOptions::l2()).await?;
///     assert_eq!(context.download(&layer.infer(&x).await?).await?, [0.6, 0.8]);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
pub type L2Norm = Norm<Length>;

/// ScaleNorm (Nguyen & Salazar, "Transformers without Tears", 2019): `gamma·x / max(‖x‖, eps)` over the last axis, with one gamma `[1]` that begins
/// as the root of its length.
pub type ScaleNorm = Norm<Scale>;

/// Weight normalization (Salimans & Kingma 2016): `gamma·v / ‖v‖` for each index of the first axis of a weight `[rows, …]`, with gamma `[rows]`.
///
/// ```
/// use wgnorm::family::WeightNorm;
/// use wgnorm::Context;
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let weight = context.upload(&[2, 2], &[3.0, 4.0, 0.0, -2.0]).await?;
///     // gamma is ‖weight‖, so the weight stays what it is.
///     let layer = WeightNorm::of(&context, &weight).await?;
///     let w = context.download(&layer.infer(&weight).await?).await?;
///     assert!(w.iter().zip([3.0, 4.0, 0.0, -2.0]).all(|(w, v)| (w - v).abs() < 1e-6));
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
pub type WeightNorm = Norm<Weight>;

/// Weight standardization (Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", 2019):
/// `(w − mean) / sqrt(var + eps)` for each index of the first axis of a weight `[rows, …]`, with a gain `[rows]` if the options have a gamma.
pub type WeightStandardization = Norm<Standardization>;

/// Implements a kind; the body says what is not as everywhere.
macro_rules! kind {
    ($kind:ident, $name:literal, $scheme:expr, { $($body:tt)* }) => {
        impl Kind for $kind {}

        impl Sealed for $kind {
            fn name(&self) -> &'static str {
                $name
            }

            fn scheme(&self) -> Scheme {
                $scheme
            }

            $($body)*
        }
    };
}

impl OfPlaces for Layer {}
impl OfPlaces for Rms {}

impl From<Places> for Layer {
    fn from(places: Places) -> Self {
        Self(places)
    }
}

impl From<Places> for Rms {
    fn from(places: Places) -> Self {
        Self(places)
    }
}

kind!(Layer, "layer norm", Scheme::Deviation, {
    fn slices(&self, x: &Tensor, modulated: bool) -> Result<Slices> {
        self.0.slices(self.name(), x, modulated)
    }

    fn parameters(&self) -> Option<Shape> {
        Some(self.0.shape())
    }

    fn has_layout(&self) -> bool {
        false
    }

    fn is_of_rows(&self) -> bool {
        self.0.are_rows()
    }

    fn groups(&self) -> u64 {
        self.0.groups()
    }

    fn arrangement(&self, x: Shape) -> Option<Arrangement> {
        self.0.arrangement(x, Layer)
    }

    fn merged_in_segments(&self) -> Option<u64> {
        (self.0.are_rows() && self.0.groups() == 1 && self.0.shape().rank() == 1)
            .then(|| self.0.shape().len())
    }
});

kind!(Rms, "RMS norm", Scheme::MeanSquare, {
    fn slices(&self, x: &Tensor, modulated: bool) -> Result<Slices> {
        self.0.slices(self.name(), x, modulated)
    }

    fn parameters(&self) -> Option<Shape> {
        Some(self.0.shape())
    }

    fn has_layout(&self) -> bool {
        false
    }

    fn is_of_rows(&self) -> bool {
        self.0.are_rows()
    }

    fn groups(&self) -> u64 {
        self.0.groups()
    }

    fn arrangement(&self, x: Shape) -> Option<Arrangement> {
        self.0.arrangement(x, Rms)
    }
});

kind!(Group, "group norm", Scheme::Deviation, {
    fn slices(&self, x: &Tensor, modulated: bool) -> Result<Slices> {
        channels_of(x, self.channels, self.channels / self.groups, modulated)
    }

    fn merged_in_segments(&self) -> Option<u64> {
        Some(self.channels / self.groups)
    }

    fn parameters(&self) -> Option<Shape> {
        Some(Shape::per_channel(self.channels))
    }

    fn refuses_single_values(&self) -> bool {
        true
    }
});

kind!(Instance, "instance norm", Scheme::Deviation, {
    fn slices(&self, x: &Tensor, modulated: bool) -> Result<Slices> {
        channels_of(x, self.channels, 1, modulated)
    }

    fn merged_in_segments(&self) -> Option<u64> {
        Some(1)
    }

    fn parameters(&self) -> Option<Shape> {
        Some(Shape::per_channel(self.channels))
    }

    fn refuses_single_values(&self) -> bool {
        true
    }
});

kind!(Graph, "GraphNorm", Scheme::Deviation, {
    fn slices(&self, x: &Tensor, modulated: bool) -> Result<Slices> {
        channels_of(x, self.channels, 1, modulated)
    }

    fn merged_in_segments(&self) -> Option<u64> {
        Some(1)
    }

    fn needs_segments(&self) -> bool {
        true
    }

    fn parameters(&self) -> Option<Shape> {
        Some(Shape::per_channel(self.channels))
    }

    fn alpha(&self) -> Option<Shape> {
        Some(Shape::per_channel(self.channels))
    }
});

kind!(MeanVariance, "mean-variance norm", Scheme::DeviationPlus, {
    fn slices(&self, x: &Tensor, _: bool) -> Result<Slices> {
        self.axes.slices_of_some(x.shape())
    }

    fn arrangement(&self, x: Shape) -> Option<Arrangement> {
        self.axes.arrangement(x, |axes| Self { axes })
    }

    fn parameters(&self) -> Option<Shape> {
        None
    }

    fn has_layout(&self) -> bool {
        false
    }
});

kind!(Length, "L2 norm", Scheme::Length, {
    fn slices(&self, x: &Tensor, _: bool) -> Result<Slices> {
        self.axes.slices_of_some(x.shape())
    }

    fn arrangement(&self, x: Shape) -> Option<Arrangement> {
        self.axes.arrangement(x, |axes| Self { axes })
    }

    fn parameters(&self) -> Option<Shape> {
        None
    }

    fn has_layout(&self) -> bool {
        false
    }
});

kind!(Scale, "ScaleNorm", Scheme::Length, {
    fn slices(&self, x: &Tensor, modulated: bool) -> Result<Slices> {
        if modulated {
            let why = "it has one parameter for all";
            return Err(Error::Unsupported { layer: self.name(), what: "modulation", why });
        }
        let slices = rows_of(x, Shape::per_channel(self.places), false)?;
        Ok(Slices { parameters: Parameters::ONE, ..slices })
    }

    fn parameters(&self) -> Option<Shape> {
        Some(Shape::per_channel(1))
    }

    fn initial_gamma(&self) -> f32 {
        (self.places as f64).sqrt() as f32
    }

    fn has_layout(&self) -> bool {
        false
    }

    fn is_of_rows(&self) -> bool {
        true
    }
});

kind!(Weight, "weight norm", Scheme::Direction, {
    fn slices(&self, x: &Tensor, modulated: bool) -> Result<Slices> {
        rows_of_weight(x, self.rows, modulated.then_some(self.name()))
    }

    fn parameters(&self) -> Option<Shape> {
        Some(Shape::per_channel(self.rows))
    }

    fn has_layout(&self) -> bool {
        false
    }
});

kind!(Standardization, "weight standardization", Scheme::Deviation, {
    fn slices(&self, x: &Tensor, modulated: bool) -> Result<Slices> {
        rows_of_weight(x, self.rows, modulated.then_some(self.name()))
    }

    fn parameters(&self) -> Option<Shape> {
        Some(Shape::per_channel(self.rows))
    }

    fn has_layout(&self) -> bool {
        false
    }
});

/// Channels of each sample.
fn channels_of(x: &Tensor, channels: u64, merged: u64, modulated: bool) -> Result<Slices> {
    let view = x.channels()?;
    if view.channels != channels {
        return Err(Error::Channels { what: "x", expected: channels, got: view.channels });
    }
    Ok(Slices::channels_of_samples(view, merged, modulated))
}

/// Rows of a weight, with a parameter each; `modulated` is the layer that cannot be.
fn rows_of_weight(x: &Tensor, rows: u64, modulated: Option<&'static str>) -> Result<Slices> {
    if let Some(layer) = modulated {
        return Err(Error::Unsupported { layer, what: "modulation", why: "a weight has no samples" });
    }
    let dims = x.shape();
    if dims.dims()[0] as u64 != rows {
        return Err(Error::Channels { what: "a weight", expected: rows, got: dims.dims()[0] as u64 });
    }
    let axes: Vec<usize> = (1..dims.rank()).collect();
    let slices = match axes[..] {
        [] => Slices::rows(rows, 1, None),
        _ => Slices::rows(rows, dims.len() / rows.max(1), None),
    };
    Ok(Slices { parameters: Parameters::of_slice(rows), ..slices })
}
