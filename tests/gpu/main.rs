//! Tests that need a GPU: one binary, one shared device. A missing adapter is a failure, never a skip.

mod compositions;
mod convolution;
mod curve;
mod device;
mod diagnostics;
mod errors;
mod family;
mod fold;
mod folding;
mod half;
mod in_place;
mod layer;
mod layout;
mod masked;
mod memory;
mod numerics;
mod pipeline_cache;
mod pooled;
mod recalibration;
mod reduce;
mod renorm;
mod resident;
mod support;
mod synchronised;
mod tuning;
mod windows;
