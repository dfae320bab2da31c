//! Criterion benches over layers of ResNet-50: each operation from submission to completion, and what recording one layer
//! costs the host. `wgnorm bench` reports the same operations with their limits beside them.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wgnorm::{BatchNorm, BatchNormOptions, Context, GradientTargets, Prepared, Saved, prepare_copy};

const SHAPES: [[usize; 4]; 3] = [[8, 64, 56, 56], [8, 256, 14, 14], [8, 512, 7, 7]];

/// One layer in training, prepared.
fn prepare(context: &Context, shape: [usize; 4]) -> [(&'static str, Prepared); 3] {
    context
        .block_on(async {
            let layer = BatchNorm::new(context, shape[1], BatchNormOptions::pytorch()).await?;
            let x = context.zeros(&shape).await?;
            let dy = context.zeros(&shape).await?;
            let y = context.zeros(&shape).await?;
            let dx = context.zeros(&shape).await?;
            let saved = Saved::new(context, &x).await?;
            let forward = layer.prepare_train_forward_untracked(&x, &y, Some(&saved)).await?;
            let targets = GradientTargets { dx: Some(&dx), ..Default::default() };
            let backward = layer.prepare_backward(&x, &dy, &saved, &targets).await?;
            let copy = prepare_copy(context, &x, &y).await?;
            Ok::<_, wgnorm::Error>([("train_forward", forward), ("train_backward", backward), ("copy", copy)])
        })
        .expect("the benchmark needs an adapter")
}

fn execute(c: &mut Criterion) {
    let context = Context::headless_blocking().expect("the benchmark needs an adapter");
    let mut group = c.benchmark_group("execute");
    group.sample_size(20);
    for shape in SHAPES {
        for (op, prepared) in prepare(&context, shape) {
            group.throughput(Throughput::Bytes(prepared.traffic().floor_bytes));
            group.bench_function(BenchmarkId::new(op, format!("{shape:?}")), |b| {
                b.iter(|| {
                    context.block_on(context.submit(&[&prepared])).expect("a submission");
                    context.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device")
                });
            });
        }
    }
}

/// Host time to record 53 layers, as ResNet-50 has them; divide by 53.
fn record(c: &mut Criterion) {
    let context = Context::headless_blocking().expect("the benchmark needs an adapter");
    let [(_, forward), (_, backward), _] = prepare(&context, [2, 4, 8, 8]);
    let mut group = c.benchmark_group("record 53 layers");
    for (op, prepared) in [("train_forward", &forward), ("train_backward", &backward)] {
        group.bench_function(op, |b| {
            b.iter(|| {
                let mut encoder = context.device().create_command_encoder(&Default::default());
                let mut pass = encoder.begin_compute_pass(&Default::default());
                for _ in 0..53 {
                    prepared.record_in(&mut pass);
                }
            });
        });
    }
}

criterion_group!(benches, execute, record);
criterion_main!(benches);
