//! What loading takes, reports and refuses; on the host.

use safetensors::Dtype;
use wgnorm::state::{LayerSpec, LayerValues, LoadOptions, LoadReport, ModelState, Naming, Rebias};
use wgnorm::{Affine, BatchNormOptions, Error, Momentum, RunningVariance};

use crate::support::*;

fn torch(name: &str, channels: usize) -> LayerSpec {
    LayerSpec::new(name, channels, BatchNormOptions::pytorch())
}

fn load(
    state: &ModelState,
    specs: &[LayerSpec],
    options: LoadOptions,
) -> wgnorm::Result<(Vec<LayerValues>, LoadReport)> {
    state.values(&Naming::pytorch(), specs, &options)
}

fn report(result: wgnorm::Result<(Vec<LayerValues>, LoadReport)>) -> LoadReport {
    match result {
        Err(Error::LoadState(report)) => *report,
        other => panic!("{other:?}"),
    }
}

fn mismatched(tensors: &[Made], spec: LayerSpec) -> String {
    // Whether strict or not.
    let state = state(tensors);
    let lenient = report(load(&state, std::slice::from_ref(&spec), LoadOptions::lenient()));
    let strict = report(load(&state, &[spec], LoadOptions::strict()));
    assert_eq!(lenient, strict);
    assert_eq!(strict.mismatched.len(), 1, "{strict}");
    strict.mismatched[0].to_string()
}

#[test]
fn layers_are_loaded_in_the_order_asked_for() {
    let mut tensors = torch_layer("a", 3, 1.0);
    tensors.extend(torch_layer("b", 2, 2.0));
    tensors.push(f32s("other", &[1.0]));
    let (values, report) =
        load(&state(&tensors), &[torch("b", 2), torch("a", 3)], LoadOptions::strict()).unwrap();
    assert_eq!(values, [torch_values(2, 2.0), torch_values(3, 1.0)]);
    assert_eq!(report, LoadReport::default());
    assert_eq!(report.to_string(), "all tensors found");
}

#[test]
fn missing_and_unexpected_are_told_as_pytorch_tells_them() {
    let mut tensors = torch_layer("a", 3, 0.0);
    tensors.remove(2);
    tensors.remove(0);
    tensors.extend([f32s("a.extra", &[1.0]), f32s("a2.weight", &[1.0]), f32s("head.weight", &[1.0])]);
    tensors.extend(torch_layer("c", 1, 0.0));
    let state = state(&tensors);
    let specs = [torch("a", 3), torch("b", 2)];

    let told = report(load(&state, &specs, LoadOptions::strict()));
    let missing = ["a.weight", "a.running_mean", "b.weight", "b.bias", "b.running_mean", "b.running_var"];
    assert_eq!(told.missing, missing);
    assert_eq!(told.unexpected, ["a.extra"]);
    // Without a version in the state PyTorch does not miss the counter.
    assert_eq!(told.uncounted, ["b"]);
    let says = Error::LoadState(Box::new(told.clone())).to_string();
    assert!(says.contains("missing [\"a.weight\"") && says.contains("unexpected [\"a.extra\"]"), "{says}");

    let (values, lenient) = load(&state, &specs, LoadOptions::lenient()).unwrap();
    assert_eq!(lenient, told);
    let a = torch_values(3, 0.0);
    assert_eq!(values[0].gamma, Some(vec![1.0; 3]));
    assert_eq!((&values[0].beta, &values[0].running.var), (&a.beta, &a.running.var));
    assert_eq!((&values[0].running.mean, values[0].running.batches), (&vec![0.0; 3], 7));
    assert_eq!(values[1].running.var, [1.0; 2]);

    // Everything under a prefix.
    let told = report(load(&state, &specs[..1], LoadOptions::strict().nothing_else_under("")));
    let c = ["c.bias", "c.num_batches_tracked", "c.running_mean", "c.running_var", "c.weight"];
    assert_eq!(told.unexpected, [&["a.extra", "a2.weight"][..], &c, &["head.weight"]].concat());
    let told = report(load(&state, &specs[..1], LoadOptions::strict().nothing_else_under("he")));
    assert_eq!(told.unexpected, ["a.extra", "head.weight"]);
}

#[test]
fn parameters_that_the_layer_lacks_are_unexpected() {
    let state = state(&torch_layer("a", 3, 0.0));
    let spec = LayerSpec::new("a", 3, BatchNormOptions::pytorch().affine(Affine::Bias));
    let told = report(load(&state, std::slice::from_ref(&spec), LoadOptions::strict()));
    assert_eq!((told.missing.len(), told.unexpected), (0, vec!["a.weight".to_owned()]));
    let (values, _) = load(&state, &[spec], LoadOptions::lenient()).unwrap();
    assert_eq!((values[0].gamma.as_ref(), &values[0].beta), (None, &torch_values(3, 0.0).beta));
}

#[test]
fn other_shapes_and_types_are_always_refused() {
    let replaced = |at: usize, tensor: Made| {
        let mut tensors = torch_layer("a", 3, 0.0);
        tensors[at] = tensor;
        tensors
    };
    for (tensors, says) in [
        (replaced(0, f32s("a.weight", &[1.0; 4])), r#""a.weight": expected shape [3], got [4]"#),
        (replaced(2, made("a.running_mean", Dtype::F32, &[], vec![0; 4])), r#"shape [3], got []"#),
        (replaced(3, made("a.running_var", Dtype::F32, &[1, 3], vec![0; 12])), r#"shape [3], got [1, 3]"#),
        (
            replaced(1, made("a.bias", Dtype::I32, &[3], vec![0; 12])),
            "expected F32, F16, BF16 or F64, got I32",
        ),
        (replaced(1, f64s("a.bias", &[0.0, 0.1, 0.0])), "F64 values that it lacks"),
        (
            replaced(4, f32s("a.num_batches_tracked", &[1.5])),
            "expected a whole number of any integer type, F16, BF16, F32 or F64, got another F32",
        ),
        (replaced(4, count("a.num_batches_tracked", -1)), "a number from 0 to 4294967295, got -1"),
        (replaced(4, count("a.num_batches_tracked", 1 << 32)), "got 4294967296"),
        (
            replaced(4, made("a.num_batches_tracked", Dtype::I64, &[2], vec![0; 16])),
            "a scalar, got shape [2]",
        ),
        (replaced(4, made("a.num_batches_tracked", Dtype::I64, &[0], vec![])), "a scalar, got shape [0]"),
    ] {
        let got = mismatched(&tensors, torch("a", 3));
        assert!(got.contains(says), "{got}");
    }
    let most =
        replaced(4, made("a.num_batches_tracked", Dtype::I64, &[1], 0xffff_ffffi64.to_le_bytes().to_vec()));
    let (values, _) = load(&state(&most), &[torch("a", 3)], LoadOptions::strict()).unwrap();
    assert_eq!(values[0].running.batches, u32::MAX);
}

#[test]
fn other_float_types_are_widened_or_refused() {
    let halves =
        |dtype, bits: [u16; 2]| made("a.running_mean", dtype, &[2], bits.map(u16::to_le_bytes).concat());
    let with = |mean: Made| [f32s("a.running_var", &[f32::NAN, f32::INFINITY]), mean];
    let spec = LayerSpec::new("a", 2, BatchNormOptions::pytorch().affine(Affine::None));
    let specs = [spec];
    for (mean, expected) in [
        (halves(Dtype::F16, [0x3c01, 0xfc00]), [1.0 + 1.0 / 1024.0, f32::NEG_INFINITY]),
        (halves(Dtype::BF16, [0x3f81, 0x0001]), [1.0 + 1.0 / 128.0, f32::from_bits(0x10000)]),
        (f64s("a.running_mean", &[0.5, -0.0]), [0.5, -0.0]),
    ] {
        let (values, report) = load(&state(&with(mean)), &specs, LoadOptions::strict()).unwrap();
        assert_eq!(values[0].running.mean, expected);
        // What is not finite is loaded as it is.
        assert!(values[0].running.var[0].is_nan() && values[0].running.var[1] == f32::INFINITY);
        assert_eq!(report.rounded, [""; 0]);
    }
    let state = state(&with(f64s("a.running_mean", &[0.1, 1e300])));
    assert!(load(&state, &specs, LoadOptions::lenient()).is_err());
    let (values, report) = load(&state, &specs, LoadOptions::strict().allow_rounding(true)).unwrap();
    assert_eq!(values[0].running.mean, [0.1, f32::INFINITY]);
    assert_eq!(report.rounded, ["a.running_mean"]);
}

#[test]
fn a_cumulative_average_needs_its_number_of_batches() {
    let mut tensors = torch_layer("a", 3, 0.0);
    tensors.truncate(4);
    let spec = LayerSpec::new("a", 3, BatchNormOptions::pytorch().momentum(Momentum::Cumulative));
    let got = mismatched(&tensors, spec.clone());
    assert!(got.contains("a.num_batches_tracked") && got.contains("LayerSpec::batches"), "{got}");
    for batches in [0, 12] {
        let specs = [spec.clone().batches(batches)];
        let (values, report) = load(&state(&tensors), &specs, LoadOptions::strict()).unwrap();
        assert_eq!((values[0].running.batches, report.uncounted), (batches, vec!["a".to_owned()]));
    }
    // Where no file has it, the same.
    let keras = [f32s("a/moving_mean", &[0.0]), f32s("a/moving_variance", &[1.0])];
    let options = BatchNormOptions::keras().affine(Affine::None).momentum(Momentum::Cumulative);
    let load = |spec| state(&keras).values(&Naming::keras(), &[spec], &LoadOptions::strict());
    let told = report(load(LayerSpec::new("a", 1, options)));
    assert_eq!(told.mismatched[0].key, "a");
    assert!(load(LayerSpec::new("a", 1, options).batches(5)).is_ok());
    // The file's number goes before the caller's.
    tensors = torch_layer("a", 3, 0.0);
    let values =
        state(&tensors).values(&Naming::pytorch(), &[spec.batches(12)], &LoadOptions::strict()).unwrap().0;
    assert_eq!(values[0].running.batches, 7);
}

#[test]
fn a_variance_of_another_convention_is_not_taken_in_silence() {
    let state = state(&torch_layer("a", 3, 0.0));
    let spec = LayerSpec::new("a", 3, BatchNormOptions::keras());
    let load = |rebias| load(&state, &[spec.clone().rebias(rebias)], LoadOptions::strict());
    let (from, to) = (RunningVariance::Unbiased, RunningVariance::Biased);
    let refused = load(Rebias::Refuse).unwrap_err();
    assert_eq!(refused, Error::VarianceConvention { layer: "\"a\"".into(), from, to });
    assert!(refused.to_string().contains("is unbiased, and biased is needed"), "{refused}");
    for count in [0, 1] {
        assert_eq!(load(Rebias::Count(count)), Err(Error::VarianceCount { got: Some(count) }));
    }
    let var = torch_values(3, 0.0).running.var;
    let kept = load(Rebias::Keep).unwrap().0;
    assert_eq!((&kept[0].running.var, kept[0].running_variance), (&var, to));
    let converted = load(Rebias::Count(4)).unwrap().0;
    assert_eq!(converted[0].running.var, var.iter().map(|var| var * 0.75).collect::<Vec<_>>());
    // The initial variance of a layer that the file lacks is 1 in every convention.
    let specs = [LayerSpec::new("b", 2, BatchNormOptions::keras()).rebias(Rebias::Count(2))];
    let (values, _) = state.values(&Naming::pytorch(), &specs, &LoadOptions::lenient()).unwrap();
    assert_eq!(values[0].running.var, [1.0; 2]);
}

#[test]
fn specs_that_make_no_sense_are_refused() {
    let state = state(&torch_layer("a", 3, 0.0));
    let lenient = |specs: &[LayerSpec]| load(&state, specs, LoadOptions::lenient()).unwrap_err();
    assert!(matches!(lenient(&[torch("a", 3), torch("a", 3)]), Error::DuplicateName { .. }));
    assert!(matches!(lenient(&[torch("a", 0)]), Error::Channels { .. }));
    assert!(matches!(lenient(&[torch("b", usize::MAX)]), Error::TooLarge { .. }));
    let bad = LayerSpec::new("a", 3, BatchNormOptions::pytorch().eps(-1.0));
    assert!(matches!(lenient(&[bad]), Error::Epsilon { .. }));
    let naming = Naming::pytorch().separator("");
    let refused = state.values(&naming, &[torch("a", 3)], &LoadOptions::lenient());
    assert!(matches!(refused, Err(Error::Naming { .. })));
    assert_eq!(load(&state, &[], LoadOptions::strict()), Ok(Default::default()));
}
