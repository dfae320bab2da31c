//! Ranks that train one network, gradients averaged: each on a device and a thread of its own, or in a process of an MPI job.

use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Device;
use burn::tensor::wgpu::WgpuSetup;
use serde::{Deserialize, Serialize};
use wgnorm_burn::wgnorm::collective::{Collective, LocalRank};
use wgnorm_burn::wgnorm::wgpu;
use wgnorm_burn::{Rank, Statistics};

use crate::Result;
use crate::lab::Lab;
use crate::network::Network;
use crate::parameters;
use crate::training::{Plan, Trainer, plain, values};

/// Whose statistics a batch norm is by.
#[derive(Clone, Copy, PartialEq)]
pub enum Of {
    Rank,
    AllRanks,
}

/// What a rank has seen of a training.
#[derive(Clone, Serialize, Deserialize)]
pub struct Run {
    /// Of each step the mean over the ranks.
    pub losses: Vec<f64>,
    /// Of a step, the median.
    pub milliseconds: f64,
}

/// Longer than any step takes, compiling included.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// Trains a network on so many devices as there are; each has its part of every batch.
pub fn train(lab: &Lab, plan: Plan, devices: &[Device], of: Of) -> Result<Run> {
    lab.device.seed(100 + plan.seed);
    let network = Network::new(plan.shape, &lab.device);
    let ends = LocalRank::group(devices.len(), DEADLINE)?;
    // All before the first begins, which may hold up its device until the others come.
    let ranks: Vec<_> = ends
        .into_iter()
        .zip(devices)
        .map(|(end, device)| (Rank::of(end), network.clone().fork(device).apart(), device.clone()))
        .collect();
    std::thread::scope(|scope| {
        let train = |(rank, network, device)| {
            scope.spawn(move || {
                train_as(&rank, lab, plan, network, &device, of).map_err(|error| error.to_string())
            })
        };
        let threads: Vec<_> = ranks.into_iter().map(train).collect();
        let runs: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a rank panicked".into())))
            .collect();
        // One that fails takes the others with it, which tell that it left.
        let cause =
            runs.iter().filter_map(|run| run.as_ref().err()).min_by_key(|error| error.contains("left"));
        match (cause.cloned(), runs.into_iter().next()) {
            (Some(error), _) => Err(error.into()),
            (None, Some(Ok(run))) => Ok(run),
            _ => Err("no ranks".into()),
        }
    })
}

/// The training of a rank.
pub fn train_as(
    rank: &Rank,
    lab: &Lab,
    plan: Plan,
    mut network: Network,
    device: &Device,
    of: Of,
) -> Result<Run> {
    if of == Of::AllRanks {
        for norm in network.batch_norms() {
            *norm = norm.clone().with_statistics(Statistics::Synchronised(rank.clone()));
        }
    }
    let mut trainer = Trainer::of(lab, plan, network, device, plain);
    let (mut losses, mut times) = (Vec::new(), Vec::new());
    for _ in 0..plan.steps {
        let all = trainer.next();
        let part = all.len() / rank.world_size();
        let own = &all[rank.rank() * part..][..part];
        device.sync()?;
        let begin = Instant::now();
        let network = trainer.network.clone();
        let (loss, gradients) = trainer.gradients(&network, trainer.batch(own));
        let mut message = parameters::flat(&network, &gradients);
        message.push(values(loss)?[0]);
        let mut mean = mean(rank, &message)?;
        losses.push(f64::from(mean.pop().unwrap_or(f32::NAN)));
        let gradients = parameters::gradients(&network, &mean);
        trainer.network = trainer.along(network, plan.rate, gradients);
        device.sync()?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    // The first ones compile.
    let mut times = times.split_off(times.len() / 4);
    times.sort_unstable_by(f64::total_cmp);
    Ok(Run { losses, milliseconds: times.get(times.len() / 2).copied().unwrap_or(f64::NAN) })
}

/// The mean over all ranks, the same bits on each.
fn mean(rank: &Rank, own: &[f32]) -> Result<Vec<f32>> {
    let bytes = own.iter().flat_map(|value| value.to_le_bytes()).collect();
    let all = pollster::block_on(rank.all_gather(bytes))?;
    let mut sums = vec![0.0_f64; own.len()];
    for message in &all {
        for (sum, bytes) in sums.iter_mut().zip(message.chunks_exact(4)) {
            *sum += f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        }
    }
    Ok(sums.into_iter().map(|sum| (sum / all.len() as f64) as f32).collect())
}

/// Another device of the adapter, since a rank's exchange holds up what its device does.
pub fn another_device() -> Result<Device> {
    let instance = wgpu::Instance::default();
    let options = wgpu::RequestAdapterOptions::default();
    let adapter = pollster::block_on(instance.request_adapter(&options))?;
    let without = wgpu::Features::MAPPABLE_PRIMARY_BUFFERS | wgpu::Features::all_experimental_mask();
    let descriptor = wgpu::DeviceDescriptor {
        required_features: adapter.features().difference(without),
        required_limits: adapter.limits(),
        ..wgpu::DeviceDescriptor::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    let backend = adapter.get_info().backend;
    let setup = WgpuSetup { instance, adapter, device: device.clone(), queue: queue.clone(), backend };
    let opened = Device::wgpu_options().setup(setup).init().map_err(|error| format!("{error:?}"))?;
    wgnorm_burn::register(&opened, device, queue)?;
    Ok(opened.autodiff())
}
