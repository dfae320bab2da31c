//! Kernels as the modules that they are linked from, for tools that read WESL.

use std::sync::Arc;

use crate::base::error::Result;
use crate::engine::context::Context;
use crate::engine::rehearsal::Rehearsal;
use crate::spec::Spec;
use crate::spec::rehearse;

/// A kernel before and after it is linked.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its key, for people to read.
    pub key: String,
    /// The path of the module that has its entry point.
    pub entry: String,
    /// What `@if` asks for, as far as it holds.
    pub features: Vec<String>,
    /// All modules by their paths, with nothing left to choose but what `@if` asks for.
    pub modules: Vec<(String, String)>,
    /// What this crate's linker makes of it.
    pub wgsl: String,
}

/// The kernels that problems run, each once; nothing is compiled.
///
/// # Errors
/// As [`Context::warm_up`].
pub async fn kernels(context: &Context, specs: &[Spec]) -> Result<Vec<Kernel>> {
    let rehearsal = Arc::new(Rehearsal::default());
    for spec in specs {
        rehearse(&context.rehearsing(rehearsal.clone(), spec.tuning), spec).await?;
    }
    let kernels = rehearsal.take_variants().into_iter().map(|variant| {
        let (entry, features, modules) = variant.instantiate();
        Kernel { key: variant.key(), entry: entry.to_owned(), features, modules, wgsl: variant.link().text }
    });
    Ok(kernels.collect())
}
