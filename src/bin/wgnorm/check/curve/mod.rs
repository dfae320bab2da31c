//! Dynamic Tanh and Derf: what their cases ask for, where they come from, and how they run.

mod builtin;
mod run;
mod setup;

use wgnorm::{Curve, CurveOptions};

use super::case::Problem;

pub use builtin::cases;
pub use run::run;

/// What a curve is to do: forward and backward.
pub struct Work {
    pub curve: Curve,
    pub options: CurveOptions,
    pub alpha: f32,
    /// 0 where the layer has none.
    pub shift: f32,
    pub x: Vec<f32>,
    pub dy: Vec<f32>,
}

/// Its name in reports.
const fn op(curve: Curve) -> &'static str {
    match curve {
        Curve::Tanh => "dynamic_tanh",
        _ => "derf",
    }
}

/// Whether its layer has a shift.
fn is_shifted(curve: Curve) -> bool {
    curve != Curve::Tanh
}

impl Work {
    /// Numbers of elements of all tensors that are placed.
    pub fn tensors(&self, problem: &Problem) -> Vec<usize> {
        // x, y, the residual, dy, dx, the residual's, and x, dy and dx once more; gamma, beta and theirs; alpha, the shift and theirs.
        [vec![problem.elements(); 9], vec![problem.dims[1]; 4], vec![1; 4]].concat()
    }
}
