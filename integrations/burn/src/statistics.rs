//! By which statistics a batch norm in training normalizes: those of its batch, or others that small batches and many devices ask for.

use burn::module::ParamId;

use crate::cross_iteration::{CrossIteration, Steps};
use crate::rank::{Rank, Turn};

/// Statistics of a [`BatchNorm`](crate::BatchNorm) in training. Inference is the same with all.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Statistics {
    /// Of the batch.
    #[default]
    Batch,
    /// Of so many samples at a time (Hoffer, Hubara & Soudry 2017); the running ones take a part of all samples' once.
    Ghost(usize),
    /// Of the batch, corrected towards the running ones within limits (Ioffe 2017). A schedule of the paper's kind is a limit that is set anew before each step.
    Renorm {
        /// At least 1: by how much the deviations may differ.
        r_max: f64,
        /// At least 0: by how many running deviations the means may.
        d_max: f64,
    },
    /// Of the last steps (Yao et al. 2021, without the Taylor correction).
    CrossIteration(CrossIteration),
    /// Of the batches of all ranks together: the other devices or processes that train the same model.
    Synchronised(Rank),
}

/// The same, as one call of a layer has them: burn runs operations later than they are asked for.
#[derive(Clone, Debug)]
pub enum Source {
    Batch,
    Ghost(usize),
    Renorm { r_max: f64, d_max: f64 },
    CrossIteration(Steps),
    Synchronised(Turn),
}

impl Statistics {
    /// Requires numbers that mean something.
    ///
    /// # Panics
    /// For ghost batches of no samples, and limits of renorm that are none.
    pub(crate) fn check(&self) {
        match *self {
            Self::Ghost(0) => panic!("expected at least one sample in a ghost batch, got 0"),
            Self::Renorm { r_max, d_max } => {
                assert!(r_max >= 1.0 && r_max.is_finite(), "expected an r_max of at least 1, got {r_max}");
                assert!(d_max >= 0.0 && d_max.is_finite(), "expected a d_max of at least 0, got {d_max}");
            }
            _ => {}
        }
    }

    /// Those of a call of the layer with this gamma.
    ///
    /// # Panics
    /// As [`check`](Self::check); where cross-iteration statistics are another layer's.
    pub(crate) fn at_call(&self, gamma: ParamId) -> Source {
        self.check();
        match self {
            Self::Batch => Source::Batch,
            Self::Ghost(size) => Source::Ghost(*size),
            Self::Renorm { r_max, d_max } => Source::Renorm { r_max: *r_max, d_max: *d_max },
            Self::CrossIteration(last) => Source::CrossIteration(last.at_call(gamma)),
            Self::Synchronised(rank) => Source::Synchronised(rank.at_call()),
        }
    }
}
