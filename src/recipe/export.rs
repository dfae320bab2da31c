//! Recipes of problems: their passes are rehearsed on tensors of no device, and what was noted is written out.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Polling, Poll, Waker};

use super::{Binding, BindingType, Dispatch, Kernel, Operand, Recipe, Recipes, Scratch, Source};
use crate::base::error::{Error, Result};
use crate::engine::bindings::{At, Bound};
use crate::engine::buffer::Buffer;
use crate::engine::context::Context;
use crate::engine::draft::{self, Draft, DraftStep};
use crate::engine::kernels;
use crate::engine::operands::Operands;
use crate::engine::params::Params;
use crate::engine::rehearsal::Rehearsal;
use crate::engine::slot::Slot;
use crate::plan::{Capabilities, Op, Traffic};
use crate::spec::{Norm, Rehearsed, Spec, Statistics, rehearse};

/// Bytes that are bound where there is nothing.
const NOTHING: u64 = 256;

/// What tensors of a problem are bound as, all of which it has names for.
const TENSORS: [&str; 18] = [
    "x",
    "y",
    "residual",
    "gate",
    "addend",
    "sum",
    "dy",
    "dx",
    "d_residual",
    "d_sum",
    "gamma",
    "beta",
    "dgamma",
    "dbeta",
    "x_tangent",
    "y_tangent",
    "gamma_tangent",
    "beta_tangent",
];

impl Spec {
    /// What passes of the problem run on a device that can do this, over tensors in buffers of their own: the forward pass, and with
    /// [`Passes::Backward`](crate::spec::Passes::Backward) the backward pass with all gradients, or with
    /// [`Passes::Second`](crate::spec::Passes::Second) gradients of gradients in its place. Pure: there is no device.
    ///
    /// Subgroups are taken to be in order if the device has any, and binary16 is converted by integer arithmetic unless the device is said to do it right: what
    /// [`probes`](super::probes) tell.
    ///
    /// # Errors
    /// Those of the problem and its layer; [`Error::MissingCapability`]; [`Error::Spec`] for statistics that are composed of several passes or given, for segments, and for problems
    /// with nothing to do.
    pub fn recipes(&self, capabilities: &Capabilities) -> Result<Recipes> {
        self.check_exportable()?;
        capabilities.check()?;
        let rehearsal = Arc::new(Rehearsal::default());
        let context = Context::on_paper(capabilities, rehearsal.clone()).with_tuning(self.tuning);
        let rehearsed = at_once(rehearse(&context, self))??;
        written(&rehearsal, &rehearsed)
    }

    /// The same as the passes run on this device, with what has been found out of it; its kernels are those that
    /// [`Context::warm_up`](crate::Context::warm_up) compiles.
    ///
    /// ```
    /// use wgnorm::{Context, Spec};
    /// let context = Context::headless_blocking()?;
    /// let spec: Spec = "rms 64x256 f16".parse()?;
    /// let recipes = context.block_on(spec.recipes_on(&context))?;
    /// assert!(recipes.forward.kernels.iter().all(|kernel| kernel.name.contains("f16")));
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`recipes`](Self::recipes), and of the device.
    #[cfg(feature = "wgpu")]
    pub async fn recipes_on(&self, context: &Context) -> Result<Recipes> {
        self.check_exportable()?;
        let rehearsal = Arc::new(Rehearsal::default());
        let rehearsed = rehearse(&context.rehearsing(rehearsal.clone(), self.tuning), self).await?;
        written(&rehearsal, &rehearsed)
    }

    /// # Errors
    /// [`Error::Spec`] for what no recipe has.
    fn check_exportable(&self) -> Result<()> {
        self.check()?;
        let is_composed = matches!(self.norm, Norm::TrackedInstance | Norm::Switchable(_));
        if self.statistics == Statistics::Given || is_composed {
            let reason = "moments are computed by a pass of their own, which no recipe has".to_owned();
            return Err(Error::Spec { reason });
        }
        if self.segment_lengths().is_some() {
            let reason = "segments are tables of one batch, which no recipe has".to_owned();
            return Err(Error::Spec { reason });
        }
        Ok(())
    }
}

/// What was noted, as recipes.
fn written(rehearsal: &Rehearsal, rehearsed: &Rehearsed) -> Result<Recipes> {
    let mut forward = rehearsal.take();
    let backward = forward.split_off(rehearsed.forward.min(forward.len()));
    let recipe = |of: &[(Draft, Operands)], pass| Writer::new(&rehearsed.names).recipe(of, pass);
    let nothing = || Error::Spec { reason: "there is nothing to do".to_owned() };
    let forward = recipe(&forward, rehearsed.passes[0])?.ok_or_else(nothing)?;
    Ok(Recipes { forward, backward: recipe(&backward, rehearsed.passes[1])? })
}

/// The result of a future that waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> Result<T> {
    match pin!(future).poll(&mut Polling::from_waker(Waker::noop())) {
        Poll::Ready(result) => Ok(result),
        Poll::Pending => Err(Error::NoDevice),
    }
}

/// Writes one recipe of several drafts.
struct Writer<'n> {
    names: &'n [(&'static str, Buffer)],
    /// The buffers that several operations see, and where they are.
    known: Vec<(Buffer, Source)>,
    operands: Vec<Operand>,
    kernels: Vec<Kernel>,
    scratch: Vec<Scratch>,
    uniforms: Vec<u8>,
    dispatches: Vec<Dispatch>,
}

impl<'n> Writer<'n> {
    fn new(names: &'n [(&'static str, Buffer)]) -> Self {
        Self {
            names,
            known: Vec::new(),
            operands: Vec::new(),
            kernels: Vec::new(),
            scratch: Vec::new(),
            uniforms: Vec::new(),
            dispatches: Vec::new(),
        }
    }

    fn recipe(
        mut self,
        drafts: &[(Draft, Operands)],
        (op, traffic): (Op, Traffic),
    ) -> Result<Option<Recipe>> {
        if drafts.is_empty() {
            return Ok(None);
        }
        let mut reasons = Vec::new();
        for (draft, operands) in drafts {
            self.add(draft, operands)?;
            reasons.extend(draft.plan.reasons.iter().cloned());
        }
        let Traffic { floor_bytes, plan_bytes } = traffic;
        let Self { operands, kernels, scratch, uniforms, dispatches, .. } = self;
        Ok(Some(Recipe {
            op,
            kernels,
            operands,
            scratch,
            uniforms,
            dispatches,
            floor_bytes,
            plan_bytes,
            reasons,
        }))
    }

    fn add(&mut self, draft: &Draft, operands: &Operands) -> Result<()> {
        let (scratch, uniforms) = (self.scratch.len(), self.uniforms.len() as u64);
        let rooms = draft.rooms.iter().map(|room| Scratch { bytes: room.bytes.max(4), zeroed: room.zeroed });
        self.scratch.extend(rooms);
        self.uniforms.extend(&draft.uniforms);
        let places: Vec<Source> = operands
            .buffers
            .iter()
            .zip(&draft.operands)
            .map(|(operand, (name, written))| self.place(&operand.buffer, name, *written))
            .collect();
        for step in &draft.steps {
            let kernel = self.kernel(step)?;
            let mut bindings = Vec::new();
            for (slot, source) in &step.bindings {
                bindings.push(match source {
                    draft::Source::Params => Binding {
                        number: *slot as u32,
                        source: Source::Uniforms,
                        offset: uniforms + step.params,
                        bytes: size_of::<Params>() as u64,
                    },
                    draft::Source::Absent { written } => Binding {
                        number: *slot as u32,
                        source: Source::Nothing { written: *written },
                        offset: 0,
                        bytes: NOTHING,
                    },
                    draft::Source::Bound(bound) => self.bound(*slot, bound, &places, operands, scratch),
                });
            }
            self.dispatches.push(Dispatch { kernel, workgroups: step.grid, bindings });
        }
        Ok(())
    }

    fn bound(
        &mut self,
        slot: Slot,
        bound: &Bound,
        places: &[Source],
        operands: &Operands,
        scratch: usize,
    ) -> Binding {
        let (source, offset) = match bound.at {
            At::Scratch(at) => (Source::Scratch(scratch + at), bound.begin),
            At::Operand(at) => (places[at], operands.buffers[at].base + bound.begin),
        };
        let bytes = bound.bytes();
        if let Source::Operand(at) = source {
            let operand = &mut self.operands[at];
            operand.bytes = operand.bytes.max(offset + bytes);
        }
        Binding { number: slot as u32, source, offset, bytes }
    }

    /// Where a buffer is: among the operands, under the name that the problem has for it, else the one that it is first bound as; or, if it is a tensor that no problem has, one
    /// that one operation leaves for the next.
    fn place(&mut self, buffer: &Buffer, bound_as: &str, written: bool) -> Source {
        if let Some((_, source)) = self.known.iter().find(|(known, _)| known == buffer) {
            if let Source::Operand(at) = *source {
                self.operands[at].written |= written;
            }
            return *source;
        }
        let named = self.names.iter().find(|(_, named)| named == buffer);
        let source = match named {
            None if TENSORS.contains(&bound_as) => {
                self.scratch.push(Scratch { bytes: buffer.size(), zeroed: false });
                Source::Scratch(self.scratch.len() - 1)
            }
            _ => {
                let name = named.map_or(bound_as, |(name, _)| *name).to_owned();
                self.operands.push(Operand { name, bytes: 4, written });
                Source::Operand(self.operands.len() - 1)
            }
        };
        self.known.push((buffer.clone(), source));
        source
    }

    fn kernel(&mut self, step: &DraftStep) -> Result<usize> {
        let (variant, program) = (&step.variant, step.program.as_ref());
        let name = kernels::key(variant, program);
        if let Some(at) = self.kernels.iter().position(|kernel| kernel.name == name) {
            return Ok(at);
        }
        let linked = kernels::link(variant, program)?;
        let constants = kernels::constants(variant, program, &linked);
        let bindings = kernels::slots(&linked).map(|(slot, writes)| match slot {
            Slot::Params => (slot as u32, BindingType::Uniform),
            _ if writes => (slot as u32, BindingType::ReadWrite),
            _ => (slot as u32, BindingType::Read),
        });
        self.kernels.push(Kernel {
            bindings: bindings.collect(),
            constants: constants.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            entry_point: variant.kernel.entry().to_owned(),
            name,
            wgsl: linked.text,
        });
        Ok(self.kernels.len() - 1)
    }
}
