//! What kernels are made of and what they bind, compiled or not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::shader::Variant;
use super::slot::Slot;
use crate::base::error::Result;
use crate::wesl::{Linked, Package};

/// What kernels of a program of one's own are made of ([`Program`](crate::wgsl::Program)).
#[derive(Debug)]
pub(crate) struct ProgramModules {
    /// Tells programs apart.
    pub id: u64,
    /// Our modules and the program's.
    pub package: Package,
    /// The path of the program's main module.
    pub own: String,
    /// Values of its pipeline constants.
    pub constants: Vec<(String, f64)>,
}

/// A kernel as WGSL, with its bindings and pipeline constants.
pub(crate) fn link(variant: &Variant, program: Option<&Arc<ProgramModules>>) -> Result<Linked> {
    match program {
        None => Ok(variant.link()),
        Some(program) => Ok(variant.link_own(&program.package, &program.own)?),
    }
}

/// Its name, for people to read.
pub(crate) fn key(variant: &Variant, program: Option<&Arc<ProgramModules>>) -> String {
    match program {
        None => variant.key(),
        Some(program) => format!("{} {}", program.own, variant.key()),
    }
}

/// Values of its pipeline constants.
pub(crate) fn constants<'p>(
    variant: &Variant,
    program: Option<&'p Arc<ProgramModules>>,
    linked: &Linked,
) -> Vec<(&'p str, f64)> {
    let mut constants: Vec<(&str, f64)> = variant.constants(linked);
    if let Some(program) = program {
        let of_program = program.constants.iter().map(|(name, value)| (&name[..], *value));
        constants.extend(of_program.filter(|(name, _)| linked.overrides.iter().any(|o| o == name)));
    }
    constants
}

/// What it binds, and whether it may write through it.
pub(crate) fn slots(linked: &Linked) -> impl Iterator<Item = (Slot, bool)> {
    // A test holds the numbers of all variants against those of slots.
    linked.bindings.iter().filter_map(|b| Some((Slot::of_number(b.number)?, b.writes)))
}

/// What variants bind, found out once.
#[derive(Debug, Default)]
pub(crate) struct Bindings(Mutex<HashMap<Variant, Arc<[Slot]>>>);

impl Bindings {
    /// What a variant binds, in the order of the bindings' numbers.
    pub fn of(&self, variant: &Variant, program: Option<&Arc<ProgramModules>>) -> Result<Arc<[Slot]>> {
        let mut bound = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = bound.get(variant) {
            return Ok(found.clone());
        }
        let found: Arc<[Slot]> = slots(&link(variant, program)?).map(|(slot, _)| slot).collect();
        // Of programs there may be any number.
        if program.is_none() {
            bound.insert(*variant, found.clone());
        }
        Ok(found)
    }
}
