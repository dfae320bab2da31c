//! The least that wgpu takes for a training forward pass: the same kernels, buffers, bindings and dispatches of its recipe, without checks, plans or error scopes.

use wgnorm::recipe::{BindingType, Recipe, Source};
use wgnorm::{Context, Result, Spec, Tensor, wgpu};

/// A recipe with its kernels compiled.
pub struct ByHand<'c> {
    context: &'c Context,
    recipe: Recipe,
    kernels: Vec<(wgpu::ComputePipeline, wgpu::BindGroupLayout)>,
    uniforms: wgpu::Buffer,
    scratch: Vec<wgpu::Buffer>,
    nothing: wgpu::Buffer,
    /// What is not new in each call: gamma, beta and running statistics.
    kept: Vec<Option<Tensor>>,
}

impl<'c> ByHand<'c> {
    pub async fn new(context: &'c Context, spec: &str) -> Result<Self> {
        let recipe = spec.parse::<Spec>()?.recipes(context.capabilities())?.forward;
        let device = context.device();
        let buffer = |size: u64, usage| {
            let usage = usage | wgpu::BufferUsages::COPY_DST;
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let mut kept = Vec::new();
        for operand in &recipe.operands {
            let is_new = ["x", "y", "saved statistics"].contains(&operand.name.as_str());
            let len = [operand.bytes.div_ceil(4) as usize];
            kept.push(if is_new { None } else { Some(context.zeros(&len).await?) });
        }
        let kernels = recipe.kernels.iter().map(|kernel| compile(device, kernel)).collect();
        let uniforms = buffer(recipe.uniforms.len() as u64, wgpu::BufferUsages::UNIFORM);
        context.queue().write_buffer(&uniforms, 0, &recipe.uniforms);
        let storage = wgpu::BufferUsages::STORAGE;
        let scratch = recipe.scratch.iter().map(|room| buffer(room.bytes, storage)).collect();
        Ok(Self { context, kernels, uniforms, scratch, nothing: buffer(1 << 16, storage), kept, recipe })
    }

    /// New results, bindings, and a submission.
    pub fn run(&self, x: &Tensor) {
        let device = self.context.device();
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let operands = self.recipe.operands.iter().zip(&self.kept).map(|(operand, kept)| match kept {
            Some(kept) => kept.buffer().clone(),
            None if operand.name == "x" => x.buffer().clone(),
            None => {
                let size = operand.bytes;
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size,
                    usage,
                    mapped_at_creation: false,
                })
            }
        });
        let operands: Vec<_> = operands.collect();
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for dispatch in &self.recipe.dispatches {
            let (pipeline, layout) = &self.kernels[dispatch.kernel];
            let entries = dispatch.bindings.iter().map(|binding| {
                let (buffer, offset) = match binding.source {
                    Source::Uniforms => (&self.uniforms, binding.offset),
                    Source::Operand(at) => (&operands[at], binding.offset),
                    Source::Scratch(at) => (&self.scratch[at], binding.offset),
                    _ => (&self.nothing, u64::from(binding.number) * 256),
                };
                let size = wgpu::BufferSize::new(binding.bytes);
                let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size });
                wgpu::BindGroupEntry { binding: binding.number, resource }
            });
            let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout,
                entries: &entries.collect::<Vec<_>>(),
            });
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(dispatch.workgroups[0], dispatch.workgroups[1], 1);
        }
        drop(pass);
        self.context.queue().submit([encoder.finish()]);
    }
}

fn compile(
    device: &wgpu::Device,
    kernel: &wgnorm::recipe::Kernel,
) -> (wgpu::ComputePipeline, wgpu::BindGroupLayout) {
    let entries = kernel.bindings.iter().map(|(binding, ty)| wgpu::BindGroupLayoutEntry {
        binding: *binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: match ty {
                BindingType::Uniform => wgpu::BufferBindingType::Uniform,
                ty => wgpu::BufferBindingType::Storage { read_only: *ty == BindingType::Read },
            },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    });
    let entries = &entries.collect::<Vec<_>>();
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries });
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl((&kernel.wgsl[..]).into()),
    });
    let constants: Vec<_> = kernel.constants.iter().map(|(name, value)| (&name[..], *value)).collect();
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: Some(&device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        })),
        module: &module,
        entry_point: Some(&kernel.entry_point),
        compilation_options: wgpu::PipelineCompilationOptions { constants: &constants, ..Default::default() },
        cache: None,
    });
    (pipeline, layout)
}
