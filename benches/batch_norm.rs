//! Criterion benches over layers of ResNet-50: each operation from submission to completion, and what recording one layer
//! costs the host. `wgnorm bench` reports the same operations with their limits beside them.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wgnorm::tuning::prepare_copy;
use wgnorm::{BatchNorm, BatchNormOptions, Context, GradientTargets, Layout, Prepared, Saved};

/// Shapes `[N, C, H, W]`.
const SHAPES: [[usize; 4]; 3] = [[8, 64, 56, 56], [8, 256, 14, 14], [8, 512, 7, 7]];
const LAYOUTS: [Layout; 2] = [Layout::ChannelsFirst, Layout::ChannelsLast];

/// One layer in training, prepared.
fn prepare(context: &Context, [n, c, h, w]: [usize; 4], layout: Layout) -> [(&'static str, Prepared); 3] {
    let dims = if layout == Layout::ChannelsLast { [n, h, w, c] } else { [n, c, h, w] };
    context
        .block_on(async {
            let layer = BatchNorm::new(context, c, BatchNormOptions::pytorch()).await?;
            let x = context.zeros(&dims).await?.with_layout(layout);
            let dy = context.zeros_like(&x).await?;
            let y = context.zeros_like(&x).await?;
            let dx = context.zeros_like(&x).await?;
            let saved = Saved::new(context, &x).await?;
            let forward = layer.prepare_train_forward_untracked(&x, &y, Some(&saved)).await?;
            let targets = GradientTargets::default().dx(&dx);
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
    for (shape, layout) in SHAPES.into_iter().flat_map(|shape| LAYOUTS.map(|layout| (shape, layout))) {
        for (op, prepared) in prepare(&context, shape, layout) {
            group.throughput(Throughput::Bytes(prepared.traffic().floor_bytes));
            group.bench_function(BenchmarkId::new(format!("{op} {layout}"), format!("{shape:?}")), |b| {
                b.iter(|| {
                    context.block_on(context.submit(&[&prepared])).expect("a submission");
                    context.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device")
                });
            });
        }
    }
}

/// Host time for the 53 layers of a ResNet-50, as recorded in a training step; the elements are layers. Recording ends with
/// the encoder: wgpu validates a pass when it is finished.
fn record(c: &mut Criterion) {
    let context = Context::headless_blocking().expect("the benchmark needs an adapter");
    let [(_, forward), (_, backward), _] = prepare(&context, [2, 4, 8, 8], Layout::ChannelsFirst);
    let mut group = c.benchmark_group("record");
    group.throughput(Throughput::Elements(53));
    let step: [&Prepared; 2] = [&forward, &backward];
    for (name, operations) in
        [("train_forward", &step[..1]), ("train_backward", &step[1..]), ("forward and backward", &step[..])]
    {
        group.bench_function(BenchmarkId::new(name, "in one pass"), |b| {
            b.iter(|| {
                let mut encoder = context.device().create_command_encoder(&Default::default());
                let mut pass = encoder.begin_compute_pass(&Default::default());
                for operation in operations.iter().flat_map(|operation| [operation; 53]) {
                    operation.record_in(&mut pass);
                }
                drop(pass);
                encoder.finish()
            });
        });
        group.bench_function(BenchmarkId::new(name, "a pass each"), |b| {
            b.iter(|| {
                let mut encoder = context.device().create_command_encoder(&Default::default());
                for operation in operations.iter().flat_map(|operation| [operation; 53]) {
                    operation.record(&mut encoder);
                }
                encoder.finish()
            });
        });
    }
}

criterion_group!(benches, execute, record);
criterion_main!(benches);
