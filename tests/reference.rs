//! The f64 reference against PyTorch's float64 results, as stored in tests/data/conformance.

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use wgnorm::curve::Curve;
use wgnorm::reference::family::{self, Maps, Scheme};
use wgnorm::reference::fold::Running;
use wgnorm::reference::{Statistics, batch, curve, gate, map};
use wgnorm::{Activation, Layout, Momentum, RunningVariance, Shape};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/conformance");

/// One case with its tensors widened to f64.
struct Case<'a> {
    entry: &'a Value,
    tensors: &'a SafeTensors<'a>,
}

impl Case<'_> {
    fn tensor(&self, key: &str) -> Option<Vec<f64>> {
        let tensor = self.tensors.tensor(key).ok()?;
        let data = tensor.data();
        Some(match tensor.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
            Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            other => panic!("{key} is {other:?}"),
        })
    }

    fn input(&self, name: &str) -> Option<Vec<f64>> {
        self.tensor(self.entry["inputs"][name]["key"].as_str()?)
    }

    /// Flat indices of the elements that are stored of a large output.
    fn sample(&self) -> Vec<usize> {
        let key = self.entry["inputs"]["sample_index"]["key"].as_str().unwrap();
        let tensor = self.tensors.tensor(key).unwrap();
        assert_eq!(tensor.dtype(), Dtype::I64);
        tensor.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as usize).collect()
    }

    /// Holds a result against the stored one: to a millionth of the tolerance that f32 has.
    fn hold(&self, name: &str, got: &[f64]) {
        let output = &self.entry["expected"][name];
        let Some(key) = output["key"].as_str() else { return };
        let expected = self.tensor(key).unwrap();
        let atol = self.tensor(output["atol"].as_str().unwrap()).unwrap();
        let elements: Vec<usize> = match output["sampled"].as_bool().unwrap() {
            true => self.sample(),
            false => (0..got.len()).collect(),
        };
        assert_eq!(elements.len(), expected.len(), "{} {name}", self.entry["name"]);
        // One tolerance per channel (shaped [1, C, 1, 1] or [C]) or one for all.
        let channels = self.entry["shape"][1].as_u64().unwrap() as usize;
        let inner = got.len() / self.entry["shape"][0].as_u64().unwrap() as usize / channels;
        for (&i, &expected) in elements.iter().zip(&expected) {
            let got = got[i];
            let per_channel = if got_is_per_element(output) { i / inner.max(1) % channels } else { i };
            let atol = atol[if atol.len() == 1 { 0 } else { per_channel }];
            let bound = 1e-6 * atol + 1e-12 * expected.abs();
            let right = match expected.is_finite() {
                true => (got - expected).abs() <= bound,
                false => !got.is_finite(),
            };
            assert!(
                right,
                "{} {name} [{i}]: {got:e} is not {expected:e} within {bound:e}",
                self.entry["name"]
            );
        }
    }
}

fn got_is_per_element(output: &Value) -> bool {
    output["shape"].as_array().unwrap().len() > 1
}

#[test]
fn reference_agrees_with_pytorch() {
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(format!("{FIXTURES}/manifest.json")).unwrap()).unwrap();
    let mut held = 0;
    for entry in manifest["cases"].as_array().unwrap() {
        let attrs = &entry["attrs"];
        let training = match entry["op"].as_str().unwrap() {
            "batch_norm_train" => true,
            "batch_norm_eval" => false,
            _ => continue,
        };
        let fused = attrs["activation"] != "none" || attrs["residual"] != false;
        let stored = entry["inputs"]["x"]["key"].is_string();
        if fused || !stored || entry["dtype"] != "float32" {
            continue;
        }
        let bytes = std::fs::read(format!("{FIXTURES}/{}", entry["file"].as_str().unwrap())).unwrap();
        let case = Case { entry, tensors: &SafeTensors::deserialize(&bytes).unwrap() };

        let dims: Vec<_> =
            entry["shape"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap() as usize).collect();
        let view = Shape::new(&dims).unwrap().channels(Layout::ChannelsFirst).unwrap();
        let eps = attrs["eps"].as_f64().unwrap();
        let (x, dy) = (case.input("x").unwrap(), case.input("dy"));
        let (gamma, beta) = (case.input("weight"), case.input("bias"));
        let running = case.input("running_mean").zip(case.input("running_var"));

        let (y, statistics, gradients) = if training {
            let out = batch::train_forward(&x, view, gamma.as_deref(), beta.as_deref(), eps);
            case.hold("save_mean", &out.statistics.iter().map(|s| s.mean).collect::<Vec<_>>());
            case.hold("save_var", &out.statistics.iter().map(|s| s.var).collect::<Vec<_>>());
            case.hold("save_invstd", &out.statistics.iter().map(|s| s.inv_std).collect::<Vec<_>>());
            if let Some((mean, var)) = running {
                let momentum = Momentum::WeightOfNew(attrs["batch_weight"].as_f64().unwrap());
                let (mean, var): (Vec<_>, Vec<_>) = mean
                    .into_iter()
                    .zip(var)
                    .zip(&out.moments)
                    .map(|((mean, var), batch)| {
                        let before = Running { mean, var, batches: 0 };
                        let after = before.update(*batch, momentum, RunningVariance::Unbiased);
                        (after.mean, after.var)
                    })
                    .unzip();
                case.hold("running_mean", &mean);
                case.hold("running_var", &var);
            }
            let gradients = dy.map(|dy| batch::backward(&x, &dy, view, &out.statistics, gamma.as_deref()));
            (out.y, out.statistics, gradients)
        } else {
            let (mean, var) = running.unwrap();
            let statistics: Vec<_> =
                mean.into_iter().zip(var).map(|(mean, var)| Statistics::new(mean, var, eps)).collect();
            let y = batch::inference(&x, view, &statistics, gamma.as_deref(), beta.as_deref());
            let gradients = dy.map(|dy| batch::frozen_backward(&x, &dy, view, &statistics, gamma.as_deref()));
            (y, statistics, gradients)
        };
        assert_eq!(statistics.len() as u64, view.channels);
        case.hold("y", &y);
        if let Some(gradients) = gradients {
            case.hold("dx", &gradients.dx);
            case.hold("dweight", &gradients.dgamma);
            case.hold("dbias", &gradients.dbeta);
        }
        held += 1;
    }
    assert_eq!(held, 27, "cases that the reference was held against");
}

#[test]
fn curves_agree_with_pytorch() {
    let file: Value = serde_json::from_str(include_str!("data/curves/cases.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let of = |values: &Value| -> Vec<f64> {
            values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        let input = |name: &str| of(&case["inputs"][name]);
        let (x, dy, gamma, beta) = (input("x"), input("dy"), input("gamma"), input("beta"));
        let f = Curve::ALL.into_iter().find(|f| f.name() == case["curve"]).unwrap();
        let parameters = curve::Parameters {
            curve: f,
            alpha: input("alpha")[0],
            shift: input("shift")[0],
            gamma: Some(&gamma),
            beta: Some(&beta),
        };
        let activation =
            Activation::ALL.into_iter().find(|activation| activation.name() == case["activation"]).unwrap();
        let residual = input("residual");
        let residual = (activation != Activation::None).then_some(residual.as_slice());
        let dims: Vec<_> = of(&case["shape"]).into_iter().map(|dim| dim as usize).collect();
        let view = Shape::new(&dims).unwrap().channels(Layout::ChannelsFirst).unwrap();

        let z = curve::forward(&x, view, &parameters);
        let dz = map::dz(&z, residual, &dy, activation);
        let got = curve::backward(&x, &dz, view, &parameters);
        let hold = |name: &str, got: &[f64]| {
            let expected = of(&case["results"][name]);
            assert_eq!(got.len(), expected.len(), "{f} {activation} {name}");
            for (got, expected) in got.iter().zip(expected) {
                // PyTorch's 1 − tanh² has an error of its own where tanh is near 1.
                let bound = 1e-13 * expected.abs().max(0.1);
                assert!(
                    (got - expected).abs() <= bound,
                    "{f} {activation} {name}: {got:e} is not {expected:e}"
                );
            }
        };
        hold("y", &map::activated(&z, residual, activation));
        hold("dx", &got.dx);
        hold("dgamma", &got.dgamma);
        hold("dbeta", &got.dbeta);
        hold("dalpha", &[got.dalpha]);
        hold("dshift", &[got.dshift]);
        if residual.is_some() {
            hold("dresidual", &dz);
        }
    }
}

#[test]
fn any_axes_agree_with_keras_and_pytorch() {
    let file: Value = serde_json::from_str(include_str!("data/axes/cases.json")).unwrap();
    for case in file["cases"].as_array().unwrap() {
        let of = |values: &Value| -> Vec<f64> {
            values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        let indices =
            |name: &str| -> Vec<usize> { of(&case[name]).into_iter().map(|i| i as usize).collect() };
        let input = |name: &str| case["inputs"][name].is_array().then(|| of(&case["inputs"][name]));
        let (x, dy, gamma, beta) = (input("x").unwrap(), input("dy").unwrap(), input("gamma"), input("beta"));
        let maps = Maps::over(&indices("shape"), &indices("axes"));
        let scheme = if case["norm"] == "rms" { Scheme::rms(1e-5) } else { Scheme::standard(1e-5) };
        let affine = family::Affine { gamma: gamma.as_deref(), beta: beta.as_deref() };
        let (y, statistics) = family::forward(&x, &maps, &scheme, affine);
        let got = family::backward(&x, &dy, &maps, &scheme, &statistics, affine);
        let hold = |name: &str, got: &[f64]| {
            let expected = of(&case["results"][name]);
            assert_eq!(got.len(), expected.len(), "{name}");
            for (got, expected) in got.iter().zip(expected) {
                assert!(
                    (got - expected).abs() <= 1e-13 * expected.abs().max(1.0),
                    "{} {} {name}: {got:e} is not {expected:e}",
                    case["norm"],
                    case["axes"]
                );
            }
        };
        hold("y", &y);
        hold("dx", &got.dx);
        hold("dgamma", &got.dgamma);
        beta.iter().for_each(|_| hold("dbeta", &got.dbeta));
    }
}

#[test]
fn gates_and_groups_agree_with_fla_and_pytorch() {
    let file: Value = serde_json::from_str(include_str!("data/gated/cases.json")).unwrap();
    for case in file["cases"].as_array().unwrap() {
        let of = |values: &Value| -> Vec<f64> {
            values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        let input = |name: &str| case["inputs"][name].is_array().then(|| of(&case["inputs"][name]));
        let (x, dy, gamma, beta) = (input("x").unwrap(), input("dy").unwrap(), input("gamma"), input("beta"));
        let dims: Vec<_> = of(&case["shape"]).into_iter().map(|dim| dim as usize).collect();
        let maps = Maps::layer(&dims, 1).in_groups(case["groups"].as_u64().unwrap() as usize);
        let (scheme, activation) = match case["norm"] == "rms" {
            true => (Scheme::rms(1e-5), Activation::Silu),
            false => (Scheme::standard(1e-5), Activation::Sigmoid),
        };
        let affine = family::Affine { gamma: gamma.as_deref(), beta: beta.as_deref() };
        let gate = input("gate");
        let (first, last) = (case["gate"] == "first", case["gate"] == "last");
        let through = |values: &[f64], is: bool| match &gate {
            Some(gate) if is => gate::gated(values, gate, activation),
            _ => values.to_vec(),
        };

        let u = through(&x, first);
        let (z, statistics) = family::forward(&u, &maps, &scheme, affine);
        let dz = through(&dy, last);
        let got = family::backward(&u, &dz, &maps, &scheme, &statistics, affine);
        let hold = |name: &str, got: &[f64]| {
            let expected = of(&case["results"][name]);
            assert_eq!(got.len(), expected.len(), "{name}");
            for (got, expected) in got.iter().zip(expected) {
                let what = format!("{} {} {}", case["norm"], case["gate"], case["groups"]);
                assert!(
                    (got - expected).abs() <= 1e-13 * expected.abs().max(1.0),
                    "{what} {name}: {got:e} is not {expected:e}"
                );
            }
        };
        hold("y", &through(&z, last));
        hold("dx", &through(&got.dx, first));
        hold("dgamma", &got.dgamma);
        beta.iter().for_each(|_| hold("dbeta", &got.dbeta));
        if let Some(gate) = &gate {
            let (values, upstream) = if first { (&x, &got.dx) } else { (&z, &dy) };
            hold("dgate", &gate::d_gate(values, upstream, gate, activation));
        }
    }
}
