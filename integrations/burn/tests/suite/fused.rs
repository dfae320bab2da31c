//! Activations, residuals, masks and 16-bit types in the layers' own pass, beside burn's separate operations.

use burn::nn;
use burn::tensor::{DType, Device, Tensor, activation};
use wgnorm_burn::{
    Activation, BatchNormConfig, DynamicTanhConfig, GroupNormConfig, Input, InstanceNormConfig,
    LayerNormConfig, Mask, RmsNormConfig, fallback,
};

use crate::support::*;

/// y, dx and d_residual of a loss of y·dy.
fn with_residual(forward: impl Fn(Tensor<4>, Tensor<4>) -> Tensor<4>, device: &Device) -> [Vec<f32>; 3] {
    let x = tensor(DIMS, 1, device).require_grad();
    let residual = tensor(DIMS, 7, device).require_grad();
    let y = forward(x.clone(), residual.clone());
    let gradients = (y.clone() * tensor(DIMS, 2, device)).sum().backward();
    [y, x.grad(&gradients).unwrap(), residual.grad(&gradients).unwrap()].map(host)
}

fn assert_same(what: &str, ours: [Vec<f32>; 3], theirs: [Vec<f32>; 3]) {
    for (name, (ours, theirs)) in ["y", "dx", "d_residual"].into_iter().zip(ours.into_iter().zip(theirs)) {
        assert_close(&format!("{what}: {name}"), &ours, &wide(theirs), 2e-4);
    }
}

#[test]
fn every_layer_adds_a_residual_and_applies_an_activation() {
    let (device, _turn) = device();
    let train = device.clone().autodiff();
    let before = fallback::fallbacks();
    let silu = |y: Tensor<4>, residual: Tensor<4>| activation::silu(y + residual);

    let ours = BatchNormConfig::new(6).init(&train).with_activation(Activation::Silu);
    let theirs = nn::BatchNorm::from(ours.clone());
    assert_same(
        "batch",
        with_residual(|x, residual| ours.forward(Input::new(x).residual(residual)), &train),
        with_residual(|x, residual| silu(theirs.forward(x), residual), &train),
    );
    let ours = LayerNormConfig::new(3).init(&train).with_activation(Activation::Silu);
    let theirs = ours.to_burn();
    assert_same(
        "layer",
        with_residual(|x, residual| ours.forward(Input::new(x).residual(residual)), &train),
        with_residual(|x, residual| silu(theirs.forward(x), residual), &train),
    );
    let ours = RmsNormConfig::new(3).init(&train).with_activation(Activation::Silu);
    let theirs = nn::RmsNorm::from(ours.clone());
    assert_same(
        "RMS",
        with_residual(|x, residual| ours.forward(Input::new(x).residual(residual)), &train),
        with_residual(|x, residual| silu(theirs.forward(x), residual), &train),
    );
    let ours = GroupNormConfig::new(3, 6).init(&train).with_activation(Activation::Silu);
    let theirs = nn::GroupNorm::from(ours.clone());
    assert_same(
        "group",
        with_residual(|x, residual| ours.forward(Input::new(x).residual(residual)), &train),
        with_residual(|x, residual| silu(theirs.forward(x), residual), &train),
    );
    let ours = InstanceNormConfig::new(6).init(&train).with_activation(Activation::Silu);
    let theirs = nn::InstanceNorm::from(ours.clone());
    assert_same(
        "instance",
        with_residual(|x, residual| ours.forward(Input::new(x).residual(residual)), &train),
        with_residual(|x, residual| silu(theirs.forward(x), residual), &train),
    );
    let ours = DynamicTanhConfig::new(3).init(&train).with_activation(Activation::Silu);
    assert_same(
        "tanh",
        with_residual(|x, residual| ours.forward(Input::new(x).residual(residual)), &train),
        with_residual(|x, residual| silu((x * 0.5).tanh(), residual), &train),
    );
    assert_eq!(fallback::fallbacks(), before);
}

#[test]
fn a_residual_without_an_activation_has_dy_for_its_gradient() {
    let (device, _turn) = device();
    let train = device.clone().autodiff();
    let ours = BatchNormConfig::new(6).init(&train);
    let theirs = nn::BatchNorm::from(ours.clone());
    assert_same(
        "batch",
        with_residual(|x, residual| ours.forward(Input::new(x).residual(residual)), &train),
        with_residual(|x, residual| theirs.forward(x) + residual, &train),
    );
    let message = panics(|| {
        ours.forward(Input::new(tensor::<4>(DIMS, 1, &train)).residual(tensor([4, 6, 5, 2], 2, &train)))
    });
    assert!(message.contains("residual of the shape of x"), "{message}");
}

#[test]
fn all_activations_fall_back_to_what_they_are() {
    let (device, _turn) = device();
    let other = Device::flex();
    for then in Activation::ALL {
        let on = |device: &Device| {
            let layer = LayerNormConfig::new(3).init(device).with_activation(then);
            let residual = tensor(DIMS, 7, device) * 4.0;
            host(layer.forward(Input::new(tensor::<4>(DIMS, 1, device)).residual(residual)))
        };
        assert_close(then.name(), &on(&device), &wide(on(&other)), 1e-4);
    }
}

#[test]
fn dynamic_tanh_has_all_its_gradients() {
    let (device, _turn) = device();
    let train = device.clone().autodiff();
    let ours = DynamicTanhConfig::new(3).with_alpha(0.7).init(&train);
    let [alpha, gamma, beta] =
        [&ours.alpha, &ours.gamma, &ours.beta].map(|parameter| parameter.val().detach().require_grad());
    let (y, dx, gradients) = pass(|x| ours.forward(x), DIMS, &train);
    let composed = |x: Tensor<4>| {
        let [alpha, gamma, beta] = [&alpha, &gamma, &beta].map(|of| of.clone().unsqueeze::<4>());
        (x * alpha).tanh() * gamma + beta
    };
    let (their_y, their_dx, their_gradients) = pass(composed, DIMS, &train);
    assert_close("y", &y, &wide(their_y), 1e-5);
    assert_close("dx", &dx, &wide(their_dx), 1e-5);
    for (name, ours, theirs) in
        [("alpha", &ours.alpha, alpha), ("gamma", &ours.gamma, gamma), ("beta", &ours.beta, beta)]
    {
        let got = host(ours.val().grad(&gradients).unwrap());
        assert_close(name, &got, &wide(host(theirs.grad(&their_gradients).unwrap())), 1e-4);
    }
}

#[test]
fn what_is_masked_does_not_count() {
    let (device, _turn) = device();
    let train = device.clone().autodiff();
    // Two sequences of lengths 5 and 2, of which the rest is padding: the same as one of 7.
    let (long, short): (Tensor<3>, Tensor<3>) = (tensor([1, 6, 5], 1, &train), tensor([1, 6, 2], 2, &train));
    let padding = Tensor::<3>::full([1, 6, 3], f32::NAN, &train);
    let x = Tensor::cat(vec![long.clone(), Tensor::cat(vec![short.clone(), padding], 2)], 0).require_grad();
    let together = Tensor::cat(vec![long, short], 2).require_grad();
    let mask = Mask::of_lengths(&x, &[5, 2]).unwrap();
    let norm = BatchNormConfig::new(6).init(&train);
    let y = norm.forward(Input::new(x.clone()).mask(mask));
    let expected = norm.forward(together.clone());
    let (y_long, y_short) = (y.clone().slice([0..1, 0..6, 0..5]), y.clone().slice([1..2, 0..6, 0..2]));
    assert_close(
        "y",
        &host(Tensor::cat(vec![y_long.clone(), y_short.clone()], 2)),
        &wide(host(expected.clone())),
        1e-5,
    );
    let dx = x.grad(&(y_long.powi_scalar(3).sum() + y_short.powi_scalar(3).sum()).backward()).unwrap();
    let expected = together.grad(&expected.powi_scalar(3).sum().backward()).unwrap();
    let parts = vec![dx.clone().slice([0..1, 0..6, 0..5]), dx.clone().slice([1..2, 0..6, 0..2])];
    assert_close("dx", &host(Tensor::cat(parts, 2)), &wide(host(expected)), 1e-4);
    assert!(host(dx.slice([1..2, 0..6, 2..5])).iter().all(|&dx| dx == 0.0));

    // The same as truth values, on the GPU and not; of rows; and what does not fit.
    let keep: Vec<bool> = [5, 2].into_iter().flat_map(|length| (0..5).map(move |at| at < length)).collect();
    let x: Tensor<3> = tensor([2, 6, 5], 1, &train);
    let of_lengths = host(norm.forward(Input::new(x.clone()).mask(Mask::of_lengths(&x, &[5, 2]).unwrap())));
    let of_positions = host(norm.forward(Input::new(x.clone()).mask(Mask::of_positions(&x, &keep).unwrap())));
    assert_eq!(of_lengths, of_positions);
    let bools = burn::tensor::TensorData::new(keep.clone(), [2, 5]);
    let bools = Tensor::<2, burn::tensor::Bool>::from_data(bools, &device);
    assert_eq!(of_lengths, host(norm.forward(Input::new(x.clone()).mask(Mask::of_tensor(bools).unwrap()))));
    // Rows: no part in gradients.
    let kept: Vec<bool> = (0..12).map(|row| row % 3 != 0).collect();
    let rows = Mask::of_rows(&x, &kept).unwrap();
    let layer = LayerNormConfig::new(5).init(&train);
    let rms = RmsNormConfig::new(5).init(&train);
    let tanh = DynamicTanhConfig::new(5).init(&train);
    type Forward<'f> = &'f dyn Fn(Input<3>) -> Tensor<3>;
    let of_row = |i: usize| kept[i / 5];
    let cases: [(&str, Forward<'_>); 3] =
        [("layer", &|x| layer.forward(x)), ("RMS", &|x| rms.forward(x)), ("tanh", &|x| tanh.forward(x))];
    for (what, forward) in cases {
        let x = x.clone().detach().require_grad();
        let y = forward(Input::new(x.clone()).mask(rows.clone()));
        let dy: Tensor<3> = tensor([2, 6, 5], 3, &train);
        let dx = host(x.grad(&(y * dy).sum().backward()).unwrap());
        for (i, dx) in dx.into_iter().enumerate() {
            assert!(of_row(i) || dx == 0.0, "{what}: dx[{i}] is {dx} where it is masked");
            assert!(!of_row(i) || dx != 0.0, "{what}: dx[{i}] is 0 where it counts");
        }
    }
    let group = GroupNormConfig::new(2, 6).init(&train);
    assert!(panics(|| group.forward(Input::new(x.clone()).mask(rows.clone()))).contains("no mask"));
    assert!(
        panics(|| norm.forward(Input::new(x.clone()).mask(rows.clone()))).contains("[2, 5], got [12, 1]")
    );
    assert!(Mask::of_positions(&x, &keep[1..]).unwrap_err().to_string().contains('9'));
    assert!(Mask::of_lengths(&x, &[5, 6]).unwrap_err().to_string().contains('6'));
    let elsewhere: Tensor<3> = tensor([2, 6, 5], 1, &Device::flex());
    assert!(Mask::of_positions(&elsewhere, &keep).unwrap_err().to_string().contains("not shared"));
}

#[test]
fn sixteen_bits_are_taken_where_the_device_has_them() {
    let (device, _turn) = device();
    let mut tried = 0;
    for dtype in [DType::F16, DType::BF16] {
        if !device.supports_dtype(dtype) {
            println!("skipped: burn does not compute in {dtype:?} here");
            continue;
        }
        tried += 1;
        let before = fallback::fallbacks();
        let narrow = |tensor: Tensor<4>| tensor.cast(dtype);
        // Half an ulp of the type at the largest value, in y and in dx.
        let bound = if dtype == DType::F16 { 2e-3 } else { 1.6e-2 };
        let wide_layer = BatchNormConfig::new(6).init(&device);
        let x = narrow(tensor(DIMS, 1, &device));
        let expected = host(wide_layer.forward(x.clone().cast(DType::F32)));
        // Parameters of f32, and of the type.
        let y = wide_layer.forward(x.clone());
        assert_eq!(y.dtype(), dtype);
        assert_close("y", &host(y.cast(DType::F32)), &wide(expected.clone()), bound);
        let layer = LayerNormConfig::new(3).init(&device);
        let expected = host(layer.forward(x.clone().cast(DType::F32)));
        let mut narrow_layer = layer.clone();
        narrow_layer.gamma = narrow_layer.gamma.map(|gamma| gamma.cast(dtype));
        narrow_layer.beta = narrow_layer.beta.map(|beta| beta.map(|beta| beta.cast(dtype)));
        assert_close("y", &host(narrow_layer.forward(x).cast(DType::F32)), &wide(expected), bound);

        let train = device.clone().autodiff();
        let layer = BatchNormConfig::new(6).init(&train);
        let x = tensor::<4>(DIMS, 1, &train).cast(dtype).detach().require_grad();
        let dy = tensor::<4>(DIMS, 2, &train).cast(dtype).detach();
        let gradients = (layer.forward(x.clone()) * dy.clone()).sum().backward();
        let wide_x = x.clone().detach().cast(DType::F32).detach().require_grad();
        let y = nn::BatchNorm::from(layer.clone()).forward(wide_x.clone());
        let wide_gradients = (y * dy.cast(DType::F32)).sum().backward();
        let expected = wide(host(wide_x.grad(&wide_gradients).unwrap()));
        assert_close("dx", &host(x.grad(&gradients).unwrap().cast(DType::F32)), &expected, 2.0 * bound);
        let expected = wide(host(layer.gamma.val().grad(&wide_gradients).unwrap()));
        let dgamma = layer.gamma.val().grad(&gradients).unwrap();
        assert_close("dgamma", &host(dgamma.cast(DType::F32)), &expected, 2.0 * bound);
        assert_eq!(fallback::fallbacks(), before);
    }
    println!("{tried} of 2 types");
    // Types that do not go together are burn's affair, and told.
    if device.supports_dtype(DType::F16) {
        let mut layer = LayerNormConfig::new(8).init(&device);
        layer.gamma = layer.gamma.map(|gamma| gamma.cast(DType::F16));
        fallback::set_strict(true);
        let message = panics(|| layer.forward(tensor::<2>([3, 8], 1, &device)));
        fallback::set_strict(false);
        assert!(message.contains("F16"), "{message}");
    }
}
