//! Buffers bound to the slots of an operation: offsets the device can bind, and who may share a buffer with whom.

use super::slot::Slot;
use crate::error::{Error, Result};
use crate::tensor::{Location, Tensor};

/// A range of a buffer that one slot sees.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    buffer: wgpu::Buffer,
    /// First byte that is bound: a multiple of the device's alignment, at or before `begin`.
    bound_begin: u64,
    /// The first byte that belongs to the value.
    begin: u64,
    /// Past the last byte that is bound: all of the last word.
    bound_end: u64,
}

impl Bound {
    /// Binds elements in whole words of `word_bytes`; the remainder of their offset goes into the parameters.
    pub fn range(location: Location, word_bytes: u64, alignment: u64) -> Self {
        let Location { buffer, bytes } = location;
        let (begin, end) = (bytes.start, bytes.end);
        // Bindings are multiples of 4 bytes.
        let bound_end = end.next_multiple_of(word_bytes.max(4));
        Self { buffer, bound_begin: begin - begin % alignment, begin, bound_end }
    }

    /// Binds a whole buffer of the crate's own.
    pub fn whole(buffer: &wgpu::Buffer) -> Self {
        Self { buffer: buffer.clone(), bound_begin: 0, begin: 0, bound_end: buffer.size() }
    }

    /// Bytes between the bound range's start and the value's.
    pub fn remainder(&self) -> u64 {
        self.begin - self.bound_begin
    }

    /// Bytes that are bound.
    pub fn bytes(&self) -> u64 {
        self.bound_end - self.bound_begin
    }

    pub fn resource(&self) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.buffer,
            offset: self.bound_begin,
            size: wgpu::BufferSize::new(self.bound_end - self.bound_begin),
        })
    }
}

/// Checks that nothing that an operation writes shares bytes with anything else that it binds, in whichever of its
/// dispatches: a later one would overwrite what an earlier one has read. A pair in `in_place` may be the same memory.
///
/// # Errors
/// [`Error::Overlap`].
pub(crate) fn check_overlap(tensors: &[(Slot, Tensor)], in_place: &[(Slot, Slot)]) -> Result<()> {
    for (i, (slot_a, a)) in tensors.iter().enumerate() {
        for (slot_b, b) in &tensors[i + 1..] {
            let declared = in_place.contains(&(*slot_a, *slot_b)) || in_place.contains(&(*slot_b, *slot_a));
            if !(slot_a.writes() || slot_b.writes()) || declared {
                continue;
            }
            for first in a.locations() {
                for second in b.locations() {
                    let (x, y) = (&first.bytes, &second.bytes);
                    if first.buffer == second.buffer && x.start < y.end && y.start < x.end {
                        return Err(Error::Overlap {
                            first: slot_a.name(),
                            second: slot_b.name(),
                            first_range: (x.start, x.end),
                            second_range: (y.start, y.end),
                        });
                    }
                }
            }
        }
    }
    Ok(())
}

/// Whether an input of one dispatch lies in the buffer of one of its outputs.
///
/// # Errors
/// [`Error::SharedBlock`] if ranges of one buffer that must not alias do so by the granularity of bindings.
pub(crate) fn check_sharing(bound: &[(Slot, Bound)], alignment: u64) -> Result<bool> {
    let pairs = || bound.iter().enumerate().flat_map(|(i, a)| bound[i + 1..].iter().map(move |b| (a, b)));
    let written = |a: Slot, b: Slot| a.writes() || b.writes();
    let shared = pairs().any(|((slot_a, a), (slot_b, b))| {
        a.buffer == b.buffer && written(*slot_a, *slot_b) && (slot_a.is_input() || slot_b.is_input())
    });
    for ((slot_a, a), (slot_b, b)) in pairs() {
        // In the shared variant inputs are bound read-write too, so even two inputs must not alias.
        let exclusive = shared || written(*slot_a, *slot_b);
        if exclusive && a.buffer == b.buffer && a.bound_begin < b.bound_end && b.bound_begin < a.bound_end {
            return Err(Error::SharedBlock { first: slot_a.name(), second: slot_b.name(), alignment });
        }
    }
    Ok(shared)
}
