//! `wgnorm bench`: each case is checked against the reference, then timed beside a copy of the same size.

mod case;
mod measure;
mod suite;

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use wgnorm::Tuning;

use crate::report::{Adapter, write_json};
use crate::{Outcome, Refusal};
use measure::Spread;
pub use suite::BenchOp;

#[derive(clap::Args)]
pub struct Args {
    /// `resnet50`, or a file with lines `C,H,W [xTIMES]` (any number of spatial axes, # for comments)
    #[arg(long, value_name = "NAME|FILE", default_value = "resnet50")]
    suite: String,
    /// Samples per batch for the suite
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Times this shape instead of a suite; may be given several times
    #[arg(long, value_name = "N,C,H,W", value_parser = suite::parse_shape)]
    shape: Vec<suite::Dims>,
    /// Times this operation only; may be given several times
    #[arg(long, value_enum)]
    op: Vec<BenchOp>,
    /// Element type
    #[arg(long, value_name = "D", default_value = "float32", value_parser = ["float32"])]
    dtype: String,
    /// Order of the axes
    #[arg(long, value_name = "L", default_value = "channels_first", value_parser = ["channels_first"])]
    layout: String,
    /// Fused activation
    #[arg(long, value_name = "A", default_value = "none", value_parser = ["none"])]
    activation: String,
    /// Samples of each measurement
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Takes the first adapter whose name contains this text
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Forces the workgroup size of every kernel instead of what the policy chooses
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    workgroup_size: Option<u32>,
    /// Writes the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    adapter: Adapter,
    /// Commit of the working directory, if it is a git checkout.
    git: Option<String>,
    date: String,
    cases: Vec<CaseReport>,
    total: Vec<TotalReport>,
}

#[derive(Serialize)]
struct CaseReport {
    name: String,
    op: &'static str,
    shape: Vec<usize>,
    layout: String,
    dtype: String,
    activation: String,
    residual: bool,
    multiplicity: u32,
    plan: String,
    kernels: Vec<String>,
    floor_bytes: u64,
    plan_bytes: u64,
    /// Whether the result was within its bounds. What was not is not timed, and fails the run.
    checked: bool,
    /// What was wrong.
    error: Option<String>,
    /// Worst error as a fraction of its bound.
    check_ratio: Option<f64>,
    #[serde(flatten)]
    timing: Option<Timing>,
}

#[derive(Clone, Copy, Serialize)]
struct Timing {
    device_ns: Option<Spread>,
    wall_ns: Spread,
    copy_gbps: f64,
    floor_fraction: f64,
    plan_fraction: f64,
}

/// Sums over all layers, each counted as often as the network has it.
#[derive(Serialize)]
struct TotalReport {
    op: &'static str,
    layout: String,
    dtype: String,
    device_ns: Option<f64>,
    wall_ns: f64,
    floor_fraction: f64,
    plan_fraction: f64,
}

pub fn run(args: &Args) -> Result<Outcome, Refusal> {
    let layers = match args.shape.is_empty() {
        true => suite::load(&args.suite, args.batch as usize)?,
        false => args.shape.iter().map(|dims| suite::Layer { dims: dims.0.clone(), times: 1 }).collect(),
    };
    let ops = if args.op.is_empty() { BenchOp::ALL.to_vec() } else { args.op.clone() };

    let tuning = Tuning { workgroup_size: args.workgroup_size, ..Tuning::default() };
    let context = crate::open(args.adapter.as_deref())?.with_tuning(tuning);
    let adapter = Adapter::of_context(&context);
    let count: u32 = layers.iter().map(|layer| layer.times).sum();
    println!("{count} layers in {} shapes on {adapter}", layers.len());
    let mut meter = measure::Meter::new(&context, args.samples)?;
    println!("times are of the {}, medians of {} samples", meter.clock(), args.samples);
    println!(
        "{:<24} {:>5} {:<15} {:>10} {:>10} {:>7} {:>7}",
        "shape", "times", "op", "ms", "GB/s", "floor", "plan"
    );

    let progress = ProgressBar::new((layers.len() * ops.len()) as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a valid template"));
    let mut reports: Vec<CaseReport> = Vec::new();
    for layer in &layers {
        progress.set_message(format!("{:?}", layer.dims));
        let mut cases = case::Cases::new(&context, &layer.dims).map_err(|error| error.to_string());
        for &op in &ops {
            progress.set_message(format!("{:?}: {}", layer.dims, op.name()));
            let report = run_case(args, layer, op, &mut cases, &mut meter)?;
            progress.suspend(|| print_case(&report));
            reports.push(report);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();

    let wrong = reports.iter().filter(|report| !report.checked).count();
    let total = totals(&ops, args, &reports);
    println!("\nall {count} layers                            ms (device)  ms (wall)   floor    plan");
    for total in &total {
        println!(
            "{:<40} {:>14} {:>10.2} {:>6.0}% {:>6.0}%",
            total.op,
            total.device_ns.map_or("-".to_owned(), |ns| format!("{:.2}", ns / 1e6)),
            total.wall_ns / 1e6,
            100.0 * total.floor_fraction,
            100.0 * total.plan_fraction
        );
    }
    println!(
        "floor, plan: bytes that the operation must move and that its plan moves, as a fraction of what a copy"
    );
    println!("of the same size moves in the same time. {} results checked, {wrong} wrong.", reports.len());
    if wrong > 0 {
        println!("Operations with a wrong result have no total.");
    }

    if let Some(path) = &args.json {
        let date = jiff::Timestamp::now().to_string();
        write_json(path, &Report { adapter, git: commit(), date, cases: reports, total })?;
    }
    Ok(if wrong > 0 { Outcome::Failed } else { Outcome::Passed })
}

/// Checks an operation, and times it if it is right.
fn run_case(
    args: &Args,
    layer: &suite::Layer,
    op: BenchOp,
    cases: &mut Result<case::Cases<'_>, String>,
    meter: &mut measure::Meter<'_>,
) -> Result<CaseReport, Refusal> {
    let mut report = CaseReport {
        name: format!("{}.{}", op.name(), suite::label(&layer.dims)),
        op: op.name(),
        shape: layer.dims.clone(),
        layout: args.layout.clone(),
        dtype: args.dtype.clone(),
        activation: args.activation.clone(),
        residual: false,
        multiplicity: layer.times,
        plan: String::new(),
        kernels: Vec::new(),
        floor_bytes: 0,
        plan_bytes: 0,
        checked: false,
        error: None,
        check_ratio: None,
        timing: None,
    };
    let cases = match cases {
        Ok(cases) => cases,
        Err(error) => {
            report.error = Some(error.clone());
            return Ok(report);
        }
    };
    let traffic = cases.traffic(op);
    report.plan = cases.plan(op);
    report.kernels = cases.kernels(op);
    (report.floor_bytes, report.plan_bytes) = (traffic.floor_bytes, traffic.plan_bytes);
    match cases.check(op) {
        Ok(ratio) => report.check_ratio = Some(ratio),
        Err(wrong) => {
            report.error = Some(wrong);
            return Ok(report);
        }
    }
    report.checked = true;
    let (work, copy) = cases.time(op, meter)?;
    let copy_gbps = copy.bytes as f64 / copy.best().median;
    let fraction = |bytes: u64| bytes as f64 / work.best().median / copy_gbps;
    report.timing = Some(Timing {
        device_ns: work.device,
        wall_ns: work.wall,
        copy_gbps,
        floor_fraction: fraction(traffic.floor_bytes),
        plan_fraction: fraction(traffic.plan_bytes),
    });
    Ok(report)
}

fn print_case(report: &CaseReport) {
    let shape = format!("{:?}", report.shape);
    let Some(timing) = &report.timing else {
        let error = report.error.as_deref().unwrap_or_default();
        println!("{shape:<24} {:>5} {:<15} FAILED {error}", report.multiplicity, report.op);
        return;
    };
    let ns = timing.device_ns.unwrap_or(timing.wall_ns).median;
    println!(
        "{shape:<24} {:>5} {:<15} {:>10.3} {:>10.1} {:>6.0}% {:>6.0}%",
        report.multiplicity,
        report.op,
        ns / 1e6,
        report.floor_bytes as f64 / ns,
        100.0 * timing.floor_fraction,
        100.0 * timing.plan_fraction
    );
}

/// Sums per operation; an operation with a wrong result has none.
fn totals(ops: &[BenchOp], args: &Args, reports: &[CaseReport]) -> Vec<TotalReport> {
    let total = |op: &BenchOp| {
        let cases: Vec<(&CaseReport, Timing)> = reports
            .iter()
            .filter(|report| report.op == op.name())
            .map(|report| Some((report, report.timing?)))
            .collect::<Option<_>>()?;
        let sum = |value: &dyn Fn(&CaseReport, &Timing) -> f64| {
            cases.iter().map(|(case, timing)| f64::from(case.multiplicity) * value(case, timing)).sum::<f64>()
        };
        let device: Option<f64> = cases
            .iter()
            .map(|(case, timing)| timing.device_ns.map(|ns| f64::from(case.multiplicity) * ns.median))
            .sum();
        let wall_ns = sum(&|_, timing| timing.wall_ns.median);
        // Time that a copy would take for the same bytes, over the time it took.
        let ns = device.unwrap_or(wall_ns);
        Some(TotalReport {
            op: op.name(),
            layout: args.layout.clone(),
            dtype: args.dtype.clone(),
            device_ns: device,
            wall_ns,
            floor_fraction: sum(&|case, timing| case.floor_bytes as f64 / timing.copy_gbps) / ns,
            plan_fraction: sum(&|case, timing| case.plan_bytes as f64 / timing.copy_gbps) / ns,
        })
    };
    ops.iter().filter_map(total).collect()
}

fn commit() -> Option<String> {
    let output = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}
