//! How many passes the kernels have done, and what they cost the host.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

static FORWARD: Counter = Counter::new();
static BACKWARD: Counter = Counter::new();

/// Passes so far, of all devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// How many.
    pub count: u64,
    /// Time of the host in them: places, plans, bindings, a submission, and whatever burn had queued before, which is handed to the device first. Under fusion that is on the
    /// thread that runs burn's operations of the device.
    pub host: Duration,
}

/// Forward passes so far.
pub fn forward() -> Passes {
    FORWARD.get()
}

/// Backward passes so far.
pub fn backward() -> Passes {
    BACKWARD.get()
}

pub(crate) fn in_forward<T>(pass: impl FnOnce() -> T) -> T {
    FORWARD.time(pass)
}

pub(crate) fn in_backward<T>(pass: impl FnOnce() -> T) -> T {
    BACKWARD.time(pass)
}

struct Counter {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Counter {
    const fn new() -> Self {
        Self { count: AtomicU64::new(0), nanoseconds: AtomicU64::new(0) }
    }

    fn get(&self) -> Passes {
        let host = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed));
        Passes { count: self.count.load(Ordering::Relaxed), host }
    }

    fn time<T>(&self, pass: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = pass();
        let nanoseconds = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        result
    }
}
