//! Whether a device is still there, at the price of a lock or two: wgpu tells that to a callback alone, which belongs to the application.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Asks for a buffer of no use, which wgpu refuses before it makes anything; a lost device does not come to that, and says nothing.
pub(crate) fn beats(device: &wgpu::Device) -> bool {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let _ = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("pulse"),
        size: 4,
        usage: wgpu::BufferUsages::empty(),
        mapped_at_creation: false,
    });
    // Natively the verdict is there at once.
    let verdict = pin!(scope.pop()).poll(&mut Context::from_waker(Waker::noop()));
    !matches!(verdict, Poll::Ready(None))
}
