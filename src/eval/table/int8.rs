//! y as int8: by scales of rows and by one for all, streamed and held, of every type of x, with what is fused, and words at every edge.

use super::Case;
use crate::eval::data::Data;
use crate::eval::variant::Variants;

pub(super) fn cases() -> Vec<Case> {
    let case = |what: &str, line: &str, data, variants| {
        let mut case = Case::new(what, line, data, variants);
        case.name = format!("builtin.int8.{what}");
        case
    };
    let normal = |what: &str, line: &str, variant| case(what, line, Data::Normal, Variants::One(variant));
    vec![
        normal("rms.33x68", "rms 33x68 int8", "repeat"),
        normal("rms.33x68.resident", "rms 33x68 int8", "resident"),
        normal("rms.5x260.float16.sum", "rms 5x260 f16 sum int8", "repeat"),
        normal("rms.5x260.bfloat16.sum.resident", "rms 5x260 bf16 parameters=bf16 sum int8", "resident"),
        case("layer.17x48.large_mean", "layer 17x48 int8", Data::LargeMean, Variants::One("teams")),
        normal("layer.9x132.gelu.residual", "layer 9x132 gelu residual int8", "repeat"),
        normal("layer.9x132.gate.resident", "layer 9x132 silu gate=last int8", "resident"),
        normal("rms.9x132.gate.first", "rms 9x132 silu gate=first int8", "repeat"),
        case("rms.nan_in_one.65x8", "rms 65x8 int8", Data::NanInOne, Variants::One("repeat")),
        case("rms.nan_in_one.65x8.resident", "rms 65x8 int8", Data::NanInOne, Variants::One("resident")),
        case("layer.constant.7x16", "layer 7x16 affine=none int8", Data::Constant, Variants::One("repeat")),
        normal("rms.1x4096", "rms 1x4096 int8", "repeat"),
        normal("rms.4x5x64.modulated", "rms 4x5x64 modulated int8", "repeat"),
        normal("rms.257x100.windows", "rms 257x100 int8", "windows"),
        normal("scale.7x36", "scale 7x36 int8", "repeat"),
        normal("given.rms.33x68", "rms 33x68 int8=0.02,0", "repeat"),
        normal("given.layer.17x48.zero_point", "layer 17x48 int8=0.01,-7", "many splits"),
        normal("given.layer.17x48.resident", "layer 17x48 int8=0.01,100", "resident"),
        normal("given.group.2x8x35", "group:4 2x8x35 int8=0.03,3", "repeat"),
        normal("given.frozen.3x4x7x5", "frozen 3x4x7x5 relu residual int8=0.05,-128", "repeat"),
        normal("given.frozen.3x5x7x3.float16", "frozen 3x5x7x3 f16 int8=0.05,0", "many splits"),
        normal("given.frozen.31x19", "frozen 31x19 silu int8=0.01,0", "repeat"),
        normal("given.frozen.7x65x3.windows", "frozen 7x65x3 int8=0.05,5", "windows"),
        case(
            "given.frozen.nan_in_one.65x7",
            "frozen 65x7 int8=0.05,5",
            Data::NanInOne,
            Variants::One("repeat"),
        ),
        normal("given.rms.groups.16x96", "rms 16x96 groups=4 int8=0.03,0", "repeat"),
        normal("empty.rms.0x8", "rms 0x8 int8", "repeat"),
    ]
}
