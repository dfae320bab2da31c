//! A world of one rank.

use std::sync::OnceLock;

use super::{Collective, CollectiveFailure};
use crate::base::error::{Error, Result};

/// The only rank of a world of one: for tests, and for code that may or may not be distributed.
///
/// ```
/// use wgnorm::collective::{Collective, SingleRank};
/// let collective = SingleRank::new();
/// assert_eq!(pollster::block_on(collective.all_gather(vec![1, 2]))?, [[1, 2]]);
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct SingleRank {
    failed: OnceLock<String>,
}

impl SingleRank {
    /// A world of its own.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Collective for SingleRank {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    async fn all_gather(&self, message: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        match self.failed.get() {
            None => Ok(vec![message]),
            Some(reason) => {
                let failure = CollectiveFailure::Failed { rank: 0, reason: reason.clone() };
                Err(Error::Collective { rank: 0, failure, earlier: true })
            }
        }
    }

    fn fail(&self, reason: &str) {
        // Whoever failed first is the reason.
        let _ = self.failed.set(reason.to_owned());
    }
}
