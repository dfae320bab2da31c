//! Accuracy after a fixed number of steps over learning rates, by norm.

use crate::Result;
use crate::figure::{Axis, Figure, Line, draw};
use crate::lab::Bench;
use crate::network::{Body, Shape};
use crate::norm::Kind;
use crate::outcome::{Outcome, Verdict};
use crate::training::{Plan, accuracy, percent, spread};

const STEPS: usize = 60;
const RATES: [f64; 11] = [1e-3, 1e-2, 1e-1, 0.17, 0.3, 0.55, 1.0, 1.7, 3.0, 10.0, 30.0];
const KINDS: [Kind; 4] = [Kind::None, Kind::Batch, Kind::Layer, Kind::Group(10)];

pub fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let steps = bench.steps(STEPS);
    let curves = KINDS.map(|kind| (kind.name().to_owned(), kind));
    let plan =
        |kind, rate, seed| Plan { shape: Shape::new(Body::Linear(3), kind), rate, batch: 60, steps, seed };
    let rates = bench.some(&RATES);
    let lines = bench.sweep("norm,rate", &curves, &rates, plan, |plan| accuracy(bench.lab, plan))?;
    // Of a seed, the highest rate at which a norm is within a twentieth of its best.
    let highest = |line: &Line, seed: usize| {
        let best = line.points.iter().map(|point| point.values[seed]).fold(0.0, f64::max);
        let usable = line.points.iter().filter(|point| point.values[seed] >= 0.95 * best);
        usable.map(|point| point.x).fold(0.0, f64::max)
    };
    let highest =
        |line: &Line| bench.seeds().enumerate().map(|(at, _)| highest(line, at)).collect::<Vec<_>>();
    let found = lines.iter().map(|line| {
        let best = line.points.iter().max_by(|a, b| a.y.total_cmp(&b.y)).map_or(0.0, |best| best.x);
        let rates: Vec<String> = highest(line).iter().map(ToString::to_string).collect();
        format!("{} {} (best {})", line.name, rates.join(", "), percent(line.values_at(best)))
    });
    let found: Vec<String> = found.collect();
    let ratios = highest(&lines[1]).into_iter().zip(highest(&lines[0])).map(|(batch, plain)| batch / plain);
    let (times, within) = spread(&ratios.collect::<Vec<_>>());
    let figure = Figure {
        caption: format!("Accuracy after {steps} steps by learning rate: three layers of 100, ReLU"),
        x: Axis::logarithmic("learning rate"),
        y: Axis::parts("accuracy"),
        lines,
    };
    draw(&bench.file("svg"), &[figure])?;
    Ok(Outcome {
        ran: format!(
            "784-100-100-100-10, ReLU, batches of 60, {steps} steps, {} rates from 0.001 to 30, four norms",
            rates.len()
        ),
        found: format!("highest rate of each seed within 5 % of a norm's best: {}", found.join("; ")),
        verdict: Verdict::by(times, 10.0, 3.0),
        why: format!("batch norm stands a rate {times:.1} ± {within:.1} times as high as no norm"),
    })
}
