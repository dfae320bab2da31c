//! burn's layer, RMS, group and instance norm on wgnorm's kernels.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::nn;
use burn::tensor::{Device, Tensor};
use wgnorm::Activation;

use crate::call::{Call, fits_channels, fits_last, value};
use crate::input::Input;
use crate::problem::Norm;

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
    /// What comes after the norm and a residual, in the same pass over memory.
    #[module(skip)]
    pub activation: Activation,
}

impl LayerNormConfig {
    /// A layer with gamma 1 and beta 0.
    pub fn init(&self, device: &Device) -> LayerNorm {
        let nn::LayerNorm { gamma, beta, .. } = nn::LayerNormConfig::new(self.d_model)
            .with_epsilon(self.epsilon)
            .with_bias(self.bias)
            .init(device);
        LayerNorm { gamma, beta, epsilon: self.epsilon, activation: Activation::None }
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
        Self { gamma, beta, epsilon, activation: Activation::None }
    }

    /// y of x `[…, d_model]`.
    ///
    /// # Panics
    /// As burn's: unless the last axis is `d_model`. Where it would [fall back](crate::fallback) and must not, or cannot: for a mask.
    pub fn forward<const D: usize>(&self, input: impl Into<Input<D>>) -> Tensor<D> {
        let input = input.into();
        let fits = fits_last(&input.x, self.gamma.dims()[0]);
        let (norm, parameters) = (Norm::Layer, [Some(self.gamma.val()), value(&self.beta)]);
        let call = Call::new("LayerNorm", fits, norm, parameters);
        let call = Call { epsilon: self.epsilon, activation: self.activation, ..call };
        call.run(input, |x| self.to_burn().forward(x)).y
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
    /// What comes after the norm and a residual, in the same pass over memory.
    #[module(skip)]
    pub activation: Activation,
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
    /// y of x `[…, d_model]`.
    ///
    /// # Panics
    /// As burn's: unless the last axis is `d_model`. Where it would [fall back](crate::fallback) and must not, or cannot: for a mask.
    pub fn forward<const D: usize>(&self, input: impl Into<Input<D>>) -> Tensor<D> {
        let input = input.into();
        let fits = fits_last(&input.x, self.gamma.dims()[0]);
        let (norm, parameters) = (Norm::Rms, [Some(self.gamma.val()), None]);
        let call = Call::new("RmsNorm", fits, norm, parameters);
        let call = Call { epsilon: self.epsilon, activation: self.activation, ..call };
        call.run(input, |x| nn::RmsNorm::from(self.clone()).forward(x)).y
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
    /// What comes after the norm and a residual, in the same pass over memory.
    #[module(skip)]
    pub activation: Activation,
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
    /// y of x `[N, C, …]`.
    ///
    /// # Panics
    /// As burn's: unless the second axis is that of the channels. Where it would [fall back](crate::fallback) and must not, or cannot: for a mask.
    pub fn forward<const D: usize>(&self, input: impl Into<Input<D>>) -> Tensor<D> {
        let input = input.into();
        let fits = fits_channels(&input.x, self.num_channels);
        let (norm, parameters) = (
            Norm::Group(self.num_groups),
            [value(&self.gamma).filter(|_| self.affine), value(&self.beta).filter(|_| self.affine)],
        );
        let call = Call::new("GroupNorm", fits, norm, parameters);
        let call = Call { epsilon: self.epsilon, activation: self.activation, ..call };
        call.run(input, |x| nn::GroupNorm::from(self.clone()).forward(x)).y
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
    /// What comes after the norm and a residual, in the same pass over memory.
    #[module(skip)]
    pub activation: Activation,
}

impl InstanceNormConfig {
    /// A layer with gamma 1 and beta 0.
    pub fn init(&self, device: &Device) -> InstanceNorm {
        let config = nn::InstanceNormConfig::new(self.num_channels);
        config.with_epsilon(self.epsilon).with_affine(self.affine).init(device).into()
    }
}

impl InstanceNorm {
    /// y of x `[N, C, …]`.
    ///
    /// # Panics
    /// As burn's: unless the second axis is that of the channels. Where it would [fall back](crate::fallback) and must not, or cannot: for a mask.
    pub fn forward<const D: usize>(&self, input: impl Into<Input<D>>) -> Tensor<D> {
        let input = input.into();
        let fits = fits_channels(&input.x, self.num_channels);
        // A group of each channel.
        let (norm, parameters) = (
            Norm::Group(self.num_channels),
            [value(&self.gamma).filter(|_| self.affine), value(&self.beta).filter(|_| self.affine)],
        );
        let call = Call::new("InstanceNorm", fits, norm, parameters);
        let call = Call { epsilon: self.epsilon, activation: self.activation, ..call };
        call.run(input, |x| nn::InstanceNorm::from(self.clone()).forward(x)).y
    }
}

/// Layers whose fields are burn's: one becomes the other, parameters shared.
macro_rules! burns {
    ($($layer:ident: $($field:ident),*;)*) => {$(
        /// The same layer: parameters are shared.
        impl From<nn::$layer> for $layer {
            fn from(nn::$layer { $($field),* }: nn::$layer) -> Self {
                Self { $($field,)* activation: Activation::None }
            }
        }

        /// The same layer of burn's, without the activation, which it does not have.
        impl From<$layer> for nn::$layer {
            fn from($layer { $($field,)* .. }: $layer) -> Self {
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

/// What burn's layers show of themselves, and what these have besides.
macro_rules! layers {
    ($($layer:ident: $($name:ident),*;)*) => {$(
        impl $layer {
            /// With an activation in the same pass.
            #[must_use]
            pub fn with_activation(self, activation: Activation) -> Self {
                Self { activation, ..self }
            }
        }

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

layers! {
    LayerNorm: epsilon;
    RmsNorm: epsilon;
    GroupNorm: num_groups, num_channels, epsilon, affine;
    InstanceNorm: num_channels, epsilon, affine;
}
