//! Accuracy by step with and without batch norm: the paper's network, where the inputs of the last hidden layer's activations are looked at too, and a small convolutional one.

use wgnorm_burn::Activation;

use crate::Result;
use crate::figure::{Axis, Figure, Line, draw};
use crate::lab::Bench;
use crate::network::{Body, Deviation, Shape};
use crate::norm::Kind;
use crate::outcome::{Outcome, Verdict};
use crate::training::{Look, Plan, Trainer, drift, percent, spread};

const LOOK: usize = 20;
/// Of the plain network's best accuracy, what is waited for: its very best is one look's luck.
const NEARLY: f64 = 0.95;

/// What is trained, at which rate, which was not tuned; batch norm at five times that too, the paper's "BN-x5".
struct Setup {
    shape: fn(Kind) -> Shape,
    rate: f64,
    steps: usize,
    words: &'static str,
    why: &'static str,
}

/// The paper's: three layers of 100, sigmoid, batches of 60, weights of a small random Gaussian.
pub fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let shape = |kind| Shape {
        deviation: Deviation::Fixed(0.1),
        activation: Activation::Sigmoid,
        ..Shape::new(Body::Linear(3), kind)
    };
    let words = "784-100-100-100-10, sigmoid";
    let why = "the factor 14 is Inception's on ImageNet; this is the paper's small network, and few steps";
    let setup = Setup { shape, rate: 1.0, steps: 600, words, why };
    let (all, accuracies, outcome) = compare(bench, &setup)?;
    let moves = |of: &Runs| {
        let percentiles = |looks: &Vec<Look>| looks.iter().map(|look| look.percentiles).collect::<Vec<_>>();
        spread(&of.iter().map(|looks| drift(&percentiles(looks))).collect::<Vec<_>>())
    };
    let ((plain, plain_within), (batch, batch_within)) = (moves(&all[0]), moves(&all[1]));
    // Of the first seed, where the inputs of a unit are.
    let percentiles = |name: &str, looks: &[Look], at: usize| {
        Line::of_runs(name, [looks.iter().map(|look| (look.step as f64, look.percentiles[at])).collect()])
    };
    let inputs = |caption: &str, looks: &[Look]| Figure {
        caption: format!("Inputs of a unit's activation in the last hidden layer, {caption}"),
        x: Axis::linear("step"),
        y: Axis::linear("input"),
        lines: ["15th percentile", "median", "85th percentile"]
            .iter()
            .enumerate()
            .map(|(at, name)| percentiles(name, looks, at))
            .collect(),
    };
    let panels = [accuracies, inputs("no norm", &all[0][0]), inputs("batch norm", &all[1][0])];
    draw(&bench.file("svg"), &panels)?;
    let found = format!(
        "{}; the median of a unit's inputs moves by {batch:.2} ± {batch_within:.2} of their width in the second half, without by {plain:.2} ± {plain_within:.2}",
        outcome.found
    );
    let verdict = Verdict::of(
        outcome.verdict == Verdict::Holds && batch < plain,
        outcome.verdict != Verdict::DoesNotHoldHere || batch < plain,
    );
    Ok(Outcome { found, verdict, ..outcome })
}

pub fn run_convolutional(bench: &Bench<'_>) -> Result<Outcome> {
    let shape = |kind| Shape::new(Body::Convolutional, kind);
    let words = "three convolutions of 8, 16 and 32 channels, ReLU";
    let why = "three convolutions and ten classes are no Inception on ImageNet";
    let (_, accuracies, outcome) = compare(bench, &Setup { shape, rate: 0.1, steps: 400, words, why })?;
    draw(&bench.file("svg"), &[accuracies])?;
    Ok(outcome)
}

/// Of one curve, what every seed gives.
type Runs = Vec<Vec<Look>>;

/// Curves, their figure, and what comes of them.
fn compare(bench: &Bench<'_>, setup: &Setup) -> Result<(Vec<Runs>, Figure, Outcome)> {
    let Setup { shape, rate, words, why, .. } = *setup;
    let steps = bench.steps(setup.steps);
    let curves = [
        ("no norm", Kind::None, rate),
        ("batch norm", Kind::Batch, rate),
        ("batch norm, five times the rate", Kind::Batch, 5.0 * rate),
    ];
    let bar = bench.progress(curves.len() * bench.seeds().count());
    let mut all: Vec<Runs> = Vec::new();
    for (name, kind, rate) in curves {
        let plan = |seed| (Plan { shape: shape(kind), rate, batch: 60, steps, seed }, LOOK);
        all.push(bench.of_seeds(&bar, name, plan, |(plan, _)| looks(bench, plan))?);
    }
    bar.finish_and_clear();
    let [plain, batch, faster] = [0, 1, 2].map(|at| &all[at]);

    // Of each seed, how many times fewer steps to nearly the best accuracy that the plain network ever has.
    let best = |looks: &[Look]| looks.iter().map(|look| look.accuracy).fold(0.0, f64::max);
    let first = |looks: &[Look], accuracy: f64| {
        let reached = looks.iter().find(|look| look.accuracy >= accuracy);
        reached.map_or(f64::INFINITY, |look| look.step.max(LOOK) as f64)
    };
    let fewer = |of: &[Vec<Look>]| {
        let ratio = |(plain, looks): (&Vec<Look>, &Vec<Look>)| {
            let accuracy = NEARLY * best(plain);
            first(plain, accuracy) / first(looks, accuracy)
        };
        spread(&plain.iter().zip(of).map(ratio).collect::<Vec<_>>())
    };
    let ((same, same_within), (five, five_within)) = (fewer(batch), fewer(faster));
    let reaches =
        |of: &[Vec<Look>]| plain.iter().zip(of).filter(|(plain, looks)| best(looks) >= best(plain)).count();
    let ends = |of: &[Vec<Look>]| percent(&of.iter().map(|looks| best(looks)).collect::<Vec<_>>());

    let mut rows = Vec::new();
    for ((name, ..), of_curve) in curves.iter().zip(&all) {
        for (seed, looks) in bench.seeds().zip(of_curve) {
            for Look { step, accuracy, percentiles: [low, median, high] } in looks {
                rows.push(format!("{name},{seed},{step},{accuracy},{low},{median},{high}"));
            }
        }
    }
    bench.csv("curve,seed,step,accuracy,percentile_15,percentile_50,percentile_85", &rows)?;
    let line = |name: &str, of: &[Vec<Look>]| {
        let points = |looks: &Vec<Look>| looks.iter().map(|look| (look.step as f64, look.accuracy)).collect();
        Line::of_runs(name, of.iter().map(points))
    };
    let figure = Figure {
        caption: format!("Accuracy on held-out digits: {words}"),
        x: Axis::linear("step"),
        y: Axis::parts("accuracy"),
        lines: curves.iter().zip(&all).map(|((name, ..), of)| line(name, of)).collect(),
    };
    let outcome = Outcome {
        ran: format!(
            "{words}, batches of 60, {steps} steps, rate {rate} with and without batch norm, {} with",
            5.0 * rate
        ),
        found: format!(
            "{same:.1} ± {same_within:.1} times fewer steps (0 where it never comes there) to {:.0} % of the best accuracy without, {five:.1} ± {five_within:.1} at five times the rate; best {} without, {} and {} with, as good as without in {} and {} of {} seeds",
            100.0 * NEARLY,
            ends(plain),
            ends(batch),
            ends(faster),
            reaches(batch),
            reaches(faster),
            plain.len(),
        ),
        verdict: Verdict::by(same.max(five), 14.0, 2.0),
        why: why.to_owned(),
    };
    Ok((all, figure, outcome))
}

fn looks(bench: &Bench<'_>, plan: Plan) -> Result<Vec<Look>> {
    let mut trainer = Trainer::new(bench.lab, plan);
    let mut looks = vec![trainer.look()?];
    for _ in 0..plan.steps / LOOK {
        trainer = trainer.steps(LOOK)?;
        looks.push(trainer.look()?);
    }
    Ok(looks)
}
