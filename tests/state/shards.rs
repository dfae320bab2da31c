//! Models in several files.

use proptest::prelude::*;
use wgnorm::state::{LoadOptions, ModelState, Naming};
use wgnorm::{Affine, BatchNormOptions, Error};

use crate::support::*;

/// Two layers, of the second of which gamma and beta lie in another file than the rest.
fn shards() -> [Vec<u8>; 2] {
    let [mut first, second] = [torch_layer("a", 3, 0.0), torch_layer("b", 3, 1.0)];
    let (parameters, statistics) = second.split_at(2);
    first.extend_from_slice(parameters);
    [file(&first, &[("format", "pt")]), file(statistics, &[("format", "pt"), ("part", "2")])]
}

fn index(of_b: &str) -> String {
    let of = |layer: &str, names: &[&str], file: &str| {
        let entries = names.iter().map(|name| format!(r#""{layer}.{name}": "{file}""#));
        entries.collect::<Vec<_>>().join(",")
    };
    let parameters = ["weight", "bias"];
    let statistics = ["running_mean", "running_var", "num_batches_tracked"];
    let all = [
        of("a", &parameters, "one.safetensors"),
        of("a", &statistics, "one.safetensors"),
        of("b", &parameters, "one.safetensors"),
        of("b", &statistics, of_b),
    ];
    format!(r#"{{"metadata": {{"total_size": 1}}, "weight_map": {{{}}}}}"#, all.join(","))
}

fn joined(index: &str) -> Result<ModelState, Error> {
    let [one, two] = shards();
    ModelState::from_shards(index.as_bytes(), |name| {
        Ok(if name == "one.safetensors" { one.clone() } else { two.clone() })
    })
}

#[test]
fn shards_are_one_model() {
    let naming = Naming::pytorch();
    let options = BatchNormOptions::pytorch();
    let state = joined(&index("two.safetensors")).unwrap();
    let specs = state.layers(&naming).unwrap().specs(options);
    let (values, report) = state.values(&naming, &specs, &LoadOptions::strict()).unwrap();
    assert_eq!(values, [torch_values(3, 0.0), torch_values(3, 1.0)]);
    assert!(report.missing.is_empty());
    assert_eq!(state.metadata(), [("format".into(), "pt".into()), ("part".into(), "2".into())]);
    // Written, it is one file.
    let again = ModelState::from_bytes(state.to_bytes()).unwrap();
    assert_eq!(again.tensors(), state.tensors());
    // The same by the path of the index.
    let folder = std::env::temp_dir().join(format!("wgnorm-shards-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let [one, two] = shards();
    std::fs::write(folder.join("one.safetensors"), one).unwrap();
    std::fs::write(folder.join("two.safetensors"), two).unwrap();
    let path = folder.join("model.safetensors.index.json");
    std::fs::write(&path, index("two.safetensors")).unwrap();
    assert_eq!(ModelState::read(&path).unwrap().tensors(), state.tensors());
    std::fs::remove_file(folder.join("two.safetensors")).unwrap();
    assert!(matches!(ModelState::read(&path), Err(Error::File { .. })));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_shard_alone_lacks_what_its_options_or_its_siblings_call_for() {
    let naming = Naming::pytorch();
    let [one, two] = shards().map(|shard| ModelState::from_bytes(shard).unwrap());
    let options = BatchNormOptions::pytorch();
    let found = two.layers(&naming).unwrap();
    assert_eq!(found.layers[0].affine(), Affine::None);
    let specs = [found.layers[0].spec(options)];
    let Err(Error::LoadState(report)) = two.values(&naming, &specs, &LoadOptions::strict()) else { panic!() };
    assert_eq!(report.missing, ["b.weight", "b.bias"]);
    let (_, report) = two.values(&naming, &specs, &LoadOptions::lenient()).unwrap();
    assert_eq!(report.missing, ["b.weight", "b.bias"]);
    // Beside a layer that has them.
    let mut tensors = torch_layer("a", 3, 0.0);
    tensors.extend(torch_layer("b", 3, 1.0).into_iter().skip(2));
    let both = state(&tensors);
    let specs = both.layers(&naming).unwrap().specs(options.affine(Affine::None));
    let Err(Error::LoadState(report)) = both.values(&naming, &specs, &LoadOptions::strict()) else {
        panic!()
    };
    assert_eq!(report.missing, ["b.weight", "b.bias"]);
    // Of a layer without running statistics nothing is found.
    assert_eq!(one.layers(&naming).unwrap().layers.len(), 1);
}

#[test]
fn an_index_that_does_not_hold_is_refused() {
    for (index, says) in [
        ("", "no index"),
        ("[]", "no index"),
        (r#"{"metadata": {}}"#, "weight_map"),
        (r#"{"weight_map": {"a": 3}}"#, "no index"),
        (&index("one.safetensors"), r#""one.safetensors" lacks "b.num_batches_tracked""#),
        (&index("../two.safetensors"), "no file beside the index"),
        (&index("/two.safetensors"), "no file beside the index"),
        (&index(""), "no file beside the index"),
        // Its second file is the first once more.
        (&index("two.safetensors").replace("one", "three"), r#"several files have "b.num_batches_tracked""#),
    ] {
        let error = joined(index).unwrap_err();
        assert!(matches!(error, Error::StateFile { .. }) && error.to_string().contains(says), "{error}");
    }
    assert_eq!(joined(r#"{"weight_map": {}}"#).unwrap().tensors(), []);
}

#[test]
fn whole_numbers_of_batches_are_taken_in_any_type() {
    let naming = Naming::pytorch();
    let key = "a.num_batches_tracked";
    for count in [
        made(key, safetensors::Dtype::I32, &[], 7_i32.to_le_bytes().to_vec()),
        made(key, safetensors::Dtype::U32, &[1], 7_u32.to_le_bytes().to_vec()),
        f32s(key, &[7.0]),
        f64s(key, &[7.0]),
    ] {
        let dtype = count.dtype.to_string();
        let mut tensors = torch_layer("a", 3, 0.0);
        tensors[4] = count;
        let mut state = state(&tensors);
        let specs = state.layers(&naming).unwrap().specs(BatchNormOptions::pytorch());
        let (mut values, _) = state.values(&naming, &specs, &LoadOptions::strict()).unwrap();
        assert_eq!(values[0], torch_values(3, 0.0), "{dtype}");
        // It keeps its type.
        values[0].running.batches = 8;
        state.set(&naming, &[("a", &values[0])], &Default::default()).unwrap();
        let tensors = state.tensors();
        let entry = tensors.iter().find(|tensor| tensor.name == key).unwrap();
        assert_eq!(entry.dtype, dtype);
        let (values, _) = state.values(&naming, &specs, &LoadOptions::strict()).unwrap();
        assert_eq!(values[0].running.batches, 8);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever an index says, it is a model or an error, and no file is asked for that it does not name.
    #[test]
    fn any_index_is_a_model_or_an_error(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        kept in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut bytes = index("two.safetensors").into_bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if !whole {
            bytes.truncate(kept.index(bytes.len()));
        }
        let [one, two] = shards();
        let read = |name: &str| match name {
            "one.safetensors" => Ok(one.clone()),
            "two.safetensors" => Ok(two.clone()),
            other => Err(Error::StateFile { reason: format!("there is no {other}") }),
        };
        if let Ok(state) = ModelState::from_shards(&bytes, read) {
            let again = ModelState::from_bytes(state.to_bytes().into_owned()).unwrap();
            prop_assert_eq!(again.to_bytes(), state.to_bytes());
        }
    }
}
