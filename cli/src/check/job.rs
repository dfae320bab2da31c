//! What one device does at a time: cases that have the same kernels, in one layout, each variant of all of them before the next.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use wgnorm::eval::{self, Outcome, Outputs, Plan, Problem};
use wgnorm::{Context, Layout};

use super::case::{Case, Content, LARGE, Run};
use super::fingerprint::{self, Fingerprint};
use super::{OutputReport, RunReport};

/// Kernels that a device keeps between variants.
const KEPT: usize = 24;

/// Cases with their indices, and the layout that they are run in.
pub struct Job<'c> {
    layout: Layout,
    pub cases: Vec<(usize, &'c Case)>,
}

/// What came of a case in one layout.
#[derive(Default)]
pub struct Part {
    /// Time that it took, compilation of kernels included.
    pub seconds: f64,
    /// What of that the reference took.
    pub reference: Duration,
    pub runs: Vec<RunReport>,
    pub fingerprints: Vec<Fingerprint>,
    pub files: BTreeSet<String>,
    pub failures: Vec<String>,
}

/// Cases that have the same kernels, together; or each alone, in the order that they are in.
pub fn jobs(cases: &[Case], alone: bool) -> Vec<Job<'_>> {
    let mut jobs: Vec<Job<'_>> = Vec::new();
    let mut places: HashMap<(String, &str), usize> = HashMap::new();
    for (i, case) in cases.iter().enumerate() {
        for &layout in case.layouts() {
            let group = if alone { case.name.clone() } else { case.group() };
            let key = (group, layout.name());
            let place = *places.entry(key.clone()).or_insert(jobs.len());
            let is_large = case.spec().is_some_and(|spec| spec.elements() > LARGE);
            match jobs.get_mut(place) {
                // The values of a few large ones are as much as there should be at a time.
                Some(job) if is_large && job.cases.len() == 4 => {
                    places.insert(key, jobs.len());
                    jobs.push(Job { layout, cases: vec![(i, case)] });
                }
                Some(job) => job.cases.push((i, case)),
                None => jobs.push(Job { layout, cases: vec![(i, case)] }),
            }
        }
    }
    jobs
}

impl Job<'_> {
    /// Runs them all.
    pub fn check(&self, context: &Context, progress: &ProgressBar, reach: bool) -> Vec<(usize, Part)> {
        // The values of two such would fill the memory.
        static HUGE: Mutex<()> = Mutex::new(());
        let is_huge =
            self.cases.iter().any(|(_, case)| case.spec().is_some_and(|spec| spec.elements() > 1 << 20));
        let _alone = is_huge.then(|| HUGE.lock().unwrap_or_else(PoisonError::into_inner));
        let mut open: Vec<Open<'_>> =
            self.cases.iter().map(|(_, case)| Open::new(case, self.layout)).collect();
        let mut variants: Vec<&str> = Vec::new();
        for run in open.iter().flat_map(|open| &open.runs) {
            if !variants.contains(&run.variant) {
                variants.push(run.variant);
            }
        }
        for variant in variants {
            open.iter_mut().for_each(|open| open.run(context, variant, reach, progress));
            eval::trim(context, KEPT);
        }
        self.cases.iter().zip(open).map(|((i, _), open)| (*i, open.part)).collect()
    }
}

/// A case that is being checked.
struct Open<'c> {
    case: &'c Case,
    runs: Vec<Run>,
    problem: Result<Cow<'c, Problem>, String>,
    /// What the plan of the policy gave.
    first: Option<Outputs>,
    part: Part,
}

impl<'c> Open<'c> {
    fn new(case: &'c Case, layout: Layout) -> Self {
        let runs = case.runs().into_iter().filter(|run| run.plan.layout == layout).collect();
        let started = Instant::now();
        let problem = match &case.content {
            Content::Skipped(reason) | Content::Invalid(reason) => Err(reason.clone()),
            Content::Drawn { spec, draw, .. } | Content::Line { spec, draw } => {
                Problem::new(spec, draw).map(Cow::Owned).map_err(|error| error.to_string())
            }
            Content::Stored { problem, .. } => Ok(Cow::Borrowed(&**problem)),
        };
        let reference = started.elapsed();
        let part = Part { reference, seconds: reference.as_secs_f64(), ..Part::default() };
        Self { case, runs, problem, first: None, part }
    }

    /// Runs a variant, if the case has it.
    fn run(&mut self, context: &Context, variant: &str, reach: bool, progress: &ProgressBar) {
        let Some(run) = self.runs.iter().find(|run| run.variant == variant) else { return };
        let started = Instant::now();
        let (plan, place) = (run.plan, format!("{} {variant}", run.plan.layout));
        let mut failures = Vec::new();
        match &self.problem {
            Err(reason) => failures.push(format!("the case is not valid: {reason}")),
            Ok(problem) => {
                let ran = context.block_on(problem.run_in(context, &plan));
                failures.extend(ran.failures());
                self.part.add(problem, &plan, run.variant, &ran);
                if reach {
                    self.part.files.extend(eval::files(context, &ran.kernels));
                }
                match variant {
                    "policy" => self.first = Some(ran.outputs),
                    "repeat" => {
                        let other = other_bits(&self.first.take().unwrap_or_default(), &ran.outputs);
                        failures.extend(
                            other.iter().map(|output| format!("{output}: other bits in a second run")),
                        );
                    }
                    _ => {}
                }
            }
        }
        for failure in failures {
            let repeat = self.case.repeat(&plan);
            progress.suspend(|| println!("FAILED {} {place} {failure}\n    {repeat}", self.case.name));
            self.part.failures.push(format!("{place} {failure}"));
        }
        self.part.seconds += started.elapsed().as_secs_f64();
    }
}

impl Part {
    fn add(&mut self, problem: &Problem, plan: &Plan, variant: &'static str, ran: &Outcome) {
        let layout = plan.layout.name();
        self.fingerprints.extend(ran.outputs.iter().map(|(output, values)| Fingerprint {
            place: format!("{layout}\t{variant}\t{output}"),
            hash: fingerprint::hash(values),
        }));
        for (expected, compared) in problem.expected.iter().zip(&ran.compared) {
            let pass = expected.pass();
            let same = |other: &&mut RunReport| (other.pass, other.variant) == (pass, variant);
            let output = OutputReport::of(compared);
            match self.runs.iter_mut().find(same) {
                Some(run) => run.outputs.push(output),
                None => self.runs.push(RunReport { pass, layout, variant, outputs: vec![output] }),
            }
        }
    }
}

/// Outputs of a second run that differ from the first.
fn other_bits(first: &Outputs, second: &Outputs) -> Vec<String> {
    let differ = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
    let pairs = first.iter().zip(second);
    let other = pairs.filter(|((_, before), (_, now))| before.iter().zip(now).any(differ));
    other.map(|((name, _), _)| name.clone()).collect()
}
