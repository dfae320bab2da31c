//! burn's layer, RMS, group and instance norm on wgnorm's kernels.

use burn::backend::Dispatch;
use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::nn;
use burn::tensor::{DType, Device, Tensor};

use crate::device::is_shared;
use crate::fallback::fall_back;
use crate::ops::NormOps;
use crate::problem::{Norm, Problem};

/// y and what forward saved, by the kernels; nothing where burn's own operations must do it.
pub(crate) fn normalized<const D: usize>(
    layer: &str,
    x: Tensor<D>,
    fits: bool,
    parameters: [Option<Tensor<1>>; 2],
    statistics: Option<Tensor<2>>,
    problem: Problem,
) -> Option<(Tensor<D>, Tensor<2>)> {
    let types = parameters.iter().flatten().map(|parameter| parameter.dtype()).chain([x.dtype()]);
    let reason = match () {
        // What does not fit is told as burn tells it.
        () if !fits => Some("of the shape of x".to_owned()),
        () if !is_shared(&x.device()) => Some(format!("{:?} is not shared (wgnorm_burn::init)", x.device())),
        () => types
            .filter(|dtype| *dtype != DType::F32)
            .map(|dtype| format!("it is of {dtype:?}, expected F32"))
            .next(),
    };
    if let Some(reason) = reason {
        fall_back(layer, &reason);
        return None;
    }
    // What there is none of, another stands in the place of.
    let [gamma, beta] = parameters;
    let absent = || Tensor::<1>::zeros([1], &x.device());
    let (gamma, beta) = match (gamma, beta) {
        (Some(gamma), Some(beta)) => (gamma, beta),
        (Some(gamma), None) => (gamma, absent()),
        (None, Some(beta)) => (absent(), beta),
        (None, None) => (absent(), absent()),
    };
    let statistics = match statistics {
        Some(statistics) => statistics.into_dispatch(),
        None => gamma.clone().detach().into_dispatch(),
    };
    let (y, saved) = Dispatch::wgnorm_forward(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        statistics,
        problem,
    );
    Some((Tensor::from_dispatch(y), Tensor::from_dispatch(saved)))
}

/// Configuration of a [`LayerNorm`]: that of burn's.
#[derive(Config, Debug)]
pub struct LayerNormConfig {
    /// Length of the last axis.
    pub d_model: usize,
    /// What is added to the variance. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Whether there is a beta. Default: true
    #[config(default = true)]
    pub bias: bool,
}

/// Layer normalization of the last axis (Ba, Kiros & Hinton 2016): burn's layer, with its fields.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct LayerNorm {
    /// Weight.
    pub gamma: Param<Tensor<1>>,
    /// Bias, if there is one.
    pub beta: Option<Param<Tensor<1>>>,
    /// What is added to the variance.
    pub epsilon: f64,
}

impl LayerNormConfig {
    /// A layer with gamma 1 and beta 0.
    pub fn init(&self, device: &Device) -> LayerNorm {
        let nn::LayerNorm { gamma, beta, .. } = nn::LayerNormConfig::new(self.d_model)
            .with_epsilon(self.epsilon)
            .with_bias(self.bias)
            .init(device);
        LayerNorm { gamma, beta, epsilon: self.epsilon }
    }
}

impl LayerNorm {
    /// burn's layer with the same parameters, which are shared. (Its epsilon cannot be read, so the other way is [`LayerNorm::with`].)
    pub fn to_burn(&self) -> nn::LayerNorm {
        let [d_model] = self.gamma.dims();
        let config =
            nn::LayerNormConfig::new(d_model).with_epsilon(self.epsilon).with_bias(self.beta.is_some());
        let mut layer = config.init(&self.gamma.val().device());
        (layer.gamma, layer.beta) = (self.gamma.clone(), self.beta.clone());
        layer
    }

    /// The layer with the parameters of burn's, and its epsilon, which burn keeps to itself.
    pub fn with(layer: nn::LayerNorm, epsilon: f64) -> Self {
        let nn::LayerNorm { gamma, beta, .. } = layer;
        Self { gamma, beta, epsilon }
    }

    /// y of `[…, d_model]`.
    ///
    /// # Panics
    /// As burn's: unless the last axis is `d_model`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let problem =
            Problem { norm: Norm::Layer, epsilon: self.epsilon, affine: [true, self.beta.is_some()] };
        let parameters = [Some(self.gamma.val()), self.beta.as_ref().map(|beta| beta.val())];
        let fits = fits_last(&input, &self.gamma);
        match normalized("LayerNorm", input.clone(), fits, parameters, None, problem) {
            Some((y, _)) => y,
            None => self.to_burn().forward(input),
        }
    }
}

/// Configuration of a [`RmsNorm`]: that of burn's.
#[derive(Config, Debug)]
pub struct RmsNormConfig {
    /// Length of the last axis.
    pub d_model: usize,
    /// What is added to the mean square. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

/// Root mean square normalization of the last axis (Zhang & Sennrich 2019): burn's layer, with its fields.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct RmsNorm {
    /// Weight.
    pub gamma: Param<Tensor<1>>,
    /// What is added to the mean square.
    pub epsilon: f64,
}

impl RmsNormConfig {
    /// A layer with gamma 1.
    ///
    /// # Panics
    /// As burn's: for an epsilon that is not positive.
    pub fn init(&self, device: &Device) -> RmsNorm {
        nn::RmsNormConfig::new(self.d_model).with_epsilon(self.epsilon).init(device).into()
    }
}

impl RmsNorm {
    /// y of `[…, d_model]`.
    ///
    /// # Panics
    /// As burn's: unless the last axis is `d_model`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let problem = Problem { norm: Norm::Rms, epsilon: self.epsilon, affine: [true, false] };
        let fits = fits_last(&input, &self.gamma);
        match normalized("RmsNorm", input.clone(), fits, [Some(self.gamma.val()), None], None, problem) {
            Some((y, _)) => y,
            None => nn::RmsNorm::from(self.clone()).forward(input),
        }
    }
}

/// Configuration of a [`GroupNorm`]: that of burn's.
#[derive(Config, Debug)]
pub struct GroupNormConfig {
    /// Number of groups.
    pub num_groups: usize,
    /// Number of channels.
    pub num_channels: usize,
    /// What is added to the variance. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Whether there are gamma and beta. Default: true
    #[config(default = true)]
    pub affine: bool,
}

/// Group normalization of `[N, C, …]` (Wu & He 2018): burn's layer, with its fields.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct GroupNorm {
    /// Weight, if there is one.
    pub gamma: Option<Param<Tensor<1>>>,
    /// Bias, if there is one.
    pub beta: Option<Param<Tensor<1>>>,
    /// Number of groups.
    pub num_groups: usize,
    /// Number of channels.
    pub num_channels: usize,
    /// What is added to the variance.
    pub epsilon: f64,
    /// Whether there are gamma and beta.
    pub affine: bool,
}

impl GroupNormConfig {
    /// A layer with gamma 1 and beta 0.
    ///
    /// # Panics
    /// As burn's: unless groups divide channels.
    pub fn init(&self, device: &Device) -> GroupNorm {
        let config = nn::GroupNormConfig::new(self.num_groups, self.num_channels);
        config.with_epsilon(self.epsilon).with_affine(self.affine).init(device).into()
    }
}

impl GroupNorm {
    /// y of `[N, C, …]`.
    ///
    /// # Panics
    /// As burn's: unless the second axis is that of the channels.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let norm = Norm::Group(self.num_groups);
        let fits = fits_channels(&input, self.num_channels);
        match grouped("GroupNorm", input.clone(), fits, [&self.gamma, &self.beta], norm, self.epsilon) {
            Some(y) => y,
            None => nn::GroupNorm::from(self.clone()).forward(input),
        }
    }
}

/// Configuration of an [`InstanceNorm`]: that of burn's.
#[derive(Config, Debug)]
pub struct InstanceNormConfig {
    /// Number of channels.
    pub num_channels: usize,
    /// What is added to the variance. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Whether there are gamma and beta. Default: true
    #[config(default = true)]
    pub affine: bool,
}

/// Instance normalization of `[N, C, …]` (Ulyanov, Vedaldi & Lempitsky 2016): burn's layer, with its fields.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct InstanceNorm {
    /// Weight, if there is one.
    pub gamma: Option<Param<Tensor<1>>>,
    /// Bias, if there is one.
    pub beta: Option<Param<Tensor<1>>>,
    /// Number of channels.
    pub num_channels: usize,
    /// What is added to the variance.
    pub epsilon: f64,
    /// Whether there are gamma and beta.
    pub affine: bool,
}

impl InstanceNormConfig {
    /// A layer with gamma 1 and beta 0.
    pub fn init(&self, device: &Device) -> InstanceNorm {
        let config = nn::InstanceNormConfig::new(self.num_channels);
        config.with_epsilon(self.epsilon).with_affine(self.affine).init(device).into()
    }
}

impl InstanceNorm {
    /// y of `[N, C, …]`.
    ///
    /// # Panics
    /// As burn's: unless the second axis is that of the channels.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        // A group of each channel.
        let norm = Norm::Group(self.num_channels);
        let fits = fits_channels(&input, self.num_channels);
        match grouped("InstanceNorm", input.clone(), fits, [&self.gamma, &self.beta], norm, self.epsilon) {
            Some(y) => y,
            None => nn::InstanceNorm::from(self.clone()).forward(input),
        }
    }
}

fn grouped<const D: usize>(
    layer: &str,
    x: Tensor<D>,
    fits: bool,
    parameters: [&Option<Param<Tensor<1>>>; 2],
    norm: Norm,
    epsilon: f64,
) -> Option<Tensor<D>> {
    let parameters = parameters.map(|of| of.as_ref().map(|parameter| parameter.val()));
    let affine = [parameters[0].is_some(), parameters[1].is_some()];
    normalized(layer, x, fits, parameters, None, Problem { norm, epsilon, affine }).map(|(y, _)| y)
}

fn fits_last<const D: usize>(x: &Tensor<D>, gamma: &Param<Tensor<1>>) -> bool {
    let dims = x.dims();
    dims.iter().all(|&length| length > 0) && dims[D - 1] == gamma.dims()[0]
}

fn fits_channels<const D: usize>(x: &Tensor<D>, channels: usize) -> bool {
    let dims = x.dims();
    D >= 2 && dims.iter().all(|&length| length > 0) && dims[1] == channels
}

/// Layers that are burn's to the field: one becomes the other, parameters shared.
macro_rules! burns {
    ($($layer:ident: $($field:ident),*;)*) => {$(
        /// The same layer: parameters are shared.
        impl From<nn::$layer> for $layer {
            fn from(nn::$layer { $($field),* }: nn::$layer) -> Self {
                Self { $($field),* }
            }
        }

        /// The same layer of burn's.
        impl From<$layer> for nn::$layer {
            fn from($layer { $($field),* }: $layer) -> Self {
                Self { $($field),* }
            }
        }
    )*};
}

burns! {
    RmsNorm: gamma, epsilon;
    GroupNorm: gamma, beta, num_groups, num_channels, epsilon, affine;
    InstanceNorm: gamma, beta, num_channels, epsilon, affine;
}

/// What burn's layers show of themselves.
macro_rules! displayed {
    ($($layer:ident: $($name:ident),*;)*) => {$(
        impl ModuleDisplay for $layer {
            fn custom_settings(&self) -> Option<DisplaySettings> {
                DisplaySettings::new().with_new_line_after_attribute(false).optional()
            }

            fn custom_content(&self, content: Content) -> Option<Content> {
                content$(.add(stringify!($name), &self.$name))*.optional()
            }
        }
    )*};
}

displayed! {
    LayerNorm: epsilon;
    RmsNorm: epsilon;
    GroupNorm: num_groups, num_channels, epsilon, affine;
    InstanceNorm: num_channels, epsilon, affine;
}
