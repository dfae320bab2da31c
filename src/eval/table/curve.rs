//! Both curves: every element type and layout, what is fused, values that are not numbers or far beyond where a curve is flat, where tensors
//! may lie, and nothing. Few variants each, which together are most that there are.

use super::Case;
use crate::eval::data::Data;
use crate::eval::variant::Variants;

pub(super) fn cases() -> Vec<Case> {
    ["tanh", "derf"].into_iter().flat_map(of_curve).collect()
}

fn of_curve(curve: &str) -> Vec<Case> {
    let case = |what: &str, shape: &str, words: &str, data, variants| {
        let line = format!("{curve} {shape} {words} backward added");
        Case::new(&format!("{what}.{shape}"), &line, data, variants)
    };
    let normal = |what: &str, shape: &str, words: &str, variant| {
        case(what, shape, words, Data::Normal, Variants::One(variant))
    };
    vec![
        case("normal", "3x5x7x3", "", Data::Normal, Variants::Sums),
        normal("normal", "41x5", "", "repeat"),
        normal("windows", "7x65x3", "", "windows"),
        normal("view", "3x5x7x3", "", "view"),
        normal("float16.gelu.residual", "2x33x3", "f16 gelu residual", "repeat"),
        normal("float16.parts", "4x5x6", "f16 parameters=f16", "parts"),
        normal("bfloat16.silu.residual", "3x5x7x3", "bf16 parameters=bf16 silu residual", "shifted"),
        normal("relu.residual.in_place", "3x5x7x3", "relu residual in_place", "one buffer"),
        normal("affine_none", "9x8", "affine=none", "repeat"),
        case("nan_in_one", "3x5x7x3", "", Data::NanInOne, Variants::One("teams")),
        case("inf_in_one", "3x5x7x3", "", Data::InfInOne, Variants::One("many splits")),
        case("huge_spread", "3x5x7x3", "", Data::HugeSpread, Variants::One("scalar")),
        case("subnormal", "3x5x7x3", "", Data::Subnormal, Variants::One("repeat")),
        case("float16.overflow_in_one", "2x33x3", "f16", Data::OverflowInOne, Variants::One("repeat")),
        normal("empty", "0x5", "", "repeat"),
    ]
}
