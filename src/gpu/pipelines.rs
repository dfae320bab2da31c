//! Compiled kernels, one per variant, kept for the life of a context.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::adapter::ShaderChecks;
use super::dispatch::scoped;
use super::shader::Variant;
use super::slot::Slot;
use crate::context::Context;
use crate::error::Result;

/// A compiled kernel with the layout of its bindings.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub key: String,
    /// Whether inputs are bound read-write: see [`Variant::shared`].
    pub shared: bool,
    pub compute: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// All pipelines of a context by the key of their variant.
#[derive(Debug, Default)]
pub(crate) struct PipelineCache {
    compiled: Mutex<HashMap<Variant, Arc<Pipeline>>>,
}

impl PipelineCache {
    /// The pipeline of a variant, compiled on first use.
    pub async fn get(&self, context: &Context, variant: &Variant) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = self.lookup(variant) {
            return Ok(pipeline);
        }
        // The lock is not held across the await; two callers at once compile twice and keep one.
        let pipeline = compile(context, variant).await?;
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(compiled.entry(*variant).or_insert_with(|| Arc::new(pipeline)).clone())
    }

    /// Keys of the compiled kernels, sorted.
    pub fn keys(&self) -> Vec<String> {
        let compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<_> = compiled.values().map(|pipeline| pipeline.key.clone()).collect();
        keys.sort_unstable();
        keys
    }

    fn lookup(&self, variant: &Variant) -> Option<Arc<Pipeline>> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(variant).cloned()
    }
}

async fn compile(context: &Context, variant: &Variant) -> Result<Pipeline> {
    let device = context.device();
    let key = variant.key();
    scoped(context, &format!("the pipeline {key:?}"), || {
        let module = create_module(device, variant, &key, context.shader_checks());
        let entries: Vec<_> =
            variant.slots().into_iter().map(|slot| layout_entry(slot, variant.shared)).collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(&key),
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&key),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let compute = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&key),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(variant.kernel.entry()),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &variant.constants(),
                // Every kernel writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
            },
            cache: context.disk_cache().wgpu(),
        });
        Pipeline { key, shared: variant.shared, compute, layout }
    })
    .await
}

fn create_module(
    device: &wgpu::Device,
    variant: &Variant,
    label: &str,
    checks: ShaderChecks,
) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(label),
        source: wgpu::ShaderSource::Wgsl(variant.wgsl().into()),
    };
    match checks {
        ShaderChecks::Checked => device.create_shader_module(descriptor),
        // SAFETY: the source is this crate's own. Every index stays inside its binding, because the plan's tiles
        // cover the validated shapes exactly and bindings are at least as long as those; every loop has a bound that
        // the plan computes. The test suite runs all kernels with the checks on.
        ShaderChecks::Trusted => unsafe {
            device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
        },
    }
}

fn layout_entry(slot: Slot, shared: bool) -> wgpu::BindGroupLayoutEntry {
    let ty = match slot {
        Slot::Params => wgpu::BufferBindingType::Uniform,
        _ => wgpu::BufferBindingType::Storage { read_only: !(slot.writes() || shared && slot.is_input()) },
    };
    wgpu::BindGroupLayoutEntry {
        binding: slot as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}
