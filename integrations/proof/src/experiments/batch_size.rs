//! Accuracy over the number of samples that statistics are of, by norm.

use crate::Result;
use crate::figure::{Axis, Figure, draw};
use crate::lab::Bench;
use crate::network::{Body, Shape};
use crate::norm::Kind;
use crate::outcome::{Outcome, Verdict};
use crate::training::{Plan, accuracy, percent};

const STEPS: usize = 200;
const SIZES: [f64; 6] = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
const LARGE: usize = 64;
/// At the large batch; at a smaller one as much smaller (Goyal et al. 2017).
const RATE: f64 = 0.3;

/// What trains where statistics are of so many samples: a norm, and its batch.
type Curve = fn(usize) -> (Kind, usize);

pub fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let steps = bench.steps(STEPS);
    let curves: [Curve; 5] = [
        |samples| (Kind::Batch, samples),
        |samples| (Kind::Ghost(samples), LARGE),
        |samples| (Kind::Renorm, samples),
        |samples| (Kind::CrossIteration(4), samples),
        |samples| (Kind::Group(10), samples),
    ];
    let curves = curves.map(|curve| (curve(1).0.name().to_owned(), curve));
    let plan = |curve: Curve, samples: f64, seed| {
        let (kind, batch) = curve(samples as usize);
        let rate = RATE * batch as f64 / LARGE as f64;
        Plan { shape: Shape::new(Body::Linear(3), kind), rate, batch, steps, seed }
    };
    let lines =
        bench.sweep("norm,samples", &curves, &bench.some(&SIZES), plan, |plan| accuracy(bench.lab, plan))?;
    let (small, large) = (SIZES[0], SIZES[SIZES.len() - 1]);
    let found: Vec<String> = lines
        .iter()
        .map(|line| {
            format!("{} {} and {}", line.name, percent(line.values_at(small)), percent(line.values_at(large)))
        })
        .collect();
    // What a norm loses from the large batch to the small one.
    let [batch, group] = [0, 4].map(|norm| lines[norm].at(large) - lines[norm].at(small));
    let figure = Figure {
        caption: format!("Accuracy after {steps} steps by samples per batch: three layers of 100, ReLU"),
        x: Axis::logarithmic("samples that statistics are of"),
        y: Axis::parts("accuracy"),
        lines,
    };
    draw(&bench.file("svg"), &[figure])?;
    Ok(Outcome {
        ran: format!(
            "784-100-100-100-10, ReLU, {steps} steps, batches of 2 to 64 at rates of {RATE} / 64 a sample; ghost batches in batches of 64; cross-iteration over 4 steps, without the Taylor correction"
        ),
        found: format!("known at 2 and at 64 samples: {}", found.join("; ")),
        verdict: Verdict::of(batch >= 0.1 && group <= 0.02, batch >= group + 0.1),
        why: format!(
            "from 64 samples to 2 batch norm loses {:.1} points and group norm {:.1}: in as many steps small batches have seen less. Of two values of a unit batch norm leaves their signs, which is why it learns next to nothing; the paper's have those of all positions",
            100.0 * batch,
            100.0 * group
        ),
    })
}
