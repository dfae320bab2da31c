//! The four operations on one shape in one layout and cache state: tensors, prepared operations, check and timing.

use wgnorm::{
    BatchNorm, Context, FrozenBatchNorm, GradientTargets, Layout, Plan, Prepared, Result, RunningStatistics,
    Saved, Tensor, Traffic, TrainForward, Tuning, prepare_copy,
};

use super::data::{Data, OPTIONS, Results};
use super::measure::{Meter, Times, Work, scoped};
use super::naive::{self, Kernels, Naive};
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
    naive: Option<Naive>,
}

/// Tensors of the shape.
pub struct Set {
    pub x: Tensor,
    pub dy: Tensor,
    pub y: Tensor,
    pub dx: Tensor,
}

/// One operation, prepared for every set.
pub struct Case<'a, 'c> {
    cases: &'a mut Cases<'c>,
    op: BenchOp,
    operations: Vec<Operation>,
}

enum Operation {
    Train(TrainForward),
    Other(Prepared),
}

/// Times of an operation, a copy of the same size, and the baseline.
pub struct Measured {
    pub work: Times,
    pub copy: Times,
    pub naive: Option<Times>,
}

impl Operation {
    fn record_in(&self, layer: &mut BatchNorm, pass: &mut wgpu::ComputePass<'_>) {
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
        let count = sets_for(cache, 4 * data.view.elements())?;
        let (mut cases, gamma, beta) =
            context.block_on(Self::with_one_set(context, data, layout)).map_err(|error| error.to_string())?;
        cases.naive = Naive::new(context, layout, data, &gamma, &beta)?;
        cases.rotate(layout, count).map_err(|error| format!("{count} sets of tensors: {error}"))?;
        Ok(cases)
    }

    async fn with_one_set(
        context: &'c Context,
        data: &'c Data,
        layout: Layout,
    ) -> Result<(Self, Tensor, Tensor)> {
        let c = data.gamma.len();
        let gamma = context.upload(&[c], &data.gamma).await?;
        let beta = context.upload(&[c], &data.beta).await?;
        let parts = async || -> Result<_> {
            let running = RunningStatistics::upload(context, &data.running).await?;
            Ok((Some(gamma.clone()), Some(beta.clone()), running))
        };
        let set = Set {
            x: layout::upload(context, layout, &data.dims, &data.x).await?,
            dy: layout::upload(context, layout, &data.dims, &data.dy).await?,
            y: layout::zeros(context, layout, &data.dims).await?,
            dx: layout::zeros(context, layout, &data.dims).await?,
        };
        let saved = Saved::new(context, &set.x).await?;
        let (g, b, r) = parts().await?;
        let layer = BatchNorm::from_parts(context, OPTIONS, g, b, r)?;
        let (g, b, r) = parts().await?;
        let frozen = FrozenBatchNorm::from_parts(context, OPTIONS, g, b, r)?;
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
            naive: None,
        };
        Ok((cases, gamma, beta))
    }

    /// Makes sets with the contents of the first, up to `count`, and a copy operation for each.
    fn rotate(&mut self, layout: Layout, count: u64) -> Result<(), String> {
        let (context, dims) = (self.context, &self.data.dims);
        let mut made = async || -> Result<()> {
            while (self.sets.len() as u64) < count {
                self.sets.push(Set {
                    x: layout::zeros(context, layout, dims).await?,
                    dy: layout::zeros(context, layout, dims).await?,
                    y: layout::zeros(context, layout, dims).await?,
                    dx: layout::zeros(context, layout, dims).await?,
                });
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
                for (from, to) in [(&first.x, &other.x), (&first.dy, &other.dy)] {
                    encoder.copy_buffer_to_buffer(from.buffer(), 0, to.buffer(), 0, from.buffer().size());
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
        let operations = (0..self.sets.len()).map(|set| self.prepare(op, set)).collect::<Result<_>>();
        Ok(Case { operations: operations.map_err(|error| error.to_string())?, op, cases: self })
    }

    fn prepare(&mut self, op: BenchOp, set: usize) -> Result<Operation> {
        let set = &self.sets[set];
        let targets = GradientTargets {
            dx: Some(&set.dx),
            dgamma: Some(&self.dgamma),
            dbeta: Some(&self.dbeta),
            ..Default::default()
        };
        self.context.block_on(async {
            Ok(match op {
                BenchOp::TrainForward => Operation::Train(
                    self.layer.prepare_train_forward(&set.x, &set.y, Some(&self.saved)).await?,
                ),
                BenchOp::TrainBackward => Operation::Other(
                    self.layer.prepare_backward(&set.x, &set.dy, &self.saved, &targets).await?,
                ),
                BenchOp::Inference => Operation::Other(self.frozen.prepare_forward(&set.x, &set.y).await?),
                BenchOp::FrozenBackward => {
                    Operation::Other(self.frozen.prepare_backward(&set.x, &set.dy, &targets).await?)
                }
            })
        })
    }
}

impl Case<'_, '_> {
    pub fn traffic(&self) -> Traffic {
        self.operations[0].traffic()
    }

    pub fn plan(&self) -> Option<&Plan> {
        self.operations[0].plan()
    }

    pub fn kernels(&self) -> Vec<String> {
        self.operations[0].kernels()
    }

    /// Runs the operation once and compares every output with the reference. Returns the worst error as a fraction of
    /// its bound, or what is wrong.
    pub fn check(&mut self) -> Result<f64, String> {
        let results = self.run_poisoned().map_err(|error| error.to_string())?;
        self.cases.data.check(self.op, &results, 1.0)
    }

    /// As [`Self::check`] for the baseline, if there is one.
    pub fn check_naive(&self, kernels: &mut Kernels) -> Result<(), String> {
        let Cases { context, data, sets, naive, .. } = &*self.cases;
        match naive.as_ref().filter(|naive| naive.covers(self.op)) {
            Some(naive) => naive.check(context, kernels, self.op, sets, data).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Fills the outputs with NaN and runs the operation, after the forward pass whose statistics it needs.
    fn run_poisoned(&mut self) -> Result<Results> {
        let forward = match self.op {
            BenchOp::TrainBackward => Some(self.cases.prepare(BenchOp::TrainForward, 0)?),
            _ => None,
        };
        let Cases { context, data, layer, saved, dgamma, dbeta, sets, .. } = &mut *self.cases;
        let set = &sets[0];
        for tensor in [&set.y, &set.dx, dgamma, dbeta] {
            poison(context, tensor);
        }
        let mut encoder = context.device().create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for operation in forward.iter().chain(&self.operations[..1]) {
                operation.record_in(layer, &mut pass);
            }
        }
        context.queue().submit([encoder.finish()]);
        context.block_on(async {
            if self.op.is_forward() {
                let y = layout::download(context, &data.dims, &set.y).await?;
                let saved_inv_std = match self.op {
                    BenchOp::TrainForward => {
                        Some(saved.download(context).await?.iter().map(|saved| saved.inv_std).collect())
                    }
                    _ => None,
                };
                return Ok(Results::Forward { y, saved_inv_std });
            }
            Ok(Results::Backward {
                dx: layout::download(context, &data.dims, &set.dx).await?,
                dgamma: context.download(dgamma).await?,
                dbeta: context.download(dbeta).await?,
            })
        })
    }

    /// Times the operation, a copy of the same size, and the baseline if there is one.
    pub fn time(
        &mut self,
        kernels: &mut Kernels,
        meter: &mut Meter<'_>,
    ) -> std::result::Result<Measured, Refusal> {
        let bytes = self.traffic().plan_bytes;
        let Self { cases, op, operations } = self;
        let Cases { context, layer, sets, copies, naive, .. } = &mut **cases;
        let naive: Option<naive::Bound> = match naive.as_ref().filter(|naive| naive.covers(*op)) {
            Some(naive) => Some(naive.bind(context, kernels, *op, sets)?),
            None => None,
        };
        let mut works = vec![
            Work { record: Box::new(|pass, set| operations[set].record_in(layer, pass)), bytes },
            Work {
                record: Box::new(|pass, set| copies[set].record_in(pass)),
                bytes: copies[0].traffic().plan_bytes,
            },
        ];
        if let Some(naive) = &naive {
            works.push(Work { record: Box::new(|pass, set| naive.record_in(pass, set)), bytes });
        }
        let times = meter.time(&mut works, sets.len())?;
        Ok(Measured { work: times[0], copy: times[1], naive: times.get(2).copied() })
    }
}

/// How many sets of tensors of `bytes` it takes: no operation touches less than two tensors of a set, so between two
/// uses of one at least two of every other go through the cache.
fn sets_for(cache: Cache, bytes: u64) -> Result<u64, String> {
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

/// Fills a tensor with NaN.
pub fn poison(context: &Context, tensor: &Tensor) {
    let nan = vec![f32::NAN.to_bits(); tensor.shape().len() as usize];
    context.queue().write_buffer(tensor.buffer(), 0, bytemuck::cast_slice(&nan));
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
