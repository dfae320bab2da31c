//! Several tensors that one operation takes as parts of a batch: what must hold of all of them together, beyond what each
//! dispatch checks of those that it binds.

use crate::base::error::Result;
use crate::engine::bindings::check_apart;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;

/// The tensors of one part.
pub(super) struct Part<'t> {
    pub reads: Vec<(Slot, &'t Tensor)>,
    pub writes: Vec<(Slot, &'t Tensor)>,
}

/// Requires that what a part writes shares no bytes with anything of another part, and no two outputs with each other: parts
/// are reduced before any is mapped, and all again when the operation is recorded again.
///
/// # Errors
/// [`Error::Overlap`](crate::Error::Overlap).
pub(super) fn check_parts(parts: &[Part<'_>]) -> Result<()> {
    for (i, part) in parts.iter().enumerate() {
        for (k, written) in part.writes.iter().enumerate() {
            part.writes[k + 1..].iter().try_for_each(|other| check_apart(*written, *other))?;
            for other in parts.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, other)| other) {
                other
                    .reads
                    .iter()
                    .chain(&other.writes)
                    .try_for_each(|other| check_apart(*written, *other))?;
            }
        }
    }
    Ok(())
}
