//! Passes in two halves: over so many slices that no binding has room for what all of them need, be it partial results, statistics or parameters.
//!
//! Slices do not depend on each other, so half of them are a pass of its own over views, which may be halved in turn. What both halves may share is the
//! gradient of their parameters: each leaves its sums, and a fold adds them.

use std::ops::Range;

use super::spec::Cut;
use super::tensors::OwnedTensors;
use super::{Pass, Statistics};
use crate::base::error::{Error, Result};
use crate::base::shape::Channels;
use crate::engine::bindings::check_overlap;
use crate::engine::mask::Mask;
use crate::engine::prepared::Prepared;
use crate::engine::slab::{Slab, WHOLE};
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::engine::windows::check_binding;
use crate::ops::fold;
use crate::plan::{
    AffineOf, GRADIENT_SUMS_BYTES, Parameters, Pattern, Records, SLICE_BYTES, Slices, Traffic, gcd,
};

/// Why a plan is one of a part.
const REASON: &str = "in parts: no binding has room for what all slices need";

/// How the slices of a pass are cut in two.
#[derive(Clone, Copy, Debug)]
struct Halving {
    along: Along,
    /// Steps along that, and how many of them the first half has.
    len: u64,
    middle: u64,
    /// Slices of a step.
    slices: u64,
    parameters: Shares,
}

/// What is cut.
#[derive(Clone, Copy, Debug)]
enum Along {
    /// The channels of tensors that may be views.
    Channels,
    /// The channels of contiguous tensors that have this shape.
    Columns(Channels),
    /// Rows of so many elements: slices, or samples.
    Rows(u64),
}

/// Which parameters the halves have.
#[derive(Clone, Copy, Debug)]
enum Shares {
    /// Their own, `each` for every so many steps.
    Own { steps: u64, each: u64 },
    /// The same, so many.
    Same(u64),
}

/// Some of the records that a pass of all slices has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub start: u64,
    pub end: u64,
}

impl Shares {
    /// Those of some steps.
    fn of(self, steps: &Range<u64>) -> Range<u64> {
        match self {
            Self::Own { steps: per, each } => steps.start / per * each..steps.end / per * each,
            Self::Same(all) => 0..all,
        }
    }
}

/// What half of a pass is over.
struct Half {
    tensors: OwnedTensors,
    cut: Cut,
    mask: Option<Mask>,
    records: Stretch,
    totals: Option<Slab>,
}

impl<'a> Pass<'a> {
    /// The operation, in as many parts as bindings ask for.
    pub(super) async fn assemble(&self) -> Result<Prepared> {
        match self.assemble_whole().await {
            Err(error @ Error::TooLarge { .. }) => match self.halving() {
                // What is too large in the smallest part is what stands in the way.
                Some(halving) => Box::pin(self.assemble_halves(halving)).await,
                None => Err(error),
            },
            prepared => prepared,
        }
    }

    async fn assemble_halves(&self, halving: Halving) -> Result<Prepared> {
        let Self { spec, op, .. } = self;
        // Halves see their own views alone.
        let tensors: Vec<_> = self.tensors.all().map(|(slot, tensor)| (slot, tensor.clone())).collect();
        check_overlap(&tensors)?;
        // Where the halves leave the sums of parameters that they share.
        let shared = match halving.parameters {
            Shares::Same(parameters) if self.tensors.has_sums() => {
                let apart = parameters.next_multiple_of(WHOLE);
                let bytes = 2 * apart * GRADIENT_SUMS_BYTES;
                check_binding(Slot::Partials.name(), bytes, spec.context.capabilities())?;
                Some((parameters, apart, Slab::new(spec.context, Slot::Partials.name(), bytes).await?))
            }
            _ => None,
        };
        let mut all = Vec::new();
        for (number, steps) in [0..halving.middle, halving.middle..halving.len].into_iter().enumerate() {
            let totals = match (&shared, halving.parameters, self.totals) {
                (Some((parameters, apart, totals)), ..) => {
                    let begin = number as u64 * apart;
                    Some(totals.stretch(bytes_of(begin..begin + parameters)))
                }
                (None, own @ Shares::Own { .. }, Some(totals)) => {
                    Some(totals.stretch(bytes_of(own.of(&steps))))
                }
                _ => None,
            };
            let half = self.half(halving, steps, totals)?;
            all.push(half.of(self).assemble().await?);
        }
        let mut workspace = 0;
        if let Some((parameters, apart, totals)) = shared {
            workspace = totals.bytes();
            let dtype =
                self.tensors.walked().next().map_or_else(Default::default, |(_, tensor)| tensor.dtype());
            let mut build = fold::gradients_of(spec.context, *op, parameters, dtype, 2)?;
            for (slot, tensor) in self.tensors.values().filter(|(slot, _)| slot.writes()) {
                build.value(slot, tensor)?;
            }
            self.set_accumulation(&mut build);
            build.buffer(Slot::Partials, &totals);
            let records = Records { partials: 2, slices: apart as u32, matrix: 0 };
            self.fold_parameters(&mut build, parameters, records)?;
            all.push(build.finish(Traffic::default()).await?);
        }
        Ok(Prepared::sequence(spec.context, *op, all).with_workspace(workspace))
    }

    /// How the slices are cut in two, if they can be.
    fn halving(&self) -> Option<Halving> {
        if self.int8.is_some() || self.spec.segments.is_some() {
            return None;
        }
        let slices = match self.spec.cut {
            Cut::Channels(view) => {
                let of_all = [Slot::Dalpha, Slot::Dshift].iter().any(|slot| self.tensors.has(*slot));
                let middle = middle(view.channels, WHOLE, true).filter(|_| !of_all)?;
                let parameters = Shares::Own { steps: 1, each: 1 };
                return Some(Halving {
                    along: Along::Channels,
                    len: view.channels,
                    middle,
                    slices: 1,
                    parameters,
                });
            }
            Cut::Slices(slices) => slices,
        };
        let Slices { pattern, merged, parameters: Parameters { affine, slices: repeat, rows, step }, .. } =
            slices;
        let (along, slices_of_step) = match pattern {
            Pattern::Matrices { samples: 2.., slices, inner } => (Along::Rows(slices * inner), slices),
            Pattern::Run { .. } => return None,
            Pattern::Segments { samples: 1, inner, .. } => (Along::Rows(inner), 1),
            Pattern::Segments { .. } | Pattern::Columns { .. } | Pattern::Matrices { .. } => {
                (Along::Columns(pattern.view()), 1)
            }
        };
        // Slices that belong together because of the parameters that they have.
        let all = slices.slices();
        let (together, parameters) = match (affine, step) {
            (AffineOf::Place, _) if slices.groups() > 1 => (rows, Shares::Same(rows * step)),
            (AffineOf::Place, _) if rows > 1 => (repeat, Shares::Own { steps: repeat, each: step }),
            (AffineOf::Place | AffineOf::Row, _) => (1, Shares::Same(slices.count())),
            (AffineOf::Slice, 0) => (1, Shares::Same(1)),
            (AffineOf::Slice, _) if rows == all => (1, Shares::Own { steps: 1, each: slices_of_step }),
            (AffineOf::Slice, _) => (rows, Shares::Same(rows)),
        };
        let len = all / slices_of_step;
        let together = lcm(together, merged).div_ceil(slices_of_step);
        // Of what both leave, a recipe has no room that it could name.
        if self.spec.context.is_on_paper() && self.tensors.has_sums() && matches!(parameters, Shares::Same(_))
        {
            return None;
        }
        let into_stretches = self.totals.is_some() && matches!(parameters, Shares::Own { .. });
        let middle = middle(len, together, into_stretches)?;
        Some(Halving { along, len, middle, slices: slices_of_step, parameters })
    }

    /// Half of it.
    fn half(&self, halving: Halving, steps: Range<u64>, totals: Option<Slab>) -> Result<Half> {
        let Halving { along, slices, parameters, .. } = halving;
        let many = steps.end - steps.start;
        let narrowed = |slot: Slot, tensor: &Tensor| match (along, parameters) {
            _ if matches!(slot, Slot::Alpha | Slot::Shift) => Ok(tensor.clone()),
            (_, Shares::Own { .. }) if !slot.is_walked() => tensor.stretch(parameters.of(&steps)),
            (_, Shares::Same(_)) if !slot.is_walked() => Ok(tensor.clone()),
            (Along::Channels, _) => tensor.slice_channels(steps.start as usize..steps.end as usize),
            (Along::Columns(view), _) => {
                tensor.reshaped(view)?.slice_channels(steps.start as usize..steps.end as usize)
            }
            (Along::Rows(len), _) => tensor.block(len, steps.clone(), 0..len),
        };
        let tensors = self.tensors.map(narrowed)?;
        let (cut, merged) = match self.spec.cut {
            Cut::Channels(view) => (Cut::Channels(Channels { channels: many, ..view }), 1),
            Cut::Slices(whole) => (Cut::Slices(whole.some(many * slices)), whole.merged),
        };
        let mask = match (self.mask, along) {
            (Some(mask), Along::Rows(_)) => Some(mask.of_some_positions(steps.clone())),
            (mask, _) => mask.cloned(),
        };
        let first = self.records.map_or(0, |records| records.start);
        let place = |step: u64| first + step * slices / merged;
        let records = Stretch { start: place(steps.start), end: place(steps.end) };
        Ok(Half { tensors, cut, mask, records, totals })
    }

    /// The part of somebody's records that the pass has, of so many bytes each.
    pub(super) fn stretch(&self, whole: &Slab, record_bytes: u64) -> Slab {
        match self.records {
            None => whole.clone(),
            Some(records) => {
                let begin = (records.start - self.first_record()) * record_bytes;
                whole.stretch(begin..records.end * record_bytes)
            }
        }
    }

    /// Records that come before those of the pass in the binding of what is saved, which begins where it can.
    pub(super) fn first_record(&self) -> u64 {
        let alignment = self.spec.context.capabilities().storage_alignment / SLICE_BYTES;
        match (self.records, self.statistics) {
            (Some(records), Statistics::Slices(of)) if of.saved.is_some() => records.start % alignment.max(1),
            _ => 0,
        }
    }
}

impl Half {
    fn of<'h>(&'h self, whole: &Pass<'h>) -> Pass<'h> {
        let mut pass = *whole;
        pass.spec.cut = self.cut;
        Pass {
            tensors: self.tensors.tensors(),
            mask: self.mask.as_ref(),
            records: Some(self.records),
            totals: self.totals.as_ref(),
            reason: Some(REASON),
            ..pass
        }
    }
}

/// Where to cut in two, between steps of which so many belong together: best so that everything begins where a binding can, or only so.
pub(crate) fn middle(len: u64, together: u64, only_whole: bool) -> Option<u64> {
    let of = |granule: u64| {
        let below = len / 2 / granule * granule;
        Some(below.max(granule)).filter(|&middle| middle < len)
    };
    of(lcm(together, WHOLE)).or_else(|| of(together).filter(|_| !only_whole))
}

fn bytes_of(sums: Range<u64>) -> Range<u64> {
    sums.start * GRADIENT_SUMS_BYTES..sums.end * GRADIENT_SUMS_BYTES
}

fn lcm(a: u64, b: u64) -> u64 {
    a / gcd(a, b) * b
}
