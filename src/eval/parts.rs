//! Batch norm over several batches: ranks of a collective, micro-batches, ghost batches.

use super::arena::Role;
use super::layout;
use super::run::Run;
use crate::base::error::{Error, Result};
use crate::base::shape::Layout;
use crate::engine::tensor::Tensor;
use crate::norm::BatchNorm;
use crate::pass::input::Input;

/// The batch norm of a problem.
async fn batch_norm<T>(run: &Run<'_>, with: impl AsyncFnOnce(&mut BatchNorm) -> Result<T>) -> Result<T> {
    let mut layer = run.layer().await?;
    match layer.batch_norm() {
        Some(layer) => with(layer).await,
        None => Err(Error::Spec { reason: "only batch norm has statistics of several batches".to_owned() }),
    }
}

/// Downloads batches and puts their values behind each other, in logical order.
async fn joined(run: &Run<'_>, tensors: impl Iterator<Item = &Tensor>) -> Result<Vec<f32>> {
    let shape = &run.problem.spec.shape;
    let mut all = Vec::new();
    for tensor in tensors {
        let values = run.context.download(tensor).await?;
        let mut own = shape.clone();
        own[0] = tensor.shape().dims()[0];
        all.extend(layout::rearranged(&values, &own, run.layout, Layout::ChannelsFirst));
    }
    Ok(all)
}

/// So many micro-batches, of as equal sizes as there are.
pub(super) async fn accumulated(run: &mut Run<'_>, count: usize) -> Result<()> {
    let inputs = &run.problem.inputs;
    let samples = run.problem.spec.shape[0];
    let x = run.put(&inputs.x, Role::Read).await?;
    let dy = run.put_if(inputs.dy.as_deref(), Role::Read).await?;
    let cut = |tensor: &Tensor| {
        let at = |part: usize| part * samples / count;
        (0..count).map(|part| tensor.slice_samples(at(part)..at(part + 1))).collect::<Result<Vec<_>>>()
    };
    let xs = cut(&x)?;
    let batches: Vec<Input<'_>> = xs.iter().map(Input::from).collect();
    let (y, gradients, running) = batch_norm(run, async |layer| {
        let (y, saved): (Vec<_>, Vec<_>) =
            layer.train_forward_accumulated(&batches).await?.into_iter().unzip();
        let gradients = match &dy {
            Some(dy) => {
                let dys = cut(dy)?;
                let (dys, saved): (Vec<_>, Vec<_>) = (dys.iter().collect(), saved.iter().collect());
                Some(layer.backward_accumulated(&batches, &dys, &saved).await?)
            }
            None => None,
        };
        Ok((y, gradients, layer.running().download(run.context).await?))
    })
    .await?;
    run.push_running("", running);
    let y = joined(run, y.iter()).await?;
    run.push("y", y);
    if let Some(gradients) = gradients {
        let dx = joined(run, gradients.dx.iter()).await?;
        run.push("dx", dx);
        parameters(run, gradients.dgamma.as_ref(), gradients.dbeta.as_ref()).await?;
    }
    Ok(())
}

/// Ghost batches of so many samples.
pub(super) async fn ghost(run: &mut Run<'_>, size: usize) -> Result<()> {
    let inputs = &run.problem.inputs;
    let x = run.put(&inputs.x, Role::Read).await?;
    let dy = run.put_if(inputs.dy.as_deref(), Role::Read).await?;
    let (y, gradients, running) = batch_norm(run, async |layer| {
        let (y, saved) = layer.train_forward_ghost(&x, size).await?;
        let gradients = match &dy {
            Some(dy) => Some(layer.backward_ghost(&x, dy, &saved).await?),
            None => None,
        };
        Ok((y, gradients, layer.running().download(run.context).await?))
    })
    .await?;
    run.push_running("", running);
    run.push_batch("y", &y).await?;
    if let Some(gradients) = gradients {
        run.push_batch("dx", &gradients.dx).await?;
        parameters(run, gradients.dgamma.as_ref(), gradients.dbeta.as_ref()).await?;
    }
    Ok(())
}

async fn parameters(run: &mut Run<'_>, dgamma: Option<&Tensor>, dbeta: Option<&Tensor>) -> Result<()> {
    for (name, tensor) in [("dweight", dgamma), ("dbias", dbeta)] {
        if let Some(tensor) = tensor {
            let values = run.context.download(tensor).await?;
            run.push(name, values);
        }
    }
    Ok(())
}

/// A thread for each rank, all on one device.
#[cfg(not(target_family = "wasm"))]
pub(super) async fn synchronised(run: &mut Run<'_>) -> Result<()> {
    ranks::run(run)
}

/// Ranks wait for each other, for which a browser has no threads.
#[cfg(target_family = "wasm")]
pub(super) async fn synchronised(_: &mut Run<'_>) -> Result<()> {
    Err(Error::Spec { reason: "ranks of one process need threads".to_owned() })
}

#[cfg(not(target_family = "wasm"))]
mod ranks {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::collective::{Collective, LocalRank};
    use crate::eval::inputs::Part;
    use crate::pass::GradientTargets;
    use crate::statistics::running::RunningValues;
    use crate::statistics::saved::Saved;

    /// Longer than any problem takes, compilation included.
    const DEADLINE: Duration = Duration::from_secs(600);

    /// What one rank computes.
    struct Rank {
        y: Vec<f32>,
        dx: Vec<f32>,
        dgamma: Vec<f32>,
        dbeta: Vec<f32>,
        /// Mean and variance of its shard.
        local: Vec<(f32, f32)>,
        /// Mean and inverse standard deviation of all shards.
        pooled: Vec<(f32, f32)>,
        running: RunningValues,
        /// Σ dy and Σ dy·x̂ of all shards.
        sums: Vec<(f32, f32)>,
    }

    pub fn run(run: &mut Run<'_>) -> Result<()> {
        let shards = &run.problem.inputs.parts;
        let ranks = LocalRank::group(shards.len(), DEADLINE)?;
        let (context, problem, layout) = (run.context, run.problem, run.layout);
        let results: Vec<Result<Rank>> = thread::scope(|scope| {
            let threads: Vec<_> = ranks
                .into_iter()
                .zip(shards)
                .map(|(rank, shard)| {
                    scope.spawn(move || {
                        let own = Own { context, problem, layout, shard };
                        let result = context.block_on(own.run(&rank));
                        if let Err(error) = &result {
                            rank.fail(&error.to_string());
                        }
                        result
                    })
                })
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        let ranks = results.into_iter().collect::<Result<Vec<_>>>()?;

        let first = &ranks[0];
        run.push("save_mean", first.pooled.iter().map(|s| s.0).collect());
        run.push("save_invstd", first.pooled.iter().map(|s| s.1).collect());
        run.push("dbias", first.sums.iter().map(|s| s.0).collect());
        run.push("dweight", first.sums.iter().map(|s| s.1).collect());
        run.push("sum_dy", first.sums.iter().map(|s| s.0).collect());
        run.push("sum_dy_xmu", first.sums.iter().zip(&first.pooled).map(|(s, p)| s.1 / p.1).collect());
        // All ranks have the same bits; where one has others, there is NaN here.
        let agreed = |of: fn(&RunningValues) -> &Vec<f32>| {
            let expected = of(&first.running);
            let agree =
                |c: usize| ranks.iter().all(|rank| of(&rank.running)[c].to_bits() == expected[c].to_bits());
            expected.iter().enumerate().map(|(c, &v)| if agree(c) { v } else { f32::NAN }).collect()
        };
        run.push("running_mean", agreed(|running| &running.mean));
        run.push("running_var", agreed(|running| &running.var));
        for (i, (rank, shard)) in ranks.into_iter().zip(shards).enumerate() {
            let logical =
                |values: &[f32]| layout::rearranged(values, &shard.shape, layout, Layout::ChannelsFirst);
            run.push(&format!("y_{i}"), logical(&rank.y));
            run.push(&format!("dx_{i}"), logical(&rank.dx));
            run.push(&format!("dweight_local_{i}"), rank.dgamma);
            run.push(&format!("dbias_local_{i}"), rank.dbeta);
            run.push(&format!("local_mean_{i}"), rank.local.iter().map(|m| m.0).collect());
            run.push(&format!("local_var_{i}"), rank.local.iter().map(|m| m.1).collect());
        }
        Ok(())
    }

    /// A rank with its shard.
    struct Own<'a> {
        context: &'a crate::Context,
        problem: &'a crate::eval::Problem,
        layout: Layout,
        shard: &'a Part,
    }

    impl Own<'_> {
        async fn run(&self, rank: &LocalRank) -> Result<Rank> {
            let Self { context, problem, layout, shard } = *self;
            let (spec, inputs) = (&problem.spec, &problem.inputs);
            let upload = async |values: &[f32]| {
                layout::upload(context, layout, &shard.shape, values, spec.dtype).await
            };
            let per_channel = async |values: &Option<Vec<f32>>| match values {
                Some(values) => context.upload_as(&[values.len()], values, spec.parameters).await.map(Some),
                None => Ok(None),
            };
            let (gamma, beta) = (per_channel(&inputs.gamma).await?, per_channel(&inputs.beta).await?);
            let running = crate::RunningStatistics::upload(context, &inputs.running).await?;
            let layer = BatchNorm::from_parts(context, spec.batch_options(), gamma, beta, running)?;
            let mut layer = layer.synchronised(rank);
            let x = upload(&shard.x).await?;
            let y = context.zeros_like(&x).await?;
            let saved = Saved::new(context, &x).await?.pooled();
            let mut forward = layer.prepare_train_forward(&x, &y, Some(&saved)).await?;
            layer.submit_forward(&mut forward).await?;
            let local = forward.local().download(context).await?;
            // An empty shard saves nothing; what all shards have is in the pool.
            let pooled = forward.pooled().download(context).await?;
            let inv_std = |var: f32| (1.0 / (f64::from(var) + spec.batch_options().eps).sqrt()) as f32;
            let mut result = Rank {
                y: context.download(&y).await?,
                dx: Vec::new(),
                dgamma: Vec::new(),
                dbeta: Vec::new(),
                local: local.iter().map(|m| (m.mean() as f32, m.var)).collect(),
                pooled: pooled.iter().map(|m| (m.mean() as f32, inv_std(m.var))).collect(),
                running: layer.local().running().download(context).await?,
                sums: Vec::new(),
            };
            let Some(dy) = &shard.dy else { return Ok(result) };
            let dy = upload(dy).await?;
            let dx = context.zeros_like(&x).await?;
            let channels = [spec.shape[1]];
            let dgamma = context.zeros_as(&channels, spec.parameters).await?;
            let dbeta = context.zeros_as(&channels, spec.parameters).await?;
            let targets = GradientTargets {
                dx: Some(&dx),
                dgamma: inputs.gamma.as_ref().map(|_| &dgamma),
                dbeta: inputs.beta.as_ref().map(|_| &dbeta),
                ..Default::default()
            };
            let mut backward = layer.prepare_backward(&x, &dy, &saved, &targets).await?;
            layer.submit_backward(&mut backward).await?;
            let sums = backward.pooled().download(context).await?;
            result.sums = sums.iter().map(|s| (s.dz, s.dz_xhat)).collect();
            result.dx = context.download(&dx).await?;
            result.dgamma = context.download(&dgamma).await?;
            result.dbeta = context.download(&dbeta).await?;
            Ok(result)
        }
    }
}
