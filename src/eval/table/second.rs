//! Derivatives of the passes: forward mode and gradients of gradients of every way that slices and parameters lie in memory, with all activations, element types and
//! choices of parameters, and of values that are hostile. The full table has all variants of them.

use super::super::custom::custom_activations;
use super::Case;
use crate::base::activation::Activation;
use crate::eval::data::Data;
use crate::eval::variant::Variants;

/// Every way that slices and parameters lie in memory.
const LAYOUTS: [(&str, &str); 16] = [
    ("batch", "batch 3x4x7x5 silu"),
    ("layer", "layer 9x37 silu"),
    ("layer.matrices", "layer 3x13x20 axes=1 silu"),
    ("frozen", "frozen 3x4x7x5 silu"),
    ("group", "group:2 2x8x5x3 silu"),
    ("rms", "rms 24x64"),
    ("instance", "instance 2x3x7x5"),
    ("layer.runs", "layer 5x7x12 axes=0,2 silu"),
    ("rms.columns", "rms 29x24 axes=0 silu affine=both offset"),
    ("layer.groups", "layer 6x24 groups=4 silu"),
    ("mvn", "mvn:0,2,3 2x3x4x5 silu"),
    ("mvn.columns", "mvn:0 7x12"),
    ("l2", "l2:1 2x5x4x3 silu"),
    ("scale", "scale 33x20 silu"),
    ("weight", "weight 6x3x3x3"),
    ("standardization", "standardization 6x4x3x3"),
];

fn case(what: &str, line: &str, data: Data, variants: Variants) -> Case {
    let mut case = Case::new(what, &format!("{line} second added"), data, variants);
    case.name = format!("builtin.second.{what}");
    case
}

fn normal(what: &str, line: &str, variant: &'static str) -> Case {
    case(what, line, Data::Normal, Variants::One(variant))
}

/// Activations that have a second derivative.
fn activations() -> Vec<Activation> {
    let custom = custom_activations().iter().filter(|activation| match activation {
        Activation::Custom(custom) => custom.functions().second_derivative.is_some(),
        _ => false,
    });
    Activation::ALL.iter().chain(custom).copied().collect()
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let (most, others) = LAYOUTS.split_at(3);
    cases.extend(most.iter().map(|(what, line)| case(what, line, Data::Normal, Variants::Sums)));
    cases.extend(others.iter().map(|(what, line)| normal(what, line, "repeat")));
    for activation in activations() {
        let name = activation.to_string();
        cases.push(normal(
            &format!("layer.{name}").replace('=', "_"),
            &format!("layer 5x37 {name}"),
            "policy",
        ));
    }
    cases.extend([
        // Far from 0 too.
        normal("batch.hard_swish.wide", "batch 31x19 hard_swish", "policy"),
        normal("batch.float16", "batch 4x5x3x43 f16 parameters=f16 gelu", "phase 1"),
        normal("frozen.bfloat16", "frozen 31x19 bf16 relu", "policy"),
        normal("layer.bfloat16", "layer 9x36 bf16 parameters=bf16", "one buffer"),
        normal("layer.affine_none", "layer 9x36 affine=none tanh", "policy"),
        normal("group.affine_bias", "group:3 3x9x2x4 affine=bias silu", "policy"),
        normal("group.modulated", "group:2 3x6x10 modulated offset silu", "policy"),
        normal("layer.modulated", "layer 6x3x40 modulated offset silu", "many splits"),
        case("batch.large_mean", "batch 65x8 gelu", Data::LargeMean, Variants::One("policy")),
        case("batch.nan_in_one", "batch 65x8 gelu", Data::NanInOne, Variants::One("policy")),
        case("layer.constant", "layer 9x37", Data::Constant, Variants::One("policy")),
        normal("mvn.eps", "mvn:0,2,3 2x3x4x5 eps=6.5e0 silu", "policy"),
        normal("l2.eps", "l2:1 2x5x4x3 eps=1e-3 silu", "policy"),
        normal("layer.long", "layer 1x70001 silu", "large teams"),
        normal("layer.apart", "layer 24x64 silu", "view"),
        normal("batch.windows", "batch 5x6x9x9 silu", "windows"),
        normal("batch.parts", "batch 5x6x9x9 silu", "parts"),
        normal("layer.empty", "layer 0x8", "policy"),
        normal("frozen.empty", "frozen 0x4x5", "policy"),
        normal("group.empty", "group:2 0x4x3x3", "policy"),
    ]);
    cases
}

/// All variants, and more of everything.
pub(super) fn long() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, line) in LAYOUTS {
        cases.push(case(&format!("{what}.all"), line, Data::Normal, Variants::All));
    }
    for activation in activations() {
        let name = activation.to_string();
        for (of, line) in [("batch", "batch 3x4x7x5"), ("frozen", "frozen 31x19")] {
            cases.push(normal(
                &format!("{of}.{name}").replace('=', "_"),
                &format!("{line} {name}"),
                "policy",
            ));
        }
    }
    for (of, line) in [
        ("batch", "batch 4x5x3x43"),
        ("frozen", "frozen 31x19"),
        ("layer", "layer 9x36"),
        ("group", "group:3 3x9x2x4"),
        ("layer.matrices", "layer 3x13x20 axes=1"),
    ] {
        for (words, variant) in [
            ("f16 parameters=f16 gelu", "phase 1"),
            ("bf16 relu", "repeat"),
            ("bf16 parameters=bf16", "one buffer"),
            ("affine=none tanh", "many splits"),
            ("affine=weight silu", "repeat"),
            ("affine=bias silu", "teams"),
        ] {
            let name = format!("{of}.{}", words.replace([' ', '='], "_"));
            cases.push(normal(&name, &format!("{line} {words}"), variant));
        }
    }
    for (of, line) in [
        ("layer", "layer 6x3x40"),
        ("rms", "rms:2 4x3x7"),
        ("group", "group:2 3x6x10"),
        ("instance", "instance 3x4x12"),
    ] {
        let line = format!("{line} modulated affine=both offset silu");
        cases.push(normal(&format!("{of}.modulated.many"), &line, "many splits"));
    }
    for data in [Data::LargeMean, Data::Constant, Data::Tiny, Data::NanInOne, Data::Outlier] {
        for (of, line) in [("batch", "batch 65x8 gelu"), ("layer", "layer 9x37"), ("rms", "rms 5x37 silu")] {
            cases.push(case(&format!("{of}.{}.teams", data.name()), line, data, Variants::One("teams")));
        }
    }
    for eps in ["1e-30", "1e-3", "6.5e0"] {
        for (of, line) in [("l2", "l2:1 2x5x4x3"), ("mvn", "mvn:0,2,3 2x3x4x5"), ("scale", "scale 33x20")] {
            cases.push(normal(&format!("{of}.eps_{eps}"), &format!("{line} eps={eps}"), "repeat"));
        }
    }
    cases.extend([
        normal("layer.rows", "layer 700x32", "repeat"),
        normal("rms.many", "rms 140000x3", "repeat"),
        normal("group.wide", "group:32 2x64x7x7 silu", "repeat"),
        normal("batch.resnet", "batch 4x64x14x14 relu", "repeat"),
        normal("layer.windows", "layer 29x64 silu", "windows"),
    ]);
    cases
}
