//! What a training and an inference layer share: context, options, parameters, running statistics.

use std::sync::atomic::{AtomicU64, Ordering};

use super::options::{Affine, BatchNormOptions, GradientTargets};
use super::pooled::LocalGradients;
use super::running::RunningStatistics;
use super::saved::{Saved, SavedRecord};
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::{Channels, Shape};
use crate::engine::build::{Build, Scratch};
use crate::engine::context::Context;
use crate::engine::input::Input;
use crate::engine::params::flag;
use crate::engine::prepared::Prepared;
use crate::engine::shader::{ActivationKind, Pointwise};
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::engine::tune::{Chosen, Problem};
use crate::norm::Accumulation;
use crate::ops::fold;
use crate::plan::{Op, Traffic, Walk};

#[derive(Debug)]
pub(crate) struct Parts {
    pub context: Context,
    pub options: BatchNormOptions,
    pub gamma: Option<Tensor>,
    pub beta: Option<Tensor>,
    pub running: RunningStatistics,
    /// Tells layers apart; survives freezing.
    pub id: u64,
}

impl Parts {
    pub async fn new(context: &Context, channels: usize, options: BatchNormOptions) -> Result<Self> {
        if channels == 0 {
            return Err(Error::Channels { what: "a layer", expected: 1, got: 0 });
        }
        options.check()?;
        // The largest value per channel that a layer keeps, before anything is built on the host.
        context.check_size("running statistics", channels as u64, 12)?;
        let ones = vec![1.0; channels];
        let gamma = match options.affine.has_gamma() {
            true => Some(context.upload(&[channels], &ones).await?),
            false => None,
        };
        let beta = match options.affine.has_beta() {
            true => Some(context.zeros(&[channels]).await?),
            false => None,
        };
        let running = RunningStatistics::initial(context, channels as u64).await?;
        Self::from_existing(context, options, gamma, beta, running)
    }

    pub fn from_existing(
        context: &Context,
        mut options: BatchNormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
        running: RunningStatistics,
    ) -> Result<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        options.affine = match (&gamma, &beta) {
            (Some(_), Some(_)) => Affine::Both,
            (Some(_), None) => Affine::Weight,
            (None, Some(_)) => Affine::Bias,
            (None, None) => Affine::None,
        };
        options.check()?;
        let channels = running.channels();
        running.check(context, channels)?;
        for (what, parameter) in [("gamma", &gamma), ("beta", &beta)] {
            if let Some(parameter) = parameter {
                parameter.check_device(what, context)?;
                parameter.check_shape(what, Shape::per_channel(channels))?;
                parameter.check_contiguous(what)?;
            }
        }
        if let (Some(gamma), Some(beta)) = (&gamma, &beta) {
            beta.check_dtype("beta", gamma.dtype())?;
        }
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Ok(Self { context: context.clone(), options, gamma, beta, running, id })
    }

    /// Reads x as a batch with this layer's channels.
    pub fn view(&self, x: &Tensor) -> Result<Channels> {
        let view = x.channels()?;
        if view.channels != self.running.channels() {
            return Err(Error::Channels { what: "x", expected: self.running.channels(), got: view.channels });
        }
        // 16-bit parameters go with tensors of their type.
        for (what, parameter) in [("gamma", &self.gamma), ("beta", &self.beta)] {
            if let Some(parameter) = parameter.as_ref().filter(|parameter| parameter.dtype() != DType::F32) {
                parameter.check_dtype(what, x.dtype())?;
            }
        }
        Ok(view)
    }

    /// As [`view`](Self::view), with a residual that is like x and a mask that fits it.
    pub fn view_input(&self, input: Input<'_>) -> Result<Channels> {
        let view = self.view(input.x)?;
        if input.modulation.is_some() {
            let why = "its parameters are those of the layer; modulate what it gives";
            return Err(Error::Unsupported { layer: "batch norm", what: "modulation", why });
        }
        if let Some(residual) = input.residual {
            residual.check_like("residual", input.x)?;
        }
        if let Some(mask) = input.mask {
            mask.check(&self.context, view)?;
        }
        Ok(view)
    }

    /// What an operation over these tensors is to autotuning; `words` say what else its speed depends on.
    pub fn problem(
        &self,
        op: Op,
        view: Channels,
        held: Option<u32>,
        masked: bool,
        tensors: &[(Slot, &Tensor)],
        words: &[(bool, &'static str)],
    ) -> Problem {
        let walk = self.walk(view, held, masked, tensors);
        Problem::new(&self.context, op, view, walk, self.options.activation, words)
    }

    fn walk(&self, view: Channels, held: Option<u32>, masked: bool, tensors: &[(Slot, &Tensor)]) -> Walk {
        let walked: Vec<_> = tensors.iter().map(|(_, tensor)| *tensor).collect();
        Walk { held, masked, ..Walk::channels(view, &walked, self.context.capabilities().storage_alignment) }
    }

    /// Requires enough values per channel to train with; `shape` is that of x, or of one of several.
    pub fn check_count(&self, count: u64, shape: Shape) -> Result<()> {
        match count {
            0 => Err(Error::EmptyBatch { shape }),
            1 if !self.options.allow_single_value => Err(Error::SingleValue { shape }),
            _ => Ok(()),
        }
    }

    /// Starts an operation over x and the tensors of its shape, planned as it was chosen; `held` are the values for each
    /// of x that a resident kernel of the operation holds, if there is one; `input` is what the kernels look at, with the residual and the mask
    /// only where they do.
    pub fn build<'c>(
        &self,
        chosen: &'c Chosen,
        op: Op,
        view: Channels,
        held: Option<u32>,
        input: Input<'_>,
        tensors: &[(Slot, &Tensor)],
    ) -> Result<Build<'c>> {
        let context = &chosen.context;
        let walk = self.walk(view, held, input.mask.is_some(), tensors);
        let plan = context.plan_walk(&walk, chosen.reason.as_deref())?;
        let mut build = Build::new(context, op, plan);
        build.params.eps = self.options.eps as f32;
        build.params.slope = self.options.activation.slope();
        build.pointwise = Pointwise {
            activation: ActivationKind::of(self.options.activation),
            residual: input.residual.is_some(),
            ..Default::default()
        };
        if let Some(mask) = input.mask {
            build.mask(mask, view)?;
        }
        for (slot, tensor) in tensors {
            build.tensor(*slot, tensor)?;
        }
        Ok(build)
    }

    /// Requires what backward needs to recover x̂ from y.
    pub fn check_recoverable(&self, from_y: bool, dtype: DType) -> Result<()> {
        let why = match self.options.activation {
            _ if !from_y => return Ok(()),
            Activation::LeakyRelu { slope } if slope > 0.0 && slope < Saved::least_slope(dtype) => {
                "the slope is below Saved::least_slope, so x̂ cannot be recovered from y; keep x and use Saved::new"
            }
            activation if activation.is_invertible() => return Ok(()),
            _ => {
                "the activation cannot be inverted, so x̂ cannot be recovered from y; keep x and use Saved::new"
            }
        };
        Err(Error::InPlace { why })
    }

    /// Requires that what is saved fits to where y is written.
    pub fn check_saved_in_place(&self, over_x: bool, saved: Option<&Saved>, dtype: DType) -> Result<()> {
        let why = match (over_x, saved.map(Saved::is_in_place)) {
            (true, Some(false)) => "y is written over x, which backward needs; use Saved::in_place",
            (false, Some(true)) => "Saved::in_place is for a y that is written over x; use Saved::new",
            (true, Some(true)) => return self.check_recoverable(true, dtype),
            _ => return Ok(()),
        };
        Err(Error::InPlace { why })
    }

    /// Whether backward reads the residual, to compute the derivative of the activation or recover x̂.
    pub fn reads_residual(&self, from_y: bool) -> bool {
        self.options.activation != Activation::None || from_y
    }

    /// Binds gamma and beta, as far as the layer has them.
    pub fn bind_affine(&self, build: &mut Build<'_>) -> Result<()> {
        build.optional(Slot::Gamma, self.gamma.as_ref(), flag::GAMMA)?;
        build.optional(Slot::Beta, self.beta.as_ref(), flag::BETA)
    }

    /// Checks that the gradients asked for exist and have the right shapes and types.
    pub fn check_targets(&self, input: Input<'_>, dy: &Tensor, targets: &GradientTargets<'_>) -> Result<()> {
        let x = input.x;
        dy.check_like("dy", x)?;
        for (what, tensor) in [("dx", targets.dx), ("d_residual", targets.d_residual)] {
            if let Some(tensor) = tensor {
                tensor.check_like(what, x)?;
            }
        }
        if targets.d_residual.is_some() && input.residual.is_none() {
            return Err(Error::NoParameter { gradient: "d_residual", parameter: "residual" });
        }
        self.check_parameter_targets(input, targets)
    }

    /// Checks those of the parameters' gradients that are asked for.
    pub fn check_parameter_targets(&self, input: Input<'_>, targets: &GradientTargets<'_>) -> Result<()> {
        let x = input.x;
        let per_channel = Shape::per_channel(self.running.channels());
        let mut dtype = None;
        for (gradient, tensor, parameter, exists) in [
            ("dgamma", targets.dgamma, "gamma", self.options.affine.has_gamma()),
            ("dbeta", targets.dbeta, "beta", self.options.affine.has_beta()),
        ] {
            if let Some(tensor) = tensor {
                if !exists {
                    return Err(Error::NoParameter { gradient, parameter });
                }
                tensor.check_shape(gradient, per_channel)?;
                tensor.check_contiguous(gradient)?;
                if tensor.dtype() != DType::F32 {
                    tensor.check_dtype(gradient, x.dtype())?;
                }
                tensor.check_dtype(gradient, *dtype.get_or_insert(tensor.dtype()))?;
            }
        }
        Ok(())
    }

    /// Binds the parameter gradients that are asked for.
    pub fn bind_targets(build: &mut Build<'_>, targets: &GradientTargets<'_>) -> Result<()> {
        build.optional(Slot::Dgamma, targets.dgamma, flag::DGAMMA)?;
        build.optional(Slot::Dbeta, targets.dbeta, flag::DBETA)?;
        if targets.accumulation == Accumulation::Add {
            build.params.flags |= flag::ACCUMULATE;
        }
        Ok(())
    }

    /// The parameter gradients of an empty batch: zero, written or added like any other.
    pub async fn prepare_empty_sums(
        &self,
        op: Op,
        dtype: DType,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        if !targets.has_sums() {
            return Ok(Prepared::nothing(&self.context, op));
        }
        let mut build = fold::gradients_of(&self.context, op, self.running.channels(), dtype, 0)?;
        Self::bind_targets(&mut build, targets)?;
        fold::gradients(&mut build)?;
        build.finish(Traffic::default()).await
    }

    /// Room for the statistics of all channels, as forward saves them.
    pub fn create_records(&self, build: &mut Build<'_>) -> Scratch {
        build.workspace(self.running.channels() * size_of::<SavedRecord>() as u64)
    }

    /// Tensors for all gradients that the layer has.
    pub async fn allocate_gradients(&self, input: Input<'_>, dy: &Tensor) -> Result<super::Gradients> {
        let dx = self.context.zeros_like(input.x).await?;
        Ok(self.allocate_local_gradients(input, dy).await?.with_dx(dx))
    }

    /// As [`allocate_gradients`](Self::allocate_gradients), but for x.
    pub async fn allocate_local_gradients(&self, input: Input<'_>, dy: &Tensor) -> Result<LocalGradients> {
        let channels = self.running.channels() as usize;
        let like = async |parameter: &Option<Tensor>| match parameter {
            Some(parameter) => self.context.zeros_as(&[channels], parameter.dtype()).await.map(Some),
            None => Ok(None),
        };
        let d_residual = match input.residual {
            None => None,
            // Nothing stands between the residual and y.
            Some(_) if self.options.activation == Activation::None && input.mask.is_none() => {
                Some(dy.clone())
            }
            Some(_) => Some(self.context.zeros_like(input.x).await?),
        };
        Ok(LocalGradients { d_residual, dgamma: like(&self.gamma).await?, dbeta: like(&self.beta).await? })
    }

    /// What a convenience call computes of these gradients: not what is dy itself.
    pub fn computed<'a>(&self, gradients: &'a super::Gradients, dy: &Tensor) -> GradientTargets<'a> {
        let targets = gradients.targets();
        let d_residual = targets.d_residual.filter(|d_residual| !d_residual.is_same_place(dy));
        GradientTargets { d_residual, ..targets }
    }
}
