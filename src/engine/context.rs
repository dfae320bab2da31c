//! The context: a wgpu device and queue with what the crate keeps for them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::adapter::{self, ContextOptions, ShaderChecks};
use crate::engine::disk_cache::{DiskCache, PipelineCacheState};
use crate::engine::memo::Memo;
use crate::engine::pipelines::PipelineCache;
use crate::engine::plans::Plans;
use crate::engine::prepared::Prepared;
use crate::engine::probe::{self, Probes};
#[cfg(not(target_family = "wasm"))]
use crate::engine::pulse;
use crate::engine::readback;
use crate::engine::recipe::{Absent, Ready};
use crate::engine::rehearsal::Rehearsal;
use crate::engine::scope::{scoped, scoped_for};
use crate::engine::scratch::Pool;
use crate::engine::tensor::Tensor;
use crate::engine::tune::{self, Autotuning, LoadedTunings, PinnedTuning, Pins};
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
    shared: Arc<Shared>,
    tuning: Tuning,
    autotuning: Autotuning,
    /// Where kernels are noted instead of run.
    rehearsal: Option<Arc<Rehearsal>>,
}

/// Tells contexts apart. wgpu's own equality of devices does not reach beyond one `wgpu::Instance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContextId(u64);

#[derive(Debug)]
struct Shared {
    id: ContextId,
    device: wgpu::Device,
    queue: wgpu::Queue,
    capabilities: Capabilities,
    shader_checks: ShaderChecks,
    pipelines: PipelineCache,
    probes: Probes,
    plans: Plans,
    recipes: Memo<Ready>,
    scratch: Arc<Pool>,
    absent: Absent,
    disk_cache: DiskCache,
    /// Plans that were measured.
    pins: Pins,
    /// Why the device was lost; only known for devices that the crate opened itself.
    lost: Arc<Mutex<Option<String>>>,
}

/// Plans and recipes that are kept: a few MB.
const MOST_RECIPES: usize = 1024;

impl Context {
    /// Opens a device of its own, without a window.
    ///
    /// The adapter is the one whose name contains `WGPU_ADAPTER_NAME`, else wgpu's choice among the backends in
    /// `WGPU_BACKEND` for `WGPU_POWER_PREF` (high performance if that is not set).
    ///
    /// # Errors
    /// [`Error::NoAdapter`], [`Error::RequestDevice`], [`Error::MissingCapability`].
    pub async fn headless() -> Result<Self> {
        Self::headless_with(&ContextOptions::default()).await
    }

    /// As [`Context::headless`], with choices.
    ///
    /// # Errors
    /// As [`Context::headless`].
    pub async fn headless_with(options: &ContextOptions) -> Result<Self> {
        Self::from_adapter_with(&adapter::request_adapter(options).await?, options).await
    }

    /// Opens a device of its own on one of [`adapters`](crate::tuning::adapters), with everything that the adapter allows.
    ///
    /// # Errors
    /// [`Error::RequestDevice`], [`Error::MissingCapability`].
    pub async fn from_adapter(adapter: &wgpu::Adapter, shader_checks: ShaderChecks) -> Result<Self> {
        Self::from_adapter_with(adapter, &ContextOptions { shader_checks, ..ContextOptions::default() }).await
    }

    /// As [`Context::from_adapter`], with choices; the adapter's name is none of them.
    ///
    /// # Errors
    /// As [`Context::from_adapter`].
    pub async fn from_adapter_with(adapter: &wgpu::Adapter, options: &ContextOptions) -> Result<Self> {
        let (device, queue) = adapter::request_device(adapter, options).await?;
        let context = Self::from_wgpu_with(device, queue, options)?;
        let lost = context.shared.lost.clone();
        context.device().set_device_lost_callback(move |reason, message| {
            *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{reason:?}: {message}"));
        });
        Ok(context)
    }

    /// As [`Context::headless`], blocking the thread.
    ///
    /// # Errors
    /// As [`Context::headless`].
    #[cfg(not(target_family = "wasm"))]
    pub fn headless_blocking() -> Result<Self> {
        pollster::block_on(Self::headless())
    }

    /// Uses a device and queue of the application's. Its error and device-lost callbacks stay as they are.
    ///
    /// # Errors
    /// [`Error::MissingCapability`] if the device was opened with limits below WebGPU's defaults.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        Self::from_wgpu_with(device, queue, &ContextOptions::default())
    }

    /// As [`Context::from_wgpu`], with choices; the adapter's name is none of them. For a pipeline cache the device must have
    /// been opened with `wgpu::Features::PIPELINE_CACHE`.
    ///
    /// # Errors
    /// As [`Context::from_wgpu`].
    pub fn from_wgpu_with(
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: &ContextOptions,
    ) -> Result<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let capabilities = Capabilities::new(&device.limits(), device.features(), &device.adapter_info())?;
        let shared = Shared {
            id: ContextId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            disk_cache: DiskCache::open(&device, options.pipeline_cache.as_deref()),
            absent: Absent::new(&device),
            device,
            queue,
            capabilities,
            shader_checks: options.shader_checks,
            pipelines: PipelineCache::default(),
            probes: Probes::default(),
            plans: Plans::new(MOST_RECIPES),
            recipes: Memo::new(MOST_RECIPES),
            scratch: Arc::default(),
            pins: Pins::default(),
            lost: Arc::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            tuning: Tuning::default(),
            autotuning: Autotuning::Off,
            rehearsal: None,
        })
    }

    /// The same device with plans forced by `tuning`, for tests and measurements.
    #[must_use]
    pub fn with_tuning(&self, tuning: Tuning) -> Self {
        Self { tuning, ..self.clone() }
    }

    /// The same device, with plans that are measured ([`Autotuning::Measure`]) or were ([`Autotuning::Pinned`]). It is meant for layers
    /// that are made from the returned context; what [`with_tuning`](Self::with_tuning) forces goes before it.
    ///
    /// Preparing an operation of a layer that is not pinned then takes as long as compiling and running up to twelve plans does: seconds where compiling is slow. It runs them on
    /// scratch tensors that take as much memory as those of the operation, and nothing of the caller's changes. Where there is not that much
    /// memory, no clock (a browser without timestamps), or the tensors need several dispatches per pass
    /// ([`Plan::windows`](crate::tuning::Plan::windows)), the policy decides as ever. A plan must be 3 % faster than the policy's to replace it.
    /// Other work on the device at the same time disturbs what is measured.
    ///
    /// [`Plan::reasons`](crate::tuning::Plan::reasons) says where a plan comes from.
    ///
    /// ```
    /// use wgnorm::tuning::Autotuning;
    /// use wgnorm::{BatchNorm, BatchNormOptions, Context};
    /// let context = Context::headless_blocking()?.with_autotuning(Autotuning::Measure);
    /// # let directory = std::env::temp_dir().join(format!("wgnorm-doc-tunings-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory).unwrap();
    /// # let path = &directory.join("wgnorm.tunings");
    /// if path.exists() {
    ///     context.load_tunings(path)?;
    /// }
    /// let layer = context.block_on(BatchNorm::new(&context, 4, BatchNormOptions::pytorch()))?.freeze();
    /// let x = context.block_on(context.upload(&[2, 4, 8], &[0.5; 64]))?;
    /// let y = context.block_on(layer.forward(&x))?;
    /// assert_eq!(context.pinned_tunings().len(), 1);
    /// context.save_tunings(path)?;
    ///
    /// // The next process has the same plans, and so the same bits, and measures nothing.
    /// let next = Context::headless_blocking()?.with_autotuning(Autotuning::Pinned);
    /// assert_eq!(next.load_tunings(path)?.pinned, 1);
    /// # std::fs::remove_dir_all(&directory).unwrap();
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    #[must_use]
    pub fn with_autotuning(&self, autotuning: Autotuning) -> Self {
        Self { autotuning, ..self.clone() }
    }

    /// Whether plans are measured.
    pub fn autotuning(&self) -> Autotuning {
        self.autotuning
    }

    /// The problems whose plans are pinned for this device, measured or loaded, sorted.
    pub fn pinned_tunings(&self) -> Vec<PinnedTuning> {
        self.shared.pins.all()
    }

    /// The pinned plans as text, a line each, for [`import_tunings`](Self::import_tunings).
    pub fn export_tunings(&self) -> String {
        tune::export(&self.tunings_header(), &self.pinned_tunings(), "")
    }

    /// Pins plans from a text that [`export_tunings`](Self::export_tunings) made, for all contexts of this device. Lines of another
    /// adapter or driver, or of other shaders or another policy of this crate, and malformed ones, are left out and reported. What is pinned already stays.
    ///
    /// # Errors
    /// [`Error::Tunings`] if the text is something else; nothing is pinned then.
    pub fn import_tunings(&self, text: &str) -> Result<LoadedTunings> {
        let pins = &self.shared.pins;
        tune::import(text, &self.tunings_header(), |problem, pin| pins.add(problem, pin))
    }

    /// Writes the pinned plans into a file, in the place of those that it holds for this adapter. What it holds for others stays.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Tunings`] if there is a file and it is something else. It stays as it was then.
    #[cfg(not(target_family = "wasm"))]
    pub fn save_tunings(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        let (path, header) = (path.as_ref(), self.tunings_header());
        let others = match crate::engine::file::read(path)? {
            Some(bytes) => tune::others(&String::from_utf8_lossy(&bytes), &header)?,
            None => String::new(),
        };
        crate::engine::file::replace(path, tune::export(&header, &self.pinned_tunings(), &others).as_bytes())
    }

    /// As [`import_tunings`](Self::import_tunings), from a file.
    ///
    /// # Errors
    /// [`Error::File`], also if there is none; [`Error::Tunings`] if it is something else. Nothing is pinned then.
    #[cfg(not(target_family = "wasm"))]
    pub fn load_tunings(&self, path: impl AsRef<std::path::Path>) -> Result<LoadedTunings> {
        let path = path.as_ref();
        match crate::engine::file::read(path)? {
            Some(bytes) => self.import_tunings(&String::from_utf8_lossy(&bytes)),
            None => {
                let reason = "there is no such file".to_owned();
                Err(Error::File { action: "read", path: path.to_owned(), reason })
            }
        }
    }

    fn tunings_header(&self) -> tune::Header {
        tune::Header::of(&self.device().adapter_info())
    }

    /// The wgpu device.
    pub fn device(&self) -> &wgpu::Device {
        &self.shared.device
    }

    /// The wgpu queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// What the device can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
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
    /// [says](Prepared::plan) how. So are those that autotuning has pinned.
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
            Op::Copy | Op::Own => 2,
        };
        let alignment = self.capabilities().storage_alignment;
        let tensors = vec![x; tensors];
        let walk = match op {
            Op::Copy => Walk::flat(&tensors, alignment),
            _ => Walk { held: op.held(), ..Walk::channels(view, &tensors, alignment) },
        };
        plan_walk(&walk, self.capabilities(), self.tuning()).map(Some)
    }

    /// Whether the device's own conversion of binary16 rounds to the nearest even, overflows to infinity and keeps subnormal
    /// numbers, infinities and NaN, so that kernels use it instead of integer arithmetic. Found out by a kernel, once.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn has_exact_f16(&self) -> Result<bool> {
        probe::has_exact_f16(self).await
    }

    /// Keys of the kernels that were compiled so far, sorted.
    pub fn compiled_kernels(&self) -> Vec<String> {
        self.shared.pipelines.keys()
    }

    /// What became of [`ContextOptions::pipeline_cache`] when the context was made.
    pub fn pipeline_cache(&self) -> &PipelineCacheState {
        self.shared.disk_cache.state()
    }

    /// Writes what the driver has compiled so far into the directory of [`ContextOptions::pipeline_cache`], in the place of what
    /// was there. Another process that reads at the same time finds the old file or the new one.
    ///
    /// Returns the bytes of the driver's data; `None` if there is no cache ([`PipelineCacheState::Off`],
    /// [`PipelineCacheState::Unsupported`]).
    ///
    /// # Errors
    /// [`Error::File`]. Nothing else is affected.
    pub fn save_pipeline_cache(&self) -> Result<Option<u64>> {
        self.shared.disk_cache.save()
    }

    pub(crate) fn id(&self) -> ContextId {
        self.shared.id
    }

    pub(crate) fn shader_checks(&self) -> ShaderChecks {
        self.shared.shader_checks
    }

    pub(crate) fn probes(&self) -> &Probes {
        &self.shared.probes
    }

    pub(crate) fn disk_cache(&self) -> &DiskCache {
        &self.shared.disk_cache
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.shared.pins
    }

    pub(crate) fn pipelines(&self) -> &PipelineCache {
        &self.shared.pipelines
    }

    /// The same device, on which nothing is prepared but its kernels noted.
    pub(crate) fn rehearsing(&self, rehearsal: Arc<Rehearsal>, tuning: Tuning) -> Self {
        let tuning = if tuning == Tuning::default() { self.tuning } else { tuning };
        // Nothing is measured ahead.
        let autotuning = match self.autotuning {
            Autotuning::Off => Autotuning::Off,
            _ => Autotuning::Pinned,
        };
        Self { shared: self.shared.clone(), tuning, autotuning, rehearsal: Some(rehearsal) }
    }

    pub(crate) fn rehearsal(&self) -> Option<&Rehearsal> {
        self.rehearsal.as_deref()
    }

    pub(crate) fn plans(&self) -> &Plans {
        &self.shared.plans
    }

    pub(crate) fn recipes(&self) -> &Memo<Ready> {
        &self.shared.recipes
    }

    pub(crate) fn scratch(&self) -> &Arc<Pool> {
        &self.shared.scratch
    }

    pub(crate) fn absent(&self) -> &Absent {
        &self.shared.absent
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
        self.write(tensor.buffer(), &bytes).await?;
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
        let buffer = self.create_buffer("a tensor", bytes.max(1).next_multiple_of(16), TENSOR_USAGE).await?;
        Tensor::from_buffer_as(self, buffer, offset, shape, dtype)
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
            if !location.buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
                return Err(Error::BufferUsage { what, missing: "COPY_SRC" });
            }
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

    /// Records operations in order and submits them.
    ///
    /// # Errors
    /// [`Error::ForeignDevice`] if one was prepared with another context; [`Error::Validation`] if a buffer was
    /// destroyed in the meantime; [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn submit(&self, operations: &[&Prepared]) -> Result<()> {
        if operations.iter().any(|operation| operation.home() != self.id()) {
            return Err(Error::ForeignDevice { what: "a prepared operation" });
        }
        scoped(self, "a submission", || {
            let mut encoder = self
                .device()
                .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("wgnorm") });
            for operation in operations {
                operation.record(&mut encoder);
            }
            self.queue().submit([encoder.finish()]);
        })
        .await
    }

    /// Runs a future of this crate to its end, blocking the thread; waits for the device, or for what else wakes the future (another
    /// rank of a [`Collective`](crate::collective::Collective)), instead of spinning.
    #[cfg(not(target_family = "wasm"))]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        /// Wakes the thread.
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut cx = std::task::Context::from_waker(&waker);
        let mut future = std::pin::pin!(future);
        loop {
            if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return output;
            }
            // An error here reaches the future as well, as a failed mapping.
            let _ = self.device().poll(wgpu::PollType::wait_indefinitely());
            // Returns at once if the future was woken since it was polled. Not for long, because another thread may have submitted
            // what this one waits for, and only a poll of the device completes it.
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
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

    /// A buffer of zeros, with the errors of its creation.
    pub(crate) async fn create_buffer(
        &self,
        what: &'static str,
        size: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        self.check_size(what, size, 1)?;
        self.check_lost()?;
        // Size and usage are fine, so memory is all that there can be too little of.
        scoped_for(self, wgpu::ErrorFilter::OutOfMemory, what, || {
            self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(what),
                size,
                usage,
                mapped_at_creation: false,
            })
        })
        .await
    }

    /// A buffer of the crate's own with initial contents.
    pub(crate) async fn create_buffer_with(&self, what: &'static str, bytes: &[u8]) -> Result<wgpu::Buffer> {
        let buffer = self.create_buffer(what, (bytes.len() as u64).max(4), TENSOR_USAGE).await?;
        self.write(&buffer, bytes).await?;
        Ok(buffer)
    }

    /// Writes bytes to the start of a buffer, after everything that was submitted before.
    pub(crate) async fn write(&self, buffer: &wgpu::Buffer, bytes: &[u8]) -> Result<()> {
        self.write_at(buffer, 0, bytes).await
    }

    /// As [`write`](Self::write), from this byte of the buffer on.
    pub(crate) async fn write_at(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        scoped(self, "an upload", || self.queue().write_buffer(buffer, offset, bytes)).await
    }

    /// Finds out whether the device was lost. In a browser, the loss of a device that the application opened shows at the next
    /// read-back.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub(crate) fn check_lost(&self) -> Result<()> {
        let reason = || self.shared.lost.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(message) = reason() {
            return Err(Error::DeviceLost { message });
        }
        #[cfg(not(target_family = "wasm"))]
        if !pulse::beats(self.device()) {
            // Polling delivers the reason to the callback of a device that the crate opened.
            let _ = self.device().poll(wgpu::PollType::Poll);
            let message = reason().unwrap_or_else(|| "it makes nothing any more".to_owned());
            return Err(Error::DeviceLost { message });
        }
        Ok(())
    }
}

/// Usages of buffers that hold tensors and may be read back.
pub(crate) const TENSOR_USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);
