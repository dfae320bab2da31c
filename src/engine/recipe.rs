//! What an operation runs, made once for all tensors of the same shapes that lie alike, and bound to those at hand.

use std::sync::Arc;

use super::bindings::{At, Bound};
use super::build::Build;
use super::operands::{COARSEST_ALIGNMENT, Operand, Operands};
use super::params::Params;
use super::pipelines::Pipeline;
use super::prepared::{Prepared, Step};
use super::scope::{scoped, scoped_for};
use super::scratch::{Held, Pool, Room};
use super::slot::Slot;
use super::windows::{BoundWindow, windows};
use crate::base::error::Result;
use crate::engine::context::Context;
use crate::plan::{Op, Plan, Traffic};

/// A recipe with its kernels compiled and its uniforms written.
#[derive(Debug)]
pub(crate) struct Ready {
    op: Op,
    plan: Arc<Plan>,
    traffic: Traffic,
    rooms: Vec<Room>,
    steps: Vec<ReadyStep>,
    /// The parameters of all steps.
    uniforms: wgpu::Buffer,
    /// Plans whose addresses are in the key.
    #[expect(dead_code, reason = "kept so that no other plan has their addresses")]
    plans: Vec<Arc<Plan>>,
}

/// A dispatch of one window.
#[derive(Debug)]
struct ReadyStep {
    pipeline: Arc<Pipeline>,
    grid: [u32; 2],
    /// Where its parameters are in the uniforms.
    params: u64,
    bindings: Vec<(Slot, Source)>,
}

/// What a binding sees.
#[derive(Clone, Copy, Debug)]
enum Source {
    Params,
    Bound(Bound),
    /// Nothing: a block of zeros, of its own if it may be written.
    Absent {
        written: bool,
    },
}

impl Ready {
    /// Decides what every dispatch binds, compiles, and writes parameters.
    pub async fn new(build: &Build<'_>, operands: &Operands, traffic: Traffic) -> Result<Self> {
        let context = build.context();
        let windows = windows(build, operands).await?;
        let mut plans = vec![build.plan.clone()];
        let dispatches = build.stages().flat_map(|stage| &stage.dispatches);
        plans.extend(dispatches.map(|dispatch| dispatch.plan.clone()));
        // Dispatches over the same window share parameters.
        let mut distinct: Vec<Params> = Vec::new();
        let alignment = u64::from(context.device().limits().min_uniform_buffer_offset_alignment);
        let distance = (size_of::<Params>() as u64).next_multiple_of(alignment);
        let mut steps = Vec::new();
        for BoundWindow { variant, program, slots, params, grid, bound } in windows {
            let pipeline = context.pipelines().get(context, &variant, program.as_ref()).await?;
            let same = |other: &Params| bytemuck::bytes_of(other) == bytemuck::bytes_of(&params);
            let at = distinct.iter().position(same).unwrap_or_else(|| {
                distinct.push(params);
                distinct.len() - 1
            });
            let source = |slot: Slot| match bound.iter().find(|(bound, _)| *bound == slot) {
                _ if slot == Slot::Params => Source::Params,
                Some((_, bound)) => Source::Bound(*bound),
                None => Source::Absent { written: slot.writes() || pipeline.shared && slot.is_input() },
            };
            let bindings = slots.iter().map(|&slot| (slot, source(slot))).collect();
            steps.push(ReadyStep { pipeline, grid, params: at as u64 * distance, bindings });
        }
        let mut bytes = vec![0; (distinct.len() as u64 * distance) as usize];
        for (params, place) in distinct.iter().zip(bytes.chunks_mut(distance as usize)) {
            place[..size_of::<Params>()].copy_from_slice(bytemuck::bytes_of(params));
        }
        let uniforms = create_uniforms(context, &bytes).await?;
        let (op, plan, rooms) = (build.op, build.plan.clone(), build.rooms.clone());
        Ok(Self { op, plan, traffic, rooms, steps, uniforms, plans })
    }

    /// Whether all kernels are still kept.
    #[cfg(all(feature = "eval", not(target_family = "wasm")))]
    pub fn is_kept(&self, context: &Context) -> bool {
        self.steps.iter().all(|step| context.pipelines().keeps(&step.pipeline))
    }

    /// Binds tensors that lie as those that it was made for.
    pub async fn bind(&self, context: &Context, operands: &Operands) -> Result<Prepared> {
        // A lost device makes bind groups of no use, and does not say so.
        context.check_lost()?;
        let mut scratch = Vec::new();
        for room in &self.rooms {
            scratch.push(Pool::take(context.scratch(), context, *room).await?);
        }
        let steps = scoped_for(context, wgpu::ErrorFilter::Validation, self.op.name(), || {
            let absent = context.absent();
            let bound = |step: &ReadyStep| self.bind_step(step, context, (operands, &scratch, absent));
            self.steps.iter().map(bound).collect::<Vec<_>>()
        })
        .await?;
        let workspace_bytes = self.rooms.iter().map(|room| room.bytes).sum();
        Ok(Prepared::new(
            context,
            (self.op, self.plan.clone(), self.traffic),
            workspace_bytes,
            steps,
            scratch,
        ))
    }

    fn bind_step(
        &self,
        step: &ReadyStep,
        context: &Context,
        (operands, scratch, absent): (&Operands, &[Held], &Absent),
    ) -> Step {
        let resource = |slot: Slot, source: &Source| match *source {
            Source::Params => range(&self.uniforms, step.params, size_of::<Params>() as u64),
            Source::Absent { written } => absent.resource(slot, written),
            Source::Bound(bound) => match bound.at {
                At::Operand(at) => {
                    let Operand { buffer, base } = &operands.buffers[at];
                    range(buffer, base + bound.begin, bound.bytes())
                }
                At::Scratch(at) => range(scratch[at].buffer(), bound.begin, bound.bytes()),
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
            label: Some(&step.pipeline.key),
            layout: &step.pipeline.layout,
            entries: &entries,
        });
        Step { bind_group, grid: step.grid, pipeline: step.pipeline.clone() }
    }
}

fn range(buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> wgpu::BindingResource<'_> {
    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: wgpu::BufferSize::new(bytes) })
}

/// Parameters that are written between submissions at most.
const UNSUBMITTED: u64 = 32;

/// A uniform buffer with these parameters.
async fn create_uniforms(context: &Context, bytes: &[u8]) -> Result<wgpu::Buffer> {
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
        buffer
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

    fn resource(&self, slot: Slot, written: bool) -> wgpu::BindingResource<'_> {
        match written {
            true => range(&self.written, slot as u64 * Self::BLOCK, Self::BLOCK),
            false => self.read.as_entire_binding(),
        }
    }
}
