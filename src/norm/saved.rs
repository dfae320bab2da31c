//! What a training forward pass leaves for its backward pass.

use std::sync::{Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};

use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::engine::context::{Context, ContextId};
use crate::engine::slab::Slab;
use crate::engine::tensor::Tensor;
use crate::plan::SAVED_BYTES;

/// Statistics and affine parameters that a training forward pass used, per channel, on the GPU.
///
/// It belongs to the caller, not to the layer, so a layer can be shared by several inputs and recomputed. It keeps the
/// gamma and beta that forward used; the backward pass takes them from here, so parameters may change in between.
/// x itself is not copied: the backward pass needs it unmodified.
#[derive(Debug)]
pub struct Saved {
    slab: Slab,
    home: ContextId,
    channels: u64,
    count: u64,
    /// Whether forward writes y over x.
    in_place: bool,
    /// Whether statistics may cover more than x.
    pooled: bool,
    dtype: DType,
    /// Of the forward pass that was prepared last.
    forward: Mutex<Option<Pass>>,
}

/// What backward has to have in common with forward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pass {
    pub residual: bool,
    pub masked: bool,
    pub renorm: bool,
    pub activation: Activation,
}

/// Statistics of one channel as saved by a training forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SavedStatistics {
    /// The f32 nearest to the batch mean.
    pub shift: f32,
    /// Batch mean minus `shift`.
    pub delta: f32,
    /// Biased batch variance.
    pub var: f32,
    /// `1 / sqrt(var + eps)`.
    pub inv_std: f32,
    /// Values that the statistics cover, in f32: those of x, or of more.
    pub count: f32,
    /// r of batch renorm ([`Renorm`](crate::Renorm)); else 1.
    pub r: f32,
    /// d of batch renorm; else 0.
    pub d: f32,
    /// Whether the backward pass can have x̂: not if y was written over x and |gamma| is below
    /// [`Saved::least_gamma`] (dx and dgamma are NaN then), nor before forward has run.
    pub recoverable: bool,
}

impl SavedStatistics {
    /// The batch mean.
    pub fn mean(&self) -> f64 {
        f64::from(self.shift) + f64::from(self.delta)
    }
}

/// Rust twin of `StatisticsRecord` in shaders/lib/statistics.wesl.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct SavedRecord {
    shift: f32,
    delta: f32,
    inv_std: f32,
    variance: f32,
    gamma: f32,
    beta: f32,
    status: u32,
    count: f32,
    r: f32,
    d: f32,
}

const _: () = assert!(size_of::<SavedRecord>() as u64 == SAVED_BYTES);

impl Saved {
    /// Room for the statistics of a tensor `[N, C, …]` of the shape of `x`. Until a forward pass has run, it holds
    /// NaN.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Channels`], and those of an allocation.
    pub async fn new(context: &Context, x: &Tensor) -> Result<Self> {
        Self::with(context, x, false).await
    }

    /// As [`new`](Self::new), for a forward pass that writes y over x, so that there is one tensor less to keep. The backward
    /// pass is given y and recovers x̂ from it (InPlace-ABN, Rota Bulò, Porzi & Kontschieder 2018):
    /// the activation must be invertible ([`Activation::is_invertible`](crate::Activation::is_invertible)).
    ///
    /// The rounding errors of y are divided by gamma. Where |gamma| is below [`least_gamma`](Self::least_gamma), dx and dgamma of
    /// the channel are NaN; [`SavedStatistics::recoverable`] tells which channels these are as soon as forward has run. With batch
    /// renorm it is |gamma·r| that must not be. The slope of a leaky ReLU must be at least [`least_slope`](Self::least_slope).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn in_place(context: &Context, x: &Tensor) -> Result<Self> {
        Self::with(context, x, true).await
    }

    /// The least |gamma| with which x̂ is recovered from values of a type: 2^-10 in f32, 2^-5 in f16, 2^-4 in bf16.
    pub const fn least_gamma(dtype: DType) -> f32 {
        match dtype {
            DType::F32 => 1.0 / 1024.0,
            DType::F16 => 1.0 / 32.0,
            DType::Bf16 => 1.0 / 16.0,
        }
    }

    /// The least slope of a leaky ReLU that is inverted in values of a type: below, small values of y would underflow. 2^-20 in f32
    /// and bf16, 2^-7 in f16.
    pub const fn least_slope(dtype: DType) -> f32 {
        match dtype {
            DType::F32 | DType::Bf16 => 1.0 / 1_048_576.0,
            DType::F16 => 1.0 / 128.0,
        }
    }

    /// Room of the same kind, for another tensor.
    pub(super) async fn like(&self, context: &Context, x: &Tensor) -> Result<Self> {
        Ok(Self { pooled: self.pooled, ..Self::with(context, x, self.in_place).await? })
    }

    /// The same, for statistics that may cover more than x: moments that are merged from several tensors, of this device or others.
    /// The backward pass then takes the gradient sums over all of them
    /// ([`BatchNorm::prepare_backward_from`](crate::BatchNorm::prepare_backward_from)); the number of values is saved with the
    /// statistics.
    #[must_use]
    pub fn pooled(self) -> Self {
        Self { pooled: true, ..self }
    }

    async fn with(context: &Context, x: &Tensor, in_place: bool) -> Result<Self> {
        let saved = Self::unwritten(context, x).await?;
        let nothing = vec![f32::NAN.to_bits(); saved.slab.bytes() as usize / 4];
        saved.slab.write(context, "saved statistics", bytemuck::cast_slice(&nothing)).await?;
        Ok(Self { in_place, ..saved })
    }

    /// As [`new`](Self::new), for a forward pass that runs before anybody can look at it.
    pub(super) async fn unwritten(context: &Context, x: &Tensor) -> Result<Self> {
        let what = "saved statistics";
        let channels = x.channels()?.channels;
        let bytes = context.check_size(what, channels, size_of::<SavedRecord>() as u64)?;
        Self::at(context, x, Slab::new(context, what, bytes).await?)
    }

    /// As [`new`](Self::new), in a tensor of the caller's, `[C, 10]` of f32, a row for each channel: the two parts of the batch mean (their sum is the mean),
    /// 1 / sqrt(var + eps), the biased variance, gamma and beta as forward used them, a status (the bits of a u32, 0 where x̂ can be recovered), the number of
    /// values, and batch renorm's r and d (1 and 0 without it). What it holds before forward has run, it holds. For frameworks that own all memory, and for
    /// reading the batch's statistics on the GPU.
    ///
    /// The tensor must begin at a multiple of the device's `min_storage_buffer_offset_alignment` (at most 256 bytes) of its buffer.
    ///
    /// # Errors
    /// As [`new`](Self::new) but those of an allocation; [`Error::Shape`], [`Error::DType`], [`Error::NotContiguous`], [`Error::ForeignDevice`],
    /// [`Error::Misaligned`].
    pub fn from_tensor(context: &Context, x: &Tensor, tensor: &Tensor) -> Result<Self> {
        let shape = [x.channels()?.channels, size_of::<SavedRecord>() as u64 / 4];
        Self::at(context, x, Slab::of_tensor(context, "saved statistics", tensor, &shape)?)
    }

    fn at(context: &Context, x: &Tensor, slab: Slab) -> Result<Self> {
        let view = x.channels()?;
        Ok(Self {
            slab,
            home: context.id(),
            channels: view.channels,
            count: view.count(),
            in_place: false,
            pooled: false,
            dtype: x.dtype(),
            forward: Mutex::new(None),
        })
    }

    /// The statistics on the host, one per channel, after everything that was submitted before.
    ///
    /// # Errors
    /// [`Error::ForeignDevice`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn download(&self, context: &Context) -> Result<Vec<SavedStatistics>> {
        self.check(context, self.channels, self.count)?;
        let bytes = self
            .slab
            .read(context, "saved statistics", self.channels * size_of::<SavedRecord>() as u64)
            .await?;
        let records: Vec<SavedRecord> = bytemuck::pod_collect_to_vec(&bytes);
        Ok(records
            .iter()
            .map(|r| SavedStatistics {
                shift: r.shift,
                delta: r.delta,
                var: r.variance,
                inv_std: r.inv_std,
                count: r.count,
                r: r.r,
                d: r.d,
                // What was never written is NaN, of which nothing can be recovered.
                recoverable: r.status == 0,
            })
            .collect())
    }

    /// Element type of the x that it was made for.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn is_in_place(&self) -> bool {
        self.in_place
    }

    pub(crate) fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// Remembers what forward does.
    pub(crate) fn note(&self, forward: Pass) {
        *self.forward.lock().unwrap_or_else(PoisonError::into_inner) = Some(forward);
    }

    /// Requires that backward does what forward did.
    pub(crate) fn check_same(&self, backward: Pass) -> Result<()> {
        let Some(forward) = *self.forward.lock().unwrap_or_else(PoisonError::into_inner) else {
            return Ok(());
        };
        if forward.activation != backward.activation {
            return Err(Error::Activation { expected: forward.activation, got: backward.activation });
        }
        if forward.residual != backward.residual {
            return Err(Error::Residual { expected: forward.residual });
        }
        if forward.renorm != backward.renorm {
            return Err(Error::Renormalized { expected: forward.renorm });
        }
        if forward.masked != backward.masked {
            return Err(Error::Masked { expected: forward.masked });
        }
        Ok(())
    }

    pub(crate) fn slab(&self) -> &Slab {
        &self.slab
    }

    /// Requires the context's device and the geometry of x.
    pub(crate) fn check(&self, context: &Context, channels: u64, count: u64) -> Result<()> {
        let what = "saved statistics";
        if self.home != context.id() {
            return Err(Error::ForeignDevice { what });
        }
        if self.channels != channels {
            return Err(Error::Channels { what, expected: channels, got: self.channels });
        }
        if self.count != count {
            return Err(Error::Count {
                what,
                expected: Some(self.count),
                got: count,
                hint: "make them for this x with Saved::new",
            });
        }
        Ok(())
    }
}
