//! A draft with its kernels compiled, which is made once and bound to the tensors at hand.

use std::sync::Arc;

use super::bindings::At;
use super::buffer::Buffer;
use super::draft::{Draft, DraftStep, Source};
use super::operands::{COARSEST_ALIGNMENT, Operand, Operands};
use super::params::Params;
use super::pipelines::Pipeline;
use super::prepared::{Prepared, Step};
use super::scope::{left, scoped};
use super::scratch::{Held, Pool};
use super::slot::Slot;
use crate::base::error::Result;
use crate::engine::context::Context;

/// A draft with its kernels compiled and its uniforms written.
#[derive(Debug)]
pub(crate) struct Ready {
    draft: Draft,
    /// Of each step.
    pipelines: Vec<Arc<Pipeline>>,
    /// The parameters of all steps.
    uniforms: Buffer,
}

impl Ready {
    /// Compiles, and writes parameters.
    pub async fn new(context: &Context, draft: Draft) -> Result<Self> {
        let mut pipelines = Vec::new();
        for DraftStep { variant, program, .. } in &draft.steps {
            pipelines.push(context.pipelines().get(context, variant, program.as_ref()).await?);
        }
        let uniforms = create_uniforms(context, &draft.uniforms).await?;
        Ok(Self { draft, pipelines, uniforms })
    }

    /// Whether all kernels are still kept.
    #[cfg(all(feature = "eval", not(target_family = "wasm")))]
    pub fn is_kept(&self, context: &Context) -> bool {
        self.pipelines.iter().all(|pipeline| context.pipelines().keeps(pipeline))
    }

    /// Binds tensors that lie as those that it was made for.
    pub async fn bind(&self, context: &Context, operands: &Operands) -> Result<Prepared> {
        // A lost device makes bind groups of no use, and does not say so.
        context.check_lost()?;
        let mut scratch = Vec::new();
        for room in &self.draft.rooms {
            scratch.push(Pool::take(context.scratch(), context, *room).await?);
        }
        let steps = left(context, &[wgpu::ErrorFilter::Validation], self.draft.op.name(), || {
            let absent = context.absent();
            let steps = self.draft.steps.iter().zip(&self.pipelines);
            let bound =
                |of: (&DraftStep, &Arc<Pipeline>)| self.bind_step(of, context, (operands, &scratch, absent));
            steps.map(bound).collect::<Vec<_>>()
        })
        .await?;
        let given = operands.buffers.iter().map(|operand| operand.buffer.clone());
        let workspace_bytes = self.draft.rooms.iter().map(|room| room.bytes).sum();
        Ok(Prepared::new(
            context,
            (self.draft.op, Some(self.draft.plan.clone()), self.draft.traffic),
            workspace_bytes,
            steps,
            (given.chain([self.uniforms.clone()]).collect(), scratch),
        ))
    }

    fn bind_step(
        &self,
        (step, pipeline): (&DraftStep, &Arc<Pipeline>),
        context: &Context,
        (operands, scratch, absent): (&Operands, &[Held], &Absent),
    ) -> Step {
        let resource = |slot: Slot, source: &Source| match *source {
            Source::Params => range(self.uniforms.gpu(), step.params, size_of::<Params>() as u64),
            Source::Absent { written } => absent.block(slot as u32, written),
            Source::Bound(bound) => match bound.at {
                At::Operand(at) => {
                    let Operand { buffer, base } = &operands.buffers[at];
                    range(buffer.gpu(), base + bound.begin, bound.bytes())
                }
                At::Scratch(at) => range(scratch[at].buffer().gpu(), bound.begin, bound.bytes()),
            },
        };
        let entries: Vec<_> = step
            .bindings
            .iter()
            .map(|(slot, source)| wgpu::BindGroupEntry {
                binding: *slot as u32,
                resource: resource(*slot, source),
            })
            .collect();
        let bind_group = context.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&pipeline.key),
            layout: &pipeline.layout,
            entries: &entries,
        });
        Step { bind_group, grid: step.grid, pipeline: pipeline.clone() }
    }
}

fn range(buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> wgpu::BindingResource<'_> {
    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: wgpu::BufferSize::new(bytes) })
}

/// Parameters that are written between submissions at most.
const UNSUBMITTED: u64 = 32;

/// A uniform buffer with these parameters.
async fn create_uniforms(context: &Context, bytes: &[u8]) -> Result<Buffer> {
    scoped(context, "the parameters of an operation", || {
        let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: bytes.len().max(4) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        // The buffer is new and written once, so it does not matter that the write precedes the whole submit.
        context.queue().write_buffer(&buffer, 0, bytes);
        // What is written is kept twice until something is submitted, which may be long after many shapes have been prepared.
        if context.recipes().made().is_multiple_of(UNSUBMITTED) {
            context.queue().submit([]);
        }
        Buffer::own(buffer)
    })
    .await
}

/// What optional bindings see when they are absent: zeros, of all operations the same, since nothing is written there.
#[derive(Debug)]
pub(crate) struct Absent {
    read: wgpu::Buffer,
    /// A block for each slot, because writable ranges must not alias.
    written: wgpu::Buffer,
}

impl Absent {
    /// Bytes of a block: WebGPU's coarsest offset granularity, longer than any record.
    const BLOCK: u64 = COARSEST_ALIGNMENT;

    pub fn new(device: &wgpu::Device) -> Self {
        let create = |size| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("absent"),
                size,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        };
        Self { read: create(Self::BLOCK), written: create(Slot::COUNT as u64 * Self::BLOCK) }
    }

    /// What a binding of this number, of one that is a slot's, sees.
    pub fn block(&self, number: u32, written: bool) -> wgpu::BindingResource<'_> {
        match written {
            true => range(&self.written, u64::from(number) * Self::BLOCK, Self::BLOCK),
            false => self.read.as_entire_binding(),
        }
    }
}
