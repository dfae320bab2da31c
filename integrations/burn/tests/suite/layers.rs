//! Layers beside burn's own and float64: values, gradients, running statistics, what falls back.

use std::panic::AssertUnwindSafe;

use burn::module::Module;
use burn::nn;
use burn::tensor::{Device, Tensor};
use wgnorm_burn::{
    BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig, LayerNorm,
    LayerNormConfig, RmsNorm, RmsNormConfig, fallback,
};

use crate::support::*;

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
    let dx = x.grad(&gradients).unwrap();
    assert!(fallback::copies() <= copies + 1);
    let x: Tensor<4> = tensor(DIMS, 1, &train).require_grad();
    let y = ours.forward(x.clone());
    let gradients = (y.clone() * y).sum().backward();
    assert_close("dx", &host(dx), &wide(host(x.grad(&gradients).unwrap())), 1e-5);
    // Of groups, and frozen.
    let (group, frozen) = (GroupNormConfig::new(2, 6).init(&train), ours.freeze());
    let first: Tensor<4> = tensor(DIMS, 1, &train);
    let last = || {
        let last = first.clone().permute([0, 2, 3, 1]).into_data();
        Tensor::<4>::from_data(last, &train).permute([0, 3, 1, 2])
    };
    let copies = fallback::copies();
    assert_close("group", &host(group.forward(last())), &wide(host(group.forward(first.clone()))), 1e-6);
    assert_close("frozen", &host(frozen.forward(last())), &wide(host(frozen.forward(first.clone()))), 1e-6);
    assert_eq!(fallback::copies(), copies);
}

#[test]
fn what_the_layer_and_the_batch_say_is_what_burns_do() {
    let (device, _turn) = device();
    let train = device.clone().autodiff();
    // A layer whose flag is off, but whose parameters train.
    let mut ours = BatchNormConfig::new(6).init(&train);
    ours.running_mean.update(tensor([6], 5, &train));
    ours.running_mean.value_sync();
    ours.training = ours.training.map(|flag| flag.with(false));
    let theirs = nn::BatchNorm::from(ours.clone());
    let (y, dx, gradients) = pass(|x| ours.forward(x), DIMS, &train);
    let (their_y, their_dx, their_gradients) = pass(|x| theirs.forward(x), DIMS, &train);
    assert_close("y", &y, &wide(their_y), 1e-5);
    assert_close("dx", &dx, &wide(their_dx), 1e-5);
    for (ours, theirs) in [(&ours.gamma, &theirs.gamma), (&ours.beta, &theirs.beta)] {
        let [got, expected] = [(ours, &gradients), (theirs, &their_gradients)]
            .map(|(parameter, gradients)| host(parameter.val().grad(gradients).unwrap()));
        assert_close("parameters", &got, &wide(expected), 1e-4);
    }
    // One value of each channel, and a momentum of 0.
    let ours = BatchNormConfig::new(6).with_momentum(0.0).init(&train);
    let y = ours.forward(tensor::<4>([1, 6, 1, 1], 1, &train));
    assert!(host(y).iter().all(|&y| y == 0.0));
    assert_eq!(host(ours.running_mean.value_sync()), [0.0; 6]);
    assert_eq!(host(ours.running_var.value_sync()), [1.0; 6]);
    // A layer that could train, of an x without a graph.
    let layer = LayerNormConfig::new(3).init(&train);
    let (x, dy): (Tensor<4>, Tensor<4>) = (tensor(DIMS, 1, &device), tensor(DIMS, 2, &train));
    let gradients = (layer.forward(x.clone()) * dy.clone()).sum().backward();
    let got = host(layer.gamma.val().grad(&gradients).unwrap());
    let gradients = (layer.forward(Tensor::from_inner(x)) * dy).sum().backward();
    assert_close("dgamma", &got, &wide(host(layer.gamma.val().grad(&gradients).unwrap())), 1e-6);
    // Without its parameters, though it has them.
    let mut bare = GroupNormConfig::new(2, 6).init(&device);
    bare.gamma = bare.gamma.map(|gamma| gamma.map(|gamma| gamma * 3.0));
    bare.affine = false;
    let x: Tensor<4> = tensor(DIMS, 1, &device);
    let expected = wide(host(nn::GroupNorm::from(bare.clone()).forward(x.clone())));
    assert_close("bare", &host(bare.forward(x)), &expected, 1e-5);
    // An epsilon that f32 does not have as a normal number.
    let before = fallback::fallbacks();
    let tiny = LayerNormConfig::new(3).with_epsilon(1e-40).init(&device);
    tiny.forward(tensor::<4>(DIMS, 1, &device)).into_data();
    assert_eq!(fallback::fallbacks(), before + 1);
    // Parameters that repeat one value in memory.
    let mut expanded = LayerNormConfig::new(8).init(&device);
    expanded.gamma = expanded.gamma.map(|_| Tensor::<1>::from_floats([2.5], &device).expand([8]));
    let x: Tensor<2> = tensor([3, 8], 1, &device);
    let expected = wide(host(expanded.to_burn().forward(x.clone())));
    assert_close("expanded", &host(expanded.forward(x)), &expected, 1e-5);
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

/// Every rank that a layer takes, beside burn's.
macro_rules! ranks {
    ($device:expr; $($dims:expr),*) => {$({
        let x = tensor($dims, 1, $device);
        let [_, channels, ..] = $dims;
        let last = $dims[$dims.len() - 1];
        let batch = BatchNormConfig::new(channels).init($device);
        let group = GroupNormConfig::new(2, channels).init($device);
        let instance = InstanceNormConfig::new(channels).init($device);
        let layer = LayerNormConfig::new(last).init($device);
        let rms = RmsNormConfig::new(last).init($device);
        let theirs = nn::BatchNorm::from(batch.clone()).forward(x.clone());
        assert_close("batch", &host(batch.forward(x.clone())), &wide(host(theirs)), 2e-5);
        let theirs = nn::GroupNorm::from(group.clone()).forward(x.clone());
        assert_close("group", &host(group.forward(x.clone())), &wide(host(theirs)), 2e-5);
        if $dims.len() > 2 {
            let theirs = nn::InstanceNorm::from(instance.clone()).forward(x.clone());
            assert_close("instance", &host(instance.forward(x.clone())), &wide(host(theirs)), 1e-4);
        }
        assert_close("layer", &host(layer.forward(x.clone())), &wide(host(layer.to_burn().forward(x.clone()))), 1e-4);
        let theirs = nn::RmsNorm::from(rms.clone()).forward(x.clone());
        assert_close("RMS", &host(rms.forward(x)), &wide(host(theirs)), 2e-5);
    })*};
}

#[test]
fn tensors_of_any_rank_are_taken() {
    let (device, _turn) = device();
    let before = fallback::fallbacks();
    ranks!(&device.clone().autodiff(); [6, 4], [3, 4, 5], [3, 4, 2, 5], [2, 4, 3, 2, 5], [2, 4, 2, 3, 2, 3]);
    ranks!(&device; [6, 4], [3, 4, 5], [3, 4, 2, 5], [2, 4, 3, 2, 5]);
    let layer = LayerNormConfig::new(8).init(&device);
    let x: Tensor<1> = tensor([8], 1, &device);
    assert_close("row", &host(layer.forward(x.clone())), &wide(host(layer.to_burn().forward(x))), 1e-5);
    assert_eq!(fallback::fallbacks(), before);
}

#[test]
fn what_does_not_lie_densely_is_copied_and_counted() {
    let (device, _turn) = device();
    let train = device.autodiff();
    let norm = BatchNormConfig::new(6).init(&train);
    let layer = LayerNormConfig::new(3).init(&train);
    let x: Tensor<4> = tensor([5, 6, 4, 3], 1, &train);
    let dense = |x: Tensor<4>| Tensor::<4>::from_data(x.into_data(), &train);
    let views = [
        ("two axes changed", x.clone().swap_dims(0, 2).swap_dims(0, 2).swap_dims(2, 3).swap_dims(2, 3)),
        ("of another order", tensor::<4>([4, 6, 5, 3], 1, &train).swap_dims(0, 2)),
        ("a part of each row", tensor::<4>([5, 6, 4, 9], 1, &train).slice([0..5, 0..6, 0..4, 3..6])),
        ("some samples", tensor::<4>([9, 6, 4, 3], 1, &train).slice([3..8, 0..6, 0..4, 0..3])),
        ("one sample again and again", x.clone().slice([0..1, 0..6, 0..4, 0..3]).expand([5, 6, 4, 3])),
    ];
    for (what, view) in views {
        let expected = [host(norm.forward(dense(view.clone()))), host(layer.forward(dense(view.clone())))];
        let got = [host(norm.forward(view.clone())), host(layer.forward(view.clone()))];
        assert_eq!(got, expected, "{what}");
    }
    let copies = fallback::copies();
    layer.forward(tensor::<4>([4, 6, 5, 3], 1, &train).swap_dims(0, 2)).into_data();
    assert_eq!(fallback::copies(), copies + 1);
    // Nothing, which is burn's affair.
    let before = fallback::fallbacks();
    let flex = Device::flex();
    let empty = LayerNormConfig::new(3).init(&flex).forward(Tensor::<2>::empty([0, 3], &flex));
    assert_eq!((empty.dims(), fallback::fallbacks()), ([0, 3], before + 1));
}
