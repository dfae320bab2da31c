//! Kernels that are compiled before they are needed: operations are rehearsed on tensors that take no memory, which notes what they would run.

use std::collections::HashSet;
use std::sync::Arc;

use crate::base::error::Result;
use crate::engine::context::Context;
use crate::engine::rehearsal::Rehearsal;
use crate::engine::shader::Variant;
use crate::spec::{Spec, rehearse};

impl Context {
    /// Compiles the kernels of problems ahead, so that their first passes do not wait for the driver's compiler: those of the forward pass, and with
    /// [`Passes::Backward`](crate::spec::Passes::Backward) of the backward pass with all gradients, over tensors in buffers of their own. No tensor is allocated but those of parameters and
    /// masks. Returns how many kernels there were to compile.
    ///
    /// Natively they are compiled on threads of their own, one for each core, or a single one where the adapter is a CPU, whose driver compiles one at a
    /// time. The future itself does next to nothing and may be polled by an application's own thread. Dropping it stops what has not begun.
    ///
    /// ```
    /// use wgnorm::{Context, Spec};
    /// let context = Context::headless_blocking()?;
    /// let specs: Vec<Spec> = vec!["layer 64x256 relu backward".parse()?, "frozen 8x16x7x7".parse()?];
    /// assert!(context.block_on(context.warm_up(&specs))? > 0);
    /// assert_eq!(context.block_on(context.warm_up(&specs))?, 0);
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the problems and of their layers; [`Error::Spec`](crate::Error::Spec) for statistics that are composed of several passes
    /// ([`Statistics`](crate::spec::Statistics)), whose parts can be warmed up alone; those of compiling.
    pub async fn warm_up(&self, specs: &[Spec]) -> Result<usize> {
        let rehearsal = Arc::new(Rehearsal::default());
        let mut missing = Vec::new();
        for spec in specs {
            rehearse(&self.rehearsing(rehearsal.clone(), spec.tuning), spec).await?;
            missing.extend(rehearsal.take_variants());
        }
        let mut known = HashSet::new();
        missing.retain(|variant| known.insert(*variant) && !self.pipelines().has(variant));
        let count = missing.len();
        compile(self, missing).await?;
        Ok(count)
    }
}

#[cfg(target_family = "wasm")]
async fn compile(context: &Context, variants: Vec<Variant>) -> Result<()> {
    for variant in &variants {
        context.pipelines().get(context, variant, None).await?;
    }
    Ok(())
}

/// Compiles on threads, until all are compiled, one cannot be, or nobody waits any more.
#[cfg(not(target_family = "wasm"))]
async fn compile(context: &Context, variants: Vec<Variant>) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if context.capabilities().cpu { 1 } else { cores }.min(variants.len());
    if threads == 0 {
        return Ok(());
    }
    let crew = crew::Crew::new(context, variants, threads);
    crew.await
}

#[cfg(not(target_family = "wasm"))]
mod crew {
    //! Threads that share a list of kernels.

    use std::future::Future;
    use std::pin::Pin;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::task::{Poll, Waker};

    use super::{Context, Result, Variant};
    use crate::base::error::Error;

    /// Waits for all of them; what is dropped waits for none.
    pub(super) struct Crew(Arc<Mutex<Work>>);

    struct Work {
        left: Vec<Variant>,
        /// Threads that have not ended.
        threads: usize,
        failed: Option<Error>,
        waker: Option<Waker>,
    }

    impl Crew {
        pub fn new(context: &Context, mut variants: Vec<Variant>, threads: usize) -> Self {
            // Taken from the end.
            variants.reverse();
            let work = Work { left: variants, threads, failed: None, waker: None };
            let work = Arc::new(Mutex::new(work));
            for _ in 0..threads {
                let (context, turn) = (context.clone(), Turn(work.clone()));
                std::thread::spawn(move || turn.take_all(&context));
            }
            Self(work)
        }
    }

    fn locked(work: &Mutex<Work>) -> MutexGuard<'_, Work> {
        work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's part. However it ends, who waits for it is told.
    struct Turn(Arc<Mutex<Work>>);

    impl Turn {
        fn take_all(&self, context: &Context) {
            loop {
                let next = locked(&self.0).left.pop();
                let Some(variant) = next else { return };
                if let Err(error) = pollster::block_on(context.pipelines().get(context, &variant, None)) {
                    let mut work = locked(&self.0);
                    work.left.clear();
                    work.failed.get_or_insert(error);
                }
            }
        }
    }

    impl Drop for Turn {
        fn drop(&mut self) {
            let mut work = locked(&self.0);
            work.threads -= 1;
            let waker = if work.threads == 0 { work.waker.take() } else { None };
            drop(work);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    impl Future for Crew {
        type Output = Result<()>;

        fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Result<()>> {
            let mut work = locked(&self.0);
            if work.threads > 0 {
                work.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(work.failed.take().map_or(Ok(()), Err))
        }
    }

    impl Drop for Crew {
        fn drop(&mut self) {
            locked(&self.0).left.clear();
        }
    }
}
