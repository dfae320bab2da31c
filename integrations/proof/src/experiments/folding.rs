//! A trained network's batch norms in its convolutions' weights: the same predictions in less time.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use wgnorm_burn::Activation;

use crate::Result;
use crate::figure::{Bar, Bars};
use crate::lab::Bench;
use crate::network::{Body, Network, Shape};
use crate::norm::Kind;
use crate::outcome::{Outcome, Verdict};
use crate::timing::{Timed, medians};
use crate::training::{Plan, Trainer, held_out, known, percent, plain, values};

const STEPS: usize = 100;
const BATCH: usize = 64;
const ROUNDS: usize = 21;

#[derive(Serialize, Deserialize)]
struct Found {
    accuracies: [f64; 2],
    /// Digits for which another is said.
    others: usize,
    /// Of a score, the largest difference, over the largest score.
    difference: f64,
    milliseconds: [f64; 2],
}

pub fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let steps = bench.steps(STEPS);
    let bar = bench.progress(bench.seeds().count());
    let shape = Shape::new(Body::Convolutional, Kind::Batch);
    let plan = |seed| (Plan { shape, rate: 0.3, batch: 60, steps, seed }, BATCH, ROUNDS);
    let all = bench.of_seeds(&bar, "folded", plan, |(plan, ..)| fold(bench, plan))?;
    bar.finish_and_clear();
    let rows: Vec<String> = bench
        .seeds()
        .zip(&all)
        .map(|(seed, Found { accuracies: [a, b], others, difference, milliseconds: [before, after] })| {
            format!("{seed},{a},{b},{others},{difference},{before},{after}")
        })
        .collect();
    bench.csv("seed,accuracy,accuracy_folded,other_predictions,difference,ms,ms_folded", &rows)?;
    let of = |which: usize| all.iter().map(|found| found.milliseconds[which]).collect::<Vec<_>>();
    let bars = [("batch norm", 0), ("folded", 1)].map(|(name, at)| Bar {
        name: name.to_owned(),
        group: at + 1,
        values: of(at),
    });
    let caption = format!("Inference of {BATCH} digits: the convolutional network");
    Bars { caption, x: "milliseconds", bars: bars.into() }.draw(&bench.file("svg"))?;
    let saved: Vec<f64> =
        all.iter().map(|found| 1.0 - found.milliseconds[1] / found.milliseconds[0]).collect();
    let others: usize = all.iter().map(|found| found.others).sum();
    let difference = all.iter().map(|found| found.difference).fold(0.0, f64::max);
    let accuracy = percent(&all.iter().map(|found| found.accuracies[1]).collect::<Vec<_>>());
    // In each repetition.
    let saves = saved.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(Outcome {
        ran: format!(
            "the convolutional network after {steps} steps; 1000 digits; times of {BATCH} digits, medians of {ROUNDS} in turns"
        ),
        found: format!(
            "{others} of {} predictions differ, scores by {difference:.1e} of the largest; {accuracy} known; {} of the time saved",
            1000 * all.len(),
            percent(&saved)
        ),
        verdict: Verdict::of(others == 0 && saves > 0.05, others == 0),
        why: if saves > 0.05 {
            "a pass over each convolution's output is saved"
        } else {
            "what the norms take beside these convolutions is within the noise of their times"
        }
        .to_owned(),
    })
}

fn fold(bench: &Bench<'_>, plan: Plan) -> Result<Found> {
    let lab = bench.lab;
    let trained = Trainer::new(lab, plan).steps(plan.steps)?.network.valid();
    let mut folded = trained.clone();
    folded.norms.clear();
    for (convolution, norm) in folded.convolutions.iter_mut().zip(trained.clone().batch_norms()) {
        *convolution = norm.clone().with_activation(Activation::None).fold_into_preceding(convolution)?;
    }
    // What the norms did is left to do.
    folded.activation = Activation::Relu;
    let device = lab.device.clone().without_autodiff();
    let scores = |network: &Network| values(network.forward(lab.digits.batch(&held_out(lab), &device).0));
    let (before, after) = (scores(&trained)?, scores(&folded)?);
    let best = |scores: &[f32]| (0..10).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let others = before.chunks(10).zip(after.chunks(10)).filter(|(a, b)| best(a) != best(b)).count();
    let largest = before.iter().fold(0.0_f32, |most, score| most.max(score.abs()));
    let difference = before.iter().zip(&after).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
    let accuracies = [known(lab, &trained, plain)?, known(lab, &folded, plain)?];
    let images = lab.digits.batch(&held_out(lab)[..BATCH], &device).0;
    let milliseconds = times(&device, images, [&trained, &folded])?;
    Ok(Found { accuracies, others, difference: f64::from(difference / largest), milliseconds })
}

fn times(device: &Device, images: Tensor<4>, networks: [&Network; 2]) -> Result<[f64; 2]> {
    let runs = networks.map(|network| {
        let images = images.clone();
        Box::new(move || drop(network.forward(images.clone()).into_data())) as Timed<'_>
    });
    let [a, b] = medians(device, ROUNDS, runs)?;
    Ok([a, b])
}
