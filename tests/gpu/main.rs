//! Tests that need a GPU: one binary, one shared device. A missing adapter is a failure, never a skip.

mod device;
mod errors;
mod fold;
mod layer;
mod layout;
mod map;
mod memory;
mod numerics;
mod reduce;
mod support;
