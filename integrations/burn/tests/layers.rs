//! Layers beside burn's own and float64: values, gradients, running statistics, records, what falls back.

use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use burn::module::Module;
use burn::nn;
use burn::tensor::{Device, Tensor, TensorData};
use wgnorm_burn::{
    BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig, LayerNorm,
    LayerNormConfig, RmsNorm, RmsNormConfig, fallback,
};

/// The device that is shared; what is counted is counted for all, so tests take turns.
fn device() -> (Device, MutexGuard<'static, ()>) {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let device = DEVICE.get_or_init(|| wgnorm_burn::init(Device::wgpu_options()).unwrap()).clone();
    (device, turn)
}

/// Numbers between -1 and 1, the same every time.
fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as f32 / 2_f32.powi(31) - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn tensor<const D: usize>(dims: [usize; D], seed: u32, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values(dims.iter().product(), seed), dims), device)
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

fn assert_close(what: &str, got: &[f32], expected: &[f64], bound: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let difference = (f64::from(got) - expected).abs();
        assert!(difference <= bound * (1.0 + expected.abs()), "{what}[{i}]: {got} is not {expected}");
    }
}

fn wide(values: Vec<f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}

/// y and gradients of a loss of y·dy.
fn pass<const D: usize>(
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
fn reference(
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

const DIMS: [usize; 4] = [4, 6, 5, 3];
const INNER: usize = 15;

fn channel(i: usize) -> usize {
    i / INNER % 6
}

#[test]
fn batch_norm_trains_as_burns() {
    let (device, _turn) = device();
    let train = device.clone().autodiff();
    let (before, copies) = (fallback::fallbacks(), fallback::copies());
    let mut ours = BatchNormConfig::new(6).init(&train);
    let (gamma, beta) = (tensor([6], 3, &train), tensor([6], 4, &train));
    ours.gamma = ours.gamma.map(|_| gamma.clone().require_grad());
    ours.beta = ours.beta.map(|_| beta.clone().require_grad());
    let theirs = nn::BatchNormConfig::new(6).init(&train);
    let theirs = nn::BatchNorm {
        gamma: theirs.gamma.map(|_| gamma.clone().require_grad()),
        beta: theirs.beta.map(|_| beta.clone().require_grad()),
        ..theirs
    };
    let (y, dx, gradients) = pass(|x| ours.forward(x), DIMS, &train);
    let (their_y, their_dx, their_gradients) = pass(|x| theirs.forward(x), DIMS, &train);
    let parameters = [host(gamma), host(beta)];
    let [of_y, of_dx, dgamma, dbeta] =
        reference(&DIMS, [&parameters[0], &parameters[1]], channel, channel, (1e-5, true));
    for (what, y, dx) in [("ours", &y, &dx), ("burn's", &their_y, &their_dx)] {
        assert_close(&format!("{what}: y"), y, &of_y, 1e-5);
        assert_close(&format!("{what}: dx"), dx, &of_dx, 1e-5);
    }
    let [got_gamma, got_beta] = [&ours.gamma, &ours.beta].map(|of| host(of.val().grad(&gradients).unwrap()));
    assert_close("dgamma", &got_gamma, &dgamma, 1e-5);
    assert_close("dbeta", &got_beta, &dbeta, 1e-5);
    let theirs_gamma = host(theirs.gamma.val().grad(&their_gradients).unwrap());
    assert_close("burn's dgamma", &theirs_gamma, &dgamma, 1e-4);

    // A second step, and the running statistics of both.
    pass(|x| ours.forward(x), DIMS, &train);
    pass(|x| theirs.forward(x), DIMS, &train);
    let [mean, var] = [&ours.running_mean, &ours.running_var].map(|state| host(state.value_sync()));
    let [their_mean, their_var] =
        [&theirs.running_mean, &theirs.running_var].map(|state| host(state.value_sync()));
    assert_close("running mean", &mean, &wide(their_mean), 1e-6);
    assert_close("running variance", &var, &wide(their_var), 1e-6);
    assert!(mean.iter().any(|mean| mean.abs() > 1e-3));

    // Inference, which the same layer does without autodiff.
    let x = tensor(DIMS, 5, &device);
    let (ours, theirs) = (ours.valid(), theirs.valid());
    let y = host(ours.forward(x.clone()));
    assert_close("inferred", &y, &wide(host(theirs.forward(x))), 1e-5);
    assert_eq!((fallback::fallbacks(), fallback::copies()), (before, copies));
}

#[test]
fn a_frozen_batch_norm_has_gradients_and_moves_nothing() {
    let (device, _turn) = device();
    let train = device.clone().autodiff();
    let ours = BatchNormConfig::new(6).init(&train);
    pass(|x| ours.forward(x), DIMS, &train);
    ours.running_mean.value_sync();
    let frozen = ours.freeze();
    assert!(!frozen.training.is_enabled());
    let theirs = nn::BatchNorm::from(frozen.clone());
    let mean = host(frozen.running_mean.value());
    let (y, dx, _) = pass(|x| frozen.forward(x), DIMS, &train);
    let (their_y, their_dx, _) = pass(|x| theirs.forward(x), DIMS, &train);
    assert_close("y", &y, &wide(their_y), 1e-5);
    assert_close("dx", &dx, &wide(their_dx), 1e-5);
    assert_eq!(host(frozen.running_mean.value()), mean);
}

#[test]
fn channels_that_lie_last_are_not_copied() {
    let (device, _turn) = device();
    let train = device.clone().autodiff();
    let ours = BatchNormConfig::new(6).init(&train);
    let first: Tensor<4> = tensor(DIMS, 1, &train);
    let last =
        Tensor::<4>::from_data(first.clone().permute([0, 2, 3, 1]).into_data(), &train).permute([0, 3, 1, 2]);
    let expected = host(ours.forward(first));
    let copies = fallback::copies();
    let x = last.require_grad();
    let y = ours.forward(x.clone());
    assert_close("y", &host(y.clone()), &wide(expected), 1e-6);
    assert_eq!(fallback::copies(), copies);
    // burn's own operations may leave dy in the other order, which then is one copy.
    let gradients = (y.clone() * y).sum().backward();
    assert!(x.grad(&gradients).is_some());
    assert!(fallback::copies() <= copies + 1);
}

#[test]
fn dy_may_be_x() {
    let (device, _turn) = device();
    let train = device.clone().autodiff();
    let ours = LayerNormConfig::new(8).init(&train);
    let x: Tensor<2> = tensor([3, 8], 1, &train);
    let own = x.clone().require_grad();
    // The gradient of y·x is x itself.
    let gradients = (ours.forward(own.clone()) * x.clone()).sum().backward();
    let theirs = ours.to_burn();
    let other = x.clone().require_grad();
    let their_gradients = (theirs.forward(other.clone()) * x).sum().backward();
    let [dx, their_dx] = [own.grad(&gradients), other.grad(&their_gradients)].map(|dx| host(dx.unwrap()));
    assert_close("dx", &dx, &wide(their_dx), 1e-5);
}

#[test]
fn the_family_is_that_of_float64_and_of_burn() {
    let (device, _turn) = device();
    let train = device.clone().autodiff();
    let before = fallback::fallbacks();
    let row = |i: usize| i / 3;
    let ones = |len: usize| vec![1.0_f32; len];

    let layer = LayerNormConfig::new(3).init(&train);
    let (y, dx, gradients) = pass(|x| layer.forward(x), DIMS, &train);
    let [of_y, of_dx, dgamma, dbeta] = reference(&DIMS, [&ones(3), &[]], row, |i| i % 3, (1e-5, true));
    assert_close("layer y", &y, &of_y, 1e-5);
    assert_close("layer dx", &dx, &of_dx, 2e-4);
    assert_close("layer dgamma", &host(layer.gamma.val().grad(&gradients).unwrap()), &dgamma, 1e-5);
    assert_close("layer dbeta", &host(layer.beta.unwrap().val().grad(&gradients).unwrap()), &dbeta, 1e-5);
    let bare = LayerNormConfig::new(3).with_bias(false).init(&train);
    assert_close("layer y, no beta", &pass(|x| bare.forward(x), DIMS, &train).0, &of_y, 1e-5);

    let rms = RmsNormConfig::new(3).init(&train);
    let (y, dx, gradients) = pass(|x| rms.forward(x), DIMS, &train);
    let [of_y, of_dx, dgamma, _] = reference(&DIMS, [&ones(3), &[]], row, |i| i % 3, (1e-5, false));
    assert_close("RMS y", &y, &of_y, 1e-5);
    assert_close("RMS dx", &dx, &of_dx, 2e-4);
    assert_close("RMS dgamma", &host(rms.gamma.val().grad(&gradients).unwrap()), &dgamma, 1e-5);

    let group = GroupNormConfig::new(2, 6).init(&train);
    let (y, dx, gradients) = pass(|x| group.forward(x), DIMS, &train);
    let slice = |i: usize| i / (3 * INNER);
    let [of_y, of_dx, dgamma, dbeta] = reference(&DIMS, [&ones(6), &[]], slice, channel, (1e-5, true));
    assert_close("group y", &y, &of_y, 1e-5);
    assert_close("group dx", &dx, &of_dx, 1e-5);
    assert_close("group dgamma", &host(group.gamma.unwrap().val().grad(&gradients).unwrap()), &dgamma, 1e-5);
    assert_close("group dbeta", &host(group.beta.unwrap().val().grad(&gradients).unwrap()), &dbeta, 1e-5);

    let instance = InstanceNormConfig::new(6).with_affine(false).init(&train);
    let (y, dx, _) = pass(|x| instance.forward(x), DIMS, &train);
    let [of_y, of_dx, ..] = reference(&DIMS, [&ones(6), &[]], |i| i / INNER, channel, (1e-5, true));
    assert_close("instance y", &y, &of_y, 1e-5);
    assert_close("instance dx", &dx, &of_dx, 2e-4);
    assert_eq!(fallback::fallbacks(), before);
}

#[test]
fn layers_of_burn_come_over_and_go_back() {
    let (device, _turn) = device();
    let x: Tensor<3> = tensor([2, 6, 4], 1, &device);
    let batch = nn::BatchNormConfig::new(6).init(&device);
    let expected = wide(host(batch.forward(x.clone())));
    let ours = BatchNorm::from(batch);
    assert_close("batch", &host(ours.forward(x.clone())), &expected, 1e-5);
    assert_close("batch, back", &host(nn::BatchNorm::from(ours).forward(x.clone())), &expected, 1e-5);
    let group = nn::GroupNormConfig::new(3, 6).init(&device);
    let expected = wide(host(group.forward(x.clone())));
    assert_close("group", &host(GroupNorm::from(group).forward(x.clone())), &expected, 1e-5);
    let instance = nn::InstanceNormConfig::new(6).init(&device);
    let expected = wide(host(instance.forward(x.clone())));
    assert_close("instance", &host(InstanceNorm::from(instance).forward(x.clone())), &expected, 1e-5);
    let rms = nn::RmsNormConfig::new(4).init(&device);
    let expected = wide(host(rms.forward(x.clone())));
    assert_close("RMS", &host(RmsNorm::from(rms).forward(x.clone())), &expected, 1e-5);
    let layer = nn::LayerNormConfig::new(4).with_epsilon(1e-3).init(&device);
    let expected = wide(host(layer.forward(x.clone())));
    assert_close("layer", &host(LayerNorm::with(layer, 1e-3).forward(x)), &expected, 1e-5);
}

#[test]
fn what_the_kernels_do_not_take_is_burns_counted_or_refused() {
    let (device, _turn) = device();
    // Of another backend.
    let other = Device::flex();
    assert!(wgnorm_burn::is_shared(&device) && wgnorm_burn::is_shared(&device.clone().autodiff()));
    assert!(!wgnorm_burn::is_shared(&other));
    let x: Tensor<2> = tensor([3, 8], 1, &other);
    let before = fallback::fallbacks();
    let layer = LayerNormConfig::new(8).init(&other);
    let y = host(layer.forward(x.clone()));
    assert_eq!(fallback::fallbacks(), before + 1);
    assert_close("y", &y, &wide(host(layer.to_burn().forward(x.clone()))), 0.0);
    fallback::set_strict(true);
    let refused = std::panic::catch_unwind(AssertUnwindSafe(|| layer.forward(x.clone())));
    fallback::set_strict(false);
    let message = *refused.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("LayerNorm") && message.contains("not shared"), "{message}");

    let layer = LayerNormConfig::new(8).init(&device);
    let wrong = std::panic::catch_unwind(AssertUnwindSafe(|| layer.forward(tensor([3, 7], 1, &device))));
    assert!(wrong.is_err(), "burn refuses another last axis");
}
