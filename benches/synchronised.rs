//! What synchronising batch norm over four shards costs: `cargo bench --bench synchronised`.
//!
//! Four ranks in one process, a thread and a shard each, forward and backward, on one adapter: by themselves; synchronised; and the
//! exchange alone, which is what a synchronised pass does beside its kernels (read back moments, gather, merge, write; the same for
//! gradient sums). Rounds of the three follow each other, so that a machine that is busy with something else slows them alike.
//! Each result is checked before it is timed.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use wgnorm::collective::{Collective, LocalRank};
use wgnorm::norm::{SyncBackward, SyncBatchNorm, SyncTrainForward};
use wgnorm::statistics::{GradientSums, Moments, PooledMoments};
use wgnorm::{
    BatchNorm, BatchNormOptions, Context, Error, GradientTargets, Prepared, Result, Saved, Tensor,
    TrainForward,
};

const RANKS: usize = 4;
const ROUNDS: usize = 15;
/// Shards of layers of ResNet-50 at batch 8: [N/4, C, H, W].
const SHAPES: [[usize; 4]; 5] =
    [[2, 64, 112, 112], [2, 64, 56, 56], [2, 256, 56, 56], [2, 512, 28, 28], [2, 2048, 7, 7]];

fn main() -> Result<()> {
    // `cargo test --benches` passes no --bench: one small round, to see that it works.
    let bench = std::env::args().any(|argument| argument == "--bench");
    let (rounds, shapes) = if bench { (ROUNDS, &SHAPES[..]) } else { (1, &[[2, 4, 3, 3]][..]) };
    let context = Context::headless_blocking()?;
    println!(
        "{RANKS} ranks on {}, median of {rounds} rounds in ms, forward and backward",
        context.device().adapter_info().name
    );
    println!("| shard | by themselves | exchange alone | sum | synchronised | synchronised / sum |");
    println!("|---|---|---|---|---|---|");
    for &shape in shapes {
        let [local, exchange, synchronised] = measure(&context, shape, rounds)?;
        let sum = local + exchange;
        println!(
            "| {shape:?} | {local:.2} | {exchange:.2} | {sum:.2} | {synchronised:.2} | {:.2} |",
            synchronised / sum
        );
    }
    Ok(())
}

/// Medians in ms.
fn measure(context: &Context, shape: [usize; 4], rounds: usize) -> Result<[f64; 3]> {
    let barrier = Barrier::new(RANKS);
    let ranks = LocalRank::group(RANKS, Duration::from_secs(600))?;
    let times: Vec<Result<Vec<[f64; 3]>>> = thread::scope(|scope| {
        let threads: Vec<_> = ranks
            .into_iter()
            .map(|rank| {
                let barrier = &barrier;
                scope.spawn(move || context.block_on(run(context, &rank, shape, rounds, barrier)))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a rank does not panic")).collect()
    });
    let times = times.into_iter().collect::<Result<Vec<_>>>()?;
    // A round takes as long as its slowest rank.
    Ok([0, 1, 2].map(|k| {
        let mut all: Vec<f64> =
            (0..rounds).map(|round| times.iter().map(|rank| rank[round][k]).fold(0.0, f64::max)).collect();
        all.sort_by(f64::total_cmp);
        all[rounds / 2]
    }))
}

struct Rank<'a> {
    context: &'a Context,
    rank: &'a LocalRank,
    layer: BatchNorm,
    forward: TrainForward,
    backward: Prepared,
    sync: SyncBatchNorm<&'a LocalRank>,
    sync_forward: SyncTrainForward,
    sync_backward: SyncBackward,
    moments: Moments,
    sums: GradientSums,
    dx: Tensor,
}

async fn run(
    context: &Context,
    rank: &LocalRank,
    shape: [usize; 4],
    rounds: usize,
    barrier: &Barrier,
) -> Result<Vec<[f64; 3]>> {
    let channels = shape[1];
    let values: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|i| ((i * 7919 + rank.rank() * 31) % 1009) as f32 / 500.0 + rank.rank() as f32)
        .collect();
    let x = context.upload(&shape, &values).await?;
    let [dy, y, dx] = [
        context.upload(&shape, &values).await?,
        context.zeros_like(&x).await?,
        context.zeros_like(&x).await?,
    ];
    let [dgamma, dbeta] = [context.zeros(&[channels]).await?, context.zeros(&[channels]).await?];
    let targets = GradientTargets::default().dx(&dx).dgamma(&dgamma).dbeta(&dbeta);
    let new = || BatchNorm::new(context, channels, BatchNormOptions::pytorch());
    let mut layer = new().await?;
    let saved = Saved::new(context, &x).await?;
    let forward = layer.prepare_train_forward(&x, &y, Some(&saved)).await?;
    let backward = layer.prepare_backward(&x, &dy, &saved, &targets).await?;
    let mut sync = new().await?.synchronised(rank);
    let pooled = Saved::new(context, &x).await?.pooled();
    let sync_forward = sync.prepare_train_forward(&x, &y, Some(&pooled)).await?;
    let sync_backward = sync.prepare_backward(&x, &dy, &pooled, &targets).await?;
    let mut this = Rank {
        context,
        rank,
        layer,
        forward,
        backward,
        sync,
        sync_forward,
        sync_backward,
        moments: Moments::empty(context, channels).await?,
        sums: GradientSums::empty(context, channels).await?,
        dx,
    };
    // Compiles and checks.
    this.alone().await?;
    this.exchange().await?;
    this.synchronised().await?;
    this.check(channels, &values).await?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let mut round = [0.0; 3];
        for (k, time) in round.iter_mut().enumerate() {
            barrier.wait();
            let begun = Instant::now();
            match k {
                0 => this.alone().await?,
                1 => this.exchange().await?,
                _ => this.synchronised().await?,
            }
            *time = begun.elapsed().as_secs_f64() * 1e3;
        }
        times.push(round);
    }
    Ok(times)
}

impl Rank<'_> {
    /// Waits for the device, by reading back as little as possible.
    async fn wait(&self) -> Result<()> {
        self.context.download(&self.dx.slice_samples(0..1)?.slice_channels(0..1)?).await.map(drop)
    }

    async fn alone(&mut self) -> Result<()> {
        self.layer.submit(&self.forward).await?;
        self.context.submit(&[&self.backward]).await?;
        self.wait().await
    }

    async fn synchronised(&mut self) -> Result<()> {
        self.sync.submit_forward(&mut self.sync_forward).await?;
        self.sync.submit_backward(&mut self.sync_backward).await?;
        self.wait().await
    }

    /// What passes between ranks in a forward and a backward pass, and what is done with it.
    async fn exchange(&mut self) -> Result<()> {
        let local = self.moments.download(self.context).await?;
        let mut message = 0_u64.to_le_bytes().to_vec();
        for m in &local {
            message.extend([m.shift, m.delta, m.var].iter().flat_map(|v| v.to_le_bytes()));
        }
        let messages = self.rank.all_gather(message).await?;
        let mut pooled = vec![PooledMoments::default(); local.len()];
        for _ in &messages {
            for (pooled, &m) in pooled.iter_mut().zip(&local) {
                *pooled = pooled.merge(m.into());
            }
        }
        let channels: Vec<_> = pooled.into_iter().map(Into::into).collect();
        self.moments.write(self.context, &channels).await?;
        self.context.submit(&[]).await?;
        let sums = self.sums.download(self.context).await?;
        let message: Vec<u8> =
            sums.iter().flat_map(|s| [s.dz, s.dz_xhat]).flat_map(f32::to_le_bytes).collect();
        self.rank.all_gather(message).await?;
        self.sums.write(self.context, &sums).await?;
        self.context.submit(&[]).await?;
        self.wait().await
    }

    /// The pooled mean is that of all ranks' values.
    async fn check(&self, channels: usize, values: &[f32]) -> Result<()> {
        let inner = values.len() / channels / 2;
        let own: f64 =
            (0..2).flat_map(|n| &values[n * channels * inner..][..inner]).map(|&v| f64::from(v)).sum();
        let all = self.rank.all_gather(own.to_le_bytes().to_vec()).await?;
        let sum: f64 = all.iter().map(|m| f64::from_le_bytes(m[..].try_into().expect("8 bytes"))).sum();
        let expected = sum / (RANKS * 2 * inner) as f64;
        let got = self.sync_forward.pooled().download(self.context).await?[0].mean();
        if (got - expected).abs() > 1e-5 {
            self.rank.fail("the pooled mean is wrong");
            return Err(Error::Validation {
                what: "synchronised statistics".to_owned(),
                message: format!("expected a mean of {expected}, got {got}"),
            });
        }
        Ok(())
    }
}
