//! `wgnorm check`: every case in every forced variant against the f64 reference or stored results.

mod arena;
mod batch;
mod case;
mod conformance;
mod covering;
mod curve;
mod data;
mod expect;
mod family;
mod fingerprint;
mod run;
mod variant;

use std::path::PathBuf;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::report::{Adapter, write_json};
use crate::{Outcome, Refusal};
use case::{Case, Content};
use fingerprint::Fingerprint;

#[derive(clap::Args)]
pub struct Args {
    /// A directory of conformance cases (manifest.json and .safetensors files); may be given several times. Without
    /// any, the built-in matrix runs
    #[arg(long, value_name = "DIR")]
    cases: Vec<PathBuf>,
    /// Besides pairs of choices, every combination of norm, operation, layout, element type, activation, residual, and place
    /// or sum: many minutes, most of them for compiling kernels
    #[arg(long, conflicts_with = "cases")]
    full: bool,
    /// Runs only cases whose name contains this text: `layer_norm`, `matrix`, `float16`
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Takes the first adapter whose name contains this text
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Prints the largest errors of y and dx beside those of PyTorch's f32, as the cases record them
    #[arg(long)]
    accuracy: bool,
    /// Counts skipped cases as failures
    #[arg(long)]
    deny_skips: bool,
    /// Writes the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a hash of the bits of each output of each case, a line each: two builds of the same results on one machine have the
    /// same file
    #[arg(long, value_name = "FILE")]
    fingerprint: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    adapter: Adapter,
    passed: usize,
    failed: usize,
    skipped: usize,
    cases: Vec<CaseReport>,
}

#[derive(Serialize)]
struct CaseReport {
    name: String,
    op: String,
    dtype: String,
    /// Of a case that is run; `parameters` is the element type of gamma, beta and their gradients.
    activation: Option<&'static str>,
    residual: bool,
    in_place: bool,
    parameters: Option<&'static str>,
    status: Status,
    reason: Option<String>,
    /// Time that it took, compilation of kernels included.
    seconds: f64,
    runs: Vec<RunReport>,
    #[serde(skip)]
    fingerprints: Vec<Fingerprint>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Passed,
    Failed,
    Skipped,
}

/// One pass of a case in one variant.
#[derive(Serialize)]
pub struct RunReport {
    pub pass: &'static str,
    pub layout: &'static str,
    pub variant: &'static str,
    pub outputs: Vec<OutputReport>,
}

/// One output; a ratio that is not finite is null.
#[derive(Serialize)]
pub struct OutputReport {
    pub name: String,
    pub max_abs_err: Option<f64>,
    pub gate_ratio: Option<f64>,
    pub strict_ratio: Option<f64>,
    /// Largest error of the other system's own f32 result, where the cases record it.
    pub peer_err: Option<f64>,
}

pub fn run(args: &Args) -> Result<Outcome, Refusal> {
    let wanted = |name: &str| args.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()));
    let mut cases = Vec::new();
    if args.cases.is_empty() {
        cases = batch::cases(args.full);
        cases.extend(family::cases(args.full));
        cases.extend(curve::cases());
        cases.retain(|case| wanted(&case.name));
    }
    for directory in &args.cases {
        let loaded = conformance::load(directory, wanted);
        cases.extend(loaded.map_err(|error| format!("{}: {error}", directory.display()))?);
    }
    if cases.is_empty() {
        return Err("no case matches".into());
    }

    let context = crate::open(args.adapter.as_deref())?;
    let adapter = Adapter::of_context(&context);
    println!("{} cases on {adapter}", cases.len());
    let started = Instant::now();
    let progress = ProgressBar::new(cases.len() as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a valid template"));
    let mut reports = Vec::new();
    let mut worst: Option<(f64, String)> = None;
    for case in &cases {
        progress.set_message(case.name.clone());
        let report = check(&context, case, &progress);
        for run in &report.runs {
            for output in &run.outputs {
                if let Some(ratio) = output.gate_ratio
                    && worst.as_ref().is_none_or(|(most, _)| ratio > *most)
                {
                    worst = Some((ratio, format!("{} {} {}", report.name, run.variant, output.name)));
                }
            }
        }
        reports.push(report);
        progress.inc(1);
    }
    progress.finish_and_clear();

    let count = |status| reports.iter().filter(|report| report.status == status).count();
    let (passed, failed, skipped) = (count(Status::Passed), count(Status::Failed), count(Status::Skipped));
    let mut reasons = std::collections::BTreeMap::new();
    for report in reports.iter().filter(|report| report.status == Status::Skipped) {
        *reasons.entry(report.reason.clone().unwrap_or_default()).or_insert(0) += 1;
    }
    for (reason, cases) in reasons {
        println!("skipped {cases}: {reason}");
    }
    if args.accuracy {
        print_accuracy(&reports);
    }
    if let Some((ratio, place)) = worst {
        println!("worst finite error: {ratio:.3} of its bound ({place})");
    }
    println!("{} kernels", context.compiled_kernels().len());
    println!("{passed} passed, {failed} failed, {skipped} skipped, {:.1} s", started.elapsed().as_secs_f64());
    if let Some(path) = &args.fingerprint {
        let of_case = |case: &CaseReport| (case.name.clone(), case.fingerprints.clone());
        fingerprint::write(path, &context, reports.iter().map(of_case))?;
    }
    if let Some(path) = &args.json {
        write_json(path, &Report { adapter, passed, failed, skipped, cases: reports })?;
    }
    let fails = failed > 0 || args.deny_skips && skipped > 0;
    Ok(if fails { Outcome::Failed } else { Outcome::Passed })
}

/// Errors against f64 of the plan that the policy chooses, and of PyTorch's f32.
fn print_accuracy(reports: &[CaseReport]) {
    println!("| case | y: wgnorm | y: PyTorch f32 | dx: wgnorm | dx: PyTorch f32 |\n|---|---|---|---|---|");
    for report in reports {
        let cell = |name: &str| {
            let runs = report.runs.iter().filter(|run| run.variant == "policy");
            let output = runs.flat_map(|run| &run.outputs).find(|output| output.name == name);
            let text = |err: Option<f64>| err.map_or("-".to_owned(), |err| format!("{err:.1e}"));
            let text_of = |f: fn(&OutputReport) -> Option<f64>| text(output.and_then(f));
            format!("{} | {}", text_of(|o| o.max_abs_err), text_of(|o| o.peer_err))
        };
        if report.runs.iter().any(|run| run.outputs.iter().any(|output| output.peer_err.is_some())) {
            println!("| {} | {} | {} |", report.name, cell("y"), cell("dx"));
        }
    }
}

fn check(context: &wgnorm::Context, case: &Case, progress: &ProgressBar) -> CaseReport {
    let mut report = CaseReport {
        name: case.name.clone(),
        op: case.op.clone(),
        dtype: case.dtype.clone(),
        activation: None,
        residual: false,
        in_place: false,
        parameters: None,
        status: Status::Passed,
        reason: None,
        seconds: 0.0,
        runs: Vec::new(),
        fingerprints: Vec::new(),
    };
    let problem = match &case.content {
        Content::Skipped(reason) => {
            report.status = Status::Skipped;
            report.reason = Some(reason.clone());
            return report;
        }
        Content::Invalid(reason) => {
            report.status = Status::Failed;
            report.reason = Some(format!("the case is not valid: {reason}"));
            progress.suspend(|| println!("FAILED {}: the case is not valid: {reason}", case.name));
            return report;
        }
        Content::Problem(problem) => problem,
    };
    report.activation = Some(problem.work.activation().name());
    report.residual = problem.residual.is_some();
    report.in_place = problem.in_place;
    report.parameters = Some(problem.parameters.name());
    let started = Instant::now();
    let run::Ran { reports, failures, fingerprints } = run::all_variants(context, problem);
    report.seconds = started.elapsed().as_secs_f64();
    (report.runs, report.fingerprints) = (reports, fingerprints);
    if let Some(first) = failures.first() {
        report.status = Status::Failed;
        report.reason = Some(format!("{} failures, the first: {first}", failures.len()));
    }
    for failure in failures {
        progress.suspend(|| println!("FAILED {} {failure}", case.name));
    }
    report
}
