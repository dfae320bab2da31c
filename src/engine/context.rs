//! The context: what operations are made with, and on a device run by.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::buffer::{Buffer, Usage};
#[cfg(feature = "wgpu")]
use crate::engine::gpu::Gpu;
use crate::engine::kernels::Bindings;
use crate::engine::plans::Plans;
#[cfg(not(feature = "wgpu"))]
use crate::engine::prepared::Prepared;
use crate::engine::probe::Probes;
use crate::engine::readback;
use crate::engine::rehearsal::Rehearsal;
use crate::engine::tensor::Tensor;
#[cfg(feature = "wgpu")]
use crate::engine::tune::{Autotuning, Pins};
use crate::plan::{Capabilities, Op, Plan, Tuning, Walk, plan_walk};

/// A wgpu device and queue, the device's capabilities, and the compiled kernels.
///
/// Cloning is cheap and shares all of them. Everything else in the crate is made from a context and works with that
/// context and its clones only, so make one per device.
///
/// ```
/// let context = wgnorm::Context::headless_blocking()?;
/// let x = context.block_on(context.upload(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))?;
/// assert_eq!(context.block_on(context.download(&x))?[5], 6.0);
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) tuning: Tuning,
    /// Where a tuning leaves less than the device can do.
    pub(super) limited: Option<Arc<Capabilities>>,
    #[cfg(feature = "wgpu")]
    pub(super) autotuning: Autotuning,
    /// Where operations are noted instead of run.
    pub(super) rehearsal: Option<Arc<Rehearsal>>,
}

/// Tells contexts apart. wgpu's own equality of devices does not reach beyond one `wgpu::Instance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContextId(u64);

#[derive(Debug)]
pub(super) struct Shared {
    pub id: ContextId,
    pub capabilities: Capabilities,
    pub probes: Probes,
    pub plans: Plans,
    pub bindings: Bindings,
    /// Plans that were measured.
    #[cfg(feature = "wgpu")]
    pub pins: Pins,
    /// `None` where operations are only planned.
    #[cfg(feature = "wgpu")]
    pub gpu: Option<Gpu>,
}

/// Plans and recipes that are kept: a few MB.
pub(super) const MOST_RECIPES: usize = 1024;

impl Shared {
    pub fn new(capabilities: Capabilities, probes: Probes) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Self {
            id: ContextId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            capabilities,
            probes,
            plans: Plans::new(MOST_RECIPES),
            bindings: Bindings::default(),
            #[cfg(feature = "wgpu")]
            pins: Pins::default(),
            #[cfg(feature = "wgpu")]
            gpu: None,
        }
    }
}

impl Context {
    pub(super) fn of(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            tuning: Tuning::default(),
            limited: None,
            #[cfg(feature = "wgpu")]
            autotuning: Autotuning::Off,
            rehearsal: None,
        }
    }

    /// A context without a device, on which operations are planned and noted, for a device that can do this.
    pub(crate) fn on_paper(capabilities: &Capabilities, rehearsal: Arc<Rehearsal>) -> Self {
        let probes = Probes::assumed(capabilities);
        Self { rehearsal: Some(rehearsal), ..Self::of(Shared::new(capabilities.clone(), probes)) }
    }

    /// The same device with plans forced by `tuning`, for tests and measurements.
    #[must_use]
    pub fn with_tuning(&self, tuning: Tuning) -> Self {
        let limited = tuning.binding_bytes.map(|most| {
            let device = &self.shared.capabilities;
            let max_binding_bytes = device.max_binding_bytes.min(most);
            Arc::new(Capabilities { max_binding_bytes, ..device.clone() })
        });
        Self { tuning, limited, ..self.clone() }
    }

    /// What the device can do, and no more than [`Tuning::binding_bytes`].
    pub fn capabilities(&self) -> &Capabilities {
        self.limited.as_deref().unwrap_or(&self.shared.capabilities)
    }

    /// What is forced instead of planned.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// How an operation of a layer over x, and tensors like it, would be planned, and so what
    /// [workspace](Plan::workspace_bytes) it would allocate: backward with all gradients, and with a residual also the
    /// activation that needs it. Nothing is compiled or allocated. `None` if x is empty.
    ///
    /// Tensors at other places of 16-byte words than x, or in more buffers, are planned otherwise; what was prepared
    /// [says](crate::Prepared::plan) how. So are those that autotuning has pinned.
    ///
    /// ```
    /// let context = wgnorm::Context::headless_blocking()?;
    /// let x = context.block_on(context.zeros(&[8, 64, 56, 56]))?;
    /// let plan = context.plan(wgnorm::tuning::Op::TrainForward, &x, false)?.unwrap();
    /// assert!(plan.workspace_bytes(wgnorm::tuning::Op::TrainForward) <= 8 * 64 * 56 * 56 * 4 / 100);
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::ForeignDevice`], [`Error::TooLarge`], [`Error::MissingCapability`].
    pub fn plan(&self, op: Op, x: &Tensor, residual: bool) -> Result<Option<Plan>> {
        x.check_device("x", self)?;
        let view = x.channels()?;
        if view.elements() == 0 {
            return Ok(None);
        }
        let residuals = usize::from(residual);
        let tensors = match op {
            Op::TrainForward | Op::Inference => 2 + residuals,
            Op::TrainBackward | Op::FrozenBackward => 3 + 2 * residuals,
            Op::CurveForward => 2 + residuals,
            Op::CurveBackward => 3 + 2 * residuals,
            Op::Moments => 1,
            Op::Tangent => 3,
            Op::SecondBackward => 5,
            Op::Copy | Op::Own => 2,
        };
        let alignment = self.capabilities().storage_alignment;
        let tensors = vec![x; tensors];
        let walk = match op {
            Op::Copy => Walk::flat(&tensors, alignment),
            _ => Walk {
                held: op.held(),
                merges: !matches!(op, Op::Inference | Op::CurveForward),
                foldable: !matches!(op, Op::Inference | Op::CurveForward | Op::Moments),
                ..Walk::channels(view, &tensors, alignment)
            },
        };
        plan_walk(&walk, self.capabilities(), self.tuning()).map(Some)
    }

    pub(crate) fn id(&self) -> ContextId {
        self.shared.id
    }

    pub(crate) fn probes(&self) -> &Probes {
        &self.shared.probes
    }

    /// The same device, on which nothing is prepared but what it would run noted.
    pub(crate) fn rehearsing(&self, rehearsal: Arc<Rehearsal>, tuning: Tuning) -> Self {
        let tuning = if tuning == Tuning::default() { self.tuning } else { tuning };
        Self {
            // Nothing is measured ahead.
            #[cfg(feature = "wgpu")]
            autotuning: match self.autotuning {
                Autotuning::Off => Autotuning::Off,
                _ => Autotuning::Pinned,
            },
            rehearsal: Some(rehearsal),
            ..self.with_tuning(tuning)
        }
    }

    /// Whether there is no device.
    pub(crate) fn is_on_paper(&self) -> bool {
        #[cfg(feature = "wgpu")]
        return self.shared.gpu.is_none();
        #[cfg(not(feature = "wgpu"))]
        true
    }

    pub(crate) fn rehearsal(&self) -> Option<&Rehearsal> {
        self.rehearsal.as_deref()
    }

    pub(crate) fn plans(&self) -> &Plans {
        &self.shared.plans
    }

    /// Bytes of `count` records, if one buffer can hold them. To be asked before anything is built on the host.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub(crate) fn check_size(&self, what: &'static str, count: u64, record_bytes: u64) -> Result<u64> {
        let limit = self.capabilities().max_buffer_bytes;
        let needed = count.saturating_mul(record_bytes);
        // The host builds contents too, and must be able to address them.
        if needed > limit || usize::try_from(needed).is_err() {
            let limit_name = "max_buffer_size";
            return Err(Error::TooLarge { what, needed, unit: "bytes", limit_name, limit });
        }
        Ok(needed)
    }

    /// A tensor of f32 with the given values, row-major.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::TooLarge`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn upload(&self, shape: &[usize], values: &[f32]) -> Result<Tensor> {
        self.upload_as(shape, values, DType::F32).await
    }

    /// A tensor with the given values, row-major, rounded to the nearest that an element type has.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub async fn upload_as(&self, shape: &[usize], values: &[f32], dtype: DType) -> Result<Tensor> {
        let tensor_shape = Shape::new(shape)?;
        if tensor_shape.len() != values.len() as u64 {
            return Err(Error::Length {
                what: "a tensor",
                shape: tensor_shape,
                expected: tensor_shape.len(),
                got: values.len() as u64,
            });
        }
        let tensor = self.zeros_as(shape, dtype).await?;
        let mut bytes = dtype.encode(values);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.write(tensor.memory(), &bytes).await?;
        Ok(tensor)
    }

    /// A tensor of f32 zeros.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn zeros(&self, shape: &[usize]) -> Result<Tensor> {
        self.zeros_as(shape, DType::F32).await
    }

    /// A tensor of zeros of an element type.
    ///
    /// # Errors
    /// As [`zeros`](Self::zeros).
    pub async fn zeros_as(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        self.zeros_at(0, shape, dtype).await
    }

    /// A dense tensor of zeros with the shape, element type and layout of another. It begins at the same element of a 16-byte
    /// word, so that operations on both have 16-byte accesses; where the other lies in several buffers, so does it, each part at
    /// the start of one.
    ///
    /// # Errors
    /// As [`zeros`](Self::zeros).
    pub async fn zeros_like(&self, tensor: &Tensor) -> Result<Tensor> {
        let (dims, within) = (tensor.shape(), tensor.byte_offset() % 16);
        let samples: Vec<_> = tensor.part_samples().collect();
        if let [_, _, ..] = samples.as_slice() {
            let mut parts = Vec::new();
            for samples in samples {
                let mut dims = dims.dims().to_vec();
                dims[0] = samples as usize;
                parts.push(self.zeros_at(0, &dims, tensor.dtype()).await?.with_layout(tensor.layout()));
            }
            return Tensor::concat(&parts.iter().collect::<Vec<_>>());
        }
        let within = if tensor.is_dense() { within } else { 0 };
        let zeros = self.zeros_at(within, dims.dims(), tensor.dtype()).await?;
        Ok(zeros.with_layout(tensor.layout()))
    }

    /// A tensor of zeros that begins at this byte of its buffer.
    async fn zeros_at(&self, offset: u64, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let bytes = offset.saturating_add(Shape::new(shape)?.len().saturating_mul(dtype.size()));
        self.check_size("a tensor", bytes, 1)?;
        // A multiple of 16 bytes, so that the last word of a wide walk is inside.
        let buffer = self.create_buffer("a tensor", bytes.max(1).next_multiple_of(16), Usage::Tensor).await?;
        Tensor::in_buffer(self, buffer, offset, shape, dtype)
    }

    /// The values of a tensor, row-major, after everything that was submitted before; those of 16-bit types widened.
    ///
    /// # Errors
    /// [`Error::BufferUsage`] unless the buffer has the usage `COPY_SRC`; [`Error::ForeignDevice`],
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn download(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        let what = "the tensor to download";
        tensor.check_device(what, self)?;
        let mut parts = Vec::new();
        for location in tensor.locations() {
            location.buffer.check_read(what)?;
            // Copies are of whole multiples of 4 bytes.
            let (begin, len) = (location.bytes.start, location.bytes.end - location.bytes.start);
            let before = begin % 4;
            let mut bytes =
                readback::read(self, &location.buffer, begin - before, (before + len).next_multiple_of(4))
                    .await?;
            bytes.truncate((before + len) as usize);
            bytes.drain(..before as usize);
            parts.push(bytes);
        }
        Ok(tensor.dtype().decode(&tensor.gather(&parts)))
    }

    /// A buffer of zeros, with the errors of its creation.
    pub(crate) async fn create_buffer(&self, what: &'static str, size: u64, usage: Usage) -> Result<Buffer> {
        self.check_size(what, size, 1)?;
        #[cfg(feature = "wgpu")]
        if self.shared.gpu.is_some() {
            return self.leave_gpu_buffer(what, size, usage.bits()).await.map(Buffer::own);
        }
        let _ = usage;
        Ok(Buffer::paper(size))
    }

    /// A buffer of the crate's own with initial contents.
    pub(crate) async fn create_buffer_with(&self, what: &'static str, bytes: &[u8]) -> Result<Buffer> {
        let buffer = self.create_buffer(what, (bytes.len() as u64).max(4), Usage::Tensor).await?;
        self.write(&buffer, bytes).await?;
        Ok(buffer)
    }

    /// Writes bytes to the start of a buffer, after everything that was submitted before.
    pub(crate) async fn write(&self, buffer: &Buffer, bytes: &[u8]) -> Result<()> {
        self.write_at(buffer, 0, bytes).await
    }

    /// As [`write`](Self::write), from this byte of the buffer on.
    pub(crate) async fn write_at(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        #[cfg(feature = "wgpu")]
        if let Buffer::Gpu(memory) = buffer {
            return self.write_gpu(memory.buffer(), offset, bytes).await;
        }
        // Nobody will read it.
        let _ = (buffer, offset, bytes);
        Ok(())
    }

    /// Repeats a word over some bytes of a buffer, a multiple of 4, without as many on the host.
    pub(crate) async fn fill(&self, buffer: &Buffer, bytes: Range<u64>, word: u32) -> Result<()> {
        const AT_ONCE: u64 = 4 << 20;
        let words = vec![word; (AT_ONCE.min(bytes.end - bytes.start) / 4) as usize];
        for begin in bytes.clone().step_by(AT_ONCE as usize) {
            let left = (bytes.end - begin).min(AT_ONCE) as usize / 4;
            self.write_at(buffer, begin, bytemuck::cast_slice(&words[..left])).await?;
        }
        Ok(())
    }

    /// What kernels bind, found out once.
    pub(crate) fn bindings(&self) -> &Bindings {
        &self.shared.bindings
    }
}

#[cfg(not(feature = "wgpu"))]
impl Context {
    /// There is no device that could run them.
    ///
    /// # Errors
    /// [`Error::NoDevice`].
    pub async fn submit(&self, _: &[&Prepared]) -> Result<()> {
        // What is prepared where it is noted does nothing.
        if self.rehearsal.is_some() { Ok(()) } else { Err(Error::NoDevice) }
    }
}
