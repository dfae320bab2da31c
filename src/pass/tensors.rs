//! The tensors of a pass by their slots, so that what is done with all of them is written once.

use crate::base::error::Result;
use crate::engine::context::Context;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
#[cfg(feature = "wgpu")]
use crate::engine::tune::Twins;

const COUNT: usize = Slot::PLACES.len();

/// What a pass reads and writes: tensors of the shape of x, which are walked, and parameters with their gradients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tensors<'a>([Option<&'a Tensor>; COUNT]);

/// Tensors in the place of others.
pub(super) struct OwnedTensors([Option<Tensor>; COUNT]);

fn at(slot: Slot) -> usize {
    slot.place().unwrap_or_else(|| unreachable!("{slot:?} is a buffer of the crate's own")) as usize
}

impl<'a> Tensors<'a> {
    pub const NONE: Self = Self([None; COUNT]);

    /// The same with a tensor in a slot, or without any.
    pub fn with(mut self, slot: Slot, tensor: impl Into<Option<&'a Tensor>>) -> Self {
        self.0[at(slot)] = tensor.into();
        self
    }

    /// These and those of others.
    pub fn and(self, others: Self) -> Self {
        others.all().fold(self, |all, (slot, tensor)| all.with(slot, tensor))
    }

    pub fn get(&self, slot: Slot) -> Option<&'a Tensor> {
        self.0[at(slot)]
    }

    pub fn has(&self, slot: Slot) -> bool {
        self.get(slot).is_some()
    }

    /// Whether one is written over the other.
    pub fn is_over(&self, output: Slot, input: Slot) -> bool {
        self.get(output).zip(self.get(input)).is_some_and(|(output, input)| output.is_same_place(input))
    }

    pub fn all(&self) -> impl Iterator<Item = (Slot, &'a Tensor)> {
        Slot::PLACES.into_iter().zip(self.0).filter_map(|(slot, tensor)| Some((slot, tensor?)))
    }

    /// Those that are walked.
    pub fn walked(&self) -> impl Iterator<Item = (Slot, &'a Tensor)> {
        self.all().filter(|(slot, _)| slot.is_walked())
    }

    /// Parameters and their gradients.
    pub fn values(&self) -> impl Iterator<Item = (Slot, &'a Tensor)> {
        self.all().filter(|(slot, _)| !slot.is_walked())
    }

    /// Bytes of one that is walked.
    pub fn bytes(&self) -> u64 {
        self.walked().next().map_or(0, |(_, tensor)| tensor.byte_len())
    }

    /// How many are walked.
    pub fn passes(&self) -> u64 {
        self.walked().count() as u64
    }

    /// Whether gradients of parameters are written.
    pub fn has_sums(&self) -> bool {
        self.values().any(|(slot, _)| slot.writes())
    }

    /// Others in the place of all.
    pub(super) fn map(&self, other: impl Fn(Slot, &Tensor) -> Result<Tensor>) -> Result<OwnedTensors> {
        let mut owned = OwnedTensors([const { None }; COUNT]);
        for (slot, tensor) in self.all() {
            owned.0[at(slot)] = Some(other(slot, tensor)?);
        }
        Ok(owned)
    }

    /// Scratch tensors in the place of all that are walked or written; parameters are read where they are.
    #[cfg(feature = "wgpu")]
    pub(super) async fn twins(&self, context: &Context) -> Result<OwnedTensors> {
        let mut twins = Twins::new(context);
        let mut owned = OwnedTensors([const { None }; COUNT]);
        for (slot, tensor) in self.all() {
            let twin = slot.is_walked() || slot.writes();
            owned.0[at(slot)] = Some(if twin { twins.of(tensor).await? } else { tensor.clone() });
        }
        Ok(owned)
    }
}

impl OwnedTensors {
    pub(super) fn tensors(&self) -> Tensors<'_> {
        Tensors(self.0.each_ref().map(Option::as_ref))
    }
}
