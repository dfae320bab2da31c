//! Models: records both ways, layers of burn's taken over, moved, folded.

use burn::module::Module;
use burn::nn;
use burn::nn::conv::{
    Conv1dConfig, Conv2d, Conv2dConfig, Conv3dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig,
    ConvTranspose3dConfig,
};
use burn::store::ModuleRecord;
use burn::tensor::{Device, Tensor};
use wgnorm_burn::{Activation, BatchNorm, Error, GroupNorm, InstanceNorm, LayerNorm, RmsNorm, adopt};

use crate::support::*;

#[derive(Module, Debug)]
struct Theirs {
    conv: Conv2d,
    batch: nn::BatchNorm,
    group: Vec<nn::GroupNorm>,
    instance: nn::InstanceNorm,
    layer: Option<nn::LayerNorm>,
    rms: nn::RmsNorm,
}

#[derive(Module, Debug)]
struct Ours {
    conv: Conv2d,
    batch: BatchNorm,
    group: Vec<GroupNorm>,
    instance: InstanceNorm,
    layer: Option<LayerNorm>,
    rms: RmsNorm,
}

impl Theirs {
    fn new(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([3, 6], [3, 3]).init(device),
            batch: nn::BatchNormConfig::new(6).init(device),
            group: vec![nn::GroupNormConfig::new(2, 6).init(device)],
            instance: nn::InstanceNormConfig::new(6).init(device),
            layer: Some(nn::LayerNormConfig::new(5).init(device)),
            rms: nn::RmsNormConfig::new(5).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.batch.forward(self.conv.forward(x));
        let y = self.instance.forward(self.group[0].forward(y));
        self.rms.forward(self.layer.as_ref().unwrap().forward(y))
    }
}

impl Ours {
    fn new(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([3, 6], [3, 3]).init(device),
            batch: wgnorm_burn::BatchNormConfig::new(6).init(device),
            group: vec![wgnorm_burn::GroupNormConfig::new(2, 6).init(device)],
            instance: wgnorm_burn::InstanceNormConfig::new(6).init(device),
            layer: Some(wgnorm_burn::LayerNormConfig::new(5).init(device)),
            rms: wgnorm_burn::RmsNormConfig::new(5).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.batch.forward(self.conv.forward(x));
        let y = self.instance.forward(self.group[0].forward(y));
        self.rms.forward(self.layer.as_ref().unwrap().forward(y))
    }
}

fn image(device: &Device) -> Tensor<4> {
    tensor([2, 3, 6, 7], 1, device)
}

/// A layer that has seen a batch.
fn seen(layer: BatchNorm, device: &Device) -> BatchNorm {
    layer.forward(tensor::<4>([4, 6, 5, 3], 4, device) * 2.0 + 0.5);
    layer
}

#[test]
fn records_load_both_ways() {
    let (device, _turn) = device();
    let train = device.clone().autodiff();
    let theirs = Theirs::new(&train);
    theirs.forward(image(&train));
    let theirs = theirs.valid();
    let expected = wide(host(theirs.forward(image(&device))));
    let bytes = theirs.into_record().into_bytes().unwrap();
    let ours = Ours::new(&device).load_record(ModuleRecord::from_bytes(bytes).unwrap());
    assert_close("ours", &host(ours.forward(image(&device))), &expected, 1e-4);

    let ours = Ours::new(&train);
    ours.forward(image(&train));
    let ours = ours.valid();
    let expected = wide(host(ours.forward(image(&device))));
    let file = std::env::temp_dir().join(format!("wgnorm-burn-{}.bpk", std::process::id()));
    ours.clone().save_file(&file).unwrap();
    let theirs = Theirs::new(&device).load_file(&file);
    let again = Ours::new(&device).load_file(&file);
    assert_close("burn's", &host(theirs.forward(image(&device))), &expected, 1e-4);
    assert_eq!(host(again.forward(image(&device))), host(ours.forward(image(&device))));
    // What is loaded is read when it is needed.
    std::fs::remove_file(&file).unwrap();
    assert_eq!(again.num_params(), theirs.num_params());
}

#[test]
fn a_model_of_burns_layers_is_adopted() {
    let (device, _turn) = device();
    let train = device.clone().autodiff();
    let theirs = Theirs::new(&train);
    theirs.forward(image(&train));
    let theirs = theirs.freeze();
    let ours = adopt(Ours::new(&train), &theirs).unwrap();
    assert!(!ours.batch.training.is_enabled(), "flags too");
    let expected = wide(host(theirs.forward(image(&train))));
    assert_close("ours", &host(ours.forward(image(&train))), &expected, 1e-4);
    // And back.
    let back = adopt(Theirs::new(&train), &ours).unwrap();
    assert_close("back", &host(back.forward(image(&train))), &expected, 1e-5);
    // What is pending in running statistics counts, the other's and not the model's own.
    let [trained, target] = [1.0, 7.0].map(|scale| {
        let layer = wgnorm_burn::BatchNormConfig::new(6).init(&train);
        layer.forward(tensor::<4>([4, 6, 5, 3], 4, &train) * scale);
        layer
    });
    let adopted = adopt(target, &trained).unwrap();
    let [got, expected] = [adopted, trained].map(|layer| host(layer.running_var.value_sync()));
    assert_eq!(got, expected);
    assert_ne!(got, [1.0; 6]);
    let mut wider = Ours::new(&train);
    wider.rms = wgnorm_burn::RmsNormConfig::new(4).init(&train);
    wider.layer = None;
    let error = adopt(wider, &theirs).unwrap_err();
    assert_eq!(error.differs, ["rms.gamma"]);
    assert_eq!(error.unused, ["layer.beta", "layer.gamma"]);
    let mut narrower = Theirs::new(&train);
    narrower.layer = None;
    assert_eq!(adopt(Ours::new(&train), &narrower).unwrap_err().missing, ["layer.beta", "layer.gamma"]);
}

#[test]
fn layers_move_between_devices() {
    let (device, _turn) = device();
    let (here, there) = (device.autodiff(), other_device().autodiff());
    let layer = seen(wgnorm_burn::BatchNormConfig::new(6).init(&here), &here).freeze();
    let expected = host(layer.forward(tensor::<4>([4, 6, 5, 3], 1, &here)));
    let moved = layer.to_device(&there);
    assert_eq!(host(moved.forward(tensor::<4>([4, 6, 5, 3], 1, &there))), expected);
    let flex = Device::flex().autodiff();
    let fallen = moved.to_device(&flex);
    assert_close("flex", &host(fallen.forward(tensor::<4>([4, 6, 5, 3], 1, &flex))), &wide(expected), 1e-5);
}

#[test]
fn a_norm_folds_into_its_neighbours() {
    let (device, _turn) = device();
    let train = device.clone().autodiff();
    let mut norm = seen(wgnorm_burn::BatchNormConfig::new(6).init(&train), &train);
    norm.gamma = norm.gamma.map(|_| tensor([6], 3, &train));
    norm.beta = norm.beta.map(|_| tensor([6], 5, &train));
    let norm = norm.valid();
    macro_rules! preceding {
        ($($config:expr, $x:expr;)*) => {$(
            let (layer, x) = ($config.init(&device), $x);
            let expected = host(norm.forward(layer.forward(x.clone())));
            let folded = norm.fold_into_preceding(&layer).unwrap();
            assert_close(stringify!($config), &host(folded.forward(x)), &wide(expected), 1e-4);
        )*};
    }
    preceding! {
        Conv1dConfig::new(4, 6, 3).with_groups(2).with_bias(false), tensor::<3>([2, 4, 9], 1, &device);
        Conv2dConfig::new([4, 6], [3, 3]).with_stride([2, 1]), tensor::<4>([2, 4, 9, 8], 1, &device);
        Conv3dConfig::new([4, 6], [3, 2, 1]), tensor::<5>([2, 4, 5, 4, 3], 1, &device);
        ConvTranspose1dConfig::new([4, 6], 3).with_groups(2), tensor::<3>([2, 4, 9], 1, &device);
        ConvTranspose2dConfig::new([4, 6], [3, 3]).with_stride([2, 1]), tensor::<4>([2, 4, 5, 4], 1, &device);
        ConvTranspose3dConfig::new([4, 6], [3, 2, 1]), tensor::<5>([2, 4, 3, 4, 3], 1, &device);
        nn::LinearConfig::new(4, 6), tensor::<2>([5, 4], 1, &device);
    }
    let linear = nn::LinearConfig::new(6, 4).init(&device);
    let x: Tensor<2> = tensor([5, 6], 1, &device);
    let expected = host(linear.forward(norm.forward(x.clone())));
    let folded = norm.fold_into_following(&linear).unwrap();
    assert_close("linear", &host(folded.forward(x)), &wide(expected), 1e-4);
    let conv = Conv2dConfig::new([6, 4], [3, 3]).init(&device);
    let x: Tensor<4> = tensor([2, 6, 5, 5], 1, &device);
    let expected = host(conv.forward(norm.forward(x.clone())));
    assert_close("conv", &host(norm.fold_into_following(&conv).unwrap().forward(x)), &wide(expected), 1e-4);
    let conv = Conv1dConfig::new(6, 4, 3).with_groups(2).init(&device);
    let x: Tensor<3> = tensor([2, 6, 9], 1, &device);
    let expected = host(conv.forward(norm.forward(x.clone())));
    let folded = norm.fold_into_following(&conv).unwrap();
    assert_close("groups", &host(folded.forward(x)), &wide(expected), 1e-4);
    assert_eq!(folded.weight.id, conv.weight.id);
    let padded = Conv2dConfig::new([6, 4], [3, 3]).with_padding(nn::PaddingConfig2d::Same).init(&device);
    assert!(norm.fold_into_following(&padded).unwrap_err().to_string().contains("border"));
    let error = norm.fold_into_preceding(&nn::LinearConfig::new(4, 5).init(&device)).unwrap_err();
    assert!(matches!(error, Error::Wgnorm(_)), "{error}");
    let error = norm.with_activation(Activation::Relu).fold_into_following(&linear).unwrap_err();
    assert!(error.to_string().contains("relu"), "{error}");
}
