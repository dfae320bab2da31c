//! A trained network trained further on other images by small batches: with the batches' statistics, or frozen ones.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use burn::tensor::Tensor;

use crate::Result;
use crate::figure::{Axis, Figure, draw};
use crate::lab::Bench;
use crate::network::{Body, Network, Shape};
use crate::norm::Kind;
use crate::outcome::{Outcome, Verdict};
use crate::training::{Plan, Trainer, differences, percent, spread};

const BEFORE: usize = 300;
/// Digits afterwards, in batches of any size.
const AFTER: usize = 4800;
const SIZES: [f64; 3] = [2.0, 8.0, 32.0];
/// What the best at batch 2 must know for the others to be told.
const ENOUGH: f64 = 0.7;
/// For a sample of a batch.
const RATE: f64 = 0.004;

/// What is done with the norms of the trained network.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// Statistics of each batch, and the running ones moved.
    Batch,
    /// The running ones of before, gamma and beta trained.
    Frozen,
}

/// Whether a network has convolutions, where a channel has many values of each sample.
const CURVES: [(&str, bool, Mode); 4] = [
    ("linear, batch statistics", false, Mode::Batch),
    ("linear, frozen statistics", false, Mode::Frozen),
    ("convolutional, batch statistics", true, Mode::Batch),
    ("convolutional, frozen statistics", true, Mode::Frozen),
];

pub fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let (before, after) = (bench.steps(BEFORE), bench.steps(AFTER));
    let curves = CURVES.map(|(name, is_convolutional, mode)| (name.to_owned(), (is_convolutional, mode)));
    let plan = |(is_convolutional, mode), size: f64, seed| {
        let body = if is_convolutional { Body::Convolutional } else { Body::Linear(3) };
        let shape = Shape::new(body, Kind::Batch);
        let first = Plan { shape, rate: 0.3, batch: 60, steps: before, seed };
        (mode, first, Plan { rate: RATE * size, batch: size as usize, steps: after / size as usize, ..first })
    };
    // Networks as they are before.
    let trained: RefCell<HashMap<String, Network>> = RefCell::default();
    let run = |(mode, first, second): (Mode, Plan, Plan)| {
        let mut trained = trained.borrow_mut();
        let network = match trained.entry(format!("{first:?}")) {
            Entry::Occupied(network) => network.into_mut(),
            Entry::Vacant(room) => room.insert(Trainer::new(bench.lab, first).steps(first.steps)?.network),
        };
        let mut network = network.clone().apart();
        if mode == Mode::Frozen {
            for norm in network.batch_norms() {
                norm.training = norm.training.clone().map(|flag| flag.with(false));
            }
        }
        let device = &bench.lab.device;
        Trainer::of(bench.lab, second, network, device, shown_otherwise).steps(second.steps)?.accuracy()
    };
    let lines = bench.sweep("norm,batch", &curves, &bench.some(&SIZES), plan, run)?;
    let found: Vec<String> = lines
        .iter()
        .map(|line| {
            format!("{} {} and {}", line.name, percent(line.values_at(2.0)), percent(line.values_at(32.0)))
        })
        .collect();
    let gained =
        [1, 3].map(|frozen| differences(lines[frozen].values_at(2.0), lines[frozen - 1].values_at(2.0)));
    let best = lines.iter().map(|line| line.at(2.0)).fold(0.0, f64::max);
    let figure = Figure {
        caption: format!("Accuracy after {after} transposed digits, by batch"),
        x: Axis::logarithmic("batch"),
        y: Axis::parts("accuracy"),
        lines,
    };
    draw(&bench.file("svg"), &[figure])?;
    Ok(Outcome {
        ran: format!(
            "three linear layers of 100, and the convolutional network, after {before} steps at batch 60, then {after} digits whose rows are columns, in batches of 2 to 32 at rates of {RATE} a sample"
        ),
        found: format!("known at batch 2 and 32: {}", found.join("; ")),
        verdict: match best >= ENOUGH {
            true => Verdict::of(
                gained.iter().all(|gained| spread(gained).0 >= 0.02),
                gained.iter().any(|gained| spread(gained).0 >= 0.02),
            ),
            false => Verdict::CannotBeTestedHere,
        },
        why: format!(
            "at batch 2 frozen statistics are {:+.1} points from the batches' between linear layers, where a unit has two values, and {:+.1} between convolutions, where a channel has 98 or 392",
            100.0 * spread(&gained[0]).0,
            100.0 * spread(&gained[1]).0
        ),
    })
}

/// Rows are columns.
fn shown_otherwise(images: Tensor<4>) -> Tensor<4> {
    images.swap_dims(2, 3)
}
