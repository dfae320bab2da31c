//! Accuracy after a fixed number of steps over scales of the initial weights, by norm and depth.

use crate::Result;
use crate::figure::{Axis, Figure, Line, draw};
use crate::lab::Bench;
use crate::network::{Body, Deviation, Shape};
use crate::norm::Kind;
use crate::outcome::{Outcome, Verdict};
use crate::training::{Plan, accuracy};

const STEPS: usize = 60;
const SCALES: [f64; 7] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
const DEPTHS: [usize; 2] = [3, 8];

pub fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let steps = bench.steps(STEPS);
    let curve = |(depth, kind): (usize, Kind)| (format!("{} {depth} layers", kind.name()), (depth, kind));
    let curves: Vec<_> = DEPTHS
        .into_iter()
        .flat_map(|depth| [Kind::None, Kind::Batch].map(|kind| curve((depth, kind))))
        .collect();
    let plan = |(depth, kind), scale, seed| {
        let shape = Shape::new(Body::Linear(depth), kind);
        let shape = Shape { deviation: Deviation::Scaled(scale), ..shape };
        Plan { shape, rate: 0.1, batch: 60, steps, seed }
    };
    let scales = bench.some(&SCALES);
    let lines = bench.sweep("norm,scale", &curves, &scales, plan, |plan| accuracy(bench.lab, plan))?;
    let trained = |line: &Line| line.points.iter().filter(|point| point.y >= 0.8).count();
    let counts: Vec<usize> = lines.iter().map(trained).collect();
    let found = lines.iter().zip(&counts);
    let found: Vec<String> =
        found.map(|(line, count)| format!("{}: {count} of {} scales", line.name, scales.len())).collect();
    let figure = Figure {
        caption: format!("Accuracy after {steps} steps by the scale of initial weights: layers of 100, ReLU"),
        x: Axis::logarithmic("times sqrt(2 / inputs)"),
        y: Axis::parts("accuracy"),
        lines,
    };
    draw(&bench.file("svg"), &[figure])?;
    let (plain, batch, all) = (counts[0] + counts[2], counts[1] + counts[3], 2 * scales.len());
    Ok(Outcome {
        ran: format!(
            "layers of 100, ReLU, depth 3 and 8, batches of 60, rate 0.1, {steps} steps, weights and biases, the head's too, of 0.01 to 10 times He's deviation"
        ),
        found: format!("scales at which 80 % are known in the mean: {}", found.join("; ")),
        // Most of all scales, and twice as many as without.
        verdict: Verdict::of(7 * batch >= 6 * all && batch >= 2 * plain, batch > plain),
        why: format!("of {all} nets {batch} train with batch norm, {plain} without"),
    })
}
