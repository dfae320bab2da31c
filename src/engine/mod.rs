//! Everything that touches wgpu: the context, tensors, shaders and their variants, and the way from an operation to dispatches: build, recipe, bind,
//! record.

#[cfg(feature = "wgpu")]
pub(crate) mod adapter;
pub(crate) mod bindings;
pub(crate) mod buffer;
pub(crate) mod build;
pub(crate) mod context;
mod custom;
#[cfg(feature = "wgpu")]
pub(crate) mod disk_cache;
pub(crate) mod draft;
#[cfg(all(feature = "wgpu", not(target_family = "wasm")))]
pub(crate) mod file;
#[cfg(feature = "wgpu")]
pub(crate) mod fingerprint;
#[cfg(feature = "wgpu")]
pub(crate) mod gpu;
pub(crate) mod kernels;
pub(crate) mod mask;
pub(crate) mod memo;
#[cfg(feature = "wgpu")]
mod memory;
pub(crate) mod operands;
pub(crate) mod params;
#[cfg(feature = "wgpu")]
pub(crate) mod pipelines;
pub(crate) mod plans;
pub(crate) mod prepared;
pub(crate) mod probe;
#[cfg(all(feature = "wgpu", not(target_family = "wasm")))]
pub(crate) mod pulse;
#[cfg(feature = "wgpu")]
pub(crate) mod readback;
#[cfg(not(feature = "wgpu"))]
#[path = "no_readback.rs"]
pub(crate) mod readback;
#[cfg(feature = "wgpu")]
pub(crate) mod ready;
pub(crate) mod rehearsal;
#[cfg(feature = "wgpu")]
pub(crate) mod scope;
#[cfg(feature = "wgpu")]
pub(crate) mod scratch;
pub(crate) mod segments;
pub(crate) mod shader;
pub(crate) mod slab;
pub(crate) mod slot;
pub(crate) mod tensor;
#[cfg(feature = "wgpu")]
pub(crate) mod tune;
#[cfg_attr(not(feature = "wgpu"), expect(dead_code, reason = "nothing has verdicts without wgpu"))]
pub(crate) mod verdicts;
mod walk;
pub(crate) mod windows;
