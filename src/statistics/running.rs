//! Running statistics: one buffer with mean, variance and the number of batches per channel.

use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::context::{Context, ContextId};
use crate::engine::slab::Slab;
use crate::engine::tensor::Tensor;

/// Running mean and variance of a layer, and the number of batches that entered them, on the GPU.
///
/// `3·C` words of one buffer: running_mean `[C]` f32, running_var `[C]` f32, batches `[C]` u32. The counter exists once
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
    slab: Slab,
    home: ContextId,
    channels: u64,
}

/// Running statistics on the host.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RunningValues {
    /// Running mean per channel.
    pub mean: Vec<f32>,
    /// Running variance per channel, in the layer's convention.
    pub var: Vec<f32>,
    /// Batches that entered the statistics (PyTorch's `num_batches_tracked`).
    pub batches: u32,
}

impl RunningValues {
    /// As frameworks start: mean 0, variance 1, no batches.
    pub fn initial(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], var: vec![1.0; channels], batches: 0 }
    }

    /// Requires as many variances as means.
    fn check(&self) -> Result<()> {
        let (expected, got) = (self.mean.len() as u64, self.var.len() as u64);
        if expected == got {
            return Ok(());
        }
        let shape = Shape::per_channel(expected);
        Err(Error::Length { what: "running_var", shape, expected, got })
    }

    /// As they lie on the GPU.
    fn words(&self) -> Vec<u32> {
        let mut words: Vec<u32> = self.mean.iter().chain(&self.var).map(|v| v.to_bits()).collect();
        words.resize(3 * self.mean.len(), self.batches);
        words
    }
}

impl RunningStatistics {
    /// As frameworks start: mean 0, variance 1, no batches.
    pub(crate) async fn initial(context: &Context, channels: u64) -> Result<Self> {
        Self::upload(context, &RunningValues::initial(channels as usize)).await
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
        values.check()?;
        let words = values.words();
        let buffer = context.create_buffer_with("running statistics", bytemuck::cast_slice(&words)).await?;
        Ok(Self { slab: (&buffer).into(), home: context.id(), channels: channels as u64 })
    }

    /// Running statistics in a tensor of the caller's, `[3, C]` of f32: the row of means, that of variances, and that of the number of batches, as the bits
    /// of a u32 for each channel. What it holds is what they are: write before, or [`set_running`](crate::BatchNorm::set_running) then. Frameworks that own
    /// all memory have their state where it belongs; that nobody else writes there is then their affair.
    ///
    /// The tensor must begin at a multiple of the device's `min_storage_buffer_offset_alignment` (at most 256 bytes) of its buffer.
    ///
    /// ```
    /// use wgnorm::{BatchNorm, BatchNormOptions, Context, RunningStatistics};
    /// let context = Context::headless_blocking()?;
    /// context.block_on(async {
    ///     let state = context.upload(&[3, 2], &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]).await?;
    ///     let running = RunningStatistics::from_tensor(&context, &state)?;
    ///     let mut layer = BatchNorm::from_parts(&context, BatchNormOptions::pytorch(), None, None, running)?;
    ///     layer.train_forward(&context.upload(&[4, 2], &[1.0, 5.0, 3.0, 5.0, 1.0, 5.0, 3.0, 5.0]).await?).await?;
    ///     let state = context.download(&state).await?;
    ///     assert!((state[0] - 0.2).abs() < 1e-6 && state[4].to_bits() == 1);
    ///     Ok::<(), wgnorm::Error>(())
    /// })?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`], [`Error::NotContiguous`], [`Error::ForeignDevice`], [`Error::Misaligned`], [`Error::Channels`] for no channels.
    pub fn from_tensor(context: &Context, tensor: &Tensor) -> Result<Self> {
        let what = "running statistics";
        let channels = tensor.shape().dims().get(1).map_or(0, |&channels| channels as u64);
        if channels == 0 {
            return Err(Error::Channels { what, expected: 1, got: 0 });
        }
        let slab = Slab::of_tensor(context, what, tensor, &[3, channels])?;
        Ok(Self { slab, home: context.id(), channels })
    }

    /// Replaces the statistics, after everything that was submitted before and before everything that is submitted later.
    pub(crate) async fn write(&mut self, context: &Context, values: &RunningValues) -> Result<()> {
        let (expected, got) = (self.channels, values.mean.len() as u64);
        if expected != got {
            return Err(Error::Channels { what: "running statistics", expected, got });
        }
        values.check()?;
        self.slab.write(context, "running statistics", bytemuck::cast_slice(&values.words())).await
    }

    /// The statistics on the host, after everything that was submitted before.
    ///
    /// # Errors
    /// [`Error::ForeignDevice`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn download(&self, context: &Context) -> Result<RunningValues> {
        self.check(context, self.channels)?;
        let bytes = self.slab.read(context, "running statistics", 12 * self.channels).await?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
        let floats = |range: &[u32]| range.iter().map(|&bits| f32::from_bits(bits)).collect();
        let c = self.channels as usize;
        Ok(RunningValues { mean: floats(&words[..c]), var: floats(&words[c..2 * c]), batches: words[2 * c] })
    }

    /// Number of channels.
    pub fn channels(&self) -> u64 {
        self.channels
    }

    pub(crate) fn slab(&self) -> &Slab {
        &self.slab
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
