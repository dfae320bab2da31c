//! The loss and its gradient along the gradient, in training with batch norm and without (Santurkar et al. 2018).

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::figure::{Axis, Figure, Line, draw};
use crate::lab::Bench;
use crate::network::{Body, Shape};
use crate::norm::Kind;
use crate::outcome::{Outcome, Verdict};
use crate::parameters::{self, length};
use crate::training::{Plan, Trainer, drift, spread, values};

const STEPS: usize = 200;
const LOOK: usize = 10;
const RATE: f64 = 0.1;
/// How far along the gradient is looked, in learning rates: the paper's half to four.
const ALONG: [f64; 4] = [0.5, 1.0, 2.0, 4.0];

#[derive(Clone, Serialize, Deserialize)]
struct Look {
    step: usize,
    /// How far apart losses along the gradient are.
    range: f64,
    /// How far a gradient along the gradient is from it at most, over its length.
    change: f64,
    /// How long the gradient is.
    length: f64,
    percentiles: [f64; 3],
}

pub fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let steps = bench.steps(STEPS);
    let kinds = [Kind::None, Kind::Batch];
    let bar = bench.progress(kinds.len() * bench.seeds().count());
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    for kind in kinds {
        let shape = Shape::new(Body::Linear(5), kind);
        let plan = |seed| (Plan { shape, rate: RATE, batch: 60, steps, seed }, LOOK, ALONG);
        let runs = bench.of_seeds(&bar, kind.name(), plan, |(plan, ..)| looks(bench, plan))?;
        for (seed, looks) in bench.seeds().zip(&runs) {
            for Look { step, range, change, length, percentiles: [low, median, high] } in looks {
                rows.push(format!(
                    "{},{seed},{step},{range},{change},{length},{low},{median},{high}",
                    kind.name()
                ));
            }
        }
        all.push(runs);
    }
    bar.finish_and_clear();
    let head =
        "norm,seed,step,loss_range,gradient_change,gradient_length,percentile_15,percentile_50,percentile_85";
    bench.csv(head, &rows)?;
    let panel = |caption: &str, name: &'static str, of: fn(&Look) -> f64| {
        let points = |looks: &Vec<Look>| looks.iter().map(|look| (look.step as f64, of(look))).collect();
        let line =
            |(kind, runs): (&Kind, &Vec<Vec<Look>>)| Line::of_runs(kind.name(), runs.iter().map(points));
        Figure {
            caption: format!("{caption}: five layers of 100, ReLU"),
            x: Axis::linear("step"),
            y: Axis::logarithmic(name),
            lines: kinds.iter().zip(&all).map(line).collect(),
        }
    };
    let panels = [
        panel("How much the loss varies along the gradient", "largest minus least", |look| look.range),
        panel("How much the gradient changes along itself", "change, over its length", |look| look.change),
    ];
    draw(&bench.file("svg"), &panels)?;
    // Of a kind, the mean and the spread over seeds of what its looks have in the mean.
    let mean = |kind: usize, of: fn(&Look) -> f64| {
        let of_run = |looks: &Vec<Look>| looks.iter().map(of).sum::<f64>() / looks.len() as f64;
        spread(&all[kind].iter().map(of_run).collect::<Vec<_>>())
    };
    let ratio = |of: fn(&Look) -> f64| mean(0, of).0 / mean(1, of).0.max(f64::MIN_POSITIVE);
    let words = |of: fn(&Look) -> f64| {
        let ((plain, plain_within), (batch, batch_within)) = (mean(0, of), mean(1, of));
        format!("{plain:.2} ± {plain_within:.2} without, {batch:.2} ± {batch_within:.2} with batch norm")
    };
    let moved = [0, 1].map(|kind| {
        let of_run =
            |looks: &Vec<Look>| drift(&looks.iter().map(|look| look.percentiles).collect::<Vec<_>>());
        spread(&all[kind].iter().map(of_run).collect::<Vec<_>>())
    });
    let (range, change) = (ratio(|look| look.range), ratio(|look| look.change));
    Ok(Outcome {
        ran: format!(
            "784, five layers of 100, ReLU, batches of 60, rate {RATE}, {steps} steps; every {LOOK} steps the loss and the gradient of the batch at 0.5 to 4 rates along the gradient"
        ),
        found: format!(
            "range of losses {}; change of the gradient over its length {}; its length {}; the median of a unit's inputs in the last layer moves by {:.2} ± {:.2} of their width in the second half without, by {:.2} ± {:.2} with",
            words(|look| look.range),
            words(|look| look.change),
            words(|look| look.length),
            moved[0].0,
            moved[0].1,
            moved[1].0,
            moved[1].1
        ),
        verdict: Verdict::of(range >= 1.5 && change >= 1.5, range >= 1.5 || change >= 1.5),
        why: format!(
            "without batch norm the loss varies {range:.1} times as much along the gradient, the gradient {change:.1} times"
        ),
    })
}

fn looks(bench: &Bench<'_>, plan: Plan) -> Result<Vec<Look>> {
    let mut trainer = Trainer::new(bench.lab, plan);
    let mut looks = Vec::new();
    for step in (0..plan.steps).step_by(LOOK) {
        let of = trainer.next();
        let (loss, gradients) = trainer.gradients(&trainer.network, trainer.batch(&of));
        let here = parameters::flat(&trainer.network, &gradients);
        let mut losses = vec![values(loss)?[0]];
        let mut change = 0.0_f64;
        for along in ALONG {
            let gradients = parameters::gradients(&trainer.network, &here);
            let there = trainer.along(trainer.network.clone(), along * RATE, gradients);
            let (loss, gradients) = trainer.gradients(&there, trainer.batch(&of));
            losses.push(finite(values(loss)?[0]));
            let apart =
                parameters::flat(&there, &gradients).into_iter().zip(&here).map(|(there, here)| there - here);
            change = change.max(length(apart.map(finite)));
        }
        let least = losses.iter().copied().fold(f32::INFINITY, f32::min);
        let most = losses.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let length = length(here.iter().copied());
        let (range, change) = (f64::from(most - least), change / length.max(f64::MIN_POSITIVE));
        let percentiles = trainer.look()?.percentiles;
        looks.push(Look { step, range, change, length, percentiles });
        trainer.step_on(trainer.batch(&of))?;
        trainer = trainer.steps(LOOK - 1)?;
    }
    Ok(looks)
}

/// A loss or gradient that is a number, if a very large one: what has no bounds is not left out.
fn finite(value: f32) -> f32 {
    if value.is_finite() { value } else { 1e9 }
}
