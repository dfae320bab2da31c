//! The one thing that layers on several devices need from each other: every rank's message, in rank order.
//!
//! [`BatchNorm::synchronised`](crate::BatchNorm::synchronised) takes a [`Collective`]: [`LocalRank`] for devices of one process, `MpiCollective` for processes under MPI (feature
//! `mpi`), [`SingleRank`] for one, or yours.

#[cfg(not(target_family = "wasm"))]
mod local;
#[cfg(all(feature = "mpi", not(target_family = "wasm")))]
mod mpi;
mod single;

use std::rc::Rc;
use std::sync::Arc;

#[cfg(not(target_family = "wasm"))]
pub use self::local::LocalRank;
#[cfg(all(feature = "mpi", not(target_family = "wasm")))]
pub use self::mpi::MpiCollective;
pub use self::single::SingleRank;
pub use crate::base::failure::CollectiveFailure;

use crate::base::error::Result;

/// A fixed number of ranks, each with its part of a batch, that exchange small messages.
///
/// A rank is a device, a thread or a process. The value that implements this trait is one rank's end. What it needs of an
/// executor is nothing: futures are woken, and whether they are [`Send`] follows from the implementation. Implementations:
///
/// - [`LocalRank`]: ranks in one process.
/// - `MpiCollective`: processes under MPI, with the feature `mpi`.
/// - [`SingleRank`]: a world of one.
///
/// # Contract
/// - All ranks make the same calls in the same order. A call is made when its future is first polled.
/// - A rank may have several calls underway; they are matched in the order in which they were made.
/// - What ranks call is told apart by the length of messages alone.
/// - Code that is generic over `C: Collective` cannot require its futures to be [`Send`]; with a concrete collective they are if its are.
/// - Several layers can share one collective, by `&C`, [`Arc<C>`] or [`Rc<C>`].
/// - A collective fails as a whole and for good. Calls that are underway return [`Error::Collective`](crate::Error::Collective),
///   unless their messages are complete. Every later call of a rank that knows of the failure returns that error at once, with
///   the first reason and `earlier` set.
///
/// ```
/// use std::time::Duration;
/// use wgnorm::collective::{Collective, LocalRank};
///
/// /// The sum over all ranks. In rank order, so that all ranks get the same bits.
/// async fn sum<C: Collective>(collective: &C, value: f32) -> Result<f32, wgnorm::Error> {
///     let messages = collective.all_gather(value.to_le_bytes().to_vec()).await?;
///     Ok(messages.iter().map(|message| f32::from_le_bytes(message[..].try_into().unwrap())).sum())
/// }
///
/// let ranks = LocalRank::group(3, Duration::from_secs(60))?;
/// let threads: Vec<_> = ranks
///     .into_iter()
///     .map(|rank| std::thread::spawn(move || pollster::block_on(sum(&rank, rank.rank() as f32 + 0.5))))
///     .collect();
/// for thread in threads {
///     assert_eq!(thread.join().unwrap()?, 4.5);
/// }
/// # Ok::<(), wgnorm::Error>(())
/// ```
pub trait Collective {
    /// This rank's number, less than [`Collective::world_size`].
    fn rank(&self) -> usize;

    /// How many ranks there are, at least 1.
    fn world_size(&self) -> usize;

    /// Gives `message` to all ranks and returns every rank's message, in rank order, this rank's own included.
    ///
    /// All messages of one call must have the same length in bytes, which may be 0. A future that is dropped after it was polled and
    /// before it was ready makes the collective fail, because the other ranks may have received this rank's message; one
    /// that was never polled was no call.
    ///
    /// # Errors
    /// [`Error::Collective`](crate::Error::Collective): a rank does not arrive in time, leaves, fails or cancels; the lengths
    /// differ; or the collective failed before.
    fn all_gather(&self, message: Vec<u8>) -> impl Future<Output = Result<Vec<Vec<u8>>>>;

    /// Makes the collective fail, so that the other ranks return an error instead of waiting for this one. Does nothing if it
    /// failed before.
    fn fail(&self, reason: &str);
}

/// A pointer to a rank's end is that end.
macro_rules! delegate {
    ($($pointer:ty),+) => {$(
        impl<C: Collective> Collective for $pointer {
            fn rank(&self) -> usize {
                (**self).rank()
            }

            fn world_size(&self) -> usize {
                (**self).world_size()
            }

            fn all_gather(&self, message: Vec<u8>) -> impl Future<Output = Result<Vec<Vec<u8>>>> {
                (**self).all_gather(message)
            }

            fn fail(&self, reason: &str) {
                (**self).fail(reason);
            }
        }
    )+};
}

delegate!(&C, Arc<C>, Rc<C>);
