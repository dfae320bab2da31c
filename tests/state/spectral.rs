//! Weights under spectral norm: PyTorch's names, whole files, and what does not fit.

use wgnorm::Error;
use wgnorm::state::{FloatType, ModelState, SaveOptions, SpectralNaming, SpectralValues};

#[test]
fn names_are_those_of_pytorch() {
    let file: serde_json::Value = serde_json::from_str(include_str!("../data/spectral/cases.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    for (scheme, naming) in
        [("hook", SpectralNaming::Hook), ("parametrization", SpectralNaming::Parametrization)]
    {
        let case = cases.iter().find(|case| case["scheme"] == scheme).unwrap();
        let names: Vec<_> =
            case["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(naming.keys("", "weight").each_ref().map(String::as_str)[..], names[..]);
        assert_eq!(naming.keys("net.0", "weight")[2], format!("net.0.{}", names[2]));
    }
}

fn values() -> SpectralValues {
    // Rows along axis 1.
    let weight = (0..24).map(|i| i as f32 * 0.25 - 3.0).collect();
    SpectralValues { shape: vec![3, 4, 2], weight, u: vec![0.5; 4], v: vec![0.25; 6] }
}

#[test]
fn what_is_saved_is_loaded_and_nothing_else_changes() {
    for naming in [SpectralNaming::Hook, SpectralNaming::Parametrization] {
        let mut state = ModelState::new();
        state.set_spectral(naming, "up", "weight", &values(), &SaveOptions::default()).unwrap();
        let mut state = ModelState::from_bytes(state.to_bytes().into_owned()).unwrap();
        assert_eq!(state.spectral(naming, "up", "weight", 1).unwrap(), values());
        // In 16 bits, which these values have, and back to the same bytes.
        let half = SaveOptions::default().float(FloatType::F16);
        state.set_spectral(naming, "up", "weight", &values(), &half).unwrap();
        assert_eq!(state.spectral(naming, "up", "weight", 1).unwrap(), values());
        let before = state.to_bytes().into_owned();
        state.set_spectral(naming, "up", "weight", &values(), &SaveOptions::default()).unwrap();
        assert_eq!(state.to_bytes(), before);
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    let naming = SpectralNaming::Hook;
    let mut state = ModelState::new();
    state.set_spectral(naming, "fc", "weight", &values(), &SaveOptions::default()).unwrap();
    let before = state.to_bytes().into_owned();
    let load = |name: &str, axis| state.spectral(naming, name, "weight", axis).unwrap_err();
    assert!(matches!(load("other", 0), Error::StateTensor(_)));
    // Other rows, no such axis.
    assert!(load("fc", 0).to_string().contains("fc.weight_u"));
    assert!(load("fc", 3).to_string().contains("fc.weight_orig"));
    let mut wrong = values();
    wrong.weight.pop();
    let set = |state: &mut ModelState, values: &SpectralValues, options| {
        state.set_spectral(naming, "fc", "weight", values, &options).unwrap_err()
    };
    let got = set(&mut state, &wrong, SaveOptions::default());
    assert!(matches!(got, Error::Length { expected: 24, got: 23, .. }), "{got}");
    let longer = SpectralValues { v: vec![0.1; 7], ..values() };
    for state in [&mut state, &mut ModelState::new()] {
        let got = set(state, &longer, SaveOptions::default());
        assert!(matches!(got, Error::Number { expected: 6, got: 7, .. }), "{got}");
    }
    let none = SpectralValues { u: Vec::new(), v: Vec::new(), ..values() };
    assert!(matches!(set(&mut state, &none, SaveOptions::default()), Error::Number { .. }));
    let third = SpectralValues { u: vec![1.0 / 3.0; 4], ..values() };
    let got = set(&mut state, &third, SaveOptions::default().float(FloatType::F16));
    assert!(got.to_string().contains("weight_u"), "{got}");
    assert_eq!(state.to_bytes(), before);
}
