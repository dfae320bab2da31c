//! Running statistics: one buffer with mean, variance and the number of batches per channel.

use crate::context::{Context, ContextId};
use crate::error::{Error, Result};
use crate::gpu::readback;
use crate::shape::Shape;

/// Running mean and variance of a layer, and the number of batches that entered them, on the GPU.
///
/// One buffer of `3·C` words: running_mean `[C]` f32, running_var `[C]` f32, batches `[C]` u32. The counter exists once
/// per channel, so that the invocation that updates a channel is the only one that touches it.
///
/// Not `Clone`: two layers with the same statistics could update them behind each other's back. Not even a frozen layer's
/// statistics can be made to change:
///
/// ```compile_fail,E0308
/// # use wgnorm::{FrozenBatchNorm, RunningStatistics};
/// fn share(layer: &FrozenBatchNorm) -> RunningStatistics {
///     layer.running().clone()
/// }
/// ```
#[derive(Debug)]
pub struct RunningStatistics {
    buffer: wgpu::Buffer,
    home: ContextId,
    channels: u64,
}

/// Running statistics on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningValues {
    /// Running mean per channel.
    pub mean: Vec<f32>,
    /// Running variance per channel, in the layer's convention.
    pub var: Vec<f32>,
    /// Batches that entered the statistics (PyTorch's `num_batches_tracked`).
    pub batches: u32,
}

impl RunningStatistics {
    /// As frameworks start: mean 0, variance 1, no batches.
    pub(crate) async fn initial(context: &Context, channels: u64) -> Result<Self> {
        let values = RunningValues {
            mean: vec![0.0; channels as usize],
            var: vec![1.0; channels as usize],
            batches: 0,
        };
        Self::upload(context, &values).await
    }

    /// Running statistics from the host, of a trained layer for example.
    ///
    /// # Errors
    /// [`Error::Length`] if mean and variance differ in length, [`Error::Channels`] if they are empty, and those of an
    /// allocation.
    pub async fn upload(context: &Context, values: &RunningValues) -> Result<Self> {
        let channels = values.mean.len();
        if channels == 0 {
            return Err(Error::Channels { what: "running statistics", expected: 1, got: 0 });
        }
        if values.var.len() != channels {
            return Err(Error::Length {
                what: "running_var",
                shape: Shape::per_channel(channels as u64),
                expected: channels as u64,
                got: values.var.len() as u64,
            });
        }
        let mut words: Vec<u32> = values.mean.iter().chain(&values.var).map(|v| v.to_bits()).collect();
        words.resize(3 * channels, values.batches);
        let buffer = context.create_buffer_with("running statistics", bytemuck::cast_slice(&words)).await?;
        Ok(Self { buffer, home: context.id(), channels: channels as u64 })
    }

    /// The statistics on the host, after everything that was submitted before.
    ///
    /// # Errors
    /// [`Error::ForeignDevice`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn download(&self, context: &Context) -> Result<RunningValues> {
        self.check(context, self.channels)?;
        let bytes = readback::read(context, &self.buffer, 0, 12 * self.channels).await?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
        let floats = |range: &[u32]| range.iter().map(|&bits| f32::from_bits(bits)).collect();
        let c = self.channels as usize;
        Ok(RunningValues { mean: floats(&words[..c]), var: floats(&words[c..2 * c]), batches: words[2 * c] })
    }

    /// Number of channels.
    pub fn channels(&self) -> u64 {
        self.channels
    }

    pub(crate) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    pub(crate) fn check(&self, context: &Context, channels: u64) -> Result<()> {
        if self.home != context.id() {
            return Err(Error::ForeignDevice { what: "running statistics" });
        }
        if self.channels != channels {
            return Err(Error::Channels {
                what: "running statistics",
                expected: channels,
                got: self.channels,
            });
        }
        Ok(())
    }
}
