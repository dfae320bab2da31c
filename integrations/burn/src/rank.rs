//! One rank's end of a collective, as layers have it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Waker};
use std::thread;

use wgnorm::Error;
use wgnorm::collective::{Collective, CollectiveFailure};

/// One rank's end of any [`Collective`], of whatever type. Layers of a model share it.
///
/// The exchange is a part of a layer's forward and backward pass and holds up the operations of burn's device, and the thread that waits for them; so ranks of one process must
/// be on devices of their own, each driven by a thread of its own. All ranks must run the same layers in the same order; messages say which call they are of, and a
/// collective whose ranks are not at the same call fails.
///
/// A model that is forked shares its running statistics with the other; give each its rank after that ([`BatchNorm::with_statistics`](crate::BatchNorm::with_statistics) then
/// gives the layer running statistics of its own), and fork all before the first rank begins, whose exchange would hold up the device that they are forked from.
///
/// It is a [`Collective`] itself: what else ranks give each other, gradients for example, goes the same way, at the same place of every rank's step.
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

    /// The end of a collective that must stay on its thread, as MPI must: `work` runs on a thread of its own, and this one does what its rank exchanges, until `work` is over. After that the
    /// rank's exchanges fail.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use wgnorm_burn::{BatchNorm, Rank, Statistics, wgnorm::collective::Collective};
    /// # fn example(mpi: impl Collective, norm: BatchNorm) {
    /// // Of MPI: let mpi = MpiCollective::new(&world, Duration::from_secs(60))?;
    /// Rank::serve(&mpi, |rank| {
    ///     let norm = norm.with_statistics(Statistics::Synchronised(rank));
    ///     // It trains here.
    /// #   drop(norm);
    /// });
    /// # }
    /// ```
    ///
    /// # Panics
    /// Where `work` does.
    pub fn serve<R: Send>(collective: &impl Collective, work: impl FnOnce(Self) -> R + Send) -> R {
        let (ask, asked) = channel();
        let end = Served { rank: collective.rank(), world_size: collective.world_size(), ask: ask.clone() };
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                let result = catch_unwind(AssertUnwindSafe(|| work(Self::of(end))));
                // It is heard as long as anything is.
                drop(ask.send(Ask::Over));
                result
            });
            // By value: what is asked when nobody listens any more, after a panic here too, is answered by that.
            for ask in asked {
                match ask {
                    Ask::Gather(message, answer) => drop(answer.send(driven(collective.all_gather(message)))),
                    Ask::Fail(reason) => collective.fail(&reason),
                    Ask::Over => break,
                }
            }
            worker.join().and_then(|result| result).unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    pub(crate) fn at_call(&self) -> Turn {
        Turn { rank: self.clone(), call: self.calls.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Turn {
    pub fn forward(&self) -> Exchange<'_> {
        self.exchange(0)
    }

    pub fn backward(&self) -> Exchange<'_> {
        self.exchange(1)
    }

    /// What is no layer's.
    fn apart(&self) -> Exchange<'_> {
        self.exchange(2)
    }

    fn exchange(&self, which: u64) -> Exchange<'_> {
        Exchange { turn: self, tag: (4 * self.call + which).to_le_bytes() }
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
            let Some(payload) = message.strip_suffix(&self.tag).map(<[u8]>::len) else {
                let reason =
                    "it is at another call: ranks must run the same layers in the same order".to_owned();
                self.turn.fail(&reason);
                let failure = CollectiveFailure::Failed { rank, reason };
                return Err(Error::Collective { rank: Collective::rank(self), failure, earlier: false });
            };
            message.truncate(payload);
        }
        Ok(messages)
    }

    fn fail(&self, reason: &str) {
        self.turn.fail(reason);
    }
}

impl Collective for Rank {
    fn rank(&self) -> usize {
        self.end.rank()
    }

    fn world_size(&self) -> usize {
        self.end.world_size()
    }

    async fn all_gather(&self, message: Vec<u8>) -> wgnorm::Result<Vec<Vec<u8>>> {
        Collective::all_gather(&self.at_call().apart(), message).await
    }

    fn fail(&self, reason: &str) {
        self.end.fail(reason);
    }
}

/// What a rank asks the thread of its collective for.
enum Ask {
    Gather(Vec<u8>, Sender<wgnorm::Result<Vec<Vec<u8>>>>),
    Fail(String),
    Over,
}

/// The end of a collective that another thread drives.
struct Served {
    rank: usize,
    world_size: usize,
    ask: Sender<Ask>,
}

impl Collective for Served {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    async fn all_gather(&self, message: Vec<u8>) -> wgnorm::Result<Vec<Vec<u8>>> {
        let (answer, answered) = channel();
        let asked = self.ask.send(Ask::Gather(message, answer));
        // Waits, as every exchange of a layer does.
        let result = asked.ok().and_then(|()| answered.recv().ok());
        result.unwrap_or_else(|| {
            let reason = "the work that this rank was served for is over".to_owned();
            let failure = CollectiveFailure::Failed { rank: self.rank, reason };
            Err(Error::Collective { rank: self.rank, failure, earlier: false })
        })
    }

    fn fail(&self, reason: &str) {
        drop(self.ask.send(Ask::Fail(reason.to_owned())));
    }
}

/// What a future gives, on this thread.
fn driven<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return result;
        }
        thread::yield_now();
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
    use std::marker::PhantomData;
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

    /// A collective that must stay on its thread.
    struct Stays(LocalRank, PhantomData<*const ()>);

    impl Collective for Stays {
        fn rank(&self) -> usize {
            Collective::rank(&self.0)
        }

        fn world_size(&self) -> usize {
            Collective::world_size(&self.0)
        }

        async fn all_gather(&self, message: Vec<u8>) -> wgnorm::Result<Vec<Vec<u8>>> {
            Collective::all_gather(&self.0, message).await
        }

        fn fail(&self, reason: &str) {
            Collective::fail(&self.0, reason);
        }
    }

    #[test]
    fn collectives_that_stay_are_served() {
        let gather = |rank: &Rank, message| pollster::block_on(Collective::all_gather(rank, message));
        let ends = LocalRank::group(2, Duration::from_secs(60)).unwrap();
        let threads: Vec<_> = ends
            .into_iter()
            .map(|end| {
                thread::spawn(move || {
                    let stays = Stays(end, PhantomData);
                    Rank::serve(&stays, |rank| {
                        let all: Vec<_> = (0..3).map(|i| gather(&rank, vec![i]).unwrap()).collect();
                        (rank, all)
                    })
                })
            })
            .collect();
        for thread in threads {
            let (rank, all) = thread.join().unwrap();
            assert_eq!(all, [[[0], [0]], [[1], [1]], [[2], [2]]]);
            assert!(gather(&rank, vec![3]).unwrap_err().to_string().contains("is over"));
        }
        // What one tells the others, and what panics, comes through.
        let mut ends = LocalRank::group(2, Duration::from_secs(60)).unwrap().into_iter();
        let (stays, other) = (Stays(ends.next().unwrap(), PhantomData), Rank::of(ends.next().unwrap()));
        Rank::serve(&stays, |rank| Collective::fail(&rank, "no more"));
        assert!(gather(&other, vec![]).unwrap_err().to_string().contains("no more"));
        let panic =
            catch_unwind(AssertUnwindSafe(|| Rank::serve(&stays, |_| panic!("as asked")))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"as asked"));
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
