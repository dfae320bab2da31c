//! Whether a device is still there, at the price of a lock or two.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A buffer that is asked to be mapped, and not waited for: a lost device refuses at once, and any other leaves it pending, which unmapping ends.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// One at a time: a mapping that is pending cannot be asked for again.
    buffer: Mutex<wgpu::Buffer>,
    /// The device was lost, so that nothing may be asked of the buffer any more.
    stopped: AtomicBool,
}

impl Pulse {
    pub fn new(device: &wgpu::Device) -> Self {
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("pulse"),
            size: 4,
            usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: true,
        });
        let stopped = buffer.get_mapped_range_mut(..).is_err();
        if !stopped {
            buffer.unmap();
        }
        Self { buffer: Mutex::new(buffer), stopped: stopped.into() }
    }

    pub fn beats(&self) -> bool {
        let buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stopped.load(Ordering::Relaxed) {
            return false;
        }
        let refused = Arc::new(AtomicBool::new(false));
        let answer = refused.clone();
        buffer.map_async(wgpu::MapMode::Write, .., move |mapped| {
            answer.store(mapped.is_err(), Ordering::Relaxed)
        });
        if refused.load(Ordering::Relaxed) {
            self.stopped.store(true, Ordering::Relaxed);
            return false;
        }
        buffer.unmap();
        true
    }
}
