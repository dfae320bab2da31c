//! Everything that touches wgpu: the context, tensors, shaders and their variants, and the way from an operation to dispatches: build, recipe, bind,
//! record.

pub(crate) mod adapter;
pub(crate) mod bindings;
pub(crate) mod build;
pub(crate) mod context;
pub(crate) mod disk_cache;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod file;
pub(crate) mod fingerprint;
pub(crate) mod mask;
pub(crate) mod memo;
pub(crate) mod operands;
pub(crate) mod params;
pub(crate) mod pipelines;
pub(crate) mod plans;
pub(crate) mod prepared;
pub(crate) mod probe;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod pulse;
pub(crate) mod readback;
pub(crate) mod recipe;
pub(crate) mod rehearsal;
pub(crate) mod scope;
pub(crate) mod scratch;
pub(crate) mod shader;
pub(crate) mod slab;
pub(crate) mod slot;
pub(crate) mod tensor;
pub(crate) mod tune;
mod walk;
mod windows;
