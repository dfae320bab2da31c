//! The operations of a norm on one shape in one layout and cache state: prepared, checked and timed.

use wgnorm::TrainForward;
use wgnorm::eval::Layer;
use wgnorm::{Context, Layout};

use super::data::{Data, hold};
use super::measure::{Meter, Times, Work, scoped};
use super::tensors::{Tensors, copy, sets_for, trains_in_place};
use super::{BenchOp, Cache, naive, separate};
use crate::Refusal;

/// What is timed of one shape in a layout and cache state. Its tensors are those of one problem at a time.
pub struct Cases<'c> {
    context: &'c Context,
    data: &'c Data,
    layout: Layout,
    sets: u64,
    tensors: Option<Tensors<'c>>,
}

/// The compiled kernels of the baselines.
#[derive(Default)]
pub struct Kernels {
    naive: naive::Kernels,
    separate: separate::Kernels,
}

/// One operation, prepared for every set.
pub struct Case<'a, 'c> {
    tensors: &'a mut Tensors<'c>,
    op: BenchOp,
    operations: Vec<TrainForward>,
    /// For training backward: forward on each set whose y or sum it needs in the place of x, else on the first, for the
    /// statistics.
    forwards: Vec<TrainForward>,
}

/// Times of an operation, a copy of the same size, and the baselines.
pub struct Measured {
    pub work: Times,
    pub copy: Times,
    pub naive: Option<Times>,
    pub separate: Option<Times>,
}

impl<'c> Cases<'c> {
    pub fn new(context: &'c Context, data: &'c Data, layout: Layout, cache: Cache) -> Result<Self, String> {
        let sets = sets_for(cache, data.tensor_bytes())?;
        Ok(Self { context, data, layout, sets, tensors: None })
    }

    /// Sets of tensors that are rotated over.
    pub fn sets(&self) -> usize {
        self.sets as usize
    }

    /// Prepares an operation.
    pub fn case(&mut self, op: BenchOp) -> Result<Case<'_, 'c>, String> {
        // Those of another problem go before it is made.
        self.tensors = self.tensors.take().filter(|tensors| tensors.problem.spec == self.data.spec(op));
        let problem = self.data.problem(op)?;
        let tensors = match &mut self.tensors {
            Some(tensors) => tensors,
            none => none.insert(Tensors::new(self.context, problem, self.layout, self.sets)?),
        };
        let (spec, count) = (&problem.spec, tensors.sets.len());
        let forwards = match op {
            BenchOp::TrainBackward if trains_in_place(spec) || spec.sum => count,
            // A curve has no statistics.
            BenchOp::TrainBackward if spec.norm.curve().is_none() => 1,
            op if op.is_derivative() => 1,
            _ => 0,
        };
        let operations = tensors.prepare(op, count)?;
        let forwards = tensors.prepare(BenchOp::TrainForward, forwards)?;
        Ok(Case { tensors, op, operations, forwards })
    }
}

impl Case<'_, '_> {
    /// As it runs on the first set.
    pub fn operation(&self) -> &TrainForward {
        &self.operations[0]
    }

    /// Bytes of the tensors of the shape of x that it binds: it moves each at least once, and in place two are one.
    pub fn tensor_bytes(&self) -> u64 {
        let Tensors { problem, sets, .. } = &*self.tensors;
        self.operation().traffic().floor_bytes - if problem.spec.in_place { sets[0].x.byte_len() } else { 0 }
    }

    /// Runs the operation once, on outputs filled with NaN, and holds every output against the reference. Returns the worst error
    /// as a fraction of its bound, or what is wrong.
    pub fn check(&mut self) -> Result<f64, String> {
        self.tensors.poison();
        self.reset()?;
        let Tensors { context, layer, .. } = &mut *self.tensors;
        submit(context, |pass| record(layer, &self.operations[0], pass));
        let results =
            self.tensors.results(self.op, Some(&self.tensors.saved)).map_err(|error| error.to_string())?;
        hold(self.tensors.problem, &results, 1.0)
    }

    /// As [`Self::check`] for the baselines, as far as there are any.
    pub fn check_baselines(&mut self, kernels: &mut Kernels) -> Result<(), String> {
        let Tensors { context, problem, sets, naive, .. } = &*self.tensors;
        if let Some(naive) = naive.as_ref().filter(|naive| naive.covers(self.op)) {
            let checked = naive.check(context, &mut kernels.naive, self.op, sets, problem);
            checked.map_err(|wrong| format!("the naive baseline is wrong: {wrong}"))?;
        }
        self.check_separate(kernels).map_err(|wrong| format!("the separate baseline is wrong: {wrong}"))
    }

    fn check_separate(&mut self, kernels: &mut Kernels) -> Result<(), String> {
        if self.tensors.separate.is_some() {
            self.tensors.poison();
        }
        let op = self.op;
        let Tensors { context, gradients, sets, separate, .. } = &mut *self.tensors;
        let Some(separate) = separate.as_mut().filter(|_| !op.is_derivative()) else { return Ok(()) };
        let forward = if op.is_frozen() { BenchOp::Inference } else { BenchOp::TrainForward };
        let steps = if op.is_forward() { vec![op] } else { vec![forward, op] };
        for step in steps {
            let bound = separate.bind(context, &mut kernels.separate, step, &sets[..1], gradients)?;
            scoped(context, || submit(context, |pass| bound.record_in(&mut separate.layer, pass, 0)))?;
        }
        let saved = self.tensors.separate.as_ref().map(|separate| &separate.saved);
        let results = self.tensors.results(op, saved).map_err(|error| error.to_string())?;
        hold(self.tensors.problem, &results, 1.0).map(|_| ())
    }

    /// Puts inputs and state back that were written over, and runs the forward passes that the operation follows.
    fn reset(&mut self) -> Result<(), String> {
        let Tensors { context, problem, layer, sets, originals, .. } = &mut *self.tensors;
        if let Some([x, dy]) = originals {
            let mut encoder = context.device().create_command_encoder(&Default::default());
            for set in sets.iter() {
                copy(&mut encoder, x, &set.x);
                copy(&mut encoder, dy, &set.dy);
            }
            context.queue().submit([encoder.finish()]);
        }
        if problem.spec.norm.spectral().is_some() {
            let (u, v) = &problem.problem.inputs.directions;
            context.block_on(layer.set_directions(u, v)).map_err(|error| error.to_string())?;
        }
        submit(context, |pass| self.forwards.iter().for_each(|forward| record(layer, forward, pass)));
        Ok(())
    }

    /// Times the operation, a copy of the same size, and the baselines if there are any.
    pub fn time(&mut self, kernels: &mut Kernels, meter: &mut Meter<'_>) -> Result<Measured, Refusal> {
        self.reset()?;
        let bytes = self.operation().traffic().plan_bytes;
        let Self { tensors, op, operations, .. } = self;
        let Tensors { context, layer, gradients, sets, copies, originals, naive, separate, .. } =
            &mut **tensors;
        let naive = match naive.as_ref().filter(|naive| naive.covers(*op)) {
            Some(naive) => Some(naive.bind(context, &mut kernels.naive, *op, sets)?),
            None => None,
        };
        // Its backward takes y for the derivative. What the copy leaves there will do to time it.
        let separate = match separate.as_mut().filter(|_| !op.is_derivative()) {
            Some(separate) => {
                let bound = separate.bind(context, &mut kernels.separate, *op, sets, gradients)?;
                Some((separate, bound))
            }
            None => None,
        };
        let (sets, is_forward) = (&*sets, op.is_forward());
        let work = |record, bytes| Work { record, bytes, restore: None };
        let mut works = vec![
            work(Box::new(|pass, set| record(layer, &operations[set], pass)), bytes),
            work(Box::new(|pass, set| copies[set].record_in(pass)), copies[0].traffic().plan_bytes),
        ];
        if let Some([x, dy]) = originals {
            works[0].restore = Some(Box::new(move |encoder, set| match is_forward {
                true => copy(encoder, x, &sets[set].x),
                false => copy(encoder, dy, &sets[set].dy),
            }));
        }
        let (has_naive, has_separate) = (naive.is_some(), separate.is_some());
        if let Some(naive) = &naive {
            works.push(work(Box::new(|pass, set| naive.record_in(pass, set)), bytes));
        }
        if let Some((separate, bound)) = separate {
            let record = move |pass: &mut wgpu::ComputePass<'_>, set: usize| {
                bound.record_in(&mut separate.layer, pass, set);
            };
            works.push(work(Box::new(record), bytes));
        }
        let mut times = meter.time(&mut works, sets.len())?.into_iter();
        let mut next = || times.next().expect("times of every work");
        Ok(Measured {
            work: next(),
            copy: next(),
            naive: has_naive.then(&mut next),
            separate: has_separate.then(&mut next),
        })
    }
}

/// Records an operation of a layer.
pub fn record(layer: &mut Layer, operation: &TrainForward, pass: &mut wgpu::ComputePass<'_>) {
    operation.record_in(layer, pass).expect("it was prepared for this layer");
}

/// Records a pass and submits it.
fn submit(context: &Context, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) {
    let mut encoder = context.device().create_command_encoder(&Default::default());
    record(&mut encoder.begin_compute_pass(&Default::default()));
    context.queue().submit([encoder.finish()]);
}
