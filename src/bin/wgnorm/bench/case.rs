//! The four operations on one shape: data, reference, prepared operations, check and timing.

use wgnorm::reference::{self, Statistics, WhereNan, Worst, batch, bounds, compare};
use wgnorm::{
    BatchNorm, BatchNormOptions, Channels, Context, FrozenBatchNorm, GradientTargets, Layout, Prepared,
    Result, RunningStatistics, RunningValues, Saved, Shape, Tensor, Traffic, TrainForward, prepare_copy,
};

use super::BenchOp;
use super::measure::{Meter, Times, Work};
use crate::{Refusal, random};

/// Everything that one shape needs. Operations share inputs; each has its outputs.
pub struct Cases<'c> {
    context: &'c Context,
    data: Data,
    layer: BatchNorm,
    saved: Saved,
    outputs: Outputs,
    train_forward: TrainForward,
    train_backward: Prepared,
    inference: Prepared,
    frozen_backward: Prepared,
    copy: Prepared,
}

/// Inputs on the host, as f32 values widened to f64.
struct Data {
    view: Channels,
    x: Vec<f64>,
    dy: Vec<f64>,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    running: Vec<Statistics>,
}

struct Outputs {
    y: Tensor,
    dx: Tensor,
    dgamma: Tensor,
    dbeta: Tensor,
}

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();

impl<'c> Cases<'c> {
    pub fn new(context: &'c Context, dims: &[usize]) -> Result<Self> {
        let view = Shape::new(dims)?.channels(Layout::ChannelsFirst)?;
        let len = view.elements() as usize;
        let c = view.channels as usize;
        let x = values(1, len, 0.5, 2.0);
        let dy = values(2, len, 0.0, 1.0);
        let gamma = values(3, c, 1.0, 0.5);
        let beta = values(4, c, 0.0, 0.5);
        let running = RunningValues { mean: values(5, c, 0.5, 0.1), var: values(6, c, 1.3, 0.2), batches: 0 };
        let data = Data {
            view,
            x: widen(&x),
            dy: widen(&dy),
            gamma: widen(&gamma),
            beta: widen(&beta),
            running: widen(&running.mean)
                .into_iter()
                .zip(widen(&running.var))
                .map(|(mean, var)| Statistics::new(mean, var, OPTIONS.eps))
                .collect(),
        };
        context.block_on(async {
            let x = context.upload(dims, &x).await?;
            let dy = context.upload(dims, &dy).await?;
            let gamma = context.upload(&[c], &gamma).await?;
            let beta = context.upload(&[c], &beta).await?;
            let outputs = Outputs {
                y: context.zeros(dims).await?,
                dx: context.zeros(dims).await?,
                dgamma: context.zeros(&[c]).await?,
                dbeta: context.zeros(&[c]).await?,
            };
            let targets = GradientTargets {
                dx: Some(&outputs.dx),
                dgamma: Some(&outputs.dgamma),
                dbeta: Some(&outputs.dbeta),
                ..Default::default()
            };
            let parts = async || -> Result<_> {
                Ok((
                    Some(gamma.clone()),
                    Some(beta.clone()),
                    RunningStatistics::upload(context, &running).await?,
                ))
            };
            let saved = Saved::new(context, &x).await?;
            let (g, b, r) = parts().await?;
            let mut layer = BatchNorm::from_parts(context, OPTIONS, g, b, r)?;
            let (g, b, r) = parts().await?;
            let frozen = FrozenBatchNorm::from_parts(context, OPTIONS, g, b, r)?;
            let train_forward = layer.prepare_train_forward(&x, &outputs.y, Some(&saved)).await?;
            let train_backward = layer.prepare_backward(&x, &dy, &saved, &targets).await?;
            let inference = frozen.prepare_forward(&x, &outputs.y).await?;
            let frozen_backward = frozen.prepare_backward(&x, &dy, &targets).await?;
            let copy = prepare_copy(context, &x, &outputs.y).await?;
            Ok(Self {
                context,
                data,
                layer,
                saved,
                outputs,
                train_forward,
                train_backward,
                inference,
                frozen_backward,
                copy,
            })
        })
    }

    /// Runs an operation once and compares every output with the reference. Returns the worst error as a fraction of
    /// its bound, or what is wrong.
    pub fn check(&mut self, op: BenchOp) -> std::result::Result<f64, String> {
        self.run_poisoned(op).map_err(|error| error.to_string())?;
        let d = &self.data;
        let (view, gamma, beta) = (d.view, Some(d.gamma.as_slice()), Some(d.beta.as_slice()));
        let channel = |i: usize| view.channel_of(i as u64) as usize;
        let s = match op {
            BenchOp::TrainForward | BenchOp::TrainBackward => {
                let moments = reference::reduce::moments(&d.x, view);
                moments.iter().map(|m| Statistics::new(m.mean, m.var, OPTIONS.eps)).collect()
            }
            BenchOp::Inference | BenchOp::FrozenBackward => d.running.clone(),
        };
        let y_bound = |i: usize| bounds::y(&s[channel(i)], d.x[i], d.gamma[channel(i)], d.beta[channel(i)]);
        let mut worst = 0.0_f64;
        let mut hold = |what: &str, tensor: &Tensor, expected: &[f64], bound: &dyn Fn(usize) -> f64| {
            let got = self.context.block_on(self.context.download(tensor)).map_err(|e| e.to_string())?;
            let found: Worst =
                compare(&got, expected, WhereNan::Nan, bound).map_err(|e| format!("{what}: {e}"))?;
            worst = worst.max(found.ratio);
            if found.passes() { Ok(()) } else { Err(format!("{what}: {found}")) }
        };
        match op {
            BenchOp::TrainForward | BenchOp::Inference => {
                let y = batch::inference(&d.x, view, &s, gamma, beta);
                hold("y", &self.outputs.y, &y, &y_bound)?;
                if op == BenchOp::TrainForward {
                    let saved = self.context.block_on(self.saved.download(self.context));
                    let saved = saved.map_err(|error| error.to_string())?;
                    let got: Vec<_> = saved.iter().map(|saved| saved.inv_std).collect();
                    let expected: Vec<_> = s.iter().map(|s: &Statistics| s.inv_std).collect();
                    let found = compare(&got, &expected, WhereNan::Nan, |c| bounds::inv_std(&s[c]));
                    let found = found.map_err(|error| error.to_string())?;
                    if !found.passes() {
                        return Err(format!("inv_std: {found}"));
                    }
                }
            }
            BenchOp::TrainBackward | BenchOp::FrozenBackward => {
                let m = bounds::magnitudes(&d.x, &d.dy, view, &s);
                let expected = if op == BenchOp::TrainBackward {
                    let sums = reference::reduce::gradient_sums(&d.x, &d.dy, view, &s);
                    let expected = batch::backward(&d.x, &d.dy, view, &s, gamma);
                    hold("dx", &self.outputs.dx, &expected.dx, &|i| {
                        let c = channel(i);
                        bounds::dx(&s[c], &m[c], &sums[c], view, d.x[i], d.dy[i], d.gamma[c])
                    })?;
                    expected
                } else {
                    let expected = batch::frozen_backward(&d.x, &d.dy, view, &s, gamma);
                    hold("dx", &self.outputs.dx, &expected.dx, &|i| {
                        bounds::frozen_dx(&s[channel(i)], d.dy[i], d.gamma[channel(i)])
                    })?;
                    expected
                };
                hold("dgamma", &self.outputs.dgamma, &expected.dgamma, &|c| bounds::dgamma(&m[c]))?;
                hold("dbeta", &self.outputs.dbeta, &expected.dbeta, &|c| bounds::dbeta(&m[c]))?;
            }
        }
        Ok(worst)
    }

    /// Fills the outputs with NaN and runs an operation, after the forward pass whose statistics it needs.
    fn run_poisoned(&mut self, op: BenchOp) -> Result<()> {
        let Self { context, outputs, layer, .. } = self;
        for tensor in [&outputs.y, &outputs.dx, &outputs.dgamma, &outputs.dbeta] {
            let poison = vec![f32::NAN.to_bits(); tensor.shape().len() as usize];
            context.queue().write_buffer(tensor.buffer(), 0, bytemuck::cast_slice(&poison));
        }
        let mut encoder = context.device().create_command_encoder(&Default::default());
        match op {
            BenchOp::TrainForward => self.train_forward.record(layer, &mut encoder)?,
            BenchOp::TrainBackward => {
                self.train_forward.record(layer, &mut encoder)?;
                self.train_backward.record(&mut encoder);
            }
            BenchOp::Inference => self.inference.record(&mut encoder),
            BenchOp::FrozenBackward => self.frozen_backward.record(&mut encoder),
        }
        context.queue().submit([encoder.finish()]);
        Ok(())
    }

    /// Times an operation and a copy of the same size.
    pub fn time(
        &mut self,
        op: BenchOp,
        meter: &mut Meter<'_>,
    ) -> std::result::Result<(Times, Times), Refusal> {
        let bytes = self.traffic(op).plan_bytes;
        let Self { layer, copy, train_forward, .. } = self;
        let record: Box<dyn FnMut(&mut wgpu::ComputePass<'_>) + '_> = match op {
            BenchOp::TrainForward => Box::new(|pass: &mut wgpu::ComputePass<'_>| {
                train_forward.record_in(layer, pass).expect("the pass was prepared for this layer");
            }),
            BenchOp::TrainBackward => Box::new(|pass| self.train_backward.record_in(pass)),
            BenchOp::Inference => Box::new(|pass| self.inference.record_in(pass)),
            BenchOp::FrozenBackward => Box::new(|pass| self.frozen_backward.record_in(pass)),
        };
        let work = Work { record, bytes };
        let yardstick =
            Work { record: Box::new(|pass| copy.record_in(pass)), bytes: copy.traffic().plan_bytes };
        let [work, copy] = meter.time([work, yardstick])?;
        Ok((work, copy))
    }

    pub fn traffic(&self, op: BenchOp) -> Traffic {
        match op {
            BenchOp::TrainForward => self.train_forward.traffic(),
            _ => self.prepared(op).map(Prepared::traffic).unwrap_or_default(),
        }
    }

    pub fn plan(&self, op: BenchOp) -> String {
        let plan = match op {
            BenchOp::TrainForward => self.train_forward.plan(),
            _ => self.prepared(op).and_then(Prepared::plan),
        };
        plan.map(ToString::to_string).unwrap_or_default()
    }

    pub fn kernels(&self, op: BenchOp) -> Vec<String> {
        match self.prepared(op) {
            Some(prepared) => prepared.kernels().map(str::to_owned).collect(),
            None => self.train_forward.kernels().map(str::to_owned).collect(),
        }
    }

    fn prepared(&self, op: BenchOp) -> Option<&Prepared> {
        match op {
            BenchOp::TrainForward => None,
            BenchOp::TrainBackward => Some(&self.train_backward),
            BenchOp::Inference => Some(&self.inference),
            BenchOp::FrozenBackward => Some(&self.frozen_backward),
        }
    }
}

/// Uniform pseudo-random numbers in `shift ± scale`.
fn values(seed: u64, len: usize, shift: f64, scale: f64) -> Vec<f32> {
    random::uniform(seed).take(len).map(|u| (u * scale + shift) as f32).collect()
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}
