//! How layers of each kind are made.

use super::axes::Axes;
use super::kinds::{
    Graph, GraphNorm, Group, GroupNorm, Instance, InstanceNorm, L2Norm, Length, MeanVariance,
    MeanVarianceNorm, Scale, ScaleNorm, Standardization, Weight, WeightNorm, WeightStandardization,
};
use super::norm::Norm;
use super::norm::sealed::Sealed;
use super::options::NormOptions;
use super::places::{OfPlaces, Places, some};
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::context::Context;
use crate::engine::tensor::Tensor;
use crate::pass::Affine;
use crate::pass::parameters::Owned;

fn without_parameters(options: NormOptions, layer: &'static str) -> Result<NormOptions> {
    match options.affine {
        Affine::None => Ok(options),
        _ => Err(Error::Unsupported { layer, what: "affine parameters", why: "its scale is that of x" }),
    }
}

/// Layer and RMS norm.
impl<K: OfPlaces> Norm<K> {
    /// A layer over trailing axes of these lengths, with a neutral gamma and, if there is one, a beta of 0.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Channels`] for no values, [`Error::Epsilon`], and those of an allocation.
    pub async fn new(context: &Context, normalized_shape: &[usize], options: NormOptions) -> Result<Self> {
        Self::initial(context, K::from(Places::trailing(normalized_shape, 1)?), options).await
    }

    /// A layer from existing parameters of the normalized shape; which it has follows from those that are given.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Channels`], [`Error::Shape`], [`Error::DType`], [`Error::ForeignDevice`], [`Error::Epsilon`].
    pub fn from_parts(
        context: &Context,
        normalized_shape: &[usize],
        options: NormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
    ) -> Result<Self> {
        Self::existing(context, K::from(Places::trailing(normalized_shape, 1)?), options, gamma, beta)
    }

    /// A layer over any axes of x, of these lengths in the same order, with a neutral gamma and perhaps a beta of 0: `[1]` and `[C]` for the channels of each position of `[N, C, H, W]`, as ConvNeXt
    /// normalizes them. Parameters have the lengths for their shape, in the order in which the axes are named, as WebNN and Keras have them; of no axes, `&[]`, each value is a slice, and
    /// parameters are `[1]`: of layer norm x̂ is 0, and y beta.
    ///
    /// Where at most two of its strides tell a slice, it is walked as it lies; else x and y go through copies whose last axes these are, and parameters in another order than that of
    /// x through copies of theirs. [`Plan::reasons`](crate::tuning::Plan::reasons) says so. x must be contiguous.
    ///
    /// ```
    /// use wgnorm::{Context, LayerNorm, NormOptions};
    /// let context = Context::headless_blocking()?;
    /// context.block_on(async {
    ///     // Two channels of three positions.
    ///     let x = context.upload(&[1, 2, 3], &[1.0, 5.0, 0.0, 3.0, 7.0, 0.0]).await?;
    ///     let layer = LayerNorm::over(&context, &[1], &[2], NormOptions::layer()).await?;
    ///     let y = context.download(&layer.infer(&x).await?).await?;
    ///     assert!(y.iter().zip([-1.0, -1.0, 0.0, 1.0, 1.0, 0.0]).all(|(y, wanted)| (y - wanted).abs() < 1e-4));
    ///     Ok::<(), wgnorm::Error>(())
    /// })?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::Rank`] unless there is a length for each axis. Axes are checked with the shape of x ([`Error::Axes`]).
    pub async fn over(
        context: &Context,
        axes: &[usize],
        lengths: &[usize],
        options: NormOptions,
    ) -> Result<Self> {
        Self::initial(context, K::from(Places::over(axes, lengths)?), options).await
    }

    /// As [`over`](Self::over), from existing parameters.
    ///
    /// # Errors
    /// As [`from_parts`](Self::from_parts) and [`over`](Self::over).
    pub fn over_from_parts(
        context: &Context,
        axes: &[usize],
        lengths: &[usize],
        options: NormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
    ) -> Result<Self> {
        Self::existing(context, K::from(Places::over(axes, lengths)?), options, gamma, beta)
    }

    /// A layer over trailing axes of these lengths in groups of neighbouring places, each with statistics of its own: as
    /// Mamba-2 normalizes the heads of a device by RMS norm. gamma and beta are of the normalized shape, all groups of it.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Groups`] unless they divide the number of places.
    pub async fn in_groups(
        context: &Context,
        normalized_shape: &[usize],
        groups: usize,
        options: NormOptions,
    ) -> Result<Self> {
        Self::initial(context, K::from(Places::trailing(normalized_shape, groups)?), options).await
    }

    /// As [`in_groups`](Self::in_groups), from existing parameters.
    ///
    /// # Errors
    /// As [`from_parts`](Self::from_parts), and [`Error::Groups`].
    pub fn in_groups_from_parts(
        context: &Context,
        normalized_shape: &[usize],
        groups: usize,
        options: NormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
    ) -> Result<Self> {
        Self::existing(context, K::from(Places::trailing(normalized_shape, groups)?), options, gamma, beta)
    }
}

impl Group {
    fn new(groups: usize, channels: usize) -> Result<Self> {
        if channels == 0 {
            return Err(Error::Channels { what: "a layer", expected: 1, got: 0 });
        }
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::Groups { channels: channels as u64, groups: groups as u64 });
        }
        Ok(Self { groups: groups as u64, channels: channels as u64 })
    }
}

impl GroupNorm {
    /// A layer for `channels` channels in `groups` groups, with gamma 1 and beta 0.
    ///
    /// # Errors
    /// [`Error::Channels`] for no channels, [`Error::Groups`], [`Error::Epsilon`], and those of an allocation.
    pub async fn new(
        context: &Context,
        groups: usize,
        channels: usize,
        options: NormOptions,
    ) -> Result<Self> {
        Self::initial(context, Group::new(groups, channels)?, options).await
    }

    /// A layer from existing parameters `[C]`.
    ///
    /// # Errors
    /// [`Error::Channels`], [`Error::Groups`], [`Error::Shape`], [`Error::DType`], [`Error::ForeignDevice`], [`Error::Epsilon`].
    pub fn from_parts(
        context: &Context,
        groups: usize,
        channels: usize,
        options: NormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
    ) -> Result<Self> {
        Self::existing(context, Group::new(groups, channels)?, options, gamma, beta)
    }
}

impl InstanceNorm {
    /// A layer for `channels` channels; where the options have affine parameters, gamma is 1 and beta 0.
    ///
    /// # Errors
    /// [`Error::Channels`] for no channels, [`Error::Epsilon`], and those of an allocation.
    pub async fn new(context: &Context, channels: usize, options: NormOptions) -> Result<Self> {
        Self::initial(context, Instance { channels: some(&[channels])?.len() }, options).await
    }

    /// A layer from existing parameters `[C]`.
    ///
    /// # Errors
    /// [`Error::Channels`], [`Error::Shape`], [`Error::DType`], [`Error::ForeignDevice`], [`Error::Epsilon`].
    pub fn from_parts(
        context: &Context,
        channels: usize,
        options: NormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
    ) -> Result<Self> {
        Self::existing(context, Instance { channels: some(&[channels])?.len() }, options, gamma, beta)
    }
}

impl GraphNorm {
    /// A layer for `channels` channels with an alpha of 1; where the options have affine parameters, gamma is 1 and beta 0.
    ///
    /// # Errors
    /// [`Error::Channels`] for no channels, [`Error::Epsilon`], and those of an allocation.
    pub async fn new(context: &Context, channels: usize, options: NormOptions) -> Result<Self> {
        let kind = Graph { channels: some(&[channels])?.len() };
        options.check()?;
        let shape = Shape::per_channel(kind.channels);
        let gamma = if options.unit_offset { 0.0 } else { 1.0 };
        let parameters = Owned::affine(context, options.affine, shape, gamma).await?;
        let alpha = Owned::affine(context, Affine::Weight, shape, 1.0).await?.gamma;
        Self::with(context, kind, options, Owned { alpha, ..parameters })
    }

    /// A layer from existing parameters `[C]`.
    ///
    /// # Errors
    /// [`Error::Channels`], [`Error::Shape`], [`Error::DType`], [`Error::ForeignDevice`], [`Error::Epsilon`].
    pub fn from_parts(
        context: &Context,
        channels: usize,
        options: NormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
        alpha: Tensor,
    ) -> Result<Self> {
        let parameters = Owned { gamma, beta, alpha: Some(alpha), ..Owned::default() };
        Self::with(context, Graph { channels: some(&[channels])?.len() }, options, parameters)
    }
}

impl MeanVarianceNorm {
    /// A norm over these axes. ONNX's default for x `[N, C, H, W]` is `[0, 2, 3]`.
    ///
    /// # Errors
    /// [`Error::Epsilon`], [`Error::Unsupported`] for affine parameters. Axes are checked with the shape of x ([`Error::Axes`]).
    pub async fn new(context: &Context, axes: &[usize], options: NormOptions) -> Result<Self> {
        let kind = MeanVariance { axes: Axes::new(axes)? };
        let options = without_parameters(options, kind.name())?;
        Self::initial(context, kind, options).await
    }
}

impl L2Norm {
    /// A norm over these axes; PyTorch's default is `[1]`.
    ///
    /// # Errors
    /// As [`MeanVarianceNorm::new`].
    pub async fn new(context: &Context, axes: &[usize], options: NormOptions) -> Result<Self> {
        let kind = Length { axes: Axes::new(axes)? };
        let options = without_parameters(options, kind.name())?;
        Self::initial(context, kind, options).await
    }
}

impl ScaleNorm {
    /// A layer over a last axis of this length.
    ///
    /// # Errors
    /// [`Error::Channels`] for no values, [`Error::Epsilon`], and those of an allocation.
    pub async fn new(context: &Context, places: usize, options: NormOptions) -> Result<Self> {
        Self::initial(context, Scale { places: some(&[places])?.len() }, options).await
    }

    /// A layer from an existing gamma `[1]`, and perhaps a beta.
    ///
    /// # Errors
    /// As [`LayerNorm::from_parts`](crate::LayerNorm::from_parts).
    pub fn from_parts(
        context: &Context,
        places: usize,
        options: NormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
    ) -> Result<Self> {
        Self::existing(context, Scale { places: some(&[places])?.len() }, options, gamma, beta)
    }
}

impl WeightNorm {
    /// A layer for a weight with so many rows, from an existing gamma `[rows]`.
    ///
    /// # Errors
    /// As [`LayerNorm::from_parts`](crate::LayerNorm::from_parts).
    pub fn from_parts(
        context: &Context,
        rows: usize,
        options: NormOptions,
        gamma: Option<Tensor>,
    ) -> Result<Self> {
        Self::existing(context, Weight { rows: some(&[rows])?.len() }, options, gamma, None)
    }

    /// A layer that leaves this weight `[rows, …]` as it is: gamma is the length of each row.
    ///
    /// # Errors
    /// Those of a forward pass over the weight, of a download and an allocation.
    pub async fn of(context: &Context, weight: &Tensor) -> Result<Self> {
        let rows = weight.shape().dims()[0];
        let plain = Self::from_parts(context, rows, NormOptions::weight(), None)?;
        let (_, saved) = plain.forward(weight).await?;
        let gamma = context.upload(&[rows], &saved.lengths(context).await?).await?;
        Self::from_parts(context, rows, NormOptions::weight(), Some(gamma))
    }
}

impl WeightStandardization {
    /// A layer for a weight with so many rows; a gain begins as 1.
    ///
    /// # Errors
    /// [`Error::Channels`] for no rows, [`Error::Epsilon`], and those of an allocation.
    pub async fn new(context: &Context, rows: usize, options: NormOptions) -> Result<Self> {
        Self::initial(context, Standardization { rows: some(&[rows])?.len() }, options).await
    }

    /// A layer from an existing gain `[rows]`.
    ///
    /// # Errors
    /// As [`LayerNorm::from_parts`](crate::LayerNorm::from_parts).
    pub fn from_parts(
        context: &Context,
        rows: usize,
        options: NormOptions,
        gain: Option<Tensor>,
    ) -> Result<Self> {
        Self::existing(context, Standardization { rows: some(&[rows])?.len() }, options, gain, None)
    }
}
