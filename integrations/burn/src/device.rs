//! burn's wgpu devices, with wgnorm's context on the same wgpu device and queue.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::backend::DispatchDevice;
use burn::tensor::Device;
use burn::tensor::wgpu::WgpuOptions;
use burn_cubecl::CubeDevice;
use wgnorm::{Context, Tensor, wgpu};

use crate::RmsNormConfig;
use crate::error::Error;

static SHARED: Mutex<Vec<Shared>> = Mutex::new(Vec::new());

/// A device that is shared.
#[derive(Clone)]
pub(crate) struct Shared {
    device: CubeDevice,
    pub context: Context,
    /// Room for running statistics of so many channels while a pass updates them, which submissions use one after the other.
    running: Arc<Mutex<HashMap<usize, Tensor>>>,
}

impl Shared {
    /// Room of its own for running statistics, `[3, C]`: burn's lie wherever its allocator puts them, perhaps all in one buffer, within which wgpu copies nothing.
    pub async fn running(&self, channels: usize) -> wgnorm::Result<Tensor> {
        if let Some(tensor) = lock(&self.running).get(&channels) {
            return Ok(tensor.clone());
        }
        let tensor = self.context.zeros(&[3, channels]).await?;
        Ok(lock(&self.running).entry(channels).or_insert(tensor).clone())
    }
}

/// Opens a device for burn as the options say, and shares it.
///
/// It must come before burn's first use of that device: cubecl does not give away the wgpu device of a client that it has opened itself.
///
/// ```no_run
/// use burn::tensor::Device;
/// let device = wgnorm_burn::init(Device::wgpu_options())?;
/// # Ok::<(), wgnorm_burn::Error>(())
/// ```
///
/// # Errors
/// [`Error`].
pub fn init(options: WgpuOptions) -> Result<Device, Error> {
    let (device, setup) = options.init_with_setup().map_err(Error::Burn)?;
    share(&device, setup.device, setup.queue)?;
    Ok(device)
}

/// Shares a device of burn's whose wgpu device and queue the application has: those of the setup that burn was given. Runs a norm of two numbers, to see that they are.
///
/// # Errors
/// [`Error::Wgnorm`], [`Error::Backend`], [`Error::OtherDevice`], which takes the share back.
pub fn register(device: &Device, on: wgpu::Device, queue: wgpu::Queue) -> Result<(), Error> {
    share(device, on, queue)?;
    let device = device.clone().without_autodiff();
    let norm = RmsNormConfig::new(2).with_epsilon(0.5).init(&device);
    // The mean square is 12.5. Without fusion what goes wrong is told by a panic, with it by the read.
    let y = catch_unwind(AssertUnwindSafe(|| {
        let x = burn::tensor::Tensor::<2>::from_floats([[3.0, 4.0]], &device);
        norm.forward(x).try_into_data().map_err(|error| format!("{error:?}"))
    }));
    let y = y.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        Err(message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned())
    });
    let got = match y {
        Ok(y) => {
            let y: Vec<f32> = y.iter::<f32>().collect();
            let expected = [3.0, 4.0].map(|x| x / 13_f32.sqrt());
            if y.len() == 2 && y.iter().zip(expected).all(|(y, expected)| (y - expected).abs() < 1e-5) {
                return Ok(());
            }
            format!("{y:?}, expected {expected:?}")
        }
        Err(error) => error,
    };
    let cube = cube_device(&device);
    lock(&SHARED).retain(|shared| Some(&shared.device) != cube.as_ref());
    Err(Error::OtherDevice { got })
}

fn share(device: &Device, on: wgpu::Device, queue: wgpu::Queue) -> Result<(), Error> {
    let context = Context::from_wgpu(on, queue)?;
    let device = cube_device(device).ok_or(Error::Backend)?;
    let mut all = lock(&SHARED);
    all.retain(|shared| shared.device != device);
    all.push(Shared { device, context, running: Arc::default() });
    Ok(())
}

/// Whether kernels of wgnorm run on a device, with autodiff or without.
pub fn is_shared(device: &Device) -> bool {
    cube_device(&device.clone().without_autodiff()).is_some_and(|cube| find(&cube).is_some())
}

/// The context of a device, with autodiff or without.
pub(crate) fn shared(device: &Device) -> Result<Context, Error> {
    let cube = cube_device(&device.clone().without_autodiff());
    let found = cube.and_then(|cube| find(&cube));
    found.map(|shared| shared.context).ok_or_else(|| Error::NotShared(device.clone()))
}

/// A device that is shared.
pub(crate) fn find(device: &CubeDevice) -> Option<Shared> {
    lock(&SHARED).iter().find(|shared| shared.device == *device).cloned()
}

fn cube_device(device: &Device) -> Option<CubeDevice> {
    match device.as_dispatch() {
        DispatchDevice::Cube(cube) => Some(cube.clone()),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
