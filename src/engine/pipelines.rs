//! Compiled kernels, one per variant, kept for the life of a context.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::adapter::ShaderChecks;
use super::kernels::{self, ProgramModules, link, slots};
use super::scope::scoped;
use super::shader::Variant;
use super::slot::Slot;
use crate::base::error::Result;
use crate::engine::context::Context;

/// A compiled kernel with the layout of its bindings.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub key: String,
    pub compute: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    /// Whose it is, if not this crate's.
    program: Option<Weak<ProgramModules>>,
    /// When it was last asked for.
    #[cfg(all(feature = "eval", not(target_family = "wasm")))]
    used: std::sync::atomic::AtomicU64,
}

impl Pipeline {
    /// Whether its program is still there.
    fn is_wanted(&self) -> bool {
        self.program.as_ref().is_none_or(|program| program.strong_count() > 0)
    }
}

/// All pipelines of a context by the key of their variant.
#[derive(Debug, Default)]
pub(crate) struct PipelineCache {
    compiled: Mutex<HashMap<Variant, Arc<Pipeline>>>,
    #[cfg(all(feature = "eval", not(target_family = "wasm")))]
    pub spent: spent::Spent,
}

impl PipelineCache {
    /// The pipeline of a variant, compiled on first use.
    pub async fn get(
        &self,
        context: &Context,
        variant: &Variant,
        program: Option<&Arc<ProgramModules>>,
    ) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = self.lookup(variant) {
            return Ok(pipeline);
        }
        // The lock is not held across the await; two callers at once compile twice and keep one.
        #[cfg(all(feature = "eval", not(target_family = "wasm")))]
        let started = std::time::Instant::now();
        let pipeline = compile(context, variant, program).await?;
        #[cfg(all(feature = "eval", not(target_family = "wasm")))]
        self.spent.add(started.elapsed());
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if program.is_some() {
            // Kernels of programs that are gone go with the next one that is compiled.
            compiled.retain(|_, pipeline| pipeline.is_wanted());
        }
        let pipeline = compiled.entry(*variant).or_insert_with(|| Arc::new(pipeline));
        #[cfg(all(feature = "eval", not(target_family = "wasm")))]
        self.spent.note(&pipeline.used);
        Ok(pipeline.clone())
    }

    /// Keys of the compiled kernels, sorted.
    pub fn keys(&self) -> Vec<String> {
        let compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<_> = compiled.values().map(|pipeline| pipeline.key.clone()).collect();
        keys.sort_unstable();
        keys
    }

    /// The modules of a compiled kernel.
    #[cfg(all(feature = "eval", not(target_family = "wasm")))]
    pub fn files(&self, key: &str) -> Vec<String> {
        let compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let found = compiled.iter().find(|(_, pipeline)| pipeline.key == key);
        let modules = found.map_or(Vec::new(), |(variant, _)| variant.link().modules);
        modules.into_iter().map(|path| path + ".wesl").collect()
    }

    /// Lets go of those that were asked for longest ago, so that no more than so many stay. What something prepared still holds lasts until it
    /// does not.
    #[cfg(all(feature = "eval", not(target_family = "wasm")))]
    pub fn trim(&self, most: usize) {
        use std::sync::atomic::Ordering;
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used: Vec<u64> = compiled.values().map(|p| p.used.load(Ordering::Relaxed)).collect();
        used.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(&least) = used.get(most) {
            compiled.retain(|_, pipeline| pipeline.used.load(Ordering::Relaxed) > least);
        }
    }

    /// Whether a variant is compiled.
    pub fn has(&self, variant: &Variant) -> bool {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).contains_key(variant)
    }

    /// Whether a pipeline is one of them.
    #[cfg(all(feature = "eval", not(target_family = "wasm")))]
    pub fn keeps(&self, pipeline: &Arc<Pipeline>) -> bool {
        let compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.values().any(|kept| Arc::ptr_eq(kept, pipeline))
    }

    fn lookup(&self, variant: &Variant) -> Option<Arc<Pipeline>> {
        let compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let pipeline = compiled.get(variant)?;
        #[cfg(all(feature = "eval", not(target_family = "wasm")))]
        self.spent.note(&pipeline.used);
        Some(pipeline.clone())
    }
}

async fn compile(
    context: &Context,
    variant: &Variant,
    program: Option<&Arc<ProgramModules>>,
) -> Result<Pipeline> {
    let linked = link(variant, program)?;
    // Ours stay within their bindings, by the plan; what others write does with the driver's help.
    let checks = if program.is_some() { ShaderChecks::Checked } else { context.shader_checks() };
    let text = Text {
        key: kernels::key(variant, program),
        entry: variant.kernel.entry(),
        constants: kernels::constants(variant, program, &linked),
        bindings: slots(&linked).map(|(slot, writes)| (slot as u32, binding_type(slot, writes))).collect(),
        wgsl: linked.text,
    };
    let compiled = compile_text(context, text, checks).await?;
    Ok(Pipeline { program: program.map(Arc::downgrade), ..compiled })
}

/// A kernel that is to be compiled.
pub(crate) struct Text<'t> {
    pub key: String,
    pub wgsl: String,
    pub entry: &'t str,
    pub constants: Vec<(&'t str, f64)>,
    pub bindings: Vec<(u32, wgpu::BufferBindingType)>,
}

pub(crate) async fn compile_text(
    context: &Context,
    text: Text<'_>,
    checks: ShaderChecks,
) -> Result<Pipeline> {
    let Text { key, wgsl, entry, constants, bindings } = text;
    let device = context.device();
    scoped(context, &format!("the pipeline {key:?}"), || {
        let entries: Vec<_> = bindings.into_iter().map(layout_entry).collect();
        let module = create_module(device, wgsl, &key, checks);
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
            entry_point: Some(entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                // Every kernel writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
            },
            cache: context.disk_cache().wgpu(),
        });
        Pipeline {
            key,
            compute,
            layout,
            program: None,
            #[cfg(all(feature = "eval", not(target_family = "wasm")))]
            used: Default::default(),
        }
    })
    .await
}

fn create_module(
    device: &wgpu::Device,
    wgsl: String,
    label: &str,
    checks: ShaderChecks,
) -> wgpu::ShaderModule {
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
    match checks {
        ShaderChecks::Checked => device.create_shader_module(descriptor),
        // SAFETY: the source is this crate's own. Every index stays inside its binding, because the plan's tiles
        // cover the validated shapes exactly and bindings are at least as long as those; every loop has a bound that
        // the plan computes. A test runs a sample of the table with the checks on.
        ShaderChecks::Trusted => unsafe {
            device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
        },
    }
}

fn binding_type(slot: Slot, writes: bool) -> wgpu::BufferBindingType {
    match slot {
        Slot::Params => wgpu::BufferBindingType::Uniform,
        _ => wgpu::BufferBindingType::Storage { read_only: !writes },
    }
}

fn layout_entry((binding, ty): (u32, wgpu::BufferBindingType)) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

/// What compiling takes of the time of a check.
#[cfg(all(feature = "eval", not(target_family = "wasm")))]
pub(crate) mod spent {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// Numbers of kernels that were compiled, of nanoseconds, and of times that one was asked for.
    #[derive(Debug, Default)]
    pub struct Spent(AtomicU64, AtomicU64, AtomicU64);

    impl Spent {
        pub fn add(&self, time: Duration) {
            self.0.fetch_add(1, Ordering::Relaxed);
            self.1.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        }

        /// Notes that a kernel was asked for.
        pub fn note(&self, used: &AtomicU64) {
            used.store(1 + self.2.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }

        /// How many kernels were compiled, and how long that took.
        pub fn get(&self) -> (u64, Duration) {
            (self.0.load(Ordering::Relaxed), Duration::from_nanos(self.1.load(Ordering::Relaxed)))
        }
    }
}
