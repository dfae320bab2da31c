//! Layers on the GPU: what is loaded computes, what has trained is saved.

use std::sync::OnceLock;

use wgnorm::state::{LayerSpec, LayerValues, LoadOptions, ModelState, Naming, SaveOptions};
use wgnorm::{BatchNormOptions, Context, DType, Error, RunningVariance};

use crate::support::*;

pub fn context() -> Context {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    CONTEXT.get_or_init(|| Context::headless_blocking().expect("the tests need an adapter")).clone()
}

#[test]
fn a_layer_of_pytorch_infers_as_it_did_there() {
    let context = context();
    let state = ModelState::read(fixture("pytorch.safetensors")).unwrap();
    let file = std::fs::read(fixture("stem_eval.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let values = |name| DType::F32.decode(tensors.tensor(name).unwrap().data());
    context.clone().block_on(async {
        let spec = LayerSpec::new("stem", 3, BatchNormOptions::pytorch());
        let layer = state.load_layer(&context, &Naming::pytorch(), &spec).await.unwrap().freeze();
        let x = context.upload(&[2, 3, 2, 3], &values("x")).await.unwrap();
        let y = context.download(&layer.infer(&x).await.unwrap()).await.unwrap();
        for (got, expected) in y.iter().zip(values("y")) {
            assert!((got - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{got} {expected}");
        }
    });
}

#[test]
fn a_layer_that_has_trained_is_saved_as_it_is() {
    let context = context();
    context.clone().block_on(async {
        let mut state = state(&torch_layer("a", 3, 0.0));
        let spec = LayerSpec::new("a", 3, BatchNormOptions::pytorch());
        let mut layer = state.load_layer(&context, &Naming::pytorch(), &spec).await.unwrap();
        let x = context.upload(&[2, 3, 2], &[1.0; 12]).await.unwrap();
        layer.train_forward(&x).await.unwrap();
        state
            .save(&context, &Naming::pytorch(), &[("a", (&layer).into())], &SaveOptions::default())
            .await
            .unwrap();

        let saved = ModelState::from_bytes(state.to_bytes()).unwrap();
        let (values, _) = saved.values(&Naming::pytorch(), &[spec], &LoadOptions::strict()).unwrap();
        let before = torch_values(3, 0.0);
        assert_eq!(values[0], LayerValues::download(&context, &layer).await.unwrap());
        assert_eq!((&values[0].gamma, values[0].running.batches), (&before.gamma, 8));
        // 0.9·100 + 0.1·1
        assert!((values[0].running.mean[0] - 90.1).abs() < 1e-4);

        let frozen = layer.freeze();
        let before = state.to_bytes().into_owned();
        state
            .save(&context, &Naming::pytorch(), &[("a", (&frozen).into())], &SaveOptions::default())
            .await
            .unwrap();
        assert_eq!(*state.to_bytes(), before);
    });
}

#[test]
fn parameters_can_have_16_bits_on_the_gpu() {
    let context = context();
    context.clone().block_on(async {
        let mut tensors = torch_layer("a", 3, 0.0);
        tensors[0] = f32s("a.weight", &[0.1, 1.0, 2.0]);
        let state = state(&tensors);
        let spec = LayerSpec::new("a", 3, BatchNormOptions::pytorch()).parameters(DType::F16);
        let layer = state.load_layer(&context, &Naming::pytorch(), &spec).await.unwrap();
        assert_eq!(layer.gamma().unwrap().dtype(), DType::F16);
        let values = LayerValues::download(&context, &layer).await.unwrap();
        assert_eq!(values.gamma.unwrap(), [0.099_975_586, 1.0, 2.0]);
        assert_eq!(values.running, torch_values(3, 0.0).running);
    });
}

#[test]
fn values_are_checked_before_they_are_uploaded() {
    let context = context();
    context.clone().block_on(async {
        let values = torch_values(3, 0.0);
        let upload = async |values: &LayerValues, options| values.upload(&context, options, DType::F32).await;
        let other = upload(&values, BatchNormOptions::burn()).await.unwrap_err();
        let (from, to) = (RunningVariance::Unbiased, RunningVariance::Biased);
        assert_eq!(other, Error::VarianceConvention { layer: "the layer".into(), from, to });
        let short = LayerValues { gamma: Some(vec![1.0]), ..values.clone() };
        let refused = upload(&short, BatchNormOptions::pytorch()).await.unwrap_err();
        assert!(matches!(refused, Error::Length { what: "gamma", .. }), "{refused}");
        let refused = upload(&values, BatchNormOptions::pytorch().eps(-1.0)).await.unwrap_err();
        assert!(matches!(refused, Error::Epsilon { .. }), "{refused}");
        assert!(upload(&values, BatchNormOptions::pytorch()).await.is_ok());
    });
}
