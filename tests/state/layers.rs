//! Which layers a file has, by the names of each framework.

use safetensors::Dtype;
use wgnorm::state::{FloatType, Framework, ModelState, Naming};
use wgnorm::{Affine, BatchNormOptions, Error, RunningVariance};

use crate::support::*;

#[test]
fn layers_of_files_by_python_are_found() {
    for (file, naming, separator) in [
        ("pytorch.safetensors", Naming::pytorch(), "."),
        ("keras.safetensors", Naming::keras(), "/"),
        ("flax.safetensors", Naming::flax(), "."),
    ] {
        let found = ModelState::read(fixture(file)).unwrap().layers(&naming).unwrap();
        assert_eq!(found.refused, [], "{file}");
        let names: Vec<_> = found.layers.iter().map(|layer| layer.name.replace(separator, "/")).collect();
        assert_eq!(names, ["block/bn1", "block/downsample/1", "stem"], "{file}");
        let channels: Vec<_> = found.layers.iter().map(|layer| (layer.channels, layer.affine())).collect();
        assert_eq!(channels, [(5, Affine::Both), (5, Affine::None), (3, Affine::Both)], "{file}");
        let batches = (file == "pytorch.safetensors").then_some(3);
        assert!(found.layers.iter().all(|layer| layer.batches == batches && layer.mean == FloatType::F32));
    }
}

#[test]
fn names_are_those_of_the_frameworks() {
    let keys = |naming: &Naming, layer| {
        let [gamma, beta] = [naming.gamma_key(layer), naming.beta_key(layer)];
        [gamma, beta, naming.mean_key(layer), naming.var_key(layer)]
    };
    for (framework, expected) in [
        (Framework::PyTorch, ["a.b.weight", "a.b.bias", "a.b.running_mean", "a.b.running_var"]),
        (Framework::Keras, ["a.b/gamma", "a.b/beta", "a.b/moving_mean", "a.b/moving_variance"]),
        (
            Framework::Flax,
            ["params.a.b.scale", "params.a.b.bias", "batch_stats.a.b.mean", "batch_stats.a.b.var"],
        ),
        (Framework::Burn, ["a.b.gamma", "a.b.beta", "a.b.running_mean", "a.b.running_var"]),
    ] {
        let naming = framework.naming();
        assert_eq!(keys(&naming, "a.b"), expected);
        assert_eq!(naming.variance(), framework.options().running_variance);
    }
    assert_eq!(Naming::pytorch().batches_key("a").as_deref(), Some("a.num_batches_tracked"));
    assert_eq!(Naming::burn().batches_key("a"), None);
    assert_eq!(keys(&Naming::pytorch(), ""), ["weight", "bias", "running_mean", "running_var"]);
    assert_eq!(keys(&Naming::flax(), "")[2], "batch_stats.mean");
    let nnx = Naming::flax().collections("", "").separator("/");
    assert_eq!(keys(&nnx, "a/b"), ["a/b/scale", "a/b/bias", "a/b/mean", "a/b/var"]);
}

#[test]
fn a_model_that_is_one_layer_has_no_name() {
    let tensors = [f32s("running_mean", &[1.0]), f32s("running_var", &[2.0]), f32s(".running_var", &[2.0])];
    let found = state(&tensors).layers(&Naming::pytorch()).unwrap();
    assert_eq!((found.layers.len(), found.layers[0].name.as_str()), (1, ""));
    assert_eq!(found.refused, []);
}

#[test]
fn what_only_looks_like_a_layer_is_told_and_not_listed() {
    let mut tensors = torch_layer("good", 3, 0.0);
    tensors.extend([
        f32s("alone.running_mean", &[1.0]),
        f32s("lengths.running_mean", &[1.0]),
        f32s("lengths.running_var", &[1.0, 2.0]),
        made("matrix.running_mean", Dtype::F32, &[1, 1], vec![0; 4]),
        f32s("matrix.running_var", &[1.0]),
        made("none.running_mean", Dtype::F32, &[0], vec![]),
        made("none.running_var", Dtype::F32, &[0], vec![]),
        made("whole.running_mean", Dtype::I32, &[1], vec![0; 4]),
        f32s("whole.running_var", &[1.0]),
        f32s("gamma.running_mean", &[1.0]),
        f32s("gamma.running_var", &[1.0]),
        f32s("gamma.weight", &[1.0, 1.0]),
        f32s("count.running_mean", &[1.0]),
        f32s("count.running_var", &[1.0]),
        count("count.num_batches_tracked", -1),
        f32s("layer_norm.weight", &[1.0]),
        f32s("notrunning_mean", &[1.0]),
    ]);
    let found = state(&tensors).layers(&Naming::pytorch()).unwrap();
    assert_eq!(found.layers.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>(), ["good"]);
    let refused: Vec<_> = found.refused.iter().map(|mismatch| mismatch.key.as_str()).collect();
    assert_eq!(
        refused,
        [
            "alone.running_var",
            "count.num_batches_tracked",
            "gamma.weight",
            "lengths.running_var",
            "matrix.running_mean",
            "none.running_mean",
            "whole.running_mean"
        ]
    );
    let says = found.refused[3].to_string();
    assert_eq!(says, "\"lengths.running_var\": expected shape [1], got [2]");
    // Other frameworks' names find none of them.
    assert_eq!(state(&tensors).layers(&Naming::keras()).unwrap(), Default::default());
}

#[test]
fn names_that_cannot_be_told_apart_are_refused() {
    let state = state(&[]);
    let custom = |names: [&'static str; 4]| {
        let [gamma, beta, mean, var] = names;
        Naming::custom(gamma, beta, mean, var, RunningVariance::Biased)
    };
    assert!(state.layers(&custom(["g", "b", "m", "v"])).is_ok());
    for naming in [
        custom(["g", "g", "m", "v"]),
        custom(["g", "b", "m", "b"]),
        custom(["g", "b", "", "v"]),
        custom(["g", "b", "m", "v"]).batches("v"),
        custom(["g", "b", "m", "v"]).separator(""),
    ] {
        assert!(matches!(state.layers(&naming), Err(Error::Naming { .. })), "{naming:?}");
    }
    // In different collections the same names are different tensors.
    assert!(state.layers(&custom(["g", "b", "b", "v"]).collections("params", "stats")).is_ok());
}

#[test]
fn a_found_layer_is_asked_for_as_its_options_or_its_siblings_are() {
    let found = ModelState::read(fixture("pytorch.safetensors")).unwrap().layers(&Naming::pytorch()).unwrap();
    let options = BatchNormOptions::pytorch().eps(1e-3);
    let spec = found.layers[1].spec(options);
    assert_eq!((spec.name.as_str(), spec.channels), ("block.downsample.1", 5));
    assert_eq!((spec.options.affine, spec.options.eps), (Affine::Both, 1e-3));
    assert_eq!(found.layers[1].affine(), Affine::None);
    for options in [options, options.affine(Affine::None)] {
        assert!(found.specs(options).iter().all(|spec| spec.options.affine == Affine::Both));
    }
}
