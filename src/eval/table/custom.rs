//! Activations of one's own: in every kind of kernel (streamed, resident, through frozen statistics, along rows and columns, of a curve), element type
//! and word, beside a residual, and recovered from y by an inverse.

use super::super::custom::custom_activations;
use super::Case;
use crate::eval::data::Data;
use crate::eval::variant::Variants;

pub(super) fn cases() -> Vec<Case> {
    // Lines know them by their names from here on.
    custom_activations();
    let case = |what: &str, line: &str, data, variants| {
        let mut case = Case::new(what, &format!("{line} backward added"), data, variants);
        case.name = format!("builtin.custom.{what}");
        case
    };
    let normal = |what: &str, line: &str, variant| case(what, line, Data::Normal, Variants::One(variant));
    vec![
        case("mish.3x4x7x5", "batch 3x4x7x5 mish", Data::Normal, Variants::Sums),
        normal("mish.4x5x3x43.residual.float16", "batch 4x5x3x43 f16 mish residual", "repeat"),
        normal("mish.31x19.bfloat16", "batch 31x19 bf16 mish", "split"),
        case(
            "squared_relu.nan_in_one.65x8",
            "batch 65x8 squared_relu residual",
            Data::NanInOne,
            Variants::One("teams"),
        ),
        case("mish.outlier.3x5x64", "frozen 3x5x64 mish", Data::Outlier, Variants::One("repeat")),
        normal("squared_relu.6x8x12x12", "batch 6x8x12x12 squared_relu", "ahead"),
        normal("squared_relu.frozen.3x4x7x5.float16", "frozen 3x4x7x5 f16 squared_relu residual", "phase 1"),
        case("bent.3x4x7x5.in_place", "batch 3x4x7x5 bent in_place", Data::Normal, Variants::Sums),
        normal("bent.31x19.residual.in_place.float16", "batch 31x19 f16 bent residual in_place", "repeat"),
        normal("bent.4x5x3x43.in_place.bfloat16", "batch 4x5x3x43 bf16 bent in_place", "split"),
        normal("layer.mish.33x68", "layer 33x68 mish", "along rows"),
        normal("layer.mish.33x68.resident", "layer 33x68 f16 mish residual", "resident"),
        normal("rms.squared_relu.17x48", "rms 17x48 bf16 squared_relu residual", "repeat"),
        normal("group.bent.2x6x35", "group:2 2x6x35 bent", "repeat"),
        normal("instance.mish.3x5x7", "instance 3x5x7 f16 mish", "resident"),
        normal("derf.mish.9x8", "derf 9x8 mish residual", "repeat"),
    ]
}
