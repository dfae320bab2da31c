//! What other statistics cost: `cargo bench --bench statistics`. Training forward and backward with a mask, in micro-batches, in ghost
//! batches, over plain batch norm in the same rounds. Each result is checked before it is timed.

use std::time::Instant;

use wgnorm::norm::{GhostSaved, MicroBatch, MicroBatchGradient};
use wgnorm::statistics::Renorm;
use wgnorm::{
    Accumulation, BatchNorm, BatchNormOptions, Context, GradientTargets, Mask, Prepared, Result, Saved,
    Tensor, TrainForward,
};

const ROUNDS: usize = 15;
/// Parts of a batch.
const PARTS: usize = 4;
const SHAPES: [[usize; 4]; 4] = [[8, 64, 56, 56], [8, 256, 56, 56], [8, 512, 28, 28], [8, 2048, 7, 7]];

fn main() -> Result<()> {
    // `cargo test --benches` passes no --bench: one small round, to see that it works.
    let bench = std::env::args().any(|argument| argument == "--bench");
    let (rounds, shapes) = if bench { (ROUNDS, &SHAPES[..]) } else { (1, &[[8, 4, 3, 3]][..]) };
    let context = Context::headless_blocking()?;
    let name = context.device().adapter_info().name;
    println!("{name}, median of {rounds} rounds, forward and backward, over plain batch norm");
    print!("| shape | plain, ms |");
    Ways::NAMES[1..].iter().for_each(|name| print!(" {name} |"));
    println!("\n|---|---|{}", "---|".repeat(Ways::NAMES.len() - 1));
    for &shape in shapes {
        let times = context.block_on(measure(&context, shape, rounds))?;
        print!("| {shape:?} | {:.2} |", times[0]);
        times[1..].iter().for_each(|time| print!(" {:.2} |", time / times[0]));
        println!();
    }
    Ok(())
}

/// The ways to train, prepared.
struct Ways {
    layer: BatchNorm,
    corrected: BatchNorm,
    ways: Vec<(TrainForward, Prepared)>,
}

impl Ways {
    const NAMES: [&str; 5] =
        ["plain", "masked, 3/4 count", "batch renorm", "4 micro-batches", "4 ghost batches"];
}

async fn measure(context: &Context, shape: [usize; 4], rounds: usize) -> Result<Vec<f64>> {
    let len: usize = shape.iter().product();
    let values: Vec<f32> = (0..len).map(|i| ((i * 7919) % 1009) as f32 / 500.0).collect();
    let x = context.upload(&shape, &values).await?;
    let dy = context.upload(&shape, &values).await?;
    let (y, dx) = (context.zeros_like(&x).await?, context.zeros_like(&x).await?);
    let [dgamma, dbeta] = [context.zeros(&[shape[1]]).await?, context.zeros(&[shape[1]]).await?];
    let targets =
        GradientTargets::default().dx(&dx).dgamma(&dgamma).dbeta(&dbeta).accumulation(Accumulation::Write);
    let mut ways = prepare(context, &x, &dy, &y, &targets).await?;
    for i in 0..ways.ways.len() {
        ways.run(context, i).await?;
        check(context, &values, shape, &y, i).await?;
    }
    let mut times = vec![Vec::new(); ways.ways.len()];
    for _ in 0..rounds {
        for (i, times) in times.iter_mut().enumerate() {
            let begun = Instant::now();
            ways.run(context, i).await?;
            context.download(&dbeta).await?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(times
        .into_iter()
        .map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        })
        .collect())
}

async fn prepare(
    context: &Context,
    x: &Tensor,
    dy: &Tensor,
    y: &Tensor,
    targets: &GradientTargets<'_>,
) -> Result<Ways> {
    let samples = x.shape().dims()[0];
    let mut layer = BatchNorm::new(context, x.shape().dims()[1], BatchNormOptions::pytorch()).await?;
    let saved = Saved::new(context, x).await?;
    let plain = (
        layer.prepare_train_forward(x, y, Some(&saved)).await?,
        layer.prepare_backward(x, dy, &saved, targets).await?,
    );

    let keep: Vec<bool> =
        (0..samples * x.shape().dims()[2..].iter().product::<usize>()).map(|i| i % 4 < 3).collect();
    let mask = Mask::of_positions(context, x, &keep).await?;
    let saved = Saved::new(context, x).await?;
    let masked = (
        layer.prepare_train_forward(x.masked(&mask), y, Some(&saved)).await?,
        layer.prepare_backward(x.masked(&mask), dy, &saved, targets).await?,
    );

    let options = BatchNormOptions::pytorch().renorm(Renorm::fixed(1.5, 0.5));
    let mut corrected = BatchNorm::new(context, x.shape().dims()[1], options).await?;
    let saved = Saved::new(context, x).await?;
    let renorm = (
        corrected.prepare_train_forward(x, y, Some(&saved)).await?,
        corrected.prepare_backward(x, dy, &saved, targets).await?,
    );

    let size = samples / PARTS;
    let mut parts = Vec::new();
    for range in (0..PARTS).map(|part| part * size..(part + 1) * size) {
        let [x, dy, y] = [
            x.slice_samples(range.clone())?,
            dy.slice_samples(range.clone())?,
            y.slice_samples(range.clone())?,
        ];
        let dx = targets.dx.map(|dx| dx.slice_samples(range)).transpose()?.unwrap_or_else(|| y.clone());
        let saved = Saved::new(context, &x).await?.pooled();
        parts.push((x, dy, y, dx, saved));
    }
    let forward: Vec<_> =
        parts.iter().map(|(x, _, y, _, saved)| MicroBatch { input: x.into(), y, saved }).collect();
    let backward: Vec<_> = parts
        .iter()
        .map(|(x, dy, _, dx, saved)| MicroBatchGradient { input: x.into(), dy, saved, dx, d_residual: None })
        .collect();
    let parameters = *targets;
    let accumulated = (
        layer.prepare_train_forward_accumulated(&forward).await?,
        layer.prepare_backward_accumulated(&backward, &parameters).await?,
    );

    let saved = GhostSaved::new(context, x, size).await?;
    let ghost = (
        layer.prepare_train_forward_ghost(x, y, &saved).await?,
        layer.prepare_backward_ghost(x, dy, &saved, targets).await?,
    );
    Ok(Ways { layer, corrected, ways: vec![plain, masked, renorm, accumulated, ghost] })
}

impl Ways {
    async fn run(&mut self, context: &Context, i: usize) -> Result<()> {
        let (forward, backward) = &self.ways[i];
        let layer = if i == RENORM { &mut self.corrected } else { &mut self.layer };
        layer.submit(forward).await?;
        context.submit(&[backward]).await
    }
}

/// The way whose y has another mean.
const RENORM: usize = 2;

/// The mean of y over what a way normalizes together is 0; with batch renorm, d, at its limit here.
async fn check(context: &Context, values: &[f32], shape: [usize; 4], y: &Tensor, way: usize) -> Result<()> {
    let y = context.download(y).await?;
    let inner = shape[2] * shape[3];
    let position = |i: usize| i / (shape[1] * inner) * inner + i % inner;
    let counts = |i: usize| way != 1 || position(i) % 4 < 3;
    let of_channel = |i: &usize| i / inner % shape[1] == 1 && counts(*i);
    let kept: Vec<usize> = (0..values.len()).filter(of_channel).collect();
    let mean = kept.iter().map(|&i| f64::from(y[i])).sum::<f64>() / kept.len() as f64;
    let expected = if way == RENORM { 0.5 } else { 0.0 };
    assert!((mean - expected).abs() < 1e-4, "{}: the mean of y is {mean}", Ways::NAMES[way]);
    Ok(())
}
