//! What saving changes, leaves and refuses; on the host.

use safetensors::Dtype;
use wgnorm::state::{FloatType, LayerSpec, LayerValues, LoadOptions, ModelState, Naming, SaveOptions};
use wgnorm::{Affine, BatchNormOptions, Error, RunningValues, RunningVariance};

use crate::support::*;

fn set(state: &mut ModelState, layers: &[(&str, &LayerValues)]) -> wgnorm::Result<()> {
    state.set(&Naming::pytorch(), layers, &SaveOptions::default())
}

/// Saves what is refused, and that nothing changed.
fn refused(tensors: &[Made], layers: &[(&str, &LayerValues)], options: SaveOptions) -> Error {
    let mut state = state(tensors);
    let error = state.set(&Naming::pytorch(), layers, &options).unwrap_err();
    assert_eq!(*state.to_bytes(), file(tensors, &[]));
    error
}

#[test]
fn only_the_bytes_of_changed_values_change() {
    let mut tensors = torch_layer("a", 3, 0.0);
    tensors.extend(torch_layer("b", 2, 1.0));
    tensors.push(made("conv.weight", Dtype::F16, &[2, 2], (0..8).collect()));
    let mut state = state(&tensors);
    let mut values = torch_values(3, 0.0);
    values.running.mean[1] = -5.0;
    values.running.batches = 8;
    set(&mut state, &[("a", &values), ("b", &torch_values(2, 1.0))]).unwrap();
    let before = file(&tensors, &[]);
    tensors[2].data[4..8].copy_from_slice(&(-5.0f32).to_le_bytes());
    tensors[4] = count("a.num_batches_tracked", 8);
    assert_eq!(*state.to_bytes(), file(&tensors, &[]));
    let changed = state.to_bytes().iter().zip(&before).filter(|(after, before)| after != before).count();
    assert!((2..=5).contains(&changed), "{changed}");
}

#[test]
fn other_types_stay_and_what_they_lack_is_refused() {
    let nan = 0x7d01u16; // a signalling NaN, which no conversion keeps
    let halves =
        |bits: [u16; 2]| made("a.running_mean", Dtype::F16, &[2], bits.map(u16::to_le_bytes).concat());
    let tensors = [halves([0x3c00, nan]), f64s("a.running_var", &[0.1, 1e300])];
    let mut state = state(&tensors);
    let spec = LayerSpec::new("a", 2, BatchNormOptions::pytorch().affine(Affine::None));
    let rounding = LoadOptions::strict().allow_rounding(true);
    let mut values = state.values(&Naming::pytorch(), &[spec], &rounding).unwrap().0.remove(0);
    set(&mut state, &[("a", &values)]).unwrap();
    assert_eq!(*state.to_bytes(), file(&tensors, &[]));

    // Values that the type has are stored in it.
    values.running.mean = vec![2.0, -0.5];
    values.running.var = vec![0.1, 3.0];
    set(&mut state, &[("a", &values)]).unwrap();
    let expected = [halves([0x4000, 0xb800]), f64s("a.running_var", &[f64::from(0.1f32), 3.0])];
    assert_eq!(*state.to_bytes(), file(&expected, &[]));

    values.running.mean[0] = 0.1;
    let error = refused(&expected, &[("a", &values)], SaveOptions::default());
    assert!(matches!(&error, Error::StateTensor(_)), "{error}");
    assert!(error.to_string().contains("values that F16 has (or SaveOptions::allow_rounding)"), "{error}");
    state.set(&Naming::pytorch(), &[("a", &values)], &SaveOptions::default().allow_rounding(true)).unwrap();
    assert_eq!(*state.to_bytes(), file(&[halves([0x2e66, 0xb800]), expected[1].clone()], &[]));
    // Or in a type that is asked for.
    state.set(&Naming::pytorch(), &[("a", &values)], &SaveOptions::default().float(FloatType::F32)).unwrap();
    let expected = [f32s("a.running_mean", &[0.1, -0.5]), f32s("a.running_var", &[0.1, 3.0])];
    assert_eq!(*state.to_bytes(), file(&expected, &[]));
}

#[test]
fn numbers_of_batches_are_stored_where_they_mean_something() {
    let tensors = torch_layer("a", 3, 0.0);
    let without = &tensors[..4];
    let mut values = torch_values(3, 0.0);
    values.running.batches = 0;
    let mut old = state(without);
    set(&mut old, &[("a", &values)]).unwrap();
    assert_eq!(*old.to_bytes(), file(without, &[]));
    values.running.batches = 7;
    set(&mut old, &[("a", &values)]).unwrap();
    assert_eq!(*old.to_bytes(), file(&tensors, &[]));
    // One that no layer can count is replaced.
    let mut bad = tensors.clone();
    bad[4] = count("a.num_batches_tracked", -1);
    let mut bad = state(&bad);
    set(&mut bad, &[("a", &values)]).unwrap();
    assert_eq!(*bad.to_bytes(), file(&tensors, &[]));
    // A new layer has one, be it 0; its shape stays if there is one.
    values.running.batches = 0;
    let mut new = ModelState::new();
    set(&mut new, &[("a", &values)]).unwrap();
    let mut expected = tensors.clone();
    expected[4] = count("a.num_batches_tracked", 0);
    assert_eq!(*new.to_bytes(), file(&expected, &[]));
    let mut vector = tensors.clone();
    vector[4].shape = vec![1];
    let mut of_vector = state(&vector);
    set(&mut of_vector, &[("a", &values)]).unwrap();
    vector[4].data = vec![0; 8];
    assert_eq!(*of_vector.to_bytes(), file(&vector, &[]));
}

#[test]
fn what_does_not_fit_the_state_is_refused_and_nothing_changes() {
    let mut tensors = torch_layer("z", 3, 0.0);
    tensors.extend([f32s("i.running_var", &[0.0; 4]), made("j.weight", Dtype::I32, &[3], vec![0; 12])]);
    tensors.push(f32s("k.num_batches_tracked", &[1.5]));
    let good = torch_values(3, 9.0);
    let options = SaveOptions::default();
    let bare = LayerValues { gamma: None, ..good.clone() };
    for (name, values, says) in [
        ("i", &good, "shape [3], got [4]"),
        ("j", &good, "F32, F16, BF16 or F64, got I32"),
        ("k", &good, "expected a whole number"),
        ("z", &bare, "no such tensor, because the layer has no gamma, got one of shape [3]"),
    ] {
        let error = refused(&tensors, &[("new", &good), (name, values)], options);
        assert!(matches!(error, Error::StateTensor(_)) && error.to_string().contains(says), "{error}");
    }
    let twice = refused(&tensors, &[("z", &good), ("z", &good)], options);
    assert!(matches!(twice, Error::DuplicateName { .. }), "{twice}");
    let biased = LayerValues { running_variance: RunningVariance::Biased, ..good.clone() };
    let convention = refused(&tensors, &[("z", &good), ("y", &biased)], options);
    assert!(matches!(convention, Error::VarianceConvention { .. }), "{convention}");

    let empty = RunningValues { mean: vec![], var: vec![], batches: 0 };
    let empty = LayerValues { gamma: None, beta: None, running: empty, ..good.clone() };
    assert!(matches!(refused(&tensors, &[("e", &empty)], options), Error::Channels { .. }));
    let short = LayerValues { beta: Some(vec![0.0]), ..good.clone() };
    assert!(matches!(refused(&tensors, &[("e", &short)], options), Error::Length { what: "beta", .. }));
    let mut short = good.clone();
    short.running.var.pop();
    assert!(matches!(
        refused(&tensors, &[("e", &short)], options),
        Error::Length { what: "running_var", .. }
    ));

    let mut state = state(&tensors);
    let reserved = Naming::custom("g", "b", "m", "__metadata__", RunningVariance::Unbiased);
    assert!(matches!(state.set(&reserved, &[("", &good)], &options), Err(Error::Naming { .. })));
    assert_eq!(*state.to_bytes(), file(&tensors, &[]));
}
