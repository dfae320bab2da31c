//! Problems for whoever runs recipes.

use serde::Serialize;
use wasm_bindgen::prelude::*;
use wgnorm::Spec;
use wgnorm::eval::{self, Draw, Operands, table};

/// A problem with its tensors as bytes, and what must come of them.
#[wasm_bindgen]
pub struct Problem {
    problem: eval::Problem,
    operands: Operands,
    left: Operands,
}

/// What was held.
#[derive(Serialize)]
struct Held {
    outputs: Vec<String>,
    failures: Vec<String>,
    /// The largest finite error as a fraction of its bound.
    worst: f64,
}

#[wasm_bindgen]
impl Problem {
    /// That of a line, as `wgnorm check --case` takes it.
    #[wasm_bindgen(constructor)]
    pub fn new(line: &str) -> Result<Problem, JsError> {
        let (draw, rest) = Draw::take(line)?;
        let problem = eval::Problem::new(&rest.parse::<Spec>()?, &draw)?;
        let operands = problem.operands();
        Ok(Self { problem, operands, left: Operands::new() })
    }

    /// The line without its draw, which recipes are made of.
    #[wasm_bindgen(getter)]
    pub fn spec(&self) -> String {
        self.problem.spec.to_string()
    }

    /// The bytes of an operand that it gives.
    pub fn operand(&self, name: &str) -> Option<Vec<u8>> {
        self.operands.get(name).cloned()
    }

    /// What a recipe has left in an operand that it writes.
    pub fn leave(&mut self, name: String, bytes: Vec<u8>) {
        self.left.insert(name, bytes);
    }

    /// Holds what the forward or the backward recipe has left against what is expected, as JSON, and forgets it.
    pub fn hold(&mut self, backward: bool) -> Result<String, JsError> {
        let left = std::mem::take(&mut self.left);
        let outcome = match backward {
            true => self.problem.hold_backward(&left),
            false => self.problem.hold_forward(&left),
        };
        let ratios = outcome.compared.iter().map(|compared| compared.worst.ratio);
        let held = Held {
            outputs: outcome.compared.iter().map(|compared| compared.name.clone()).collect(),
            failures: outcome.failures(),
            worst: ratios.filter(|ratio| ratio.is_finite()).fold(0.0, f64::max),
        };
        Ok(serde_json::to_string(&held)?)
    }
}

/// The quick table as lines in the layouts of their cases, each as the policy plans it.
#[wasm_bindgen]
pub fn lines() -> Vec<String> {
    let of_case = |case: table::Case| {
        let runs = case.runs().into_iter().filter(|(_, variant)| variant.name == "policy");
        let lines = runs.map(|(layout, variant)| case.line(&variant.plan(layout)));
        lines.collect::<Vec<_>>()
    };
    table::quick().into_iter().flat_map(of_case).collect()
}
