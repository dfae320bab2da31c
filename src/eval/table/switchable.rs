//! Switchable norm: every way that instances lie, both variances, all element types and what can be fused.

use super::Case;
use crate::eval::data::Data;
use crate::eval::variant::Variants;

pub(super) fn cases() -> Vec<Case> {
    let case = |what: &str, line: &str, data, variants| {
        let mut case = Case::new(what, &format!("{line} backward"), data, variants);
        case.name = format!("builtin.switchable.{what}");
        case
    };
    let normal = |what: &str, line: &str, variant| case(what, line, Data::Normal, Variants::One(variant));
    vec![
        case("maps", "switchable 3x5x7x3", Data::Normal, Variants::All),
        case("unbiased", "switchable:unbiased 2x8x5x3 relu residual added", Data::Normal, Variants::Sums),
        normal("sequence", "switchable:unbiased 4x6x10 alone", "policy"),
        normal("rank2", "switchable 9x12", "policy"),
        normal("volume.bfloat16", "switchable 2x4x2x3x5 bf16 gelu", "one buffer"),
        normal("float16", "switchable:unbiased 3x5x7x3 f16 in_place", "phase 1"),
        normal("parameters.float16", "switchable 3x4x9 f16 parameters=f16", "policy"),
        normal("bare", "switchable 2x6x11 affine=none in_place", "repeat"),
        normal("one_sample", "switchable 1x6x11", "policy"),
        normal("one_channel", "switchable:unbiased 6x1x11", "policy"),
        normal("many_samples", "switchable 300x3x4", "many splits"),
        normal("many_channels", "switchable 2x700x5", "policy"),
        normal("momentum", "switchable 4x3x6 new=0.3", "policy"),
        case("large_mean", "switchable 3x4x9", Data::LargeMean, Variants::One("policy")),
        case("shifted_mean", "switchable:unbiased 3x4x9", Data::ShiftedMean, Variants::One("policy")),
        case("constant", "switchable 3x4x9", Data::Constant, Variants::One("policy")),
        case("nan_in_one", "switchable 3x4x9", Data::NanInOne, Variants::One("policy")),
        case("tiny", "switchable 3x4x9", Data::Tiny, Variants::One("policy")),
    ]
}
