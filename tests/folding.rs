//! Folding into weights in slices: against convolutions in f64, over all layouts, groups and hostile norms.

#[path = "gpu/convolution.rs"]
mod convolution;

use convolution::{Convolution, Image, Kind, Norm, close};
use proptest::prelude::*;
use wgnorm::absorb::{Border, InferenceNorm, WeightLayout, Weights};
use wgnorm::{DType, Error};

/// Numbers in [-1, 1), the same for the same seed.
fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

fn as_norm(norm: &Norm) -> InferenceNorm<'_> {
    let Norm { mean, var, gamma, beta, eps } = norm;
    InferenceNorm { mean, var, gamma: gamma.as_deref(), beta: beta.as_deref(), eps: *eps }
}

struct Data {
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    x: Image,
}

impl Data {
    fn new(seed: u64, convolution: &Convolution, biased: bool) -> Self {
        let mut weights = random(seed, convolution.len());
        // A subnormal one.
        weights[0] = 1e-40;
        let bias = biased.then(|| random(seed + 1, convolution.all_outputs()));
        let size = if convolution.kernel.is_some() { [5, 4] } else { [1, 1] };
        let x = wide(&random(seed + 2, convolution.all_inputs() * size[0] * size[1]));
        Self { weights, bias, x: Image { values: x, size } }
    }

    fn largest(&self) -> f64 {
        self.x.values.iter().fold(0.0, |largest, value| value.abs().max(largest))
    }
}

/// norm(conv(x)) is the folded convolution of x, up to what is reported, and that is what rounding explains.
fn assert_preceding(convolution: &Convolution, norm: &Norm, data: &Data) {
    let (dims, layout) = (convolution.dims(), convolution.layout());
    let weights = Weights { values: &data.weights, dims: &dims, layout, bias: data.bias.as_deref() };
    let absorbed = as_norm(norm).absorb_into_preceding(&weights).unwrap();
    let bias = data.bias.as_deref().map(wide);
    let (y, magnitudes) = convolution.apply(&data.x, &wide(&data.weights), bias.as_deref());
    let (expected, magnitudes) = norm.apply(&y, &magnitudes);
    let (got, _) = convolution.apply(&data.x, &wide(&absorbed.weight), Some(&wide(&absorbed.bias)));
    assert_all(convolution, (&got, &expected), &magnitudes, absorbed.deviation.of_output(data.largest()));
    assert_rounding(&absorbed);
}

/// conv(norm(x)) likewise.
fn assert_following(convolution: &Convolution, norm: &Norm, data: &Data, border: Border) {
    let (dims, layout) = (convolution.dims(), convolution.layout());
    let weights = Weights { values: &data.weights, dims: &dims, layout, bias: data.bias.as_deref() };
    let absorbed = as_norm(norm).absorb_into_following(&weights, border).unwrap();
    let bias = data.bias.as_deref().map(wide);
    let x_magnitudes: Vec<_> = data.x.values.iter().map(|value| value.abs()).collect();
    let (normalized, magnitudes) = norm.apply(&data.x, &x_magnitudes);
    let (expected, _) = convolution.apply(&normalized, &wide(&data.weights), bias.as_deref());
    let magnitudes = Image { values: magnitudes, size: data.x.size };
    let (_, magnitudes) = convolution.apply(&magnitudes, &wide(&data.weights), bias.as_deref());
    let (got, _) = convolution.apply(&data.x, &wide(&absorbed.weight), Some(&wide(&absorbed.bias)));
    assert_all(convolution, (&got, &expected), &magnitudes, absorbed.deviation.of_output(data.largest()));
    assert_rounding(&absorbed);
}

fn assert_all(
    convolution: &Convolution,
    (got, expected): (&Image, &Image),
    magnitudes: &[f64],
    allowed: f64,
) {
    assert_eq!(got.values.len(), expected.values.len());
    for (at, (&got, &expected)) in got.values.iter().zip(&expected.values).enumerate() {
        assert!(
            close(got, expected, magnitudes[at], allowed),
            "{convolution:?} [{at}]: {got:e}, expected {expected:e} within {allowed:e}"
        );
    }
}

fn assert_rounding(absorbed: &wgnorm::absorb::Absorbed) {
    let largest = |values: &[f32]| wide(values).into_iter().fold(0.0, |a: f64, b| a.max(b.abs()));
    // A value and the exact one differ by half a unit, which subnormal numbers have too.
    let half_unit = |values: &[f32]| DType::F32.unit_roundoff() * largest(values) * 1.01 + 1e-45;
    let deviation = absorbed.deviation;
    assert!(deviation.weight <= half_unit(&absorbed.weight), "{deviation:?}");
    assert!(deviation.bias <= half_unit(&absorbed.bias), "{deviation:?}");
    assert!(deviation.output_per_input >= deviation.weight);
}

/// All kinds, plain and grouped, and linear layers.
fn convolutions() -> Vec<Convolution> {
    let kinds = Kind::ALL.into_iter().flat_map(|kind| [1, 2, 4].map(|groups| Convolution::of(kind, groups)));
    let linear = [Kind::OutputFirst, Kind::OutputLast].map(Convolution::linear);
    kinds.chain(linear).collect()
}

#[test]
fn every_convolution_takes_over_the_norm_after_it() {
    for (seed, plain) in convolutions().into_iter().enumerate() {
        for (stride, padding) in if plain.kernel.is_some() { vec![(1, 0), (2, 1)] } else { vec![(1, 0)] } {
            let convolution = Convolution { stride, padding, ..plain };
            let norm = Norm::hostile(&random(seed as u64, 4 * convolution.all_outputs()));
            for biased in [false, true] {
                let data = Data::new(100 + seed as u64, &convolution, biased);
                assert_preceding(&convolution, &norm, &data);
                assert_preceding(&convolution, &Norm { gamma: None, ..norm.clone() }, &data);
                assert_preceding(&convolution, &Norm { beta: None, ..norm.clone() }, &data);
            }
        }
    }
}

#[test]
fn every_plain_convolution_takes_over_the_norm_before_it() {
    let plain = convolutions().into_iter().filter(|convolution| !convolution.kind.is_transposed());
    for (seed, convolution) in plain.enumerate() {
        let norm = Norm::hostile(&random(seed as u64, 4 * convolution.all_inputs()));
        for biased in [false, true] {
            let data = Data::new(200 + seed as u64, &convolution, biased);
            let strided = Convolution { stride: 2, ..convolution };
            for convolution in [convolution, strided] {
                assert_following(&convolution, &norm, &data, Border::Unpadded);
                assert_following(&convolution, &norm, &data, Border::FromInput);
            }
        }
    }
}

#[test]
fn a_border_of_zeros_is_refused_unless_nothing_is_shifted() {
    for convolution in convolutions() {
        let data = Data::new(3, &convolution, true);
        let norm = Norm::hostile(&random(4, 4 * convolution.all_inputs()));
        let (dims, layout) = (convolution.dims(), convolution.layout());
        let weights = Weights { values: &data.weights, dims: &dims, layout, bias: None };
        for border in [Border::Zeros, Border::Transposed] {
            let refused = as_norm(&norm).absorb_into_following(&weights, border);
            assert!(matches!(refused, Err(Error::InexactFolding { .. })), "{convolution:?}: {refused:?}");
        }
        let unpadded = as_norm(&norm).absorb_into_following(&weights, Border::Unpadded);
        assert_eq!(unpadded.is_err(), convolution.kind.is_transposed(), "{unpadded:?}");
        // Mean and beta 0: zeros stay zeros.
        let zeros = vec![0.0; norm.mean.len()];
        let scaling = Norm { mean: zeros, beta: None, ..norm };
        let padding = usize::from(convolution.kernel.is_some());
        assert_following(&Convolution { padding, ..convolution }, &scaling, &data, Border::Zeros);
    }
}

#[test]
fn what_is_refused_would_be_wrong() {
    // With a border of zeros, the bias that is right inside is wrong at the border, so refusing is not caution.
    let convolution = Convolution { padding: 1, ..Convolution::of(Kind::OutputFirst, 1) };
    let data = Data::new(5, &convolution, false);
    let norm = Norm { mean: vec![1.0, 2.0], var: vec![1.0, 1.0], gamma: None, beta: None, eps: 1e-5 };
    let (dims, layout) = (convolution.dims(), convolution.layout());
    let weights = Weights { values: &data.weights, dims: &dims, layout, bias: None };
    let absorbed = as_norm(&norm).absorb_into_following(&weights, Border::Unpadded).unwrap();
    let (normalized, _) = norm.apply(&data.x, &wide(&vec![0.0; data.x.values.len()]));
    let (expected, _) = convolution.apply(&normalized, &wide(&data.weights), None);
    let (got, _) = convolution.apply(&data.x, &wide(&absorbed.weight), Some(&wide(&absorbed.bias)));
    let off: Vec<_> = got.values.iter().zip(&expected.values).map(|(a, b)| (a - b).abs()).collect();
    let [h, w] = got.size;
    assert!(off[0] > 0.1, "the corner is off by {}", off[0]);
    assert!(off[h / 2 * w + w / 2] < 1e-5, "the middle is off by {}", off[h / 2 * w + w / 2]);
}

#[test]
fn scale_and_shift_are_rounded_once() {
    let norm = Norm::hostile(&random(6, 4 * 14));
    let epilogue = as_norm(&norm).scale_shift().unwrap();
    for c in 0..14 {
        let gamma = f64::from(norm.gamma.as_ref().unwrap()[c]);
        let scale = gamma / (f64::from(norm.var[c]) + norm.eps).sqrt();
        let shift = f64::from(norm.beta.as_ref().unwrap()[c]) - f64::from(norm.mean[c]) * scale;
        assert_eq!(epilogue.scale[c], scale as f32);
        assert!((f64::from(epilogue.shift[c]) - shift).abs() <= 1e-7 * shift.abs());
        assert!((f64::from(epilogue.scale[c]) - scale).abs() <= epilogue.deviation.weight);
        assert!((f64::from(epilogue.shift[c]) - shift).abs() <= epilogue.deviation.bias * (1.0 + 1e-9));
    }
    // Values that f32 does not have.
    let exact = InferenceNorm { mean: &[0.1_f64], var: &[0.01], gamma: None, beta: None, eps: 1e-12 };
    assert_eq!(exact.scale_shift().unwrap().scale, [(1.0 / (0.01_f64 + 1e-12).sqrt()) as f32]);
}

const NORM: InferenceNorm<'static> =
    InferenceNorm { mean: &[1.0, 2.0], var: &[1.0, 4.0], gamma: Some(&[1.0, 2.0]), beta: None, eps: 1e-5 };

macro_rules! refused {
    ($result:expr, $error:pat $(if $guard:expr)?) => {
        match $result {
            Err($error) $(if $guard)? => {}
            other => panic!("expected {}, got {other:?}", stringify!($error $(if $guard)?)),
        }
    };
}

#[test]
fn unsound_norms_are_refused() {
    let of = |norm: InferenceNorm<'_>| norm.scale_shift();
    refused!(of(InferenceNorm { mean: &[], ..NORM }), Error::Channels { got: 0, .. });
    refused!(
        of(InferenceNorm { var: &[1.0], ..NORM }),
        Error::Length { what: "running_var", expected: 2, got: 1, .. }
    );
    refused!(
        of(InferenceNorm { gamma: Some(&[1.0; 3]), ..NORM }),
        Error::Length { what: "gamma", got: 3, .. }
    );
    refused!(of(InferenceNorm { beta: Some(&[]), ..NORM }), Error::Length { what: "beta", got: 0, .. });
    for eps in [-1.0, f64::NAN, f64::INFINITY, 1e-40, 1e39] {
        refused!(of(InferenceNorm { eps, ..NORM }), Error::Epsilon { .. });
    }
    // With an eps of 0, variances must be more.
    assert!(of(InferenceNorm { eps: 0.0, ..NORM }).is_ok());
    refused!(
        of(InferenceNorm { eps: 0.0, var: &[1.0, 0.0], ..NORM }),
        Error::Value { what: "running_var", index: 1, .. }
    );
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let bad = &[0.5, bad];
        refused!(
            of(InferenceNorm { mean: bad, ..NORM }),
            Error::Value { what: "running_mean", index: 1, .. }
        );
        refused!(of(InferenceNorm { var: bad, ..NORM }), Error::Value { what: "running_var", .. });
        refused!(of(InferenceNorm { gamma: Some(bad), ..NORM }), Error::Value { what: "gamma", .. });
        refused!(of(InferenceNorm { beta: Some(bad), ..NORM }), Error::Value { what: "beta", .. });
    }
    let negative = of(InferenceNorm { var: &[1.0, -1e-20], ..NORM });
    refused!(negative, Error::Value { index: 1, expected: "at least 0", .. });
    let large = InferenceNorm { gamma: Some(&[1.0, 3e38]), var: &[1.0, 1e-3], ..NORM };
    refused!(of(large), Error::Unrepresentable { what: "scale", index: 1, dtype: DType::F32, .. });
    let far = InferenceNorm { mean: &[3e38, 0.0], var: &[1e-3, 1.0], ..NORM };
    refused!(of(far), Error::Unrepresentable { what: "shift", index: 0, .. });
    let beyond =
        InferenceNorm { mean: &[1e300_f64], var: &[1e-9], gamma: Some(&[1e300]), beta: None, eps: 1e-9 };
    refused!(beyond.scale_shift(), Error::Unrepresentable { .. });
}

#[test]
fn unsound_weights_are_refused() {
    let values = [0.5_f32; 12];
    let layout = WeightLayout::OutputFirst { groups: 1 };
    let weights = Weights { values: &values, dims: &[2, 3, 2], layout, bias: None };
    let into = |weights: Weights<'_>| NORM.absorb_into_preceding(&weights);
    assert!(into(weights).is_ok());
    refused!(
        into(Weights { values: &values[1..], ..weights }),
        Error::Length { what: "weight", expected: 12, got: 11, .. }
    );
    refused!(into(Weights { dims: &[3, 2, 2], ..weights }), Error::Channels { expected: 2, got: 3, .. });
    refused!(into(Weights { dims: &[12], ..weights }), Error::WeightShape { .. });
    let groups = |groups| Weights { layout: WeightLayout::OutputFirst { groups }, ..weights };
    refused!(into(groups(3)), Error::WeightShape { groups: 3, .. });
    refused!(into(groups(0)), Error::WeightShape { groups: 0, .. });
    refused!(
        into(Weights { bias: Some(&[0.0; 3]), ..weights }),
        Error::Length { what: "bias", expected: 2, got: 3, .. }
    );
    refused!(
        into(Weights { bias: Some(&[0.0, f32::NAN]), ..weights }),
        Error::Value { what: "bias", index: 1, .. }
    );
    let mut infinite = values;
    infinite[7] = f32::INFINITY;
    refused!(into(Weights { values: &infinite, ..weights }), Error::Value { what: "weight", index: 7, .. });
    let steep = InferenceNorm { var: &[0.0, 0.0], ..NORM };
    let large = steep.absorb_into_preceding(&Weights { values: &[3e38; 12], ..weights });
    refused!(large, Error::Unrepresentable { what: "the folded weight", index: 0, .. });
    // [12] inputs for a norm of 2 channels.
    let following = NORM.absorb_into_following(&weights, Border::Unpadded);
    refused!(following, Error::Channels { expected: 2, got: 3, .. });
    let far = InferenceNorm { mean: &[3e38, 3e38], ..NORM };
    let outputs = Weights { dims: &[2, 2, 3], ..weights };
    let sum = far.absorb_into_following(&Weights { values: &[1.0; 12], ..outputs }, Border::Unpadded);
    refused!(sum, Error::Unrepresentable { what: "the folded bias", .. });
}

#[test]
fn more_axes_than_tensors_have_are_fine_on_the_host() {
    let weights = Weights {
        values: &[1.0; 16],
        dims: &[1, 1, 2, 1, 2, 2, 2],
        layout: WeightLayout::OutputLast { groups: 1 },
        bias: Some(&[0.0, 0.0]),
    };
    let absorbed = NORM.absorb_into_preceding(&weights).unwrap();
    assert_eq!(absorbed.weight[..2], [(1.0 / 1.00001_f64.sqrt()) as f32, (2.0 / 4.00001_f64.sqrt()) as f32]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_convolution_agrees(
        kind in 0..5_usize,
        groups in 1..5_usize,
        inputs in 1..4_usize,
        outputs in 1..4_usize,
        kernel in prop::option::of((1..4_usize, 1..4_usize)),
        stride in 1..3_usize,
        biased in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let kind = Kind::ALL[kind];
        let inputs = if kind == Kind::Depthwise { 1 } else { inputs };
        let kernel = kernel.map(|(h, w)| [h, w]);
        let convolution = Convolution { kind, groups, inputs, outputs, kernel, stride, padding: 0 };
        let data = Data::new(seed, &convolution, biased);
        let norm = |channels: usize| Norm::hostile(&random(seed ^ 7, 4 * channels));
        assert_preceding(&convolution, &norm(convolution.all_outputs()), &data);
        if !kind.is_transposed() {
            assert_following(&convolution, &norm(convolution.all_inputs()), &data, Border::Unpadded);
        }
    }
}
