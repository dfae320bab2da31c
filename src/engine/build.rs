//! What an operation binds and dispatches, as layers put it together.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::bindings::check_overlap;
use super::buffer::Buffer;
use super::draft::{Draft, Room};
use super::kernels::ProgramModules;
use super::operands::Operands;
use super::params::{Common, flag};
use super::prepared::Prepared;
#[cfg(feature = "wgpu")]
use super::ready::Ready;
use super::shader::{Kernel, Pointwise};
use super::slab::Slab;
use super::slot::Slot;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Channels;
use crate::engine::context::Context;
use crate::engine::mask::Mask;
use crate::engine::tensor::Tensor;
use crate::plan::Records;
use crate::plan::{Op, Plan, Traffic};

/// Collects what an operation binds and dispatches. Nothing of it is allocated before [`finish`](Self::finish).
pub(crate) struct Build<'c> {
    pub(super) context: &'c Context,
    pub(super) op: Op,
    pub(super) plan: Arc<Plan>,
    /// What is being collected.
    stage: Stage,
    /// What is recorded before that.
    before: Vec<Stage>,
    /// What one dispatch leaves for another.
    pub(super) rooms: Vec<Room>,
}

/// Dispatches over the same tensors with the same parameters.
pub(crate) struct Stage {
    pub params: Common,
    /// What is applied to each element.
    pub pointwise: Pointwise,
    /// Whose kernels are dispatched, if not this crate's.
    pub program: Option<Arc<ProgramModules>>,
    /// Tensors that are walked.
    pub(super) walked: Vec<(Slot, Tensor)>,
    /// Values per channel.
    pub(super) values: Vec<(Slot, Tensor)>,
    /// Elements of a row, where rows of tensors are equally far apart whatever their samples are.
    pub(super) rows: Option<u64>,
    /// Positions that do not count, and the geometry of x.
    pub(super) mask: Option<(Mask, Channels)>,
    /// Buffers of the crate's own.
    pub(super) owned: Vec<(Slot, Whole)>,
    /// Where partial results go.
    partials: Option<Room>,
    pub(super) dispatches: Vec<Dispatch>,
}

/// A buffer that is bound as a whole.
#[derive(Clone, Debug)]
pub(crate) enum Whole {
    /// Somebody's.
    Given(Slab),
    /// What one dispatch of the operation leaves for another.
    Scratch(Scratch),
    /// The same, of dispatches that are put before these ([`Build::after`]).
    Before(Scratch),
}

/// A place in [`Build::rooms`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scratch(pub(super) usize);

impl From<&Buffer> for Whole {
    fn from(buffer: &Buffer) -> Self {
        Self::Given(buffer.into())
    }
}

impl From<&Slab> for Whole {
    fn from(slab: &Slab) -> Self {
        Self::Given(slab.clone())
    }
}

impl From<Slab> for Whole {
    fn from(slab: Slab) -> Self {
        Self::Given(slab)
    }
}

impl From<Scratch> for Whole {
    fn from(scratch: Scratch) -> Self {
        Self::Scratch(scratch)
    }
}

impl Whole {
    /// The same, seen by dispatches that come after so many scratch buffers of others.
    fn behind(&mut self, rooms: usize) {
        *self = match self {
            Self::Given(slab) => Self::Given(slab.clone()),
            Self::Scratch(Scratch(place)) => Self::Scratch(Scratch(*place + rooms)),
            Self::Before(scratch) => Self::Scratch(*scratch),
        };
    }

    /// The same, of dispatches that are put before others.
    pub fn before(&self) -> Self {
        match self {
            Self::Scratch(scratch) => Self::Before(*scratch),
            other => other.clone(),
        }
    }
}

pub(super) struct Dispatch {
    pub kernel: Kernel,
    pub pointwise: Pointwise,
    pub plan: Arc<Plan>,
    /// Reads the tensor of the second slot through the first.
    pub instead: Option<(Slot, Slot)>,
    /// Partial results lie elsewhere than the plan of the operation has them.
    pub records: Option<Records>,
    /// Buffers of this dispatch alone.
    pub buffers: Vec<(Slot, Whole)>,
}

impl Dispatch {
    fn new(kernel: Kernel, pointwise: Pointwise, plan: Arc<Plan>) -> Self {
        Self { kernel, pointwise, plan, instead: None, records: None, buffers: Vec::new() }
    }
}

impl Deref for Build<'_> {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl DerefMut for Build<'_> {
    fn deref_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }
}

impl<'c> Build<'c> {
    pub fn new(context: &'c Context, op: Op, plan: Arc<Plan>) -> Self {
        let stage = Stage {
            params: Common { partials: plan.partials(), ..Common::default() },
            pointwise: Pointwise::default(),
            program: None,
            walked: Vec::new(),
            values: Vec::new(),
            rows: None,
            mask: None,
            owned: Vec::new(),
            partials: None,
            dispatches: Vec::new(),
        };
        Self { context, op, plan, stage, before: Vec::new(), rooms: Vec::new() }
    }

    pub fn context(&self) -> &'c Context {
        self.context
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Parameters and their gradients.
    pub fn values(&self) -> impl Iterator<Item = &Tensor> {
        self.stage.values.iter().map(|(_, tensor)| tensor)
    }

    /// Binds a caller's tensor of the walk's shape to a slot.
    pub fn tensor(&mut self, slot: Slot, tensor: &Tensor) -> Result<()> {
        tensor.check_device(slot.name(), self.context)?;
        // Of int8 is a y that was asked for as such, and nothing else.
        if tensor.dtype() == DType::I8 && !(slot == Slot::Y && self.pointwise.int8.is_some()) {
            let (what, expected) = (slot.name(), DType::F32);
            return Err(Error::DType { what, expected, got: tensor.dtype() });
        }
        self.walked.push((slot, tensor.clone()));
        Ok(())
    }

    /// Binds parameters, or the gradients of them, and sets the flag that tells the kernel that they are there.
    pub fn value(&mut self, slot: Slot, tensor: &Tensor) -> Result<()> {
        tensor.check_device(slot.name(), self.context)?;
        self.params.flags |= slot.flag();
        self.values.push((slot, tensor.clone()));
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

    /// Has a kernel find the bits of a mask that it binds, from the first on.
    pub fn bits_of(&mut self, mask: &Mask, view: Channels) {
        self.mask = Some((mask.clone(), view));
    }

    /// Takes tensors as rows of so many elements, one after the other and equally far apart.
    pub fn take_rows(&mut self, len: u64) {
        self.rows = Some(len);
        self.params.slice_runs = 1;
    }

    /// Binds a buffer as a whole.
    pub fn buffer(&mut self, slot: Slot, buffer: impl Into<Whole>) {
        self.owned.push((slot, buffer.into()));
    }

    /// Asks for a buffer that one dispatch writes as `PartialsOut` and a later one reads as `Partials`.
    pub fn scratch(&mut self, bytes: u64) {
        self.partials = Some(Room { bytes, zeroed: false });
    }

    /// The same, of which what is not written is read as zero.
    pub fn zeroed_scratch(&mut self, bytes: u64) {
        self.partials = Some(Room { bytes, zeroed: true });
    }

    /// A buffer for what one dispatch leaves for another.
    pub fn workspace(&mut self, bytes: u64) -> Scratch {
        self.room(Room { bytes, zeroed: false })
    }

    /// The same, of which what is not written is read as zero.
    pub fn zeroed_workspace(&mut self, bytes: u64) -> Scratch {
        self.room(Room { bytes, zeroed: true })
    }

    fn room(&mut self, room: Room) -> Scratch {
        self.rooms.push(room);
        Scratch(self.rooms.len() - 1)
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

    /// As [`dispatch_with`](Self::dispatch_with), for a kernel that finds partial results where `records` says.
    pub fn dispatch_from(&mut self, kernel: Kernel, instead: Option<(Slot, Slot)>, records: Records) {
        let dispatch = Dispatch::new(kernel, self.pointwise, self.plan.clone());
        self.dispatches.push(Dispatch { instead, records: Some(records), ..dispatch });
    }

    /// As [`dispatch_with`](Self::dispatch_with), for a kernel that finds one total of each slice, if it has been folded, instead of partial results.
    pub fn dispatch_of(
        &mut self,
        kernel: Kernel,
        pointwise: Pointwise,
        instead: Option<(Slot, Slot)>,
        total: Option<Scratch>,
    ) {
        let pointwise = Pointwise { folded: pointwise.folded || total.is_some(), ..pointwise };
        let dispatch = Dispatch { instead, ..Dispatch::new(kernel, pointwise, self.plan.clone()) };
        let records = Records { partials: 1, slices: self.plan.slices, matrix: 0 };
        self.dispatches.push(match total {
            Some(total) => {
                Dispatch { records: Some(records), buffers: vec![(Slot::Partials, total.into())], ..dispatch }
            }
            None => dispatch,
        });
    }

    /// Adds a dispatch over a plan of its own.
    pub fn dispatch_over(&mut self, kernel: Kernel, plan: Arc<Plan>) {
        let dispatch = Dispatch::new(kernel, self.pointwise, plan);
        self.dispatches.push(dispatch);
    }

    /// Adds a fold over a plan of its own, of partial results that lie as `records` says, with buffers that other dispatches do not see.
    pub fn dispatch_fold(
        &mut self,
        kernel: Kernel,
        plan: Arc<Plan>,
        records: Records,
        buffers: Vec<(Slot, Whole)>,
    ) {
        let dispatch = Dispatch::new(kernel, self.pointwise, plan);
        self.dispatches.push(Dispatch { records: Some(records), buffers, ..dispatch });
    }

    /// Checks that nothing is written over what an operation reads or writes elsewhere; for operations that are split into several, each of
    /// which sees only a part.
    pub fn check_overlap(&self) -> Result<()> {
        self.stage.check_overlap()
    }

    /// These dispatches after those of another operation, as one, with the plan of this. What that leaves for this is bound as
    /// [`Whole::before`] says.
    pub fn after(mut self, mut other: Self) -> Self {
        other.close();
        self.close();
        let Build { stage, before, rooms, .. } = other;
        for own in self.before.iter_mut().chain([&mut self.stage]) {
            own.wholes().for_each(|whole| whole.behind(rooms.len()));
        }
        let all = before.into_iter().chain([stage]).chain(std::mem::take(&mut self.before));
        self.before = all.collect();
        self.rooms.splice(0..0, rooms);
        self
    }

    /// These dispatches before those of another operation, as one, with the plan of this.
    pub fn followed_by(self, other: Self) -> Self {
        let plan = self.plan.clone();
        Self { plan, ..other.after(self) }
    }

    /// Binds what partial results go through.
    fn close(&mut self) {
        if let Some(room) = self.partials.take().filter(|room| room.bytes > 0) {
            let scratch = self.room(room);
            self.buffer(Slot::PartialsOut, scratch);
            self.buffer(Slot::Partials, scratch);
        }
    }

    pub(super) fn stages(&self) -> impl Iterator<Item = &Stage> {
        self.before.iter().chain([&self.stage])
    }

    /// Compiles, allocates and binds: what depends on shapes and places alone once, and the tensors at hand each time.
    pub async fn finish(mut self, traffic: Traffic) -> Result<Prepared> {
        self.close();
        let operands = Operands::of(&self);
        #[cfg(feature = "wgpu")]
        if self.context.runs() {
            let key = self.key(&operands, traffic);
            let recipes = self.context.recipes();
            let ready = match recipes.get(&key) {
                Some(ready) => ready,
                None => {
                    let draft = Draft::new(&self, &operands, traffic).await?;
                    recipes.insert(key, Ready::new(self.context, draft).await?)
                }
            };
            return ready.bind(self.context, &operands).await;
        }
        let draft = Draft::new(&self, &operands, traffic).await?;
        if let Some(rehearsal) = self.context.rehearsal() {
            rehearsal.note(draft, operands);
        }
        Ok(Prepared::noted(self.context, self.op, self.plan, traffic))
    }
}

impl Stage {
    pub(super) fn check_overlap(&self) -> Result<()> {
        let tensors: Vec<_> = self.walked.iter().chain(&self.values).cloned().collect();
        check_overlap(&tensors)
    }

    fn wholes(&mut self) -> impl Iterator<Item = &mut Whole> {
        let of_dispatches = self.dispatches.iter_mut().flat_map(|dispatch| &mut dispatch.buffers);
        self.owned.iter_mut().chain(of_dispatches).map(|(_, whole)| whole)
    }
}
