//! A small transformer on characters of this repository's documents, by the norm before each block.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::figure::{Axis, Figure, Line, draw};
use crate::lab::Bench;
use crate::norm::Kind;
use crate::outcome::{Outcome, Verdict};
use crate::training::{differences, spread};
use crate::transformer::{Plan, Text, losses};

const STEPS: usize = 200;
/// A norm, and the deviation of the embeddings. Dynamic Tanh does not rescale what it gets, which its authors meet by a factor of sqrt(d) behind the embeddings.
const CURVES: [(&str, Kind, f64); 5] = [
    ("no norm", Kind::None, 0.02),
    ("layer norm", Kind::Layer, 0.02),
    ("RMS norm", Kind::Rms, 0.02),
    ("Dynamic Tanh", Kind::Tanh, 0.02),
    ("Dynamic Tanh on embeddings of 1", Kind::Tanh, 1.0),
];
const DOCUMENTS: [&str; 6] =
    ["ARCHITECTURE.md", "NORMS.md", "NUMERICS.md", "OPERATIONS.md", "RELIABILITY.md", "STATISTICS.md"];

pub fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut all = String::new();
    for document in DOCUMENTS {
        all += &fs::read_to_string(docs.join(document)).map_err(|error| format!("{document}: {error}"))?;
    }
    let text = Text::new(&all);
    let steps = bench.steps(STEPS);
    let bar = bench.progress(CURVES.len() * bench.seeds().count());
    let (mut rows, mut lines, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for (name, kind, embedding) in CURVES {
        let plan = |seed| (Plan { kind, steps, seed, embedding }, text.hash());
        let runs: Vec<Vec<(f64, f64)>> =
            bench.of_seeds(&bar, name, plan, |(plan, _)| losses(bench.lab, &text, plan))?;
        for (seed, curve) in bench.seeds().zip(&runs) {
            rows.extend(curve.iter().map(|(step, loss)| format!("{name},{seed},{step},{loss}")));
        }
        ends.push(runs.iter().filter_map(|run| Some(run.last()?.1)).collect::<Vec<_>>());
        lines.push(Line::of_runs(name, runs));
    }
    bar.finish_and_clear();
    bench.csv("norm,seed,step,loss", &rows)?;
    let figure = Figure {
        caption: "A small transformer: loss on held-out characters, by the norm before each block".to_owned(),
        x: Axis::linear("step"),
        y: Axis::linear("cross entropy, nats a character"),
        lines,
    };
    draw(&bench.file("svg"), &[figure])?;
    let found: Vec<String> = CURVES
        .iter()
        .zip(&ends)
        .map(|((name, ..), losses)| {
            let (loss, within) = spread(losses);
            format!("{name} {loss:.3} ± {within:.3}")
        })
        .collect();
    // What layer norm is ahead of the others, nats.
    let [none, rms, small, tanh] = [0, 2, 3, 4].map(|at| differences(&ends[1], &ends[at]));
    Ok(Outcome {
        ran: format!(
            "four blocks of 48 with four heads, 32 characters of context, batches of 16, Adam, {steps} steps, on {} characters of this repository's documents, a tenth held out",
            text.len()
        ),
        found: format!("loss on held-out characters: {}", found.join(", ")),
        // Where a norm is of no use nothing does what it does.
        verdict: match spread(&none).0 < -0.05 {
            true => Verdict::of_seeds(&tanh, -0.05),
            false => Verdict::CannotBeTestedHere,
        },
        why: format!(
            "in so few steps, its alpha of 0.5 untuned, Dynamic Tanh ends {:+.3} nats from layer norm where embeddings begin with deviation 1 and {:+.3} with 0.02, which it does not rescale; RMS norm {:+.3}, no norm {:+.3}",
            -spread(&tanh).0,
            -spread(&small).0,
            -spread(&rms).0,
            -spread(&none).0
        ),
    })
}
