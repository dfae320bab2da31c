//! The operations of a norm of the family on one shape in one layout and cache state: tensors, prepared operations, check
//! and timing.

use wgnorm::{
    Activation, Context, GradientTargets, Input, Layout, Plan, Prepared, Result, SavedSlices, Tensor,
    Traffic, Tuning, prepare_copy,
};

use super::data::{Data, Results};
use super::layer::{self, AnyLayer};
use crate::Refusal;
use crate::bench::case::{Kernels, Measured, copy, poison, sets_for, submit};
use crate::bench::measure::{Meter, Work, scoped};
use crate::bench::timed::Timed;
use crate::bench::{BenchOp, Cache, layout};

/// Everything that one shape needs. Operations share inputs and outputs.
pub struct Cases<'c> {
    context: &'c Context,
    data: &'c Data,
    layer: Box<dyn AnyLayer>,
    saved: SavedSlices,
    dgamma: Option<Tensor>,
    dbeta: Option<Tensor>,
    /// One where the cache is warm.
    sets: Vec<Set>,
    copies: Vec<Prepared>,
    /// x and dy as they were, where operations write over them.
    originals: Option<[Tensor; 2]>,
}

/// Tensors of the shape.
struct Set {
    x: Tensor,
    residual: Option<Tensor>,
    addend: Option<Tensor>,
    dy: Tensor,
    d_sum: Option<Tensor>,
    y: Tensor,
    /// The sum, where it is not written over x.
    sum: Option<Tensor>,
    dx: Tensor,
    d_residual: Option<Tensor>,
}

/// One operation, prepared for every set.
pub struct Case<'a, 'c> {
    cases: &'a mut Cases<'c>,
    op: BenchOp,
    operations: Vec<Prepared>,
    /// For training backward: forward on each set whose sum it needs, else on the first, for the statistics.
    forwards: Vec<Prepared>,
}

impl Set {
    /// The first set, with values; its outputs are zero.
    async fn with_data(context: &Context, data: &Data, layout: Layout) -> Result<Self> {
        let upload = async |values: &[f32]| {
            layout::upload(context, layout, &data.dims, values, data.variant.dtype).await
        };
        let upload_if = async |values: &Option<Vec<f32>>| match values {
            Some(values) => upload(values).await.map(Some),
            None => Ok(None),
        };
        let x = upload(&data.x).await?;
        Ok(Self {
            residual: upload_if(&data.residual).await?,
            addend: upload_if(&data.addend).await?,
            dy: upload(&data.dy).await?,
            d_sum: upload_if(&data.d_sum).await?,
            ..Self::zeros(context, x, data).await?
        })
    }

    /// A set with this x; everything else is zero.
    async fn zeros(context: &Context, x: Tensor, data: &Data) -> Result<Self> {
        let zeros_if = async |wanted: bool| match wanted {
            true => context.zeros_like(&x).await.map(Some),
            false => Ok(None),
        };
        let variant = data.variant;
        Ok(Self {
            residual: zeros_if(variant.residual).await?,
            addend: zeros_if(variant.sum).await?,
            dy: context.zeros_like(&x).await?,
            d_sum: zeros_if(variant.sum).await?,
            y: context.zeros_like(&x).await?,
            sum: zeros_if(variant.sum && !variant.in_place).await?,
            dx: context.zeros_like(&x).await?,
            // Without an activation it is dy.
            d_residual: zeros_if(variant.residual && variant.activation != Activation::None).await?,
            x,
        })
    }

    /// What has values, but x.
    fn inputs(&self) -> impl Iterator<Item = &Tensor> {
        [Some(&self.dy), self.residual.as_ref(), self.addend.as_ref(), self.d_sum.as_ref()]
            .into_iter()
            .flatten()
    }
}

impl<'c> Cases<'c> {
    pub fn new(context: &'c Context, data: &'c Data, layout: Layout, cache: Cache) -> Result<Self, String> {
        let bytes = data.variant.dtype.size() * data.x.len() as u64;
        let count = sets_for(cache, bytes)?;
        let mut cases =
            context.block_on(Self::with_one_set(context, data, layout)).map_err(|error| error.to_string())?;
        cases.rotate(count).map_err(|error| format!("{count} sets of tensors: {error}"))?;
        Ok(cases)
    }

    async fn with_one_set(context: &'c Context, data: &'c Data, layout: Layout) -> Result<Self> {
        let own = layer::parameter_dims(data.norm, &data.dims);
        let upload_if = async |values: &Option<Vec<f32>>| match values {
            Some(values) => context.upload(&own, values).await.map(Some),
            None => Ok(None),
        };
        let set = Set::with_data(context, data, layout).await?;
        let originals = match data.variant.in_place {
            true => {
                let Set { x, dy, .. } = Set::with_data(context, data, layout).await?;
                Some([x, dy])
            }
            false => None,
        };
        let (gamma, beta) = (upload_if(&data.gamma).await?, upload_if(&data.beta).await?);
        let (dgamma, dbeta) = (upload_if(&data.gamma).await?, upload_if(&data.beta).await?);
        let layer = layer::layer(context, data.norm, &data.dims, data.options, gamma, beta)?;
        let saved = layer.room_for(context, &set.x)?;
        Ok(Self {
            context,
            data,
            layer,
            saved,
            dgamma,
            dbeta,
            sets: vec![set],
            copies: Vec::new(),
            originals,
        })
    }

    /// Makes sets with the contents of the first, up to `count`, and a copy operation for each.
    fn rotate(&mut self, count: u64) -> Result<(), String> {
        let context = self.context;
        let mut made = async || -> Result<()> {
            while (self.sets.len() as u64) < count {
                let x = context.zeros_like(&self.sets[0].x).await?;
                self.sets.push(Set::zeros(context, x, self.data).await?);
            }
            for set in &self.sets {
                // Forced plans are the operation's: the yardstick stays what it is.
                let free = context.with_tuning(Tuning::default());
                self.copies.push(prepare_copy(&free, &set.x, &set.y).await?);
            }
            Ok(())
        };
        context.block_on(made()).map_err(|error| error.to_string())?;
        let [first, others @ ..] = self.sets.as_slice() else { return Ok(()) };
        scoped(context, || {
            let mut encoder = context.device().create_command_encoder(&Default::default());
            for other in others {
                copy(&mut encoder, &first.x, &other.x);
                first.inputs().zip(other.inputs()).for_each(|(from, to)| copy(&mut encoder, from, to));
            }
            context.queue().submit([encoder.finish()]);
        })
    }

    /// Sets of tensors that are rotated over.
    pub fn sets(&self) -> usize {
        self.sets.len()
    }

    /// Prepares an operation.
    pub fn case(&mut self, op: BenchOp) -> Result<Case<'_, 'c>, String> {
        let count = self.sets.len();
        let forwards = match op {
            BenchOp::TrainBackward if self.data.variant.sum => count,
            BenchOp::TrainBackward => 1,
            _ => 0,
        };
        let prepared = |op, count| {
            (0..count)
                .map(|set| self.prepare(op, set))
                .collect::<Result<Vec<_>>>()
                .map_err(|error| error.to_string())
        };
        let (operations, forwards) = (prepared(op, count)?, prepared(BenchOp::TrainForward, forwards)?);
        Ok(Case { operations, forwards, op, cases: self })
    }

    fn prepare(&self, op: BenchOp, set: usize) -> Result<Prepared> {
        let (set, context) = (&self.sets[set], self.context);
        let input = |x| Input { residual: set.residual.as_ref(), ..Input::from(x) };
        if !op.is_forward() {
            let targets = GradientTargets {
                dx: Some(self.dx(set)),
                d_residual: set.d_residual.as_ref(),
                dgamma: self.dgamma.as_ref(),
                dbeta: self.dbeta.as_ref(),
                ..Default::default()
            };
            let (x, d_sum) = (set.sum.as_ref().unwrap_or(&set.x), set.d_sum.as_ref());
            return self.layer.prepare_backward(context, input(x), &set.dy, d_sum, &self.saved, &targets);
        }
        let saved = (op == BenchOp::TrainForward).then_some(&self.saved);
        let addend = set.addend.as_ref().map(|addend| (addend, set.sum.as_ref().unwrap_or(&set.x)));
        self.layer.prepare_forward(context, input(&set.x), addend, self.y(set, op), saved)
    }

    /// Where a forward operation writes y: over x, unless backward needs that or the sum is there.
    fn y<'s>(&self, set: &'s Set, op: BenchOp) -> &'s Tensor {
        let over_x = self.data.variant.in_place && !self.data.variant.sum && op == BenchOp::Inference;
        if over_x { &set.x } else { &set.y }
    }

    /// Where a backward operation writes dx.
    fn dx<'s>(&self, set: &'s Set) -> &'s Tensor {
        if self.data.variant.in_place { &set.dy } else { &set.dx }
    }

    /// Fills with NaN what holds results alone.
    fn poison(&self) {
        let set = &self.sets[0];
        let optional = [&set.sum, &set.d_residual, &self.dgamma, &self.dbeta];
        for tensor in [&set.y, &set.dx].into_iter().chain(optional.into_iter().flatten()) {
            poison(self.context, tensor);
        }
    }

    /// The results of an operation on the first set.
    fn results(&self, op: BenchOp) -> Result<Results> {
        let (context, set) = (self.context, &self.sets[0]);
        let download = |tensor: &Tensor| context.block_on(layout::download(context, &self.data.dims, tensor));
        let parameter = |tensor: &Option<Tensor>| {
            tensor.as_ref().map(|tensor| context.block_on(context.download(tensor))).transpose()
        };
        if op.is_forward() {
            let sum = self.data.variant.sum.then(|| set.sum.as_ref().unwrap_or(&set.x));
            let saved_inv_std = match op {
                BenchOp::TrainForward => {
                    let saved = context.block_on(self.saved.download(context))?;
                    Some(saved.iter().map(|slice| slice.inv_std).collect())
                }
                _ => None,
            };
            let sum = sum.map(download).transpose()?;
            return Ok(Results::Forward { y: download(self.y(set, op))?, sum, saved_inv_std });
        }
        Ok(Results::Backward {
            dx: download(self.dx(set))?,
            d_residual: set.d_residual.as_ref().map(download).transpose()?,
            dgamma: parameter(&self.dgamma)?,
            dbeta: parameter(&self.dbeta)?,
        })
    }
}

impl Case<'_, '_> {
    /// Fills the outputs with NaN and runs the operation, after the forward pass whose statistics it needs.
    fn run_poisoned(&mut self) -> Result<Results> {
        self.cases.poison();
        self.reset();
        submit(self.cases.context, |pass| self.operations[0].record_in(pass));
        self.cases.results(self.op)
    }

    /// Puts inputs back that were written over, and runs the forward passes that the operation follows.
    fn reset(&mut self) {
        let Cases { context, sets, originals, .. } = &*self.cases;
        if let Some([x, dy]) = originals {
            let mut encoder = context.device().create_command_encoder(&Default::default());
            for set in sets {
                copy(&mut encoder, x, &set.x);
                copy(&mut encoder, dy, &set.dy);
            }
            context.queue().submit([encoder.finish()]);
        }
        submit(context, |pass| self.forwards.iter().for_each(|forward| forward.record_in(pass)));
    }
}

impl Timed for Case<'_, '_> {
    fn traffic(&self) -> Traffic {
        self.operations[0].traffic()
    }

    fn tensor_bytes(&self) -> u64 {
        let over = if self.cases.data.variant.in_place { self.cases.sets[0].x.byte_len() } else { 0 };
        self.traffic().floor_bytes - over
    }

    fn workspace_bytes(&self) -> u64 {
        self.operations[0].workspace_bytes()
    }

    fn plan(&self) -> Option<&Plan> {
        self.operations[0].plan()
    }

    fn kernels(&self) -> Vec<String> {
        self.operations[0].kernels().map(str::to_owned).collect()
    }

    fn check(&mut self) -> std::result::Result<f64, String> {
        let results = self.run_poisoned().map_err(|error| error.to_string())?;
        self.cases.data.check(&results, 1.0)
    }

    fn check_baselines(&mut self, _: &mut Kernels) -> std::result::Result<(), String> {
        Ok(())
    }

    fn time(&mut self, _: &mut Kernels, meter: &mut Meter<'_>) -> std::result::Result<Measured, Refusal> {
        self.reset();
        let Self { cases, op, operations, .. } = self;
        let Cases { sets, copies, originals, .. } = &**cases;
        let mut works = [operations, copies].map(|prepared| Work {
            record: Box::new(|pass, set| prepared[set].record_in(pass)),
            bytes: prepared[0].traffic().plan_bytes,
            restore: None,
        });
        if let Some([x, dy]) = originals {
            let is_forward = op.is_forward();
            works[0].restore = Some(Box::new(move |encoder, set| match is_forward {
                true => copy(encoder, x, &sets[set].x),
                false => copy(encoder, dy, &sets[set].dy),
            }));
        }
        let times = meter.time(&mut works, sets.len())?;
        let [work, copy] = times[..] else { return Err("an operation and a copy have a time each".into()) };
        Ok(Measured { work, copy, naive: None, separate: None })
    }
}
