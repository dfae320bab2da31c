//! Accuracy after a fixed number of steps over scales of the initial weights, by norm and depth.

use std::error::Error;

use wgnorm_burn::Activation;

use crate::figure::{Figure, Line};
use crate::lab::Bench;
use crate::network::{Deviation, Kind, Shape};
use crate::outcome::{Outcome, Verdict};
use crate::training::{Plan, train};

const STEPS: usize = 60;
const SCALES: [f64; 7] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
const DEPTHS: [usize; 2] = [3, 8];

pub fn run(bench: &Bench<'_>) -> Result<Outcome, Box<dyn Error>> {
    let steps = bench.steps(STEPS);
    let kinds = [Kind::None, Kind::Batch];
    let bar = bench.progress(DEPTHS.len() * kinds.len() * SCALES.len() * bench.seeds().count());
    let (mut rows, mut lines, mut trained) = (Vec::new(), Vec::new(), Vec::new());
    for depth in DEPTHS {
        for kind in kinds {
            let mut runs = vec![Vec::new(); bench.seeds().count()];
            for scale in SCALES {
                for (run, seed) in runs.iter_mut().zip(bench.seeds()) {
                    bar.set_message(format!("{}, {depth} layers, scale {scale}, seed {seed}", kind.name()));
                    let (deviation, activation) = (Deviation::Scaled(scale), Activation::Relu);
                    let shape = Shape { kind, depth, deviation, activation };
                    let plan = Plan { shape, rate: 0.1, batch: 60, steps, look: steps, seed };
                    let key = format!("{}-{depth}-{scale}-{seed}", kind.name());
                    let looks = bench.once(&key, plan, |plan| train(bench.lab, plan))?;
                    let accuracy = looks.last().map_or(0.0, |look| look.accuracy);
                    rows.push(format!("{},{depth},{scale},{seed},{accuracy}", kind.name()));
                    run.push((scale, accuracy));
                    bar.inc(1);
                }
            }
            let line = Line::of_runs(&format!("{}, {depth} layers", kind.name()), runs);
            trained.push(
                line.points.iter().filter(|point| point.y >= 0.8).map(|point| point.x).collect::<Vec<_>>(),
            );
            lines.push(line);
        }
    }
    bar.finish_and_clear();
    bench.csv("norm,depth,scale,seed,accuracy", &rows)?;
    let found: Vec<String> = lines
        .iter()
        .zip(&trained)
        .map(|(line, scales)| format!("{}: {} of {} scales", line.name, scales.len(), SCALES.len()))
        .collect();
    let figure = Figure {
        caption: "Accuracy after 60 steps by the scale of initial weights: layers of 100, ReLU",
        x: "times sqrt(2 / inputs)",
        y: "accuracy",
        logarithmic: true,
        lines,
    };
    figure.draw(&bench.file("svg"))?;
    let (plain, batch) = (trained[0].len() + trained[2].len(), trained[1].len() + trained[3].len());
    Ok(Outcome {
        ran: format!(
            "layers of 100, ReLU, depth 3 and 8, batches of 60, rate 0.1, {steps} steps, weights 0.01 to 10 times He's"
        ),
        found: format!("scales at which 80 % are known: {}", found.join("; ")),
        // Most of all scales, and twice as many as without.
        verdict: match batch {
            batch if batch >= 12 && batch >= 2 * plain => Verdict::Holds,
            batch if batch > plain => Verdict::HoldsInPart,
            _ => Verdict::DoesNotHoldHere,
        },
        why: format!("of 14 nets {batch} train with batch norm, {plain} without"),
    })
}
