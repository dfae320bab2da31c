//! Spectral norm: every way that the rows of a weight lie in memory, both orders of a step, all element types, lengths around every boundary.

use super::Case;
use crate::eval::data::Data;
use crate::eval::variant::Variants;

pub(super) fn cases() -> Vec<Case> {
    let case = |what: &str, line: &str, data, variants| {
        let mut case = Case::new(what, &format!("{line} backward"), data, variants);
        case.name = format!("builtin.spectral.{what}");
        case
    };
    let normal = |what: &str, line: &str, variant| case(what, line, Data::Normal, Variants::One(variant));
    vec![
        // Rows that are runs, and columns of one matrix.
        case("rows", "spectral 13x37", Data::Normal, Variants::All),
        // Rows of several runs, and columns of several matrices.
        case("runs", "spectral:1 5x8x3x3", Data::Normal, Variants::All),
        // Rows that are columns, and columns that are runs.
        case("columns", "spectral_u:3 3x3x5x12", Data::Normal, Variants::Sums),
        normal("convolution", "spectral 64x32x3x3", "repeat"),
        normal("parametrization", "spectral_u 24x10x3", "policy"),
        normal("transposed.bfloat16", "spectral:1 6x8x3x3 bf16", "phase 1"),
        normal("float16", "spectral 17x44 f16", "one buffer"),
        normal("in_place", "spectral 9x20 in_place", "repeat"),
        normal("one_row", "spectral 1x50", "policy"),
        normal("one_column", "spectral_u 50x1", "policy"),
        normal("many_rows", "spectral 5000x3", "repeat"),
        normal("many_columns", "spectral_u 2x40001", "many splits"),
        normal("windows", "spectral 29x64", "windows"),
        case("large_mean", "spectral 9x37", Data::LargeMean, Variants::One("policy")),
        case("tiny", "spectral 9x37", Data::Tiny, Variants::One("policy")),
        case("nan_in_one", "spectral 9x37", Data::NanInOne, Variants::One("policy")),
        case("huge_mean", "spectral 9x37", Data::HugeMean, Variants::One("policy")),
    ]
}
