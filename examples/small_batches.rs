//! A batch that does not fit at once, three ways: as micro-batches with the statistics of all of them, as ghost batches with
//! statistics of their own, and with the statistics of the last steps.
//!
//! `cargo run --example small_batches`

use wgnorm::norm::CrossIteration;
use wgnorm::{BatchNorm, BatchNormOptions, Context, Error, Input, Mask};

fn main() -> Result<(), Error> {
    let context = Context::headless_blocking()?;
    context.block_on(run(&context))
}

async fn run(context: &Context) -> Result<(), Error> {
    let values: Vec<f32> = (0..8 * 3 * 10).map(|i| ((i * 37) % 23) as f32 + 5.0 * (i / 60) as f32).collect();
    let x = context.upload(&[8, 3, 10], &values).await?;
    let dy = context.upload(&[8, 3, 10], &vec![0.5; values.len()]).await?;
    let parts = [x.slice_samples(0..3)?, x.slice_samples(3..8)?];
    let dy_parts = [dy.slice_samples(0..3)?, dy.slice_samples(3..8)?];
    let layer = || BatchNorm::new(context, 3, BatchNormOptions::pytorch());

    // One batch, and the same in two micro-batches.
    let mut whole = layer().await?;
    let (y, _) = whole.train_forward(&x).await?;
    let mut accumulated = layer().await?;
    let inputs: Vec<Input> = parts.iter().map(Into::into).collect();
    let outputs = accumulated.train_forward_accumulated(&inputs).await?;
    let (dys, saved): (Vec<_>, Vec<_>) = dy_parts.iter().zip(outputs.iter().map(|(_, saved)| saved)).unzip();
    let gradients = accumulated.backward_accumulated(&inputs, &dys, &saved).await?;
    let mut together = Vec::new();
    for (y, _) in &outputs {
        together.extend(context.download(y).await?);
    }
    let y = context.download(&y).await?;
    let most = y.iter().zip(&together).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("micro-batches: y off by {most:.1e}, {} gradients of x", gradients.dx.len());

    // Statistics over 2 samples each; one running update with all 8.
    let mut ghost = layer().await?;
    let (_, saved) = ghost.train_forward_ghost(&x, 2).await?;
    println!("ghost batches: {} statistics of {} samples", saved.parts().len(), saved.size());

    // Two steps, the second with the statistics of both.
    let mut small = layer().await?;
    let mut last = CrossIteration::new(4)?;
    for part in &parts {
        let (_, saved) = last.train_forward(&mut small, part).await?;
        let statistics = saved.download(context).await?;
        println!("cross-iteration: step {} with {} values per channel", last.held(), statistics[0].count);
    }

    // All of them with padding: the samples are sequences of these lengths.
    let mask = Mask::of_lengths(context, &x, &[10, 4, 7, 1, 10, 10, 2, 6]).await?;
    let (_, saved) = whole.train_forward(x.masked(&mask)).await?;
    println!("masked: {} of 80 values per channel count", saved.download(context).await?[0].count);
    Ok(())
}
