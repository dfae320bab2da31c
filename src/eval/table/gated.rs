//! Gates behind and before a norm, and rows in groups: every kind of kernel (streamed, resident, along rows and columns), element type and word; activations of every kind, or none.

use super::Case;
use crate::eval::data::Data;
use crate::eval::variant::Variants;

pub(super) fn cases() -> Vec<Case> {
    let case = |what: &str, line: &str, data, variants| {
        let mut case = Case::new(what, &format!("{line} backward added"), data, variants);
        case.name = format!("builtin.gated.{what}");
        case
    };
    let normal = |what: &str, line: &str, variant| case(what, line, Data::Normal, Variants::One(variant));
    let mut cases = Vec::new();
    for order in ["last", "first"] {
        let (case, normal) = (
            |what: &str, line: &str, data, variants| {
                case(
                    &format!("{order}.{what}"),
                    &line.replace("GATE", &format!("gate={order}")),
                    data,
                    variants,
                )
            },
            |what: &str, line: &str, variant| {
                normal(&format!("{order}.{what}"), &line.replace("GATE", &format!("gate={order}")), variant)
            },
        );
        cases.extend([
            case("rms.silu.33x68", "rms 33x68 silu GATE", Data::Normal, Variants::Sums),
            case("layer.silu.17x48", "layer 17x48 silu GATE", Data::LargeMean, Variants::Sums),
            normal("layer.sigmoid.33x67.float16", "layer 33x67 f16 sigmoid GATE", "repeat"),
            normal("rms.silu.33x68.bfloat16", "rms 33x68 bf16 parameters=bf16 silu GATE", "along rows"),
            normal("rms.silu.weight.5x260", "rms 5x260 silu affine=weight GATE", "resident"),
            normal("layer.none.9x20.in_place", "layer 9x20 GATE in_place", "repeat"),
            normal("layer.relu.9x20.mask", "layer 9x20 relu mask=2 GATE", "repeat"),
            normal("rms.tanh.6x5x12.modulated", "rms 6x5x12 modulated tanh GATE", "repeat"),
            normal("rms.silu.3x7.phase", "rms 3x7 silu GATE", "phase 1"),
            normal("group.silu.2x6x35", "group:3 2x6x35 silu GATE", "repeat"),
            normal("instance.sigmoid.3x5x28.float16", "instance 3x5x28 f16 sigmoid GATE", "resident"),
            normal("scale.silu.7x33", "scale 7x33 silu GATE", "repeat"),
            normal("rms.silu.65x130.windows", "rms 65x130 silu GATE", "windows"),
            normal("rms.silu.8x64.gaps", "rms 8x64 silu GATE gaps=4", "policy"),
            case("rms.nan_in_one.65x8", "rms 65x8 silu GATE", Data::NanInOne, Variants::One("teams")),
            case("layer.outlier.9x132", "layer 9x132 silu GATE", Data::Outlier, Variants::One("ahead")),
        ]);
    }
    // Rows in groups, with a gate and without.
    cases.extend([
        case("groups.rms.16x96", "rms 16x96 groups=4", Data::Normal, Variants::Sums),
        case("groups.layer.9x40", "layer 9x40 groups=2", Data::LargeMean, Variants::Sums),
        normal("groups.layer.7x33.float16", "layer 7x33 f16 groups=3", "repeat"),
        normal(
            "groups.rms.last.16x128.bfloat16",
            "rms 16x128 bf16 parameters=bf16 groups=8 silu gate=last",
            "repeat",
        ),
        normal("groups.rms.first.5x64", "rms 5x64 affine=weight groups=4 silu gate=first", "resident"),
        normal("groups.layer2.3x4x24", "layer:2 3x4x24 groups=6 relu residual", "repeat"),
        normal("groups.rms.sum.16x96", "rms 16x96 f16 groups=4 sum", "along rows"),
        normal("groups.layer.1x64", "layer 1x64 groups=4", "repeat"),
        normal("groups.rms.65x132.windows", "rms 65x132 groups=3", "windows"),
        normal("groups.layer.16x96.resident", "layer 16x96 groups=2 silu gate=last", "resident"),
        normal("groups.layer.31x20.phase", "layer 31x20 groups=5", "phase 1"),
    ]);
    cases.extend([
        normal("last.rms.sum.17x48", "rms 17x48 bf16 silu sum gate=last", "repeat"),
        normal("last.layer.sum.9x20.resident", "layer 9x20 silu sum gate=last", "resident"),
    ]);
    cases
}
