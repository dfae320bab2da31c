//! What a run reports: the fields of the JSON file, one entry per case and a total per operation, layout and cache state.

use std::path::Path;

use serde::Serialize;

use wgnorm::Layout;

use super::case::Measured;
use super::first_use::FirstUse;
use super::measure::Spread;
use super::norm::Axes;
use super::suite::{self, Layer};
use super::variant::{Variant, gate_name};
use super::{BenchOp, Cache, norm};
use crate::Refusal;
use crate::report::Adapter;

#[derive(Serialize)]
pub struct Report {
    pub adapter: Adapter,
    /// Commit of the working directory, if it is a git checkout.
    pub git: Option<String>,
    pub date: String,
    /// Whether these are all cases: while it goes on, a run writes those that it has.
    pub complete: bool,
    pub cases: Vec<CaseReport>,
    pub total: Vec<TotalReport>,
    /// Pinned plans, a line each, with `--autotune` or `--tuning-file`.
    pub tunings: Vec<String>,
    /// Times to the first result, with `--first-use`.
    pub first_use: Vec<FirstUse>,
}

#[derive(Clone, Serialize)]
pub struct CaseReport {
    pub name: String,
    pub op: &'static str,
    pub norm: &'static str,
    /// Of group norm.
    pub groups: Option<usize>,
    /// Of norms over other axes than usual.
    pub axes: Option<Axes>,
    /// Rows of a segment, on average, where statistics are those of segments.
    pub segments: Option<usize>,
    pub shape: Vec<usize>,
    pub layout: &'static str,
    pub dtype: String,
    pub activation: String,
    pub residual: bool,
    /// Whether something is added to x before the norm.
    pub sum: bool,
    /// Where a gate acts, if there is one.
    pub gate: Option<&'static str>,
    /// Whether y is of int8.
    pub int8: bool,
    pub in_place: bool,
    pub cache: &'static str,
    pub multiplicity: u32,
    pub plan: String,
    /// Why the policy planned so, one decision each.
    pub reasons: Vec<String>,
    pub kernels: Vec<String>,
    /// Sets of tensors that the samples rotated over; 1 if the cache is warm.
    pub sets: usize,
    pub floor_bytes: u64,
    pub plan_bytes: u64,
    /// Bytes of the tensors of the shape of x that the operation binds.
    pub tensor_bytes: u64,
    /// What the operation allocates for partial results.
    pub workspace_bytes: u64,
    /// Whether the result was within its bounds. What was not is not timed, and fails the run.
    pub checked: bool,
    /// What was wrong.
    pub error: Option<String>,
    /// Worst error as a fraction of its bound.
    pub check_ratio: Option<f64>,
    #[serde(flatten)]
    pub timing: Option<Timing>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timing {
    pub device_ns: Option<Spread>,
    pub wall_ns: Spread,
    /// The baseline by the clock that decides: the device's if it has one.
    pub naive_ns: Option<Spread>,
    /// How many times as long as the operation the baseline takes.
    pub speedup: Option<f64>,
    /// The plain operation and an elementwise pass, where something is fused and this baseline covers it.
    pub separate_ns: Option<Spread>,
    /// How many times as long as the fused operation these take.
    pub separate_speedup: Option<f64>,
    pub copy_gbps: f64,
    pub floor_fraction: f64,
    pub plan_fraction: f64,
}

/// Sums over all layers, each counted as often as the network has it.
#[derive(Serialize)]
pub struct TotalReport {
    pub op: &'static str,
    pub norm: &'static str,
    pub groups: Option<usize>,
    pub axes: Option<Axes>,
    pub segments: Option<usize>,
    pub layout: &'static str,
    pub dtype: String,
    pub activation: String,
    pub residual: bool,
    pub sum: bool,
    /// Where a gate acts, if there is one.
    pub gate: Option<&'static str>,
    /// Whether y is of int8.
    pub int8: bool,
    pub in_place: bool,
    pub cache: &'static str,
    pub device_ns: Option<f64>,
    pub wall_ns: f64,
    /// `None` where a case has no baseline.
    pub naive_ns: Option<f64>,
    pub speedup: Option<f64>,
    /// `None` where a case has no such baseline.
    pub separate_ns: Option<f64>,
    pub separate_speedup: Option<f64>,
    pub floor_fraction: f64,
    pub plan_fraction: f64,
}

impl CaseReport {
    /// The report of a case that has not run.
    pub fn blank(layer: &Layer, variant: Variant, layout: Layout, cache: Cache, op: BenchOp) -> Self {
        Self {
            name: name(layer, op),
            op: op.name(),
            norm: layer.norm.name(),
            groups: layer.norm.groups,
            axes: layer.norm.axes,
            segments: layer.norm.segments,
            shape: layer.dims.clone(),
            layout: layout.name(),
            dtype: variant.dtype.name().to_owned(),
            activation: variant.activation.name().to_owned(),
            residual: variant.residual,
            sum: variant.sum,
            gate: variant.gate.map(gate_name),
            int8: variant.int8,
            in_place: variant.in_place,
            cache: cache.name(),
            multiplicity: layer.times,
            plan: String::new(),
            reasons: Vec::new(),
            kernels: Vec::new(),
            sets: 0,
            floor_bytes: 0,
            plan_bytes: 0,
            tensor_bytes: 0,
            workspace_bytes: 0,
            checked: false,
            error: None,
            check_ratio: None,
            timing: None,
        }
    }

    /// Element type, and what is fused.
    pub fn variant(&self) -> (&str, &str, bool, bool, bool, Option<&str>, bool) {
        (&self.dtype, &self.activation, self.residual, self.in_place, self.sum, self.gate, self.int8)
    }

    /// The norm, with its groups or axes if it has any.
    pub fn norm_label(&self) -> String {
        norm::label(self.norm, self.groups, self.axes.map(|axes| axes.to_string()).as_deref(), self.segments)
    }
}

impl TotalReport {
    /// The norm, with its groups or axes if it has any.
    pub fn norm_label(&self) -> String {
        norm::label(self.norm, self.groups, self.axes.map(|axes| axes.to_string()).as_deref(), self.segments)
    }
}

/// Operation and shape; norms that are not batch norm are named.
fn name(layer: &Layer, op: BenchOp) -> String {
    let shape = suite::label(&layer.dims);
    match layer.norm.is_batch() {
        true => format!("{}.{shape}", op.name()),
        false => format!("{}.{}.{shape}", layer.norm.label(), op.name()),
    }
}

impl Timing {
    pub fn new(measured: &Measured, floor_bytes: u64, plan_bytes: u64) -> Self {
        let Measured { work, copy, naive, separate } = measured;
        let copy_gbps = copy.bytes as f64 / copy.best().median;
        let fraction = |bytes: u64| bytes as f64 / work.best().median / copy_gbps;
        let slower = |baseline: Spread| baseline.median / work.best().median;
        let naive_ns = naive.map(|naive| naive.best());
        let separate_ns = separate.map(|separate| separate.best());
        Self {
            device_ns: work.device,
            wall_ns: work.wall,
            naive_ns,
            speedup: naive_ns.map(slower),
            separate_ns,
            separate_speedup: separate_ns.map(slower),
            copy_gbps,
            floor_fraction: fraction(floor_bytes),
            plan_fraction: fraction(plan_bytes),
        }
    }

    /// Median by the clock that decides.
    pub fn ns(&self) -> f64 {
        self.device_ns.unwrap_or(self.wall_ns).median
    }
}

/// Sums per norm, operation, layout, cache state, element type and what is fused; one with a failed case has none.
pub fn totals(reports: &[CaseReport]) -> Vec<TotalReport> {
    let key = |report: &CaseReport| {
        // All in the order they were run.
        let first = |same: &dyn Fn(&CaseReport) -> bool| reports.iter().position(same);
        (
            first(&|other| other.norm_label() == report.norm_label()),
            first(&|other| other.variant() == report.variant()),
            first(&|other| other.layout == report.layout),
            first(&|other| other.cache == report.cache),
            BenchOp::ALL.iter().position(|op| op.name() == report.op),
        )
    };
    let mut keys: Vec<_> = reports.iter().map(key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .filter_map(|wanted| total(reports.iter().filter(|report| key(report) == wanted)))
        .collect()
}

fn total<'r>(reports: impl Iterator<Item = &'r CaseReport>) -> Option<TotalReport> {
    let cases: Vec<(&CaseReport, Timing)> =
        reports.map(|report| Some((report, report.timing?))).collect::<Option<_>>()?;
    let sum = |value: &dyn Fn(&CaseReport, &Timing) -> f64| {
        cases.iter().map(|(case, timing)| f64::from(case.multiplicity) * value(case, timing)).sum::<f64>()
    };
    let sum_of = |spread: &dyn Fn(&Timing) -> Option<Spread>| -> Option<f64> {
        let each = |(case, timing): &(&CaseReport, Timing)| {
            spread(timing).map(|ns| f64::from(case.multiplicity) * ns.median)
        };
        cases.iter().map(each).sum()
    };
    let device_ns = sum_of(&|timing| timing.device_ns);
    let wall_ns = sum(&|_, timing| timing.wall_ns.median);
    let naive_ns = sum_of(&|timing| timing.naive_ns);
    let separate_ns = sum_of(&|timing| timing.separate_ns);
    let ns = device_ns.unwrap_or(wall_ns);
    let (first, _) = cases.first()?;
    Some(TotalReport {
        op: first.op,
        norm: first.norm,
        groups: first.groups,
        axes: first.axes,
        segments: first.segments,
        layout: first.layout,
        dtype: first.dtype.clone(),
        activation: first.activation.clone(),
        residual: first.residual,
        sum: first.sum,
        gate: first.gate,
        int8: first.int8,
        in_place: first.in_place,
        cache: first.cache,
        device_ns,
        wall_ns,
        naive_ns,
        speedup: naive_ns.map(|naive| naive / ns),
        separate_ns,
        separate_speedup: separate_ns.map(|separate| separate / ns),
        // Time that a copy would take for the same bytes, over the time it took.
        floor_fraction: sum(&|case, timing| case.floor_bytes as f64 / timing.copy_gbps) / ns,
        plan_fraction: sum(&|case, timing| case.plan_bytes as f64 / timing.copy_gbps) / ns,
    })
}

/// One line of the CSV file: the scalar fields of a case, and what was run where and when.
#[derive(Serialize)]
struct Row<'r> {
    name: &'r str,
    op: &'r str,
    norm: &'r str,
    groups: Option<usize>,
    axes: Option<Axes>,
    segments: Option<usize>,
    shape: String,
    layout: &'r str,
    dtype: &'r str,
    activation: &'r str,
    residual: bool,
    sum: bool,
    gate: Option<&'r str>,
    int8: bool,
    in_place: bool,
    cache: &'r str,
    multiplicity: u32,
    plan: &'r str,
    reasons: String,
    kernels: String,
    sets: usize,
    floor_bytes: u64,
    plan_bytes: u64,
    tensor_bytes: u64,
    workspace_bytes: u64,
    checked: bool,
    error: Option<&'r str>,
    check_ratio: Option<f64>,
    device_ns_median: Option<f64>,
    device_ns_min: Option<f64>,
    device_ns_p90: Option<f64>,
    wall_ns_median: Option<f64>,
    wall_ns_min: Option<f64>,
    wall_ns_p90: Option<f64>,
    naive_ns_median: Option<f64>,
    naive_ns_min: Option<f64>,
    naive_ns_p90: Option<f64>,
    speedup: Option<f64>,
    separate_ns_median: Option<f64>,
    separate_ns_min: Option<f64>,
    separate_ns_p90: Option<f64>,
    separate_speedup: Option<f64>,
    copy_gbps: Option<f64>,
    floor_fraction: Option<f64>,
    plan_fraction: Option<f64>,
    adapter: &'r str,
    backend: &'r str,
    driver: &'r str,
    device_type: &'r str,
    git: Option<&'r str>,
    date: &'r str,
}

/// Writes one row per case.
pub fn write_csv(path: &Path, report: &Report) -> Result<(), Refusal> {
    let failed = |error: csv::Error| format!("cannot write {}: {error}", path.display());
    let mut writer = csv::Writer::from_path(path).map_err(failed)?;
    for case in &report.cases {
        writer.serialize(row(report, case)).map_err(failed)?;
    }
    writer.flush().map_err(|error| failed(error.into()))?;
    Ok(())
}

fn row<'r>(report: &'r Report, case: &'r CaseReport) -> Row<'r> {
    let timing = case.timing;
    let device = timing.and_then(|timing| timing.device_ns);
    let wall = timing.map(|timing| timing.wall_ns);
    let naive = timing.and_then(|timing| timing.naive_ns);
    let separate = timing.and_then(|timing| timing.separate_ns);
    Row {
        name: &case.name,
        op: case.op,
        norm: case.norm,
        groups: case.groups,
        axes: case.axes,
        segments: case.segments,
        shape: suite::label(&case.shape),
        layout: case.layout,
        dtype: &case.dtype,
        activation: &case.activation,
        residual: case.residual,
        sum: case.sum,
        gate: case.gate,
        int8: case.int8,
        in_place: case.in_place,
        cache: case.cache,
        multiplicity: case.multiplicity,
        plan: &case.plan,
        reasons: case.reasons.join("; "),
        kernels: case.kernels.join("; "),
        sets: case.sets,
        floor_bytes: case.floor_bytes,
        plan_bytes: case.plan_bytes,
        tensor_bytes: case.tensor_bytes,
        workspace_bytes: case.workspace_bytes,
        checked: case.checked,
        error: case.error.as_deref(),
        check_ratio: case.check_ratio,
        device_ns_median: device.map(|ns| ns.median),
        device_ns_min: device.map(|ns| ns.min),
        device_ns_p90: device.map(|ns| ns.p90),
        wall_ns_median: wall.map(|ns| ns.median),
        wall_ns_min: wall.map(|ns| ns.min),
        wall_ns_p90: wall.map(|ns| ns.p90),
        naive_ns_median: naive.map(|ns| ns.median),
        naive_ns_min: naive.map(|ns| ns.min),
        naive_ns_p90: naive.map(|ns| ns.p90),
        speedup: timing.and_then(|timing| timing.speedup),
        separate_ns_median: separate.map(|ns| ns.median),
        separate_ns_min: separate.map(|ns| ns.min),
        separate_ns_p90: separate.map(|ns| ns.p90),
        separate_speedup: timing.and_then(|timing| timing.separate_speedup),
        copy_gbps: timing.map(|timing| timing.copy_gbps),
        floor_fraction: timing.map(|timing| timing.floor_fraction),
        plan_fraction: timing.map(|timing| timing.plan_fraction),
        adapter: &report.adapter.name,
        backend: &report.adapter.backend,
        driver: &report.adapter.driver,
        device_type: &report.adapter.device_type,
        git: report.git.as_deref(),
        date: &report.date,
    }
}
