//! Operations that are prepared to find out what they would run.

use std::sync::{Mutex, PoisonError};

use crate::engine::shader::Variant;

/// The kernels of operations that were rehearsed, each once, in order.
#[derive(Debug, Default)]
pub(crate) struct Rehearsal(Mutex<Vec<Variant>>);

impl Rehearsal {
    pub fn note(&self, variants: Vec<Variant>) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for variant in variants {
            if !noted.contains(&variant) {
                noted.push(variant);
            }
        }
    }

    /// What was noted so far.
    pub fn noted(&self) -> Vec<Variant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
