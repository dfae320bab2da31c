//! The four operations of batch norm on one shape in one layout and cache state: tensors, prepared operations, check and timing.

use wgnorm::{
    BatchNorm, Context, FrozenBatchNorm, GradientTargets, Input, Layout, Plan, Prepared, Result,
    RunningStatistics, Saved, Tensor, Traffic, TrainForward, Tuning, prepare_copy,
};

use super::data::{Data, Results};
use super::measure::{Meter, Times, Work, scoped};
use super::naive::{self, Naive};
use super::separate::{self, Separate};
use super::timed::Timed;
use super::variant::Variant;
use super::{BenchOp, Cache, layout};
use crate::Refusal;

/// Most sets of tensors to rotate over. Smaller tensors would need more of them, and the costs of so many bind groups
/// would no longer be those of the kernel.
const MOST_SETS: u64 = 4096;

/// Everything that one shape needs. Operations share inputs and outputs.
pub struct Cases<'c> {
    context: &'c Context,
    data: &'c Data,
    layer: BatchNorm,
    frozen: FrozenBatchNorm,
    saved: Saved,
    dgamma: Tensor,
    dbeta: Tensor,
    /// One where the cache is warm.
    sets: Vec<Set>,
    copies: Vec<Prepared>,
    /// x and dy as they were, where operations write over them.
    originals: Option<[Tensor; 2]>,
    naive: Option<Naive>,
    separate: Option<Separate>,
}

/// Tensors of the shape.
pub struct Set {
    pub x: Tensor,
    pub residual: Option<Tensor>,
    pub dy: Tensor,
    pub y: Tensor,
    pub dx: Tensor,
    /// d_residual, and dz where it is computed separately.
    pub dz: Option<Tensor>,
}

/// The compiled kernels of the baselines.
#[derive(Default)]
pub struct Kernels {
    naive: naive::Kernels,
    separate: separate::Kernels,
}

/// One operation, prepared for every set.
pub struct Case<'a, 'c> {
    cases: &'a mut Cases<'c>,
    op: BenchOp,
    operations: Vec<Operation>,
    /// For training backward: forward on each set whose y it needs in the place of x, else on the first, for the
    /// statistics.
    forwards: Vec<Operation>,
}

pub enum Operation {
    Train(TrainForward),
    Other(Prepared),
}

/// Times of an operation, a copy of the same size, and the baselines.
pub struct Measured {
    pub work: Times,
    pub copy: Times,
    pub naive: Option<Times>,
    pub separate: Option<Times>,
}

impl Set {
    /// The first set, with values; its outputs are zero.
    async fn with_data(context: &Context, data: &Data, layout: Layout) -> Result<Self> {
        let upload = async |values: &[f32]| {
            layout::upload(context, layout, &data.dims, values, data.variant.dtype).await
        };
        let x = upload(&data.x).await?;
        let residual = match &data.residual {
            Some(residual) => Some(upload(residual).await?),
            None => None,
        };
        Ok(Self { residual, dy: upload(&data.dy).await?, ..Self::zeros(context, x, data.variant).await? })
    }

    /// A set with this x; everything else is zero.
    async fn zeros(context: &Context, x: Tensor, variant: Variant) -> Result<Self> {
        let zeros_if = async |wanted: bool| match wanted {
            true => context.zeros_like(&x).await.map(Some),
            false => Ok(None),
        };
        Ok(Self {
            residual: zeros_if(variant.residual).await?,
            dy: context.zeros_like(&x).await?,
            y: context.zeros_like(&x).await?,
            dx: context.zeros_like(&x).await?,
            dz: zeros_if(variant.is_fused()).await?,
            x,
        })
    }

    fn input(&self) -> Input<'_> {
        Input { residual: self.residual.as_ref(), ..(&self.x).into() }
    }

    /// Where a forward operation writes y.
    fn y(&self, variant: Variant, op: BenchOp) -> &Tensor {
        if variant.is_over_x(op) { &self.x } else { &self.y }
    }

    /// Where a backward operation writes dx.
    fn dx(&self, variant: Variant) -> &Tensor {
        if variant.in_place { &self.dy } else { &self.dx }
    }
}

impl Operation {
    pub fn record_in(&self, layer: &mut BatchNorm, pass: &mut wgpu::ComputePass<'_>) {
        match self {
            Self::Train(forward) => {
                forward.record_in(layer, pass).expect("the pass was prepared for this layer");
            }
            Self::Other(prepared) => prepared.record_in(pass),
        }
    }

    fn traffic(&self) -> Traffic {
        match self {
            Self::Train(forward) => forward.traffic(),
            Self::Other(prepared) => prepared.traffic(),
        }
    }

    fn workspace_bytes(&self) -> u64 {
        match self {
            Self::Train(forward) => forward.workspace_bytes(),
            Self::Other(prepared) => prepared.workspace_bytes(),
        }
    }

    fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Train(forward) => forward.plan(),
            Self::Other(prepared) => prepared.plan(),
        }
    }

    fn kernels(&self) -> Vec<String> {
        match self {
            Self::Train(forward) => forward.kernels().map(str::to_owned).collect(),
            Self::Other(prepared) => prepared.kernels().map(str::to_owned).collect(),
        }
    }
}

impl<'c> Cases<'c> {
    pub fn new(context: &'c Context, data: &'c Data, layout: Layout, cache: Cache) -> Result<Self, String> {
        let count = sets_for(cache, data.variant.dtype.size() * data.view.elements())?;
        let (mut cases, gamma, beta) =
            context.block_on(Self::with_one_set(context, data, layout)).map_err(|error| error.to_string())?;
        cases.naive = Naive::new(context, layout, data, &gamma, &beta)?;
        cases.rotate(count).map_err(|error| format!("{count} sets of tensors: {error}"))?;
        Ok(cases)
    }

    async fn with_one_set(
        context: &'c Context,
        data: &'c Data,
        layout: Layout,
    ) -> Result<(Self, Tensor, Tensor)> {
        let (c, variant) = (data.gamma.len(), data.variant);
        let gamma = context.upload(&[c], &data.gamma).await?;
        let beta = context.upload(&[c], &data.beta).await?;
        let parts = async || -> Result<_> {
            let running = RunningStatistics::upload(context, &data.running).await?;
            Ok((Some(gamma.clone()), Some(beta.clone()), running))
        };
        let set = Set::with_data(context, data, layout).await?;
        let originals = match variant.in_place {
            true => {
                let Set { x, dy, .. } = Set::with_data(context, data, layout).await?;
                Some([x, dy])
            }
            false => None,
        };
        let saved = match variant.trains_in_place() {
            true => Saved::in_place(context, &set.x).await?,
            false => Saved::new(context, &set.x).await?,
        };
        let separate = Separate::new(context, data, &set.x, &gamma, &beta).await?;
        let (g, b, r) = parts().await?;
        let layer = BatchNorm::from_parts(context, variant.options(), g, b, r)?;
        let (g, b, r) = parts().await?;
        let frozen = FrozenBatchNorm::from_parts(context, variant.options(), g, b, r)?;
        let cases = Self {
            context,
            data,
            layer,
            frozen,
            saved,
            dgamma: context.zeros(&[c]).await?,
            dbeta: context.zeros(&[c]).await?,
            sets: vec![set],
            copies: Vec::new(),
            originals,
            naive: None,
            separate,
        };
        Ok((cases, gamma, beta))
    }

    /// Makes sets with the contents of the first, up to `count`, and a copy operation for each.
    fn rotate(&mut self, count: u64) -> Result<(), String> {
        let (context, variant) = (self.context, self.data.variant);
        let mut made = async || -> Result<()> {
            while (self.sets.len() as u64) < count {
                let x = context.zeros_like(&self.sets[0].x).await?;
                self.sets.push(Set::zeros(context, x, variant).await?);
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
                copy(&mut encoder, &first.dy, &other.dy);
                if let (Some(from), Some(to)) = (&first.residual, &other.residual) {
                    copy(&mut encoder, from, to);
                }
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
            BenchOp::TrainBackward if self.data.variant.recovers(op) => count,
            BenchOp::TrainBackward => 1,
            _ => 0,
        };
        let mut prepared = |op, count| {
            (0..count)
                .map(|set| self.prepare(op, set))
                .collect::<Result<Vec<_>>>()
                .map_err(|error| error.to_string())
        };
        let (operations, forwards) = (prepared(op, count)?, prepared(BenchOp::TrainForward, forwards)?);
        Ok(Case { operations, forwards, op, cases: self })
    }

    fn prepare(&mut self, op: BenchOp, set: usize) -> Result<Operation> {
        let (set, variant) = (&self.sets[set], self.data.variant);
        let (input, y, dy) = (set.input(), set.y(variant, op), &set.dy);
        let targets = GradientTargets {
            dx: Some(set.dx(variant)),
            d_residual: set.dz.as_ref().filter(|_| variant.residual),
            dgamma: Some(&self.dgamma),
            dbeta: Some(&self.dbeta),
            ..Default::default()
        };
        self.context.block_on(async {
            Ok(match op {
                BenchOp::TrainForward => {
                    Operation::Train(self.layer.prepare_train_forward(input, y, Some(&self.saved)).await?)
                }
                BenchOp::TrainBackward => {
                    Operation::Other(self.layer.prepare_backward(input, dy, &self.saved, &targets).await?)
                }
                BenchOp::Inference => Operation::Other(self.frozen.prepare_forward(input, y).await?),
                BenchOp::FrozenBackward => {
                    Operation::Other(self.frozen.prepare_backward(input, dy, &targets).await?)
                }
            })
        })
    }

    /// Fills with NaN what holds results alone.
    fn poison(&self) {
        let set = &self.sets[0];
        for tensor in [&set.y, &set.dx, &self.dgamma, &self.dbeta].into_iter().chain(&set.dz) {
            poison(self.context, tensor);
        }
    }

    /// The results of an operation on the first set.
    fn results(&self, op: BenchOp, inv_std: Option<Vec<f32>>, dz: bool) -> Result<Results> {
        let (context, variant, set) = (self.context, self.data.variant, &self.sets[0]);
        let download = |tensor: &Tensor| context.block_on(layout::download(context, &self.data.dims, tensor));
        if op.is_forward() {
            return Ok(Results::Forward { y: download(set.y(variant, op))?, saved_inv_std: inv_std });
        }
        Ok(Results::Backward {
            dx: download(set.dx(variant))?,
            d_residual: set.dz.as_ref().filter(|_| dz).map(download).transpose()?,
            dgamma: context.block_on(context.download(&self.dgamma))?,
            dbeta: context.block_on(context.download(&self.dbeta))?,
        })
    }
}

impl Case<'_, '_> {
    fn check_separate(&mut self, kernels: &mut Kernels) -> Result<(), String> {
        let (op, cases) = (self.op, &mut *self.cases);
        let context = cases.context;
        cases.poison();
        let Some(separate) = &mut cases.separate else { return Ok(()) };
        let (first, parameters) = (&cases.sets[..1], [&cases.dgamma, &cases.dbeta]);
        let forward = if op.is_frozen() { BenchOp::Inference } else { BenchOp::TrainForward };
        let steps = if op.is_forward() { vec![op] } else { vec![forward, op] };
        for step in steps {
            let bound = separate.bind(context, &mut kernels.separate, step, first, parameters)?;
            let layer = separate.layer();
            scoped(context, || submit(context, |pass| bound.record_in(layer, pass, 0)))?;
        }
        let inv_std = match op {
            BenchOp::TrainForward => Some(context.block_on(separate.inv_std(context))),
            _ => None,
        };
        let results = inv_std.transpose().and_then(|inv_std| cases.results(op, inv_std, true));
        cases.data.check(op, &results.map_err(|error| error.to_string())?, 1.0).map(|_| ())
    }

    /// Fills the outputs with NaN and runs the operation, after the forward pass whose statistics it needs.
    fn run_poisoned(&mut self) -> Result<Results> {
        self.cases.poison();
        self.reset();
        let (op, cases) = (self.op, &mut *self.cases);
        let context = cases.context;
        submit(context, |pass| self.operations[0].record_in(&mut cases.layer, pass));
        let inv_std = match op {
            BenchOp::TrainForward => {
                let saved = context.block_on(cases.saved.download(context))?;
                Some(saved.iter().map(|saved| saved.inv_std).collect())
            }
            _ => None,
        };
        cases.results(op, inv_std, cases.data.variant.residual)
    }

    /// Puts inputs back that were written over, and runs the forward passes that the operation follows.
    fn reset(&mut self) {
        let Cases { context, layer, sets, originals, .. } = &mut *self.cases;
        if let Some([x, dy]) = originals {
            let mut encoder = context.device().create_command_encoder(&Default::default());
            for set in sets.iter() {
                copy(&mut encoder, x, &set.x);
                copy(&mut encoder, dy, &set.dy);
            }
            context.queue().submit([encoder.finish()]);
        }
        submit(context, |pass| self.forwards.iter().for_each(|forward| forward.record_in(layer, pass)));
    }
}

impl Timed for Case<'_, '_> {
    fn traffic(&self) -> Traffic {
        self.operations[0].traffic()
    }

    fn tensor_bytes(&self) -> u64 {
        let Cases { data, sets, .. } = &*self.cases;
        self.traffic().floor_bytes - if data.variant.in_place { sets[0].x.byte_len() } else { 0 }
    }

    fn workspace_bytes(&self) -> u64 {
        self.operations[0].workspace_bytes()
    }

    fn plan(&self) -> Option<&Plan> {
        self.operations[0].plan()
    }

    fn kernels(&self) -> Vec<String> {
        self.operations[0].kernels()
    }

    fn check(&mut self) -> Result<f64, String> {
        let results = self.run_poisoned().map_err(|error| error.to_string())?;
        self.cases.data.check(self.op, &results, 1.0)
    }

    fn check_baselines(&mut self, kernels: &mut Kernels) -> Result<(), String> {
        let Cases { context, data, sets, naive, .. } = &*self.cases;
        if let Some(naive) = naive.as_ref().filter(|naive| naive.covers(self.op)) {
            let checked = naive.check(context, &mut kernels.naive, self.op, sets, data);
            checked.map_err(|wrong| format!("the naive baseline is wrong: {wrong}"))?;
        }
        self.check_separate(kernels).map_err(|wrong| format!("the separate baseline is wrong: {wrong}"))
    }

    fn time(
        &mut self,
        kernels: &mut Kernels,
        meter: &mut Meter<'_>,
    ) -> std::result::Result<Measured, Refusal> {
        self.reset();
        let bytes = self.traffic().plan_bytes;
        let Self { cases, op, operations, .. } = self;
        let Cases { context, layer, sets, copies, originals, naive, separate, dgamma, dbeta, .. } =
            &mut **cases;
        let naive: Option<naive::Bound> = match naive.as_ref().filter(|naive| naive.covers(*op)) {
            Some(naive) => Some(naive.bind(context, &mut kernels.naive, *op, sets)?),
            None => None,
        };
        // Its backward takes y for the derivative. What the copy leaves there will do to time it.
        let separate = match separate {
            Some(separate) => {
                let bound = separate.bind(context, &mut kernels.separate, *op, sets, [dgamma, dbeta])?;
                Some((separate, bound))
            }
            None => None,
        };
        let (sets, is_forward) = (&*sets, op.is_forward());
        let work = |record, bytes| Work { record, bytes, restore: None };
        let mut works = vec![
            work(Box::new(|pass, set| operations[set].record_in(layer, pass)), bytes),
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
                bound.record_in(separate.layer(), pass, set);
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

/// How many sets of tensors of `bytes` it takes: no operation touches less than two tensors of a set, so between two
/// uses of one at least two of every other go through the cache.
pub fn sets_for(cache: Cache, bytes: u64) -> Result<u64, String> {
    let Cache::Cold { bytes: cold } = cache else { return Ok(1) };
    let sets = 1 + cold.div_ceil(2 * bytes.max(1));
    if sets > MOST_SETS {
        return Err(format!(
            "a cold cache of {cold} bytes would take {sets} sets of tensors this small, more than {MOST_SETS}; lower \
             --cold-bytes"
        ));
    }
    Ok(sets)
}

/// Records a pass and submits it.
pub fn submit(context: &Context, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) {
    let mut encoder = context.device().create_command_encoder(&Default::default());
    record(&mut encoder.begin_compute_pass(&Default::default()));
    context.queue().submit([encoder.finish()]);
}

/// Copies the values of a tensor that has a buffer of its own to one like it.
pub fn copy(encoder: &mut wgpu::CommandEncoder, from: &Tensor, to: &Tensor) {
    encoder.copy_buffer_to_buffer(from.buffer(), 0, to.buffer(), 0, from.buffer().size());
}

/// Fills a tensor with NaN.
pub fn poison(context: &Context, tensor: &Tensor) {
    let mut nan = tensor.dtype().encode(&vec![f32::NAN; tensor.shape().len() as usize]);
    nan.resize(nan.len().next_multiple_of(4), 0);
    context.queue().write_buffer(tensor.buffer(), 0, &nan);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_sets_fill_the_cache() {
        assert_eq!(sets_for(Cache::Warm, 100), Ok(1));
        assert_eq!(sets_for(Cache::Cold { bytes: 1000 }, 100), Ok(6));
        assert_eq!(sets_for(Cache::Cold { bytes: 1 }, 100), Ok(2));
        assert!(sets_for(Cache::Cold { bytes: 1 << 30 }, 100).unwrap_err().contains("--cold-bytes"));
    }
}
