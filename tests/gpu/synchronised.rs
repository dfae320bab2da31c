//! Batch norm over the ranks of a collective is batch norm of the concatenation.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use wgnorm::collective::{Collective, CollectiveFailure, LocalRank, SingleRank};
use wgnorm::statistics::Renorm;
use wgnorm::{
    Activation, BatchNorm, BatchNormOptions, Context, DType, Error, GradientTargets, Layout, Mask, Momentum,
    RunningValues, Saved, Tensor,
};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();
/// Longer than any test may take.
const LONG: Duration = Duration::from_secs(600);

/// Shards of a batch `[N, rest]` or `[N, …, C]`, of different means and scales.
struct Shards {
    whole: Inputs,
    x: Vec<Vec<f32>>,
    dy: Vec<Vec<f32>>,
    samples: Vec<usize>,
}

impl Shards {
    fn new(seed: u64, samples: &[usize], rest: &[usize], layout: Layout) -> Self {
        let dims: Vec<usize> = [&[samples.iter().sum()], rest].concat();
        let mut whole = Inputs::of(seed, &dims, layout);
        let per_sample: usize = rest.iter().product();
        let kinds = [(1e4, 0.1), (0.0, 1.0), (-300.0, 50.0), (1e4, 1e-2)];
        let x: Vec<_> = samples
            .iter()
            .zip(kinds)
            .enumerate()
            .map(|(i, (&n, (shift, scale)))| values(seed + 30 + i as u64, n * per_sample, shift, scale))
            .collect();
        let dy: Vec<_> = samples
            .iter()
            .enumerate()
            .map(|(i, &n)| values(seed + 40 + i as u64, n * per_sample, 0.2, 1.0))
            .collect();
        (whole.x, whole.dy) = (x.concat(), dy.concat());
        Self { whole, x, dy, samples: samples.to_vec() }
    }

    fn upload(&self, context: &Context, rank: usize, values: &[Vec<f32>]) -> Tensor {
        let mut dims = self.whole.dims.clone();
        dims[0] = self.samples[rank];
        upload(context, &dims, &values[rank]).with_layout(self.whole.layout)
    }
}

/// Runs every rank on a thread of its own.
fn on_threads<T: Send>(
    ranks: Vec<LocalRank>,
    context: impl Fn(usize) -> Context,
    work: impl Fn(LocalRank, Context) -> T + Sync,
) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = ranks
            .into_iter()
            .enumerate()
            .map(|(i, rank)| {
                let (work, context) = (&work, context(i));
                scope.spawn(move || work(rank, context))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

type RankOutputs = (Outputs, (Vec<u32>, Vec<u32>, u32));

fn train(shards: &Shards, rank: &LocalRank, context: &Context, options: BatchNormOptions) -> RankOutputs {
    let r = rank.rank();
    let (x, dy) = (shards.upload(context, r, &shards.x), shards.upload(context, r, &shards.dy));
    let mut layer = shards.whole.layer(context, options).synchronised(rank);
    context.block_on(async {
        let (y, saved) = layer.train_forward(&x).await.unwrap();
        let gradients = layer.backward(&x, &dy, &saved).await.unwrap();
        let outputs = Outputs {
            y: context.download(&y).await.unwrap(),
            dx: context.download(&gradients.dx).await.unwrap(),
            dgamma: Some(context.download(&gradients.dgamma.unwrap()).await.unwrap()),
            dbeta: Some(context.download(&gradients.dbeta.unwrap()).await.unwrap()),
        };
        let running = layer.into_local().running().download(context).await.unwrap();
        (outputs, running_bits(&running))
    })
}

/// What all ranks have together: parameter gradients are summed.
fn together(outputs: &[RankOutputs]) -> Outputs {
    let sum = |of: fn(&Outputs) -> &Option<Vec<f32>>| {
        let parts: Vec<_> = outputs.iter().map(|(outputs, _)| of(outputs).as_ref().unwrap()).collect();
        Some((0..parts[0].len()).map(|c| parts.iter().map(|part| part[c]).sum()).collect())
    };
    Outputs {
        y: outputs.iter().flat_map(|(outputs, _)| outputs.y.clone()).collect(),
        dx: outputs.iter().flat_map(|(outputs, _)| outputs.dx.clone()).collect(),
        dgamma: sum(|outputs| &outputs.dgamma),
        dbeta: sum(|outputs| &outputs.dbeta),
    }
}

#[test]
fn shards_are_one_batch_and_all_ranks_agree_to_the_bit() {
    for (samples, rest, layout) in [
        (&[2, 0, 7, 3][..], &[5, 3, 7][..], Layout::ChannelsFirst),
        (&[1, 4, 0], &[6, 5], Layout::ChannelsLast),
        (&[30, 1], &[3], Layout::ChannelsFirst),
    ] {
        for (name, context) in few_contexts() {
            let shards = Shards::new(50, samples, rest, layout);
            let ranks = LocalRank::group(samples.len(), LONG).unwrap();
            let outputs = on_threads(
                ranks,
                |_| context.clone(),
                |rank, context| train(&shards, &rank, &context, OPTIONS),
            );
            let what = format!("{samples:?} {rest:?} {name}");
            assert_train(&what, &shards.whole, 1e-5, &together(&outputs));
            for (_, running) in &outputs {
                assert_eq!(running, &outputs[0].1, "{what}");
            }
            let floats = |bits: &[u32]| bits.iter().map(|&b| f32::from_bits(b)).collect();
            let (mean, var, batches) = &outputs[0].1;
            let running = RunningValues { mean: floats(mean), var: floats(var), batches: *batches };
            assert_running(&what, &shards.whole, &running);
        }
    }
}

#[test]
fn batch_renorm_is_corrected_by_the_statistics_of_all_ranks() {
    let options = OPTIONS.renorm(Renorm::fixed(1.5, 0.5));
    let shards = Shards::new(50, &[2, 5], &[4, 6], Layout::ChannelsFirst);
    let ranks = LocalRank::group(2, LONG).unwrap();
    let outputs = on_threads(ranks, |_| context(), |rank, context| train(&shards, &rank, &context, options));
    let context = context();
    let mut whole = shards.whole.layer(&context, options);
    let expected = crate::support::train(&context, &shards.whole, &mut whole);
    let got = together(&outputs);
    let close = |what: &str, got: &[f32], expected: &[f32]| {
        let scale = expected.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        for (g, e) in got.iter().zip(expected) {
            assert!((g - e).abs() <= 1e-5 * scale, "{what}: {g} {e}");
        }
    };
    close("y", &got.y, &expected.y);
    close("dx", &got.dx, &expected.dx);
    close("dgamma", got.dgamma.as_ref().unwrap(), expected.dgamma.as_ref().unwrap());
    assert_eq!(outputs[0].1, outputs[1].1);
}

#[test]
fn whoever_comes_first_the_bits_are_the_same() {
    let shards = Shards::new(9, &[3, 1, 5], &[4, 6], Layout::ChannelsFirst);
    let mut first: Option<Vec<RankOutputs>> = None;
    for late in 0..3 {
        let ranks = LocalRank::group(3, LONG).unwrap();
        let outputs = on_threads(
            ranks,
            |_| context(),
            |rank, context| {
                if rank.rank() == late {
                    thread::sleep(Duration::from_millis(100));
                }
                train(&shards, &rank, &context, OPTIONS)
            },
        );
        if let Some(first) = &first {
            for (got, expected) in outputs.iter().zip(first) {
                assert_same("late", &got.0, &expected.0);
                assert_eq!(got.1, expected.1);
            }
        }
        first.get_or_insert(outputs);
    }
}

#[test]
fn every_rank_can_have_a_device_of_its_own() {
    let shards = Shards::new(12, &[2, 4], &[3, 5], Layout::ChannelsFirst);
    let options = OPTIONS.momentum(Momentum::Cumulative);
    let ranks = LocalRank::group(2, LONG).unwrap();
    let outputs =
        on_threads(ranks, |_| own_context(), |rank, context| train(&shards, &rank, &context, options));
    assert_train("devices", &shards.whole, 1e-5, &together(&outputs));
    assert_eq!(outputs[0].1, outputs[1].1);
}

#[test]
fn a_world_of_one_is_batch_norm_and_converts_both_ways() {
    let context = context();
    let whole = Inputs::new(3, &[3, 4, 5]);
    let layer = whole.layer(&context, OPTIONS);
    let (x, dy) = (whole.upload_x(&context), whole.upload_dy(&context));
    let mut layer = layer.synchronised(SingleRank::new());
    context.block_on(async {
        let (y, saved) = layer.train_forward(&x).await.unwrap();
        let gradients = layer.backward(&x, &dy, &saved).await.unwrap();
        let got = Outputs {
            y: context.download(&y).await.unwrap(),
            dx: context.download(&gradients.dx).await.unwrap(),
            dgamma: Some(context.download(&gradients.dgamma.unwrap()).await.unwrap()),
            dbeta: Some(context.download(&gradients.dbeta.unwrap()).await.unwrap()),
        };
        assert_train("world of one", &whole, 1e-5, &got);
    });
    let before = download_running(&context, layer.local().running());
    let (gamma, options) = (download(&context, layer.local().gamma().unwrap()), *layer.local().options());
    let layer: BatchNorm = layer.into_local();
    assert_eq!(download_running(&context, layer.running()), before);
    assert_eq!(bits(&download(&context, layer.gamma().unwrap())), bits(&gamma));
    assert_eq!(layer.options(), &options);
    let frozen = layer.synchronised(SingleRank::new()).freeze();
    assert_eq!(download_running(&context, frozen.running()), before);
}

/// Two layers over one collective, prepared once and run twice, fused, with 16 bits, masked on one rank.
#[test]
fn layers_share_a_collective_and_prepared_passes_repeat() {
    let options = OPTIONS.activation(Activation::Relu);
    let ranks = LocalRank::group(2, LONG).unwrap();
    let results = on_threads(
        ranks,
        |_| context(),
        |rank, context| {
            let r = rank.rank();
            let shared = Arc::new(rank);
            let whole = Inputs::new(20 + r as u64, &[2 + r, 4, 6]);
            let place = |values: &[f32], dtype| {
                context.block_on(context.upload_as(&whole.dims, values, dtype)).unwrap()
            };
            context.block_on(async {
                let mut counts = Vec::new();
                for dtype in [DType::F32, DType::Bf16] {
                    let (x, dy) = (place(&whole.x, dtype), place(&whole.dy, dtype));
                    let residual = place(&whole.dy, dtype);
                    let keep: Vec<bool> = (0..6 * (2 + r)).map(|i| r == 0 || i % 3 > 0).collect();
                    let mask = Mask::of_positions(&context, &x, &keep).await.unwrap();
                    let input = x.with_residual(&residual).masked(&mask);
                    // The same parameters on all ranks.
                    let mut layer =
                        Inputs::new(1, &[1, 4]).layer(&context, options).synchronised(shared.clone());
                    let y = context.zeros_like(&x).await.unwrap();
                    let dx = context.zeros_like(&x).await.unwrap();
                    let saved = Saved::new(&context, &x).await.unwrap().pooled();
                    let mut forward = layer.prepare_train_forward(input, &y, Some(&saved)).await.unwrap();
                    let targets = GradientTargets::default().dx(&dx);
                    let mut backward = layer.prepare_backward(input, &dy, &saved, &targets).await.unwrap();
                    let mut rounds = Vec::new();
                    for _ in 0..2 {
                        layer.submit_forward(&mut forward).await.unwrap();
                        layer.submit_backward(&mut backward).await.unwrap();
                        rounds.push((
                            bits(&context.download(&y).await.unwrap()),
                            bits(&context.download(&dx).await.unwrap()),
                        ));
                    }
                    assert_eq!(rounds[0], rounds[1]);
                    assert_eq!(forward.pooled().count(), Some(12 + 12));
                    let local = forward.local().download(&context).await.unwrap();
                    counts.push(local[0].count);
                    let sums = backward.pooled().download(&context).await.unwrap();
                    assert!(sums.iter().all(|sums| sums.dz.is_finite()));
                    assert_eq!(layer.local().running().download(&context).await.unwrap().batches, 9);
                }
                counts
            })
        },
    );
    assert_eq!(results, [vec![12, 12], vec![12, 12]]);
}

#[test]
fn a_rank_that_fails_fails_the_others() {
    let whole = Inputs::new(3, &[2, 4, 5]);
    let ranks = LocalRank::group(3, LONG).unwrap();
    let results = on_threads(
        ranks,
        |_| context(),
        |rank, context| {
            let mut layer = whole.layer(&context, OPTIONS).synchronised(&rank);
            // One rank has another number of channels than its layer.
            let dims: &[usize] = if rank.rank() == 1 { &[2, 3, 5] } else { &[2, 4, 5] };
            let x = zeros(&context, dims);
            let first = context.block_on(layer.train_forward(&x)).map(drop);
            let good = zeros(&context, &[2, 4, 5]);
            let second = context.block_on(layer.train_forward(&good)).map(drop);
            (first, second, download_running(&context, layer.into_local().running()))
        },
    );
    for (i, (first, second, running)) in results.into_iter().enumerate() {
        match (i, first) {
            (1, Err(Error::Channels { expected: 4, got: 3, .. })) => {}
            (
                0 | 2,
                Err(Error::Collective { failure: CollectiveFailure::Failed { rank: 1, reason }, .. }),
            ) => {
                assert!(reason.contains("x must have 4 channels, got 3"), "{reason}");
            }
            (_, other) => panic!("rank {i}: {other:?}"),
        }
        refused!(second, Error::Collective { earlier: true, .. });
        assert_eq!(running, whole.running);
    }
}

/// A rank whose others never come.
#[derive(Default)]
struct Alone(Mutex<Option<String>>);

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        2
    }

    async fn all_gather(&self, _: Vec<u8>) -> wgnorm::Result<Vec<Vec<u8>>> {
        std::future::pending().await
    }

    fn fail(&self, reason: &str) {
        self.0.lock().unwrap().get_or_insert(reason.to_owned());
    }
}

#[test]
fn a_call_that_is_dropped_is_told() {
    let context = context();
    let layer = context.block_on(BatchNorm::new(&context, 3, OPTIONS)).unwrap();
    let alone = Alone::default();
    let mut layer = layer.synchronised(&alone);
    let (x, y) = (zeros(&context, &[2, 3]), zeros(&context, &[2, 3]));
    let mut forward = context.block_on(layer.prepare_train_forward(&x, &y, None)).unwrap();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut call = Box::pin(layer.submit_forward(&mut forward));
    assert!(call.as_mut().poll(&mut cx).is_pending());
    assert_eq!(*alone.0.lock().unwrap(), None);
    drop(call);
    assert_eq!(alone.0.lock().unwrap().as_deref(), Some("its operation was cancelled"));
}

#[test]
fn layers_of_other_sizes_are_an_error_on_all_ranks() {
    let ranks = LocalRank::group(2, LONG).unwrap();
    let results = on_threads(
        ranks,
        |_| context(),
        |rank, context| {
            let channels = 3 + rank.rank();
            let layer = context.block_on(BatchNorm::new(&context, channels, OPTIONS)).unwrap();
            let x = zeros(&context, &[2, channels]);
            context.block_on(layer.synchronised(&rank).train_forward(&x)).map(drop)
        },
    );
    for result in results {
        refused!(result, Error::Collective { failure: CollectiveFailure::Lengths { .. }, .. });
    }
}

#[test]
fn a_rank_that_stalls_is_not_waited_for() {
    let ranks = LocalRank::group(2, Duration::from_millis(300)).unwrap();
    let (done, wait) = std::sync::mpsc::channel();
    let wait = Mutex::new(wait);
    let results = on_threads(
        ranks,
        |_| context(),
        |rank, context| {
            if rank.rank() == 1 {
                // Alive, and silent until the other one has given up.
                wait.lock().unwrap().recv().unwrap();
                return Ok(());
            }
            let layer = context.block_on(BatchNorm::new(&context, 3, OPTIONS)).unwrap();
            let result = context.block_on(layer.synchronised(&rank).train_forward(&zeros(&context, &[2, 3])));
            done.send(()).unwrap();
            result.map(drop)
        },
    );
    match &results[0] {
        Err(Error::Collective { failure: CollectiveFailure::Deadline { missing, .. }, .. }) => {
            assert_eq!(missing.as_deref(), Some(&[1][..]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_value_in_all_is_an_error_on_all_ranks_and_ends_nothing() {
    let whole = Inputs::new(3, &[1, 4]);
    let ranks = LocalRank::group(2, LONG).unwrap();
    on_threads(
        ranks,
        |_| context(),
        |rank, context| {
            let mut layer = whole.layer(&context, OPTIONS).synchronised(&rank);
            let shard = zeros(&context, &[rank.rank(), 4]);
            refused!(context.block_on(layer.train_forward(&shard)), Error::SingleValue { .. });
            assert_eq!(download_running(&context, layer.local().running()), whole.running);
            // One value for each rank is two in all.
            let shard = zeros(&context, &[1, 4]);
            let (y, saved) = context.block_on(layer.train_forward(&shard)).unwrap();
            // The backward pass of the rank alone would be wrong.
            refused!(context.block_on(layer.local().backward(&shard, &y, &saved)), Error::Pooled);
            // Nothing anywhere: nothing happens.
            let nothing = zeros(&context, &[0, 4]);
            context.block_on(layer.train_forward(&nothing)).unwrap();
            assert_eq!(download_running(&context, layer.local().running()).batches, 8);
        },
    );
}
