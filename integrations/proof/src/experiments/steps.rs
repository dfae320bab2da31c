//! The paper's network on digits, with and without batch norm: accuracy by step, and where the inputs of the last hidden layer's activations are.

use std::error::Error;

use wgnorm_burn::Activation;

use crate::figure::{Figure, Line};
use crate::lab::Bench;
use crate::network::{Deviation, Kind, Shape};
use crate::outcome::{Outcome, Verdict};
use crate::training::{Look, Plan, spread, train};

const STEPS: usize = 600;
const LOOK: usize = 20;
const RATE: f64 = 1.0;
/// The plain network, the paper's "BN-Baseline" and its "BN-x5".
const CURVES: [(&str, Kind, f64); 3] = [
    ("no norm", Kind::None, RATE),
    ("batch norm", Kind::Batch, RATE),
    ("batch norm, five times the rate", Kind::Batch, 5.0 * RATE),
];
/// Of the plain network's best accuracy, what is waited for: its very best is one look's luck.
const NEARLY: f64 = 0.95;

pub fn run(bench: &Bench<'_>) -> Result<Outcome, Box<dyn Error>> {
    let steps = bench.steps(STEPS);
    let bar = bench.progress(CURVES.len() * bench.seeds().count());
    let mut all: Vec<Vec<Vec<Look>>> = Vec::new();
    for (name, kind, rate) in CURVES {
        let mut of_curve = Vec::new();
        for seed in bench.seeds() {
            bar.set_message(format!("{name}, seed {seed}"));
            // The paper's: three layers of 100, sigmoid, batches of 60, weights of a small random Gaussian.
            let shape =
                Shape { kind, depth: 3, deviation: Deviation::Fixed(0.1), activation: Activation::Sigmoid };
            let plan = Plan { shape, rate, batch: 60, steps, look: LOOK, seed };
            of_curve.push(bench.once(&format!("{name}-{seed}"), plan, |plan| train(bench.lab, plan))?);
            bar.inc(1);
        }
        all.push(of_curve);
    }
    bar.finish_and_clear();
    let (plain, batch) = (&all[0], &all[1]);

    // Of each seed, how many times fewer steps to nearly the best accuracy that the plain network ever has.
    let best = |looks: &[Look]| looks.iter().map(|look| look.accuracy).fold(0.0, f64::max);
    let first = |looks: &[Look], accuracy: f64| {
        let reached = looks.iter().find(|look| look.accuracy >= accuracy);
        reached.map_or(f64::INFINITY, |look| look.step.max(LOOK) as f64)
    };
    let fewer = |of: &[Vec<Look>]| {
        let ratio = |(plain, looks): (&Vec<Look>, &Vec<Look>)| {
            first(plain, NEARLY * best(plain)) / first(looks, NEARLY * best(plain))
        };
        spread(&plain.iter().zip(of).map(ratio).collect::<Vec<_>>())
    };
    let ((same, same_within), (faster, faster_within)) = (fewer(batch), fewer(&all[2]));
    let ends = |of: &[Vec<Look>]| spread(&of.iter().map(|looks| best(looks)).collect::<Vec<_>>());
    // How far the median of a unit's inputs goes in the second half of training, over the width of their distribution.
    let drift = |looks: &[Look]| {
        let late = &looks[looks.len() / 2..];
        let medians: Vec<f64> = late.iter().map(|look| look.percentiles[1]).collect();
        let widths: Vec<f64> = late.iter().map(|look| look.percentiles[2] - look.percentiles[0]).collect();
        2.0 * spread(&medians).1 / spread(&widths).0.max(1e-9)
    };
    let drifts = |of: &[Vec<Look>]| spread(&of.iter().map(|looks| drift(looks)).collect::<Vec<_>>()).0;

    let mut rows = Vec::new();
    for ((name, ..), of_curve) in CURVES.iter().zip(&all) {
        for (seed, looks) in bench.seeds().zip(of_curve) {
            for Look { step, accuracy, percentiles: [low, median, high] } in looks {
                rows.push(format!("{},{seed},{step},{accuracy},{low},{median},{high}", name));
            }
        }
    }
    bench.csv("curve,seed,step,accuracy,percentile_15,percentile_50,percentile_85", &rows)?;
    let line = |of: &[Vec<Look>], name: &str| {
        Line::of_runs(
            name,
            of.iter().map(|looks| looks.iter().map(|look| (look.step as f64, look.accuracy)).collect()),
        )
    };
    let figure = Figure {
        caption: "Accuracy on held-out digits: three layers of 100, sigmoid",
        x: "step",
        y: "accuracy",
        logarithmic: false,
        lines: CURVES.iter().zip(&all).map(|((name, ..), of)| line(of, name)).collect(),
    };
    figure.draw(&bench.file("svg"))?;
    let percent = |(mean, within): (f64, f64)| format!("{:.1} ± {:.1} %", 100.0 * mean, 100.0 * within);
    Ok(Outcome {
        ran: format!(
            "784-100-100-100-10, sigmoid, batches of 60, {steps} steps, rate {RATE} with and without batch norm, {} with",
            5.0 * RATE
        ),
        found: format!(
            "{same:.1} ± {same_within:.1} times fewer steps to {:.0} % of the best accuracy without, {faster:.1} ± {faster_within:.1} at five times the rate; best {} without, {} and {} with; the median of a unit's inputs moves by {:.2} of their width in the second half, without by {:.2}",
            100.0 * NEARLY,
            percent(ends(plain)),
            percent(ends(batch)),
            percent(ends(&all[2])),
            drifts(batch),
            drifts(plain)
        ),
        verdict: Verdict::by(same.max(faster), 14.0, 2.0),
        why: "the factor 14 is Inception's on ImageNet; this is the paper's small network, and few steps"
            .to_owned(),
    })
}
