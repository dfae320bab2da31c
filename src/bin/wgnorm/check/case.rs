//! A case: a problem with expected results and bounds, wherever it comes from.

use wgnorm::reference::WhereNan;
use wgnorm::{Activation, DType, Layout};

use super::variant::{Placement, Variants};
use super::{batch, curve, family};

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

/// What all norms have in common: tensors on the host, how they are stored, and what must come out.
pub struct Problem {
    /// Shape of x in logical order: N, C, spatial; or of any rank, where no axis is that of channels.
    pub dims: Vec<usize>,
    /// Order of the values of batches, here and in what is expected.
    pub stored: Layout,
    /// Layouts to run it in.
    pub layouts: Vec<Layout>,
    pub variants: Variants,
    /// Element type of batches, and that of parameters and their gradients.
    pub dtype: DType,
    pub parameters: DType,
    pub gamma: Option<Vec<f32>>,
    pub beta: Option<Vec<f32>>,
    pub residual: Option<Vec<f32>>,
    /// Whether outputs are written over inputs, as far as the norm can do that.
    pub in_place: bool,
    pub work: Work,
    pub expected: Vec<Expected>,
}

/// Which norm it is, and what it is to do.
pub enum Work {
    Batch(batch::Work),
    Family(family::Work),
    Curve(curve::Work),
}

impl Work {
    pub fn activation(&self) -> Activation {
        match self {
            Work::Batch(work) => work.options.activation,
            Work::Family(work) => work.options.activation,
            Work::Curve(work) => work.options.activation,
        }
    }

    /// Whether its tensors can lie so.
    pub fn takes(&self, placement: Placement) -> bool {
        match self {
            Work::Batch(work) => work.takes(placement),
            Work::Family(work) => work.takes(placement),
            Work::Curve(_) => true,
        }
    }
}

impl Problem {
    pub fn expects(&self, name: &str) -> bool {
        self.expected.iter().any(|expected| expected.name == name)
    }

    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

/// A tensor on the host.
pub struct Batch {
    /// In logical order.
    pub dims: Vec<usize>,
    pub values: Vec<f32>,
}

/// What an output must be, and how far it may be off.
#[derive(Clone)]
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
        let gradients = ["dx", "dresidual", "dweight", "dbias", "dalpha", "dshift", "sum_dy"];
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
