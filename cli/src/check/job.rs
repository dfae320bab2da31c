//! What one device does at a time: the runs of a case that have the same kernels.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use wgnorm::eval::{self, Outcome, Outputs, Plan, Problem};
use wgnorm::tuning::Tuning;
use wgnorm::{Context, DType};

use super::case::{Case, Content, Run};
use super::fingerprint::{self, Fingerprint};
use super::{OutputReport, RunReport};

/// Kernels that a device keeps between runs. Some 2 MB each in a software driver; runs of one norm and layout have up to so many in common.
pub const KEPT: usize = 32;

/// Runs of a case; in one layout, where they are grouped.
pub struct Job<'c> {
    /// The index of the case.
    pub index: usize,
    pub case: &'c Case,
    runs: Vec<Run>,
}

/// What is asked for beside results.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub fingerprints: bool,
    /// Shader files.
    pub files: bool,
}

/// What came of it.
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

/// All runs, in groups that have kernels in common, those of one norm and layout together; or whole cases, in the order that they are in.
pub fn jobs(cases: &[Case], in_order: bool) -> Vec<Vec<Job<'_>>> {
    if in_order {
        let jobs = cases.iter().enumerate().map(|(index, case)| Job { index, case, runs: case.runs() });
        return vec![jobs.collect()];
    }
    let mut groups: Vec<(Group, Vec<Job<'_>>)> = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        for run in case.runs() {
            let group = Group::of(case, &run);
            let place = groups.iter().position(|(other, _)| *other == group).unwrap_or(groups.len());
            if place == groups.len() {
                groups.push((group, Vec::new()));
            }
            let jobs = &mut groups[place].1;
            match jobs.last_mut() {
                Some(job) if job.index == index && job.layout() == run.plan.layout.name() => {
                    job.runs.push(run)
                }
                _ => jobs.push(Job { index, case, runs: vec![run] }),
            }
        }
    }
    let order = |job: &Job<'_>| (job.case.spec().map(|spec| spec.norm.name()), job.layout());
    groups.iter_mut().for_each(|(_, jobs)| jobs.sort_by_key(order));
    groups.into_iter().map(|(_, jobs)| jobs).collect()
}

/// What runs have in common that share kernels.
#[derive(PartialEq)]
struct Group {
    kernels: Tuning,
    dtype: Option<DType>,
    is_batch: bool,
    is_curve: bool,
}

impl Group {
    fn of(case: &Case, run: &Run) -> Self {
        let spec = case.spec();
        Self {
            kernels: run.kernels,
            dtype: spec.map(|spec| spec.dtype),
            is_batch: spec.is_some_and(|spec| spec.norm.is_batch()),
            is_curve: spec.is_some_and(|spec| spec.norm.curve().is_some()),
        }
    }
}

impl Job<'_> {
    /// Of its first run.
    fn layout(&self) -> &'static str {
        self.runs.first().map_or("", |run| run.plan.layout.name())
    }

    /// Runs them all.
    pub fn check(&self, context: &Context, progress: &ProgressBar, wanted: Wanted) -> Part {
        // The values of two such would fill the memory.
        static HUGE: Mutex<()> = Mutex::new(());
        let is_huge = self.case.spec().is_some_and(|spec| spec.elements() > 1 << 18);
        let _alone = is_huge.then(|| HUGE.lock().unwrap_or_else(PoisonError::into_inner));
        let started = Instant::now();
        let problem = match &self.case.content {
            Content::Skipped(reason) | Content::Invalid(reason) => Err(reason.clone()),
            Content::Drawn { spec, draw, .. } | Content::Line { spec, draw } => {
                Problem::new(spec, draw).map(Cow::Owned).map_err(|error| error.to_string())
            }
            Content::Stored { problem, .. } => Ok(Cow::Borrowed(&**problem)),
        };
        let mut part = Part { reference: started.elapsed(), ..Part::default() };
        // What the policy's plan gave, which `repeat` must give again.
        let mut first = None;
        for run in &self.runs {
            let failures = match &problem {
                Err(reason) => vec![format!("the case is not valid: {reason}")],
                Ok(problem) => part.run(context, problem, run, &mut first, wanted),
            };
            for failure in failures {
                let (name, repeat) = (&self.case.name, self.case.repeat(&run.plan));
                let failure = format!("{} {} {failure}", run.plan.layout, run.variant);
                progress.suspend(|| println!("FAILED {name} {failure}\n    {repeat}"));
                part.failures.push(failure);
            }
            eval::trim(context, KEPT);
        }
        part.seconds = started.elapsed().as_secs_f64();
        part
    }
}

impl Part {
    /// Runs a problem once, and returns what is wrong.
    fn run(
        &mut self,
        context: &Context,
        problem: &Problem,
        run: &Run,
        first: &mut Option<Outputs>,
        wanted: Wanted,
    ) -> Vec<String> {
        let ran = context.block_on(problem.run_in(context, &run.plan));
        let mut failures = ran.failures();
        self.add(problem, &run.plan, run.variant, &ran);
        if wanted.fingerprints {
            let layout = run.plan.layout.name();
            self.fingerprints.extend(ran.outputs.iter().map(|(output, values)| Fingerprint {
                place: format!("{layout}\t{}\t{output}", run.variant),
                hash: fingerprint::hash(values),
            }));
        }
        if wanted.files {
            self.files.extend(eval::files(context, &ran.kernels));
        }
        match run.variant {
            "policy" => *first = Some(ran.outputs),
            "repeat" => {
                let other = eval::other_bits(&first.take().unwrap_or_default(), &ran.outputs);
                failures.extend(other.iter().map(|output| format!("{output}: other bits in a second run")));
            }
            _ => {}
        }
        failures
    }

    fn add(&mut self, problem: &Problem, plan: &Plan, variant: &'static str, ran: &Outcome) {
        let layout = plan.layout.name();
        for (expected, compared) in problem.expected.iter().zip(&ran.compared) {
            let pass = expected.pass();
            let same =
                |other: &&mut RunReport| (other.pass, other.layout, other.variant) == (pass, layout, variant);
            let output = OutputReport::of(compared);
            match self.runs.iter_mut().find(same) {
                Some(run) => run.outputs.push(output),
                None => self.runs.push(RunReport { pass, layout, variant, outputs: vec![output] }),
            }
        }
    }
}
