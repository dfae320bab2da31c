//! Ranks as processes under MPI.

mod header;
mod library;
mod protocol;

use std::cell::{Ref, RefCell, RefMut};
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use ::mpi::topology::Communicator;

use self::header::Header;
use self::library::Duplicate;
use self::protocol::Protocol;
use super::{Collective, CollectiveFailure};
use crate::base::error::{Error, Result};

/// One process of an MPI communicator as a rank. With the feature `mpi`, not on wasm; [`wgnorm::mpi`](crate::mpi) is the crate whose
/// communicators it takes.
///
/// A call is two nonblocking all-gathers (`MPI_Iallgather`), of headers and of messages. Its future asks MPI each time it is
/// polled, wakes itself and gives the processor to other processes for a moment, because MPI tells nobody when it is
/// done; an executor that runs other tasks beside it goes on with them, a little slower.
///
/// # Failure
/// What a rank can still say, it says in a header: a length that does not fit, [`Collective::fail`], a dropped future, an early
/// return or a panic (both drop this value). All ranks then return the same error from that call, and can go on without the
/// collective.
///
/// A rank that is silent beyond the deadline, and an error of MPI itself, cannot be made good: MPI cannot cancel a gather, so its
/// buffers and the communicator are given up (leaked), and **`MPI_Finalize`, which runs when the `Universe` is dropped, may wait for
/// ever**. After [`CollectiveFailure::Deadline`] or [`CollectiveFailure::Refused`] report the error and call
/// [`abort`](crate::mpi::topology::Communicator::abort) on the communicator, which ends all processes of the job.
///
/// The deadline is local: ranks that wait for a silent one return at about the same time; should it come later, it waits for its
/// own deadline in turn. Which rank was missing, MPI does not tell.
///
/// Dropping waits, for the deadline at most, until all other ranks drop theirs or make a call, in which they then learn that
/// this one left. So drop several collectives in the same order on all ranks, and all before the `Universe`: after
/// `MPI_Finalize` nothing can be said.
///
/// # Threads
/// MPI must be initialized with [`Threading::Funneled`](crate::mpi::Threading) at least, because drivers of GPUs have threads
/// of their own. MPI is only called from the thread that made this value, which therefore is not `Send`; with `Funneled` it
/// must be the main thread.
///
/// ```no_run
/// use std::time::Duration;
/// use wgnorm::mpi::Threading;
/// use wgnorm::mpi::topology::Communicator;
/// use wgnorm::collective::{Collective, MpiCollective};
///
/// // Run as `mpirun -n 4 program`.
/// let (universe, _) = wgnorm::mpi::initialize_with_threading(Threading::Funneled).expect("MPI was initialized before");
/// let world = universe.world();
/// let exchanged = MpiCollective::new(&world, Duration::from_secs(300)).and_then(|collective| {
///     let message = vec![collective.rank() as u8];
///     let messages = pollster::block_on(collective.all_gather(message))?;
///     assert!(messages.iter().enumerate().all(|(rank, message)| *message == [rank as u8]));
///     Ok(())
/// });
/// if let Err(error) = exchanged {
///     eprintln!("{error}");
///     world.abort(1);
/// }
/// ```
pub struct MpiCollective {
    rank: usize,
    world_size: usize,
    deadline: Duration,
    state: RefCell<State>,
    /// Neither `Send` nor `Sync`, with every MPI library.
    one_thread: PhantomData<*const ()>,
}

struct State {
    protocol: Protocol,
    /// Calls in the order in which they were made; the first is underway, the others wait for it.
    calls: VecDeque<u64>,
    next_call: u64,
    /// The first failure.
    failure: Option<CollectiveFailure>,
}

impl MpiCollective {
    /// This process as a rank of `communicator`. All processes of the communicator must call this, as often and in the same
    /// order; it blocks until they have.
    ///
    /// The communicator is duplicated, so that no message of the application's can mix in. `deadline` is how long ranks wait
    /// for each other, here and in each call; [`Duration::MAX`] for as long as it takes. A rank that compiles its kernels first, or
    /// loads its data, is late by that time.
    ///
    /// # Errors
    /// [`Error::CollectiveSetup`] with [`CollectiveFailure::Deadline`], or with [`CollectiveFailure::Refused`]: MPI is not
    /// initialized for more than one thread, this is a thread that must not call it, the communicator is one between two
    /// groups, or MPI says so.
    pub fn new(communicator: &impl Communicator, deadline: Duration) -> Result<Self> {
        let failed = |failure| Error::CollectiveSetup { failure };
        library::check_threads().map_err(failed)?;
        let number = |value: i32| usize::try_from(value).unwrap_or_default();
        let (rank, world_size) = (number(communicator.rank()), number(communicator.size()));
        if communicator.test_inter() {
            return Err(failed(CollectiveFailure::Refused {
                what: "starting an MPI collective",
                reason: "the communicator is one between two groups".to_owned(),
            }));
        }
        let mut duplicate = Duplicate::start(communicator).map_err(failed)?;
        let begun = Instant::now();
        let communicator = loop {
            if let Some(communicator) = duplicate.test().map_err(failed)? {
                break communicator;
            }
            if begun.elapsed() >= deadline {
                return Err(failed(CollectiveFailure::Deadline { deadline, missing: None }));
            }
            give_way(begun.elapsed());
        };
        let protocol = Protocol::new(communicator, world_size);
        let state = State { protocol, calls: VecDeque::new(), next_call: 0, failure: None };
        Ok(Self { rank, world_size, deadline, state: RefCell::new(state), one_thread: PhantomData })
    }

    /// Never held while foreign code runs, so never taken twice.
    fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }
}

/// Lets other processes of this machine go on: at once while an answer is near, with a short sleep when it is not.
fn give_way(waited: Duration) {
    if waited < Duration::from_millis(1) {
        thread::yield_now();
    } else {
        thread::sleep(Duration::from_micros(100));
    }
}

impl State {
    /// The first failure is kept.
    fn fail(&mut self, failure: CollectiveFailure) {
        self.calls.clear();
        self.failure.get_or_insert(failure);
    }

    /// Fails for a reason that the other ranks have yet to learn; tells them as far as that goes without waiting.
    fn fail_here(&mut self, failure: CollectiveFailure, last: Header) {
        if self.failure.is_none() {
            self.fail(failure);
            self.protocol.leave(last);
            self.protocol.part();
        }
    }
}

impl Collective for MpiCollective {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    async fn all_gather(&self, message: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Gather { collective: self, stage: Stage::New(message), begun: Instant::now() }.await
    }

    /// The others learn it in their next call, or in the one that is underway if this rank has not joined it. Of the reason they
    /// get the first 118 bytes. Returns at once; what the others have not heard by then, later calls and dropping go on to say.
    fn fail(&self, reason: &str) {
        let failure = CollectiveFailure::Failed { rank: self.rank, reason: reason.to_owned() };
        self.state().fail_here(failure, Header::Failed(reason.to_owned()));
    }
}

impl Drop for MpiCollective {
    fn drop(&mut self) {
        let (rank, deadline) = (self.rank, self.deadline);
        let mut state = self.state();
        if ::mpi::environment::is_finalized() {
            return state.protocol.lose();
        }
        let (failure, last) = if thread::panicking() {
            let reason = "it panicked".to_owned();
            (CollectiveFailure::Failed { rank, reason: reason.clone() }, Header::Failed(reason))
        } else {
            (CollectiveFailure::Left { rank }, Header::Left)
        };
        state.fail_here(failure, last);
        let begun = Instant::now();
        while !state.protocol.part() {
            if begun.elapsed() >= deadline {
                return state.protocol.lose();
            }
            give_way(begun.elapsed());
        }
    }
}

impl fmt::Debug for MpiCollective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MpiCollective")
            .field("rank", &self.rank)
            .field("world_size", &self.world_size)
            .field("deadline", &self.deadline)
            .field("failure", &Ref::map(self.state.borrow(), |state| &state.failure))
            .finish()
    }
}

/// The future of one call.
struct Gather<'a> {
    collective: &'a MpiCollective,
    stage: Stage,
    /// When the future was first polled.
    begun: Instant,
}

enum Stage {
    New(Vec<u8>),
    /// Behind other calls of this rank.
    Queued(u64, Vec<u8>),
    Underway,
    Finished,
}

impl Gather<'_> {
    /// `None`: not yet.
    fn advance(&mut self, state: &mut State) -> Option<Result<Vec<Vec<u8>>, CollectiveFailure>> {
        if let Some(failure) = &state.failure {
            self.stage = Stage::Finished;
            let failure = failure.clone();
            // Another occasion to tell the others.
            state.protocol.part();
            return Some(Err(failure));
        }
        if ::mpi::environment::is_finalized() {
            state.protocol.lose();
            return Some(Err(CollectiveFailure::Refused {
                what: "MPI_Iallgather",
                reason: "MPI is finalized".to_owned(),
            }));
        }
        self.stage = match std::mem::replace(&mut self.stage, Stage::Finished) {
            Stage::New(message) => {
                let call = state.next_call;
                state.next_call += 1;
                state.calls.push_back(call);
                Stage::Queued(call, message)
            }
            stage => stage,
        };
        self.stage = match std::mem::replace(&mut self.stage, Stage::Finished) {
            Stage::Queued(call, message) if state.calls.front() == Some(&call) => {
                if let Err(failure) = state.protocol.call(message) {
                    return Some(Err(failure));
                }
                Stage::Underway
            }
            stage => stage,
        };
        if let Stage::Underway = self.stage {
            match state.protocol.step() {
                Ok(None) => {}
                Ok(Some(messages)) => {
                    state.calls.pop_front();
                    return Some(Ok(messages));
                }
                Err(failure) => return Some(Err(failure)),
            }
        }
        let deadline = self.collective.deadline;
        if self.begun.elapsed() >= deadline {
            state.protocol.lose();
            return Some(Err(CollectiveFailure::Deadline { deadline, missing: None }));
        }
        None
    }
}

impl Future for Gather<'_> {
    type Output = Result<Vec<Vec<u8>>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let collective = this.collective;
        let earlier = collective.state().failure.is_some() && matches!(this.stage, Stage::New(_));
        let ready = this.advance(&mut collective.state());
        let Some(result) = ready else {
            cx.waker().wake_by_ref();
            give_way(this.begun.elapsed());
            return Poll::Pending;
        };
        this.stage = Stage::Finished;
        Poll::Ready(result.map_err(|failure| {
            collective.state().fail(failure.clone());
            Error::Collective { rank: collective.rank, failure, earlier }
        }))
    }
}

impl Drop for Gather<'_> {
    fn drop(&mut self) {
        if matches!(self.stage, Stage::Queued(..) | Stage::Underway) {
            let failure = CollectiveFailure::Cancelled { rank: self.collective.rank };
            self.collective.state().fail_here(failure, Header::Cancelled);
        }
    }
}
