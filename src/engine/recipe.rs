//! What an operation runs, made once for all tensors of the same shapes that lie alike, and bound to those at hand.

use std::ops::Range;
use std::sync::Arc;

use super::bindings::{At, Bound, check_sharing, read_through};
use super::build::{Build, Dispatch, Scratch, Stage, Whole};
use super::memo::Key;
use super::params::Params;
use super::pipelines::{Pipeline, ProgramModules};
use super::prepared::{Prepared, Step};
use super::probe;
use super::scope::{scoped, scoped_for};
use super::scratch::{Held, Pool, Room};
use super::shader::{Kernel, Variant, WALKED_INPUTS};
use super::slot::Slot;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::engine::context::Context;
use crate::engine::tensor::{Location, Tensor};
use crate::plan::{Capabilities, Op, Plan, Traffic, WalkKind, Window};

/// Offsets of any device are multiples of a divisor of it.
const COARSEST_ALIGNMENT: u64 = 256;

/// The buffers of an operation, each once.
pub(crate) struct Operands {
    buffers: Vec<Operand>,
}

struct Operand {
    buffer: wgpu::Buffer,
    /// What places in it are counted from: a multiple of every alignment, at or before the first byte that is bound.
    base: u64,
}

impl Operands {
    pub fn of(build: &Build<'_>) -> Self {
        let mut operands = Self { buffers: Vec::new() };
        for stage in build.stages() {
            for (_, tensor) in stage.walked.iter().chain(&stage.values) {
                tensor.buffers().for_each(|(buffer, begin)| operands.add(buffer, begin));
            }
            for (_, whole) in stage.all_owned() {
                if let Whole::Given(slab) = whole {
                    operands.add(&slab.buffer, slab.begin);
                }
            }
        }
        operands
    }

    fn add(&mut self, buffer: &wgpu::Buffer, begin: u64) {
        let base = begin - begin % COARSEST_ALIGNMENT;
        match self.buffers.iter_mut().find(|known| known.buffer == *buffer) {
            Some(known) => known.base = known.base.min(base),
            None => self.buffers.push(Operand { buffer: buffer.clone(), base }),
        }
    }

    /// Its number, and what places in it are counted from.
    fn find(&self, buffer: &wgpu::Buffer) -> (usize, u64) {
        let found = self.buffers.iter().position(|known| known.buffer == *buffer);
        let at = found.unwrap_or_else(|| unreachable!("all buffers of an operation are among its operands"));
        (at, self.buffers[at].base)
    }

    /// How a tensor lies in its buffers.
    fn lie(&self, slot: Slot, tensor: &Tensor, key: &mut Key) {
        key.add((slot, tensor.form()));
        for (buffer, begin) in tensor.buffers() {
            let (at, base) = self.find(buffer);
            key.add((at, begin - base));
        }
        // Whether words in which the tensor's parts end are all in their buffers.
        for location in tensor.locations() {
            key.add((location.size - location.bytes.end).min(16));
        }
    }

    fn lie_of_whole(&self, slot: Slot, whole: &Whole, key: &mut Key) {
        match whole {
            Whole::Given(slab) => {
                let (at, base) = self.find(&slab.buffer);
                key.add((slot, at, slab.begin - base, slab.bytes));
            }
            Whole::Scratch(Scratch(place)) | Whole::Before(Scratch(place)) => {
                key.add((slot, u64::MAX, *place))
            }
        }
    }

    fn bound(&self, location: &Location, word_bytes: u64, alignment: u64) -> Bound {
        let (at, base) = self.find(&location.buffer);
        let Range { start, end } = location.bytes;
        Bound::range(At::Operand(at), start - base..end - base, word_bytes, alignment)
    }
}

impl Stage {
    fn all_owned(&self) -> impl Iterator<Item = &(Slot, Whole)> {
        self.owned.iter().chain(self.dispatches.iter().flat_map(|dispatch| &dispatch.buffers))
    }
}

impl Build<'_> {
    /// Everything that a recipe depends on.
    pub(super) fn key(&self, operands: &Operands, traffic: Traffic) -> Key {
        let mut key =
            Key::of((self.op, address(&self.plan), &self.rooms, traffic, self.context.tuning().integer_f16));
        key.add(operands.buffers.len());
        for stage in self.stages() {
            let program = stage.program.as_ref().map(|program| program.id);
            key.add((stage.params.bits(), stage.pointwise, program));
            key.add((stage.walked.len(), stage.values.len(), stage.owned.len(), stage.dispatches.len()));
            for (slot, tensor) in stage.walked.iter().chain(&stage.values) {
                operands.lie(*slot, tensor, &mut key);
            }
            key.add(stage.mask.as_ref().map(|(mask, view)| (mask.form(), *view)));
            for (slot, whole) in &stage.owned {
                operands.lie_of_whole(*slot, whole, &mut key);
            }
            for dispatch in &stage.dispatches {
                let Dispatch { kernel, pointwise, plan, instead, records, buffers } = dispatch;
                key.add((kernel, pointwise, address(plan), instead, records, buffers.len()));
                for (slot, whole) in buffers {
                    operands.lie_of_whole(*slot, whole, &mut key);
                }
            }
        }
        key
    }
}

/// A plan is kept as long as a recipe that is made of it, so its address tells it from others.
fn address(plan: &Arc<Plan>) -> usize {
    Arc::as_ptr(plan) as usize
}

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

/// What one window of a dispatch runs and binds.
struct BoundWindow {
    variant: Variant,
    program: Option<Arc<ProgramModules>>,
    slots: Arc<[Slot]>,
    params: Params,
    grid: [u32; 2],
    bound: Vec<(Slot, Bound)>,
}

/// What every dispatch of an operation runs and binds, in order.
async fn windows(build: &Build<'_>, operands: &Operands) -> Result<Vec<BoundWindow>> {
    let context = build.context();
    let mut windows = Vec::new();
    for room in &build.rooms {
        check_binding(Slot::Partials.name(), room.bytes, context.capabilities())?;
    }
    for stage in build.stages() {
        stage.check_overlap()?;
        let grouped = |one: &Dispatch, next: &Dispatch| one.plan.grouped && next.plan.grouped;
        for together in stage.dispatches.chunk_by(grouped) {
            let mut of_each = Vec::new();
            for dispatch in together {
                let assembly = Assembly { context, stage, dispatch, operands, rooms: &build.rooms };
                of_each.push(assembly.windows().await?.into_iter());
            }
            // The first window of all dispatches, if they go by groups, then the second, and so on.
            let most = of_each.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
            for _ in 0..most {
                windows.extend(of_each.iter_mut().filter_map(Iterator::next));
            }
        }
    }
    Ok(windows)
}

/// The kernels that an operation runs.
pub(super) async fn variants(build: &Build<'_>, operands: &Operands) -> Result<Vec<Variant>> {
    let windows = windows(build, operands).await?;
    Ok(windows.iter().filter(|window| window.program.is_none()).map(|window| window.variant).collect())
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

/// A dispatch, with what its kernels may bind.
struct Assembly<'a> {
    context: &'a Context,
    stage: &'a Stage,
    dispatch: &'a Dispatch,
    operands: &'a Operands,
    rooms: &'a [Room],
}

impl Assembly<'_> {
    /// What the dispatch binds in each window. Where a tensor lies in several buffers, windows may differ in the variant.
    async fn windows(&self) -> Result<Vec<BoundWindow>> {
        let Self { context, stage, .. } = *self;
        let Dispatch { plan, instead, records, buffers, .. } = self.dispatch;
        let (alignment, program) = (context.capabilities().storage_alignment, stage.program.as_ref());
        let mut plain = self.variant().reduced();
        if plain.subgroup_size > 0 && !probe::has_ordered_subgroups(context).await? {
            plain.subgroup_size = 0;
        }
        let packed_f16 = plain.uses_f16() && probe::packs_f16(context).await?;
        let needed = context.pipelines().slots(&plain, program)?;
        let walked = stage.walked.iter().filter_map(|(slot, tensor)| match *instead {
            Some((from, to)) if *slot == to => Some((from, tensor)),
            Some((from, _)) if *slot == from => None,
            _ => Some((*slot, tensor)),
        });
        let walked: Vec<_> = walked.filter(|(slot, _)| needed.contains(slot)).collect();
        let mut windows = Vec::new();
        for window in &plan.windows {
            let mut variant = Variant { packed_f16, ..plain };
            let mut params = Params::new(plan, window, &stage.params);
            if let Some(records) = records {
                params.set_records(*records);
            }
            let mut bound = self.bind_walked(&walked, window, &mut variant, &mut params)?;
            if let Some((mask, view)) = &stage.mask {
                (params.mask_first, params.mask_lead) = mask.place(*view, window.elements.start);
            }
            let slots = context.pipelines().slots(&variant, program)?;
            for (slot, tensor) in stage.values.iter().filter(|(slot, _)| slots.contains(slot)) {
                let size = tensor.dtype().size();
                let location = tensor.locate(0..tensor.shape().len());
                let range = self.operands.bound(&location, size, alignment);
                let begin = location.bytes.start - self.operands.find(&location.buffer).1;
                params.place_mut(*slot).offset = ((begin - range.begin) / size) as u32;
                bound.push((*slot, range));
            }
            for (slot, whole) in buffers.iter().chain(&stage.owned).filter(|(slot, _)| slots.contains(slot)) {
                if bound.iter().all(|(bound, _)| bound != slot) {
                    bound.push((*slot, self.whole(whole)));
                }
            }
            for (slot, range) in &bound {
                check_binding(slot.name(), range.bytes(), context.capabilities())?;
            }
            variant.shared = check_sharing(&bound, alignment)?;
            let program = program.cloned();
            windows.push(BoundWindow { variant, program, slots, params, grid: window.grid, bound });
        }
        Ok(windows)
    }

    /// The variant of tensors that lie in buffers of their own.
    fn variant(&self) -> Variant {
        let Dispatch { kernel, pointwise, plan, .. } = self.dispatch;
        let values = &self.stage.values;
        let is_parameter = |kernel: &Kernel, slot: &Slot| kernel.parameters().contains(slot);
        let parameters = values.iter().find(|(slot, _)| is_parameter(kernel, slot));
        Variant {
            kernel: *kernel,
            pointwise: *pointwise,
            dtype: plan.dtype,
            through: [None; WALKED_INPUTS.len()],
            parameters: parameters.map_or(DType::F32, |(_, tensor)| tensor.dtype()),
            packed_f16: false,
            // Where they begin at whole words.
            parameter_words: values
                .iter()
                .all(|(slot, tensor)| !is_parameter(kernel, slot) || tensor.byte_offset().is_multiple_of(16)),
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
        }
    }

    fn whole(&self, whole: &Whole) -> Bound {
        match whole {
            Whole::Given(slab) => {
                let (at, base) = self.operands.find(&slab.buffer);
                Bound::whole(At::Operand(at), slab.begin - base, slab.bytes)
            }
            Whole::Scratch(Scratch(place)) | Whole::Before(Scratch(place)) => {
                Bound::whole(At::Scratch(*place), 0, self.rooms[*place].bytes.next_multiple_of(4))
            }
        }
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
            let range = self.operands.bound(location, word_bytes, alignment);
            match bound.iter_mut().find(|(bound, _)| *bound == binding_of(*slot)) {
                Some((_, both)) => both.extend(&range),
                None => bound.push((binding_of(*slot), range)),
            }
        }
        for ((slot, location), (_, tensor)) in located.iter().zip(walked) {
            let found = bound.iter().find(|(bound, _)| *bound == binding_of(*slot));
            let begin = found.map_or(0, |(_, range)| range.begin);
            let (row, sample) = tensor.skips();
            let words = |skip: u64| (skip / u64::from(variant.width)) as u32;
            let place = params.place_mut(*slot);
            let start = location.bytes.start - self.operands.find(&location.buffer).1;
            place.offset = ((start - begin) / word_bytes) as u32;
            (place.row_skip, place.sample_skip) = (words(row), words(sample));
        }
        Ok(bound)
    }
}

fn check_binding(what: &'static str, needed: u64, capabilities: &Capabilities) -> Result<()> {
    let limit = capabilities.max_binding_bytes;
    let (unit, limit_name) = ("bytes", "max_storage_buffer_binding_size");
    if needed > limit { Err(Error::TooLarge { what, needed, unit, limit_name, limit }) } else { Ok(()) }
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
