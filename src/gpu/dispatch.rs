//! From bound tensors to something that can be recorded: the one place where operations become wgpu objects.

use std::sync::Arc;

use super::bindings::{Bound, check_overlap, check_sharing};
use super::params::Params;
use super::pipelines::Pipeline;
use super::shader::{Kernel, Variant};
use super::slot::Slot;
use crate::context::{Context, ContextId};
use crate::error::{Error, Result};
use crate::plan::{Capabilities, Op, Plan, Traffic};
use crate::tensor::Tensor;

/// An operation that is ready to be recorded, any number of times.
///
/// It owns its pipelines, bind groups, parameters and scratch, so recording allocates nothing and cannot fail.
/// It keeps the buffers of its tensors alive. Dispatches of one operation, and of operations recorded one after the
/// other, run in order.
#[derive(Debug)]
pub struct Prepared {
    home: ContextId,
    op: Op,
    /// `None` if there is nothing to do, because the tensor is empty.
    plan: Option<Plan>,
    traffic: Traffic,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    grid: [u32; 2],
}

impl Prepared {
    /// An operation on an empty tensor.
    pub(crate) fn nothing(context: &Context, op: Op) -> Self {
        Self { home: context.id(), op, plan: None, traffic: Traffic::default(), steps: Vec::new() }
    }

    /// Records the operation into a compute pass of its own. The encoder must be of the context's device.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some(self.op.name()),
            timestamp_writes: None,
        });
        self.record_in(&mut pass);
    }

    /// Records the operation into a compute pass that the caller has begun, on the context's device.
    pub fn record_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        for step in &self.steps {
            pass.set_pipeline(&step.pipeline.compute);
            pass.set_bind_group(0, &step.bind_group, &[]);
            pass.dispatch_workgroups(step.grid[0], step.grid[1], 1);
        }
    }

    pub(crate) fn home(&self) -> ContextId {
        self.home
    }

    /// The operation.
    pub fn op(&self) -> Op {
        self.op
    }

    /// How the walk is cut into workgroups; `None` if the tensor is empty.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// Bytes that the operation moves.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Keys of the kernels, one per dispatch, in order.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|step| step.pipeline.key.as_str())
    }
}

/// Collects what an operation binds and dispatches.
pub(crate) struct Build<'c> {
    context: &'c Context,
    op: Op,
    plan: Plan,
    pub params: Params,
    bound: Vec<(Slot, Bound)>,
    scratch_bytes: u64,
    dispatches: Vec<(Kernel, Plan)>,
}

impl<'c> Build<'c> {
    pub fn new(context: &'c Context, op: Op, plan: Plan) -> Self {
        let params = Params::new(&plan);
        Self { context, op, plan, params, bound: Vec::new(), scratch_bytes: 0, dispatches: Vec::new() }
    }

    pub fn context(&self) -> &'c Context {
        self.context
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Binds a caller's tensor to a slot.
    pub fn tensor(&mut self, slot: Slot, tensor: &Tensor) -> Result<()> {
        let what = slot.name();
        tensor.check_device(what, self.context)?;
        let word = tensor.dtype().size() * if slot.walked() { u64::from(self.plan.width) } else { 1 };
        let bound = Bound::tensor(tensor, word, self.context.capabilities().storage_alignment);
        // Of whole words; the rest of a word is the plan's phase.
        let offset = (bound.remainder() / word) as u32;
        match slot {
            Slot::X => self.params.x_offset = offset,
            Slot::Dy => self.params.dy_offset = offset,
            Slot::Y => self.params.y_offset = offset,
            Slot::Dx => self.params.dx_offset = offset,
            Slot::Gamma => self.params.gamma_offset = offset,
            Slot::Beta => self.params.beta_offset = offset,
            Slot::Dgamma => self.params.dgamma_offset = offset,
            Slot::Dbeta => self.params.dbeta_offset = offset,
            // Buffers of the crate's own start at their first element: `buffer`.
            _ => debug_assert_eq!(offset, 0, "{slot:?} has no offset"),
        }
        self.bound.push((slot, bound));
        Ok(())
    }

    /// Binds a tensor that may be absent, and sets the flag that tells the kernel it is there.
    pub fn optional(&mut self, slot: Slot, tensor: Option<&Tensor>, flag: u32) -> Result<()> {
        if let Some(tensor) = tensor {
            self.params.flags |= flag;
            self.tensor(slot, tensor)?;
        }
        Ok(())
    }

    /// Binds a buffer of the crate's own as a whole.
    pub fn buffer(&mut self, slot: Slot, buffer: &wgpu::Buffer) {
        self.bound.push((slot, Bound::whole(buffer)));
    }

    /// Asks for a scratch buffer that one dispatch writes as `PartialsOut` and a later one reads as `Partials`.
    pub fn scratch(&mut self, bytes: u64) {
        self.scratch_bytes = bytes;
    }

    /// Adds a dispatch over the plan of the operation.
    pub fn dispatch(&mut self, kernel: Kernel) {
        self.dispatch_over(kernel, self.plan.clone());
    }

    /// Adds a dispatch over a plan of its own.
    pub fn dispatch_over(&mut self, kernel: Kernel, plan: Plan) {
        self.dispatches.push((kernel, plan));
    }

    /// Compiles, allocates and binds.
    pub async fn finish(mut self, traffic: Traffic) -> Result<Prepared> {
        let context = self.context;
        let alignment = context.capabilities().storage_alignment;
        for (slot, bound) in &self.bound {
            check_binding(slot.name(), bound.bytes(), context.capabilities())?;
        }
        check_overlap(&self.bound)?;
        check_binding(Slot::Partials.name(), self.scratch_bytes, context.capabilities())?;
        if self.scratch_bytes > 0 {
            let scratch =
                context.create_buffer("partials", self.scratch_bytes, wgpu::BufferUsages::STORAGE).await?;
            self.buffer(Slot::PartialsOut, &scratch);
            self.buffer(Slot::Partials, &scratch);
        }

        let mut pipelines = Vec::with_capacity(self.dispatches.len());
        for (kernel, plan) in &self.dispatches {
            let slots = kernel.slots();
            let used: Vec<_> = self.bound.iter().filter(|(slot, _)| slots.contains(slot)).cloned().collect();
            let variant = Variant {
                kernel: *kernel,
                walk: plan.walk,
                width: plan.width,
                edges: plan.edges,
                strip: plan.strip,
                workgroup_size: plan.workgroup_size,
                team_size: plan.team_size,
                chunk_words: plan.chunk_words,
                shared: check_sharing(&used, alignment)?,
            };
            pipelines.push(context.pipelines().get(context, &variant).await?);
        }

        let steps = scoped(context, &format!("the bindings of {}", self.op.name()), || {
            let device = context.device();
            let params = create_params(context, &self.params);
            let absent = Absent::new(device);
            let bind = |(kernel, plan): &(Kernel, Plan), pipeline: Arc<Pipeline>| {
                let slots = kernel.slots();
                let resource = |slot| match self.bound.iter().find(|(bound, _)| *bound == slot) {
                    _ if slot == Slot::Params => params.as_entire_binding(),
                    Some((_, bound)) => bound.resource(),
                    None => absent.resource(slot, pipeline.shared),
                };
                let entries: Vec<_> = slots
                    .iter()
                    .map(|&slot| wgpu::BindGroupEntry { binding: slot as u32, resource: resource(slot) })
                    .collect();
                let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some(&pipeline.key),
                    layout: &pipeline.layout,
                    entries: &entries,
                });
                Step { bind_group, grid: plan.grid, pipeline }
            };
            self.dispatches
                .iter()
                .zip(pipelines)
                .map(|(dispatch, pipeline)| bind(dispatch, pipeline))
                .collect()
        })
        .await?;
        Ok(Prepared { home: context.id(), op: self.op, plan: Some(self.plan), traffic, steps })
    }
}

fn check_binding(what: &'static str, needed: u64, capabilities: &Capabilities) -> Result<()> {
    let limit = capabilities.max_binding_bytes;
    let (unit, limit_name) = ("bytes", "max_storage_buffer_binding_size");
    if needed > limit { Err(Error::TooLarge { what, needed, unit, limit_name, limit }) } else { Ok(()) }
}

fn create_params(context: &Context, params: &Params) -> wgpu::Buffer {
    let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("params"),
        size: size_of::<Params>() as u64,
        usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    // The buffer is new and written once, so it does not matter that the write precedes the whole submit.
    context.queue().write_buffer(&buffer, 0, bytemuck::bytes_of(params));
    buffer
}

/// What optional bindings see when they are absent.
struct Absent {
    read: wgpu::Buffer,
    /// A block for each slot, because writable ranges must not alias.
    written: wgpu::Buffer,
}

impl Absent {
    /// Bytes of a block: WebGPU's coarsest offset granularity, longer than any record.
    const BLOCK: u64 = 256;

    fn new(device: &wgpu::Device) -> Self {
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

    fn resource(&self, slot: Slot, shared: bool) -> wgpu::BindingResource<'_> {
        let written = slot.writes() || shared && slot.is_input();
        if !written {
            return self.read.as_entire_binding();
        }
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.written,
            offset: slot as u64 * Self::BLOCK,
            size: wgpu::BufferSize::new(Self::BLOCK),
        })
    }
}

/// Runs wgpu calls inside error scopes and turns what they catch into an [`Error`]. The application's own error
/// callbacks see none of it.
pub(crate) async fn scoped<T>(context: &Context, what: &str, build: impl FnOnce() -> T) -> Result<T> {
    let (value, lost, caught) = {
        let device = context.device();
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let value = build();
        let lost = context.check_lost();
        // A scope is popped at the call; only its verdict is awaited.
        (value, lost, [validation.pop(), internal.pop(), memory.pop()])
    };
    for verdict in caught {
        match verdict.await {
            None => {}
            Some(wgpu::Error::OutOfMemory { .. }) => {
                return Err(Error::OutOfMemory { what: what.to_owned() });
            }
            Some(wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. }) => {
                lost?;
                return Err(Error::Validation { what: what.to_owned(), message: description });
            }
        }
    }
    lost?;
    Ok(value)
}
