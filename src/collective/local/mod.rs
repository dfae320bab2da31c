//! Ranks in one process: several devices or contexts, each driven by a thread or a task.

mod group;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use self::group::{Shared, State};
use super::{Collective, CollectiveFailure};
use crate::base::error::{Error, Result};

/// One rank of a group in one process. It can be moved to a thread or a task, and works with any executor: futures are woken,
/// nothing polls, and one thread can drive all ranks by joining their futures.
///
/// The group fails, and with it every call that is underway or made later on any rank, when
/// - a rank does not arrive within the deadline, counted from the first arrival at a call. The first rank that waits starts a
///   thread for this, which ends with the group;
/// - a `LocalRank` is dropped, by an early return or a panic for example. Calls whose messages are complete still return them,
///   so ranks may end in any order;
/// - messages differ in length, a rank calls [`Collective::fail`], or the future of a call is dropped before it is ready.
///
/// Not available on wasm, which has no threads and no clock of the standard library.
///
/// ```
/// use std::time::Duration;
/// use wgnorm::collective::{Collective, CollectiveFailure, LocalRank};
/// use wgnorm::Error;
///
/// let mut ranks = LocalRank::group(2, Duration::from_secs(60))?;
/// drop(ranks.pop());
/// let error = pollster::block_on(ranks[0].all_gather(vec![7])).unwrap_err();
/// assert_eq!(error, Error::Collective { rank: 0, failure: CollectiveFailure::Left { rank: 1 }, earlier: true });
/// # Ok::<(), wgnorm::Error>(())
/// ```
pub struct LocalRank {
    rank: usize,
    world_size: usize,
    shared: Arc<Shared>,
}

impl LocalRank {
    /// More ranks than any process has devices.
    const MOST: usize = 1 << 16;

    /// The ranks of a new group, in order.
    ///
    /// `deadline` is how long ranks wait for each other in one call; [`Duration::MAX`] for as long as it takes. A rank
    /// that compiles its kernels first, or loads its data, is late by that time.
    ///
    /// # Errors
    /// [`Error::CollectiveSetup`] with [`CollectiveFailure::WorldSize`].
    pub fn group(world_size: usize, deadline: Duration) -> Result<Vec<Self>> {
        if !(1..=Self::MOST).contains(&world_size) {
            let failure = CollectiveFailure::WorldSize { most: Self::MOST, got: world_size };
            return Err(Error::CollectiveSetup { failure });
        }
        let shared = Arc::new(Shared::new(world_size, deadline));
        let rank = |rank| Self { rank, world_size, shared: shared.clone() };
        Ok((0..world_size).map(rank).collect())
    }

    #[cfg(test)]
    fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn error(&self, failure: CollectiveFailure, earlier: bool) -> Error {
        Error::Collective { rank: self.rank, failure, earlier }
    }
}

impl Collective for LocalRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    async fn all_gather(&self, message: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let messages = Gather { rank: self, stage: Stage::New(message) }.await?;
        Ok(Arc::unwrap_or_clone(messages))
    }

    fn fail(&self, reason: &str) {
        let failure = CollectiveFailure::Failed { rank: self.rank, reason: reason.to_owned() };
        self.shared.fail(failure);
    }
}

impl Drop for LocalRank {
    fn drop(&mut self) {
        let rank = self.rank;
        self.shared.fail(if std::thread::panicking() {
            CollectiveFailure::Failed { rank, reason: "its thread panicked".to_owned() }
        } else {
            CollectiveFailure::Left { rank }
        });
    }
}

impl fmt::Debug for LocalRank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalRank")
            .field("rank", &self.rank)
            .field("world_size", &self.world_size)
            .field("deadline", &self.shared.deadline)
            .field("failure", &self.shared.lock().failure)
            .finish()
    }
}

/// The future of one call.
struct Gather<'a> {
    rank: &'a LocalRank,
    stage: Stage,
}

enum Stage {
    New(Vec<u8>),
    /// Arrived at the round of this number.
    Waiting(u64),
    Finished,
}

impl Gather<'_> {
    /// `None`: not yet. Adds whom to wake when the lock is released, and sets a waker to drop then: either may run code of an
    /// executor, which may come back here.
    fn advance(
        &mut self,
        state: &mut State,
        waker: &Waker,
        wakers: &mut Vec<Waker>,
        replaced: &mut Option<Waker>,
    ) -> Option<Result<Arc<Vec<Vec<u8>>>>> {
        let LocalRank { rank, shared, .. } = self.rank;
        let number = match std::mem::replace(&mut self.stage, Stage::Finished) {
            Stage::New(message) => {
                if let Some(failure) = &state.failure {
                    return Some(Err(self.rank.error(failure.clone(), true)));
                }
                let (number, woken) = state.arrive(*rank, message, shared.deadline);
                wakers.extend(woken);
                number
            }
            Stage::Waiting(number) => number,
            Stage::Finished => panic!("a gather was polled after it was ready"),
        };
        // Complete messages count, even if a rank has left since.
        if let Some(messages) = state.take(number) {
            return Some(Ok(messages));
        }
        let round = state.rounds.get_mut(&number);
        if state.failure.is_none()
            && let Some(round) = round
        {
            *replaced = round.wakers[*rank].replace(waker.clone());
            if let Some(expires) = round.expires {
                // Executors that poll instead of sleeping see the deadline here first.
                if expires <= Instant::now() {
                    wakers.extend(state.expire(shared.deadline));
                } else if let Err(failure) = shared.watch(state) {
                    wakers.extend(state.fail(failure));
                }
            }
        }
        if let Some(failure) = &state.failure {
            return Some(Err(self.rank.error(failure.clone(), false)));
        }
        self.stage = Stage::Waiting(number);
        None
    }
}

impl Future for Gather<'_> {
    type Output = Result<Arc<Vec<Vec<u8>>>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (mut wakers, mut replaced) = (Vec::new(), None);
        let ready = this.advance(&mut this.rank.shared.lock(), cx.waker(), &mut wakers, &mut replaced);
        drop(replaced);
        wakers.into_iter().for_each(Waker::wake);
        ready.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Gather<'_> {
    fn drop(&mut self) {
        if let Stage::Waiting(number) = self.stage {
            let LocalRank { rank, shared, .. } = self.rank;
            // Whoever drops a result that is complete takes nothing from the others.
            let complete = shared.lock().take(number).is_some();
            if !complete {
                shared.fail(CollectiveFailure::Cancelled { rank: *rank });
            }
        }
    }
}
