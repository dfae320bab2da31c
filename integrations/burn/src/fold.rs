//! A frozen batch norm in the weights of the convolution or linear layer beside it, so that inference has one layer less.

use burn::module::Param;
use burn::nn::conv::{Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d};
use burn::nn::{Linear, PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};
use burn::tensor::Tensor;
use wgnorm::Activation;
use wgnorm::absorb::{Absorbed, Border, InferenceNorm, WeightLayout, Weights};

use crate::BatchNorm;
use crate::batch_norm::synchronised;
use crate::error::Error;

mod sealed {
    pub trait Sealed {}
}

/// burn's layers with weights that can take in a batch norm after them: linear, and convolutions of every rank, transposed too.
pub trait Preceding: sealed::Sealed + Clone {
    #[doc(hidden)]
    fn absorb(&self, norm: &Values, border: Option<Border>) -> Result<Self, Error>;
}

/// Those that can take in one before them: linear, and convolutions.
pub trait Following: Preceding {
    #[doc(hidden)]
    fn border(&self) -> Border;
}

/// A batch norm for inference, on the host.
#[doc(hidden)]
pub struct Values {
    mean: Vec<f32>,
    var: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    epsilon: f64,
}

impl BatchNorm {
    /// The layer before this one with this one in its weights: `norm(layer(x))` in one. Exact for every stride, padding and grouping (after a linear layer, of `[N, C]`); computed in float64,
    /// rounded once. Reads parameters back.
    ///
    /// ```no_run
    /// # use burn::{nn::conv::Conv2d, tensor::Tensor};
    /// # use wgnorm_burn::BatchNorm;
    /// # fn example(conv: Conv2d, norm: BatchNorm, x: Tensor<4>) -> Result<Tensor<4>, wgnorm_burn::Error> {
    /// let conv = norm.fold_into_preceding(&conv)?;
    /// let y = conv.forward(x);
    /// # Ok(y)
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Activation`] if this layer has one, which a convolution has not; [`Error::Wgnorm`] unless outputs are this layer's channels, and for
    /// values that are not finite.
    pub fn fold_into_preceding<L: Preceding>(&self, layer: &L) -> Result<L, Error> {
        layer.absorb(&self.values()?, None)
    }

    /// The layer after this one with this one in its weights: `layer(norm(x))` in one. Exact where zeros are not padded (before a linear layer, of `[N, C]`); where they are, it is
    /// refused unless the norm's shift is 0.
    ///
    /// # Errors
    /// [`Error::Wgnorm`] with [`wgnorm::Error::InexactFolding`] where it would not be exact; else as [`fold_into_preceding`](Self::fold_into_preceding).
    pub fn fold_into_following<L: Following>(&self, layer: &L) -> Result<L, Error> {
        layer.absorb(&self.values()?, Some(layer.border()))
    }

    fn values(&self) -> Result<Values, Error> {
        if self.activation != Activation::None {
            return Err(Error::Activation(self.activation.name()));
        }
        let [gamma, beta] = [&self.gamma, &self.beta].map(|parameter| host(parameter.val()));
        let [mean, var] = [&self.running_mean, &self.running_var].map(|state| host(synchronised(state)));
        Ok(Values { mean, var, gamma, beta, epsilon: self.epsilon })
    }
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Weight and bias with a norm in them, where and of what type they were.
fn absorb<const D: usize>(
    (weight, bias): (&Param<Tensor<D>>, &Option<Param<Tensor<1>>>),
    layout: WeightLayout,
    norm: &Values,
    border: Option<Border>,
) -> Result<(Param<Tensor<D>>, Option<Param<Tensor<1>>>), Error> {
    let Values { mean, var, gamma, beta, epsilon } = norm;
    let norm = InferenceNorm { mean, var, gamma: Some(gamma), beta: Some(beta), eps: *epsilon };
    let (values, dims) = (host(weight.val()), weight.dims());
    let old = bias.as_ref().map(|bias| host(bias.val()));
    let weights = Weights { values: &values, dims: &dims, layout, bias: old.as_deref() };
    let Absorbed { weight: values, bias: shift, .. } = match border {
        None => norm.absorb_into_preceding(&weights),
        Some(border) => norm.absorb_into_following(&weights, border),
    }?;
    let (device, dtype) = (weight.val().device(), weight.val().dtype());
    let upload = |values: Vec<f32>| Tensor::<1>::from_data(values.as_slice(), (&device, dtype));
    // As they were, but for their values: what an optimizer and a record know of them.
    let new_weight =
        weight.clone().map(|old| upload(values).reshape(dims).set_require_grad(old.is_require_grad()));
    let new_bias = match bias {
        Some(bias) => bias.clone().map(|old| upload(shift).set_require_grad(old.is_require_grad())),
        None => Param::from_tensor(upload(shift)),
    };
    Ok((new_weight, Some(new_bias)))
}

macro_rules! preceding {
    ($($layer:ident: |$of:ident| $layout:expr;)*) => {$(
        impl sealed::Sealed for $layer {}

        impl Preceding for $layer {
            fn absorb(&self, norm: &Values, border: Option<Border>) -> Result<Self, Error> {
                let $of = self;
                let mut folded = self.clone();
                (folded.weight, folded.bias) = absorb((&self.weight, &self.bias), $layout, norm, border)?;
                Ok(folded)
            }
        }
    )*};
}

preceding! {
    Linear: |_layer| WeightLayout::OutputLast { groups: 1 };
    Conv1d: |layer| WeightLayout::OutputFirst { groups: layer.groups };
    Conv2d: |layer| WeightLayout::OutputFirst { groups: layer.groups };
    Conv3d: |layer| WeightLayout::OutputFirst { groups: layer.groups };
    ConvTranspose1d: |layer| WeightLayout::InputFirst { groups: layer.groups };
    ConvTranspose2d: |layer| WeightLayout::InputFirst { groups: layer.groups };
    ConvTranspose3d: |layer| WeightLayout::InputFirst { groups: layer.groups };
}

impl Following for Linear {
    fn border(&self) -> Border {
        Border::Unpadded
    }
}

macro_rules! following {
    ($($layer:ident: $unpadded:pat,)*) => {$(
        impl Following for $layer {
            fn border(&self) -> Border {
                if matches!(self.padding, $unpadded) { Border::Unpadded } else { Border::Zeros }
            }
        }
    )*};
}

following! {
    Conv1d: PaddingConfig1d::Valid | PaddingConfig1d::Explicit(0, 0),
    Conv2d: PaddingConfig2d::Valid | PaddingConfig2d::Explicit(0, 0, 0, 0),
    Conv3d: PaddingConfig3d::Valid | PaddingConfig3d::Explicit(0, 0, 0),
}
