//! A context's device: opening one, what is kept for it, and what runs on it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::base::error::{Error, Result};
use crate::engine::adapter::{self, ContextOptions, ShaderChecks};
use crate::engine::context::{Context, MOST_RECIPES, Shared};
use crate::engine::disk_cache::{DiskCache, PipelineCacheState};
use crate::engine::memo::Memo;
use crate::engine::pipelines::PipelineCache;
use crate::engine::prepared::Prepared;
use crate::engine::probe::{self, Probes};
#[cfg(not(target_family = "wasm"))]
use crate::engine::pulse;
use crate::engine::ready::{Absent, Ready};
use crate::engine::scope::{ALL, left, scoped_for};
use crate::engine::scratch::Pool;
use crate::engine::tune::{self, Autotuning, LoadedTunings, PinnedTuning, Pins};
use crate::plan::Capabilities;

/// A device with what is kept for it.
#[derive(Debug)]
pub(super) struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    shader_checks: ShaderChecks,
    pipelines: PipelineCache,
    recipes: Memo<Ready>,
    scratch: Arc<Pool>,
    absent: Absent,
    disk_cache: DiskCache,
    /// Why the device was lost; only known for devices that the crate opened itself.
    lost: Arc<Mutex<Option<String>>>,
}

/// Where size and usage are fine, memory is all that there can be too little of.
const MEMORY: &[wgpu::ErrorFilter] = &[wgpu::ErrorFilter::OutOfMemory];

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
        context.listen_for_loss();
        Ok(context)
    }

    fn listen_for_loss(&self) {
        let lost = self.gpu().lost.clone();
        self.device().set_device_lost_callback(move |reason, message| {
            *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{reason:?}: {message}"));
        });
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
        let adapter = device.adapter_info();
        let capabilities = Capabilities::new(&device.limits(), device.features(), &adapter)?;
        let gpu = Gpu {
            disk_cache: DiskCache::open(&device, options.pipeline_cache.as_deref()),
            absent: Absent::new(&device),
            device,
            queue,
            shader_checks: options.shader_checks,
            pipelines: PipelineCache::default(),
            recipes: Memo::new(MOST_RECIPES),
            scratch: Arc::default(),
            lost: Arc::default(),
        };
        let context = Self::of(Shared {
            gpu: Some(gpu),
            ..Shared::new(capabilities, Probes::of_backend(adapter.backend))
        });
        // In a browser a callback is one of many. Elsewhere there is one, and it is the application's.
        #[cfg(target_family = "wasm")]
        context.listen_for_loss();
        Ok(context)
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
    /// let y = context.block_on(layer.infer(&x))?;
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
        tune::Header::of(self.device())
    }

    /// The wgpu device.
    pub fn device(&self) -> &wgpu::Device {
        &self.gpu().device
    }

    /// The wgpu queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.gpu().queue
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
        self.gpu().pipelines.keys()
    }

    /// What became of [`ContextOptions::pipeline_cache`] when the context was made.
    pub fn pipeline_cache(&self) -> &PipelineCacheState {
        self.gpu().disk_cache.state()
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
        self.gpu().disk_cache.save()
    }

    pub(crate) fn shader_checks(&self) -> ShaderChecks {
        self.gpu().shader_checks
    }

    pub(crate) fn disk_cache(&self) -> &DiskCache {
        &self.gpu().disk_cache
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.shared.pins
    }

    pub(crate) fn pipelines(&self) -> &PipelineCache {
        &self.gpu().pipelines
    }

    pub(crate) fn recipes(&self) -> &Memo<Ready> {
        &self.gpu().recipes
    }

    pub(crate) fn scratch(&self) -> &Arc<Pool> {
        &self.gpu().scratch
    }

    pub(crate) fn absent(&self) -> &Absent {
        &self.gpu().absent
    }

    /// Records operations in order and submits them.
    ///
    /// # Errors
    /// [`Error::ForeignDevice`] if one was prepared with another context; [`Error::Validation`] if a buffer was
    /// destroyed in the meantime; [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn submit(&self, operations: &[&Prepared]) -> Result<()> {
        self.submit_between(|_| {}, operations, |_| {}).await
    }

    /// As [`submit`](Self::submit), between commands of the application's, all in one submission: copies from where a framework has what the operations
    /// read, and to where it wants what they write.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), of the commands too.
    pub async fn submit_between(
        &self,
        before: impl FnOnce(&mut wgpu::CommandEncoder),
        operations: &[&Prepared],
        after: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<()> {
        if operations.iter().any(|operation| operation.home() != self.id()) {
            return Err(Error::ForeignDevice { what: "a prepared operation" });
        }
        if self.shared.gpu.is_none() {
            // What is prepared here is noted, and does nothing.
            return Ok(());
        }
        left(self, ALL, "a submission", || {
            let mut encoder = self
                .device()
                .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("wgnorm") });
            before(&mut encoder);
            for operation in operations {
                operation.record_own(&mut encoder);
            }
            after(&mut encoder);
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

    /// Finds out whether the device was lost. In a browser the page is told at some time after it was.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub(crate) fn check_lost(&self) -> Result<()> {
        if self.shared.gpu.is_none() {
            return Ok(());
        }
        let reason = || self.gpu().lost.lock().unwrap_or_else(PoisonError::into_inner).clone();
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

    /// A buffer of zeros of the device, which is there.
    pub(crate) async fn create_gpu_buffer(
        &self,
        what: &'static str,
        size: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        self.check_size(what, size, 1)?;
        self.check_lost()?;
        scoped_for(self, MEMORY, what, || self.new_buffer(what, size, usage)).await
    }

    /// A buffer of zeros of the device, whose verdict is that of the call that it is made in.
    pub(super) async fn leave_gpu_buffer(
        &self,
        what: &'static str,
        size: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        self.check_lost()?;
        left(self, MEMORY, what, || self.new_buffer(what, size, usage)).await
    }

    fn new_buffer(&self, what: &'static str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let label = Some(what);
        self.device().create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
    }

    pub(super) async fn write_gpu(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        left(self, ALL, "an upload", || self.queue().write_buffer(buffer, offset, bytes)).await
    }

    fn gpu(&self) -> &Gpu {
        let gpu = self.shared.gpu.as_ref();
        gpu.unwrap_or_else(|| unreachable!("a context without a device plans, and does nothing else"))
    }

    /// Whether there is a device, and operations are not only noted.
    pub(crate) fn runs(&self) -> bool {
        self.shared.gpu.is_some() && self.rehearsal().is_none()
    }
}
