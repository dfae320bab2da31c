//! Reading a buffer back, as a future that works on every executor.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use futures_intrusive::channel::shared::oneshot_channel;

use super::prepared::Prepared;
use super::scope::scoped;
use crate::base::error::{Error, Result};
use crate::engine::buffer::Buffer;
use crate::engine::context::Context;

/// Copies `len` bytes of a buffer from `offset` to the host, after everything submitted before.
pub(crate) async fn read(context: &Context, buffer: &Buffer, offset: u64, len: u64) -> Result<Vec<u8>> {
    read_after(context, &[], buffer, offset, len).await
}

/// As [`read`], after these operations, in one submission with them.
pub(crate) async fn read_after(
    context: &Context,
    operations: &[&Prepared],
    buffer: &Buffer,
    offset: u64,
    len: u64,
) -> Result<Vec<u8>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    if let Buffer::Paper(..) = buffer {
        return Err(Error::NoDevice);
    }
    let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
    let staging = Buffer::own(context.create_gpu_buffer("read-back", len, usage).await?);
    let (sender, receiver) = oneshot_channel();
    scoped(context, "a read-back", || {
        let mut encoder = context
            .device()
            .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("read-back") });
        for operation in operations {
            operation.record_own(&mut encoder);
        }
        encoder.copy_buffer_to_buffer(buffer.gpu(), offset, staging.gpu(), 0, len);
        context.queue().submit([encoder.finish()]);
        staging.gpu().map_async(wgpu::MapMode::Read, .., move |mapped| {
            // The receiver is gone if the caller dropped the future; then nobody wants the result.
            let _ = sender.send(mapped);
        });
    })
    .await?;

    let mut received = pin!(receiver.receive());
    let mapped = poll_fn(|cx| {
        if let Poll::Ready(mapped) = received.as_mut().poll(cx) {
            return Poll::Ready(mapped);
        }
        // A browser completes the mapping from its event loop; elsewhere somebody has to poll the device. This
        // does so without blocking and asks to be called again.
        #[cfg(not(target_family = "wasm"))]
        {
            let polled = context.device().poll(wgpu::PollType::Poll);
            if let Poll::Ready(mapped) = received.as_mut().poll(cx) {
                return Poll::Ready(mapped);
            }
            if polled.is_err() {
                return Poll::Ready(None);
            }
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    match mapped {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(Error::DeviceLost { message: error.to_string() }),
        None => {
            return Err(Error::DeviceLost { message: "the read-back was abandoned".to_owned() });
        }
    }
    let view = staging
        .gpu()
        .get_mapped_range(..)
        .map_err(|error| Error::Validation { what: "a read-back".to_owned(), message: error.to_string() })?;
    Ok(view.to_vec())
}
