//! From bound tensors to something that can be recorded: the one place where operations become wgpu objects.

use std::collections::HashMap;
use std::sync::Arc;

use super::bindings::{Bound, check_overlap, check_sharing, read_through};
use super::params::{Common, Params, Records, flag};
use super::pipelines::{Pipeline, ProgramModules};
use super::probe;
use super::shader::{Kernel, Pointwise, Variant, WALKED_INPUTS};
use super::slot::Slot;
use crate::context::{Context, ContextId};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::mask::Mask;
use crate::plan::{Capabilities, Op, Plan, Traffic, WalkKind, Window};
use crate::shape::Channels;
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
    workspace_bytes: u64,
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
        Self {
            home: context.id(),
            op,
            plan: None,
            traffic: Traffic::default(),
            workspace_bytes: 0,
            steps: Vec::new(),
        }
    }

    /// Operations one after the other as one, with the plan of the first.
    pub(crate) fn sequence(context: &Context, op: Op, operations: Vec<Prepared>) -> Self {
        let mut all = Self::nothing(context, op);
        for operation in operations {
            all.plan = all.plan.or(operation.plan);
            all.traffic = all.traffic.plus(operation.traffic);
            all.workspace_bytes += operation.workspace_bytes;
            all.steps.extend(operation.steps);
        }
        all
    }

    /// This operation after another, as one, with the plan of this.
    pub(crate) fn after(self, before: Prepared) -> Self {
        let mut steps = before.steps;
        steps.extend(self.steps);
        Self {
            traffic: before.traffic.plus(self.traffic),
            workspace_bytes: before.workspace_bytes + self.workspace_bytes,
            steps,
            ..self
        }
    }

    /// The same, whose floor is another than that of its parts: what goes between them is neither input nor output.
    pub(crate) fn with_floor(self, floor_bytes: u64) -> Self {
        Self { traffic: Traffic { floor_bytes, ..self.traffic }, ..self }
    }

    /// The same, of an operation whose tensors are values per channel: they are not counted.
    pub(crate) fn without_traffic(self) -> Self {
        Self { traffic: Traffic::default(), ..self }
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

    /// Bytes of device memory that it holds for what one dispatch leaves for another: partial results ([`Plan::workspace_bytes`]), and where a
    /// plan has them, totals and statistics of slices.
    pub fn workspace_bytes(&self) -> u64 {
        self.workspace_bytes
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
    pub params: Common,
    /// What is applied to each element.
    pub pointwise: Pointwise,
    /// Whose kernels are dispatched, if not this crate's.
    pub program: Option<Arc<ProgramModules>>,
    /// Tensors that are walked.
    walked: Vec<(Slot, Tensor)>,
    /// Values per channel.
    values: Vec<(Slot, Tensor)>,
    /// Positions that do not count, and the geometry of x.
    mask: Option<(Mask, Channels)>,
    /// Buffers of the crate's own.
    owned: Vec<(Slot, wgpu::Buffer)>,
    scratch_bytes: u64,
    /// Of what is made by [`Build::workspace`].
    workspace_bytes: u64,
    dispatches: Vec<Dispatch>,
}

struct Dispatch {
    kernel: Kernel,
    pointwise: Pointwise,
    plan: Plan,
    /// Reads the tensor of the second slot through the first.
    instead: Option<(Slot, Slot)>,
    /// Partial results lie elsewhere than the plan of the operation has them.
    records: Option<Records>,
    /// Buffers of this dispatch alone.
    buffers: Vec<(Slot, wgpu::Buffer)>,
}

impl Dispatch {
    fn new(kernel: Kernel, pointwise: Pointwise, plan: Plan) -> Self {
        Self { kernel, pointwise, plan, instead: None, records: None, buffers: Vec::new() }
    }
}

impl<'c> Build<'c> {
    pub fn new(context: &'c Context, op: Op, plan: Plan) -> Self {
        let params = Common { partials: plan.partials(), ..Common::default() };
        Self {
            context,
            op,
            plan,
            params,
            pointwise: Pointwise::default(),
            program: None,
            walked: Vec::new(),
            values: Vec::new(),
            mask: None,
            owned: Vec::new(),
            scratch_bytes: 0,
            workspace_bytes: 0,
            dispatches: Vec::new(),
        }
    }

    pub fn context(&self) -> &'c Context {
        self.context
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Binds a caller's tensor of the walk's shape to a slot.
    pub fn tensor(&mut self, slot: Slot, tensor: &Tensor) -> Result<()> {
        tensor.check_device(slot.name(), self.context)?;
        self.walked.push((slot, tensor.clone()));
        Ok(())
    }

    /// Binds a value per channel that may be absent, and sets the flag that tells the kernel it is there.
    pub fn optional(&mut self, slot: Slot, tensor: Option<&Tensor>, flag: u32) -> Result<()> {
        if let Some(tensor) = tensor {
            self.params.flags |= flag;
            tensor.check_device(slot.name(), self.context)?;
            self.values.push((slot, tensor.clone()));
        }
        Ok(())
    }

    /// Lets only what a mask keeps count, of tensors with this geometry.
    pub fn mask(&mut self, mask: &Mask, view: Channels) -> Result<()> {
        mask.check(self.context, view)?;
        self.pointwise.masked = true;
        self.params.flags |= flag::MASKED;
        self.buffer(Slot::Mask, mask.buffer());
        self.mask = Some((mask.clone(), view));
        Ok(())
    }

    /// Binds a buffer of the crate's own as a whole.
    pub fn buffer(&mut self, slot: Slot, buffer: &wgpu::Buffer) {
        self.owned.push((slot, buffer.clone()));
    }

    /// Asks for a scratch buffer that one dispatch writes as `PartialsOut` and a later one reads as `Partials`.
    pub fn scratch(&mut self, bytes: u64) {
        self.scratch_bytes = bytes;
    }

    /// A buffer for what one dispatch leaves for another, which the operation holds.
    pub async fn workspace(&mut self, what: &'static str, bytes: u64) -> Result<wgpu::Buffer> {
        self.workspace_bytes += bytes;
        self.context.create_buffer(what, bytes, wgpu::BufferUsages::STORAGE).await
    }

    /// Adds a dispatch over the plan of the operation, for each of its windows.
    pub fn dispatch(&mut self, kernel: Kernel) {
        self.dispatch_over(kernel, self.plan.clone());
    }

    /// As [`dispatch`](Self::dispatch), for a kernel that does something else to each element.
    pub fn dispatch_with(&mut self, kernel: Kernel, pointwise: Pointwise, instead: Option<(Slot, Slot)>) {
        let dispatch = Dispatch::new(kernel, pointwise, self.plan.clone());
        self.dispatches.push(Dispatch { instead, ..dispatch });
    }

    /// Adds a dispatch over a plan of its own.
    pub fn dispatch_over(&mut self, kernel: Kernel, plan: Plan) {
        self.dispatches.push(Dispatch::new(kernel, self.pointwise, plan));
    }

    /// Adds a fold over a plan of its own, of partial results that lie as `records` says, with buffers that other dispatches do not see.
    pub fn dispatch_fold(
        &mut self,
        kernel: Kernel,
        plan: Plan,
        records: Records,
        buffers: Vec<(Slot, wgpu::Buffer)>,
    ) {
        let dispatch = Dispatch::new(kernel, self.pointwise, plan);
        self.dispatches.push(Dispatch { records: Some(records), buffers, ..dispatch });
    }

    /// Checks that nothing is written over what an operation reads or writes elsewhere; for operations that are split into several, each of
    /// which sees only a part.
    pub fn check_overlap(&self) -> Result<()> {
        let tensors: Vec<_> = self.walked.iter().chain(&self.values).cloned().collect();
        check_overlap(&tensors)
    }

    /// Compiles, allocates and binds.
    pub async fn finish(mut self, traffic: Traffic) -> Result<Prepared> {
        let context = self.context;
        self.check_overlap()?;
        check_binding(Slot::Partials.name(), self.scratch_bytes, context.capabilities())?;
        if self.scratch_bytes > 0 {
            let scratch =
                context.create_buffer("partials", self.scratch_bytes, wgpu::BufferUsages::STORAGE).await?;
            self.buffer(Slot::PartialsOut, &scratch);
            self.buffer(Slot::Partials, &scratch);
        }

        let mut bound = Vec::new();
        for together in self.dispatches.chunk_by(|one, next| one.plan.grouped && next.plan.grouped) {
            let mut windows = Vec::new();
            for dispatch in together {
                windows.push(self.bind(dispatch).await?.into_iter());
            }
            // The first window of all dispatches, if they go by groups, then the second, and so on.
            let most = windows.iter().map(|windows| windows.len()).max().unwrap_or(0);
            for _ in 0..most {
                bound.extend(windows.iter_mut().filter_map(Iterator::next));
            }
        }
        let steps = scoped(context, &format!("the bindings of {}", self.op.name()), || {
            let device = context.device();
            let absent = Absent::new(device);
            // Dispatches over the same window share parameters.
            let mut uniforms: HashMap<[u8; size_of::<Params>()], wgpu::Buffer> = HashMap::new();
            let mut steps = Vec::new();
            for BoundWindow { pipeline, slots, params, grid, bound } in bound {
                let uniform =
                    uniforms.entry(bytemuck::cast(params)).or_insert_with(|| create_params(context, &params));
                let resource = |slot| match bound.iter().find(|(bound, _)| *bound == slot) {
                    _ if slot == Slot::Params => uniform.as_entire_binding(),
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
                steps.push(Step { bind_group, grid, pipeline });
            }
            steps
        })
        .await?;
        let workspace_bytes = self.scratch_bytes + self.workspace_bytes;
        Ok(Prepared {
            home: context.id(),
            op: self.op,
            plan: Some(self.plan),
            traffic,
            workspace_bytes,
            steps,
        })
    }

    /// What a dispatch binds in each window. Where a tensor lies in several buffers, windows may differ in the variant.
    async fn bind(&self, dispatch: &Dispatch) -> Result<Vec<BoundWindow>> {
        let Dispatch { kernel, pointwise, plan, instead, records, buffers } = dispatch;
        let alignment = self.context.capabilities().storage_alignment;
        let parameters = self.values.iter().find(|(slot, _)| kernel.parameters().contains(slot));
        let plain = Variant {
            kernel: *kernel,
            pointwise: *pointwise,
            dtype: plan.dtype,
            through: [None; WALKED_INPUTS.len()],
            parameters: parameters.map_or(DType::F32, |(_, tensor)| tensor.dtype()),
            packed_f16: false,
            // Where they begin at whole words.
            parameter_words: self.values.iter().all(|(slot, tensor)| {
                !kernel.parameters().contains(slot) || tensor.byte_offset().is_multiple_of(16)
            }),
            walk: plan.walk,
            width: plan.width,
            edges: plan.edges,
            strided: plan.strided,
            strip: plan.strip,
            single_rows: plan.walk == WalkKind::Columns && !plan.edges && plan.records == plan.slices,
            workgroup_size: plan.workgroup_size,
            team_size: plan.team_size,
            subgroup_size: plan.subgroup_size,
            held: plan.held,
            chunk_words: plan.chunk_words,
            shared: false,
        };
        let mut plain = plain.reduced();
        if plain.subgroup_size > 0 && !probe::has_ordered_subgroups(self.context).await? {
            plain.subgroup_size = 0;
        }
        let packed_f16 = plain.uses_f16() && probe::packs_f16(self.context).await?;
        let needed = self.context.pipelines().slots(&plain, self.program.as_ref())?;
        let walked = self.walked.iter().filter_map(|(slot, tensor)| match *instead {
            Some((from, to)) if *slot == to => Some((from, tensor)),
            Some((from, _)) if *slot == from => None,
            _ => Some((*slot, tensor)),
        });
        let walked: Vec<_> = walked.filter(|(slot, _)| needed.contains(slot)).collect();
        let mut windows = Vec::new();
        for window in &plan.windows {
            let mut variant = Variant { packed_f16, ..plain };
            let mut params = Params::new(plan, window, &self.params);
            if let Some(records) = records {
                params.set_records(*records);
            }
            let mut bound = self.bind_walked(&walked, window, &mut variant, &mut params)?;
            if let Some((mask, view)) = &self.mask {
                (params.mask_first, params.mask_lead) = mask.place(*view, window.elements.start);
            }
            let slots = self.context.pipelines().slots(&variant, self.program.as_ref())?;
            for (slot, tensor) in self.values.iter().filter(|(slot, _)| slots.contains(slot)) {
                let size = tensor.dtype().size();
                let location = tensor.locate(0..tensor.shape().len());
                let begin = location.bytes.start;
                let range = Bound::range(location, size, alignment);
                params.place_mut(*slot).offset = ((begin - range.begin()) / size) as u32;
                bound.push((*slot, range));
            }
            for (slot, buffer) in buffers.iter().chain(&self.owned).filter(|(slot, _)| slots.contains(slot)) {
                if bound.iter().all(|(bound, _)| bound != slot) {
                    bound.push((*slot, Bound::whole(buffer)));
                }
            }
            for (slot, range) in &bound {
                check_binding(slot.name(), range.bytes(), self.context.capabilities())?;
            }
            variant.shared = check_sharing(&bound, alignment)?;
            let pipeline =
                self.context.pipelines().get(self.context, &variant, self.program.as_ref()).await?;
            windows.push(BoundWindow { pipeline, slots, params, grid: window.grid, bound });
        }
        Ok(windows)
    }

    /// Binds the tensors that are walked, as far as a window has them; what is read through the binding of an output is
    /// noted in the variant.
    fn bind_walked(
        &self,
        walked: &[(Slot, &Tensor)],
        window: &Window,
        variant: &mut Variant,
        params: &mut Params,
    ) -> Result<Vec<(Slot, Bound)>> {
        let word_bytes = variant.dtype.size() * u64::from(variant.width);
        let locate = |&(slot, tensor): &(Slot, &Tensor)| (slot, tensor.locate(window.elements.clone()));
        let located: Vec<_> = walked.iter().map(locate).collect();
        for (through, input) in variant.through.iter_mut().zip(WALKED_INPUTS) {
            *through = read_through(input, &located)?;
        }
        let binding_of = |slot: Slot| {
            let input = WALKED_INPUTS.iter().position(|&input| input == slot);
            input.and_then(|input| variant.through[input]).unwrap_or(slot)
        };
        let mut bound: Vec<(Slot, Bound)> = Vec::new();
        for (slot, location) in &located {
            let alignment = self.context.capabilities().storage_alignment;
            let range = Bound::range(location.clone(), word_bytes, alignment);
            match bound.iter_mut().find(|(bound, _)| *bound == binding_of(*slot)) {
                Some((_, both)) => both.extend(&range),
                None => bound.push((binding_of(*slot), range)),
            }
        }
        for ((slot, location), (_, tensor)) in located.iter().zip(walked) {
            let found = bound.iter().find(|(bound, _)| *bound == binding_of(*slot));
            let begin = found.map_or(0, |(_, range)| range.begin());
            let (row, sample) = tensor.skips();
            let words = |skip: u64| (skip / u64::from(variant.width)) as u32;
            let place = params.place_mut(*slot);
            place.offset = ((location.bytes.start - begin) / word_bytes) as u32;
            (place.row_skip, place.sample_skip) = (words(row), words(sample));
        }
        Ok(bound)
    }
}

/// What one window of a dispatch runs and binds.
struct BoundWindow {
    pipeline: Arc<Pipeline>,
    slots: Arc<[Slot]>,
    params: Params,
    grid: [u32; 2],
    bound: Vec<(Slot, Bound)>,
}

fn check_binding(what: &'static str, needed: u64, capabilities: &Capabilities) -> Result<()> {
    let limit = capabilities.max_binding_bytes;
    let (unit, limit_name) = ("bytes", "max_storage_buffer_binding_size");
    if needed > limit { Err(Error::TooLarge { what, needed, unit, limit_name, limit }) } else { Ok(()) }
}

/// A uniform buffer with these parameters.
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
