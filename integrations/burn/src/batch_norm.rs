//! burn's `BatchNorm` on wgnorm's kernels.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Flag, Module, ModuleDisplay, Param, RunningState};
use burn::nn;
use burn::tensor::{Device, Tensor};

use crate::layers::normalized;
use crate::problem::{Norm, Problem};

/// Configuration of a [`BatchNorm`]: that of burn's.
#[derive(Config, Debug)]
pub struct BatchNormConfig {
    /// Number of channels.
    pub num_features: usize,
    /// What is added to the variance. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Weight of the newest statistics in the running ones. Default: 0.1
    #[config(default = 0.1)]
    pub momentum: f64,
}

/// Batch normalization of `[N, C, …]` (Ioffe & Szegedy 2015): burn's layer, with its fields.
///
/// In training (a device with autodiff, and the layer's flag) by statistics of the batch, of which the running ones take a part; else by the running ones.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct BatchNorm {
    /// Weight.
    pub gamma: Param<Tensor<1>>,
    /// Bias.
    pub beta: Param<Tensor<1>>,
    /// Whether the layer trains.
    pub training: Param<Flag>,
    /// Running mean.
    pub running_mean: RunningState<Tensor<1>>,
    /// Running variance.
    pub running_var: RunningState<Tensor<1>>,
    /// Weight of the newest statistics.
    pub momentum: f64,
    /// What is added to the variance.
    pub epsilon: f64,
}

impl BatchNormConfig {
    /// A layer with gamma 1, beta 0, running mean 0 and variance 1.
    ///
    /// # Panics
    /// As burn's: for no channels, an epsilon that is not positive, a momentum outside of `[0, 1]`.
    pub fn init(&self, device: &Device) -> BatchNorm {
        let Self { num_features, epsilon, momentum } = *self;
        nn::BatchNormConfig::new(num_features)
            .with_epsilon(epsilon)
            .with_momentum(momentum)
            .init(device)
            .into()
    }
}

/// The same layer: parameters and running statistics are shared, not copied.
impl From<nn::BatchNorm> for BatchNorm {
    fn from(layer: nn::BatchNorm) -> Self {
        let nn::BatchNorm { gamma, beta, training, running_mean, running_var, momentum, epsilon } = layer;
        Self { gamma, beta, training, running_mean, running_var, momentum, epsilon }
    }
}

/// The same layer of burn's.
impl From<BatchNorm> for nn::BatchNorm {
    fn from(layer: BatchNorm) -> Self {
        let BatchNorm { gamma, beta, training, running_mean, running_var, momentum, epsilon } = layer;
        Self { gamma, beta, training, running_mean, running_var, momentum, epsilon }
    }
}

impl BatchNorm {
    /// y of `[N, C, …]`.
    ///
    /// # Panics
    /// As burn's: unless the second axis is that of the channels. Where it would [fall back](crate::fallback) and must not.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let trains = input.device().is_autodiff() && self.training.is_enabled();
        let [channels] = self.gamma.dims();
        let fits = D >= 2 && input.dims()[1] == channels && input.dims().iter().all(|&length| length > 0);
        let norm = if trains { Norm::Batch } else { Norm::Frozen };
        let problem = Problem { norm, epsilon: self.epsilon, affine: [true; 2] };
        let device = input.device();
        let statistics = match trains {
            true => None,
            false => {
                let [mean, var] =
                    [&self.running_mean, &self.running_var].map(|state| state.value().to_device(&device));
                let counted = Tensor::zeros_like(&mean);
                Some(Tensor::stack::<2>(vec![mean, var, counted], 0))
            }
        };
        let parameters = [Some(self.gamma.val()), Some(self.beta.val())];
        let Some((y, saved)) = normalized("BatchNorm", input.clone(), fits, parameters, statistics, problem)
        else {
            return nn::BatchNorm::from(self.clone()).forward(input);
        };
        if trains {
            self.update(saved.detach());
        }
        y
    }

    /// Takes the batch's mean and biased variance, of what forward saved, into the running ones.
    fn update(&self, saved: Tensor<2>) {
        let column = |at: usize| saved.clone().narrow(1, at, 1).squeeze_dim::<1>(1);
        let (mean, var) = (column(0) + column(1), column(3));
        for (state, batch) in [(&self.running_mean, mean), (&self.running_var, var)] {
            let old = state.value_sync().to_device(&batch.device());
            let new = old.mul_scalar(1.0 - self.momentum).add(batch.mul_scalar(self.momentum));
            state.update(new.detach());
        }
    }
}

impl ModuleDisplay for BatchNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [num_features] = self.beta.dims();
        let content = content.add("num_features", &num_features).add("momentum", &self.momentum);
        content.add("epsilon", &self.epsilon).optional()
    }
}
