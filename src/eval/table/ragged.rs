//! Segments of rows: lengths around every boundary of pieces and of the tree over them, all norms that are over segments, all element types and places.

use super::Case;
use crate::eval::data::Data;
use crate::eval::variant::Variants;

pub(super) fn cases() -> Vec<Case> {
    let case = |what: &str, line: &str, data, variants| {
        let mut case = Case::new(what, &format!("{line} backward"), data, variants);
        case.name = format!("builtin.ragged.{what}");
        case
    };
    let normal = |what: &str, line: &str, variant| case(what, line, Data::Normal, Variants::One(variant));
    vec![
        case("instance", "instance 154x8 segments=3,1*20,0,64,65,2", Data::Normal, Variants::All),
        case("graph", "graph 154x12 segments=3,1*20,0,64,65,2 added", Data::Normal, Variants::All),
        case("layer", "layer 154x8 segments=3,1*20,0,64,65,2 alone", Data::Normal, Variants::All),
        case("group", "group:2 154x12 segments=3,1*20,0,64,65,2", Data::Normal, Variants::Sums),
        // Rows of values that are no whole words.
        normal("instance.narrow", "instance 77x5 segments=3,70,0,4 silu", "policy"),
        normal("graph.one_channel", "graph 77x1 segments=3,70,0,4", "phase 1"),
        normal("layer.narrow.bfloat16", "layer 77x5 segments=3,70,0,4 bf16 relu", "one buffer"),
        normal("instance.narrow.float16", "instance 77x3 segments=3,70,0,4 f16", "policy"),
        normal("graph.float16", "graph 300x32 segments=100,200 f16 gelu in_place", "one buffer"),
        normal("group.bfloat16", "group:4 300x32 segments=100,200 bf16 in_place parameters=bf16", "phase 1"),
        normal("graph.plain", "graph 90x16 segments=30*3 affine=none", "policy"),
        normal("graph.weight", "graph 90x16 segments=30*3 affine=weight offset relu", "repeat"),
        // All rows are one graph.
        normal("graph.one", "graph 200x8", "policy"),
        // 16 pieces, and one more; 256 and one more; a segment of each length beside many of one row.
        normal("instance.tree", "instance 2052x8 segments=1,1024,1025,2", "repeat"),
        normal("graph.trees", "graph 34906x4 segments=16384,2,16385,1*71,2064", "repeat"),
        normal("layer.trees", "layer 18450x4 segments=1*2,16385,0*3,2063", "policy"),
        normal("instance.many", "instance 9000x4 segments=1*9000", "policy"),
        normal("graph.many", "graph 10000x4 segments=2*5000 affine=bias", "policy"),
        normal("layer.wide", "layer 20x1024 segments=7,13", "policy"),
        normal("graph.no_rows", "graph 0x4 segments=none added", "policy"),
        normal(
            "graph.parameters.bfloat16",
            "graph 77x5 segments=3,70,0,4 bf16 parameters=bf16 added",
            "policy",
        ),
        normal("nothing", "instance 4x8 segments=0,4,0*3", "policy"),
        case(
            "instance.large_mean",
            "instance 190x8 segments=100,90",
            Data::LargeMean,
            Variants::One("policy"),
        ),
        case("graph.large_mean", "graph 190x8 segments=100,90", Data::LargeMean, Variants::One("policy")),
        case("layer.huge_mean", "layer 190x8 segments=100,90", Data::HugeMean, Variants::One("policy")),
        case("graph.constant", "graph 190x8 segments=100,90", Data::Constant, Variants::One("policy")),
        case("graph.nan_in_one", "graph 190x8 segments=100,90", Data::NanInOne, Variants::One("policy")),
        case("instance.tiny", "instance 190x8 segments=100,90", Data::Tiny, Variants::One("policy")),
    ]
}
