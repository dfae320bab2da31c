//! The layers in burn, on its wgpu backend.

mod fused;
mod graph;
mod layers;
mod models;
mod statistics;
mod support;
