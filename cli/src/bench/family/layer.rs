//! A norm as the benchmark sees it: its options, parameters, index maps and scheme, and the layer itself, whose kind is
//! not known where it is timed.

use wgnorm::reference::family::{Maps, Scheme};
use wgnorm::{
    Affine, Context, DType, GradientTargets, GroupNorm, Input, InstanceNorm, Kind, L2Norm, LayerNorm, Layout,
    MeanVarianceNorm, Norm as Layer, NormOptions, Prepared, Result, RmsNorm, SavedSlices, ScaleNorm, Tensor,
    WeightNorm, WeightStandardization,
};

use crate::bench::norm::{Norm, NormName};
use crate::bench::variant::Variant;

/// PyTorch's options, with every parameter that the norm can have.
pub fn options(norm: Norm, variant: Variant) -> NormOptions {
    let options = match norm.name {
        NormName::Batch | NormName::DynamicTanh | NormName::Derf => unreachable!("not of the family"),
        NormName::Layer => NormOptions::layer(),
        NormName::Rms => NormOptions::rms(),
        NormName::Group => NormOptions::group(),
        NormName::Instance => NormOptions::instance().affine(Affine::Both),
        NormName::MeanVariance => NormOptions::mean_variance(),
        NormName::L2 => NormOptions::l2(),
        NormName::Scale => NormOptions::scale(),
        NormName::Weight => NormOptions::weight(),
        NormName::Standardization => NormOptions::standardization().affine(Affine::Weight),
    };
    options.activation(variant.activation)
}

/// What is made of a slice.
pub fn scheme(norm: Norm, dtype: DType) -> Scheme {
    let eps = options(norm, Variant::default()).eps.value(dtype);
    let eps = f64::from(eps as f32);
    match norm.name {
        NormName::Rms => Scheme::rms(eps),
        NormName::MeanVariance => Scheme::deviation(eps),
        NormName::L2 | NormName::Scale | NormName::Weight => Scheme::length(eps),
        _ => Scheme::standard(eps),
    }
}

/// Which elements share a statistic, and which a parameter; in logical order.
pub fn maps(norm: Norm, dims: &[usize]) -> Maps {
    match norm.name {
        NormName::Group => Maps::group(dims, Layout::ChannelsFirst, norm.groups.unwrap_or(1)),
        NormName::Instance => Maps::instance(dims, Layout::ChannelsFirst),
        NormName::MeanVariance | NormName::L2 => Maps::axes(dims, &axes(norm, dims)),
        NormName::Scale => Maps::scalar(dims, 1),
        NormName::Weight | NormName::Standardization => Maps::rows(dims, dims.len() - 1),
        _ => Maps::layer(dims, 1),
    }
}

/// The shape of gamma and beta.
pub fn parameter_dims(norm: Norm, dims: &[usize]) -> [usize; 1] {
    match norm.name {
        NormName::Group | NormName::Instance => [dims[1]],
        NormName::Weight | NormName::Standardization => [dims[0]],
        NormName::Layer | NormName::Rms => [dims[dims.len() - 1]],
        _ => [1],
    }
}

/// The axes that are reduced where they can be chosen: ONNX's default, and PyTorch's.
fn axes(norm: Norm, dims: &[usize]) -> Vec<usize> {
    let second = norm.name == NormName::L2;
    (0..dims.len()).filter(|&axis| (axis == 1) == second).collect()
}

/// A layer of any kind.
pub trait AnyLayer {
    fn room_for(&self, context: &Context, x: &Tensor) -> Result<SavedSlices>;

    /// y; `addend` with where the sum goes.
    fn prepare_forward(
        &self,
        context: &Context,
        input: Input<'_>,
        addend: Option<(&Tensor, &Tensor)>,
        y: &Tensor,
        saved: Option<&SavedSlices>,
    ) -> Result<Prepared>;

    /// The gradients; with `d_sum`, x is the sum.
    fn prepare_backward(
        &self,
        context: &Context,
        input: Input<'_>,
        dy: &Tensor,
        d_sum: Option<&Tensor>,
        saved: &SavedSlices,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared>;
}

impl<K: Kind> AnyLayer for Layer<K> {
    fn room_for(&self, context: &Context, x: &Tensor) -> Result<SavedSlices> {
        context.block_on(self.room_for(x))
    }

    fn prepare_forward(
        &self,
        context: &Context,
        input: Input<'_>,
        addend: Option<(&Tensor, &Tensor)>,
        y: &Tensor,
        saved: Option<&SavedSlices>,
    ) -> Result<Prepared> {
        match addend {
            Some((addend, sum)) => {
                context.block_on(self.prepare_forward_of_sum(input, addend, sum, y, saved))
            }
            None => context.block_on(self.prepare_forward(input, y, saved)),
        }
    }

    fn prepare_backward(
        &self,
        context: &Context,
        input: Input<'_>,
        dy: &Tensor,
        d_sum: Option<&Tensor>,
        saved: &SavedSlices,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        match d_sum {
            Some(d_sum) => context.block_on(self.prepare_backward_of_sum(input, dy, d_sum, saved, targets)),
            None => context.block_on(self.prepare_backward(input, dy, saved, targets)),
        }
    }
}

/// The layer of a norm for a shape.
pub fn layer(
    context: &Context,
    norm: Norm,
    dims: &[usize],
    options: NormOptions,
    gamma: Option<Tensor>,
    beta: Option<Tensor>,
) -> Result<Box<dyn AnyLayer>> {
    let own = parameter_dims(norm, dims);
    let [parameters] = own;
    Ok(match norm.name {
        NormName::Batch | NormName::DynamicTanh | NormName::Derf => unreachable!("not of the family"),
        NormName::Layer => Box::new(LayerNorm::from_parts(context, &own, options, gamma, beta)?),
        NormName::Rms => Box::new(RmsNorm::from_parts(context, &own, options, gamma, beta)?),
        NormName::Group => {
            let groups = norm.groups.unwrap_or(1);
            Box::new(GroupNorm::from_parts(context, groups, parameters, options, gamma, beta)?)
        }
        NormName::Instance => Box::new(InstanceNorm::from_parts(context, parameters, options, gamma, beta)?),
        NormName::MeanVariance => {
            Box::new(context.block_on(MeanVarianceNorm::new(context, &axes(norm, dims), options))?)
        }
        NormName::L2 => Box::new(context.block_on(L2Norm::new(context, &axes(norm, dims), options))?),
        NormName::Scale => {
            Box::new(ScaleNorm::from_parts(context, dims[dims.len() - 1], options, gamma, beta)?)
        }
        NormName::Weight => Box::new(WeightNorm::from_parts(context, parameters, options, gamma)?),
        NormName::Standardization => {
            Box::new(WeightStandardization::from_parts(context, parameters, options, gamma)?)
        }
    })
}
