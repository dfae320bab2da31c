//! When a call waits for what the device says of it.
//!
//! In a browser a verdict comes later than what it is of. A call that makes several things goes on meanwhile, and waits once, at its end, for all that was
//! left to it: what is made of something that failed fails too, and is never run. Natively verdicts are there at once, and end a call where they fail.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use crate::base::error::Result;

/// Whether something went well.
#[cfg(not(target_family = "wasm"))]
pub(crate) type Verdict = Pin<Box<dyn Future<Output = Result<()>> + Send>>;
#[cfg(target_family = "wasm")]
pub(crate) type Verdict = Pin<Box<dyn Future<Output = Result<()>>>>;

thread_local! {
    /// What has been left to the call that is being polled on this thread.
    static LEFT: RefCell<Option<Vec<Verdict>>> = const { RefCell::new(None) };
}

/// Runs a call to its end, and only then waits for the verdicts that were left to it. The first of them is its error: those after it, and an error of the
/// call's own, may follow from it.
pub(crate) async fn together<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    let mut call = pin!(call);
    let mut verdicts = Some(Vec::new());
    let result = poll_fn(|cx| leaving_to(&mut verdicts, || call.as_mut().poll(cx))).await;
    for verdict in verdicts.into_iter().flatten() {
        verdict.await?;
    }
    result
}

/// Runs a part of a call that must know how each of its steps went: one that tries what may fail.
pub(crate) async fn apart<T>(part: impl Future<Output = T>) -> T {
    let mut part = pin!(part);
    poll_fn(|cx| leaving_to(&mut None, || part.as_mut().poll(cx))).await
}

/// Calls on this thread, to whose verdicts those that are left are added.
fn leaving_to<T>(verdicts: &mut Option<Vec<Verdict>>, poll: impl FnOnce() -> T) -> T {
    struct Restore<'v>(&'v mut Option<Vec<Verdict>>);
    impl Drop for Restore<'_> {
        fn drop(&mut self) {
            LEFT.with_borrow_mut(|left| std::mem::swap(left, self.0));
        }
    }
    LEFT.with_borrow_mut(|left| std::mem::swap(left, verdicts));
    let _restore = Restore(verdicts);
    poll()
}

/// Waits for a verdict that is not there yet only if there is no call that it can be left to.
pub(crate) async fn leave(verdict: Verdict) -> Result<()> {
    let mut verdict = Some(verdict);
    poll_fn(|cx| {
        let Some(mut pending) = verdict.take() else { unreachable!("polled after it was left") };
        if let Poll::Ready(result) = pending.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        LEFT.with_borrow_mut(|left| match left {
            Some(left) => {
                left.push(pending);
                Poll::Ready(Ok(()))
            }
            None => {
                verdict = Some(pending);
                Poll::Pending
            }
        })
    })
    .await
}

/// Verdicts as they are in a browser, for tests.
#[cfg(feature = "eval")]
pub(crate) mod late {
    use std::cell::Cell;

    use super::{Poll, Verdict, poll_fn};

    thread_local! {
        static LATE: Cell<bool> = const { Cell::new(false) };
    }

    /// Whether verdicts that this thread gets from now on come late: not when they are asked for first.
    pub fn set(late: bool) {
        LATE.set(late);
    }

    pub fn as_set(verdict: Verdict) -> Verdict {
        match LATE.get() {
            true => Box::pin(async {
                let mut asked = false;
                poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    if std::mem::replace(&mut asked, true) { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                verdict.await
            }),
            false => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::task::{Context, Waker};

    use super::*;
    use crate::base::error::Error;

    /// A verdict that comes when it is asked for this many times more.
    fn after(times: u32, result: Result<()>) -> Verdict {
        let (mut times, mut result) = (times, Some(result));
        Box::pin(poll_fn(move |_| match times {
            0 => Poll::Ready(result.take().expect("asked for once")),
            _ => {
                times -= 1;
                Poll::Pending
            }
        }))
    }

    fn failure(what: &str) -> Result<()> {
        Err(Error::OutOfMemory { what: what.to_owned() })
    }

    /// What comes of a future, and how often it had to be waited for.
    fn waits<T>(future: impl Future<Output = T>) -> (T, u32) {
        let mut future = pin!(future);
        for waits in 0..100 {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return (value, waits);
            }
        }
        panic!("it never ends");
    }

    #[test]
    fn a_call_waits_once() {
        let steps = async || {
            leave(after(1, Ok(()))).await?;
            leave(after(1, Ok(()))).await?;
            leave(after(1, Ok(()))).await
        };
        assert_eq!(waits(steps()), (Ok(()), 3));
        assert_eq!(waits(together(steps())), (Ok(()), 0));
        let longer = together(async {
            leave(after(3, Ok(()))).await?;
            leave(after(3, Ok(()))).await
        });
        assert_eq!(waits(longer).0, Ok(()));
    }

    #[test]
    fn the_first_that_fails_is_the_error() {
        let went_on = Cell::new(false);
        let call = together(async {
            leave(after(2, failure("y"))).await?;
            leave(after(1, failure("bindings of y"))).await?;
            went_on.set(true);
            failure("the call itself")
        });
        assert_eq!(waits(call).0, failure("y"));
        assert!(went_on.get());
        // One that is there at once ends the call.
        went_on.set(false);
        let call = together(async {
            leave(after(0, failure("y"))).await?;
            went_on.set(true);
            Ok(())
        });
        assert_eq!(waits(call), (failure("y"), 0));
        assert!(!went_on.get());
    }

    #[test]
    fn what_is_apart_knows_how_it_went() {
        let call = together(async {
            leave(after(1, Ok(()))).await?;
            assert_eq!(apart(leave(after(1, failure("a trial")))).await, failure("a trial"));
            // And what comes after is left again.
            leave(after(1, failure("y"))).await?;
            Ok(())
        });
        assert_eq!(waits(call), (failure("y"), 1));
    }

    #[test]
    fn calls_that_take_turns_do_not_mix() {
        let step = |what: &'static str| {
            together(async move {
                leave(after(1, Ok(()))).await?;
                apart(leave(after(2, Ok(())))).await?;
                leave(after(1, failure(what))).await
            })
        };
        let (mut a, mut b) = (pin!(step("a")), pin!(step("b")));
        let mut results = [None, None];
        let mut cx = Context::from_waker(Waker::noop());
        while results.contains(&None) {
            if results[0].is_none()
                && let Poll::Ready(result) = a.as_mut().poll(&mut cx)
            {
                results[0] = Some(result);
            }
            if results[1].is_none()
                && let Poll::Ready(result) = b.as_mut().poll(&mut cx)
            {
                results[1] = Some(result);
            }
        }
        assert_eq!(results, [Some(failure("a")), Some(failure("b"))]);
    }
}
