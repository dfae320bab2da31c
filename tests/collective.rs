//! Ranks in one process exchange messages, and fail together.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use pollster::block_on;
use wgnorm::collective::{Collective, CollectiveFailure, LocalRank, SingleRank};
use wgnorm::{Error, Result};

/// Longer than any test may take.
const LONG: Duration = Duration::from_secs(600);
/// Of groups in which ranks are late. Tests assert that it passes, never when.
const SHORT: Duration = Duration::from_millis(400);

type Messages = Vec<Vec<u8>>;

/// Polls all futures in one thread until all are ready.
async fn join<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                *output = Some(ready);
            }
        }
        if outputs.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// Runs every rank on a thread of its own.
fn on_threads<T: Send + 'static>(
    ranks: Vec<LocalRank>,
    work: impl Fn(LocalRank) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let threads: Vec<_> = ranks
        .into_iter()
        .map(|rank| {
            let work = work.clone();
            thread::spawn(move || work(rank))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// What a rank gives in a round: 0 to 99 bytes.
fn message(rank: usize, round: usize) -> Vec<u8> {
    (0..round * 7 % 100).map(|i| (rank * 31 + round + i) as u8).collect()
}

fn messages(world_size: usize, round: usize) -> Messages {
    (0..world_size).map(|rank| message(rank, round)).collect()
}

fn failed(rank: usize, failure: CollectiveFailure) -> Result<Messages> {
    Err(Error::Collective { rank, failure, earlier: false })
}

fn unusable(rank: usize, failure: CollectiveFailure) -> Result<Messages> {
    Err(Error::Collective { rank, failure, earlier: true })
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn every_rank_gets_all_messages_in_rank_order() {
    for world_size in [1, 2, 3, 8] {
        let ranks = LocalRank::group(world_size, LONG).unwrap();
        on_threads(ranks, move |rank| {
            assert_eq!(rank.world_size(), world_size);
            for round in 0..500 {
                let gathered = block_on(rank.all_gather(message(rank.rank(), round)));
                assert_eq!(gathered, Ok(messages(world_size, round)));
            }
        });
    }
}

#[test]
fn one_thread_drives_all_ranks() {
    let ranks = LocalRank::group(4, LONG).unwrap();
    let rounds = |rank: LocalRank| async move {
        for round in 0..100 {
            assert_eq!(rank.all_gather(message(rank.rank(), round)).await, Ok(messages(4, round)));
        }
        rank
    };
    let ranks = block_on(join(ranks.into_iter().map(rounds).collect()));
    assert_eq!(ranks.iter().map(Collective::rank).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

/// An executor that never sleeps, as `Context::block_on` while the device has nothing to do.
#[test]
fn polling_without_a_waker_comes_to_an_end() {
    let ranks = LocalRank::group(3, LONG).unwrap();
    on_threads(ranks, |rank| {
        for round in 0..20 {
            let mut gather = pin!(rank.all_gather(message(rank.rank(), round)));
            let gathered = loop {
                match poll_once(gather.as_mut()) {
                    Poll::Ready(gathered) => break gathered,
                    Poll::Pending => thread::yield_now(),
                }
            };
            assert_eq!(gathered, Ok(messages(3, round)));
        }
    });
}

#[test]
fn layers_share_a_collective() {
    struct Layer<C>(C, usize);
    impl<C: Collective> Layer<C> {
        async fn forward(&self) {
            let (rank, world_size) = (self.0.rank(), self.0.world_size());
            let gathered = self.0.all_gather(message(rank, self.1)).await;
            assert_eq!(gathered, Ok(messages(world_size, self.1)));
        }
    }
    on_threads(LocalRank::group(3, LONG).unwrap(), |rank| {
        for _ in 0..20 {
            let layers = [Layer(&rank, 1), Layer(&rank, 2)];
            layers.iter().for_each(|layer| block_on(layer.forward()));
        }
        let shared = Rc::new(rank);
        block_on(Layer(shared.clone(), 3).forward());
        let shared = Arc::new(Rc::into_inner(shared).unwrap());
        block_on(Layer(shared.clone(), 4).forward());
        // Underway at the same time, in one order on all ranks.
        let layers = [Layer(shared.clone(), 5), Layer(shared.clone(), 6), Layer(shared, 7)];
        block_on(join(layers.iter().map(Layer::forward).collect()));
    });
}

#[test]
fn ranks_and_calls_move_between_threads() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let ranks = send(LocalRank::group(1, LONG).unwrap());
    let shared: &(dyn Sync + Send) = &ranks[0];
    let _ = shared;
    assert_eq!(block_on(send((&&ranks[0]).all_gather(vec![3]))), Ok(vec![vec![3]]));
    let shared = send(ranks.into_iter().map(Arc::new).next().unwrap());
    assert_eq!(block_on(send(shared.all_gather(vec![4]))), Ok(vec![vec![4]]));
}

#[test]
fn a_group_has_at_least_one_rank() {
    for got in [0, usize::MAX] {
        let error = LocalRank::group(got, LONG).unwrap_err();
        let failure = CollectiveFailure::WorldSize { most: 65536, got };
        assert_eq!(error, Error::CollectiveSetup { failure });
    }
}

#[test]
fn messages_of_different_lengths_fail_on_all_ranks() {
    let ranks = LocalRank::group(3, LONG).unwrap();
    let results = on_threads(ranks, |rank| {
        let length = if rank.rank() == 1 { 12 } else { 8 };
        let first = block_on(rank.all_gather(vec![0; length]));
        (first, block_on(rank.all_gather(Vec::new())), rank)
    });
    for (first, second, rank) in results {
        let Err(Error::Collective { rank: at, failure: CollectiveFailure::Lengths { .. }, .. }) = &first
        else {
            panic!("{first:?}");
        };
        assert_eq!(*at, rank.rank());
        let text = first.unwrap_err().to_string();
        assert!(text.contains("12 bytes") || text.contains("gave 12"), "{text}");
        assert!(text.contains("rank 1") && text.contains("same order"), "{text}");
        assert!(matches!(second, Err(Error::Collective { earlier: true, .. })), "{second:?}");
    }
}

#[test]
fn a_rank_that_left_before_is_an_error_at_once() {
    let mut ranks = LocalRank::group(3, LONG).unwrap();
    drop(ranks.remove(1));
    let left = CollectiveFailure::Left { rank: 1 };
    for rank in &ranks {
        assert_eq!(block_on(rank.all_gather(vec![1])), unusable(rank.rank(), left.clone()));
    }
    // The first reason stays.
    ranks[0].fail("too late");
    drop(ranks.remove(0));
    assert_eq!(block_on(ranks[0].all_gather(vec![1])), unusable(2, left));
}

#[test]
fn a_rank_that_leaves_wakes_those_who_wait() {
    let ranks = LocalRank::group(3, LONG).unwrap();
    let results = on_threads(ranks, |rank| {
        block_on(rank.all_gather(vec![1])).unwrap();
        if rank.rank() == 2 {
            return None;
        }
        Some(block_on(rank.all_gather(vec![2])))
    });
    for (rank, result) in results.iter().enumerate().take(2) {
        // Depending on who is first, the call is underway when rank 2 leaves, or is made after.
        let Some(Err(Error::Collective { rank: at, failure, .. })) = result else { panic!("{result:?}") };
        // A rank that has its error leaves too, but rank 2 was the first.
        assert_eq!((*at, failure), (rank, &CollectiveFailure::Left { rank: 2 }));
    }
}

#[test]
fn ranks_end_in_any_order() {
    let mut ranks = LocalRank::group(2, LONG).unwrap();
    let (second, first) = (ranks.pop().unwrap(), ranks.pop().unwrap());
    let mut early = pin!(first.all_gather(vec![1]));
    assert!(poll_once(early.as_mut()).is_pending());
    assert!(block_on(second.all_gather(vec![2])).is_ok());
    drop(second);
    // Complete before the other rank left.
    assert_eq!(block_on(early), Ok(vec![vec![1], vec![2]]));
    assert_eq!(block_on(first.all_gather(vec![])), unusable(0, CollectiveFailure::Left { rank: 1 }));
}

#[test]
fn a_panic_reaches_the_other_ranks() {
    let mut ranks = LocalRank::group(2, LONG).unwrap();
    let panicking = ranks.pop().unwrap();
    let mut waiting = pin!(ranks[0].all_gather(vec![1]));
    assert!(poll_once(waiting.as_mut()).is_pending());
    let thread = thread::spawn(move || {
        let _rank = panicking;
        // Without the message that a panic prints.
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(thread.join().is_err());
    let failure = CollectiveFailure::Failed { rank: 1, reason: "its thread panicked".to_owned() };
    assert_eq!(block_on(waiting), failed(0, failure));
}

#[test]
fn a_rank_says_that_it_failed() {
    let ranks = LocalRank::group(3, LONG).unwrap();
    let mut waiting = pin!(ranks[0].all_gather(vec![1]));
    assert!(poll_once(waiting.as_mut()).is_pending());
    ranks[2].fail("out of memory for y");
    ranks[1].fail("not the first");
    let failure = CollectiveFailure::Failed { rank: 2, reason: "out of memory for y".to_owned() };
    assert_eq!(block_on(waiting), failed(0, failure.clone()));
    for rank in &ranks {
        let error = block_on(rank.all_gather(vec![1]));
        assert_eq!(error, unusable(rank.rank(), failure.clone()));
        assert!(error.unwrap_err().to_string().ends_with("rank 2 failed: out of memory for y"));
    }
}

#[test]
fn the_deadline_names_the_missing_ranks() {
    let ranks = LocalRank::group(4, SHORT).unwrap();
    let failure = CollectiveFailure::Deadline { deadline: SHORT, missing: Some(vec![1, 3]) };
    // Woken by the watchdog; pollster sleeps until then.
    let results = block_on(join(vec![ranks[0].all_gather(vec![1]), ranks[2].all_gather(vec![2])]));
    assert_eq!(results, [failed(0, failure.clone()), failed(2, failure.clone())]);
    assert_eq!(block_on(ranks[3].all_gather(vec![4])), unusable(3, failure.clone()));
    let text = results[0].as_ref().unwrap_err().to_string();
    assert_eq!(text, "rank 0: the collective failed: ranks 1, 3 did not arrive within 400ms");
}

/// The watchdog sleeps, idles and is woken again.
#[test]
fn the_deadline_holds_in_later_rounds() {
    let ranks = LocalRank::group(2, SHORT).unwrap();
    let together =
        |value: u8| block_on(join(ranks.iter().map(|rank| rank.all_gather(vec![value])).collect()));
    assert!(together(1).iter().all(Result::is_ok));
    // Nobody waits, so no deadline passes.
    thread::sleep(2 * SHORT);
    assert!(together(2).iter().all(Result::is_ok));
    let failure = CollectiveFailure::Deadline { deadline: SHORT, missing: Some(vec![1]) };
    assert_eq!(block_on(ranks[0].all_gather(vec![3])), failed(0, failure.clone()));
    assert_eq!(block_on(ranks[1].all_gather(vec![3])), unusable(1, failure));
}

#[test]
fn no_deadline_and_none_at_all() {
    let ranks = LocalRank::group(2, Duration::MAX).unwrap();
    assert!(block_on(join(ranks.iter().map(|rank| rank.all_gather(vec![1])).collect()))[1].is_ok());
    // Nobody can be in time but a rank alone.
    let ranks = LocalRank::group(2, Duration::ZERO).unwrap();
    let failure = CollectiveFailure::Deadline { deadline: Duration::ZERO, missing: Some(vec![0]) };
    assert_eq!(block_on(ranks[1].all_gather(vec![1])), failed(1, failure));
    let alone = LocalRank::group(1, Duration::ZERO).unwrap();
    assert_eq!(block_on(alone[0].all_gather(vec![1])), Ok(vec![vec![1]]));
}

#[test]
fn a_dropped_call_fails_the_group() {
    let ranks = LocalRank::group(2, LONG).unwrap();
    // Never polled: no call.
    drop(ranks[0].all_gather(vec![1, 2, 3]));
    assert!(block_on(join(ranks.iter().map(|rank| rank.all_gather(vec![1])).collect()))[0].is_ok());
    {
        let mut dropped = pin!(ranks[0].all_gather(vec![1]));
        assert!(poll_once(dropped.as_mut()).is_pending());
    }
    let failure = CollectiveFailure::Cancelled { rank: 0 };
    for rank in &ranks {
        assert_eq!(block_on(rank.all_gather(vec![1])), unusable(rank.rank(), failure.clone()));
    }
}

/// Those who have all messages lose nothing when another rank drops its result.
#[test]
fn a_dropped_result_harms_nobody() {
    let ranks = LocalRank::group(2, LONG).unwrap();
    {
        let mut dropped = pin!(ranks[0].all_gather(vec![1]));
        assert!(poll_once(dropped.as_mut()).is_pending());
        assert!(block_on(ranks[1].all_gather(vec![2])).is_ok());
    }
    assert!(block_on(join(ranks.iter().map(|rank| rank.all_gather(vec![1])).collect()))[0].is_ok());
}

#[test]
fn a_world_of_one() {
    let single = SingleRank::new();
    assert_eq!((single.rank(), single.world_size()), (0, 1));
    assert_eq!(block_on(Rc::new(&single).all_gather(vec![5])), Ok(vec![vec![5]]));
    single.fail("no more");
    single.fail("again");
    let failure = CollectiveFailure::Failed { rank: 0, reason: "no more".to_owned() };
    assert_eq!(block_on(single.all_gather(vec![5])), unusable(0, failure));
}
