//! Times side by side: what two files have in common, the ratios, and the sums over a network.

use std::collections::HashMap;

use serde::Serialize;

use crate::results::{Case, Clock, File};

/// Forward and backward together. Some peers are only timed so; of the others it is the sum.
const STEP: &str = "train_step";
const PARTS: [&str; 2] = ["train_forward", "train_backward"];
/// The operations in the order of the tables, and how many tensors each must move at least.
const OPS: [(&str, f64); 7] = [
    (PARTS[0], 2.0),
    (PARTS[1], 3.0),
    (STEP, 5.0),
    ("inference", 2.0),
    ("frozen_backward", 3.0),
    ("tangent", 3.0),
    ("second_backward", 5.0),
];

/// What tells a case from others: operation, shape, layout, element type, norm.
type Key = (String, Vec<usize>, String, String, String);

/// The plain cases of a file.
pub struct Side<'f> {
    cases: HashMap<Key, &'f Case>,
    /// The same, in the order of the file.
    order: Vec<Key>,
    /// How many cases are not plain.
    pub left_out: usize,
}

/// One operation of a norm in one layout and element type, over all shapes.
#[derive(Debug, PartialEq, Serialize)]
pub struct Group {
    pub op: &'static str,
    pub norm: String,
    pub layout: String,
    pub dtype: String,
    pub rows: Vec<Row>,
    pub total: Total,
}

/// One shape. Times are nanoseconds.
#[derive(Debug, PartialEq, Serialize)]
pub struct Row {
    pub shape: Vec<usize>,
    pub multiplicity: u32,
    #[serde(flatten)]
    pub ours: Ours,
    /// In the order of the files.
    pub peers: Vec<Option<PeerTime>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ours {
    /// A copy of as many bytes as any implementation must move.
    pub floor_ns: Option<f64>,
    /// A copy of one tensor: it reads one and writes one.
    pub copy_ns: Option<f64>,
    pub wgnorm_ns: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PeerTime {
    pub ns: f64,
    /// The peer's time over this crate's.
    pub ratio: f64,
    /// Whether the peer's result was right.
    pub checked: bool,
}

/// Sums over the rows, each counted as often as the network has it.
#[derive(Debug, PartialEq, Serialize)]
pub struct Total {
    pub layers: u32,
    #[serde(flatten)]
    pub ours: Ours,
    pub peers: Vec<PeerTotal>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct PeerTotal {
    /// `None` where the peer lacks a shape: a sum over fewer would mislead.
    pub sum: Option<PeerTime>,
    /// Smallest ratio of a single shape.
    pub smallest_ratio: Option<f64>,
    /// How many shapes the peer has.
    pub cases: usize,
}

impl<'f> Side<'f> {
    pub fn of(file: &'f File) -> Self {
        let mut side = Self { cases: HashMap::new(), order: Vec::new(), left_out: 0 };
        for case in &file.cases {
            if !case.is_plain() || case.shape.is_empty() {
                side.left_out += 1;
                continue;
            }
            let key = key(&case.op, case);
            // The first of several alike.
            if !side.cases.contains_key(&key) {
                side.cases.insert(key.clone(), case);
                side.order.push(key);
            }
        }
        side
    }

    fn get(&self, op: &str, like: &Case) -> Option<&'f Case> {
        self.cases.get(&key(op, like)).copied()
    }

    /// The cases that make up an operation: one of that name, or the parts of a step.
    fn made_of(&self, op: &str, like: &Case) -> Option<Vec<&'f Case>> {
        match self.get(op, like) {
            Some(case) => Some(vec![case]),
            None if op == STEP => PARTS.iter().map(|part| self.get(part, like)).collect(),
            None => None,
        }
    }

    fn ns(&self, op: &str, like: &Case, clock: Clock) -> Option<f64> {
        self.made_of(op, like)?.iter().map(|case| case.ns(clock)).sum()
    }

    /// How many times as fast its copies are as another's beside the same cases: the geometric mean.
    pub fn copy_speed(&self, other: &Self) -> Option<f64> {
        let ratio = |key: &Key| {
            // Any operation on the same tensors: a copy is of them all.
            let other = OPS.iter().find_map(|(op, _)| other.get(op, self.cases[key]));
            let (one, other) = (self.cases[key].copy_gbps?, other?.copy_gbps?);
            Some(one / other).filter(|ratio| ratio.is_finite() && *ratio > 0.0)
        };
        let logs: Vec<f64> = self.order.iter().filter_map(ratio).map(f64::ln).collect();
        (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
    }

    /// What another file has no case for.
    pub fn only_here(&self, other: &Self) -> Vec<String> {
        let missing = |key: &&Key| other.made_of(&key.0, self.cases[*key]).is_none();
        let label = |(op, shape, layout, dtype, norm): &Key| match norm.as_str() {
            "batch" => format!("{op} {shape:?} {layout} {dtype}"),
            _ => format!("{norm} {op} {shape:?} {layout} {dtype}"),
        };
        self.order.iter().filter(missing).map(label).collect()
    }
}

fn key(op: &str, case: &Case) -> Key {
    (op.to_owned(), case.shape.clone(), case.layout.clone(), case.dtype.clone(), case.norm())
}

/// The tables, in the order of the file of this crate.
pub fn groups(ours: &Side<'_>, peers: &[Side<'_>], clock: Clock) -> Vec<Group> {
    let mut kinds: Vec<[&str; 3]> = Vec::new();
    for (_, _, layout, dtype, norm) in &ours.order {
        if !kinds.contains(&[norm, dtype, layout]) {
            kinds.push([norm, dtype, layout]);
        }
    }
    let first = |kind: &dyn Fn(&Key) -> bool| ours.order.iter().position(kind);
    kinds.sort_by_key(|[norm, dtype, _]| (first(&|key| key.4 == **norm), first(&|key| key.3 == **dtype)));
    let each = |kind| OPS.map(|(op, floor)| group(ours, peers, clock, (op, floor), kind));
    kinds.into_iter().flat_map(each).flatten().collect()
}

/// One table, if a peer has something to show in it.
fn group(
    ours: &Side<'_>,
    peers: &[Side<'_>],
    clock: Clock,
    (op, floor): (&'static str, f64),
    [norm, dtype, layout]: [&str; 3],
) -> Option<Group> {
    let mut rows: Vec<Row> = Vec::new();
    for key in ours.order.iter().filter(|(_, _, l, d, n)| [n.as_str(), d, l] == [norm, dtype, layout]) {
        let case = ours.cases[key];
        if rows.iter().any(|row| row.shape == case.shape) {
            continue;
        }
        rows.extend(row(ours, peers, clock, (op, floor), case));
    }
    let total = total(&rows, peers.len());
    let empty = total.peers.iter().all(|peer| peer.cases == 0);
    (!empty).then(|| {
        let [norm, dtype, layout] = [norm, dtype, layout].map(str::to_owned);
        Group { op, norm, layout, dtype, rows, total }
    })
}

/// A shape, if this crate has a time for it.
fn row(
    ours: &Side<'_>,
    peers: &[Side<'_>],
    clock: Clock,
    (op, floor): (&str, f64),
    like: &Case,
) -> Option<Row> {
    let parts = ours.made_of(op, like)?;
    let wgnorm_ns = ours.ns(op, like, clock)?;
    let floor_ns: Option<f64> = parts.iter().map(|part| part.copy_ns()).sum();
    let peer = |peer: &Side<'_>| {
        let ns = peer.ns(op, like, clock)?;
        let checked = peer.made_of(op, like)?.iter().all(|case| case.checked);
        Some(PeerTime { ns, ratio: ns / wgnorm_ns, checked })
    };
    Some(Row {
        shape: like.shape.clone(),
        multiplicity: like.multiplicity,
        ours: Ours { floor_ns, copy_ns: floor_ns.map(|ns| ns * 2.0 / floor), wgnorm_ns },
        peers: peers.iter().map(peer).collect(),
    })
}

fn total(rows: &[Row], peers: usize) -> Total {
    let sum = |value: &dyn Fn(&Row) -> Option<f64>| -> Option<f64> {
        rows.iter().map(|row| Some(f64::from(row.multiplicity) * value(row)?)).sum()
    };
    let wgnorm_ns = sum(&|row| Some(row.ours.wgnorm_ns)).unwrap_or_default();
    let peer = |peer: usize| {
        let here = || rows.iter().filter_map(|row| row.peers[peer]);
        let sum = sum(&|row| row.peers[peer].map(|time| time.ns));
        PeerTotal {
            sum: sum.map(|ns| PeerTime {
                ns,
                ratio: ns / wgnorm_ns,
                checked: here().all(|time| time.checked),
            }),
            smallest_ratio: here().map(|time| time.ratio).min_by(f64::total_cmp),
            cases: here().count(),
        }
    };
    Total {
        layers: rows.iter().map(|row| row.multiplicity).sum(),
        ours: Ours {
            floor_ns: sum(&|row| row.ours.floor_ns),
            copy_ns: sum(&|row| row.ours.copy_ns),
            wgnorm_ns,
        },
        peers: (0..peers).map(peer).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases of (operation, channels, layout, ns, whether checked); shapes are `[1, c, 2]`, channel 9 counts three times.
    fn file(cases: &[(&str, usize, &str, f64, bool)]) -> File {
        let tensors = |op| OPS.iter().find(|(name, _)| *name == op).unwrap().1;
        let cases: Vec<_> = cases
            .iter()
            .map(|(op, c, layout, ns, checked)| {
                serde_json::json!({
                    "name": "", "op": op, "shape": [1, c, 2], "layout": layout, "dtype": "float32",
                    "multiplicity": if *c == 9 { 3 } else { 1 }, "floor_bytes": 10.0 * tensors(*op),
                    "checked": checked, "device_ns": null, "wall_ns": { "median": ns }, "copy_gbps": 4.0,
                })
            })
            .collect();
        let adapter = serde_json::json!({ "name": "", "backend": "", "driver": "", "device_type": "" });
        let file = serde_json::json!({ "adapter": adapter, "git": null, "date": "", "cases": cases });
        serde_json::from_value(file).unwrap()
    }

    fn compared(ours: &File, peers: &[File]) -> Vec<Group> {
        let sides: Vec<_> = peers.iter().map(Side::of).collect();
        groups(&Side::of(ours), &sides, Clock::Wall)
    }

    const FIRST: &str = "channels_first";

    #[test]
    fn totals_count_layers_and_the_smallest_ratio_does_not() {
        let ours = file(&[("inference", 4, FIRST, 10.0, true), ("inference", 9, FIRST, 20.0, true)]);
        let peer = file(&[("inference", 4, FIRST, 20.0, true), ("inference", 9, FIRST, 90.0, false)]);
        let groups = compared(&ours, &[peer]);
        let [Group { op: "inference", rows, total, .. }] = &groups[..] else { panic!("{groups:?}") };
        assert_eq!(rows[1].peers, [Some(PeerTime { ns: 90.0, ratio: 4.5, checked: false })]);
        assert_eq!(rows[0].ours, Ours { floor_ns: Some(5.0), copy_ns: Some(5.0), wgnorm_ns: 10.0 });
        assert_eq!((total.layers, total.ours.wgnorm_ns, total.ours.floor_ns), (4, 70.0, Some(20.0)));
        let sum = PeerTime { ns: 290.0, ratio: 290.0 / 70.0, checked: false };
        assert_eq!(total.peers, [PeerTotal { sum: Some(sum), smallest_ratio: Some(2.0), cases: 2 }]);
    }

    #[test]
    fn a_step_is_the_peers_own_or_the_sum_of_its_parts() {
        let ours = file(&[("train_forward", 4, FIRST, 10.0, true), ("train_backward", 4, FIRST, 30.0, true)]);
        let whole = file(&[("train_forward", 4, FIRST, 5.0, true), ("train_step", 4, FIRST, 80.0, true)]);
        let parts =
            file(&[("train_forward", 4, FIRST, 50.0, true), ("train_backward", 4, FIRST, 70.0, false)]);
        let groups = compared(&ours, &[whole, parts]);
        let ops: Vec<_> = groups.iter().map(|group| group.op).collect();
        assert_eq!(ops, ["train_forward", "train_backward", "train_step"]);
        assert_eq!(groups[1].rows[0].peers[0], None);
        let step = &groups[2].rows[0];
        assert_eq!(step.ours, Ours { floor_ns: Some(12.5), copy_ns: Some(5.0), wgnorm_ns: 40.0 });
        let time = |ns, checked| Some(PeerTime { ns, ratio: ns / 40.0, checked });
        assert_eq!(step.peers, [time(80.0, true), time(120.0, false)]);
    }

    #[test]
    fn norms_of_one_shape_are_told_apart() {
        let of = |norm: &str, groups: Option<u32>, ns: f64| {
            serde_json::json!({
                "name": "", "op": "inference", "norm": norm, "groups": groups, "shape": [2, 8, 3], "layout": FIRST,
                "dtype": "float32", "multiplicity": 1, "floor_bytes": 20.0, "wall_ns": { "median": ns }, "copy_gbps": 4.0,
            })
        };
        let mut ours = file(&[]);
        let mut peer = file(&[]);
        let cases = [of("layer", None, 1.0), of("group", Some(4), 2.0), of("group", Some(2), 3.0)];
        ours.cases = cases.map(|case| serde_json::from_value(case).unwrap()).into();
        peer.cases = vec![serde_json::from_value(of("group", Some(2), 12.0)).unwrap()];
        let groups = compared(&ours, &[peer]);
        let [Group { norm, rows, .. }] = &groups[..] else { panic!("{groups:?}") };
        assert_eq!((norm.as_str(), rows[0].peers[0].unwrap().ratio), ("group2", 4.0));
    }

    #[test]
    fn a_peer_that_lacks_a_shape_has_no_sum() {
        let ours = file(&[("inference", 4, FIRST, 10.0, true), ("inference", 9, FIRST, 20.0, true)]);
        let less = file(&[("inference", 4, FIRST, 30.0, true)]);
        let other = file(&[("inference", 4, "channels_last", 30.0, true)]);
        assert_eq!(
            Side::of(&other).only_here(&Side::of(&ours)),
            ["inference [1, 4, 2] channels_last float32"]
        );
        let groups = compared(&ours, &[less, other]);
        let peers = &groups[0].total.peers;
        assert_eq!(peers[0], PeerTotal { sum: None, smallest_ratio: Some(3.0), cases: 1 });
        assert_eq!(peers[1], PeerTotal { sum: None, smallest_ratio: None, cases: 0 });
        assert!(compared(&ours, &[file(&[])]).is_empty());
    }
}
