//! A synchronised layer: a thread for each rank, all on the adapter that is checked.

use std::thread;
use std::time::Duration;

use wgnorm::{
    BatchNorm, Collective, Context, GradientTargets, Layout, LocalRank, Result, RunningStatistics,
    RunningValues, Saved,
};

use super::Work;
use crate::check::case::{Batch, Problem};
use crate::check::run::Outputs;
use crate::layout;

/// Longer than any case takes, compilation included.
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

/// All outputs, by the names of the format.
pub fn outputs(
    context: &Context,
    problem: &Problem,
    work: &Work,
    layout: Layout,
    shards: &[[Batch; 2]],
) -> Result<Outputs> {
    let ranks = LocalRank::group(shards.len(), DEADLINE)?;
    let results: Vec<Result<Rank>> = thread::scope(|scope| {
        let threads: Vec<_> = ranks
            .into_iter()
            .zip(shards)
            .map(|(rank, shard)| {
                scope.spawn(move || context.block_on(run(context, problem, work, layout, rank, shard)))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a rank does not panic")).collect()
    });
    let ranks = results.into_iter().collect::<Result<Vec<_>>>()?;

    let mut outputs = Outputs::new();
    let mut push = |name: &str, values: Vec<f32>| outputs.push((name.to_owned(), values));
    let first = &ranks[0];
    push("save_mean", first.pooled.iter().map(|s| s.0).collect());
    push("save_invstd", first.pooled.iter().map(|s| s.1).collect());
    push("dbias", first.sums.iter().map(|s| s.0).collect());
    push("dweight", first.sums.iter().map(|s| s.1).collect());
    push("sum_dy", first.sums.iter().map(|s| s.0).collect());
    push("sum_dy_xmu", first.sums.iter().zip(&first.pooled).map(|(s, p)| s.1 / p.1).collect());
    // All ranks have the same bits; where one has others, there is NaN here.
    let agreed = |of: fn(&RunningValues) -> &Vec<f32>| {
        let expected = of(&first.running);
        let agree =
            |c: usize| ranks.iter().all(|rank| of(&rank.running)[c].to_bits() == expected[c].to_bits());
        expected.iter().enumerate().map(|(c, &v)| if agree(c) { v } else { f32::NAN }).collect()
    };
    push("running_mean", agreed(|running| &running.mean));
    push("running_var", agreed(|running| &running.var));
    for (i, (rank, [x, _])) in ranks.into_iter().zip(shards).enumerate() {
        let stored = |values: &[f32]| layout::rearranged(values, &x.dims, layout, problem.stored);
        push(&format!("y_{i}"), stored(&rank.y));
        push(&format!("dx_{i}"), stored(&rank.dx));
        push(&format!("dweight_local_{i}"), rank.dgamma);
        push(&format!("dbias_local_{i}"), rank.dbeta);
        push(&format!("local_mean_{i}"), rank.local.iter().map(|m| m.0).collect());
        push(&format!("local_var_{i}"), rank.local.iter().map(|m| m.1).collect());
    }
    Ok(outputs)
}

async fn run(
    context: &Context,
    problem: &Problem,
    work: &Work,
    layout: Layout,
    rank: LocalRank,
    [x, dy]: &[Batch; 2],
) -> Result<Rank> {
    let result = run_rank(context, problem, work, layout, &rank, x, dy).await;
    if let Err(error) = &result {
        rank.fail(&error.to_string());
    }
    result
}

async fn run_rank(
    context: &Context,
    problem: &Problem,
    work: &Work,
    layout: Layout,
    rank: &LocalRank,
    x: &Batch,
    dy: &Batch,
) -> Result<Rank> {
    let upload = async |batch: &Batch| {
        let values = layout::rearranged(&batch.values, &batch.dims, problem.stored, layout);
        let memory = layout::memory_dims(layout, &batch.dims);
        Ok::<_, wgnorm::Error>(context.upload_as(&memory, &values, problem.dtype).await?.with_layout(layout))
    };
    let per_channel = async |values: &Option<Vec<f32>>| match values {
        Some(values) => context.upload_as(&[values.len()], values, problem.parameters).await.map(Some),
        None => Ok(None),
    };
    let (gamma, beta) = (per_channel(&problem.gamma).await?, per_channel(&problem.beta).await?);
    let running = RunningStatistics::upload(context, &work.running).await?;
    let layer = BatchNorm::from_parts(context, work.options, gamma, beta, running)?;
    let mut layer = layer.synchronised(rank);
    let (x, dy) = (upload(x).await?, upload(dy).await?);
    let (y, dx) = (context.zeros_like(&x).await?, context.zeros_like(&x).await?);
    let channels = [problem.dims[1]];
    let dgamma = context.zeros_as(&channels, problem.parameters).await?;
    let dbeta = context.zeros_as(&channels, problem.parameters).await?;
    let saved = Saved::new(context, &x).await?.pooled();
    let mut forward = layer.prepare_train_forward(&x, &y, Some(&saved)).await?;
    layer.submit_forward(&mut forward).await?;
    let targets = GradientTargets {
        dx: Some(&dx),
        dgamma: problem.gamma.as_ref().map(|_| &dgamma),
        dbeta: problem.beta.as_ref().map(|_| &dbeta),
        ..Default::default()
    };
    let mut backward = layer.prepare_backward(&x, &dy, &saved, &targets).await?;
    layer.submit_backward(&mut backward).await?;
    let local = forward.local().download(context).await?;
    // An empty shard saves nothing; what all shards have is in the pool.
    let pooled = forward.pooled().download(context).await?;
    let inv_std = |var: f32| (1.0 / (f64::from(var) + work.options.eps).sqrt()) as f32;
    let sums = backward.pooled().download(context).await?;
    Ok(Rank {
        y: context.download(&y).await?,
        dx: context.download(&dx).await?,
        dgamma: context.download(&dgamma).await?,
        dbeta: context.download(&dbeta).await?,
        local: local.iter().map(|m| (m.mean() as f32, m.var)).collect(),
        pooled: pooled.iter().map(|m| (m.mean() as f32, inv_std(m.var))).collect(),
        running: layer.local().running().download(context).await?,
        sums: sums.iter().map(|s| (s.dz, s.dz_xhat)).collect(),
    })
}
