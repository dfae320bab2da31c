//! The cases of `wgnorm check`, run one by one.

use serde::Serialize;
use wasm_bindgen::prelude::*;
use wgnorm::eval::{self, Case, Outputs, Variant, table};
use wgnorm::spec::Statistics;
use wgnorm::tuning::Tuning;
use wgnorm::{Context, DType, Layout};

/// Runs that a device does before it makes room for another: kernels are kept as long as the device, and some drivers need megabytes for each.
const RUNS_OF_A_DEVICE: usize = 400;

/// One run of a case.
struct Run {
    case: usize,
    layout: Layout,
    variant: Variant,
}

/// The quick table on the browser's adapter.
#[wasm_bindgen]
pub struct Check {
    cases: Vec<Case>,
    runs: Vec<Run>,
    next: usize,
    context: Context,
    runs_of_device: usize,
    keeps_subnormals: bool,
    /// The last problem, and what the policy's plan gave of it.
    problem: Option<(usize, eval::Problem)>,
    first: Option<(usize, Layout, Outputs)>,
}

/// What came of a run.
#[derive(Serialize)]
struct Report {
    case: String,
    layout: &'static str,
    variant: &'static str,
    /// What `wgnorm check --case` takes.
    line: String,
    status: &'static str,
    reasons: Vec<String>,
    /// The largest finite error as a fraction of its bound.
    worst: f64,
}

#[wasm_bindgen]
impl Check {
    /// Opens the adapter that the browser prefers. Of the cases those are run whose name contains `filter`.
    #[wasm_bindgen(js_name = open)]
    pub async fn open(filter: String) -> Result<Check, JsError> {
        let context = Context::headless().await?;
        let keeps_subnormals = eval::keeps_subnormals(&context).await?;
        let cases: Vec<Case> =
            table::quick().into_iter().filter(|case| case.name.contains(&filter)).collect();
        let mut runs: Vec<Run> = cases
            .iter()
            .enumerate()
            .flat_map(|(case, of)| {
                of.runs().into_iter().map(move |(layout, variant)| Run { case, layout, variant })
            })
            .collect();
        // Those that have kernels in common follow each other.
        let mut groups: Vec<(Tuning, DType, bool, bool)> = Vec::new();
        runs.sort_by_cached_key(|run| {
            let spec = &cases[run.case].spec;
            let key = (run.variant.kernels(), spec.dtype, spec.norm.is_batch(), spec.norm.curve().is_some());
            let place = groups.iter().position(|group| *group == key).unwrap_or(groups.len());
            if place == groups.len() {
                groups.push(key);
            }
            (place, spec.norm.name(), run.layout.name(), run.case)
        });
        Ok(Self {
            cases,
            runs,
            next: 0,
            context,
            runs_of_device: 0,
            keeps_subnormals,
            problem: None,
            first: None,
        })
    }

    /// What the adapter is called, as far as the browser tells.
    #[wasm_bindgen(getter)]
    pub fn adapter(&self) -> String {
        let info = self.context.device().adapter_info();
        format!(
            "{} ({:?}, subgroups of {} to {})",
            info.name, info.device_type, info.subgroup_min_size, info.subgroup_max_size
        )
    }

    /// Cases.
    #[wasm_bindgen(getter)]
    pub fn cases(&self) -> usize {
        self.cases.len()
    }

    /// Runs: each case in its layouts and variants.
    #[wasm_bindgen(getter)]
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// What kernels the driver has compiled since the device was opened.
    #[wasm_bindgen(getter)]
    pub fn kernels(&self) -> usize {
        self.context.compiled_kernels().len()
    }

    /// Runs the next, and reports as JSON; nothing when all have run.
    pub async fn step(&mut self) -> Result<Option<String>, JsError> {
        let Some(&Run { case: index, layout, variant }) = self.runs.get(self.next) else { return Ok(None) };
        self.next += 1;
        if self.runs_of_device == RUNS_OF_A_DEVICE {
            self.context.device().destroy();
            self.context = Context::headless().await?;
            self.runs_of_device = 0;
        }
        self.runs_of_device += 1;
        let case = &self.cases[index];
        let plan = variant.plan(layout);
        let mut report = Report {
            case: case.name.clone(),
            layout: layout.name(),
            variant: variant.name,
            line: case.line(&plan),
            status: "passed",
            reasons: Vec::new(),
            worst: 0.0,
        };
        if let Some(reason) = self.skips(case) {
            report.status = "skipped";
            report.reasons.push(reason.to_owned());
            return Ok(Some(serde_json::to_string(&report)?));
        }
        if self.problem.as_ref().is_none_or(|(of, _)| *of != index) {
            self.problem = Some((index, case.problem()?));
        }
        let Some((_, problem)) = &self.problem else { unreachable!("it was made") };
        let outcome = problem.run_in(&self.context, &plan).await;
        report.reasons = outcome.failures();
        let finite =
            outcome.compared.iter().map(|compared| compared.worst.ratio).filter(|ratio| ratio.is_finite());
        report.worst = finite.fold(0.0, f64::max);
        match (variant.name, &self.first) {
            ("policy", _) => self.first = Some((index, layout, outcome.outputs)),
            ("repeat", Some((of, in_layout, outputs))) if (*of, *in_layout) == (index, layout) => {
                let other = eval::other_bits(outputs, &outcome.outputs);
                report
                    .reasons
                    .extend(other.iter().map(|output| format!("{output}: other bits in a second run")));
            }
            _ => {}
        }
        if !report.reasons.is_empty() {
            report.status = "failed";
        }
        Ok(Some(serde_json::to_string(&report)?))
    }
}

impl Check {
    /// Why a case is not run here.
    fn skips(&self, case: &Case) -> Option<&'static str> {
        match &case.spec.statistics {
            Statistics::Synchronised(_) => Some("ranks of one process are threads, which a page has none of"),
            _ if !self.keeps_subnormals && case.needs_subnormals() => {
                Some("the device takes subnormal numbers for zero")
            }
            _ => None,
        }
    }
}
