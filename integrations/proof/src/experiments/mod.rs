//! The claims, an experiment each.

mod initialization;
mod rates;
mod steps;

use crate::outcome::Experiment;

pub const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        name: "steps",
        claim: "Batch norm reaches the same accuracy in 14 times fewer steps, and keeps the inputs of activations where they are",
        source: "Ioffe & Szegedy 2015, section 4 and figure 1",
        run: steps::run,
    },
    Experiment {
        name: "rates",
        claim: "Batch norm allows learning rates 10 to 30 times higher",
        source: "Ioffe & Szegedy 2015, sections 3.3 and 4.2",
        run: rates::run,
    },
    Experiment {
        name: "initialization",
        claim: "Batch norm forgives the scale of initial weights",
        source: "Ioffe & Szegedy 2015, section 3.3",
        run: initialization::run,
    },
];
