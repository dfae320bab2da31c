//! Layer and RMS norm over any axes: every way that slices and parameters lie in memory, those that go through copies among them, and parameters in another order.

use super::Case;
use crate::eval::data::Data;
use crate::eval::variant::Variants;

pub(super) fn cases() -> Vec<Case> {
    let case = |what: &str, line: &str, data, variants| {
        let mut case = Case::new(what, &format!("{line} backward added"), data, variants);
        case.name = format!("builtin.axes.{what}");
        case
    };
    let normal = |what: &str, line: &str, variant| case(what, line, Data::Normal, Variants::One(variant));
    let mut cases = Vec::new();
    // The columns of matrices, of one matrix, slices of several runs, of one, of one value; x and the parameters through copies.
    for (what, of) in [
        ("matrices", "3x13x20 axes=1"),
        ("columns", "29x24 axes=0"),
        ("runs", "5x7x12 axes=0,2"),
        ("edges", "4x5x7 axes=0,2"),
    ] {
        let layer = format!("layer {of}");
        cases.push(case(&format!("layer.{what}"), &layer, Data::Normal, Variants::All));
        cases.push(case(&format!("layer.{what}.large_mean"), &layer, Data::LargeMean, Variants::Sums));
        cases.push(case(&format!("layer.{what}.nan_in_one"), &layer, Data::NanInOne, Variants::Sums));
        let rms = format!("rms {of} affine=both offset");
        cases.push(case(&format!("rms.{what}"), &rms, Data::Normal, Variants::Sums));
        cases.push(case(&format!("rms.{what}.outlier"), &rms, Data::Outlier, Variants::One("teams")));
        for (words, variant) in [
            ("bf16 parameters=bf16 relu residual", "repeat"),
            ("f16 gelu residual sum", "many splits"),
            ("silu gate=last", "repeat"),
            ("silu gate=first", "repeat"),
            ("affine=weight sum", "repeat"),
            ("affine=bias in_place", "repeat"),
            ("affine=none relu residual", "phase 1"),
        ] {
            let name = format!("layer.{what}.{}", words.replace([' ', '='], "_"));
            cases.push(normal(&name, &format!("{layer} {words}"), variant));
        }
        let alone = format!("layer {of} tanh residual backward alone");
        let mut alone = Case::new(what, &alone, Data::Normal, Variants::One("repeat"));
        alone.name = format!("builtin.axes.layer.{what}.alone");
        cases.push(alone);
    }
    cases.extend([
        case("layer.copies", "layer 3x5x4x6 axes=1,3", Data::Normal, Variants::Sums),
        case("layer.copies.0_2", "layer 3x5x4x6 axes=2,0", Data::LargeMean, Variants::Sums),
        normal("rms.copies.five", "rms 2x3x4x5x6 affine=both axes=4,0,2", "repeat"),
        normal(
            "layer.copies.float16",
            "layer 3x5x4x6 f16 parameters=f16 axes=3,1 relu residual sum",
            "repeat",
        ),
        normal("layer.copies.bfloat16", "layer 3x5x4x7 bf16 axes=1,3 silu gate=first", "repeat"),
        normal("rms.copies.in_place", "rms 3x5x4x6 axes=0,2 silu gate=last in_place", "one buffer"),
        normal("mvn.copies", "mvn:0,2 3x5x4x6", "repeat"),
        normal("l2.copies", "l2:1,3 3x5x4x6", "repeat"),
        // Several windows.
        normal("layer.matrices.windows", "layer 3x13x60 axes=1 silu gate=last", "windows"),
        normal("layer.columns.windows", "layer 45x24 axes=0 relu residual", "windows"),
        normal("layer.runs.windows", "layer 9x7x12 axes=0,2 relu residual", "windows"),
        normal("layer.edges.windows", "layer 9x7x13 axes=0,2", "windows"),
        // No binding has room for what all slices need.
        normal("layer.matrices.bindings", "layer 6x13x120 axes=1 relu residual sum", "bindings"),
        normal("layer.columns.bindings", "layer 90x640 axes=0", "bindings"),
        normal("layer.runs.bindings", "layer 30x130x20 axes=0,2", "bindings"),
        // Parameters in another order.
        case("layer.order.rows", "layer 7x4x10 axes=2,1", Data::Normal, Variants::Sums),
        normal("layer.order.matrices", "layer 3x5x4x12 axes=2,1 relu residual", "repeat"),
        normal("rms.order.runs", "rms 5x7x12 affine=both axes=2,0", "repeat"),
        normal("layer.order.float16", "layer 7x4x3x10 f16 parameters=f16 axes=3,1,2", "repeat"),
        // The last axes, all of them, none, and axes of one value.
        normal("layer.last", "layer 9x20 axes=1", "policy"),
        normal("layer.all", "layer 3x5x8 axes=0,1,2", "many splits"),
        case("layer.none", "layer 6x10 axes=none", Data::Normal, Variants::Sums),
        normal("rms.none", "rms 6x10 affine=both axes=none", "repeat"),
        normal("layer.ones", "layer 6x1x10 axes=1", "repeat"),
        normal("layer.between_ones", "layer 3x1x8x1x12 axes=2", "repeat"),
        // Several sums of one row.
        normal("layer.matrices.many_teams", "layer 3x13x500 axes=1", "many teams"),
        normal("rms.columns.many_teams", "rms 29x280 affine=both axes=0 silu gate=first", "many teams"),
        // Many splits of a sample, long rows, more channels than words of a row.
        normal("layer.convnext", "layer 2x96x28x28 axes=1", "repeat"),
        normal("layer.convnext.7x7", "layer 3x192x7x7 axes=1", "repeat"),
        normal("rms.tall", "rms 2x5000x8 axes=1", "many splits"),
        normal("rms.wide", "rms 3x2x5000 axes=1", "large teams"),
        normal("layer.empty", "layer 0x6x5 axes=1", "repeat"),
    ]);
    cases
}
