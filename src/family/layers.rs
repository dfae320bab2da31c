//! How layers of each kind are made.

use super::kinds::{
    Group, GroupNorm, Instance, InstanceNorm, L2Norm, Layer, LayerNorm, Length, MeanVariance,
    MeanVarianceNorm, Rms, RmsNorm, Scale, ScaleNorm, Standardization, Trailing, Weight, WeightNorm,
    WeightStandardization,
};
use super::norm::sealed::Sealed;
use super::options::NormOptions;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::context::Context;
use crate::engine::tensor::Tensor;
use crate::pass::Affine;

/// A shape of parameters, of which there must be some.
fn some(shape: &[usize]) -> Result<Shape> {
    let shape = Shape::new(shape)?;
    if shape.len() == 0 {
        return Err(Error::Channels { what: "a layer", expected: 1, got: 0 });
    }
    Ok(shape)
}

fn without_parameters(options: NormOptions, layer: &'static str) -> Result<NormOptions> {
    match options.affine {
        Affine::None => Ok(options),
        _ => Err(Error::Unsupported { layer, what: "affine parameters", why: "its scale is that of x" }),
    }
}

impl Trailing {
    fn of(shape: &[usize], groups: usize) -> Result<Self> {
        let (shape, groups) = (some(shape)?, groups as u64);
        if groups == 0 || !shape.len().is_multiple_of(groups) {
            return Err(Error::Groups { channels: shape.len(), groups });
        }
        Ok(Self { shape, groups })
    }
}

impl LayerNorm {
    /// A layer over trailing axes of these lengths, with gamma 1 and beta 0.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Channels`] for no values, [`Error::Epsilon`], and those of an allocation.
    pub async fn new(context: &Context, normalized_shape: &[usize], options: NormOptions) -> Result<Self> {
        Self::initial(context, Layer(Trailing::of(normalized_shape, 1)?), options).await
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
        Self::existing(context, Layer(Trailing::of(normalized_shape, 1)?), options, gamma, beta)
    }

    /// A layer over trailing axes of these lengths in groups of neighbouring places, each with a mean and a variance of its own: as
    /// Mamba-2 normalizes the heads of a device (there without a mean). gamma and beta are of the normalized shape, all groups of it.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Groups`] unless they divide the number of places.
    pub async fn in_groups(
        context: &Context,
        normalized_shape: &[usize],
        groups: usize,
        options: NormOptions,
    ) -> Result<Self> {
        Self::initial(context, Layer(Trailing::of(normalized_shape, groups)?), options).await
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
        Self::existing(context, Layer(Trailing::of(normalized_shape, groups)?), options, gamma, beta)
    }
}

impl RmsNorm {
    /// A layer over trailing axes of these lengths, with a neutral gamma.
    ///
    /// # Errors
    /// As [`LayerNorm::new`].
    pub async fn new(context: &Context, normalized_shape: &[usize], options: NormOptions) -> Result<Self> {
        Self::initial(context, Rms(Trailing::of(normalized_shape, 1)?), options).await
    }

    /// A layer from existing parameters of the normalized shape.
    ///
    /// # Errors
    /// As [`LayerNorm::from_parts`].
    pub fn from_parts(
        context: &Context,
        normalized_shape: &[usize],
        options: NormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
    ) -> Result<Self> {
        Self::existing(context, Rms(Trailing::of(normalized_shape, 1)?), options, gamma, beta)
    }

    /// A layer over trailing axes of these lengths in groups of neighbouring places, each with a root of mean squares of its own: as
    /// Mamba-2 normalizes the heads of a device. gamma is of the normalized shape, all groups of it.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Groups`] unless they divide the number of places.
    pub async fn in_groups(
        context: &Context,
        normalized_shape: &[usize],
        groups: usize,
        options: NormOptions,
    ) -> Result<Self> {
        Self::initial(context, Rms(Trailing::of(normalized_shape, groups)?), options).await
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
        Self::existing(context, Rms(Trailing::of(normalized_shape, groups)?), options, gamma, beta)
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

impl MeanVarianceNorm {
    /// A norm over these axes, in ascending order. ONNX's default for x `[N, C, H, W]` is `[0, 2, 3]`.
    ///
    /// # Errors
    /// [`Error::Epsilon`], [`Error::Unsupported`] for affine parameters. Axes are checked with the shape of x ([`Error::Axes`]).
    pub async fn new(context: &Context, axes: &[usize], options: NormOptions) -> Result<Self> {
        let kind = MeanVariance { axes: axes.to_vec() };
        let options = without_parameters(options, kind.name())?;
        Self::initial(context, kind, options).await
    }
}

impl L2Norm {
    /// A norm over these axes, in ascending order; PyTorch's default is `[1]`.
    ///
    /// # Errors
    /// As [`MeanVarianceNorm::new`].
    pub async fn new(context: &Context, axes: &[usize], options: NormOptions) -> Result<Self> {
        let kind = Length { axes: axes.to_vec() };
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
    /// As [`LayerNorm::from_parts`].
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
    /// As [`LayerNorm::from_parts`].
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
    /// As [`LayerNorm::from_parts`].
    pub fn from_parts(
        context: &Context,
        rows: usize,
        options: NormOptions,
        gain: Option<Tensor>,
    ) -> Result<Self> {
        Self::existing(context, Standardization { rows: some(&[rows])?.len() }, options, gain, None)
    }
}
