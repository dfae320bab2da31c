//! Dynamic Tanh, which burn does not have: a layer in the place of a norm, without statistics.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::tensor::{Device, Tensor};
use wgnorm::Activation;

use crate::call::{Call, fits_last};
use crate::input::Input;
use crate::problem::Norm;

/// Configuration of a [`DynamicTanh`].
#[derive(Config, Debug)]
pub struct DynamicTanhConfig {
    /// Length of the last axis.
    pub d_model: usize,
    /// What alpha begins as. Default: 0.5
    #[config(default = 0.5)]
    pub alpha: f64,
}

/// `y = gamma·tanh(alpha·x) + beta` of the last axis (Zhu et al. 2025), alpha one number that is learned.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct DynamicTanh {
    /// `[1]`.
    pub alpha: Param<Tensor<1>>,
    /// Weight.
    pub gamma: Param<Tensor<1>>,
    /// Bias.
    pub beta: Param<Tensor<1>>,
    /// What comes after it and a residual, in the same pass over memory.
    #[module(skip)]
    pub activation: Activation,
}

impl DynamicTanhConfig {
    /// A layer with gamma 1 and beta 0.
    pub fn init(&self, device: &Device) -> DynamicTanh {
        let of = |length, value| Param::from_tensor(Tensor::full([length], value, device));
        DynamicTanh {
            alpha: of(1, self.alpha),
            gamma: of(self.d_model, 1.0),
            beta: of(self.d_model, 0.0),
            activation: Activation::None,
        }
    }
}

impl DynamicTanh {
    /// With an activation in the same pass.
    #[must_use]
    pub fn with_activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// y of x `[…, d_model]`.
    ///
    /// # Panics
    /// Unless the last axis is `d_model`. Where it would [fall back](crate::fallback) and must not, or cannot: for a mask.
    pub fn forward<const D: usize>(&self, input: impl Into<Input<D>>) -> Tensor<D> {
        let input = input.into();
        let fits = fits_last(&input.x, self.gamma.dims()[0]);
        let parameters = [&self.gamma, &self.beta].map(|parameter| Some(parameter.val()));
        let call = Call::new("DynamicTanh", fits, Norm::Tanh, parameters);
        let call = Call { alpha: Some(self.alpha.val()), activation: self.activation, ..call };
        let burns = |x: Tensor<D>| {
            let [alpha, gamma, beta] =
                [&self.alpha, &self.gamma, &self.beta].map(|of| of.val().unsqueeze::<D>());
            (x * alpha).tanh() * gamma + beta
        };
        call.run(input, burns).y
    }
}

impl ModuleDisplay for DynamicTanh {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_model] = self.gamma.dims();
        content.add("d_model", &d_model).optional()
    }
}
