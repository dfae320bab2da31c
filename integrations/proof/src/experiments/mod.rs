//! The claims, an experiment each.

mod batch_size;
mod cost;
mod fine_tuning;
mod folding;
mod initialization;
mod modes;
mod rates;
mod smoothness;
mod steps;
mod storage;
pub mod synchronised;
mod transformer;

use crate::outcome::Experiment;

/// A claim that is often made, and of which no paper is known here.
const FOLKLORE: &str = "said of it, without a source";

pub const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        name: "steps",
        claim: "Batch norm reaches the same accuracy in 14 times fewer steps, and keeps the inputs of activations where they are",
        source: "Ioffe & Szegedy 2015, section 4 and figure 1",
        run: steps::run,
    },
    Experiment {
        name: "convolutional",
        claim: "A convolutional network too reaches the same accuracy in 14 times fewer steps",
        source: "Ioffe & Szegedy 2015, section 4.2",
        run: steps::run_convolutional,
    },
    Experiment {
        name: "rates",
        claim: "Batch norm allows learning rates 10 to 30 times higher",
        source: "said of it; Ioffe & Szegedy 2015, section 4.2.1, train at 5 and 30 times",
        run: rates::run,
    },
    Experiment {
        name: "initialization",
        claim: "Batch norm forgives the scale of initial weights",
        source: "Ioffe & Szegedy 2015, section 3.3",
        run: initialization::run,
    },
    Experiment {
        name: "smoothness",
        claim: "Batch norm works because it makes the loss smoother: along the gradient, loss and gradient change less",
        source: "Santurkar et al. 2018, figure 4",
        run: smoothness::run,
    },
    Experiment {
        name: "batch-size",
        claim: "Batch norm's error grows with small batches, to 10 points at 2; group norm's does not",
        source: "Wu & He 2018, figure 1",
        run: batch_size::run,
    },
    Experiment {
        name: "synchronised",
        claim: "Statistics of all ranks are those of the large batch, for 8 to 15 % of a step",
        source: FOLKLORE,
        run: synchronised::run,
    },
    Experiment {
        name: "modes",
        claim: "Batch statistics in inference, stale or mistaken running statistics cost 5 to 15 points",
        source: FOLKLORE,
        run: modes::run,
    },
    Experiment {
        name: "fine-tuning",
        claim: "Fine-tuned by small batches, frozen statistics are better than the batches'",
        source: "Wu & He 2018, section 4.2",
        run: fine_tuning::run,
    },
    Experiment {
        name: "folding",
        claim: "A batch norm in the weights before it gives the same predictions in less time",
        source: "Jacob et al. 2018, section 3.2",
        run: folding::run,
    },
    Experiment {
        name: "storage",
        claim: "Activations in half precision do, as long as statistics are in f32",
        source: "Micikevicius et al. 2018, section 3.3",
        run: storage::run,
    },
    Experiment {
        name: "cost",
        claim: "Batch norm takes 3 to 7 % of forward and 5 to 12 % of backward",
        source: FOLKLORE,
        run: cost::run_step,
    },
    Experiment {
        name: "fusion",
        claim: "A norm with its activation in the same pass saves 25 % of their bandwidth",
        source: "said of it; Jung et al. 2018 have 25.7 % of DenseNet-121's training, norms fused with convolutions too",
        run: cost::run_fusion,
    },
    Experiment {
        name: "rms",
        claim: "RMS norm is 38 to 40 % cheaper than layer norm",
        source: "said of it; Zhang & Sennrich 2019 have 7 to 64 % of whole models",
        run: cost::run_rms,
    },
    Experiment {
        name: "transformer",
        claim: "Dynamic Tanh does in a transformer what layer norm does",
        source: "Zhu et al. 2025",
        run: transformer::run,
    },
];
