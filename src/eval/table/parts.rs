//! So many slices, or places with parameters of their own, that no binding has room for what all need: operations are done in parts.

use super::{Case, name_of};
use crate::eval::data::Data;
use crate::eval::variant::Variants;
use crate::spec::Spec;

/// For bindings of [`BINDING`](crate::eval::variant::BINDING) bytes: partial results, saved statistics, parameters, and all that goes with them.
const LINES: [&str; 37] = [
    "batch 3x900x5 backward",
    "batch 3x900x5 backward last",
    "batch 6x1500 backward relu residual",
    "frozen 3x900x5 backward relu residual",
    "batch 3x900x5 backward given",
    "batch 3x900x5 backward renorm=3,5",
    "batch 3x900x5 backward in_place leaky_relu=0.1",
    "batch 4x900x5 accumulated=2 backward",
    "batch 4x900x5 ghost=2 backward",
    "batch 4x900x5 sync=1+3 backward",
    "layer 1500x8 added backward",
    "layer 1500x8 mask=3 relu residual sum added backward",
    "layer 3x500x8 modulated added backward",
    "rms 1500x8 relu residual backward f16",
    "layer 3x5000 added backward",
    "layer 3x5000 bf16 added backward",
    "layer 3x6007 f16 parameters=f32 added relu residual backward",
    "layer 3x5000 modulated added backward",
    "group:2 3x900x5 added backward",
    "group:450 1x900x5 added backward last",
    "group:300 3x900x5 added backward",
    "group:1 5x600x3 added backward",
    "instance 900x3x5 added backward",
    "instance 900x3x5 added backward last",
    "instance 1x900x5 added backward last",
    "instance 5x900x5 modulated added backward",
    "mvn:0,2 3x900x5 backward",
    "mvn:0 7x1500 backward",
    "mvn:1 7x1500x3 backward",
    "l2:1 3x5x900 added backward",
    "scale 1500x20 added backward",
    "weight 1500x20 added backward",
    "standardization 1500x4x3x3 added backward",
    "tracked 3x900x5 backward added",
    "tracked 3x700x4",
    "batch 3x900x5 backward mask=2",
    "tanh 3x900x5",
];

/// More than 128 MiB, and not by the first axis alone.
const LARGE: [&str; 14] = [
    "batch 2x5x3360000 backward",
    "batch 3360001x10 backward relu residual",
    "layer 33000x1024 added backward",
    "layer 1100x31x1024 added backward",
    "rms 33000x1025 added backward",
    "group:8 3x64x180001 added backward",
    "group:8 3x64x180001 added backward last",
    "instance 3x64x180001 added backward",
    "mvn:0,2 3x64x180001 backward",
    "l2:1 33000x1024 added backward",
    "scale 33000x1024 added backward",
    "weight 33000x1024 added backward",
    "standardization 33000x1024 added backward",
    "layer 6000000x2 added backward",
];

/// Tensors, or what goes with their slices, that exceed what a browser binds by default.
pub(super) fn large() -> Vec<Case> {
    LARGE.iter().map(|line| case("large", line, "default bindings")).collect()
}

pub(super) fn cases() -> Vec<Case> {
    LINES.iter().map(|line| case("parts", line, "bindings")).collect()
}

fn case(what: &str, line: &str, variant: &'static str) -> Case {
    let spec: Spec = line.parse().unwrap_or_else(|error| panic!("a line of the table: {error}"));
    let words: Vec<_> =
        line.split(' ').skip(2).filter(|word| !["backward", "added"].contains(word)).collect();
    let what =
        [what, line.split(' ').next().unwrap_or_default(), &name_of(&spec.shape), &words.join("_")].join(".");
    let layout = spec.layout;
    Case::of(what.trim_end_matches('.'), spec, Data::Normal, Variants::One(variant)).in_layout(layout)
}
