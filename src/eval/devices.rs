//! Devices to run on: drivers compile one kernel at a time per device, so a CPU has one for each core.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::base::error::Result;
use crate::engine::adapter::ContextOptions;
use crate::engine::context::Context;
use crate::engine::shader::modules::directory;

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
    /// As many as pay: one for each core, since kernels of a case take longer to compile than to run, and drivers compile one at a time per device.
    ///
    /// # Errors
    /// Those of [`Context::headless_with`].
    pub fn open(options: &ContextOptions) -> Result<Self> {
        let first = pollster::block_on(Context::headless_with(options))?;
        let count = thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST));
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

    /// Works on all items, a thread per device, and returns the results of each group in their order. Items of a group share kernels: a
    /// device stays with one as long as it has items, then takes that with most left, where no other device is if it can.
    pub fn each<T: Sync, R: Send>(
        &self,
        groups: &[Vec<T>],
        work: impl Fn(&Context, &T) -> R + Sync,
    ) -> Vec<Vec<R>> {
        let queues = Mutex::new(Queues::new(groups.iter().map(Vec::len)));
        let results = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for context in &self.contexts {
                let (queues, results, work) = (&queues, &results, &work);
                scope.spawn(move || {
                    let mut own = None;
                    loop {
                        let next = queues.lock().unwrap_or_else(PoisonError::into_inner).next(&mut own);
                        let Some((group, item)) = next else { break };
                        let result = work(context, &groups[group][item]);
                        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                        results.push((group, item, result));
                    }
                });
            }
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(group, item, _)| (*group, *item));
        let mut of_groups: Vec<Vec<R>> = groups.iter().map(|group| Vec::with_capacity(group.len())).collect();
        results.into_iter().for_each(|(group, _, result)| of_groups[group].push(result));
        of_groups
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

/// What is left of each group.
struct Queues {
    left: Vec<Queue>,
}

struct Queue {
    next: usize,
    len: usize,
    /// Devices that are at it.
    devices: usize,
}

impl Queues {
    fn new(lens: impl Iterator<Item = usize>) -> Self {
        Self { left: lens.map(|len| Queue { next: 0, len, devices: 0 }).collect() }
    }

    /// The next item for a device, which is at a group of its own.
    fn next(&mut self, own: &mut Option<usize>) -> Option<(usize, usize)> {
        let left = |queue: &Queue| queue.len - queue.next;
        if let Some(group) = own.take_if(|group| left(&self.left[*group]) == 0) {
            self.left[group].devices -= 1;
        }
        if own.is_none() {
            let open = self.left.iter().enumerate().filter(|(_, queue)| left(queue) > 0);
            let best = open.min_by_key(|(_, queue)| (queue.devices, Reverse(left(queue))));
            *own = best.map(|(group, _)| group);
            self.left[(*own)?].devices += 1;
        }
        let queue = &mut self.left[(*own)?];
        queue.next += 1;
        Some(((*own)?, queue.next - 1))
    }
}

/// Lets go of the kernels that were used longest ago, so that a context holds no more than so many: for long checks, whose memory would grow with
/// each. A software driver takes some 2.5 MB for one.
pub fn trim(context: &Context, most: usize) {
    context.pipelines().trim(most);
    context.recipes().retain(|recipe| recipe.is_kept(context));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_keep_to_groups_and_help_at_the_end() {
        let mut queues = Queues::new([2, 5, 0, 1].into_iter());
        let (mut a, mut b) = (None, None);
        // The longest first; the other device takes another.
        assert_eq!(queues.next(&mut a), Some((1, 0)));
        assert_eq!(queues.next(&mut b), Some((0, 0)));
        assert_eq!(queues.next(&mut b), Some((0, 1)));
        assert_eq!(queues.next(&mut a), Some((1, 1)));
        assert_eq!(queues.next(&mut b), Some((3, 0)));
        // Nothing else is left.
        assert_eq!(queues.next(&mut b), Some((1, 2)));
        assert_eq!(queues.next(&mut a), Some((1, 3)));
        assert_eq!(queues.next(&mut b), Some((1, 4)));
        assert_eq!((queues.next(&mut a), queues.next(&mut b), queues.next(&mut b)), (None, None, None));
    }
}
