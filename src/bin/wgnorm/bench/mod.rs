//! `wgnorm bench`: each case is checked against the reference, then timed beside a copy of the same size.

mod case;
mod measure;
mod suite;

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

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
    device_ns: Option<Spread>,
    wall_ns: Spread,
    floor_bytes: u64,
    plan_bytes: u64,
    copy_gbps: f64,
    floor_fraction: f64,
    plan_fraction: f64,
    /// Whether the result was within its bounds; what was not is not timed and fails the run.
    checked: bool,
    /// Worst error as a fraction of its bound.
    check_ratio: f64,
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

    let context = crate::open(args.adapter.as_deref())?;
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
    let mut failed = 0;
    for layer in &layers {
        progress.set_message(format!("{:?}: reference", layer.dims));
        let mut cases = case::Cases::new(&context, &layer.dims)?;
        for &op in &ops {
            progress.set_message(format!("{:?}: {}", layer.dims, op.name()));
            let name = format!("{}.{}", op.name(), suite::label(&layer.dims));
            let ratio = match cases.check(op) {
                Ok(ratio) => ratio,
                Err(wrong) => {
                    failed += 1;
                    progress.suspend(|| println!("WRONG {name}: {wrong}"));
                    progress.inc(1);
                    continue;
                }
            };
            let (work, copy) = cases.time(op, &mut meter)?;
            let traffic = cases.traffic(op);
            let copy_gbps = copy.bytes as f64 / copy.best().median;
            let fraction = |bytes: u64| bytes as f64 / work.best().median / copy_gbps;
            let report = CaseReport {
                name,
                op: op.name(),
                shape: layer.dims.clone(),
                layout: args.layout.clone(),
                dtype: args.dtype.clone(),
                activation: args.activation.clone(),
                residual: false,
                multiplicity: layer.times,
                plan: cases.plan(op),
                kernels: cases.kernels(op),
                device_ns: work.device,
                wall_ns: work.wall,
                floor_bytes: traffic.floor_bytes,
                plan_bytes: traffic.plan_bytes,
                copy_gbps,
                floor_fraction: fraction(traffic.floor_bytes),
                plan_fraction: fraction(traffic.plan_bytes),
                checked: true,
                check_ratio: ratio,
            };
            let ns = work.best().median;
            progress.suspend(|| {
                println!(
                    "{:<24} {:>5} {:<15} {:>10.3} {:>10.1} {:>6.0}% {:>6.0}%",
                    format!("{:?}", layer.dims),
                    layer.times,
                    op.name(),
                    ns / 1e6,
                    traffic.floor_bytes as f64 / ns,
                    100.0 * report.floor_fraction,
                    100.0 * report.plan_fraction
                );
            });
            reports.push(report);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();

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
    println!(
        "of the same size moves in the same time. {} results checked, {failed} wrong.",
        reports.len() + failed
    );

    if let Some(path) = &args.json {
        let date = jiff::Timestamp::now().to_string();
        write_json(path, &Report { adapter, git: commit(), date, cases: reports, total })?;
    }
    Ok(if failed > 0 { Outcome::Failed } else { Outcome::Passed })
}

fn totals(ops: &[BenchOp], args: &Args, reports: &[CaseReport]) -> Vec<TotalReport> {
    ops.iter()
        .map(|op| {
            let cases: Vec<_> = reports.iter().filter(|report| report.op == op.name()).collect();
            let sum = |value: &dyn Fn(&CaseReport) -> f64| {
                cases.iter().map(|case| f64::from(case.multiplicity) * value(case)).sum::<f64>()
            };
            let device: Option<f64> = cases
                .iter()
                .map(|case| case.device_ns.map(|ns| f64::from(case.multiplicity) * ns.median))
                .sum();
            let wall_ns = sum(&|case| case.wall_ns.median);
            // Time that a copy would take for the same bytes, over the time it took.
            let ns = device.unwrap_or(wall_ns);
            TotalReport {
                op: op.name(),
                layout: args.layout.clone(),
                dtype: args.dtype.clone(),
                device_ns: device,
                wall_ns,
                floor_fraction: sum(&|case| case.floor_bytes as f64 / case.copy_gbps) / ns,
                plan_fraction: sum(&|case| case.plan_bytes as f64 / case.copy_gbps) / ns,
            }
        })
        .collect()
}

fn commit() -> Option<String> {
    let output = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}
