//! `wgnorm check`: every case in every forced variant against the f64 reference or stored results.

mod case;
mod conformance;
mod fingerprint;
mod job;
mod reach;
mod soak;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use wgnorm::eval::{self, Compared, Devices, table};
use wgnorm::{Context, ContextOptions};

use crate::report::{Adapter, write_json};
use crate::{Outcome, Refusal};
use case::{Case, Content};
use fingerprint::Fingerprint;
use job::{Job, Part, Wanted, jobs};

#[derive(clap::Args)]
pub struct Args {
    /// A directory of conformance cases (manifest.json and .safetensors files); may be given several times. Without
    /// any, the built-in matrix runs
    #[arg(long, value_name = "DIR")]
    cases: Vec<PathBuf>,
    /// Besides pairs of choices, every combination of norm, operation, layout, element type, activation, residual, and place
    /// or sum; with --cases, stored cases in every variant: many minutes, most of them for compiling kernels
    #[arg(long)]
    full: bool,
    /// Runs one case from its line, as a failure prints it: 'layer 4096x1024 bf16 sum relu backward'; may be given several times
    #[arg(long, value_name = "LINE", conflicts_with_all = ["cases", "full"])]
    case: Vec<String>,
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
    /// Makes kernels of the shader files in this directory, which has all that `shaders/` has, instead of those that were built in
    #[arg(long, value_name = "DIR")]
    shaders: Option<PathBuf>,
    /// Writes which shader files the kernels of each case are made of, a line each
    #[arg(long, value_name = "FILE")]
    reach: Option<PathBuf>,
    /// Runs the cases that a file of --reach has under this shader file first, and stops at the first failure
    #[arg(long, value_names = ["REACH", "SHADER"], num_args = 2)]
    first: Vec<String>,
    #[command(flatten)]
    soak: soak::Args,
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
    #[serde(skip)]
    files: BTreeSet<String>,
    #[serde(skip)]
    reference: Duration,
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
    if let Some(directory) = &args.shaders {
        eval::read_shaders(directory)?;
    }
    let options = ContextOptions::default().adapter_name(args.adapter.clone());
    if let Some(minutes) = args.soak.minutes() {
        return soak::run(&args.soak, minutes, &options, args.json.as_ref());
    }
    let mut cases = cases(args)?;
    if let [reach, shader] = args.first.as_slice() {
        reach::sort(&mut cases, reach.as_ref(), shader)?;
    }
    let devices = Devices::open(&options)?;
    let adapter = Adapter::of_context(devices.first());
    println!("{} cases on {adapter}, devices: {}", cases.len(), devices.all().len());
    print_lost_nans(devices.first())?;
    if !devices.first().block_on(eval::keeps_subnormals(devices.first()))? {
        println!("subnormal numbers are zero to this device");
        cases.iter_mut().for_each(Case::skip_subnormal);
    }
    let started = Instant::now();
    let failed = AtomicBool::new(false);
    let stops = !args.first.is_empty();
    let jobs = jobs(&cases, stops);
    let wanted = Wanted { fingerprints: args.fingerprint.is_some(), files: args.reach.is_some() };
    let progress = ProgressBar::new(jobs.iter().map(Vec::len).sum::<usize>() as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a valid template"));
    let check = |context: &Context, job: &Job<'_>| {
        if stops && failed.load(Ordering::Relaxed) {
            return Part::default();
        }
        progress.set_message(job.case.name.clone());
        let part = job.check(context, &progress, wanted);
        failed.fetch_or(!part.failures.is_empty(), Ordering::Relaxed);
        progress.inc(1);
        part
    };
    let mut reports: Vec<CaseReport> = cases.iter().map(CaseReport::new).collect();
    let parts = devices.each(&jobs, check);
    for (job, part) in jobs.iter().flatten().zip(parts.into_iter().flatten()) {
        reports[job.index].add(part);
    }
    for (case, report) in cases.iter().zip(&mut reports) {
        // In the order of the variants, whichever was first.
        let place = |run: &RunReport| {
            let of_run =
                |other: &case::Run| (other.plan.layout.name(), other.variant) == (run.layout, run.variant);
            case.runs().iter().position(of_run)
        };
        report.runs.sort_by_cached_key(place);
    }
    progress.finish_and_clear();

    let count = |status| reports.iter().filter(|report| report.status == status).count();
    let (passed, failed, skipped) = (count(Status::Passed), count(Status::Failed), count(Status::Skipped));
    print_skipped(&reports);
    if args.accuracy {
        print_accuracy(&reports);
    }
    print_worst(&reports);
    print_times(&reports, &devices, started.elapsed());
    println!("{passed} passed, {failed} failed, {skipped} skipped, {:.1} s", started.elapsed().as_secs_f64());
    if let Some(path) = &args.fingerprint {
        let of_case = |case: &CaseReport| (case.name.clone(), case.fingerprints.clone());
        fingerprint::write(path, devices.first(), reports.iter().map(of_case))?;
    }
    if let Some(path) = &args.reach {
        reach::write(path, reports.iter().map(|report| (report.name.as_str(), &report.files)))?;
    }
    if let Some(path) = &args.json {
        write_json(path, &Report { adapter, passed, failed, skipped, cases: reports })?;
    }
    let fails = failed > 0 || args.deny_skips && skipped > 0;
    Ok(if fails { Outcome::Failed } else { Outcome::Passed })
}

/// What is asked for.
fn cases(args: &Args) -> Result<Vec<Case>, Refusal> {
    let wanted = |name: &str| args.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()));
    let mut cases: Vec<Case> = args.case.iter().map(|line| Case::of_line(line)).collect::<Result<_, _>>()?;
    for directory in &args.cases {
        let loaded = conformance::load(directory, wanted, args.full);
        cases.extend(loaded.map_err(|error| format!("{}: {error}", directory.display()))?);
    }
    if args.case.is_empty() && args.cases.is_empty() {
        let built_in = if args.full { table::full() } else { table::quick() };
        cases.extend(built_in.into_iter().filter(|case| wanted(&case.name)).map(Case::from));
    }
    if cases.is_empty() { Err("no case matches".into()) } else { Ok(cases) }
}

/// Which functions of the driver make numbers of NaN.
fn print_lost_nans(context: &Context) -> Result<(), Refusal> {
    let lost = context.block_on(eval::lost_nans(context))?;
    if !lost.harmless.is_empty() {
        println!("NaN is lost by the driver's {}, which no kernel leaves it to", lost.harmless.join(", "));
    }
    if !lost.harmful.is_empty() {
        println!(
            "NaN is lost by the driver's {}, which kernels need: expect failures",
            lost.harmful.join(", ")
        );
    }
    Ok(())
}

fn print_skipped(reports: &[CaseReport]) {
    let mut reasons = std::collections::BTreeMap::new();
    for report in reports.iter().filter(|report| report.status == Status::Skipped) {
        *reasons.entry(report.reason.clone().unwrap_or_default()).or_insert(0) += 1;
    }
    for (reason, cases) in reasons {
        println!("skipped {cases}: {reason}");
    }
}

fn print_worst(reports: &[CaseReport]) {
    let all = reports.iter().flat_map(|report| report.runs.iter().map(move |run| (report, run)));
    let all = all.flat_map(|(report, run)| run.outputs.iter().map(move |output| (report, run, output)));
    let ratio = |output: &OutputReport| output.gate_ratio.unwrap_or(0.0);
    if let Some((report, run, output)) = all.max_by(|a, b| ratio(a.2).total_cmp(&ratio(b.2))) {
        let place = format!("{} {} {}", report.name, run.variant, output.name);
        println!("worst finite error: {:.3} of its bound ({place})", ratio(output));
    }
}

/// Where the time went; that of all devices together.
fn print_times(reports: &[CaseReport], devices: &Devices, wall: Duration) {
    let eval::Compiled { kernels, time } = devices.compiled();
    let reference: Duration = reports.iter().map(|report| report.reference).sum();
    let all: f64 = reports.iter().map(|report| report.seconds).sum();
    let (compile, reference) = (time.as_secs_f64(), reference.as_secs_f64());
    println!("{kernels} kernels");
    println!(
        "time: {compile:.1} s compiling, {reference:.1} s in the reference, {:.1} s running and comparing, on {} devices in {:.1} s",
        (all - compile - reference).max(0.0),
        devices.all().len(),
        wall.as_secs_f64()
    );
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

impl CaseReport {
    /// That of a case of which nothing has run.
    fn new(case: &Case) -> Self {
        let spec = case.spec();
        let (status, reason) = match &case.content {
            Content::Skipped(reason) => (Status::Skipped, Some(reason.clone())),
            Content::Invalid(reason) => {
                println!("FAILED {}: the case is not valid: {reason}", case.name);
                (Status::Failed, Some(format!("the case is not valid: {reason}")))
            }
            _ => (Status::Passed, None),
        };
        Self {
            name: case.name.clone(),
            op: case.op.clone(),
            dtype: case.dtype.clone(),
            activation: spec.map(|spec| spec.activation.name()),
            residual: spec.is_some_and(|spec| spec.residual),
            in_place: spec.is_some_and(|spec| spec.in_place),
            parameters: spec.map(|spec| spec.parameters.name()),
            status,
            reason,
            seconds: 0.0,
            runs: Vec::new(),
            fingerprints: Vec::new(),
            files: BTreeSet::new(),
            reference: Duration::ZERO,
        }
    }

    /// Adds what came of some of its runs.
    fn add(&mut self, part: Part) {
        self.seconds += part.seconds;
        self.runs.extend(part.runs);
        self.fingerprints.extend(part.fingerprints);
        self.files.extend(part.files);
        self.reference += part.reference;
        if let Some(first) = part.failures.first() {
            self.status = Status::Failed;
            let more = if part.failures.len() > 1 { ", and more" } else { "" };
            self.reason.get_or_insert(format!("{first}{more}"));
        }
    }
}

impl OutputReport {
    fn of(compared: &Compared) -> Self {
        let finite = |ratio: f64| ratio.is_finite().then_some(ratio);
        Self {
            name: compared.name.clone(),
            max_abs_err: finite(compared.worst.max_abs_err),
            gate_ratio: finite(compared.worst.ratio),
            strict_ratio: finite(compared.strict_ratio),
            peer_err: compared.peer_err,
        }
    }
}
