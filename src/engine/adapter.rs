//! Choosing an adapter and opening a device.

use std::path::PathBuf;

use crate::base::error::{Error, Result};
use crate::base::setters::setters;
#[cfg(not(target_family = "wasm"))]
use crate::engine::fingerprint;

/// Whether kernels run with the bounds checks and loop bounds that wgpu injects into shaders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShaderChecks {
    /// Without: the crate's shaders are trusted. Faster; no effect in a browser, which always checks.
    #[default]
    Trusted,
    /// With, as for shaders of unknown origin. For tests, and for finding out whose fault a lost device is.
    Checked,
}

/// Choices for [`Context::headless_with`](crate::Context::headless_with), and as far as they are not about choosing an adapter for
/// [`Context::from_wgpu_with`](crate::Context::from_wgpu_with).
///
/// Starts from what an earlier process compiled:
///
/// ```
/// use wgnorm::{Context, ContextOptions};
/// # let directory = std::env::temp_dir().join(format!("wgnorm-doc-{}", std::process::id()));
/// let options = ContextOptions::default().pipeline_cache(directory.clone());
/// let context = Context::headless_with(&options);
/// # let context = pollster::block_on(context)?;
/// // … use it, and at the end, or when all kernels are compiled:
/// context.save_pipeline_cache()?;
/// println!("pipeline cache: {}", context.pipeline_cache());
/// # let _ = std::fs::remove_dir_all(&directory);
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ContextOptions {
    /// Take the first adapter whose name contains this text, in any case. Overrides `WGPU_ADAPTER_NAME`.
    pub adapter_name: Option<String>,
    /// Which kind of adapter to prefer where none is named. Overrides `WGPU_POWER_PREF`; high performance if neither is given.
    pub power_preference: Option<wgpu::PowerPreference>,
    /// Where to look for adapters: a part of those that were built in and that `WGPU_BACKEND` allows (all but OpenGL if that is not set).
    pub backends: Option<wgpu::Backends>,
    /// Checks in shaders.
    pub shader_checks: ShaderChecks,
    /// A directory for compiled kernels, in a file per adapter. It is read when the context is made, and written by
    /// [`Context::save_pipeline_cache`](crate::Context::save_pipeline_cache) alone, which creates the directory too.
    ///
    /// Where wgpu has no pipeline caches (all but Vulkan), this has no effect, and
    /// [`Context::pipeline_cache`](crate::Context::pipeline_cache) says so. A file that cannot be used is no error either.
    /// A checksum guards against damage, not against forgery: drivers trust what such a file holds, so the directory should be
    /// one that nobody else can write to.
    pub pipeline_cache: Option<PathBuf>,
}

setters!(impl ContextOptions {
    adapter_name: String,
    power_preference: wgpu::PowerPreference,
    backends: wgpu::Backends,
    pipeline_cache: PathBuf,
});

impl ContextOptions {
    /// The same, with checks in shaders or without.
    #[must_use]
    pub fn shader_checks(self, shader_checks: ShaderChecks) -> Self {
        Self { shader_checks, ..self }
    }
}

/// An adapter, its driver and the shaders of this crate, in words: compiled kernels are of use to the same alone.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn identity(info: &wgpu::AdapterInfo) -> String {
    let driver = format!("{} {}", info.driver, info.driver_info);
    format!("{} ({}), {}, shaders {:016x}", info.name, info.backend, driver.trim(), fingerprint::shaders())
}

/// The instance that all headless contexts of a process share, so that wgpu can tell their buffers apart.
#[cfg(not(target_family = "wasm"))]
fn instance() -> wgpu::Instance {
    static INSTANCE: std::sync::OnceLock<wgpu::Instance> = std::sync::OnceLock::new();
    INSTANCE.get_or_init(|| wgpu::Instance::new(instance_descriptor())).clone()
}

#[cfg(target_family = "wasm")]
fn instance() -> wgpu::Instance {
    wgpu::Instance::new(instance_descriptor())
}

/// `WGPU_BACKEND` and the other variables that wgpu documents. OpenGL only if it is asked for: few of its drivers offer
/// the storage buffers that the kernels need.
fn instance_descriptor() -> wgpu::InstanceDescriptor {
    wgpu::InstanceDescriptor {
        backends: backends(),
        ..wgpu::InstanceDescriptor::new_without_display_handle_from_env()
    }
}

fn backends() -> wgpu::Backends {
    wgpu::Backends::from_env().unwrap_or(wgpu::Backends::PRIMARY)
}

/// The adapters that exist for the backends in `WGPU_BACKEND` (Vulkan, Metal, DX12 and WebGPU if it is not set).
pub async fn adapters() -> Vec<wgpu::Adapter> {
    instance().enumerate_adapters(backends()).await
}

/// The adapter with the wanted name, else the best of the preferred kind.
pub(crate) async fn request_adapter(options: &ContextOptions) -> Result<wgpu::Adapter> {
    let wanted = options.adapter_name.clone().or_else(|| std::env::var("WGPU_ADAPTER_NAME").ok());
    let among = options.backends.unwrap_or(wgpu::Backends::all()) & backends();
    let all = || instance().enumerate_adapters(among);
    let no_adapter = |reason: String, adapters: &[wgpu::Adapter]| Error::NoAdapter {
        wanted: wanted.clone(),
        available: adapters.iter().map(|adapter| adapter.get_info().name).collect(),
        reason,
    };
    if let Some(name) = &wanted {
        let (lower, mut adapters) = (name.to_lowercase(), all().await);
        let found =
            adapters.iter().position(|adapter| adapter.get_info().name.to_lowercase().contains(&lower));
        return match found {
            Some(found) => Ok(adapters.swap_remove(found)),
            None => Err(no_adapter("no name matches".to_owned(), &adapters)),
        };
    }
    let preferred = options.power_preference.or_else(wgpu::PowerPreference::from_env);
    let power_preference = preferred.unwrap_or(wgpu::PowerPreference::HighPerformance);
    // wgpu has no say in which backends its choice is from, so where that is to be decided, it is here.
    if options.backends.is_some() {
        let mut adapters = all().await;
        return match best(&adapters, power_preference) {
            Some(found) => Ok(adapters.swap_remove(found)),
            None => Err(no_adapter(format!("there is none of {among:?}"), &adapters)),
        };
    }
    let request = wgpu::RequestAdapterOptions { power_preference, ..Default::default() };
    match instance().request_adapter(&request).await {
        Ok(adapter) => Ok(adapter),
        Err(error) => Err(no_adapter(error.to_string(), &all().await)),
    }
}

/// The adapter of the preferred kind, as wgpu prefers them; of several the first.
fn best(adapters: &[wgpu::Adapter], preference: wgpu::PowerPreference) -> Option<usize> {
    use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu, Other, VirtualGpu};
    let order = match preference {
        wgpu::PowerPreference::LowPower => [IntegratedGpu, DiscreteGpu, Other, VirtualGpu, Cpu],
        _ => [DiscreteGpu, IntegratedGpu, Other, VirtualGpu, Cpu],
    };
    let place = |adapter: &wgpu::Adapter| order.iter().position(|of| *of == adapter.get_info().device_type);
    (0..adapters.len()).min_by_key(|&i| place(&adapters[i]))
}

/// A device with everything that the adapter allows, so that large tensors can be bound.
pub(crate) async fn request_device(
    adapter: &wgpu::Adapter,
    options: &ContextOptions,
) -> Result<(wgpu::Device, wgpu::Queue)> {
    // Timestamps are for measuring; where they are missing wall time must do. Without subgroups teams merge through workgroup
    // memory.
    let mut wanted = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SUBGROUP;
    if options.pipeline_cache.is_some() {
        wanted |= wgpu::Features::PIPELINE_CACHE;
    }
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("wgnorm"),
        required_features: adapter.features() & wanted,
        required_limits: adapter.limits(),
        ..Default::default()
    };
    adapter
        .request_device(&descriptor)
        .await
        .map_err(|error| Error::RequestDevice { reason: error.to_string() })
}
