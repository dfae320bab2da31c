//! Why ranks could not exchange their messages.

use std::time::Duration;

/// Why a collective failed, in [`Error::Collective`](crate::Error::Collective) and
/// [`Error::CollectiveSetup`](crate::Error::CollectiveSetup).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CollectiveFailure {
    /// Ranks did not arrive before the deadline.
    #[error("{} did not arrive within {deadline:?}", missing_ranks(.missing))]
    Deadline {
        /// The deadline of the collective.
        deadline: Duration,
        /// The ranks that were missing, in order; `None` where that cannot be known, as with MPI.
        missing: Option<Vec<usize>>,
    },
    /// A rank dropped its collective while others went on.
    #[error("rank {rank} left")]
    Left {
        /// The rank that left.
        rank: usize,
    },
    /// A rank said that it failed ([`Collective::fail`](crate::collective::Collective::fail)), or it panicked.
    #[error("rank {rank} failed: {reason}")]
    Failed {
        /// The rank that failed.
        rank: usize,
        /// What it said.
        reason: String,
    },
    /// A rank dropped the future of a gather that had begun. Its message was underway and cannot be taken back.
    #[error("rank {rank} cancelled a gather that had begun")]
    Cancelled {
        /// The rank that cancelled.
        rank: usize,
    },
    /// Two ranks gave messages of different lengths, so they are not at the same call.
    #[error(
        "rank {rank} gave {length} bytes and rank {other_rank} gave {other_length}; all ranks must make the same calls in the same order"
    )]
    Lengths {
        /// One rank.
        rank: usize,
        /// Bytes of its message.
        length: u64,
        /// The other rank.
        other_rank: usize,
        /// Bytes of its message.
        other_length: u64,
    },
    /// A number of ranks that a group cannot have.
    #[error("a group must have 1 to {most} ranks, got {got}")]
    WorldSize {
        /// The most ranks of a group.
        most: usize,
        /// The number that was passed.
        got: usize,
    },
    /// A library or the operating system refused what the collective needs.
    #[error("{what} failed: {reason}")]
    Refused {
        /// The call, or what was to be done.
        what: &'static str,
        /// What was said.
        reason: String,
    },
}

fn missing_ranks(missing: &Option<Vec<usize>>) -> String {
    match missing.as_deref() {
        None => "at least one rank".to_owned(),
        Some([rank]) => format!("rank {rank}"),
        Some(ranks) => {
            let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
            format!("ranks {}", ranks.join(", "))
        }
    }
}
