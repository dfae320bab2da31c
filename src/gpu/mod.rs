//! Everything that touches wgpu: shader sources and their variants, pipelines, bindings, dispatches, read-back.

pub(crate) mod adapter;
pub(crate) mod bindings;
pub(crate) mod disk_cache;
pub(crate) mod dispatch;
pub(crate) mod params;
pub(crate) mod pipelines;
pub(crate) mod probe;
pub(crate) mod readback;
pub(crate) mod shader;
pub(crate) mod slot;
