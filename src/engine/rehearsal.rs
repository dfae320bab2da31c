//! Operations that are prepared to find out what they would run.

use std::sync::{Mutex, PoisonError};

use super::draft::Draft;
use super::operands::Operands;
use crate::engine::shader::Variant;

/// Operations that were rehearsed, in order, with the buffers that they were given.
#[derive(Debug, Default)]
pub(crate) struct Rehearsal(Mutex<Vec<(Draft, Operands)>>);

impl Rehearsal {
    pub fn note(&self, draft: Draft, operands: Operands) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((draft, operands));
    }

    /// How many operations were noted since they were last taken.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What was noted since it was last taken.
    pub fn take(&self) -> Vec<(Draft, Operands)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The crate's own kernels of what is taken, each once, in order.
    #[cfg(feature = "wgpu")]
    pub fn take_variants(&self) -> Vec<Variant> {
        let mut variants = Vec::new();
        for (draft, _) in self.take() {
            for step in draft.steps.iter().filter(|step| step.program.is_none()) {
                if !variants.contains(&step.variant) {
                    variants.push(step.variant);
                }
            }
        }
        variants
    }
}
