//! Buffers bound to the slots of an operation: offsets the device can bind, and who may share a buffer with whom.

use std::ops::Range;

use super::slot::Slot;
use crate::base::error::{Error, Result};
use crate::engine::tensor::{Location, Tensor};

/// A buffer of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// One that it is given, by its number.
    Operand(usize),
    /// One for what a dispatch leaves for another.
    Scratch(usize),
}

/// A range of a buffer that one slot sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub at: At,
    /// First byte that is bound: a multiple of the device's alignment, at or before that of the value.
    pub begin: u64,
    /// Past the last byte that is bound: all of the last word.
    end: u64,
}

impl Bound {
    /// Binds elements in whole words of `word_bytes`; the remainder of their offset goes into the parameters.
    pub fn range(at: At, bytes: Range<u64>, word_bytes: u64, alignment: u64) -> Self {
        // Bindings are multiples of 4 bytes.
        let end = bytes.end.next_multiple_of(word_bytes.max(4));
        Self { at, begin: bytes.start - bytes.start % alignment, end }
    }

    /// Binds so many bytes, from a place that can be bound.
    pub fn whole(at: At, begin: u64, bytes: u64) -> Self {
        Self { at, begin, end: begin + bytes }
    }

    /// Binds another range of the same buffer as well.
    pub fn extend(&mut self, other: &Bound) {
        self.begin = self.begin.min(other.begin);
        self.end = self.end.max(other.end);
    }

    /// Bytes that are bound.
    pub fn bytes(&self) -> u64 {
        self.end - self.begin
    }
}

/// Checks that nothing that an operation writes shares bytes with anything else that it binds, in whichever of its
/// dispatches, nor with itself: a later one would overwrite what an earlier one has read or written. The very same tensor as x
/// and y, or as dy and dx, is in place; views may lie between each other.
///
/// # Errors
/// [`Error::Overlap`].
pub(crate) fn check_overlap(tensors: &[(Slot, Tensor)]) -> Result<()> {
    for (i, (slot_a, a)) in tensors.iter().enumerate() {
        if let Some((first, second)) = a.overlap_of_parts().filter(|_| slot_a.writes()) {
            return Err(overlap((slot_a.name(), first), (slot_a.name(), second)));
        }
        for (slot_b, b) in &tensors[i + 1..] {
            if (slot_a.writes() || slot_b.writes()) && !is_in_place((*slot_a, a), (*slot_b, b)) {
                check_apart((*slot_a, a), (*slot_b, b))?;
            }
        }
    }
    Ok(())
}

/// Checks that two tensors have no element in common.
///
/// # Errors
/// [`Error::Overlap`].
pub(crate) fn check_apart((slot_a, a): (Slot, &Tensor), (slot_b, b): (Slot, &Tensor)) -> Result<()> {
    match a.overlap(b) {
        None => Ok(()),
        Some((first, second)) => Err(overlap((slot_a.name(), first), (slot_b.name(), second))),
    }
}

fn overlap(
    (first, first_range): (&'static str, Range<u64>),
    (second, second_range): (&'static str, Range<u64>),
) -> Error {
    Error::Overlap {
        first,
        second,
        first_range: (first_range.start, first_range.end),
        second_range: (second_range.start, second_range.end),
    }
}

/// What may be written over what.
const IN_PLACE: [[Slot; 2]; 6] = [
    [Slot::X, Slot::Y],
    [Slot::Dy, Slot::Dx],
    [Slot::X, Slot::Sum],
    [Slot::Addend, Slot::Sum],
    // Where a sum is a map of its own.
    [Slot::Addend, Slot::Y],
    [Slot::DSum, Slot::Dx],
];

/// Whether one is written over the other.
fn is_in_place((slot_a, a): (Slot, &Tensor), (slot_b, b): (Slot, &Tensor)) -> bool {
    let pair = [slot_a, slot_b];
    let can = IN_PLACE.iter().any(|of| of.iter().all(|slot| pair.contains(slot)));
    can && a.is_same_place(b)
}

/// The output whose memory an input is, or lies between, in a window: its binding serves both, because wgpu refuses to bind a
/// range once to read and once to write.
///
/// # Errors
/// [`Error::Between`] if there are two.
pub(crate) fn read_through(input: Slot, located: &[(Slot, Location)]) -> Result<Option<Slot>> {
    let Some((_, x)) = located.iter().find(|(slot, _)| *slot == input) else { return Ok(None) };
    let mut outputs = located.iter().filter(|(slot, y)| slot.writes() && x.meets(y)).map(|(slot, _)| *slot);
    match (outputs.next(), outputs.next()) {
        (Some(first), Some(second)) => {
            Err(Error::Between { input: input.name(), first: first.name(), second: second.name() })
        }
        (found, _) => Ok(found),
    }
}

/// Whether an input of one dispatch lies in the buffer of one of its outputs.
///
/// # Errors
/// [`Error::SharedBlock`] if ranges of one buffer that must not alias do so by the granularity of bindings.
pub(crate) fn check_sharing(bound: &[(Slot, Bound)], alignment: u64) -> Result<bool> {
    let pairs = || bound.iter().enumerate().flat_map(|(i, a)| bound[i + 1..].iter().map(move |b| (a, b)));
    let written = |a: Slot, b: Slot| a.writes() || b.writes();
    let shared = pairs().any(|((slot_a, a), (slot_b, b))| {
        a.at == b.at && written(*slot_a, *slot_b) && (slot_a.is_input() || slot_b.is_input())
    });
    for ((slot_a, a), (slot_b, b)) in pairs() {
        // In the shared variant inputs are bound read-write too, so even two inputs must not alias.
        let exclusive = shared || written(*slot_a, *slot_b);
        if exclusive && a.at == b.at && a.begin < b.end && b.begin < a.end {
            return Err(Error::SharedBlock { first: slot_a.name(), second: slot_b.name(), alignment });
        }
    }
    Ok(shared)
}
