//! burn's wgpu devices, with wgnorm's context on the same wgpu device and queue.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::DispatchDevice;
use burn::tensor::Device;
use burn::tensor::wgpu::{WgpuInitError, WgpuOptions};
use burn_cubecl::CubeDevice;
use wgnorm::{Context, wgpu};

static CONTEXTS: Mutex<Vec<(CubeDevice, Context)>> = Mutex::new(Vec::new());

/// Why a device cannot be shared.
#[derive(Debug)]
#[non_exhaustive]
pub enum InitError {
    /// burn could not open it.
    Burn(WgpuInitError),
    /// The kernels cannot run on it.
    Wgnorm(wgnorm::Error),
    /// It is none of burn's wgpu backend.
    Backend,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Burn(error) => write!(f, "burn: {error:?}"),
            Self::Wgnorm(error) => write!(f, "{error}"),
            Self::Backend => f.write_str("expected a device of burn's wgpu backend"),
        }
    }
}

impl std::error::Error for InitError {}

/// Opens a device for burn as the options say, and shares it.
///
/// It must come before burn's first use of that device: cubecl does not give away the wgpu device of a client that it has opened itself.
///
/// ```no_run
/// use burn::tensor::Device;
/// let device = wgnorm_burn::init(Device::wgpu_options())?;
/// # Ok::<(), wgnorm_burn::InitError>(())
/// ```
///
/// # Errors
/// [`InitError`].
pub fn init(options: WgpuOptions) -> Result<Device, InitError> {
    let (device, setup) = options.init_with_setup().map_err(InitError::Burn)?;
    register(&device, setup.device, setup.queue)?;
    Ok(device)
}

/// Shares a device of burn's whose wgpu device and queue the application has.
///
/// # Errors
/// [`InitError::Wgnorm`], [`InitError::Backend`].
pub fn register(device: &Device, on: wgpu::Device, queue: wgpu::Queue) -> Result<(), InitError> {
    let context = Context::from_wgpu(on, queue).map_err(InitError::Wgnorm)?;
    let cube = cube_device(device).ok_or(InitError::Backend)?;
    let mut contexts = contexts();
    contexts.retain(|(known, _)| *known != cube);
    contexts.push((cube, context));
    Ok(())
}

/// Whether kernels of wgnorm run on a device, with autodiff or without.
pub fn is_shared(device: &Device) -> bool {
    cube_device(&device.clone().without_autodiff()).is_some_and(|cube| context_of(&cube).is_some())
}

/// The context of a device that is shared.
pub(crate) fn context_of(device: &CubeDevice) -> Option<Context> {
    contexts().iter().find(|(known, _)| known == device).map(|(_, context)| context.clone())
}

fn cube_device(device: &Device) -> Option<CubeDevice> {
    match device.as_dispatch() {
        DispatchDevice::Cube(cube) => Some(cube.clone()),
        _ => None,
    }
}

fn contexts() -> MutexGuard<'static, Vec<(CubeDevice, Context)>> {
    CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner)
}
