//! Layers of models in safetensors files. Only what is loaded onto the GPU, or saved from there, needs an adapter.

mod convert;
mod file;
mod gpu;
mod layers;
mod load;
mod parameters;
mod resnet50;
mod save;
mod shards;
mod spectral;
mod support;
