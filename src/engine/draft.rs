//! What an operation runs and binds, for all tensors that lie alike: an internal recipe, whose kernels are variants and not yet texts.

use std::sync::Arc;

use super::bindings::{At, Bound};
use super::build::Build;
use super::kernels::ProgramModules;
use super::operands::{COARSEST_ALIGNMENT, Operands};
use super::params::Params;
use super::shader::Variant;
use super::slot::Slot;
use super::windows::{BoundWindow, windows};
use crate::base::error::Result;
use crate::plan::{Op, Plan, Traffic};

/// How much an operation needs for what one dispatch leaves for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Room {
    pub bytes: u64,
    /// What is read may not have been written, and must be zero then: as in a buffer that is new, and in one that only this operation has written, always
    /// at the same places.
    pub zeroed: bool,
}

/// What an operation runs and binds.
#[derive(Debug)]
pub(crate) struct Draft {
    pub op: Op,
    pub plan: Arc<Plan>,
    pub traffic: Traffic,
    pub rooms: Vec<Room>,
    pub steps: Vec<DraftStep>,
    /// The parameters of all steps.
    pub uniforms: Vec<u8>,
    /// What the buffers that it is given are first bound as, and whether it writes them.
    pub operands: Vec<(&'static str, bool)>,
    /// Plans whose addresses are in the key.
    #[expect(dead_code, reason = "kept so that no other plan has their addresses")]
    plans: Vec<Arc<Plan>>,
}

/// A dispatch of one window.
#[derive(Debug)]
pub(crate) struct DraftStep {
    pub variant: Variant,
    pub program: Option<Arc<ProgramModules>>,
    pub grid: [u32; 2],
    /// Where its parameters are in the uniforms.
    pub params: u64,
    pub bindings: Vec<(Slot, Source)>,
}

/// What a binding sees.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    Params,
    Bound(Bound),
    /// Nothing: a block of zeros, of its own if it may be written.
    Absent {
        written: bool,
    },
}

impl Draft {
    /// Decides what every dispatch binds.
    pub async fn new(build: &Build<'_>, operands: &Operands, traffic: Traffic) -> Result<Self> {
        let mut plans = vec![build.plan.clone()];
        let dispatches = build.stages().flat_map(|stage| &stage.dispatches);
        plans.extend(dispatches.map(|dispatch| dispatch.plan.clone()));
        // Dispatches over the same window share parameters.
        let mut distinct: Vec<Params> = Vec::new();
        let distance = (size_of::<Params>() as u64).next_multiple_of(COARSEST_ALIGNMENT);
        let mut steps = Vec::new();
        let mut names = vec![("", false); operands.buffers.len()];
        for BoundWindow { variant, program, slots, params, grid, bound } in windows(build, operands).await? {
            let same = |other: &Params| bytemuck::bytes_of(other) == bytemuck::bytes_of(&params);
            let at = distinct.iter().position(same).unwrap_or_else(|| {
                distinct.push(params);
                distinct.len() - 1
            });
            let source = |slot: Slot| match bound.iter().find(|(bound, _)| *bound == slot) {
                _ if slot == Slot::Params => Source::Params,
                Some((_, bound)) => Source::Bound(*bound),
                None => Source::Absent { written: slot.writes() || variant.shared && slot.is_input() },
            };
            let bindings: Vec<_> = slots.iter().map(|&slot| (slot, source(slot))).collect();
            for (slot, bound) in &bound {
                if let At::Operand(at) = bound.at {
                    let (name, written) = &mut names[at];
                    *name = if name.is_empty() { slot.name() } else { *name };
                    *written |= slot.writes();
                }
            }
            steps.push(DraftStep { variant, program, grid, params: at as u64 * distance, bindings });
        }
        let mut uniforms = vec![0; (distinct.len() as u64 * distance) as usize];
        for (params, place) in distinct.iter().zip(uniforms.chunks_mut(distance as usize)) {
            place[..size_of::<Params>()].copy_from_slice(bytemuck::bytes_of(params));
        }
        let (op, plan, rooms) = (build.op, build.plan.clone(), build.rooms.clone());
        Ok(Self { op, plan, traffic, rooms, steps, uniforms, operands: names, plans })
    }
}
