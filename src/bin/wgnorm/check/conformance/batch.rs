//! Cases of batch norm; instance norm with given statistics is one of them.

use wgnorm::{BatchNormOptions, Momentum, RunningValues, RunningVariance};

use super::Source;
use crate::Refusal;
use crate::check::batch::{Task, Work};

pub const OPS: [&str; 5] = [
    "batch_norm_train",
    "batch_norm_eval",
    "batch_norm_sequence",
    "batch_norm_sync",
    // The same statistics for all samples, so the same as frozen batch norm.
    "instance_norm_eval",
];

pub fn work(source: &Source<'_>, channels: usize) -> Result<Work, Refusal> {
    let attrs = &source.entry.attrs;
    let task = match source.entry.op.as_str() {
        "batch_norm_sequence" => Task::Sequence {
            steps: (0..attrs.steps.ok_or("steps is missing")?)
                .map(|step| source.batch(&format!("x_{step}")))
                .collect::<Result<_, _>>()?,
            x_eval: source.batch("x_eval")?,
        },
        "batch_norm_sync" => Task::Sync {
            shards: (0..attrs.shard_sizes.as_ref().ok_or("shard_sizes is missing")?.len())
                .map(|rank| Ok([source.batch(&format!("x_{rank}"))?, source.batch(&format!("dy_{rank}"))?]))
                .collect::<Result<_, Refusal>>()?,
        },
        "batch_norm_train" => Task::Train { x: source.needed("x")?, dy: source.dy()? },
        _ => Task::Eval { x: source.needed("x")?, dy: source.dy()? },
    };
    Ok(Work { options: options(source)?, running: running(source, channels)?, mask: None, task })
}

/// How statistics are used and updated; the affine parameters are those that the case has.
pub fn options(source: &Source<'_>) -> Result<BatchNormOptions, Refusal> {
    let attrs = &source.entry.attrs;
    Ok(BatchNormOptions::pytorch()
        .eps(source.eps()?)
        .momentum(attrs.batch_weight.map_or(Momentum::Cumulative, Momentum::WeightOfNew))
        .running_variance(match attrs.running_var_correction {
            Some(0) => RunningVariance::Biased,
            _ => RunningVariance::Unbiased,
        })
        .activation(source.activation()?)
        .allow_single_value(true))
}

/// Running statistics before the case.
pub fn running(source: &Source<'_>, channels: usize) -> Result<RunningValues, Refusal> {
    let attrs = &source.entry.attrs;
    Ok(RunningValues {
        mean: source
            .input("running_mean")?
            .unwrap_or_else(|| vec![attrs.initial_running_mean.unwrap_or(0.0); channels]),
        var: source
            .input("running_var")?
            .unwrap_or_else(|| vec![attrs.initial_running_var.unwrap_or(1.0); channels]),
        batches: 0,
    })
}
