//! What an experiment says, and the table of all.

use serde::{Deserialize, Serialize};

use crate::lab::Bench;

/// One of the claims.
pub struct Experiment {
    pub name: &'static str,
    pub claim: &'static str,
    /// Where it is made.
    pub source: &'static str,
    pub run: fn(&Bench<'_>) -> Result<Outcome, Box<dyn std::error::Error>>,
}

/// Whether a claim holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Holds,
    HoldsInPart,
    DoesNotHoldHere,
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
        }
    }

    /// By how much of what is claimed was found: all, or some.
    pub fn by(found: f64, all: f64, some: f64) -> Self {
        match found {
            found if found >= all => Self::Holds,
            found if found >= some => Self::HoldsInPart,
            _ => Self::DoesNotHoldHere,
        }
    }
}
