//! What the ranks of one process share: their calls, their failure, and a thread for the deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::collective::CollectiveFailure;

/// What the ranks of a group and its watchdog share.
pub(super) struct Shared {
    pub(super) deadline: Duration,
    state: Mutex<State>,
    /// For the watchdog alone; ranks are woken by their wakers.
    changed: Condvar,
}

pub(super) struct State {
    /// By rank, the number of its next call.
    next: Vec<u64>,
    /// Calls that some rank has made and not every rank has returned from, by number.
    pub(super) rounds: BTreeMap<u64, Round>,
    /// Why the group is unusable.
    pub(super) failure: Option<CollectiveFailure>,
    pub(super) watchdog: Watchdog,
}

/// One call of all ranks.
pub(super) struct Round {
    /// By rank. Empty once all have arrived.
    messages: Vec<Option<Vec<u8>>>,
    arrived: usize,
    complete: Option<Arc<Vec<Vec<u8>>>>,
    /// Ranks that have their result, or dropped their future after it was complete.
    returned: usize,
    pub(super) wakers: Vec<Option<Waker>>,
    /// `None`: never.
    pub(super) expires: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Watchdog {
    None,
    /// Waits for a round to watch.
    Idle,
    /// Sleeps until a round expires. Later rounds expire later, so they need not wake it.
    Watching,
}

impl Shared {
    pub(super) fn new(world_size: usize, deadline: Duration) -> Self {
        let state = State {
            next: vec![0; world_size],
            rounds: BTreeMap::new(),
            failure: None,
            watchdog: Watchdog::None,
        };
        Self { deadline, state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the group unusable, unless it is, and wakes all who wait.
    pub(super) fn fail(&self, failure: CollectiveFailure) {
        let wakers = self.lock().fail(failure);
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Makes sure that somebody looks at the clock.
    pub(super) fn watch(self: &Arc<Self>, state: &mut State) -> Result<(), CollectiveFailure> {
        match state.watchdog {
            Watchdog::Watching => {}
            Watchdog::Idle => self.changed.notify_all(),
            Watchdog::None => {
                let shared = self.clone();
                let thread = std::thread::Builder::new().name("wgnorm deadline".to_owned());
                thread.spawn(move || shared.watchdog()).map_err(|error| CollectiveFailure::Refused {
                    what: "starting the thread of the deadline",
                    reason: error.to_string(),
                })?;
            }
        }
        state.watchdog = Watchdog::Watching;
        Ok(())
    }

    /// Fails the group when a round expires. Ends when the group fails, as it does when its ranks are dropped.
    fn watchdog(&self) {
        let mut state = self.lock();
        while state.failure.is_none() {
            let open = state.rounds.values().filter(|round| round.complete.is_none());
            state = match open.filter_map(|round| round.expires).min() {
                None => {
                    state.watchdog = Watchdog::Idle;
                    self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
                }
                Some(expires) => {
                    state.watchdog = Watchdog::Watching;
                    let left = expires.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let wakers = state.expire(self.deadline);
                        drop(state);
                        wakers.into_iter().for_each(Waker::wake);
                        return;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl State {
    /// Whom to wake, outside of the lock.
    #[must_use]
    pub(super) fn fail(&mut self, failure: CollectiveFailure) -> Vec<Waker> {
        if self.failure.is_some() {
            return Vec::new();
        }
        self.failure = Some(failure);
        self.rounds.values_mut().flat_map(|round| round.wakers.iter_mut().filter_map(Option::take)).collect()
    }

    /// Fails because the oldest open round has waited too long.
    #[must_use]
    pub(super) fn expire(&mut self, deadline: Duration) -> Vec<Waker> {
        let Some(round) = self.rounds.values().find(|round| round.complete.is_none()) else {
            return Vec::new();
        };
        let missing = (0..).zip(&round.messages).filter(|(_, message)| message.is_none());
        let missing = Some(missing.map(|(rank, _)| rank).collect());
        self.fail(CollectiveFailure::Deadline { deadline, missing })
    }

    /// A rank makes its next call: its number, and whom to wake.
    pub(super) fn arrive(&mut self, rank: usize, message: Vec<u8>, deadline: Duration) -> (u64, Vec<Waker>) {
        let world_size = self.next.len();
        let number = self.next[rank];
        self.next[rank] += 1;
        let round = self.rounds.entry(number).or_insert_with(|| Round {
            messages: vec![None; world_size],
            arrived: 0,
            complete: None,
            returned: 0,
            wakers: vec![None; world_size],
            expires: Instant::now().checked_add(deadline),
        });
        let others =
            (0..).zip(&round.messages).filter_map(|(rank, other)| Some((rank, other.as_ref()?.len())));
        if let Some((other_rank, other_length)) =
            others.into_iter().find(|(_, length)| *length != message.len())
        {
            let (length, other_length) = (message.len() as u64, other_length as u64);
            return (
                number,
                self.fail(CollectiveFailure::Lengths { rank, length, other_rank, other_length }),
            );
        }
        round.messages[rank] = Some(message);
        round.arrived += 1;
        if round.arrived < world_size {
            return (number, Vec::new());
        }
        round.complete = Some(Arc::new(std::mem::take(&mut round.messages).into_iter().flatten().collect()));
        (number, round.wakers.iter_mut().filter_map(Option::take).collect())
    }

    /// The messages of a round, if they are complete; each rank takes them once.
    pub(super) fn take(&mut self, number: u64) -> Option<Arc<Vec<Vec<u8>>>> {
        let round = self.rounds.get_mut(&number)?;
        let messages = round.complete.clone()?;
        round.returned += 1;
        if round.returned == self.next.len() {
            self.rounds.remove(&number);
        }
        Some(messages)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use super::*;
    use crate::collective::{Collective, LocalRank};

    /// The thread of the deadline ends with the group, also while it sleeps.
    #[test]
    fn the_watchdog_ends_with_the_group() {
        let ranks = LocalRank::group(2, Duration::from_secs(3600)).unwrap();
        let shared = Arc::downgrade(ranks[0].shared());
        {
            let mut call = std::pin::pin!(ranks[0].all_gather(vec![1]));
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert!(ranks[0].shared().lock().watchdog == Watchdog::Watching);
            assert_eq!(pollster::block_on(ranks[1].all_gather(vec![2])), Ok(vec![vec![1], vec![2]]));
        }
        drop(ranks);
        while shared.strong_count() > 0 {
            std::thread::yield_now();
        }
    }

    /// Nothing of a round stays behind it.
    #[test]
    fn rounds_are_forgotten() {
        let ranks = LocalRank::group(2, Duration::MAX).unwrap();
        for round in 0..3 {
            {
                let mut first = std::pin::pin!(ranks[0].all_gather(vec![round]));
                assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                assert!(pollster::block_on(ranks[1].all_gather(vec![round])).is_ok());
                // Dropped when complete, without its result.
            }
            assert!(ranks[0].shared().lock().rounds.is_empty());
        }
        // A deadline that never comes needs no thread.
        assert!(ranks[0].shared().lock().watchdog == Watchdog::None);
    }
}
