//! An operation on tensors, ready to be recorded.

use std::sync::Arc;

#[cfg(feature = "wgpu")]
use super::buffer::Buffer;
#[cfg(feature = "wgpu")]
use super::pipelines::Pipeline;
#[cfg(feature = "wgpu")]
use super::scratch::Held;
use crate::engine::context::{Context, ContextId};
use crate::plan::{Op, Plan, Traffic};

/// An operation that is ready to be recorded, any number of times.
///
/// It owns its pipelines, bind groups, parameters and scratch, so recording allocates nothing and cannot fail.
/// It keeps the buffers of its tensors alive. Dispatches of one operation, and of operations recorded one after the
/// other, run in order.
#[derive(Debug)]
pub struct Prepared {
    home: ContextId,
    op: Op,
    /// `None` if there is nothing to do, because the tensor is empty, and of a recipe.
    plan: Option<Arc<Plan>>,
    traffic: Traffic,
    workspace_bytes: u64,
    steps: Vec<Step>,
    /// What bind groups refer to, which is there as long as they are.
    #[cfg(feature = "wgpu")]
    operands: Vec<Buffer>,
    /// What one dispatch leaves for another.
    #[cfg(feature = "wgpu")]
    scratch: Vec<Held>,
}

/// A dispatch with its bindings.
#[derive(Debug)]
#[cfg(feature = "wgpu")]
pub(crate) struct Step {
    pub pipeline: Arc<Pipeline>,
    pub bind_group: wgpu::BindGroup,
    pub grid: [u32; 2],
}

/// Nothing is bound where there is no device.
#[cfg(not(feature = "wgpu"))]
#[derive(Debug)]
pub(crate) enum Step {}

impl Step {
    fn key(&self) -> &str {
        #[cfg(feature = "wgpu")]
        return &self.pipeline.key;
        #[cfg(not(feature = "wgpu"))]
        match *self {}
    }
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
            #[cfg(feature = "wgpu")]
            operands: Vec::new(),
            #[cfg(feature = "wgpu")]
            scratch: Vec::new(),
        }
    }

    /// An operation that is noted, and does nothing.
    pub(crate) fn noted(context: &Context, op: Op, plan: Arc<Plan>, traffic: Traffic) -> Self {
        Self { plan: Some(plan), traffic, ..Self::nothing(context, op) }
    }

    #[cfg(feature = "wgpu")]
    pub(crate) fn new(
        context: &Context,
        (op, plan, traffic): (Op, Option<Arc<Plan>>, Traffic),
        workspace_bytes: u64,
        steps: Vec<Step>,
        (operands, scratch): (Vec<Buffer>, Vec<Held>),
    ) -> Self {
        Self { home: context.id(), op, plan, traffic, workspace_bytes, steps, operands, scratch }
    }

    /// Operations one after the other as one, with the plan of the first.
    pub(crate) fn sequence(context: &Context, op: Op, operations: Vec<Prepared>) -> Self {
        let mut all = Self::nothing(context, op);
        for operation in operations {
            all.plan = all.plan.or(operation.plan);
            all.traffic = all.traffic.plus(operation.traffic);
            all.workspace_bytes += operation.workspace_bytes;
            all.steps.extend(operation.steps);
            #[cfg(feature = "wgpu")]
            {
                all.operands.extend(operation.operands);
                all.scratch.extend(operation.scratch);
            }
        }
        all
    }

    /// This operation after another, as one, with the plan of this.
    pub(crate) fn after(self, before: Prepared) -> Self {
        let mut all = before;
        all.traffic = all.traffic.plus(self.traffic);
        all.workspace_bytes += self.workspace_bytes;
        all.steps.extend(self.steps);
        #[cfg(feature = "wgpu")]
        {
            all.operands.extend(self.operands);
            all.scratch.extend(self.scratch);
        }
        Self { op: self.op, plan: self.plan, ..all }
    }

    /// The same, whose floor is another than that of its parts: what goes between them is neither input nor output.
    pub(crate) fn with_floor(self, floor_bytes: u64) -> Self {
        Self { traffic: Traffic { floor_bytes, ..self.traffic }, ..self }
    }

    /// The same, whose plan tells one thing more.
    pub(crate) fn telling(mut self, reason: String) -> Self {
        if let Some(plan) = &mut self.plan {
            Arc::make_mut(plan).reasons.push(reason);
        }
        self
    }

    /// The same with so many bytes more that it holds.
    pub(crate) fn with_workspace(self, bytes: u64) -> Self {
        Self { workspace_bytes: self.workspace_bytes + bytes, ..self }
    }

    /// The same, of an operation whose tensors are values per channel: they are not counted.
    pub(crate) fn without_traffic(self) -> Self {
        Self { traffic: Traffic::default(), ..self }
    }

    /// Records the operation into a compute pass of its own.
    ///
    /// The encoder must be of the context's device. That is wgpu's to check and not told before: with an encoder of another device wgpu reports a validation error to
    /// that device's handler of uncaptured errors, whose default panics.
    #[cfg(feature = "wgpu")]
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        self.hand_out();
        self.record_own(encoder);
    }

    /// Records the operation into a compute pass that the caller has begun, on the context's device: [`record`](Self::record).
    #[cfg(feature = "wgpu")]
    pub fn record_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.hand_out();
        self.dispatch_in(pass);
    }

    /// What is recorded for a submission of the application's may be submitted when the operation is gone.
    #[cfg(feature = "wgpu")]
    fn hand_out(&self) {
        let scratch = self.scratch.iter().map(Held::buffer);
        self.operands.iter().chain(scratch).for_each(|buffer| _ = buffer.hand_out());
    }

    /// Records it for a submission while it is there.
    #[cfg(feature = "wgpu")]
    pub(crate) fn record_own(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some(self.op.name()),
            timestamp_writes: None,
        });
        self.dispatch_in(&mut pass);
    }

    /// As [`record_own`](Self::record_own), into a pass that has begun.
    #[cfg(feature = "wgpu")]
    pub(crate) fn dispatch_in(&self, pass: &mut wgpu::ComputePass<'_>) {
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

    /// How the walk is cut into workgroups; `None` if the tensor is empty, or if it is a [recipe](crate::recipe) that is run.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_deref()
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
        self.steps.iter().map(Step::key)
    }
}
