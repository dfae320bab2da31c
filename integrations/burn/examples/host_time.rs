//! What a call costs the host: a training step of batch norm over a tensor so small that the device has next to nothing to do, in burn, with its own layer and this crate's, in
//! turns; and the time in this crate's passes by themselves.
//!
//! `cargo run --release --example host_time [-- CHANNELS]`; times of large tensors are `cargo xtask peers`' in the repository.

use std::error::Error;
use std::time::{Duration, Instant};

use burn::nn;
use burn::tensor::{Device, Tensor};
use wgnorm_burn::stats::{self, Passes};

const STEPS: u32 = 200;
const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn Error>> {
    let channels = std::env::args().nth(1).map_or(Ok(64), |channels| channels.parse())?;
    let device = wgnorm_burn::init(Device::wgpu_options())?.autodiff();
    let x = Tensor::<4>::ones([2, channels, 2, 2], &device);
    let theirs = nn::BatchNormConfig::new(channels).init(&device);
    let ours = wgnorm_burn::BatchNormConfig::new(channels).init(&device);
    type Forward<'f> = &'f dyn Fn(Tensor<4>) -> Tensor<4>;
    let round = |layer: Forward<'_>| -> Result<f64, Box<dyn Error>> {
        device.sync()?;
        let begin = Instant::now();
        for _ in 0..STEPS {
            // Alive until its kernels are recorded: fusion would put off what nobody could read.
            let y = layer(x.clone().require_grad());
            let results = (y.backward(), y);
            device.flush()?;
            drop(results);
        }
        device.sync()?;
        Ok(begin.elapsed().as_secs_f64() * 1e6 / f64::from(STEPS))
    };
    let mut rounds = [Vec::new(), Vec::new()];
    let mut passes = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        rounds[0].push(round(&|x| theirs.forward(x))?);
        let before = [stats::forward(), stats::backward()];
        rounds[1].push(round(&|x| ours.forward(x))?);
        for ((passes, before), after) in
            passes.iter_mut().zip(before).zip([stats::forward(), stats::backward()])
        {
            passes.push(each(before, after).as_secs_f64() * 1e6);
        }
    }
    let [burns, wgnorms] = rounds.map(median);
    let [forward, backward] = passes.map(median);
    println!(
        "[2, {channels}, 2, 2], {STEPS} steps from an idle device to an idle device, median of {ROUNDS}, in µs"
    );
    println!(
        "| a step with burn's layer | with wgnorm's | of it in forward | in backward |\n|---|---|---|---|"
    );
    println!("| {burns:.0} | {wgnorms:.0} | {forward:.0} | {backward:.0} |");
    Ok(())
}

fn each(before: Passes, after: Passes) -> Duration {
    (after.host - before.host) / u32::try_from(after.count - before.count).unwrap_or(u32::MAX).max(1)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    samples[samples.len() / 2]
}
