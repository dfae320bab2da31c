//! From one framework's file to another's.

use wgnorm::state::{
    FoundLayer, Framework, LayerSpec, LayerValues, LoadOptions, ModelState, Naming, SaveOptions,
};
use wgnorm::{BatchNormOptions, Error, RunningVariance};

use crate::support::fixture;

/// Values per channel of the batches that the fixtures' layers were trained with.
const COUNT: u64 = 4 * 6 * 6;

fn all(file: &str, framework: Framework) -> Vec<(String, LayerValues)> {
    let state = ModelState::read(fixture(file)).unwrap();
    let naming = framework.naming();
    let found = state.layers(&naming).unwrap();
    let as_found = |layer: &FoundLayer| layer.spec(framework.options().affine(layer.affine()));
    let specs: Vec<LayerSpec> = found.layers.iter().map(as_found).collect();
    let (values, _) = state.values(&naming, &specs, &LoadOptions::strict()).unwrap();
    specs.into_iter().map(|spec| spec.name).zip(values).collect()
}

#[test]
fn pytorchs_layers_become_those_of_keras_and_flax() {
    for (file, framework, separator) in
        [("keras.safetensors", Framework::Keras, "/"), ("flax.safetensors", Framework::Flax, ".")]
    {
        let (naming, expected) = (framework.naming(), all(file, framework));
        let mut converted = all("pytorch.safetensors", Framework::PyTorch);
        let refused = converted[0].1.clone().rebias(RunningVariance::Biased, None);
        assert_eq!(refused, Err(Error::VarianceCount { got: None }));
        for (name, values) in &mut converted {
            *name = name.replace('.', separator);
            values.rebias(RunningVariance::Biased, Some(COUNT)).unwrap();
        }
        let mut state = ModelState::new();
        let layers: Vec<_> = converted.iter().map(|(name, values)| (name.as_str(), values)).collect();
        state.set(&naming, &layers, &SaveOptions::default()).unwrap();
        if framework == Framework::Keras {
            // No other tensors: the same file that Python wrote.
            assert_eq!(*state.to_bytes(), std::fs::read(fixture(file)).unwrap());
        }
        for ((name, values), (expected_name, expected)) in converted.iter().zip(&expected) {
            assert_eq!(name, expected_name);
            assert_eq!((&values.gamma, &values.beta), (&expected.gamma, &expected.beta));
            assert_eq!(
                (&values.running.mean, &values.running.var),
                (&expected.running.mean, &expected.running.var)
            );
        }
    }
}

#[test]
fn burns_pytorch_names_hold_the_biased_variance() {
    let naming = Naming::pytorch().running_variance(RunningVariance::Biased);
    let state = ModelState::read(fixture("pytorch.safetensors")).unwrap();
    let specs = [LayerSpec::new("stem", 3, BatchNormOptions::burn())];
    assert!(state.values(&naming, &specs, &LoadOptions::strict()).is_ok());
    assert!(state.values(&Naming::pytorch(), &specs, &LoadOptions::strict()).is_err());
}
