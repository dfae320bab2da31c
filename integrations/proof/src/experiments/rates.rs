//! Accuracy after a fixed number of steps over learning rates, by norm.

use std::error::Error;

use wgnorm_burn::Activation;

use crate::figure::{Figure, Line};
use crate::lab::Bench;
use crate::network::{Deviation, Kind, Shape};
use crate::outcome::{Outcome, Verdict};
use crate::training::{Plan, spread, train};

const STEPS: usize = 60;
const RATES: [f64; 8] = [1e-3, 1e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0, 30.0];

pub fn run(bench: &Bench<'_>) -> Result<Outcome, Box<dyn Error>> {
    let steps = bench.steps(STEPS);
    let bar = bench.progress(Kind::ALL.len() * RATES.len() * bench.seeds().count());
    let (mut rows, mut lines, mut highest) = (Vec::new(), Vec::new(), Vec::new());
    for kind in Kind::ALL {
        let mut runs = vec![Vec::new(); bench.seeds().count()];
        for rate in RATES {
            for (run, seed) in runs.iter_mut().zip(bench.seeds()) {
                bar.set_message(format!("{}, rate {rate}, seed {seed}", kind.name()));
                let shape =
                    Shape { kind, depth: 3, deviation: Deviation::Scaled(1.0), activation: Activation::Relu };
                let plan = Plan { shape, rate, batch: 60, steps, look: steps, seed };
                let looks = bench
                    .once(&format!("{}-{rate}-{seed}", kind.name()), plan, |plan| train(bench.lab, plan))?;
                let accuracy = looks.last().map_or(0.0, |look| look.accuracy);
                rows.push(format!("{},{rate},{seed},{accuracy}", kind.name()));
                run.push((rate, accuracy));
                bar.inc(1);
            }
        }
        let line = Line::of_runs(kind.name(), runs);
        // The highest rate at which it is within a twentieth of its best.
        let best = line.points.iter().map(|point| point.y).fold(0.0, f64::max);
        let usable = line.points.iter().filter(|point| point.y >= 0.95 * best).map(|point| point.x);
        highest.push(usable.fold(0.0, f64::max));
        lines.push(line);
    }
    bar.finish_and_clear();
    bench.csv("norm,rate,seed,accuracy", &rows)?;
    let found: Vec<String> = Kind::ALL
        .iter()
        .zip(&highest)
        .zip(&lines)
        .map(|((kind, highest), line)| {
            let best = line.points.iter().max_by(|a, b| a.y.total_cmp(&b.y));
            let (best, within) = best.map_or((0.0, 0.0), |best| (best.y, spread(&[best.low, best.high]).1));
            format!("{} {highest} (best {:.1} ± {:.1} %)", kind.name(), 100.0 * best, 100.0 * within)
        })
        .collect();
    let figure = Figure {
        caption: "Accuracy after 60 steps by learning rate: three layers of 100, ReLU",
        x: "learning rate",
        y: "accuracy",
        logarithmic: true,
        lines,
    };
    figure.draw(&bench.file("svg"))?;
    let times = highest[1] / highest[0].max(f64::MIN_POSITIVE);
    Ok(Outcome {
        ran: format!(
            "784-100-100-100-10, ReLU, batches of 60, {steps} steps, eight rates from 0.001 to 30, four norms"
        ),
        found: format!("highest rate within 5 % of a norm's best: {}", found.join(", ")),
        verdict: Verdict::by(times, 10.0, 3.0),
        why: format!("batch norm stands a rate {times:.0} times as high as no norm"),
    })
}
