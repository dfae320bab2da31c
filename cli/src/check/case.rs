//! A case of the check, wherever it comes from.

use wgnorm::eval::{Draw, Plan, Problem, Variant, Variants, table};
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

    pub fn spec(&self) -> Option<&Spec> {
        match &self.content {
            Content::Skipped(_) | Content::Invalid(_) => None,
            Content::Drawn { spec, .. } | Content::Line { spec, .. } => Some(spec),
            Content::Stored { problem, .. } => Some(&problem.spec),
        }
    }

    /// The layouts that it is run in.
    pub fn layouts(&self) -> &[Layout] {
        match &self.content {
            Content::Skipped(_) | Content::Invalid(_) => &[],
            Content::Drawn { layouts, .. } | Content::Stored { layouts, .. } => layouts,
            Content::Line { spec, .. } => std::slice::from_ref(&spec.layout),
        }
    }

    /// What is run of it.
    pub fn runs(&self) -> Vec<Run> {
        let (spec, layouts) = match &self.content {
            Content::Skipped(_) | Content::Invalid(_) => return Vec::new(),
            Content::Line { spec, .. } => return vec![Run { variant: "line", plan: Plan::of(spec) }],
            Content::Drawn { spec, layouts, .. } => (spec, layouts),
            Content::Stored { problem, layouts } => (&problem.spec, layouts),
        };
        let applies = |variant: &Variant| variant.applies(spec, self.variants);
        let variants: Vec<_> = eval::variants().into_iter().filter(applies).collect();
        let of = |&layout: &Layout| {
            variants.iter().map(move |variant| Run { variant: variant.name, plan: variant.plan(layout) })
        };
        layouts.iter().flat_map(of).collect()
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

    /// What cases have in common that have the same kernels but for what depends on the shape. The values of large ones are not kept beside
    /// those of others.
    pub fn group(&self) -> String {
        let Some(spec) = self.spec() else { return String::new() };
        let mut plain = Spec::new(spec.norm.clone(), &spec.shape);
        (plain.dtype, plain.parameters, plain.activation) = (spec.dtype, spec.parameters, spec.activation);
        (plain.residual, plain.sum, plain.mask) = (spec.residual, spec.sum, spec.mask.map(|_| 1));
        plain.statistics = spec.statistics.clone();
        if spec.elements() <= LARGE {
            plain.shape.truncate(1);
        }
        plain.to_string()
    }
}

/// Elements of a tensor from which on a case is checked by itself.
pub const LARGE: usize = 1 << 16;
