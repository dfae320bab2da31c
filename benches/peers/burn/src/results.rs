//! The JSON file: the fields of `wgnorm bench --json`, and the peer. What says nothing of burn is null.

use serde::Serialize;

use crate::cases::Group;
use crate::layer::{Measured, Op};
use crate::norm::Norm;
use crate::report::Adapter;
use crate::stopwatch::Spread;

#[derive(Serialize)]
pub struct Report {
    pub adapter: Adapter,
    pub git: Option<String>,
    pub date: String,
    pub peer: Peer,
    pub cases: Vec<CaseResult>,
    pub total: Vec<Total>,
}

#[derive(Serialize)]
pub struct Peer {
    pub name: &'static str,
    pub version: &'static str,
    pub variant: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    pub name: String,
    pub op: &'static str,
    pub norm: &'static str,
    pub groups: Option<usize>,
    pub shape: Vec<usize>,
    pub layout: &'static str,
    pub dtype: String,
    pub activation: &'static str,
    pub residual: bool,
    pub sum: bool,
    pub in_place: bool,
    pub cache: &'static str,
    pub multiplicity: u32,
    pub plan: Option<()>,
    pub reasons: Option<()>,
    pub kernels: Option<()>,
    pub sets: u32,
    pub floor_bytes: u64,
    pub plan_bytes: Option<()>,
    pub tensor_bytes: u64,
    /// Whether it was within the tolerance. It is timed in any case.
    pub checked: bool,
    pub error: Option<String>,
    pub check_ratio: Option<f64>,
    pub device_ns: Option<Spread>,
    pub wall_ns: Option<Spread>,
    pub naive_ns: Option<()>,
    pub speedup: Option<()>,
    pub separate_ns: Option<()>,
    pub separate_speedup: Option<()>,
    pub copy_gbps: Option<f64>,
    pub floor_fraction: Option<f64>,
    pub plan_fraction: Option<()>,
}

/// Sums over all layers, each counted as often as the network has it.
#[derive(Debug, PartialEq, Serialize)]
pub struct Total {
    pub op: &'static str,
    pub norm: &'static str,
    pub groups: Option<usize>,
    pub layout: &'static str,
    pub dtype: String,
    pub activation: &'static str,
    pub residual: bool,
    pub sum: bool,
    pub in_place: bool,
    pub cache: &'static str,
    pub device_ns: Option<f64>,
    pub wall_ns: f64,
    pub naive_ns: Option<()>,
    pub speedup: Option<()>,
    pub separate_ns: Option<()>,
    pub separate_speedup: Option<()>,
    pub floor_fraction: f64,
    pub plan_fraction: Option<()>,
}

impl CaseResult {
    /// The result of a case that has not run.
    pub fn blank(group: &Group, op: Op) -> Self {
        let size = if group.dtype == "float32" { 4 } else { 2 };
        let bytes = op.floor() * size * group.shape.iter().map(|&dim| dim as u64).product::<u64>();
        let label = group.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
        Self {
            name: match group.norm {
                Norm::Batch => format!("{}.{label}", op.name()),
                norm => format!("{}.{}.{label}", norm.label(), op.name()),
            },
            op: op.name(),
            norm: group.norm.name(),
            groups: group.norm.groups(),
            shape: group.shape.clone(),
            layout: "channels_first",
            dtype: group.dtype.clone(),
            activation: "none",
            residual: false,
            sum: false,
            in_place: false,
            cache: "warm",
            multiplicity: group.multiplicity,
            plan: None,
            reasons: None,
            kernels: None,
            sets: 1,
            floor_bytes: bytes,
            plan_bytes: None,
            tensor_bytes: bytes,
            checked: false,
            error: None,
            check_ratio: None,
            device_ns: None,
            wall_ns: None,
            naive_ns: None,
            speedup: None,
            separate_ns: None,
            separate_speedup: None,
            copy_gbps: None,
            floor_fraction: None,
            plan_fraction: None,
        }
    }

    /// With what was measured.
    pub fn with(self, measured: &Measured) -> Self {
        let &Measured { ratio, device_ns, wall_ns, copy_gbps } = measured;
        let checked = ratio <= 1.0;
        let ns = device_ns.unwrap_or(wall_ns).median;
        Self {
            checked,
            error: (!checked).then(|| format!("its worst error is {ratio:.1e} times what is tolerated")),
            check_ratio: ratio.is_finite().then_some(ratio),
            device_ns,
            wall_ns: Some(wall_ns),
            copy_gbps: Some(copy_gbps),
            floor_fraction: Some(self.floor_bytes as f64 / ns / copy_gbps),
            ..self
        }
    }

    /// What a total is of.
    fn kind(&self) -> (&'static str, &'static str, Option<usize>, &str) {
        (self.op, self.norm, self.groups, &self.dtype)
    }

    /// Median by the clock that decides.
    fn ns(&self) -> Option<f64> {
        self.device_ns.or(self.wall_ns).map(|ns| ns.median)
    }

    /// A line for the terminal.
    pub fn line(&self) -> String {
        let shape = format!("{:?}", self.shape);
        let times = match (self.ns(), self.floor_fraction) {
            (Some(ns), Some(floor)) => format!("{:>9.3} ms {:>5.0}% of a copy ", ns / 1e6, 100.0 * floor),
            _ => String::new(),
        };
        let error = self.error.as_deref().unwrap_or_default();
        let norm =
            self.groups.map_or_else(|| self.norm.to_owned(), |groups| format!("{}{groups}", self.norm));
        format!("{shape:<22} {norm:<8} {:<15} {:<8} {times}{error}", self.op, self.dtype)
    }
}

/// Sums per norm, operation and element type; one with a case without times has none.
pub fn totals(results: &[CaseResult]) -> Vec<Total> {
    let mut firsts: Vec<&CaseResult> = Vec::new();
    for result in results {
        if !firsts.iter().any(|first| first.kind() == result.kind()) {
            firsts.push(result);
        }
    }
    firsts.into_iter().filter_map(|first| total(results, first)).collect()
}

fn total(results: &[CaseResult], first: &CaseResult) -> Option<Total> {
    let cases = || results.iter().filter(|case| case.kind() == first.kind());
    let sum = |value: &dyn Fn(&CaseResult) -> Option<f64>| -> Option<f64> {
        cases().map(|case| Some(f64::from(case.multiplicity) * value(case)?)).sum()
    };
    let wall_ns = sum(&|case| case.wall_ns.map(|ns| ns.median))?;
    let device_ns = sum(&|case| case.device_ns.map(|ns| ns.median));
    let floor = sum(&|case| Some(case.floor_bytes as f64 / case.copy_gbps?))?;
    Some(Total {
        op: first.op,
        norm: first.norm,
        groups: first.groups,
        layout: "channels_first",
        dtype: first.dtype.clone(),
        activation: "none",
        residual: false,
        sum: false,
        in_place: false,
        cache: "warm",
        device_ns,
        wall_ns,
        naive_ns: None,
        speedup: None,
        separate_ns: None,
        separate_speedup: None,
        floor_fraction: floor / device_ns.unwrap_or(wall_ns),
        plan_fraction: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_count_multiplicity_and_need_every_case() {
        let group = |multiplicity| Group {
            norm: Norm::Batch,
            shape: vec![1, 1, 10, 10],
            multiplicity,
            dtype: "float32".to_owned(),
            ops: Vec::new(),
        };
        let spread = |ns| Spread { median: ns, min: ns, p90: ns };
        let measured = |ns| Measured { ratio: 0.5, device_ns: None, wall_ns: spread(ns), copy_gbps: 8.0 };
        let case = |times, ns| CaseResult::blank(&group(times), Op::TrainStep).with(&measured(ns));
        let cases = [case(1, 1000.0), case(3, 2000.0)];
        assert_eq!((cases[0].floor_bytes, cases[0].copy_gbps), (2000, Some(8.0)));
        let total = totals(&cases);
        assert_eq!((total.len(), total[0].wall_ns), (1, 7000.0));
        assert!((total[0].floor_fraction - 1000.0 / 7000.0).abs() < 1e-12);
        assert!(totals(&[cases[0].clone(), CaseResult::blank(&group(1), Op::TrainStep)]).is_empty());
        let rms = Group { norm: Norm::Rms, ..group(1) };
        let rms = CaseResult::blank(&rms, Op::TrainStep).with(&measured(5000.0));
        let both = totals(&[cases[0].clone(), rms]);
        assert_eq!((both.len(), both[1].norm, both[1].wall_ns), (2, "rms", 5000.0));
    }

    #[test]
    fn what_is_no_number_is_not_right() {
        let group = Group {
            norm: Norm::Rms,
            shape: vec![1, 1],
            multiplicity: 1,
            dtype: "float16".into(),
            ops: Vec::new(),
        };
        let spread = Spread { median: 1.0, min: 1.0, p90: 1.0 };
        let measured = Measured { ratio: f64::NAN, device_ns: None, wall_ns: spread, copy_gbps: 1.0 };
        let result = CaseResult::blank(&group, Op::Inference).with(&measured);
        assert!(!result.checked && result.error.is_some() && result.check_ratio.is_none());
    }
}
