//! A case of the check, wherever it comes from.

use wgnorm::eval::{Draw, Plan, Problem, Variant, Variants, table};
use wgnorm::tuning::Tuning;
use wgnorm::{Layout, Spec, eval};

pub struct Case {
    pub name: String,
    pub op: String,
    pub dtype: String,
    pub variants: Variants,
    pub content: Content,
}

pub enum Content {
    /// Why this version does not run it.
    Skipped(String),
    /// What is wrong with the case itself; it counts as failed.
    Invalid(String),
    /// Made here, when it is its turn, with the layouts to run it in.
    Drawn { spec: Spec, draw: Draw, layouts: Vec<Layout> },
    /// Stored with what must come out.
    Stored { problem: Box<Problem>, layouts: Vec<Layout> },
    /// One run, as a line says.
    Line { spec: Spec, draw: Draw },
}

/// One run of a case.
pub struct Run {
    pub variant: &'static str,
    pub plan: Plan,
    /// What of the plan kernels are made by.
    pub kernels: Tuning,
}

impl From<eval::Case> for Case {
    fn from(case: eval::Case) -> Self {
        let (op, dtype) = (case.op(), case.spec.dtype.name().to_owned());
        let eval::Case { name, spec, draw, layouts, variants } = case;
        Self { name, op, dtype, variants, content: Content::Drawn { spec, draw, layouts } }
    }
}

impl Case {
    /// The case of a line.
    pub fn of_line(line: &str) -> wgnorm::Result<Self> {
        let (draw, rest) = Draw::take(line)?;
        let spec: Spec = rest.parse()?;
        Ok(Self {
            name: line.to_owned(),
            op: spec.norm.name().to_owned(),
            dtype: spec.dtype.name().to_owned(),
            variants: Variants::All,
            content: Content::Line { spec, draw },
        })
    }

    /// Skips it where all of its values are subnormal, and a slice of zeros is something else than one of the smallest numbers: weight norm.
    pub fn skip_subnormal(&mut self) {
        if let Content::Drawn { spec, draw, .. } = &self.content
            && table::needs_subnormals(spec, draw)
        {
            self.content = Content::Skipped("the device takes subnormal numbers for zero".to_owned());
        }
    }

    pub fn spec(&self) -> Option<&Spec> {
        match &self.content {
            Content::Skipped(_) | Content::Invalid(_) => None,
            Content::Drawn { spec, .. } | Content::Line { spec, .. } => Some(spec),
            Content::Stored { problem, .. } => Some(&problem.spec),
        }
    }

    /// What is run of it.
    pub fn runs(&self) -> Vec<Run> {
        let (spec, layouts) = match &self.content {
            Content::Skipped(_) | Content::Invalid(_) => return Vec::new(),
            Content::Line { spec, .. } => {
                return vec![Run { variant: "line", plan: Plan::of(spec), kernels: spec.tuning }];
            }
            Content::Drawn { spec, layouts, .. } => (spec, layouts),
            Content::Stored { problem, layouts } => (&problem.spec, layouts),
        };
        let run = |(layout, variant): (Layout, Variant)| Run {
            variant: variant.name,
            plan: variant.plan(layout),
            kernels: variant.kernels(),
        };
        self.variants.runs(spec, layouts).into_iter().map(run).collect()
    }

    /// The line that repeats a run; stored values are repeated by the name.
    pub fn repeat(&self, plan: &Plan) -> String {
        match &self.content {
            Content::Drawn { spec, draw, .. } | Content::Line { spec, draw } => {
                format!("wgnorm check --case '{}'", table::line(spec, draw, plan))
            }
            _ => format!("wgnorm check --cases DIR --filter {}", self.name),
        }
    }
}
