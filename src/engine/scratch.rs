//! Buffers for what one dispatch of an operation leaves for another, which operations hold while they are there and hand on when they are gone.
//!
//! An operation writes all that it reads, and its dispatches are recorded together, so whatever is in such a buffer when it is handed on, and whether
//! the one before has run yet, makes no difference.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::buffer::Buffer;
use super::draft::Room;
use crate::base::error::Result;
use crate::engine::context::Context;

/// Buffers that no operation holds.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Buffer>>);

/// A buffer that one operation holds.
#[derive(Debug)]
pub(crate) struct Held {
    buffer: Buffer,
    /// Where it goes then.
    pool: Weak<Pool>,
}

/// What a pool keeps at most: buffers, and their bytes.
const MOST: usize = 64;
const MOST_BYTES: u64 = 64 << 20;

impl Pool {
    /// A buffer with room enough, and not too large.
    pub async fn take(pool: &Arc<Self>, context: &Context, room: Room) -> Result<Held> {
        let class = class(room.bytes);
        let pool = match room.zeroed {
            true => Weak::new(),
            false => match pool.find(class) {
                Some(buffer) => return Ok(Held { buffer, pool: Arc::downgrade(pool) }),
                None => Arc::downgrade(pool),
            },
        };
        let size = class.min(context.capabilities().max_buffer_bytes).max(room.bytes);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let buffer = context.create_gpu_buffer("scratch", size, usage).await?;
        // Where kernels are checked, one that reads what none has written is caught.
        #[cfg(feature = "eval")]
        if !room.zeroed {
            context.write_gpu(&buffer, 0, &vec![0xFF; size as usize]).await?;
        }
        Ok(Held { buffer: Buffer::own(buffer), pool })
    }

    fn find(&self, size: u64) -> Option<Buffer> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = free.iter().rposition(|buffer| buffer.size() == size)?;
        Some(free.remove(found))
    }

    fn put(&self, buffer: Buffer) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(buffer);
        while free.len() > MOST || free.iter().map(Buffer::size).sum::<u64>() > MOST_BYTES {
            free.remove(0);
        }
    }
}

impl Held {
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.put(self.buffer.clone());
        }
    }
}

/// Sizes are an eighth of a power of two apart, so that operations over like shapes share.
fn class(bytes: u64) -> u64 {
    let step = (bytes.max(1).next_power_of_two() / 16).max(256);
    bytes.max(1).next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_an_eighth_larger_at_most() {
        assert_eq!([1, 256, 257, 5000].map(class), [256, 256, 512, 5120]);
        for bytes in [10_000, 1 << 20, (1 << 20) + 1, 123_456_789] {
            assert!(class(bytes) >= bytes && class(bytes) <= bytes + bytes / 8 + 1, "{bytes}");
        }
    }
}
