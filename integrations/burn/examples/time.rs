//! Forward and backward of batch norm in burn: its own layer and this one, in turns, over shapes of ResNet-50.
//!
//! `cargo run --release --example time [SAMPLES]`

use std::time::Instant;

use burn::nn;
use burn::tensor::{Device, Distribution, Tensor};

/// Channels, and positions in each direction.
const SHAPES: [[usize; 2]; 4] = [[64, 112], [256, 56], [512, 28], [2048, 7]];
const STEPS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let samples = std::env::args().nth(1).map_or(Ok(4), |samples| samples.parse())?;
    let device = wgnorm_burn::init(Device::wgpu_options())?.autodiff();
    println!("| shape | burn, ms | wgnorm, ms | times as fast |\n|---|---|---|---|");
    for [channels, size] in SHAPES {
        let dims = [samples, channels, size, size];
        let x = Tensor::<4>::random(dims, Distribution::Default, &device).require_grad();
        let dy = Tensor::<4>::random(dims, Distribution::Default, &device);
        let theirs = nn::BatchNormConfig::new(channels).init(&device);
        let ours = wgnorm_burn::BatchNormConfig::new(channels).init(&device);
        let step = |forward: &dyn Fn(Tensor<4>) -> Tensor<4>| -> Result<f64, Box<dyn std::error::Error>> {
            device.sync()?;
            let begin = Instant::now();
            let gradients = (forward(x.clone()) * dy.clone()).sum().backward();
            drop(x.grad(&gradients));
            device.sync()?;
            Ok(begin.elapsed().as_secs_f64() * 1e3)
        };
        let mut all = [Vec::new(), Vec::new()];
        for _ in 0..STEPS + 2 {
            all[0].push(step(&|x| theirs.forward(x))?);
            all[1].push(step(&|x| ours.forward(x))?);
        }
        let [burn, wgnorm] = all.map(|mut samples| {
            // The first compile.
            samples.drain(..2);
            samples.sort_unstable_by(f64::total_cmp);
            samples[STEPS / 2]
        });
        println!("| {dims:?} | {burn:.1} | {wgnorm:.1} | {:.1} |", burn / wgnorm);
    }
    Ok(())
}
