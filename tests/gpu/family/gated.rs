//! Gated norms and norms of groups of a row beside flash-linear-attention's and PyTorch's.

use wgnorm::family::{Kind, Norm};
use wgnorm::reference::WhereNan;
use wgnorm::tuning::Autotuning;
use wgnorm::{Activation, GateOrder, Gradients, Input, LayerNorm, NormOptions, RmsNorm, Tensor};

use crate::support::{assert_holds, assert_within, context, download, headless, upload};

async fn run<K: Kind>(layer: &Norm<K>, input: Input<'_>, dy: &Tensor) -> (Tensor, Gradients) {
    let (y, saved) = layer.forward(input).await.unwrap();
    (y, layer.backward(input, dy, &saved).await.unwrap())
}

#[test]
fn kernels_agree_with_fla_and_pytorch() {
    let context = context();
    let file: serde_json::Value = serde_json::from_str(include_str!("../../data/gated/cases.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let of = |values: &serde_json::Value| -> Vec<f64> {
            values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        let dims: Vec<_> = of(&case["shape"]).into_iter().map(|dim| dim as usize).collect();
        let tensor = |name: &str, dims: &[usize]| {
            let values = &case["inputs"][name];
            let values =
                values.is_array().then(|| of(values).into_iter().map(|v| v as f32).collect::<Vec<_>>());
            values.map(|values| upload(&context, dims, &values))
        };
        let what = format!("{} {} {}", case["norm"], case["gate"], case["groups"]);
        let order = match case["gate"].as_str() {
            Some("last") => Some(GateOrder::NormFirst),
            Some("first") => Some(GateOrder::GateFirst),
            _ => None,
        };
        let (width, groups) = (&dims[1..], case["groups"].as_u64().unwrap() as usize);
        let (gamma, beta) = (tensor("gamma", width), tensor("beta", width));
        let (x, dy, gate) =
            (tensor("x", &dims).unwrap(), tensor("dy", &dims).unwrap(), tensor("gate", &dims));
        let input = match (&gate, order) {
            (Some(gate), Some(order)) => x.gated(gate, order),
            _ => Input::from(&x),
        };
        let options = |options: NormOptions, activation| match order {
            Some(_) => options.eps(1e-5).activation(activation),
            None => options.eps(1e-5),
        };
        let (y, gradients) = context.block_on(async {
            if case["norm"] == "rms" {
                let options = options(NormOptions::rms(), Activation::Silu);
                let layer = RmsNorm::in_groups_from_parts(&context, width, groups, options, gamma, beta);
                run(&layer.unwrap(), input, &dy).await
            } else {
                let options = options(NormOptions::layer(), Activation::Sigmoid);
                let layer = LayerNorm::in_groups_from_parts(&context, width, groups, options, gamma, beta);
                run(&layer.unwrap(), input, &dy).await
            }
        });
        let hold = |name: &str, got: &Tensor| {
            let expected = of(&case["results"][name]);
            assert_within(
                &format!("{what} {name}"),
                &download(&context, got),
                &expected,
                WhereNan::Nan,
                |i| 3e-6 * expected[i].abs().max(1.0),
            );
        };
        hold("y", &y);
        hold("dx", &gradients.dx);
        hold("dgamma", gradients.dgamma.as_ref().unwrap());
        assert_eq!(
            (gradients.dbeta.is_some(), gradients.d_gate.is_some()),
            (case["norm"] == "layer", order.is_some())
        );
        gradients.dbeta.iter().for_each(|dbeta| hold("dbeta", dbeta));
        gradients.d_gate.iter().for_each(|d_gate| hold("dgate", d_gate));
    }
}

#[test]
fn autotuning_tells_gates_and_groups_apart() {
    let context = headless().with_autotuning(Autotuning::Measure);
    for line in ["gate=last", "gate=first", "groups=4", ""] {
        assert_holds(&context, &format!("rms 64x128 {line} backward"));
    }
    let pinned = context.pinned_tunings();
    let with = |word: &str| pinned.iter().filter(|pin| pin.problem.contains(word)).count();
    assert_eq!(["gate_last", "gate_first", "in_groups"].map(with), [2, 2, 2]);
    assert_eq!(pinned.len(), 8);
}
