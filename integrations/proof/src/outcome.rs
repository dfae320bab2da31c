//! What an experiment says.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::lab::Bench;

/// One of the claims.
pub struct Experiment {
    pub name: &'static str,
    pub claim: &'static str,
    /// Where it is made.
    pub source: &'static str,
    pub run: fn(&Bench<'_>) -> Result<Outcome>,
}

/// Whether a claim holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Holds,
    HoldsInPart,
    DoesNotHoldHere,
    /// What was measured is told, and is not what the claim is of.
    CannotBeTestedHere,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// What was run.
    pub ran: String,
    /// What came out, with its spread.
    pub found: String,
    pub verdict: Verdict,
    /// Why it is that.
    pub why: String,
}

impl Verdict {
    pub fn words(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::HoldsInPart => "holds in part",
            Self::DoesNotHoldHere => "does not hold here",
            Self::CannotBeTestedHere => "cannot be tested here",
        }
    }

    /// By how much of what is claimed was found: all, or some.
    pub fn by(found: f64, all: f64, some: f64) -> Self {
        Self::of(found >= all, found >= some)
    }

    /// By differences of seeds, each from the same seed's without what is claimed: all of them at least so much, or their mean.
    pub fn of_seeds(differences: &[f64], least: f64) -> Self {
        let mean = differences.iter().sum::<f64>() / differences.len().max(1) as f64;
        Self::of(differences.iter().all(|&difference| difference >= least), mean >= least)
    }

    /// By whether all of it was found, or some.
    pub fn of(all: bool, some: bool) -> Self {
        match (all, some) {
            (true, _) => Self::Holds,
            (false, true) => Self::HoldsInPart,
            (false, false) => Self::DoesNotHoldHere,
        }
    }
}
