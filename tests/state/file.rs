//! Files as files: kept to the byte, laid out as others lay them out, refused when they are none.

use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};
use wgnorm::Error;
use wgnorm::state::{LayerSpec, LoadOptions, ModelState, Naming, SaveOptions};

use crate::support::*;

/// A file whose header is this text.
fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

fn refused(file: Vec<u8>) -> String {
    match ModelState::from_bytes(file) {
        Err(Error::StateFile { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

const TWO: &str = r#""dtype":"F32","shape":[2],"data_offsets""#;

#[test]
fn files_come_back_as_they_were() {
    let torch = std::fs::read(fixture("pytorch.safetensors")).unwrap();
    let mut tensors = torch_layer("bn", 3, 0.0);
    tensors.push(made("conv.weight", Dtype::BF16, &[2, 3], (0..12).collect()));
    // Spaces, an order and a padding that no writer of ours would choose; offsets against the order of names.
    let odd = format!(
        "  {{ \"b\" : {{{TWO}: [8, 16]}} , \"__metadata__\":{{\"z\":\"1\",\"a\":\"\\u00fc\"}},\"a\":{{{TWO}:[0,8]}}}}   "
    );
    let odd = with_header(&odd, &[9; 16]);
    for file in [
        torch,
        file(&tensors, &[("format", "pt")]),
        odd,
        with_header("{}", &[]),
        with_header(r#"{"__metadata__":null}"#, &[]),
    ] {
        let state = ModelState::from_bytes(file.clone()).unwrap();
        assert_eq!(*state.to_bytes(), file);
    }
}

#[test]
fn what_is_laid_out_anew_is_laid_out_as_the_crate_does() {
    let sizes = [
        (Dtype::BOOL, 8),
        (Dtype::F4, 4),
        (Dtype::F6_E2M3, 6),
        (Dtype::F6_E3M2, 6),
        (Dtype::U8, 8),
        (Dtype::I8, 8),
        (Dtype::F8_E5M2, 8),
        (Dtype::F8_E4M3, 8),
        (Dtype::F8_E8M0, 8),
        (Dtype::F8_E4M3FNUZ, 8),
        (Dtype::F8_E5M2FNUZ, 8),
        (Dtype::I16, 16),
        (Dtype::U16, 16),
        (Dtype::F16, 16),
        (Dtype::BF16, 16),
        (Dtype::I32, 32),
        (Dtype::U32, 32),
        (Dtype::F32, 32),
        (Dtype::C64, 64),
        (Dtype::F64, 64),
        (Dtype::I64, 64),
        (Dtype::U64, 64),
    ];
    let mut tensors: Vec<_> = sizes
        .iter()
        .map(|&(dtype, bits)| made(&format!("a \"{dtype:?}\"\n\\ü"), dtype, &[2, 4], vec![bits as u8; bits]))
        .collect();
    tensors.push(made("empty", Dtype::F32, &[0, 3], Vec::new()));
    let mut state = state(&tensors);
    state.set_metadata("a key", "a \"value\"\u{1}");
    state.set(&Naming::pytorch(), &[("bn", &torch_values(3, 0.0))], &SaveOptions::default()).unwrap();
    tensors.extend(torch_layer("bn", 3, 0.0));
    assert_eq!(*state.to_bytes(), file(&tensors, &[("a key", "a \"value\"\u{1}")]));

    // And back by removing, without the metadata's order changing.
    for tensor in torch_layer("bn", 3, 0.0) {
        assert!(state.remove(&tensor.name) && !state.remove(&tensor.name));
    }
    tensors.truncate(sizes.len() + 1);
    assert_eq!(*state.to_bytes(), file(&tensors, &[("a key", "a \"value\"\u{1}")]));
    assert_eq!(state.metadata(), [("a key".to_owned(), "a \"value\"\u{1}".to_owned())]);
    assert_eq!(state.tensors().len(), sizes.len() + 1);
}

#[test]
fn a_state_without_tensors_is_a_file() {
    let empty = ModelState::new();
    assert!(SafeTensors::deserialize(&empty.to_bytes()).unwrap().is_empty());
    assert_eq!(*ModelState::from_bytes(empty.to_bytes()).unwrap().to_bytes(), *empty.to_bytes());
}

#[test]
fn what_is_no_file_is_refused() {
    let good = file(&torch_layer("bn", 3, 0.0), &[("format", "pt")]);
    for len in 0..good.len() {
        refused(good[..len].to_vec());
    }
    refused([good.as_slice(), &[0]].concat());

    let entry = |name: &str, offsets: &str| format!("\"{name}\":{{{TWO}:{offsets}}}");
    let header = |entries: &[String]| format!("{{{}}}", entries.join(","));
    for (header, says) in [
        (header(&[entry("a", "[0,8]"), entry("a", "[0,8]")]), "two entries have the name \"a\""),
        (header(&[entry("a", "[0,8]"), entry("a", "[8,16]")]), "two entries"),
        (r#"{"__metadata__":{},"__metadata__":{}}"#.into(), "two entries"),
        (header(&[entry("a", "[0,8]"), entry("b", "[0,8]")]), "offset"),
        (header(&[entry("a", "[0,8]"), entry("b", "[9,17]")]), "ends at 17 of 16 bytes"),
        (header(&[entry("a", "[0,18446744073709551615]")]), "ends at 18446744073709551615"),
        (header(&[entry("a", "[8,0]")]), "offset"),
        (header(&[entry("a", "[0,4]")]), "invalid shape"),
        (header(&[entry("a", "[0,8]")]), "not fully covered"),
        (header(&[entry("a", "[0,-8]")]), "invalid value"),
        (r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}"#.into(), "overflow"),
        (r#"{"a":{"dtype":"F33","shape":[4],"data_offsets":[0,16]}}"#.into(), "unknown variant"),
        (r#"{"a":{"dtype":"F32","shape":[4]}}"#.into(), "data_offsets"),
        (r#"{"__metadata__":{"a":1}}"#.into(), "string"),
        (r#"["a"]"#.into(), "a map"),
        ("{".into(), "EOF"),
        ("".into(), "EOF"),
        ("[".repeat(100_000), "a map"),
        (format!(r#"{{"a":{}"#, "[".repeat(100_000)), "expected value"),
        (format!(r#"{{"a":{{"x":{}"#, "[".repeat(100_000)), "EOF"),
    ] {
        let reason = refused(with_header(&header, &[0; 16]));
        assert!(reason.contains(says), "{header:.80}: {reason}");
    }
    assert!(refused(vec![1; 7]).contains("shorter than 8 bytes"));
    assert!(refused(vec![0xff; 64]).contains("its header has"));
    let mut not_text = with_header("{\"a\":0}", &[]);
    not_text[10] = 0xff;
    refused(not_text);
}

#[test]
fn files_that_cannot_be_read_or_written_say_so() {
    let directory = std::env::temp_dir().join(format!("wgnorm-state-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("model.safetensors");
    let missing = ModelState::read(&path).unwrap_err();
    assert!(matches!(&missing, Error::File { action: "read", .. }), "{missing}");

    let state = state(&torch_layer("bn", 3, 0.0));
    state.write(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), *state.to_bytes());
    assert_eq!(*ModelState::read(&path).unwrap().to_bytes(), *state.to_bytes());
    assert!(matches!(state.write(&directory), Err(Error::File { action: "write", .. })));
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Uses all of a state that bytes make, if they do.
fn exercise(bytes: Vec<u8>) {
    let Ok(mut state) = ModelState::from_bytes(bytes.clone()) else { return };
    assert_eq!(*state.to_bytes(), bytes);
    for naming in [Naming::pytorch(), Naming::keras(), Naming::flax()] {
        let found = state.layers(&naming).unwrap();
        let options = wgnorm::BatchNormOptions::pytorch().running_variance(naming.variance());
        let specs: Vec<_> =
            found.layers.iter().map(|layer| layer.spec(options.affine(layer.affine()))).collect();
        let lenient = LoadOptions::lenient().allow_rounding(true);
        let (values, _) = state.values(&naming, &specs, &lenient).unwrap();
        let layers: Vec<_> =
            specs.iter().zip(&values).map(|(spec, values)| (spec.name.as_str(), values)).collect();
        state.set(&naming, &layers, &SaveOptions::default()).unwrap();
        // Nothing changed.
        assert_eq!(*state.to_bytes(), bytes);
        let _ = state.values(&naming, &[LayerSpec::new("bn", 3, options)], &LoadOptions::strict());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_a_state_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        exercise(bytes.clone());
        exercise(with_header("{}", &bytes));
    }

    #[test]
    fn any_header_is_a_state_or_an_error(header in r#"[{}\[\]":,0-9a-z_ ]{0,64}"#) {
        exercise(with_header(&header, &[0; 16]));
    }

    #[test]
    fn mutated_files_are_a_state_or_an_error(
        name in prop::sample::select(vec!["pytorch", "keras", "flax", "stem_eval"]),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut bytes = std::fs::read(fixture(&format!("{name}.safetensors"))).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        exercise(bytes);
    }

    #[test]
    fn headers_with_other_digits_are_a_state_or_an_error(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), b'0'..=b'9'), 1..3),
    ) {
        let mut bytes = file(&torch_layer("bn", 3, 0.0), &[]);
        let digits: Vec<_> = (8..bytes.len()).filter(|&at| bytes[at].is_ascii_digit()).collect();
        for (at, digit) in changes {
            bytes[digits[at.index(digits.len())]] = digit;
        }
        exercise(bytes);
    }
}
