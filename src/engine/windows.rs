//! What every dispatch of an operation runs and binds, window by window, for tensors that lie as those at hand.

use std::ops::Range;
use std::sync::Arc;

use super::bindings::{At, Bound, check_sharing, read_through};
use super::build::{Build, Dispatch, Scratch, Stage, Whole};
use super::draft::Room;
use super::kernels::ProgramModules;
use super::operands::Operands;
use super::params::{Common, Params};
use super::probe;
use super::shader::{Kernel, Variant, WALKED_INPUTS};
use super::slot::Slot;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::engine::context::Context;
use crate::engine::tensor::Tensor;
use crate::plan::{AffineOf, Capabilities, WalkKind, Window};

/// What one window of a dispatch runs and binds.
pub(super) struct BoundWindow {
    pub variant: Variant,
    pub program: Option<Arc<ProgramModules>>,
    pub slots: Arc<[Slot]>,
    pub params: Params,
    pub grid: [u32; 2],
    pub bound: Vec<(Slot, Bound)>,
}

/// What every dispatch of an operation runs and binds, in order.
pub(super) async fn windows(build: &Build<'_>, operands: &Operands) -> Result<Vec<BoundWindow>> {
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
        let needed = context.bindings().of(&plain, program)?;
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
            let slots = context.bindings().of(&variant, program)?;
            for (slot, tensor) in stage.values.iter().filter(|(slot, _)| slots.contains(slot)) {
                let size = tensor.dtype().size();
                let of_window = self.values_of(*slot, tensor, window);
                let location = tensor.locate(of_window.clone());
                let range = self.operands.bound(&location, size, alignment);
                let begin = location.bytes.start - self.operands.find(&location.buffer).1;
                // What kernels add is the number of a value among all.
                let offset = ((begin - range.begin) / size) as u32;
                params.place_mut(*slot).offset = offset.wrapping_sub(of_window.start as u32);
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

    /// Which values of a parameter, or of its gradient, a window binds: all, or where no binding has room for them and it has a run, or a part of one, those of
    /// its places.
    fn values_of(&self, slot: Slot, tensor: &Tensor, window: &Window) -> Range<u64> {
        let Dispatch { kernel, pointwise, plan, .. } = self.dispatch;
        let all = tensor.shape().len();
        let fits = all * tensor.dtype().size() <= self.context.capabilities().max_binding_bytes;
        // Of slices of several runs a window has places of many.
        let of_one_run = self.stage.params.run_places == 0;
        let is_run = plan.walk == WalkKind::Segments && window.slices == 1 && of_one_run;
        if fits || pointwise.affine != AffineOf::Place || !is_run || !kernel.parameters().contains(&slot) {
            return 0..all;
        }
        let Common { places, parameter_slices, parameter_rows, parameter_step, .. } = self.stage.params;
        let sample = u64::from(window.first_slice / parameter_slices.max(1) % parameter_rows.max(1));
        let first = sample * u64::from(parameter_step) + window.elements.start % places.max(1);
        first..all.min(first + window.elements.end - window.elements.start)
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
            depth: plan.depth,
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
        // y may be of another type than x.
        let word_bytes = |tensor: &Tensor| tensor.dtype().size() * u64::from(variant.width);
        for ((slot, location), (_, tensor)) in located.iter().zip(walked) {
            let alignment = self.context.capabilities().storage_alignment;
            let range = self.operands.bound(location, word_bytes(tensor), alignment);
            match bound.iter_mut().find(|(bound, _)| *bound == binding_of(*slot)) {
                Some((_, both)) => both.extend(&range),
                None => bound.push((binding_of(*slot), range)),
            }
        }
        for ((slot, location), (_, tensor)) in located.iter().zip(walked) {
            let found = bound.iter().find(|(bound, _)| *bound == binding_of(*slot));
            let begin = found.map_or(0, |(_, range)| range.begin);
            let (row, sample) = match self.stage.rows {
                None => tensor.skips(),
                Some(len) => {
                    let apart = tensor.rows_apart(len).unwrap_or(len) - len;
                    // Along rows a slice is a run, which is skipped like a sample.
                    if variant.walk == WalkKind::Columns { (apart, 0) } else { (0, apart) }
                }
            };
            let words = |skip: u64| (skip / u64::from(variant.width)) as u32;
            let place = params.place_mut(*slot);
            let start = location.bytes.start - self.operands.find(&location.buffer).1;
            place.offset = ((start - begin) / word_bytes(tensor)) as u32;
            (place.row_skip, place.sample_skip) = (words(row), words(sample));
        }
        Ok(bound)
    }
}

/// Requires that a binding has room for so many bytes.
pub(crate) fn check_binding(what: &'static str, needed: u64, capabilities: &Capabilities) -> Result<()> {
    let limit = capabilities.max_binding_bytes;
    let (unit, limit_name) = ("bytes", "max_storage_buffer_binding_size");
    if needed > limit { Err(Error::TooLarge { what, needed, unit, limit_name, limit }) } else { Ok(()) }
}
