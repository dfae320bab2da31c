//! Folds: merging moments, updating running statistics, writing and adding parameter gradients.

use wgnorm::reference::fold::Running;
use wgnorm::reference::{Moments as Exact, Statistics, WhereNan, bounds, reduce};
use wgnorm::statistics::{ChannelMoments, Moments};
use wgnorm::{
    Accumulation, BatchNormOptions, Context, Error, GradientTargets, Layout, Momentum, RunningValues,
    RunningVariance, Saved, Shape,
};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();

fn upload_moments(context: &Context, moments: &[ChannelMoments]) -> Moments {
    context.block_on(Moments::upload(context, moments)).unwrap()
}

fn merged(context: &Context, parts: &[Moments]) -> Vec<ChannelMoments> {
    context.block_on(async {
        let mut whole = Moments::empty(context, parts[0].channels() as usize).await.unwrap();
        for part in parts {
            whole.merge(context, part).await.unwrap();
        }
        whole.download(context).await.unwrap()
    })
}

/// Bits of the moments, which tell -0 from 0 and NaN from NaN.
fn moments_bits(moments: &[ChannelMoments]) -> Vec<(u64, u32, u32, u32)> {
    moments.iter().map(|m| (m.count, m.shift.to_bits(), m.delta.to_bits(), m.var.to_bits())).collect()
}

/// The reference of merging uploaded moments.
fn exact(moments: &ChannelMoments) -> Exact {
    Exact { count: moments.count, mean: moments.mean(), var: moments.var.into() }
}

#[track_caller]
fn assert_close(what: &str, got: &ChannelMoments, expected: Exact) {
    assert_eq!(got.count, expected.count, "{what}");
    let s = Statistics::new(expected.mean, expected.var, 0.0);
    let error = (got.mean() - expected.mean).abs();
    let bound = bounds::MEAN * bounds::U * expected.var.sqrt();
    assert!(error <= bound, "{what}: mean off by {error:e}, allowed {bound:e}");
    let error = (f64::from(got.var) - expected.var).abs();
    assert!(error <= bounds::var(&s), "{what}: variance {} for {}", got.var, expected.var);
}

#[test]
fn parts_merge_to_the_whole() {
    for (name, context) in few_contexts() {
        // Means far apart, and means far above the standard deviation.
        for means in [[0.0; 4], [0.0, 1e4, -3.0, 1e4], [1e4; 4]] {
            let (mut parts, mut whole) = (Vec::new(), vec![Vec::new(); 3]);
            for (i, (dims, mean)) in
                [&[2, 3, 5][..], &[0, 3], &[1, 3, 7, 4], &[300, 3]].into_iter().zip(means).enumerate()
            {
                let view = Shape::new(dims).unwrap().channels(Layout::ChannelsFirst).unwrap();
                let x = normal(i as u64, dims.iter().product(), mean, 0.1);
                for (c, all) in whole.iter_mut().enumerate() {
                    all.extend(reduce::channel(view, c as u64).map(|i| f64::from(x[i])));
                }
                let x = placed(&context, dims, &x, 0);
                parts.push(context.block_on(Moments::of(&context, &x)).unwrap());
            }
            for (c, got) in merged(&context, &parts).iter().enumerate() {
                let view =
                    Shape::new(&[1, 1, whole[c].len()]).unwrap().channels(Layout::ChannelsFirst).unwrap();
                let expected = reduce::moments(&whole[c], view)[0];
                assert_close(&format!("{name} means {means:?} channel {c}"), got, expected);
            }
        }
    }
}

#[test]
fn no_values_are_the_identity_of_merging() {
    let context = context();
    // A mean whose delta is not the remainder of its shift would show a renormalisation.
    let some: Vec<_> = [1.0, -0.0, f32::NAN, f32::INFINITY]
        .map(|shift| ChannelMoments { count: 3, shift, delta: 0.25, var: 2.0 })
        .into();
    for (a, b) in [
        (some.clone(), vec![ChannelMoments::default(); 4]),
        (vec![ChannelMoments::default(); 4], some.clone()),
    ] {
        context.block_on(async {
            let mut a = Moments::upload(&context, &a).await.unwrap();
            let b = Moments::upload(&context, &b).await.unwrap();
            a.merge(&context, &b).await.unwrap();
            assert_eq!(moments_bits(&a.download(&context).await.unwrap()), moments_bits(&some));
            assert_eq!(a.count(), Some(3));
        });
    }
}

#[test]
fn counts_carry_beyond_32_bits() {
    let context = context();
    let max = u64::from(u32::MAX);
    for (a, b) in
        [(max, 1), (1, max), (max, max), (max + 1, 5), (3 << 32, (5 << 32) + max), (1 << 40, 1 << 39)]
    {
        let left = ChannelMoments { count: a, shift: 1.0, delta: 1e-9, var: 2.0 };
        let right = ChannelMoments { count: b, shift: 3.0, delta: -1e-8, var: 0.5 };
        let got = merged(&context, &[upload_moments(&context, &[left]), upload_moments(&context, &[right])]);
        assert_close(&format!("{a} + {b}"), &got[0], exact(&left).merge(exact(&right)));
    }
}

#[test]
fn channels_merge_separately() {
    let context = context();
    // More channels than a workgroup has invocations.
    let moments = |seed: u64| -> Vec<ChannelMoments> {
        (values(seed, 1000, 5.0, 1.0).iter().zip(values(seed + 1, 1000, 2.0, 1.0)))
            .enumerate()
            .map(|(i, (&shift, var))| ChannelMoments { count: seed + i as u64, shift, delta: 0.0, var })
            .collect()
    };
    let (a, b) = (moments(1), moments(7));
    let got = merged(&context, &[upload_moments(&context, &a), upload_moments(&context, &b)]);
    for (c, got) in got.iter().enumerate() {
        assert_close(&format!("channel {c}"), got, exact(&a[c]).merge(exact(&b[c])));
    }
}

#[test]
fn the_host_knows_the_count_where_all_channels_agree() {
    let context = context();
    let of = |count| ChannelMoments { count, ..Default::default() };
    let moments = |counts: [u64; 2]| upload_moments(&context, &counts.map(of));
    assert_eq!(moments([5, 5]).count(), Some(5));
    assert_eq!(moments([5, 6]).count(), None);
    let merge = |a: [u64; 2], b: [u64; 2]| {
        let mut a = moments(a);
        context.block_on(a.merge(&context, &moments(b))).unwrap();
        a.count()
    };
    assert_eq!(merge([5, 5], [u64::from(u32::MAX); 2]), Some(u64::from(u32::MAX) + 5));
    assert_eq!(merge([5, 5], [5, 6]), None);
    assert_eq!(merge([5, 6], [5, 5]), None);
    assert_eq!(merge([u64::MAX; 2], [1, 1]), None);
    let x = upload(&context, &[2, 2, 3], &[0.0; 12]);
    assert_eq!(context.block_on(Moments::of(&context, &x)).unwrap().count(), Some(6));
}

#[test]
fn moments_of_other_channels_do_not_merge() {
    let context = context();
    let mut a = upload_moments(&context, &[ChannelMoments { count: 1, ..Default::default() }; 3]);
    let b = upload_moments(&context, &[ChannelMoments { count: 1, ..Default::default() }; 2]);
    refused!(context.block_on(a.merge(&context, &b)), Error::Channels { expected: 3, got: 2, .. });
    assert_eq!(a.count(), Some(1));
}

const CONVENTIONS: [Momentum; 3] =
    [Momentum::WeightOfNew(0.1), Momentum::WeightOfOld(0.99), Momentum::Cumulative];

#[test]
fn running_statistics_follow_every_convention() {
    for (name, context) in few_contexts() {
        for momentum in CONVENTIONS {
            for variance in [RunningVariance::Unbiased, RunningVariance::Biased] {
                let what = format!("{name} {momentum:?} {variance:?}");
                let inputs = Inputs::new(3, &[3, 5, 3, 2]);
                let mut layer = inputs.layer(&context, OPTIONS.momentum(momentum).running_variance(variance));
                let start = &inputs.running;
                let mut expected: Vec<_> = (0..5)
                    .map(|c| Running { mean: start.mean[c].into(), var: start.var[c].into(), batches: 7 })
                    .collect();
                for step in 0..5 {
                    let x = values(20 + step, 90, step as f32, 1.5);
                    let tensor = upload(&context, &inputs.dims, &x);
                    context.block_on(layer.train_forward(&tensor)).unwrap();
                    for (running, batch) in expected.iter_mut().zip(reduce::moments(&wide(&x), inputs.view()))
                    {
                        *running = running.update(batch, momentum, variance);
                    }
                }
                let got = download_running(&context, layer.running());
                assert_eq!(got.batches, 12, "{what}");
                // Five roundings of values up to six.
                let bound = |_| 5.0 * 6.0 * 8.0 * bounds::U;
                let mean: Vec<_> = expected.iter().map(|r| r.mean).collect();
                let var: Vec<_> = expected.iter().map(|r| r.var).collect();
                assert_within(&format!("{what} mean"), &got.mean, &mean, WhereNan::Nan, bound);
                assert_within(&format!("{what} var"), &got.var, &var, WhereNan::Nan, bound);
            }
        }
    }
}

/// The running statistics after one batch, in which channel 1 has a NaN if asked for.
fn after_a_batch(options: BatchNormOptions, start: &RunningValues, poison: bool) -> RunningValues {
    let context = context();
    let mut inputs = Inputs { running: start.clone(), ..Inputs::new(11, &[2, 3, 8]) };
    if poison {
        inputs.x[8] = f32::NAN;
    }
    let mut layer = inputs.layer(&context, options);
    train(&context, &inputs, &mut layer);
    download_running(&context, layer.running())
}

#[test]
fn a_batch_of_no_weight_changes_nothing_but_the_counter() {
    let start = RunningValues { mean: vec![1.5, -2.5, 0.1], var: vec![0.3, 0.7, f32::NAN], batches: 41 };
    for momentum in [Momentum::WeightOfNew(0.0), Momentum::WeightOfOld(1.0)] {
        let got = after_a_batch(OPTIONS.momentum(momentum), &start, true);
        let expected = RunningValues { batches: 42, ..start.clone() };
        assert_eq!(running_bits(&got), running_bits(&expected), "{momentum:?}");
    }
}

#[test]
fn a_batch_of_all_the_weight_replaces_even_nan() {
    let clean = RunningValues { mean: vec![0.0; 3], var: vec![1.0; 3], batches: 0 };
    let broken = RunningValues {
        mean: vec![f32::NAN, f32::INFINITY, 1.0],
        var: vec![f32::NEG_INFINITY, f32::NAN, f32::NAN],
        batches: 0,
    };
    for momentum in [Momentum::WeightOfNew(1.0), Momentum::WeightOfOld(0.0), Momentum::Cumulative] {
        let options = OPTIONS.momentum(momentum);
        let (a, b) = (after_a_batch(options, &clean, false), after_a_batch(options, &broken, false));
        assert!(a.mean.iter().chain(&a.var).all(|v| v.is_finite()), "{a:?}");
        assert_eq!(running_bits(&a), running_bits(&b), "{momentum:?}");
    }
}

#[test]
fn a_nan_enters_the_running_statistics_of_its_channel_alone() {
    let start = RunningValues { mean: vec![1.5, -2.5, 0.1], var: vec![0.3, 0.7, 1.0], batches: 0 };
    for momentum in CONVENTIONS {
        let options = OPTIONS.momentum(momentum);
        let (clean, poisoned) = (after_a_batch(options, &start, false), after_a_batch(options, &start, true));
        assert!(poisoned.mean[1].is_nan() && poisoned.var[1].is_nan(), "{poisoned:?}");
        for c in [0, 2] {
            assert_eq!(poisoned.mean[c].to_bits(), clean.mean[c].to_bits());
            assert_eq!(poisoned.var[c].to_bits(), clean.var[c].to_bits());
        }
    }
}

#[test]
fn a_pass_recorded_twice_updates_twice() {
    let context = context();
    for momentum in CONVENTIONS {
        let inputs = Inputs::new(4, &[2, 3, 4]);
        let (mut once, mut twice) = (
            inputs.layer(&context, OPTIONS.momentum(momentum)),
            inputs.layer(&context, OPTIONS.momentum(momentum)),
        );
        let x = upload(&context, &inputs.dims, &inputs.x);
        let y = zeros(&context, &inputs.dims);
        context.block_on(async {
            for _ in 0..2 {
                once.train_forward(&x).await.unwrap();
            }
            let forward = twice.prepare_train_forward(&x, &y, None).await.unwrap();
            let mut encoder = context.device().create_command_encoder(&Default::default());
            forward.record(&mut twice, &mut encoder).unwrap();
            let mut pass = encoder.begin_compute_pass(&Default::default());
            forward.record_in(&mut twice, &mut pass).unwrap();
            drop(pass);
            context.queue().submit([encoder.finish()]);
        });
        let (once, twice) =
            (download_running(&context, once.running()), download_running(&context, twice.running()));
        assert_eq!(twice.batches, 9);
        assert_eq!(running_bits(&once), running_bits(&twice), "{momentum:?}");
    }
}

#[test]
fn a_recording_that_is_dropped_changes_nothing() {
    let context = context();
    let inputs = Inputs::new(4, &[2, 3, 4]);
    let mut layer = inputs.layer(&context, OPTIONS);
    let x = upload(&context, &inputs.dims, &inputs.x);
    let y = upload(&context, &inputs.dims, &[1234.5; 24]);
    let forward = context.block_on(layer.prepare_train_forward(&x, &y, None)).unwrap();
    let mut encoder = context.device().create_command_encoder(&Default::default());
    forward.record(&mut layer, &mut encoder).unwrap();
    drop(encoder);
    assert_eq!(download_running(&context, layer.running()), inputs.running);
    assert_eq!(download(&context, &y), [1234.5; 24]);
    // Nor has it consumed anything.
    let mut encoder = context.device().create_command_encoder(&Default::default());
    forward.record(&mut layer, &mut encoder).unwrap();
    context.queue().submit([encoder.finish()]);
    assert_eq!(download_running(&context, layer.running()).batches, 8);
}

#[test]
fn gradients_are_written_or_added() {
    for (name, context) in few_contexts() {
        let inputs = Inputs::new(6, &[3, 5, 4, 4]);
        let x = upload(&context, &inputs.dims, &inputs.x);
        let dy = upload(&context, &inputs.dims, &inputs.dy);
        let saved = context.block_on(Saved::new(&context, &x)).unwrap();
        let mut layer = inputs.layer(&context, OPTIONS);
        let got = train(&context, &inputs, &mut layer);
        let forward = context.block_on(layer.prepare_train_forward_untracked(
            &x,
            &zeros(&context, &inputs.dims),
            Some(&saved),
        ));
        submit(&context, &[&forward.unwrap()]);
        let frozen_layer = inputs.layer(&context, OPTIONS).freeze();
        let frozen = frozen(&context, &inputs, OPTIONS);
        let start = values(9, 5, 0.0, 3.0);
        for with_dx in [true, false] {
            for (train, expected) in [(true, &got), (false, &frozen)] {
                for (accumulation, runs, keeps) in
                    [(Accumulation::Write, 2, 0.0), (Accumulation::Add, 1, 1.0), (Accumulation::Add, 2, 1.0)]
                {
                    let what = format!("{name} dx {with_dx} train {train} {accumulation:?} {runs} times");
                    let dx = upload(&context, &inputs.dims, &[f32::NAN; 240]);
                    let (dgamma, dbeta) = (upload(&context, &[5], &start), upload(&context, &[5], &start));
                    let targets = GradientTargets::default()
                        .dx(with_dx.then_some(&dx))
                        .dgamma(&dgamma)
                        .dbeta(&dbeta)
                        .accumulation(accumulation);
                    let backward = context.block_on(async {
                        match train {
                            true => layer.prepare_backward(&x, &dy, &saved, &targets).await.unwrap(),
                            false => frozen_layer.prepare_backward(&x, &dy, &targets).await.unwrap(),
                        }
                    });
                    submit(&context, &vec![&backward; runs]);
                    let added = if accumulation == Accumulation::Add { runs } else { 1 };
                    let sum = |gradient: &Option<Vec<f32>>| -> Vec<f32> {
                        let gradient = gradient.as_ref().unwrap();
                        // The same additions in the same order, so the same bits.
                        gradient
                            .iter()
                            .zip(&start)
                            .map(|(g, s)| (0..added).fold(s * keeps, |sum, _| sum + g))
                            .collect()
                    };
                    assert_eq!(download(&context, &dgamma), sum(&expected.dgamma), "{what}: dgamma");
                    assert_eq!(download(&context, &dbeta), sum(&expected.dbeta), "{what}: dbeta");
                    if with_dx {
                        assert_eq!(bits(&download(&context, &dx)), bits(&expected.dx), "{what}: dx");
                    }
                }
            }
        }
    }
}
