//! Statistics that cover several tensors: accumulated, ghost and cross-iteration batch norm are batch norm of the
//! concatenation, of each part, of the last steps.

use wgnorm::norm::{CrossIteration, GhostSaved, MicroBatch, MicroBatchGradient};
use wgnorm::reference::{self, Statistics, WhereNan, bounds, reduce};
use wgnorm::statistics::{ChannelGradientSums, ChannelMoments, GradientSums, Moments, PooledMoments};
use wgnorm::{
    Accumulation, Activation, BatchNorm, BatchNormOptions, Context, Error, GradientTargets, Input, Layout,
    RunningValues, Saved, Tensor,
};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();

/// A batch in parts of these numbers of samples, whose means and scales differ by orders of magnitude.
fn hostile(seed: u64, samples: &[usize], rest: &[usize], layout: Layout) -> (Inputs, Vec<[Vec<f32>; 2]>) {
    let dims: Vec<usize> = [&[samples.iter().sum()], rest].concat();
    let mut whole = Inputs::of(seed, &dims, layout);
    let per_sample: usize = rest.iter().product();
    let parts: Vec<_> = samples
        .iter()
        .zip([0.0, 1e4, -300.0, 1e4, 2.0])
        .zip([1.0, 0.1, 50.0, 0.1, 1e-3])
        .enumerate()
        .map(|(i, ((&n, shift), scale))| {
            [
                values(seed + 10 + i as u64, n * per_sample, shift, scale),
                values(seed + 20 + i as u64, n * per_sample, 0.3, 1.0),
            ]
        })
        .collect();
    whole.x = parts.iter().flat_map(|[x, _]| x.clone()).collect();
    whole.dy = parts.iter().flat_map(|[_, dy]| dy.clone()).collect();
    (whole, parts)
}

fn uploaded(context: &Context, whole: &Inputs, samples: usize, values: &[f32]) -> Tensor {
    let mut dims = whole.dims.clone();
    dims[0] = samples;
    upload(context, &dims, values).with_layout(whole.layout)
}

const SAMPLES: [usize; 5] = [2, 0, 7, 1, 3];

#[test]
fn micro_batches_are_one_batch() {
    for (rest, layout) in [
        (&[5, 3, 7][..], Layout::ChannelsFirst),
        (&[3, 7, 5], Layout::ChannelsLast),
        (&[6], Layout::ChannelsFirst),
    ] {
        for (name, context) in few_contexts() {
            let (whole, parts) = hostile(31, &SAMPLES, rest, layout);
            let mut layer = whole.layer(&context, OPTIONS);
            let place = |k: usize| {
                SAMPLES.iter().zip(&parts).map(|(&n, part)| uploaded(&context, &whole, n, &part[k])).collect()
            };
            let (x, dy): (Vec<Tensor>, Vec<Tensor>) = (place(0), place(1));
            let inputs: Vec<Input> = x.iter().map(Into::into).collect();
            let (y, gradients) = context.block_on(async {
                let outputs = layer.train_forward_accumulated(&inputs).await.unwrap();
                let saved: Vec<_> = outputs.iter().map(|(_, saved)| saved).collect();
                let dy: Vec<_> = dy.iter().collect();
                let gradients = layer.backward_accumulated(&inputs, &dy, &saved).await.unwrap();
                (outputs.into_iter().map(|(y, _)| y).collect::<Vec<_>>(), gradients)
            });
            let all = |tensors: &[Tensor]| tensors.iter().flat_map(|t| download(&context, t)).collect();
            let got = Outputs {
                y: all(&y),
                dx: all(&gradients.dx),
                dgamma: gradients.dgamma.as_ref().map(|t| download(&context, t)),
                dbeta: gradients.dbeta.as_ref().map(|t| download(&context, t)),
            };
            let what = format!("{rest:?} {name}");
            assert_train(&what, &whole, 1e-5, &got);
            assert_running(&what, &whole, &download_running(&context, layer.running()));
        }
    }
}

#[test]
fn prepared_micro_batches_can_be_recorded_again_and_accumulate() {
    let context = context();
    let options = OPTIONS.activation(Activation::Relu);
    let (whole, parts) = hostile(7, &[2, 3], &[4, 6], Layout::ChannelsFirst);
    let mut layer = whole.layer(&context, options);
    let residual = values(3, 120, 0.0, 1.0);
    let tensors: Vec<_> = [(2, 0..2), (3, 2..5)]
        .into_iter()
        .zip(&parts)
        .map(|((n, range), [x, dy])| {
            let residual = &residual[24 * range.start..24 * range.end];
            [x, dy, residual].map(|values| uploaded(&context, &whole, n, values))
        })
        .collect();
    context.block_on(async {
        let mut outputs = Vec::new();
        for [x, ..] in &tensors {
            let [y, dx, dr] = [(); 3].map(|()| zeros(&context, x.shape().dims()));
            outputs.push((y, dx, dr, Saved::new(&context, x).await.unwrap().pooled()));
        }
        let forward: Vec<_> = tensors
            .iter()
            .zip(&outputs)
            .map(|([x, _, residual], (y, .., saved))| MicroBatch {
                input: x.with_residual(residual),
                y,
                saved,
            })
            .collect();
        let backward: Vec<_> = tensors
            .iter()
            .zip(&outputs)
            .map(|([x, dy, residual], (_, dx, dr, saved))| MicroBatchGradient {
                input: x.with_residual(residual),
                dy,
                saved,
                dx,
                d_residual: Some(dr),
            })
            .collect();
        let [dgamma, dbeta] = [(); 2].map(|()| zeros(&context, &[4]));
        let parameters =
            GradientTargets::default().dgamma(&dgamma).dbeta(&dbeta).accumulation(Accumulation::Add);
        let forward = layer.prepare_train_forward_accumulated(&forward).await.unwrap();
        let backward = layer.prepare_backward_accumulated(&backward, &parameters).await.unwrap();
        // 20 samples-by-channel of 6: x twice, y and the residual.
        assert_eq!(forward.traffic().plan_bytes, 4 * 120 * 4);
        let mut first = None;
        for round in 1..=2 {
            layer.submit(&forward).await.unwrap();
            context.submit(&[&backward]).await.unwrap();
            let mut now = Vec::new();
            for (y, dx, dr, _) in &outputs {
                for tensor in [y, dx, dr] {
                    now.push(bits(&context.download(tensor).await.unwrap()));
                }
            }
            let dbeta = context.download(&dbeta).await.unwrap();
            match &first {
                None => first = Some((now, dbeta)),
                Some((before, once)) => {
                    assert_eq!(&now, before);
                    for (twice, once) in dbeta.iter().zip(once) {
                        assert!((twice - round as f32 * once).abs() <= 1e-5 * once.abs(), "{twice} {once}");
                    }
                }
            }
        }
        assert_eq!(layer.running().download(&context).await.unwrap().batches, 9);
        // With the same bits as one batch that has a residual and an activation: close to it, since the order of sums differs.
        let x = upload(&context, &whole.dims, &whole.x);
        let dy = upload(&context, &whole.dims, &whole.dy);
        let r = upload(&context, &whole.dims, &residual);
        let mut one = whole.layer(&context, options);
        let (y, saved) = one.train_forward(x.with_residual(&r)).await.unwrap();
        let gradients = one.backward(x.with_residual(&r), &dy, &saved).await.unwrap();
        let (now, _) = first.unwrap();
        for (k, tensor) in [&y, &gradients.dx, gradients.d_residual.as_ref().unwrap()].into_iter().enumerate()
        {
            let expected = wide(&context.download(tensor).await.unwrap());
            let got: Vec<f32> =
                [k, 3 + k].iter().flat_map(|&i| &now[i]).map(|&b| f32::from_bits(b)).collect();
            let scale = expected.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
            assert_within(&format!("tensor {k}"), &got, &expected, WhereNan::Nan, |_| 1e-4 * scale);
        }
    });
}

#[test]
fn ghost_batches_are_normalized_by_themselves() {
    for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
        for (name, context) in few_contexts() {
            let dims: &[usize] = if layout == Layout::ChannelsFirst { &[7, 3, 5] } else { &[7, 5, 3] };
            let mut whole = Inputs::of(5, dims, layout);
            for (sample, x) in whole.x.chunks_mut(15).enumerate() {
                x.iter_mut().for_each(|x| *x += 1000.0 * (sample / 3) as f32);
            }
            let x = whole.upload_x(&context).with_layout(layout);
            let dy = whole.upload_dy(&context).with_layout(layout);
            let mut layer = whole.layer(&context, OPTIONS);
            let (y, gradients, parts) = context.block_on(async {
                let (y, saved) = layer.train_forward_ghost(&x, 3).await.unwrap();
                let parts = saved.parts().len();
                (y, layer.backward_ghost(&x, &dy, &saved).await.unwrap(), parts)
            });
            assert_eq!(parts, 3);
            let what = format!("{layout:?} {name}");
            assert_running(&what, &whole, &download_running(&context, layer.running()));
            let (y, dx) = (download(&context, &y), download(&context, &gradients.dx));
            let mut sums = [vec![0.0; 3], vec![0.0; 3]];
            for range in [0..3, 3..6, 6..7] {
                let n = range.len();
                let at = 15 * range.start..15 * range.end;
                let mut dims = dims.to_vec();
                dims[0] = n;
                let part = Inputs {
                    dims,
                    x: whole.x[at.clone()].to_vec(),
                    dy: whole.dy[at.clone()].to_vec(),
                    ..whole.clone()
                };
                let got =
                    Outputs { y: y[at.clone()].to_vec(), dx: dx[at].to_vec(), dgamma: None, dbeta: None };
                let (wide_x, wide_dy) = (wide(&part.x), wide(&part.dy));
                let s = reference::batch::train_forward(&wide_x, part.view(), None, None, 1e-5).statistics;
                for (c, s) in reduce::gradient_sums(&wide_x, &wide_dy, part.view(), &s).iter().enumerate() {
                    sums[0][c] += s.dy_xhat;
                    sums[1][c] += s.dy;
                }
                assert_forward_and_dx(&format!("{what} {range:?}"), &part, &got);
            }
            for (got, expected) in [gradients.dgamma, gradients.dbeta].iter().zip(&sums) {
                let got = download(&context, got.as_ref().unwrap());
                assert_within(&what, &got, expected, WhereNan::Nan, |_| 1e-4);
            }
        }
    }
}

/// As `assert_train`, without parameter gradients.
fn assert_forward_and_dx(what: &str, inputs: &Inputs, got: &Outputs) {
    let view = inputs.view();
    let (x, dy) = (wide(&inputs.x), wide(&inputs.dy));
    let (gamma, beta) = (wide(inputs.gamma.as_ref().unwrap()), wide(inputs.beta.as_ref().unwrap()));
    let forward = reference::batch::train_forward(&x, view, Some(&gamma), Some(&beta), 1e-5);
    let s = &forward.statistics;
    let backward = reference::batch::backward(&x, &dy, view, s, Some(&gamma));
    let sums = reduce::gradient_sums(&x, &dy, view, s);
    let m = bounds::magnitudes(&x, &dy, view, s);
    let channel = channel_of(view);
    assert_within(&format!("{what}: y"), &got.y, &forward.y, WhereNan::Nan, |i| {
        bounds::y(&s[channel(i)], x[i], gamma[channel(i)], beta[channel(i)])
    });
    assert_within(&format!("{what}: dx"), &got.dx, &backward.dx, WhereNan::Nan, |i| {
        let c = channel(i);
        bounds::dx(&s[c], &m[c], &sums[c], view, x[i], dy[i], gamma[c])
    });
}

#[test]
fn cross_iteration_takes_the_last_steps_and_their_values_as_constants() {
    let context = context();
    let whole = Inputs::new(3, &[2, 3, 4]);
    let mut layer = whole.layer(&context, OPTIONS);
    let mut last = CrossIteration::new(3).unwrap();
    let steps: Vec<Vec<f32>> = [(0.0, 1.0), (500.0, 2.0), (-3.0, 0.1), (1000.0, 1.0), (7.0, 4.0)]
        .iter()
        .enumerate()
        .map(|(i, &(shift, scale))| values(60 + i as u64, 24, shift, scale))
        .collect();
    let dy = upload(&context, &whole.dims, &whole.dy);
    let (gamma, beta) = (wide(whole.gamma.as_ref().unwrap()), wide(whole.beta.as_ref().unwrap()));
    for (i, values) in steps.iter().enumerate() {
        let x = upload(&context, &whole.dims, values);
        let (y, dx) = context.block_on(async {
            let (y, saved) = last.train_forward(&mut layer, &x).await.unwrap();
            let gradients = last.backward(&layer, &x, &dy, &saved).await.unwrap();
            (context.download(&y).await.unwrap(), context.download(&gradients.dx).await.unwrap())
        });
        // The reference: batch norm of the last steps together, the current one last, with dy 0 in those before.
        let first = (i + 1).saturating_sub(3);
        let n = i + 1 - first;
        assert_eq!(last.held(), n);
        let all: Vec<f32> = steps[first..=i].concat();
        let mut all_dy = vec![0.0; 24 * (n - 1)];
        all_dy.extend(wide(&whole.dy));
        let pool = Inputs { dims: vec![2 * n, 3, 4], x: all, ..whole.clone() };
        let (view, x) = (pool.view(), wide(&pool.x));
        let forward = reference::batch::train_forward(&x, view, Some(&gamma), Some(&beta), 1e-5);
        let s = &forward.statistics;
        let backward = reference::batch::backward(&x, &all_dy, view, s, Some(&gamma));
        let sums = reduce::gradient_sums(&x, &all_dy, view, s);
        let m = bounds::magnitudes(&x, &all_dy, view, s);
        let (at, channel) = (24 * (n - 1), channel_of(view));
        assert_within(&format!("step {i}: y"), &y, &forward.y[at..], WhereNan::Nan, |k| {
            let c = channel(at + k);
            bounds::y(&s[c], x[at + k], gamma[c], beta[c])
        });
        assert_within(&format!("step {i}: dx"), &dx, &backward.dx[at..], WhereNan::Nan, |k| {
            let c = channel(at + k);
            bounds::dx(&s[c], &m[c], &sums[c], view, x[at + k], all_dy[at + k], gamma[c])
        });
    }
    // Each batch entered the running statistics once, by itself.
    let mut expected = whole.clone();
    for values in &steps {
        expected.x = values.clone();
        let before = expected.running.clone();
        let after: Vec<_> = reduce::moments(&wide(values), expected.view())
            .into_iter()
            .enumerate()
            .map(|(c, batch)| {
                let running = reference::fold::Running {
                    mean: before.mean[c].into(),
                    var: before.var[c].into(),
                    batches: before.batches.into(),
                };
                running.update(batch, OPTIONS.momentum, OPTIONS.running_variance)
            })
            .collect();
        expected.running = RunningValues {
            mean: after.iter().map(|r| r.mean as f32).collect(),
            var: after.iter().map(|r| r.var as f32).collect(),
            batches: before.batches + 1,
        };
    }
    let got = download_running(&context, layer.running());
    assert_eq!(got.batches, expected.running.batches);
    let close = |got: &[f32], expected: &[f32]| {
        got.iter().zip(expected).all(|(g, e)| (g - e).abs() <= 1e-5 * e.abs().max(1.0))
    };
    assert!(close(&got.mean, &expected.running.mean) && close(&got.var, &expected.running.var), "{got:?}");
    last.clear();
    assert_eq!(last.held(), 0);
}

#[test]
fn gradient_sums_are_a_value() {
    let context = context();
    context.block_on(async {
        let one = |dz, dz_xhat| ChannelGradientSums { dz, dz_xhat };
        let mut sums = GradientSums::upload(&context, &[one(1.0, 2.0), one(-1.0, 0.5)]).await.unwrap();
        let other = GradientSums::upload(&context, &[one(10.0, 20.0), one(0.0, 0.25)]).await.unwrap();
        sums.merge(&context, &other).await.unwrap();
        assert_eq!(sums.download(&context).await.unwrap(), [one(11.0, 22.0), one(-1.0, 0.75)]);
        sums.write(&context, &[one(3.0, 4.0), one(5.0, 6.0)]).await.unwrap();
        assert_eq!(sums.download(&context).await.unwrap(), [one(3.0, 4.0), one(5.0, 6.0)]);
        assert_eq!(sums.channels(), 2);
        refused!(sums.write(&context, &[one(0.0, 0.0)]).await, Error::Channels { expected: 2, got: 1, .. });
        refused!(GradientSums::upload(&context, &[]).await, Error::Channels { got: 0, .. });
        let three = GradientSums::empty(&context, 3).await.unwrap();
        refused!(sums.merge(&context, &three).await, Error::Channels { expected: 2, got: 3, .. });
        refused!(sums.merge(&own_context(), &other).await, Error::ForeignDevice { .. });
    });
}

#[test]
fn running_statistics_can_be_set_and_reset() {
    let context = context();
    let whole = Inputs::new(1, &[2, 3, 4]);
    let mut layer = whole.layer(&context, OPTIONS);
    context.block_on(async {
        let values = RunningValues { mean: vec![1.0, 2.0, 3.0], var: vec![4.0, 5.0, 6.0], batches: 70 };
        layer.set_running(&values).await.unwrap();
        assert_eq!(layer.running().download(&context).await.unwrap(), values);
        let short = RunningValues { mean: vec![1.0; 2], var: vec![1.0; 2], batches: 0 };
        refused!(layer.set_running(&short).await, Error::Channels { expected: 3, got: 2, .. });
        let uneven = RunningValues { var: vec![1.0; 2], ..values.clone() };
        refused!(layer.set_running(&uneven).await, Error::Length { expected: 3, got: 2, .. });
        assert_eq!(layer.running().download(&context).await.unwrap(), values);
        layer.reset_running().await.unwrap();
        assert_eq!(layer.running().download(&context).await.unwrap(), RunningValues::initial(3));
    });
}

#[test]
fn an_update_alone_is_that_of_a_forward_pass() {
    for (name, context) in few_contexts() {
        let whole = Inputs::new(1, &[4, 3, 5]);
        let x = upload(&context, &whole.dims, &whole.x);
        let [mut by_map, mut alone, mut empty] = [(); 3].map(|()| whole.layer(&context, OPTIONS));
        context.block_on(async {
            let moments = Moments::of(&context, &x).await.unwrap();
            by_map.train_forward(x.with_moments(&moments)).await.unwrap();
            alone.update_running(&moments).await.unwrap();
            let nothing = context.zeros(&[0, 3, 5]).await.unwrap();
            let (y, _) = empty.train_forward(nothing.with_moments(&moments)).await.unwrap();
            assert_eq!(y.shape().len(), 0);
        });
        let expected = running_bits(&download_running(&context, by_map.running()));
        for layer in [alone, empty] {
            assert_eq!(running_bits(&download_running(&context, layer.running())), expected, "{name}");
        }
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let context = context();
    let whole = Inputs::new(1, &[4, 3, 5]);
    let x = upload(&context, &whole.dims, &whole.x);
    let mut layer: BatchNorm = whole.layer(&context, OPTIONS);
    context.block_on(async {
        let moments = Moments::of(&context, &x).await.unwrap();
        let (y, saved) = layer.train_forward_untracked(x.with_moments(&moments)).await.unwrap();
        refused!(layer.backward(&x, &y, &saved).await, Error::Pooled);
        let (sums, _) = layer.gradient_sums(&x, &y, &saved).await.unwrap();
        let (t, none) = (&y, GradientTargets::default());
        let dx = zeros(&context, &whole.dims);
        let dx_too = none.dx(&dx);
        refused!(
            layer.prepare_gradient_sums(&x, t, &saved, &dx_too).await,
            Error::NotHere { gradient: "dx", .. }
        );
        let dbeta = zeros(&context, &[3]);
        let dbeta_too = dx_too.dbeta(&dbeta);
        refused!(
            layer.prepare_backward_from(&sums, &x, t, &saved, &dbeta_too).await,
            Error::NotHere { gradient: "dbeta", .. }
        );
        refused!(layer.prepare_backward_from(&sums, &x, t, &saved, &none).await, Error::NoGradient);
        let two = GradientSums::empty(&context, 2).await.unwrap();
        refused!(layer.backward_from(&two, &x, t, &saved).await, Error::Channels { expected: 3, got: 2, .. });
        let other = zeros(&context, &[3, 3, 5]);
        refused!(layer.gradient_sums(&other, &other, &saved).await, Error::Count { .. });

        let empty = zeros(&context, &[0, 3, 5]);
        let of_two = Moments::of(&context, &zeros(&context, &[2, 2])).await.unwrap();
        refused!(
            layer.train_forward_untracked(empty.with_moments(&of_two)).await,
            Error::Channels { expected: 3, got: 2, .. }
        );
        refused!(
            Moments::upload(&context, &[ChannelMoments { count: 2, var: -1.0, ..Default::default() }]).await,
            Error::Value { got: -1.0, .. }
        );
        // Nothing changes nothing.
        layer.update_running(&Moments::empty(&context, 3).await.unwrap()).await.unwrap();

        refused!(layer.train_forward_accumulated(&[]).await, Error::Empty { .. });
        let nothing = zeros(&context, &[0, 3, 5]);
        refused!(layer.train_forward_accumulated(&[(&nothing).into()]).await, Error::EmptyBatch { .. });
        let one = zeros(&context, &[1, 3]);
        refused!(
            layer.train_forward_accumulated(&[(&one).into(), (&nothing).into()]).await,
            Error::SingleValue { .. }
        );
        refused!(
            layer.backward_accumulated(&[(&x).into()], &[], &[]).await,
            Error::Number { expected: 1, got: 0, .. }
        );

        refused!(layer.train_forward_ghost(&x, 0).await, Error::GhostSize { samples: 4 });
        refused!(layer.train_forward_ghost(&nothing, 1).await, Error::EmptyBatch { .. });
        let flat = zeros(&context, &[3, 3]);
        refused!(layer.train_forward_ghost(&flat, 2).await, Error::SingleValue { .. });
        let ghost = GhostSaved::new(&context, &other, 2).await.unwrap();
        refused!(layer.backward_ghost(&x, t, &ghost).await, Error::Number { expected: 3, got: 4, .. });
        refused!(CrossIteration::new(0), Error::Empty { .. });
        refused!(
            CrossIteration::new(2).unwrap().train_forward(&mut layer, &one).await,
            Error::SingleValue { .. }
        );
    });
    assert_eq!(download_running(&context, layer.running()), whole.running);
}

/// The statistics of a pooled forward pass are those of the pool.
#[test]
fn saved_statistics_are_those_of_the_pool() {
    let context = context();
    let (whole, parts) = hostile(3, &[2, 5], &[3, 4], Layout::ChannelsFirst);
    let layer = whole.layer(&context, OPTIONS);
    let statistics = context.block_on(async {
        let a = uploaded(&context, &whole, 2, &parts[0][0]);
        let b = uploaded(&context, &whole, 5, &parts[1][0]);
        let mut moments = Moments::of(&context, &a).await.unwrap();
        moments.merge(&context, &Moments::of(&context, &b).await.unwrap()).await.unwrap();
        assert_eq!(moments.count(), Some(28));
        let (_, saved) = layer.train_forward_untracked(a.with_moments(&moments)).await.unwrap();
        saved.download(&context).await.unwrap()
    });
    for (got, expected) in statistics.iter().zip(reduce::moments(&wide(&whole.x), whole.view())) {
        let s = Statistics::new(expected.mean, expected.var, 1e-5);
        assert_eq!(got.count, 28.0);
        assert!((got.mean() - s.mean).abs() <= 1e-6 * s.var.sqrt(), "{} {}", got.mean(), s.mean);
        assert!((f64::from(got.var) / s.var - 1.0).abs() <= 2e-6, "{} {}", got.var, s.var);
    }
}

/// Chunks of 0 to millions of values, with means that are far apart, in any order.
#[test]
fn chunks_of_any_size_merge_to_the_whole() {
    let context = context();
    let chunks: Vec<Vec<f32>> =
        [(0, 0.0, 1.0), (1, -7e5, 0.0), (3_000_000, 1e4, 0.1), (7, 3.0, 100.0), (40_000, -1e4, 2.0)]
            .into_iter()
            .enumerate()
            .map(|(i, (n, mean, std))| normal(70 + i as u64, n, mean, std))
            .collect();
    let all: Vec<f64> = chunks.iter().flat_map(|chunk| wide(chunk)).collect();
    let n = all.len() as f64;
    let mean = all.iter().sum::<f64>() / n;
    let var = all.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let on_gpu: Vec<Tensor> = chunks.iter().map(|chunk| upload(&context, &[chunk.len(), 1], chunk)).collect();
    for first in 0..chunks.len() {
        let order = (0..chunks.len()).map(|i| (first + i) % chunks.len());
        let (merged, pooled) = context.block_on(async {
            let mut merged = Moments::empty(&context, 1).await.unwrap();
            let mut pooled = PooledMoments::default();
            for i in order {
                let moments = Moments::of(&context, &on_gpu[i]).await.unwrap();
                merged.merge(&context, &moments).await.unwrap();
                pooled = pooled.merge(moments.download(&context).await.unwrap()[0].into());
            }
            (merged.download(&context).await.unwrap()[0], pooled)
        });
        for (count, got_mean, got_var) in
            [(merged.count, merged.mean(), f64::from(merged.var)), (pooled.count, pooled.mean, pooled.var)]
        {
            assert_eq!(count, all.len() as u64);
            assert!((got_mean - mean).abs() <= 1e-6 * var.sqrt(), "from {first}: {got_mean} {mean}");
            assert!((got_var / var - 1.0).abs() <= 2e-6, "from {first}: {got_var} {var}");
        }
    }
}
