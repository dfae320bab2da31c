//! What wgpu says of a call, as the caller's `Err`: the application's own error callbacks see none of it.

#[cfg(feature = "eval")]
use super::verdicts::late;
use super::verdicts::{Verdict, leave};
use crate::base::error::{Error, Result};
use crate::engine::context::Context;

/// All kinds of errors that there are, the outermost scope first.
pub(crate) const ALL: &[wgpu::ErrorFilter] =
    &[wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation];

/// Runs wgpu calls inside error scopes of all kinds, for kernels that are compiled, what is kept, and work whose results are read; finds out if the device
/// was lost.
pub(crate) async fn scoped<T>(context: &Context, what: &str, build: impl FnOnce() -> T) -> Result<T> {
    scoped_for(context, ALL, what, build).await
}

/// Runs wgpu calls that can fail in some ways alone: buffers of a size and usage that were checked, which there may be no memory for, or bindings of
/// buffers that the application has destroyed, or that are another device's.
pub(crate) async fn scoped_for<T>(
    context: &Context,
    filters: &[wgpu::ErrorFilter],
    what: &str,
    build: impl FnOnce() -> T,
) -> Result<T> {
    let (value, verdict) = run(context, filters, what, build);
    verdict.await?;
    Ok(value)
}

/// The same for what nothing keeps if the call that makes it fails: the verdict is that call's ([`together`](super::verdicts::together)), where
/// there is one.
pub(crate) async fn left<T>(
    context: &Context,
    filters: &[wgpu::ErrorFilter],
    what: &str,
    build: impl FnOnce() -> T,
) -> Result<T> {
    let (value, verdict) = run(context, filters, what, build);
    leave(verdict).await?;
    Ok(value)
}

fn run<T>(
    context: &Context,
    filters: &[wgpu::ErrorFilter],
    what: &str,
    build: impl FnOnce() -> T,
) -> (T, Verdict) {
    let device = context.device();
    let scopes: Vec<_> = filters.iter().map(|filter| device.push_error_scope(*filter)).collect();
    let value = build();
    // Work that a lost device is given is lost in silence; what it is asked to make it refuses by itself.
    let lost = if filters.len() == ALL.len() { context.check_lost() } else { Ok(()) };
    // A scope is popped at the call; only its verdict is awaited.
    let caught: Vec<_> = scopes.into_iter().rev().map(wgpu::ErrorScopeGuard::pop).collect();
    let (context, what) = (context.clone(), what.to_owned());
    let verdict = async move {
        for verdict in caught {
            if let Some(error) = verdict.await {
                let lost = lost.and_then(|()| context.check_lost());
                return Err(verdict_of(&what, error, lost.err()));
            }
        }
        // In a browser the loss has been told meanwhile.
        #[cfg(target_family = "wasm")]
        context.check_lost()?;
        lost
    };
    let verdict: Verdict = Box::pin(verdict);
    #[cfg(feature = "eval")]
    let verdict = late::as_set(verdict);
    (value, verdict)
}

fn verdict_of(what: &str, error: wgpu::Error, lost: Option<Error>) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { what: what.to_owned() },
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            lost.unwrap_or_else(|| Error::Validation { what: what.to_owned(), message: description })
        }
    }
}
