//! What is to be timed: the shapes and element types of a `wgnorm bench --json` file, and the operations that burn has.

use std::path::Path;

use serde::Deserialize;

use crate::Refusal;
use crate::layer::Op;
use crate::norm::Norm;

/// The cases that burn can do, in the order of the file.
pub struct Cases {
    /// Name of the adapter that they ran on.
    pub adapter: String,
    pub groups: Vec<Group>,
    /// What is left out, and why.
    pub notes: Vec<String>,
}

/// A norm, shape and element type, how often the network has it, and what is done with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub norm: Norm,
    pub shape: Vec<usize>,
    pub multiplicity: u32,
    pub dtype: String,
    pub ops: Vec<Op>,
}

#[derive(Deserialize)]
struct File {
    adapter: Adapter,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Adapter {
    name: String,
}

#[derive(Deserialize)]
struct Case {
    op: String,
    #[serde(default = "batch")]
    norm: String,
    groups: Option<usize>,
    shape: Vec<usize>,
    layout: String,
    dtype: String,
    #[serde(default = "none")]
    activation: String,
    #[serde(default)]
    residual: bool,
    #[serde(default)]
    sum: bool,
    #[serde(default)]
    in_place: bool,
    #[serde(default = "warm")]
    cache: String,
    multiplicity: u32,
}

fn batch() -> String {
    "batch".to_owned()
}

fn none() -> String {
    "none".to_owned()
}

fn warm() -> String {
    "warm".to_owned()
}

impl Cases {
    pub fn read(path: &Path) -> Result<Self, Refusal> {
        let told = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
        let text = std::fs::read(path).map_err(|error| told(&error))?;
        let file: File = serde_json::from_slice(&text).map_err(|error| told(&error))?;
        let cases = Self::of(&file);
        match cases.groups.is_empty() {
            true => Err(format!("{} has no case that burn can do", path.display()).into()),
            false => Ok(cases),
        }
    }

    fn of(file: &File) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        let [mut norms, mut layouts, mut variants] = [0, 0, 0];
        for case in &file.cases {
            let Some(norm) = Norm::named(&case.norm, case.groups) else {
                norms += 1;
                continue;
            };
            if case.layout != "channels_first" {
                layouts += 1;
                continue;
            }
            let fused = case.activation != "none" || case.residual || case.sum;
            if fused || case.in_place || case.cache != "warm" {
                variants += 1;
                continue;
            }
            let Case { shape, multiplicity, dtype, .. } = case;
            let same = |group: &&mut Group| {
                (group.norm, &group.shape, group.multiplicity, &group.dtype)
                    == (norm, shape, *multiplicity, dtype)
            };
            let group = match groups.iter_mut().find(same) {
                Some(group) => group,
                None => {
                    let (shape, dtype) = (shape.clone(), dtype.clone());
                    groups.push(Group { norm, shape, multiplicity: *multiplicity, dtype, ops: Vec::new() });
                    groups.last_mut().expect("it was just pushed")
                }
            };
            // Backward is never alone in burn: it is timed as a step, forward and backward.
            let op = match case.op.as_str() {
                "train_forward" => Some(Op::TrainForward),
                "train_backward" => Some(Op::TrainStep),
                "inference" => Some(Op::Inference),
                _ => None,
            };
            group.ops.extend(op.filter(|op| !group.ops.contains(op)));
        }
        groups.retain(|group| !group.ops.is_empty());
        let note = |count: u32, why: &str| (count > 0).then(|| format!("{count} cases left out: {why}"));
        let notes = [
            note(norms, "burn is not timed in such a norm"),
            note(layouts, "burn has channels first alone"),
            note(variants, "fused, of a sum, in place or cold"),
        ];
        Self { adapter: file.adapter.name.clone(), groups, notes: notes.into_iter().flatten().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_burn_has_is_grouped() {
        let case = |op: &str, layout: &str, residual: bool| {
            serde_json::json!({
                "op": op, "shape": [2, 3, 4, 5], "layout": layout, "dtype": "float32", "residual": residual,
                "multiplicity": 7,
            })
        };
        let of = |norm: &str, groups: Option<usize>| {
            serde_json::json!({
                "op": "inference", "norm": norm, "groups": groups, "shape": [2, 3, 4, 5], "layout": "channels_first",
                "dtype": "float32", "multiplicity": 7,
            })
        };
        let cases = [
            case("train_forward", "channels_first", false),
            case("train_backward", "channels_first", false),
            case("frozen_backward", "channels_first", false),
            case("inference", "channels_first", false),
            case("inference", "channels_last", false),
            case("inference", "channels_first", true),
            of("group", Some(3)),
            of("scale", None),
        ];
        let file = serde_json::json!({ "adapter": { "name": "a" }, "cases": cases });
        let cases = Cases::of(&serde_json::from_value(file).unwrap());
        let ops = vec![Op::TrainForward, Op::TrainStep, Op::Inference];
        let group = |norm, ops| Group {
            norm,
            shape: vec![2, 3, 4, 5],
            multiplicity: 7,
            dtype: "float32".into(),
            ops,
        };
        let groups = vec![group(Norm::Batch, ops), group(Norm::Group(3), vec![Op::Inference])];
        assert_eq!((cases.adapter.as_str(), cases.groups), ("a", groups));
        assert_eq!(cases.notes.len(), 3);
    }
}
