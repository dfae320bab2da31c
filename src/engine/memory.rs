//! Memory of a device, with who may let go of it.
//!
//! wgpu frees a buffer when nobody holds it any more; in a browser that is when garbage is collected, long after much more has been allocated. So what the
//! crate has made is destroyed when its last owner here goes: a tensor, an operation that is bound to it. Not what the application may still use: a buffer
//! that it gave, one that it has been [handed](Memory::hand_out), one that it has recorded for a submission of its own.

use std::sync::atomic::{AtomicBool, Ordering};

/// A buffer of a device.
#[derive(Debug)]
pub(crate) struct Memory {
    buffer: wgpu::Buffer,
    /// Whether the application may use it as well.
    handed_out: AtomicBool,
}

impl Memory {
    /// What the crate has made.
    pub fn own(buffer: wgpu::Buffer) -> Self {
        Self { buffer, handed_out: AtomicBool::new(false) }
    }

    /// What the application has made.
    pub fn borrowed(buffer: wgpu::Buffer) -> Self {
        Self { buffer, handed_out: AtomicBool::new(true) }
    }

    /// For use within the crate.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// For use by the application: it is never destroyed from then on.
    pub fn hand_out(&self) -> &wgpu::Buffer {
        self.handed_out.store(true, Ordering::Relaxed);
        &self.buffer
    }
}

/// Whether it is the same buffer.
impl PartialEq for Memory {
    fn eq(&self, other: &Self) -> bool {
        self.buffer == other.buffer
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !*self.handed_out.get_mut() {
            // What has been submitted is still run.
            self.buffer.destroy();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::context::Context;

    #[test]
    fn what_is_destroyed_is_what_nobody_else_has() {
        let context = Context::headless_blocking().unwrap();
        let create = || {
            context.device().create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 16,
                usage: wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let is_there =
            |buffer: &wgpu::Buffer| context.block_on(context.write_gpu(buffer, 0, &[0; 16])).is_ok();
        let (own, borrowed, handed_out) = (create(), create(), create());
        assert!(is_there(&own));
        drop(Memory::own(own.clone()));
        assert!(!is_there(&own));
        drop(Memory::borrowed(borrowed.clone()));
        assert!(is_there(&borrowed));
        let memory = Memory::own(handed_out.clone());
        assert!(memory.hand_out() == &handed_out);
        drop(memory);
        assert!(is_there(&handed_out));
    }
}
