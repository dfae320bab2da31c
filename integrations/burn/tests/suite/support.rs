//! What the tests share: devices, numbers, a reference in float64.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor, TensorData};
use wgnorm_burn::wgnorm::wgpu;

/// The device that is shared; what is counted is counted for all, so tests take turns.
pub fn device() -> (Device, MutexGuard<'static, ()>) {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let device = DEVICE.get_or_init(|| wgnorm_burn::init(Device::wgpu_options()).unwrap()).clone();
    (device, turn)
}

/// Another, of a wgpu device of its own.
pub fn other_device() -> Device {
    static OTHER: OnceLock<Device> = OnceLock::new();
    OTHER.get_or_init(open_other).clone()
}

fn open_other() -> Device {
    let instance = wgpu::Instance::default();
    let adapter =
        pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    let descriptor = wgpu::DeviceDescriptor {
        // burn takes what an adapter has; what is experimental would take an unsafe call.
        required_features: adapter
            .features()
            .difference(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS | wgpu::Features::all_experimental_mask()),
        required_limits: adapter.limits(),
        ..wgpu::DeviceDescriptor::default()
    };
    let request = || pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    let ((device, queue), (wrong, wrong_queue)) = (request(), request());
    let backend = adapter.get_info().backend;
    let setup = WgpuSetup { instance, adapter, device: device.clone(), queue: queue.clone(), backend };
    let opened = Device::wgpu_options().setup(setup).init().unwrap();
    let refused = wgnorm_burn::register(&opened, wrong, wrong_queue).unwrap_err();
    assert!(
        matches!(refused, wgnorm_burn::Error::OtherDevice { .. }) && !wgnorm_burn::is_shared(&opened),
        "{refused}"
    );
    wgnorm_burn::register(&opened, device, queue).unwrap();
    opened
}

/// Numbers between -1 and 1, the same every time.
pub fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as f32 / 2_f32.powi(31) - 1.0
    };
    (0..len).map(|_| next()).collect()
}

pub fn tensor<const D: usize>(dims: [usize; D], seed: u32, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values(dims.iter().product(), seed), dims), device)
}

pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

pub fn assert_close(what: &str, got: &[f32], expected: &[f64], bound: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let difference = (f64::from(got) - expected).abs();
        assert!(difference <= bound * (1.0 + expected.abs()), "{what}[{i}]: {got} is not {expected}");
    }
}

pub fn wide(values: Vec<f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}

/// y and gradients of a loss of y·dy.
pub fn pass<const D: usize>(
    forward: impl FnOnce(Tensor<D>) -> Tensor<D>,
    dims: [usize; D],
    device: &Device,
) -> (Vec<f32>, Vec<f32>, burn::tensor::Gradients) {
    let x = tensor(dims, 1, device).require_grad();
    let y = forward(x.clone());
    let gradients = (y.clone() * tensor(dims, 2, device)).sum().backward();
    let dx = x.grad(&gradients).unwrap();
    (host(y), host(dx), gradients)
}

/// y, dx, dgamma, dbeta of slices in float64; `slice` and `parameter` of an element are numbers.
pub fn reference(
    dims: &[usize],
    [gamma, beta]: [&[f32]; 2],
    slice: impl Fn(usize) -> usize,
    parameter: impl Fn(usize) -> usize,
    (epsilon, centred): (f64, bool),
) -> [Vec<f64>; 4] {
    let len = dims.iter().product();
    let (x, dy) = (wide(values(len, 1)), wide(values(len, 2)));
    let slices = (0..len).map(&slice).max().unwrap() + 1;
    let mut members = vec![Vec::new(); slices];
    (0..len).for_each(|i| members[slice(i)].push(i));
    let [mut y, mut dx] = [vec![0.0; len], vec![0.0; len]];
    let [mut dgamma, mut dbeta] = [vec![0.0; gamma.len()], vec![0.0; gamma.len()]];
    for slice in members {
        let mean_of =
            |of: &dyn Fn(usize) -> f64| slice.iter().map(|&i| of(i)).sum::<f64>() / slice.len() as f64;
        let mean = if centred { mean_of(&|i| x[i]) } else { 0.0 };
        let inverse = 1.0 / (mean_of(&|i| (x[i] - mean).powi(2)) + epsilon).sqrt();
        let xhat = |i: usize| (x[i] - mean) * inverse;
        let g = |i: usize| f64::from(gamma[parameter(i)]) * dy[i];
        let first = if centred { mean_of(&g) } else { 0.0 };
        let second = mean_of(&|i| g(i) * xhat(i));
        for &i in &slice {
            let p = parameter(i);
            y[i] = xhat(i) * f64::from(gamma[p]) + beta.get(p).map_or(0.0, |&beta| f64::from(beta));
            dx[i] = inverse * (g(i) - first - xhat(i) * second);
            dgamma[p] += dy[i] * xhat(i);
            dbeta[p] += dy[i];
        }
    }
    [y, dx, dgamma, dbeta]
}

pub const DIMS: [usize; 4] = [4, 6, 5, 3];
pub const INNER: usize = 15;

pub fn channel(i: usize) -> usize {
    i / INNER % 6
}

/// What something panics with.
pub fn panics<T>(act: impl FnOnce() -> T) -> String {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).err().expect("a panic");
    match caught.downcast::<String>() {
        Ok(message) => *message,
        Err(other) => other.downcast::<&str>().map(|message| message.to_string()).unwrap(),
    }
}
