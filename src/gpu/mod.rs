//! Everything that touches wgpu: shader sources and their variants, pipelines, bindings, dispatches, read-back.

pub(crate) mod adapter;
pub(crate) mod bindings;
pub(crate) mod build;
pub(crate) mod disk_cache;
pub(crate) mod memo;
pub(crate) mod params;
pub(crate) mod pipelines;
pub(crate) mod plans;
pub(crate) mod prepared;
pub(crate) mod probe;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod pulse;
pub(crate) mod readback;
pub(crate) mod recipe;
pub(crate) mod scope;
pub(crate) mod scratch;
pub(crate) mod shader;
pub(crate) mod slot;
