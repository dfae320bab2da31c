//! A GPU that waits for the host, which makes and checks results, slows its clocks down and takes up to seconds of work to raise them again: what is timed then
//! takes two or three times as long. So it is kept at work, on a device of its own, whenever nothing is timed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wgnorm::tuning::prepare_copy;
use wgnorm::{Context, Prepared};

/// Values of the tensor that is copied, and copies at once: well under a millisecond of a large GPU.
const VALUES: usize = 1 << 24;
const COPIES: usize = 4;

/// Work in the background, until it is dropped.
pub struct Warmth {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Held by whoever uses the GPU.
    turn: Mutex<()>,
    /// Somebody else wants it.
    wanted: AtomicBool,
    over: AtomicBool,
}

/// The GPU to oneself.
pub struct Alone<'a> {
    shared: &'a Shared,
    _turn: MutexGuard<'a, ()>,
}

impl Warmth {
    /// Starts it on the adapter; on a CPU there is none, whose time it would take.
    pub fn start(context: &Context, adapter: Option<&str>) -> Self {
        let shared = Arc::new(Shared::default());
        let is_cpu = context.device().adapter_info().device_type == wgpu::DeviceType::Cpu;
        let work = (!is_cpu).then(|| Work::prepare(adapter)).flatten();
        let worker = work.map(|work| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                while !shared.over.load(Ordering::Relaxed) {
                    if shared.wanted.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_micros(200));
                        continue;
                    }
                    let _turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
                    if work.run().is_err() {
                        break;
                    }
                }
            })
        });
        Self { shared, worker }
    }

    /// Stops it until the result is dropped.
    pub fn paused(&self) -> Alone<'_> {
        self.shared.wanted.store(true, Ordering::Relaxed);
        let turn = self.shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Alone { shared: &self.shared, _turn: turn }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.shared.wanted.store(false, Ordering::Relaxed);
    }
}

impl Drop for Warmth {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            // What it could not do, it need not.
            let _ = worker.join();
        }
    }
}

struct Work {
    context: Context,
    copy: Prepared,
}

impl Work {
    /// Nothing where there is no room for it.
    fn prepare(adapter: Option<&str>) -> Option<Self> {
        let context = crate::open(adapter).ok()?;
        let copy = context.block_on(async {
            let x = context.zeros(&[VALUES]).await?;
            prepare_copy(&context, &x, &context.zeros(&[VALUES]).await?).await
        });
        Some(Self { copy: copy.ok()?, context })
    }

    fn run(&self) -> Result<(), wgpu::PollError> {
        let device = self.context.device();
        let mut encoder = device.create_command_encoder(&Default::default());
        (0..COPIES).for_each(|_| self.copy.record(&mut encoder));
        self.context.queue().submit([encoder.finish()]);
        device.poll(wgpu::PollType::wait_indefinitely()).map(|_| ())
    }
}
