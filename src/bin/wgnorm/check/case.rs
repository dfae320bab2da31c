//! A case: a problem with expected results and bounds, wherever it comes from.

use wgnorm::reference::WhereNan;
use wgnorm::{BatchNormOptions, DType, Layout, RunningValues};

use super::variant::Variants;

pub struct Case {
    pub name: String,
    pub op: String,
    pub dtype: String,
    pub content: Content,
}

pub enum Content {
    /// Why this version does not run it.
    Skipped(String),
    /// What is wrong with the case itself; it counts as failed.
    Invalid(String),
    Problem(Box<Problem>),
}

pub struct Problem {
    /// Shape of x in logical order: N, C, spatial.
    pub dims: Vec<usize>,
    /// Order of the values of batches, here and in what is expected.
    pub stored: Layout,
    /// Layouts to run it in.
    pub layouts: Vec<Layout>,
    pub variants: Variants,
    /// Element type of batches, and that of parameters and their gradients.
    pub dtype: DType,
    pub parameters: DType,
    pub options: BatchNormOptions,
    pub gamma: Option<Vec<f32>>,
    pub beta: Option<Vec<f32>>,
    pub residual: Option<Vec<f32>>,
    /// Which positions count: of each sample in turn.
    pub mask: Option<Vec<bool>>,
    /// Whether y is written over x, where the backward pass can do without x, and dx over dy.
    pub in_place: bool,
    pub running: RunningValues,
    pub task: Task,
    pub expected: Vec<Expected>,
}

impl Problem {
    pub fn expects(&self, name: &str) -> bool {
        self.expected.iter().any(|expected| expected.name == name)
    }

    /// Whether y is written over x.
    pub fn over_x(&self) -> bool {
        let needs_inverse = matches!(self.task, Task::Train { .. });
        self.in_place && (!needs_inverse || self.options.activation.is_invertible())
    }
}

pub enum Task {
    /// Training forward, and backward if there is a dy.
    Train { x: Vec<f32>, dy: Option<Vec<f32>> },
    /// Inference, and backward through the running statistics if there is a dy.
    Eval { x: Vec<f32>, dy: Option<Vec<f32>> },
    /// Training forward over several batches, then inference; batches may differ in size.
    Sequence { steps: Vec<Batch>, x_eval: Batch },
    /// Training forward and backward over the shards of several ranks, x and dy of each.
    Sync { shards: Vec<[Batch; 2]> },
}

/// A tensor on the host.
pub struct Batch {
    /// In logical order.
    pub dims: Vec<usize>,
    pub values: Vec<f32>,
}

/// What an output must be, and how far it may be off.
pub struct Expected {
    pub name: String,
    /// How the output is stored.
    pub dtype: DType,
    /// Expected values, of the whole output or of the elements in `sample`.
    pub values: Vec<f64>,
    pub sample: Option<Vec<usize>>,
    /// Largest allowed error per value.
    pub gate: Vec<f64>,
    /// The error of the best known result, for the report.
    pub strict: Vec<f64>,
    /// Largest error of another system's f32 result, if recorded.
    pub peer_err: Option<f64>,
}

impl Expected {
    pub fn pass(&self) -> &'static str {
        let gradients = ["dx", "dresidual", "dweight", "dbias", "sum_dy"];
        if gradients.iter().any(|name| self.name.starts_with(name)) { "backward" } else { "forward" }
    }

    /// y and dx must be NaN where NaN is expected; statistics may be infinite.
    pub fn where_nan(&self) -> WhereNan {
        match self.name.split('_').next() {
            Some("y" | "dx" | "dresidual") => WhereNan::Nan,
            _ => WhereNan::NonFinite,
        }
    }
}
