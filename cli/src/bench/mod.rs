//! `wgnorm bench`: each case is checked against the reference, then timed beside a copy of the same size and, batch norm's,
//! beside what it has to beat: a plain kernel, or where something is fused, separate passes.

mod case;
mod data;
pub mod first_use;
mod measure;
mod naive;
pub mod norm;
mod plot;
mod report;
mod separate;
pub mod suite;
mod table;
mod tensors;
mod variant;
mod warmth;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use wgnorm::tuning::{Tuning, prepare_copy};
use wgnorm::{Activation, Context, DType, GateOrder, Layout};

use crate::report::{Adapter, write_json};
use crate::{Outcome, Refusal, layout, tuning};
use norm::{Norm, NormName};
use report::{CaseReport, Report, Timing};
pub use suite::BenchOp;
use variant::Variant;
pub use variant::dtype_parser;

#[derive(clap::Args)]
pub struct Args {
    /// `resnet50` (its 53 layers), `sizes` (a sweep from 64 KiB to 64 MiB per tensor), `transformer` (layer and RMS norm, and
    /// the group norm of a U-Net), or a file with lines `C,H,W [xTIMES]` (any number of spatial axes, # for comments)
    #[arg(long, value_name = "NAME|FILE", default_value = "resnet50")]
    suite: String,
    /// Samples per batch for the suite; `transformer` has 256 to 131072 rows for each, and a U-Net with a quarter
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Times this shape instead of a suite; may be given several times. What is normalized depends on the norm: rows of a last
    /// axis, ROWS,LENGTH (any number of axes), or N,C,..
    #[arg(long, value_name = "N,C,H,W", value_parser = suite::parse_shape)]
    shape: Vec<suite::Dims>,
    /// The norm; may be given several times [default: batch, or all that the suite has]
    #[arg(long, value_enum)]
    norm: Vec<NormName>,
    /// Groups of group norm
    #[arg(long, value_name = "G", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    groups: u32,
    /// Axes that layer and RMS norm, mean-variance and L2 norm are over, in any order, instead of the usual ones; with --shape
    #[arg(long, value_name = "AXIS,..", requires = "shape", requires = "norm")]
    axes: Option<norm::Axes>,
    /// Statistics of each segment of rows, of 1 to twice as many rows as this, of layer, group, instance norm and GraphNorm of shapes ROWS,C
    #[arg(long, value_name = "ROWS", requires = "shape", requires = "norm", value_parser = clap::value_parser!(u32).range(1..))]
    segments: Option<u32>,
    /// Times this operation only; may be given several times. Of norms other than batch, inference is the forward pass that
    /// saves nothing, and there is no frozen_backward
    #[arg(long, value_enum)]
    op: Vec<BenchOp>,
    /// Element type; may be given several times
    #[arg(long, value_name = "D", default_value = "float32", value_parser = variant::dtype_parser())]
    dtype: Vec<DType>,
    /// Order of the axes in memory, shapes are N,C,.. all the same; may be given several times [default: all]
    #[arg(long, value_name = "L", value_parser = layout::parser())]
    layout: Vec<Layout>,
    /// What is in the cache: what the last repetition left there, or nothing of use; may be given several times
    #[arg(long, value_enum, default_value = "warm")]
    cache: Vec<CacheState>,
    /// For a cold cache: other data that goes through it before a tensor is used again, at most 4GiB. Should be twice
    /// the last-level cache or more
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = parse_cold_bytes)]
    cold_bytes: u64,
    /// Fused activation; may be given several times
    #[arg(long, value_name = "A", default_value = "none", value_parser = variant::activation_parser())]
    activation: Vec<Activation>,
    /// Adds a residual before the activation; backward writes its gradient too
    #[arg(long)]
    residual: bool,
    /// Adds something to x before the norm and writes the sum out, whose gradient from elsewhere dx includes: a pre-norm
    /// transformer. Not for batch norm
    #[arg(long)]
    sum: bool,
    /// Multiplies by the activation of a gate, behind the norm or before it; backward writes its gradient too. Not for batch norm
    #[arg(long, value_name = "last|first", value_parser = variant::gate_parser(), conflicts_with = "residual")]
    gate: Option<GateOrder>,
    /// Writes y as int8, of inference: by a scale of each row, or, of batch norm and where slices are no rows, by one for all
    #[arg(long, conflicts_with_all = ["in_place"])]
    int8: bool,
    /// Writes y over x and dx over dy. Training backward is then given y in the place of x, if the activation can be
    /// inverted; where it cannot, and for norms other than batch, there is no training forward. With --sum, the sum goes over x
    #[arg(long)]
    in_place: bool,
    /// Samples of each measurement
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Takes the first adapter whose name contains this text
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Says with each case how it is planned and why: kernels, tiles, workgroups, bytes moved
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    forced: Forced,
    /// Measures the plans of every case before it is timed, and takes the fastest
    #[arg(long, conflicts_with = "Forced")]
    autotune: bool,
    /// Takes plans that were measured before from this file; with --autotune, it need not exist, and new ones are added to it
    #[arg(long, value_name = "FILE", conflicts_with = "Forced")]
    tuning_file: Option<PathBuf>,
    /// Instead of speed, measures the time from a fresh context to the first y of a training forward pass, of the first layer and
    /// of all: cold, with the crate's pipeline cache, and with the driver's own. At most 3 runs of each
    #[arg(long, conflicts_with_all = [
        "norm", "op", "dtype", "cache", "activation", "residual", "sum", "gate", "int8", "in_place", "explain", "csv", "plot", "autotune",
        "tuning_file", "Forced",
    ])]
    first_use: bool,
    /// Writes the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the results as CSV, a row per case
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draws the results: bandwidth over tensor size, and every layer as a fraction of a copy
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// What is forced instead of left to the policy.
#[derive(clap::Args)]
#[command(next_help_heading = "Forced plans")]
struct Forced {
    /// Values per memory access: 1, or 4 where that is possible
    #[arg(long, value_name = "N")]
    width: Option<u32>,
    /// Invocations per workgroup
    #[arg(long, value_name = "N")]
    workgroup_size: Option<u32>,
    /// Invocations that walk a slice together: a divisor of the workgroup size
    #[arg(long, value_name = "N")]
    team_size: Option<u32>,
    /// Workgroups per slice
    #[arg(long, value_name = "N")]
    splits: Option<u32>,
    /// Channels last: times the fewest rows that are whole words are taken as one
    #[arg(long, value_name = "N")]
    rows: Option<u32>,
    /// Words that an invocation walks at once, 1 to 16
    #[arg(long, value_name = "N")]
    strip: Option<u32>,
    /// Words that an invocation loads before it uses the first: 1, 2, 4 or 8
    #[arg(long, value_name = "N")]
    depth: Option<u32>,
    /// Words, or rows, per tile, instead of a number of workgroups per slice
    #[arg(long, value_name = "N")]
    tile: Option<u32>,
    /// Bytes of a tensor that one dispatch binds at most
    #[arg(long, value_name = "BYTES")]
    window_bytes: Option<u64>,
    /// Bytes of a tensor that both dispatches of a training pass take at a time, for the cache
    #[arg(long, value_name = "BYTES")]
    group_bytes: Option<u64>,
    /// Whether slices that fit are held in registers: one dispatch for a training pass
    #[arg(long, value_name = "BOOL")]
    resident: Option<bool>,
    /// Layer and RMS norm: whether maps go along columns instead of rows
    #[arg(long, value_name = "BOOL")]
    along_columns: Option<bool>,
    /// Batch norm: whether partial results are folded by a dispatch of its own, instead of by the map
    #[arg(long, value_name = "BOOL")]
    folds_apart: Option<bool>,
    /// Whether teams merge by shuffles within subgroups
    #[arg(long, value_name = "BOOL")]
    subgroups: Option<bool>,
    /// Convert float16 by integer arithmetic even where the device's own conversion is exact
    #[arg(long)]
    integer_f16: bool,
}

impl Forced {
    fn tuning(&self) -> Tuning {
        let Self { width, workgroup_size, team_size, splits, rows, strip, depth, tile, .. } = *self;
        let Self { window_bytes, group_bytes, resident, along_columns, .. } = *self;
        let Self { folds_apart, subgroups, integer_f16, .. } = *self;
        Tuning::default()
            .width(width)
            .workgroup_size(workgroup_size)
            .team_size(team_size)
            .splits(splits)
            .rows(rows)
            .strip(strip)
            .depth(depth)
            .tile(tile)
            .window_bytes(window_bytes)
            .group_bytes(group_bytes)
            .along_columns(along_columns)
            .folds_apart(folds_apart)
            .resident(resident)
            .subgroups(subgroups)
            .integer_f16(integer_f16)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CacheState {
    Warm,
    Cold,
}

/// What is in the cache when an operation starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// What its last repetition left there, as far as it fits.
    Warm,
    /// Other tensors: at least this many bytes of them went through the cache since its own.
    Cold { bytes: u64 },
}

impl Cache {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold { .. } => "cold",
        }
    }
}

/// More than any cache holds, and not yet more than most machines have.
const MOST_COLD_BYTES: u64 = 4 << 30;

/// Bytes, with one of the units KiB, MiB, GiB or none.
fn parse_cold_bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let (digits, shift) =
        units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift))).unwrap_or((text, 0));
    let number: u64 = digits.trim().parse().map_err(|error| format!("{digits:?}: {error}"))?;
    let bytes = number.checked_mul(1 << shift).filter(|bytes| (1..=MOST_COLD_BYTES).contains(bytes));
    bytes.ok_or_else(|| format!("must be between 1 and {MOST_COLD_BYTES} bytes"))
}

/// What all cases of a run share.
struct Bench<'a> {
    context: &'a Context,
    meter: measure::Meter<'a>,
    kernels: case::Kernels,
    columns: table::Columns,
}

pub fn run(args: &Args) -> Result<Outcome, Refusal> {
    let layers = layers(args)?;
    [&args.json, &args.csv, &args.plot, &args.tuning_file]
        .into_iter()
        .flatten()
        .try_for_each(|path| check_directory(path))?;
    let variants = variants(args);
    let norms = distinct(&layers.iter().map(|layer| layer.norm).collect::<Vec<_>>());
    let chosen = |norm: Norm| Chosen::of(norm, args, &variants).map(|chosen| (norm, chosen));
    let chosen: HashMap<Norm, Chosen> = norms.iter().copied().map(chosen).collect::<Result<_, _>>()?;
    if let Some(norm) =
        norms.iter().find(|norm| !norm.is_batch() && (args.autotune || args.tuning_file.is_some()))
    {
        let name = norm.name();
        return Err(format!(
            "--autotune and --tuning-file are for batch norm; plans of {name} norm are the policy's"
        )
        .into());
    }
    let caches: Vec<Cache> = distinct(&args.cache)
        .iter()
        .map(|state| match state {
            CacheState::Warm => Cache::Warm,
            CacheState::Cold => Cache::Cold { bytes: args.cold_bytes },
        })
        .collect();

    if args.first_use {
        return run_first_use(args, &layers, &distinct(&Norm::BATCH.layouts(&args.layout)?));
    }
    let context = crate::open(args.adapter.as_deref())?.with_tuning(args.forced.tuning());
    let context = tuning::with_file(&context, args.autotune, args.tuning_file.as_deref())?;
    let adapter = Adapter::of_context(&context);
    let count: u32 = layers.iter().map(|layer| layer.times).sum();
    println!("layers: {count}, shapes: {}, on {adapter}", layers.len());
    let meter = measure::Meter::new(&context, args.samples, args.adapter.as_deref())?;
    println!("times are of the {}, medians of {} samples", meter.clock(), args.samples);
    if let Some(Cache::Cold { bytes }) = caches.iter().find(|cache| **cache != Cache::Warm) {
        println!(
            "cold: {} MiB of other data between two uses of a tensor",
            *bytes as f64 / f64::from(1 << 20)
        );
    }
    if args.in_place {
        let y = if args.sum { "the sum" } else { "y" };
        println!(
            "in place: {y} over x, dx over dy; what was written over is restored before it is used again"
        );
    }
    let columns = table::Columns::of(&norms, &variants);
    table::header(columns);

    let each = |layer: &suite::Layer| chosen[&layer.norm].layouts.len() * chosen[&layer.norm].ops.len();
    let steps = layers.iter().map(each).sum::<usize>() * variants.len() * caches.len();
    let progress = ProgressBar::new(steps as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a valid template"));
    let mut bench = Bench { context: &context, meter, kernels: case::Kernels::default(), columns };
    let mut cases: Vec<CaseReport> = Vec::new();
    for (layer, &variant) in layers.iter().flat_map(|layer| variants.iter().map(move |v| (layer, v))) {
        progress.set_message(format!("{:?}", layer.dims));
        let data = bench.data(layer, variant);
        let Chosen { layouts, ops } = &chosen[&layer.norm];
        for (&layout, &cache) in layouts.iter().flat_map(|layout| caches.iter().map(move |c| (layout, c))) {
            let mut of_shape = match &data {
                Ok(data) => case::Cases::new(&context, data, layout, cache),
                Err(error) => Err(error.clone()),
            };
            for &op in ops {
                progress.set_message(format!("{:?}: {}", layer.dims, op.name()));
                let mut report = CaseReport::blank(layer, variant, layout, cache, op);
                bench.fill(&mut report, op, &mut of_shape)?;
                progress.suspend(|| {
                    table::case(&report, bench.columns);
                    if args.explain {
                        table::explanation(&report);
                    }
                });
                cases.push(report);
                progress.inc(1);
            }
        }
        if let Some(path) = &args.json {
            // Whoever is ended before the end leaves what was done.
            write_json(path, &report_of(&adapter, cases.clone(), Vec::new(), false))?;
        }
    }
    progress.finish_and_clear();

    let failed = cases.iter().filter(|case| case.error.is_some()).count();
    let total = report::totals(&cases);
    // Several norms share the layers.
    table::totals((norms.len() == 1).then_some(count), &total, columns);
    println!(
        "floor, plan: bytes that the operation must move and that its plan moves, as a fraction of what a copy"
    );
    let naive = if columns.naive { " x naive: the plain kernel's time over this one's." } else { "" };
    println!("of the same size moves in the same time.{naive}");
    if columns.separate {
        println!("x separate: the plain operation and an elementwise pass, their time over this one's.");
    }
    println!("{} cases, every result checked before it is timed; {failed} failed.", cases.len());
    if failed > 0 {
        println!("Operations with a failed case have no total.");
    }

    let tunings = pinned(&context, args)?;
    let report = report_of(&adapter, cases, tunings, true);
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    if let Some(path) = &args.csv {
        report::write_csv(path, &report)?;
    }
    if let Some(path) = &args.plot {
        plot::write(path, &report)?;
    }
    Ok(if failed > 0 { Outcome::Failed } else { Outcome::Passed })
}

/// What is written of cases that were run.
fn report_of(adapter: &Adapter, cases: Vec<CaseReport>, tunings: Vec<String>, complete: bool) -> Report {
    let (total, date) = (report::totals(&cases), jiff::Timestamp::now().to_string());
    Report {
        adapter: adapter.clone(),
        git: commit(),
        date,
        complete,
        cases,
        total,
        tunings,
        first_use: Vec::new(),
    }
}

/// The pinned plans, a line each; those that were measured are saved.
fn pinned(context: &Context, args: &Args) -> Result<Vec<String>, Refusal> {
    let pinned = context.pinned_tunings();
    if args.autotune {
        let others = pinned.iter().filter(|pinned| pinned.tuning != Tuning::default()).count();
        println!(
            "tuning: {} problems pinned, {others} of them to other plans than the policy's",
            pinned.len()
        );
        if let Some(file) = &args.tuning_file {
            context.save_tunings(file)?;
        }
    }
    Ok(pinned.iter().map(ToString::to_string).collect())
}

fn run_first_use(args: &Args, layers: &[suite::Layer], layouts: &[Layout]) -> Result<Outcome, Refusal> {
    let adapter = Adapter::of_context(&crate::open(args.adapter.as_deref())?);
    println!("on {adapter}");
    let first_use = first_use::measure(layers, layouts, args.samples, args.adapter.as_deref())?;
    if let Some(path) = &args.json {
        let date = jiff::Timestamp::now().to_string();
        let (cases, total, tunings) = (Vec::new(), Vec::new(), Vec::new());
        let complete = true;
        write_json(
            path,
            &Report { adapter, git: commit(), date, complete, cases, total, tunings, first_use },
        )?;
    }
    Ok(Outcome::Passed)
}

impl Bench<'_> {
    /// Data of a shape, if the device can hold such tensors; the host should not be filled with what it cannot.
    fn data(&self, layer: &suite::Layer, variant: Variant) -> Result<data::Data, String> {
        let copied = async || {
            let x = self.context.zeros_as(&layer.dims, variant.dtype).await?;
            let y = self.context.zeros_like(&x).await?;
            prepare_copy(self.context, &x, &y).await
        };
        let made = self.context.block_on(copied()).map(|_| data::Data::new(layer, variant));
        made.map_err(|error| error.to_string())
    }

    /// Checks an operation and its baselines, and times them if they are right.
    fn fill(
        &mut self,
        report: &mut CaseReport,
        op: BenchOp,
        cases: &mut Result<case::Cases<'_>, String>,
    ) -> Result<(), Refusal> {
        let prepared = match cases {
            Ok(cases) => {
                report.sets = cases.sets();
                cases.case(op)
            }
            Err(error) => Err(error.clone()),
        };
        let mut case = match prepared {
            Ok(case) => case,
            Err(error) => {
                report.error = Some(error);
                return Ok(());
            }
        };
        let operation = case.operation();
        let traffic = operation.traffic();
        if let Some(plan) = operation.plan() {
            report.plan = plan.to_string();
            report.reasons.clone_from(&plan.reasons);
        }
        report.kernels = operation.kernels().map(str::to_owned).collect();
        (report.floor_bytes, report.plan_bytes) = (traffic.floor_bytes, traffic.plan_bytes);
        report.tensor_bytes = case.tensor_bytes();
        report.workspace_bytes = operation.workspace_bytes();
        match case.check() {
            Ok(ratio) => report.check_ratio = Some(ratio),
            Err(wrong) => {
                report.error = Some(wrong);
                return Ok(());
            }
        }
        report.checked = true;
        if let Err(wrong) = case.check_baselines(&mut self.kernels) {
            report.error = Some(wrong);
            return Ok(());
        }
        let measured = case.time(&mut self.kernels, &mut self.meter)?;
        report.timing = Some(Timing::new(&measured, traffic.floor_bytes, traffic.plan_bytes));
        Ok(())
    }
}

/// What of a norm is timed.
struct Chosen {
    layouts: Vec<Layout>,
    ops: Vec<BenchOp>,
}

impl Chosen {
    /// What was asked for, or why a norm does not have it.
    fn of(norm: Norm, args: &Args, variants: &[Variant]) -> Result<Self, String> {
        let all = if args.int8 { &[BenchOp::Inference] } else { norm.ops() };
        let ops = distinct(if args.op.is_empty() { all } else { &args.op });
        for (&variant, &op) in variants.iter().flat_map(|variant| ops.iter().map(move |op| (variant, op))) {
            norm.check_op(op, variant)?;
        }
        Ok(Self { layouts: distinct(&norm.layouts(&args.layout)?), ops })
    }
}

/// The layers of the suite, or the shapes in its place, each a shape of its norm's.
fn layers(args: &Args) -> Result<Vec<suite::Layer>, Refusal> {
    let groups = args.groups as usize;
    let segments = args.segments.map(|rows| rows as usize);
    let named = distinct(&args.norm)
        .into_iter()
        .map(|name| Norm::named(name, groups).over(args.axes)?.in_segments(segments));
    let norms = named.collect::<Result<Vec<Norm>, _>>()?;
    let layers = match args.shape.is_empty() {
        true => suite::load(&args.suite, args.batch as usize, &norms)?,
        false => {
            let norms = if norms.is_empty() { vec![Norm::BATCH] } else { norms };
            let layer = |norm, dims: &suite::Dims| suite::Layer { norm, dims: dims.0.clone(), times: 1 };
            norms.iter().flat_map(|&norm| args.shape.iter().map(move |dims| layer(norm, dims))).collect()
        }
    };
    layers.iter().try_for_each(|layer| layer.norm.check_shape(&layer.dims))?;
    Ok(layers)
}

/// Every element type with every activation.
fn variants(args: &Args) -> Vec<Variant> {
    let (dtypes, activations) = (distinct(&args.dtype), distinct(&args.activation));
    let Args { residual, in_place, sum, gate, int8, .. } = *args;
    let of = |dtype| {
        activations.iter().map(move |&activation| Variant {
            dtype,
            activation,
            residual,
            in_place,
            sum,
            gate,
            int8,
        })
    };
    dtypes.into_iter().flat_map(of).collect()
}

/// The values without repetitions.
fn distinct<T: Copy + PartialEq>(values: &[T]) -> Vec<T> {
    let mut distinct = Vec::new();
    for &value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

/// Tells before a long run, not after it, that a file has nowhere to go.
fn check_directory(file: &Path) -> Result<(), Refusal> {
    match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() && !directory.is_dir() => {
            Err(format!("cannot write {}: no such directory", file.display()).into())
        }
        _ => Ok(()),
    }
}

fn commit() -> Option<String> {
    let output = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units_and_limits() {
        assert_eq!(parse_cold_bytes("64"), Ok(64));
        assert_eq!(parse_cold_bytes("3MiB"), Ok(3 << 20));
        for wrong in ["", "0", "-1", "5GiB", "MiB", "1MB", "99999999999999999999", "99999999999GiB"] {
            assert!(parse_cold_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
