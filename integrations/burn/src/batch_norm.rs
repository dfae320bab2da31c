//! burn's `BatchNorm` on wgnorm's kernels.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Flag, Module, ModuleDisplay, Param, RunningState};
use burn::nn;
use burn::tensor::{DType, Device, Tensor};
use wgnorm::Activation;

use crate::call::{Call, Called, fits_channels};
use crate::input::Input;
use crate::moments::Moments;
use crate::problem::Norm;
use crate::recalibration;
use crate::statistics::{Source, Statistics};

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

/// Batch normalization of `[N, C, …]` (Ioffe & Szegedy 2015): burn's layer, with its fields, and what it does not have.
///
/// In training (a device with autodiff, and the layer's flag) by statistics of the batch, of which the running ones take a part; else by the running ones.
/// A frozen layer on a device with autodiff has gradients and moves nothing.
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
    /// What comes after the norm and a residual, in the same pass over memory.
    #[module(skip)]
    pub activation: Activation,
    /// By which statistics it trains.
    #[module(skip)]
    pub statistics: Statistics,
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
        let (activation, statistics) = (Activation::None, Statistics::Batch);
        Self { gamma, beta, training, running_mean, running_var, momentum, epsilon, activation, statistics }
    }
}

/// The same layer of burn's, without what it does not have: an activation, other statistics.
impl From<BatchNorm> for nn::BatchNorm {
    fn from(layer: BatchNorm) -> Self {
        let BatchNorm { gamma, beta, training, running_mean, running_var, momentum, epsilon, .. } = layer;
        Self { gamma, beta, training, running_mean, running_var, momentum, epsilon }
    }
}

impl BatchNorm {
    /// With an activation in the same pass.
    #[must_use]
    pub fn with_activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// With other statistics in training. Synchronised ones give the layer running statistics of its own, which begin as they are: of ranks in one process none must wait
    /// for another's.
    ///
    /// # Panics
    /// For ghost batches of no samples, and limits of renorm that are none.
    #[must_use]
    pub fn with_statistics(self, statistics: Statistics) -> Self {
        statistics.check();
        if !matches!(statistics, Statistics::Synchronised(_)) {
            return Self { statistics, ..self };
        }
        let [running_mean, running_var] =
            [&self.running_mean, &self.running_var].map(|state| RunningState::new(synchronised(state)));
        Self { statistics, running_mean, running_var, ..self }
    }

    /// y of x `[N, C, …]`.
    ///
    /// # Panics
    /// As burn's: unless the second axis is that of the channels. Where it would [fall back](crate::fallback) and must not, or cannot:
    /// for a mask, and statistics other than the batch's.
    pub fn forward<const D: usize>(&self, input: impl Into<Input<D>>) -> Tensor<D> {
        let input = input.into();
        if recalibration::is_underway() && self.training.is_enabled() {
            return self.recalibrated(input);
        }
        match self.trains(&input.x) {
            true => self.train(input, None).0,
            false => self.infer(input),
        }
    }

    /// y, and the moments by which it came, of what no mask leaves out: the batch's, all parts' of a ghost batch, the last steps', or all ranks'.
    ///
    /// # Panics
    /// As [`forward`](Self::forward); where the layer does not train, or the kernels do not take x.
    pub fn forward_with_moments<const D: usize>(&self, input: impl Into<Input<D>>) -> (Tensor<D>, Moments) {
        let input = input.into();
        assert!(
            self.trains(&input.x),
            "BatchNorm: expected a layer that trains, by the moments of its batch"
        );
        let samples = input.x.dims()[0];
        let (y, saved) = self.train(input, Some("what gives moments"));
        let saved = saved.unwrap_or_else(|| unreachable!("the kernels leave statistics"));
        (y, Moments::of_saved(saved, self.gamma.dims()[0], &self.statistics, samples))
    }

    fn trains<const D: usize>(&self, x: &Tensor<D>) -> bool {
        x.device().is_autodiff() && self.training.is_enabled()
    }

    fn call<const D: usize>(&self, x: &Tensor<D>, norm: Norm, running: [Tensor<1>; 2]) -> Call {
        let fits = fits_channels(x, self.gamma.dims()[0]);
        let parameters = [&self.gamma, &self.beta].map(|parameter| Some(parameter.val()));
        // The kernels have them in f32, whatever type the layer keeps them in.
        let running = running.map(|state| state.to_device(&x.device()).cast(DType::F32));
        let call = Call::new("BatchNorm", fits, norm, parameters);
        Call { epsilon: self.epsilon, activation: self.activation, running: Some(running), ..call }
    }

    /// By the running statistics.
    fn infer<const D: usize>(&self, input: Input<D>) -> Tensor<D> {
        let running = [&self.running_mean, &self.running_var].map(RunningState::value);
        self.call(&input.x, Norm::Frozen, running).run(input, |x| self.burns(x)).y
    }

    /// By the batch's, and what forward saved of them.
    fn train<const D: usize>(
        &self,
        input: Input<D>,
        needs: Option<&'static str>,
    ) -> (Tensor<D>, Option<Tensor<2>>) {
        let running = [&self.running_mean, &self.running_var].map(RunningState::value_sync);
        let dtype = running[0].dtype();
        let norm =
            Norm::Batch { statistics: self.statistics.at_call(self.gamma.id), momentum: self.momentum };
        let call = Call { needs, ..self.call(&input.x, norm, running) };
        let Called { y, saved, running } = call.run(input, |x| self.burns(x));
        let states = [&self.running_mean, &self.running_var].into_iter();
        for (state, new) in states.zip(running.into_iter().flatten()) {
            state.update(new.detach().cast(dtype));
        }
        (y, saved.map(Tensor::detach))
    }

    /// By the batch's, which the recalibration takes; running statistics stay.
    fn recalibrated<const D: usize>(&self, input: Input<D>) -> Tensor<D> {
        let running = [&self.running_mean, &self.running_var].map(RunningState::value_sync);
        let samples = input.x.dims()[0];
        let norm = Norm::Batch { statistics: Source::Batch, momentum: self.momentum };
        let call = Call { needs: Some("recalibration"), ..self.call(&input.x, norm, running) };
        let Called { y, saved, .. } = call.run(input, |x| self.burns(x));
        let saved = saved.unwrap_or_else(|| unreachable!("the kernels leave statistics"));
        let moments = Moments::of_saved(saved.detach(), self.gamma.dims()[0], &Statistics::Batch, samples);
        recalibration::take(self.gamma.id, [&self.running_mean, &self.running_var], moments);
        y
    }

    fn burns<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        nn::BatchNorm::from(self.clone()).forward(x)
    }
}

/// The value of a state with all that is pending, of whatever thread.
pub(crate) fn synchronised(state: &RunningState<Tensor<1>>) -> Tensor<1> {
    // It is what burn does before a module is validated; `value_sync` sees to it for a thread that has something pending alone.
    drop(Module::valid(state));
    state.value()
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
