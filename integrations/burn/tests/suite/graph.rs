//! burn's graphs: finite differences, checkpointing, a graph walked twice, dropped, or on several devices.

use burn::module::Module;
use burn::nn;
use burn::tensor::{Device, Tensor};
use wgnorm_burn::{
    BatchNormConfig, DynamicTanhConfig, GroupNormConfig, InstanceNormConfig, LayerNormConfig, RmsNormConfig,
};

use crate::support::*;

/// Loss along a direction, by differences and by the gradient.
fn assert_slope(what: &str, device: &Device, forward: impl Fn(Tensor<4>) -> Tensor<4>) {
    let direction = values(DIMS.iter().product(), 11);
    let weights = values(DIMS.iter().product(), 2);
    let x = values(DIMS.iter().product(), 1);
    let at = |step: f32| {
        let moved: Vec<f32> = x.iter().zip(&direction).map(|(x, by)| x + step * by).collect();
        Tensor::<4>::from_data(burn::tensor::TensorData::new(moved, DIMS), device)
    };
    let loss = |step: f32| -> f64 {
        let y = wide(host(forward(at(step))));
        y.iter().zip(&weights).map(|(y, &weight)| y * f64::from(weight)).sum()
    };
    let step = 1.0 / 128.0;
    let by_differences = (loss(step) - loss(-step)) / (2.0 * f64::from(step));
    let x = at(0.0).require_grad();
    let gradients = (forward(x.clone()) * tensor(DIMS, 2, device)).sum().backward();
    let dx = wide(host(x.grad(&gradients).unwrap()));
    let by_gradient: f64 = dx.iter().zip(&direction).map(|(dx, &by)| dx * f64::from(by)).sum();
    let scale: f64 = dx.iter().map(|dx| dx * dx).sum::<f64>().sqrt();
    let difference = (by_differences - by_gradient).abs();
    assert!(
        difference < 2e-3 * scale,
        "{what}: {by_differences} by differences, {by_gradient} by the gradient"
    );
}

#[test]
fn gradients_are_slopes() {
    let (device, _turn) = device();
    let train = device.autodiff();
    let batch = BatchNormConfig::new(6).init(&train);
    let frozen = BatchNormConfig::new(6).init(&train).freeze();
    let group = GroupNormConfig::new(2, 6).init(&train);
    let instance = InstanceNormConfig::new(6).init(&train);
    // Rows of 3 are bent too much for differences: 15 values, as 5 · 3.
    let layer = LayerNormConfig::new(15).init(&train);
    let rms = RmsNormConfig::new(15).init(&train);
    let tanh = DynamicTanhConfig::new(3).init(&train);
    let rows = |x: Tensor<4>| x.reshape([24, 15]);
    assert_slope("batch", &train, |x| batch.forward(x));
    assert_slope("frozen", &train, |x| frozen.forward(x));
    assert_slope("group", &train, |x| group.forward(x));
    assert_slope("instance", &train, |x| instance.forward(x));
    assert_slope("layer", &train, |x| layer.forward(rows(x)).reshape(DIMS));
    assert_slope("RMS", &train, |x| rms.forward(rows(x)).reshape(DIMS));
    assert_slope("tanh", &train, |x| tanh.forward(x));
}

#[test]
fn checkpointing_changes_nothing() {
    let (device, _turn) = device();
    let step = |train: &Device| {
        let (batch, layer) = (BatchNormConfig::new(6).init(train), LayerNormConfig::new(3).init(train));
        // What is memory bound is computed again in backward, the norms' inputs among it.
        pass(|x| layer.forward(burn::tensor::activation::relu(batch.forward(x.exp()) + 0.5)), DIMS, train)
    };
    let (y, dx, _) = step(&device.clone().autodiff());
    let (again_y, again_dx, _) = step(&device.autodiff().gradient_checkpointing());
    assert_eq!(y, again_y);
    assert_close("dx", &dx, &wide(again_dx), 1e-6);
}

#[test]
fn a_graph_may_be_walked_twice_and_dropped() {
    let (device, _turn) = device();
    let train = device.autodiff();
    let layer = BatchNormConfig::new(6).init(&train);
    let theirs = nn::BatchNorm::from(layer.clone());
    // Two losses of one y; and burn's graphs are walked once, whosever the layer.
    let both = |forward: &dyn Fn(Tensor<4>) -> Tensor<4>| {
        let x: Tensor<4> = tensor(DIMS, 1, &train).require_grad();
        let y = forward(x.clone());
        let losses = [2, 3].map(|seed| (y.clone() * tensor(DIMS, seed, &train)).sum());
        let [first, second] = losses;
        let dx = host(x.grad(&(first.clone() + second).backward()).unwrap());
        (dx, panics(|| first.backward()))
    };
    let ((dx, again), (their_dx, their_again)) = (both(&|x| layer.forward(x)), both(&|x| theirs.forward(x)));
    assert_close("dx", &dx, &wide(their_dx), 1e-5);
    assert!(again.contains("already been consumed") && their_again.contains("already been consumed"));
    // The layer twice in one graph, its gradients added.
    let twice = |forward: &dyn Fn(Tensor<4>) -> Tensor<4>| pass(|x| forward(forward(x) * 2.0), DIMS, &train);
    let (y, dx, gradients) = twice(&|x| layer.forward(x));
    let dgamma = host(layer.gamma.val().grad(&gradients).unwrap());
    let (their_y, their_dx, gradients) = twice(&|x| theirs.forward(x));
    assert_close("y", &y, &wide(their_y), 1e-5);
    assert_close("dx", &dx, &wide(their_dx), 1e-5);
    assert_close("dgamma", &dgamma, &wide(host(theirs.gamma.val().grad(&gradients).unwrap())), 1e-4);
    // Graphs that nobody walks.
    for seed in 0..8 {
        drop(layer.forward(tensor::<4>(DIMS, seed, &train).require_grad()));
    }
    assert_eq!(host(layer.forward(tensor::<4>(DIMS, 1, &train))).len(), 360);
}

#[test]
fn gradients_that_nobody_asks_for_are_left_out() {
    let (device, _turn) = device();
    let train = device.autodiff();
    let layer = BatchNormConfig::new(6).init(&train);
    // Of parameters alone: x is a constant.
    let x: Tensor<4> = tensor(DIMS, 1, &train);
    let gradients = (layer.forward(x.clone()) * tensor(DIMS, 2, &train)).sum().backward();
    let (_, _, all) = pass(|x| layer.forward(x), DIMS, &train);
    let [some, all] = [gradients, all].map(|gradients| host(layer.gamma.val().grad(&gradients).unwrap()));
    assert_close("dgamma", &some, &wide(all), 1e-6);
    // Of x alone.
    let constant = layer.clone().no_grad();
    let (_, dx, gradients) = pass(|x| constant.forward(x), DIMS, &train);
    assert!(constant.gamma.val().grad(&gradients).is_none());
    assert_close("dx", &dx, &wide(pass(|x| layer.forward(x), DIMS, &train).1), 1e-6);
    // Of nothing.
    assert_eq!(constant.forward(x).dims(), DIMS);
}

#[test]
fn devices_have_layers_of_their_own() {
    let (device, _turn) = device();
    let devices = [device.autodiff(), other_device().autodiff()];
    assert_ne!(devices[0], devices[1]);
    let layer = BatchNormConfig::new(6).init(&devices[0]);
    let outputs: Vec<_> = devices
        .iter()
        .map(|device| {
            let layer = layer.clone().fork(device);
            let (y, dx, gradients) = pass(|x| layer.forward(x), DIMS, device);
            assert_eq!(layer.gamma.val().device(), *device);
            (y, dx, host(layer.gamma.val().grad(&gradients).unwrap()))
        })
        .collect();
    assert_eq!(outputs[0], outputs[1]);
    let layer = BatchNormConfig::new(6).init(&devices[0]);
    let message = panics(|| layer.forward(tensor::<4>(DIMS, 1, &devices[1])));
    assert!(message.contains("parameters on the device of x"), "{message}");
    // One layer of two threads, forked for each as burn has it (two graphs of the same leaves lock each other out, whosever the layer): running statistics are shared.
    std::thread::scope(|scope| {
        let threads = [0, 1].map(|_| {
            let layer = layer.clone().fork(&devices[0]);
            scope.spawn(|| pass(move |x| layer.forward(x), DIMS, &devices[0]).0)
        });
        assert!(threads.map(|thread| thread.join().unwrap()).iter().all(|y| *y == outputs[0].0));
    });
    // At once, from threads.
    let threads: Vec<_> = devices
        .into_iter()
        .map(|device| {
            std::thread::spawn(move || {
                let layer = BatchNormConfig::new(6).init(&device);
                (0..4).map(|_| pass(|x| layer.forward(x), DIMS, &device).0).collect::<Vec<_>>()
            })
        })
        .collect();
    for thread in threads {
        assert!(thread.join().unwrap().iter().all(|y| *y == outputs[0].0));
    }
}
