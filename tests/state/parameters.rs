//! Single parameters by name: GraphNorm's and switchable norm's as other programs save them, and what does not fit.

use wgnorm::Error;
use wgnorm::state::{FloatType, GRAPH_NORM, ModelState, SWITCHABLE_NORM, SaveOptions};

#[test]
fn what_is_saved_is_loaded_and_shapes_stay() {
    // As SwitchNorm2d has them.
    let shapes: [&[usize]; 6] = [&[1, 4, 1, 1], &[1, 4, 1, 1], &[3], &[3], &[1, 4, 1], &[1, 4, 1]];
    let values: Vec<Vec<f32>> = shapes
        .iter()
        .map(|shape| (0..shape.iter().product()).map(|i| i as f32 * 0.5 - 1.0).collect())
        .collect();
    let names: Vec<String> = SWITCHABLE_NORM.iter().map(|name| format!("bn1.{name}")).collect();
    let all = |values: &[Vec<f32>], state: &mut ModelState, flat: bool| {
        let lens: Vec<[usize; 1]> = values.iter().map(|values| [values.len()]).collect();
        let of = |i: usize| (names[i].as_str(), if flat { &lens[i][..] } else { shapes[i] }, &values[i][..]);
        let parameters: Vec<_> = (0..6).map(of).collect();
        state.set_parameters(&parameters, &SaveOptions::default()).unwrap();
    };
    let mut state = ModelState::new();
    all(&values, &mut state, false);
    let mut state = ModelState::from_bytes(state.to_bytes().into_owned()).unwrap();
    for (name, values) in names.iter().zip(&values) {
        assert_eq!(&state.parameter(name, values.len()).unwrap(), values);
    }
    let before = state.to_bytes().into_owned();
    // By values alone the tensors keep their shapes.
    all(&values, &mut state, true);
    assert_eq!(state.to_bytes(), before);
    let entry = state.tensors().into_iter().find(|entry| entry.name == "bn1.weight").unwrap();
    assert_eq!(entry.shape, [1, 4, 1, 1]);
    assert_eq!(GRAPH_NORM, ["weight", "bias", "mean_scale"]);
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    let mut state = ModelState::new();
    state.set_parameters(&[("norm.weight", &[2], &[1.0, 2.0])], &SaveOptions::default()).unwrap();
    let before = state.to_bytes().into_owned();
    for (name, len) in [("norm.bias", 2), ("norm.weight", 3)] {
        assert!(matches!(state.parameter(name, len), Err(Error::StateTensor(_))), "{name}");
    }
    let options = SaveOptions::default();
    let mut set = |parameters: &[(&str, &[usize], &[f32])], options: &SaveOptions| {
        state.set_parameters(parameters, options).unwrap_err()
    };
    let wrong = set(&[("norm.bias", &[3], &[1.0])], &options);
    assert!(matches!(wrong, Error::Length { expected: 3, got: 1, .. }), "{wrong}");
    // The first of these would fit.
    let wrong = set(&[("norm.bias", &[1], &[1.0]), ("norm.weight", &[3], &[0.0; 3])], &options);
    assert!(matches!(wrong, Error::StateTensor(_)), "{wrong}");
    let third: &[f32] = &[1.0 / 3.0, 0.0];
    let wrong = set(&[("norm.weight", &[2], third)], &options.float(FloatType::F16));
    assert!(wrong.to_string().contains("norm.weight"), "{wrong}");
    let twice = set(&[("a", &[1], &[0.0]), ("a", &[1], &[0.0])], &options);
    assert!(matches!(twice, Error::DuplicateName { .. }), "{twice}");
    assert_eq!(state.to_bytes(), before);
}
