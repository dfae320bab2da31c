//! A layer's parameters and statistics on the host, between a file and the GPU.

use super::convert::rebias;
use super::save::LayerRef;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::base::variance::RunningVariance;
use crate::engine::context::Context;
use crate::norm::{BatchNorm, BatchNormOptions};
use crate::statistics::running::{RunningStatistics, RunningValues};

/// A layer's parameters and running statistics on the host, and which variance the running one is.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerValues {
    /// gamma, one value per channel, if there is one.
    pub gamma: Option<Vec<f32>>,
    /// beta, one value per channel, if there is one.
    pub beta: Option<Vec<f32>>,
    /// Running mean, variance and number of batches.
    pub running: RunningValues,
    /// Which variance `running.var` is. To set it without [`rebias`](Self::rebias) is to take the numbers as they are.
    pub running_variance: RunningVariance,
}

impl LayerValues {
    /// Those of a layer, after everything that was submitted before; 16-bit parameters widened.
    ///
    /// # Errors
    /// [`Error::ForeignDevice`], [`Error::OutOfMemory`], [`Error::DeviceLost`]; [`Error::BufferUsage`] for a parameter in a buffer
    /// without `COPY_SRC`.
    pub async fn download<'a>(context: &Context, layer: impl Into<LayerRef<'a>>) -> Result<Self> {
        let layer = layer.into();
        let parameter = async |tensor: Option<_>| match tensor {
            Some(tensor) => context.download(tensor).await.map(Some),
            None => Ok(None),
        };
        Ok(Self {
            gamma: parameter(layer.gamma).await?,
            beta: parameter(layer.beta).await?,
            running: layer.running.download(context).await?,
            running_variance: layer.variance,
        })
    }

    /// A layer with these values; `freeze` it for inference. Which affine parameters it has follows from those that
    /// are here. Parameters are rounded to `parameters`, [`DType::F32`] unless activations have 16 bits and they should too.
    ///
    /// # Errors
    /// [`Error::VarianceConvention`] if the options' running variance is another; [`Error::Channels`], [`Error::Length`],
    /// [`Error::Epsilon`], [`Error::Momentum`], and those of an allocation.
    pub async fn upload(
        &self,
        context: &Context,
        options: BatchNormOptions,
        parameters: DType,
    ) -> Result<BatchNorm> {
        self.check()?;
        options.check()?;
        if options.running_variance != self.running_variance {
            return Err(Error::VarianceConvention {
                layer: "the layer".into(),
                from: self.running_variance,
                to: options.running_variance,
            });
        }
        let tensor = async |values: &Option<Vec<f32>>| match values {
            Some(values) => context.upload_as(&[values.len()], values, parameters).await.map(Some),
            None => Ok(None),
        };
        let (gamma, beta) = (tensor(&self.gamma).await?, tensor(&self.beta).await?);
        let running = RunningStatistics::upload(context, &self.running).await?;
        BatchNorm::from_parts(context, options, gamma, beta, running)
    }

    /// Converts the running variance to another convention; `count` is the number of values per channel that each update
    /// saw. See [`rebias`](fn@rebias).
    ///
    /// # Errors
    /// [`Error::VarianceCount`], [`Error::Conversion`]; nothing changes then.
    pub fn rebias(&mut self, to: RunningVariance, count: Option<u64>) -> Result<()> {
        self.running.var = rebias(&self.running.var, self.running_variance, to, count)?;
        self.running_variance = to;
        Ok(())
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.running.mean.len()
    }

    /// All have one value per channel.
    pub(super) fn check(&self) -> Result<()> {
        let channels = self.channels();
        if channels == 0 {
            return Err(Error::Channels { what: "a layer", expected: 1, got: 0 });
        }
        let all = [
            ("running_var", Some(&self.running.var)),
            ("gamma", self.gamma.as_ref()),
            ("beta", self.beta.as_ref()),
        ];
        for (what, values) in all {
            if let Some(values) = values.filter(|values| values.len() != channels) {
                let shape = Shape::per_channel(channels as u64);
                return Err(Error::Length { what, shape, expected: shape.len(), got: values.len() as u64 });
            }
        }
        Ok(())
    }
}
