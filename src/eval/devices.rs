//! Devices to run on: drivers compile one kernel at a time per device, so a CPU has one for each core.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::context::Context;
use crate::error::Result;
use crate::gpu::adapter::ContextOptions;
use crate::gpu::shader::directory;

/// Most devices.
const MOST: usize = 8;
/// Contexts on one adapter, each on a device of its own.
#[derive(Debug)]
pub struct Devices {
    contexts: Vec<Context>,
}

/// What compiling took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compiled {
    /// Kernels.
    pub kernels: u64,
    /// Time, of all devices together.
    pub time: Duration,
}

impl Devices {
    /// As many as pay: one for each core of a CPU, else one.
    ///
    /// # Errors
    /// Those of [`Context::headless_with`].
    pub fn open(options: &ContextOptions) -> Result<Self> {
        let first = pollster::block_on(Context::headless_with(options))?;
        let count = match first.device().adapter_info().device_type {
            wgpu::DeviceType::Cpu => thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST)),
            _ => 1,
        };
        let mut contexts = vec![first];
        while contexts.len() < count {
            contexts.push(pollster::block_on(Context::headless_with(options))?);
        }
        Ok(Self { contexts })
    }

    /// The first.
    pub fn first(&self) -> &Context {
        &self.contexts[0]
    }

    /// All of them.
    pub fn all(&self) -> &[Context] {
        &self.contexts
    }

    /// Works on all items, a thread per device, and returns the results in their order. Items are handed out in order, so those that share
    /// kernels should be one item.
    pub fn each<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&Context, &T) -> R + Sync) -> Vec<R> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for context in &self.contexts {
                let (next, results, work) = (&next, &results, &work);
                scope.spawn(move || {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(item) = items.get(i) else { break };
                        let result = work(context, item);
                        results.lock().unwrap_or_else(PoisonError::into_inner).push((i, result));
                    }
                });
            }
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(i, _)| *i);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// What compiling took so far.
    pub fn compiled(&self) -> Compiled {
        let spent = self.contexts.iter().map(|context| context.pipelines().spent.get());
        spent.fold(Compiled::default(), |all, (kernels, time)| Compiled {
            kernels: all.kernels + kernels,
            time: all.time + time,
        })
    }
}

/// Lets go of the kernels that were used longest ago, so that a context holds no more than so many: for long checks, whose memory would grow with
/// each. A software driver takes some 2.5 MB for one.
pub fn trim(context: &Context, most: usize) {
    context.pipelines().trim(most);
}

/// The shader files that kernels of a context are made of, by their keys.
pub fn files(context: &Context, kernels: &[String]) -> BTreeSet<String> {
    kernels.iter().flat_map(|key| context.pipelines().files(key)).collect()
}

/// From now on, kernels are made of the shader files in a directory, which has all that `shaders/` has, instead of those that were built in.
///
/// # Errors
/// [`Error::File`](crate::Error::File) if one cannot be read, or a directory was read before; nothing changes then.
pub fn read_shaders(directory: impl AsRef<Path>) -> Result<()> {
    directory::read(directory.as_ref())
}
