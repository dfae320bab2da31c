//! Running recipes with wgpu.

use std::sync::Arc;

use super::{Binding, BindingType, Kernel, Recipe, Source};
use crate::base::error::{Error, Result};
use crate::engine::buffer::Buffer;
use crate::engine::context::Context;
use crate::engine::pipelines::{Pipeline, Text, compile_text};
use crate::engine::prepared::{Prepared, Step};
use crate::engine::scope::{scoped, scoped_for};
use crate::engine::slot::Slot;
use crate::plan::Traffic;

impl Recipe {
    /// The operation on these ranges of buffers, one for each operand and in their order, from which it is recorded any number of times. The buffers must be of the context's
    /// device and have the usage `STORAGE`; ranges must begin at multiples of `min_storage_buffer_offset_alignment`, and those that an operation writes may not overlap others.
    ///
    /// Kernels are compiled with wgpu's checks, because anybody can have written a recipe. Each call compiles them; what is bound anew at every step is
    /// better prepared by a layer.
    ///
    /// # Errors
    /// [`Error::Number`] unless there is a range for each operand, [`Error::BufferTooSmall`], [`Error::Misaligned`], [`Error::Recipe`] for one that refers to what it does not have;
    /// [`Error::Validation`] for what wgpu refuses, [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn prepare(&self, context: &Context, buffers: &[wgpu::BufferBinding<'_>]) -> Result<Prepared> {
        self.check(context, buffers)?;
        let mut pipelines = Vec::new();
        for kernel in &self.kernels {
            pipelines.push(Arc::new(compile(context, kernel).await?));
        }
        let mut scratch = Vec::new();
        for room in &self.scratch {
            let buffer =
                context.create_gpu_buffer("scratch", room.bytes, wgpu::BufferUsages::STORAGE).await?;
            scratch.push(Buffer::own(buffer));
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let size = self.uniforms.len().max(4) as u64;
        let uniforms = Buffer::own(context.create_gpu_buffer("params", size, usage).await?);
        scoped(context, "the parameters of a recipe", || {
            context.queue().write_buffer(uniforms.gpu(), 0, &self.uniforms);
        })
        .await?;
        let absent = context.absent();
        let steps = scoped_for(context, &[wgpu::ErrorFilter::Validation], "the bindings of a recipe", || {
            let mut steps = Vec::new();
            for dispatch in &self.dispatches {
                let pipeline = &pipelines[dispatch.kernel];
                let entries = dispatch.bindings.iter().map(|binding| wgpu::BindGroupEntry {
                    binding: binding.number,
                    resource: match binding.source {
                        Source::Uniforms => range(uniforms.gpu(), 0, binding),
                        Source::Operand(at) => range(buffers[at].buffer, buffers[at].offset, binding),
                        Source::Scratch(at) => range(scratch[at].gpu(), 0, binding),
                        Source::Nothing { written } => absent.block(binding.number, written),
                    },
                });
                let bind_group = context.device().create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some(&pipeline.key),
                    layout: &pipeline.layout,
                    entries: &entries.collect::<Vec<_>>(),
                });
                let pipeline = pipeline.clone();
                steps.push(Step { pipeline, bind_group, grid: dispatch.workgroups });
            }
            steps
        })
        .await?;
        let traffic = Traffic { floor_bytes: self.floor_bytes, plan_bytes: self.plan_bytes };
        let workspace_bytes = self.scratch.iter().map(|room| room.bytes).sum();
        scratch.push(uniforms);
        Ok(Prepared::new(context, (self.op, None, traffic), workspace_bytes, steps, (scratch, Vec::new())))
    }

    /// Requires ranges that can be bound, and that everything that is referred to is there.
    fn check(&self, context: &Context, buffers: &[wgpu::BufferBinding<'_>]) -> Result<()> {
        let (expected, got) = (self.operands.len(), buffers.len());
        if expected != got {
            return Err(Error::Number { what: "buffers of a recipe", expected, got });
        }
        let alignment = u64::from(context.device().limits().min_storage_buffer_offset_alignment);
        for (operand, range) in self.operands.iter().zip(buffers) {
            let (what, offset, size) = ("an operand of a recipe", range.offset, range.buffer.size());
            if !offset.is_multiple_of(alignment) {
                return Err(Error::Misaligned { what, offset, alignment });
            }
            let given = size.saturating_sub(offset);
            let bound = range.size.map_or(given, |bound| bound.get().min(given));
            if bound < operand.bytes {
                return Err(Error::BufferTooSmall { what, offset, needed: operand.bytes, size });
            }
        }
        let refused = |reason: String| Err(Error::Recipe { reason });
        for (i, dispatch) in self.dispatches.iter().enumerate() {
            if dispatch.kernel >= self.kernels.len() {
                return refused(format!("dispatch {i} is of kernel {}, which there is not", dispatch.kernel));
            }
            for binding in &dispatch.bindings {
                let bytes = match binding.source {
                    Source::Uniforms => Some(self.uniforms.len() as u64),
                    Source::Operand(at) => self.operands.get(at).map(|operand| operand.bytes),
                    Source::Scratch(at) => self.scratch.get(at).map(|room| room.bytes.next_multiple_of(4)),
                    // There is a block for each number that a kernel of this crate has.
                    Source::Nothing { .. } if binding.number as usize >= Slot::COUNT => None,
                    Source::Nothing { .. } => Some(binding.bytes),
                };
                let end = binding.offset.checked_add(binding.bytes);
                if end.zip(bytes).is_none_or(|(end, bytes)| end > bytes) {
                    let number = binding.number;
                    return refused(format!("binding {number} of dispatch {i} sees more than there is"));
                }
            }
        }
        Ok(())
    }
}

fn range<'b>(buffer: &'b wgpu::Buffer, base: u64, binding: &Binding) -> wgpu::BindingResource<'b> {
    let (offset, size) = (base + binding.offset, wgpu::BufferSize::new(binding.bytes));
    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
}

async fn compile(context: &Context, kernel: &Kernel) -> Result<Pipeline> {
    let bindings = kernel.bindings.iter().map(|(number, ty)| {
        let ty = match ty {
            BindingType::Uniform => wgpu::BufferBindingType::Uniform,
            BindingType::Read => wgpu::BufferBindingType::Storage { read_only: true },
            BindingType::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
        };
        (*number, ty)
    });
    let text = Text {
        key: kernel.name.clone(),
        wgsl: kernel.wgsl.clone(),
        entry: &kernel.entry_point,
        constants: kernel.constants.iter().map(|(name, value)| (&name[..], *value)).collect(),
        bindings: bindings.collect(),
    };
    compile_text(context, text, crate::engine::adapter::ShaderChecks::Checked).await
}
