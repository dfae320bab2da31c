//! What a training and an inference layer share: context, options, parameters, running statistics.

use std::sync::atomic::{AtomicU64, Ordering};

use super::options::{Affine, BatchNormOptions, GradientTargets};
use super::running::RunningStatistics;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::gpu::dispatch::Build;
use crate::gpu::params::flag;
use crate::gpu::slot::Slot;
use crate::norm::Accumulation;
use crate::plan::{Alignment, Op, Plan, Walk, plan_walk};
use crate::shape::{Channels, Shape};
use crate::tensor::Tensor;

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
            }
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
        Ok(view)
    }

    /// Starts an operation over x and the tensors of its shape.
    pub fn build(&self, op: Op, view: Channels, tensors: &[(Slot, &Tensor)]) -> Result<Build<'_>> {
        let alignment = Alignment::of(tensors.iter().map(|(_, tensor)| *tensor));
        let plan = self.plan(view, alignment)?;
        let mut build = Build::new(&self.context, op, plan);
        build.params.eps = self.options.eps as f32;
        build.params.count = view.count() as f32;
        for (slot, tensor) in tensors {
            build.tensor(*slot, tensor)?;
        }
        Ok(build)
    }

    fn plan(&self, view: Channels, alignment: Alignment) -> Result<Plan> {
        plan_walk(&Walk::channels(view, alignment), self.context.capabilities(), self.context.tuning())
    }

    /// Binds gamma and beta, as far as the layer has them.
    pub fn bind_affine(&self, build: &mut Build<'_>) -> Result<()> {
        build.optional(Slot::Gamma, self.gamma.as_ref(), flag::GAMMA)?;
        build.optional(Slot::Beta, self.beta.as_ref(), flag::BETA)
    }

    /// Checks that the gradients asked for exist and have the right shapes.
    pub fn check_targets(&self, x: &Tensor, dy: &Tensor, targets: &GradientTargets<'_>) -> Result<()> {
        dy.check_like("dy", x)?;
        if let Some(dx) = targets.dx {
            dx.check_like("dx", x)?;
        }
        let per_channel = Shape::per_channel(self.running.channels());
        for (gradient, tensor, parameter, exists) in [
            ("dgamma", targets.dgamma, "gamma", self.options.affine.has_gamma()),
            ("dbeta", targets.dbeta, "beta", self.options.affine.has_beta()),
        ] {
            if let Some(tensor) = tensor {
                if !exists {
                    return Err(Error::NoParameter { gradient, parameter });
                }
                tensor.check_shape(gradient, per_channel)?;
            }
        }
        if targets.dx.is_none() && targets.dgamma.is_none() && targets.dbeta.is_none() {
            return Err(Error::NoGradient);
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

    /// Tensors for all gradients that the layer has.
    pub async fn allocate_gradients(&self, x: &Tensor) -> Result<super::Gradients> {
        let channels = self.running.channels() as usize;
        let dx = self.context.zeros_like(x).await?;
        let dgamma = match self.options.affine.has_gamma() {
            true => Some(self.context.zeros(&[channels]).await?),
            false => None,
        };
        let dbeta = match self.options.affine.has_beta() {
            true => Some(self.context.zeros(&[channels]).await?),
            false => None,
        };
        Ok(super::Gradients { dx, dgamma, dbeta })
    }
}
