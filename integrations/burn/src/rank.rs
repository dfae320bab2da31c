//! One rank's end of a collective, as layers have it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wgnorm::Error;
use wgnorm::collective::{Collective, CollectiveFailure};

/// One rank's end of any [`Collective`], of whatever type. Layers of a model share it.
///
/// The exchange is a part of a layer's forward and backward pass and holds up the operations of burn's device, and the thread that waits for them; so ranks of one process must
/// be on devices of their own, each driven by a thread of its own. All ranks must run the same layers in the same order; messages say which call they are of, and a
/// collective whose ranks are not at the same call fails.
///
/// A model that is forked shares its running statistics with the other; give each its rank after that ([`BatchNorm::with_statistics`](crate::BatchNorm::with_statistics) then
/// gives the layer running statistics of its own).
#[derive(Clone)]
pub struct Rank {
    end: Arc<dyn AnyCollective>,
    calls: Arc<AtomicU64>,
}

/// It, at a call of a layer.
#[derive(Clone, Debug)]
pub struct Turn {
    rank: Rank,
    call: u64,
}

/// The exchange of a pass, whose messages say which it is.
pub struct Exchange<'t> {
    turn: &'t Turn,
    tag: [u8; 8],
}

impl Rank {
    /// The end of a collective.
    pub fn of(collective: impl Collective + Send + Sync + 'static) -> Self {
        Self { end: Arc::new(collective), calls: Arc::default() }
    }

    pub(crate) fn at_call(&self) -> Turn {
        Turn { rank: self.clone(), call: self.calls.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Turn {
    pub fn forward(&self) -> Exchange<'_> {
        Exchange { turn: self, tag: (self.call << 1).to_le_bytes() }
    }

    pub fn backward(&self) -> Exchange<'_> {
        Exchange { turn: self, tag: ((self.call << 1) | 1).to_le_bytes() }
    }

    /// Tells the other ranks that this one does not come.
    pub fn fail(&self, reason: &str) {
        self.rank.end.fail(reason);
    }
}

impl fmt::Debug for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rank({} of {})", self.end.rank(), self.end.world_size())
    }
}

impl Collective for Exchange<'_> {
    fn rank(&self) -> usize {
        self.turn.rank.end.rank()
    }

    fn world_size(&self) -> usize {
        self.turn.rank.end.world_size()
    }

    async fn all_gather(&self, mut message: Vec<u8>) -> wgnorm::Result<Vec<Vec<u8>>> {
        message.extend(self.tag);
        let mut messages = self.turn.rank.end.all_gather(message).await?;
        for (rank, message) in messages.iter_mut().enumerate() {
            let payload = message.len() - self.tag.len();
            if message[payload..] != self.tag {
                let reason =
                    "it is at another call: ranks must run the same layers in the same order".to_owned();
                self.turn.fail(&reason);
                let failure = CollectiveFailure::Failed { rank, reason };
                return Err(Error::Collective { rank: Collective::rank(self), failure, earlier: false });
            }
            message.truncate(payload);
        }
        Ok(messages)
    }

    fn fail(&self, reason: &str) {
        self.turn.fail(reason);
    }
}

type Gathered<'a> = Pin<Box<dyn Future<Output = wgnorm::Result<Vec<Vec<u8>>>> + 'a>>;

/// A [`Collective`] behind a pointer.
trait AnyCollective: Send + Sync {
    fn rank(&self) -> usize;
    fn world_size(&self) -> usize;
    fn all_gather(&self, message: Vec<u8>) -> Gathered<'_>;
    fn fail(&self, reason: &str);
}

impl<C: Collective + Send + Sync> AnyCollective for C {
    fn rank(&self) -> usize {
        Collective::rank(self)
    }

    fn world_size(&self) -> usize {
        Collective::world_size(self)
    }

    fn all_gather(&self, message: Vec<u8>) -> Gathered<'_> {
        Box::pin(Collective::all_gather(self, message))
    }

    fn fail(&self, reason: &str) {
        Collective::fail(self, reason);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wgnorm::collective::LocalRank;

    use super::*;

    /// What ranks get for a message each, at their calls and in their directions.
    fn gathered(turns: [(u64, bool); 2]) -> Vec<wgnorm::Result<Vec<Vec<u8>>>> {
        let ranks = LocalRank::group(2, Duration::from_secs(60)).unwrap();
        let threads: Vec<_> = ranks
            .into_iter()
            .zip(turns)
            .map(|(rank, (call, is_backward))| {
                std::thread::spawn(move || {
                    let turn = Turn { rank: Rank::of(rank), call };
                    let exchange = if is_backward { turn.backward() } else { turn.forward() };
                    pollster::block_on(Collective::all_gather(&exchange, vec![7]))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    #[test]
    fn ranks_at_different_calls_are_told() {
        for result in gathered([(3, true), (3, true)]) {
            assert_eq!(result.unwrap(), [[7], [7]]);
        }
        for turns in [[(3, true), (4, true)], [(3, true), (3, false)]] {
            for result in gathered(turns) {
                assert!(result.unwrap_err().to_string().contains("another call"));
            }
        }
    }
}
