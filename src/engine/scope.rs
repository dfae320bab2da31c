//! What wgpu says of a call, as the caller's `Err`: the application's own error callbacks see none of it.

use crate::base::error::{Error, Result};
use crate::engine::context::Context;

/// Runs wgpu calls inside error scopes of all kinds, for kernels that are compiled and work that is submitted; finds out if the device was lost.
pub(crate) async fn scoped<T>(context: &Context, what: &str, build: impl FnOnce() -> T) -> Result<T> {
    let (value, lost, caught) = {
        let device = context.device();
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let value = build();
        let lost = context.check_lost();
        // A scope is popped at the call; only its verdict is awaited.
        (value, lost, [validation.pop(), internal.pop(), memory.pop()])
    };
    for verdict in caught {
        if let Some(error) = verdict.await {
            return Err(verdict_of(what, error, lost.err()));
        }
    }
    lost?;
    Ok(value)
}

/// Runs wgpu calls that can fail in one way alone: buffers of a size and usage that were checked, which there may be no memory for, or bindings of
/// buffers that the application has destroyed, or that are another device's.
pub(crate) async fn scoped_for<T>(
    context: &Context,
    filter: wgpu::ErrorFilter,
    what: &str,
    build: impl FnOnce() -> T,
) -> Result<T> {
    let (value, caught) = {
        let scope = context.device().push_error_scope(filter);
        (build(), scope.pop())
    };
    match caught.await {
        None => Ok(value),
        Some(error) => Err(verdict_of(what, error, context.check_lost().err())),
    }
}

fn verdict_of(what: &str, error: wgpu::Error, lost: Option<Error>) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { what: what.to_owned() },
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            lost.unwrap_or_else(|| Error::Validation { what: what.to_owned(), message: description })
        }
    }
}
