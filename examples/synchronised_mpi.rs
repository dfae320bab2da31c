//! Batch norm over the processes of an MPI job: each rank has a device and a shard of the batch, of another size; the first has
//! none of it. Every rank holds its results against the batch norm of the whole batch, in f64.
//!
//! ```console
//! $ cargo build --release --example synchronised_mpi --features mpi
//! $ mpirun -n 4 target/release/examples/synchronised_mpi
//! ```

use std::time::Duration;

use wgnorm::collective::{Collective, MpiCollective};
use wgnorm::mpi::Threading;
use wgnorm::mpi::topology::{Communicator, SimpleCommunicator};
use wgnorm::reference::{self, bounds};
use wgnorm::{BatchNorm, BatchNormOptions, Channels, Context, Error, Layout, Tensor};

const CHANNELS: usize = 6;
const POSITIONS: usize = 35;
const STEPS: usize = 3;

fn main() {
    let (universe, _) =
        wgnorm::mpi::initialize_with_threading(Threading::Funneled).expect("MPI is initialized once");
    let world = universe.world();
    if let Err(error) = run(&world) {
        eprintln!("rank {}: {error}", world.rank());
        // MPI_Finalize may wait for a rank that is silent.
        world.abort(1);
    }
}

/// Samples of a rank: 0, 1, 2, …
fn samples(rank: usize) -> usize {
    rank
}

/// The shard of a rank; means and scales differ from rank to rank. All ranks can compute all shards.
fn shard(rank: usize, step: usize, seed: usize) -> Vec<f32> {
    let (mean, scale) = [(0.0, 1.0), (1e4, 0.1), (-50.0, 20.0), (1e4, 0.1)][(rank + seed) % 4];
    (0..samples(rank) * CHANNELS * POSITIONS)
        .map(|i| {
            let hash = ((i + 1) * 2_654_435_761 + 97 * (rank + 31 * step + 1009 * seed)) % 10_007;
            mean + scale * (hash as f32 / 5003.5 - 1.0)
        })
        .collect()
}

pub fn run(world: &SimpleCommunicator) -> Result<(), Error> {
    // More than any step takes, compilation included.
    let collective = MpiCollective::new(world, Duration::from_secs(300))?;
    let context = Context::headless_blocking()?;
    context.block_on(train(&context, &collective))
}

async fn train(context: &Context, collective: &MpiCollective) -> Result<(), Error> {
    let (rank, ranks) = (collective.rank(), collective.world_size());
    let layer = BatchNorm::new(context, CHANNELS, BatchNormOptions::pytorch()).await?;
    // Several layers could share the collective.
    let mut layer = layer.synchronised(collective);
    for step in 0..STEPS {
        let dims = [samples(rank), CHANNELS, POSITIONS];
        let x = context.upload(&dims, &shard(rank, step, 0)).await?;
        let dy = context.upload(&dims, &shard(rank, step, 2)).await?;
        let (y, saved) = layer.train_forward(&x).await?;
        let gradients = layer.backward(&x, &dy, &saved).await?;
        check(context, rank, ranks, step, &y, &gradients.dx).await?;
    }
    // All ranks have the same bits.
    let running = layer.into_local().running().download(context).await?;
    let bits: Vec<u8> = running.mean.iter().chain(&running.var).flat_map(|v| v.to_le_bytes()).collect();
    let all = collective.all_gather(bits.clone()).await?;
    assert!(all.iter().all(|other| *other == bits), "ranks disagree");
    println!("rank {rank} of {ranks}: {STEPS} steps with {} samples, as one batch", samples(rank));
    Ok(())
}

/// y and dx are those of the whole batch.
async fn check(
    context: &Context,
    rank: usize,
    ranks: usize,
    step: usize,
    y: &Tensor,
    dx: &Tensor,
) -> Result<(), Error> {
    let whole =
        |seed| -> Vec<f64> { (0..ranks).flat_map(|rank| shard(rank, step, seed)).map(f64::from).collect() };
    let (x, dy) = (whole(0), whole(2));
    let samples_of_all: usize = (0..ranks).map(samples).sum();
    let view = Channels {
        samples: samples_of_all as u64,
        channels: CHANNELS as u64,
        inner: POSITIONS as u64,
        layout: Layout::ChannelsFirst,
    };
    let forward = reference::batch::train_forward(&x, view, None, None, 1e-5);
    let s = &forward.statistics;
    let backward = reference::batch::backward(&x, &dy, view, s, None);
    let sums = reference::reduce::gradient_sums(&x, &dy, view, s);
    let magnitudes = bounds::magnitudes(&x, &dy, view, s);
    let first = (0..rank).map(samples).sum::<usize>() * CHANNELS * POSITIONS;
    let channel = |i: usize| view.channel_of(i as u64) as usize;
    for (i, &got) in context.download(y).await?.iter().enumerate() {
        let (at, c) = (first + i, channel(first + i));
        let bound = bounds::y(&s[c], x[at], 1.0, 0.0);
        let error = (f64::from(got) - forward.y[at]).abs();
        assert!(error <= bound, "y[{i}] of rank {rank} is off by {error:e}, bound {bound:e}");
    }
    for (i, &got) in context.download(dx).await?.iter().enumerate() {
        let (at, c) = (first + i, channel(first + i));
        let bound = bounds::dx(&s[c], &magnitudes[c], &sums[c], view, x[at], dy[at], 1.0);
        let error = (f64::from(got) - backward.dx[at]).abs();
        assert!(error <= bound, "dx[{i}] of rank {rank} is off by {error:e}, bound {bound:e}");
    }
    Ok(())
}
