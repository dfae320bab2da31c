//! The buffers of an operation, and how its tensors lie in them: all that a recipe may depend on.

use std::ops::Range;
use std::sync::Arc;

use super::bindings::{At, Bound};
use super::buffer::Buffer;
use super::build::{Build, Dispatch, Scratch, Stage, Whole};
use super::memo::Key;
use super::slot::Slot;
use crate::engine::tensor::{Location, Tensor};
use crate::plan::{Plan, Traffic};

/// Offsets of any device are multiples of a divisor of it.
pub(super) const COARSEST_ALIGNMENT: u64 = 256;

/// The buffers of an operation, each once.
#[derive(Debug)]
pub(crate) struct Operands {
    pub buffers: Vec<Operand>,
}

#[derive(Debug)]
pub(crate) struct Operand {
    pub buffer: Buffer,
    /// What places in it are counted from: a multiple of every alignment, at or before the first byte that is bound.
    pub base: u64,
}

impl Operands {
    pub fn of(build: &Build<'_>) -> Self {
        let mut operands = Self { buffers: Vec::new() };
        for stage in build.stages() {
            for (_, tensor) in stage.walked.iter().chain(&stage.values) {
                tensor.buffers().for_each(|(buffer, begin)| operands.add(buffer, begin));
            }
            for (_, whole) in stage.all_owned() {
                if let Whole::Given(slab) = whole {
                    operands.add(&slab.buffer, slab.begin);
                }
            }
        }
        operands
    }

    fn add(&mut self, buffer: &Buffer, begin: u64) {
        let base = begin - begin % COARSEST_ALIGNMENT;
        match self.buffers.iter_mut().find(|known| known.buffer == *buffer) {
            Some(known) => known.base = known.base.min(base),
            None => self.buffers.push(Operand { buffer: buffer.clone(), base }),
        }
    }

    /// Its number, and what places in it are counted from.
    pub(super) fn find(&self, buffer: &Buffer) -> (usize, u64) {
        let found = self.buffers.iter().position(|known| known.buffer == *buffer);
        let at = found.unwrap_or_else(|| unreachable!("all buffers of an operation are among its operands"));
        (at, self.buffers[at].base)
    }

    /// How a tensor lies in its buffers.
    fn lie(&self, slot: Slot, tensor: &Tensor, key: &mut Key) {
        key.add((slot, tensor.form()));
        for (buffer, begin) in tensor.buffers() {
            let (at, base) = self.find(buffer);
            key.add((at, begin - base));
        }
        // Whether words in which the tensor's parts end are all in their buffers.
        for location in tensor.locations() {
            key.add((location.size - location.bytes.end).min(16));
        }
    }

    fn lie_of_whole(&self, slot: Slot, whole: &Whole, key: &mut Key) {
        match whole {
            Whole::Given(slab) => {
                let (at, base) = self.find(&slab.buffer);
                key.add((slot, at, slab.begin - base, slab.bytes));
            }
            Whole::Scratch(Scratch(place)) | Whole::Before(Scratch(place)) => {
                key.add((slot, u64::MAX, *place))
            }
        }
    }

    pub(super) fn bound(&self, location: &Location, word_bytes: u64, alignment: u64) -> Bound {
        let (at, base) = self.find(&location.buffer);
        let Range { start, end } = location.bytes;
        Bound::range(At::Operand(at), start - base..end - base, word_bytes, alignment)
    }
}

impl Stage {
    fn all_owned(&self) -> impl Iterator<Item = &(Slot, Whole)> {
        self.owned.iter().chain(self.dispatches.iter().flat_map(|dispatch| &dispatch.buffers))
    }
}

impl Build<'_> {
    /// Everything that a recipe depends on.
    pub(super) fn key(&self, operands: &Operands, traffic: Traffic) -> Key {
        let mut key =
            Key::of((self.op, address(&self.plan), &self.rooms, traffic, self.context.tuning().integer_f16));
        key.add(operands.buffers.len());
        for stage in self.stages() {
            let program = stage.program.as_ref().map(|program| program.id);
            key.add((stage.params.bits(), stage.pointwise, stage.rows, program));
            key.add((stage.walked.len(), stage.values.len(), stage.owned.len(), stage.dispatches.len()));
            for (slot, tensor) in stage.walked.iter().chain(&stage.values) {
                operands.lie(*slot, tensor, &mut key);
            }
            key.add(stage.mask.as_ref().map(|(mask, view)| (mask.form(), *view)));
            for (slot, whole) in &stage.owned {
                operands.lie_of_whole(*slot, whole, &mut key);
            }
            for dispatch in &stage.dispatches {
                let Dispatch { kernel, pointwise, plan, instead, records, buffers } = dispatch;
                key.add((kernel, pointwise, address(plan), instead, records, buffers.len()));
                for (slot, whole) in buffers {
                    operands.lie_of_whole(*slot, whole, &mut key);
                }
            }
        }
        key
    }
}

/// A plan is kept as long as a recipe that is made of it, so its address tells it from others.
fn address(plan: &Arc<Plan>) -> usize {
    Arc::as_ptr(plan) as usize
}
