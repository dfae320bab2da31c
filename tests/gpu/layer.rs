//! The life of a layer: freezing, recomputing, moments from elsewhere, gradients one by one, batches of one and none.

use wgnorm::reference::{self, Statistics, WhereNan, bounds, reduce};
use wgnorm::statistics::{ChannelMoments, Moments};
use wgnorm::{
    Accumulation, Affine, BatchNorm, BatchNormOptions, Context, Error, FrozenBatchNorm, GradientTargets,
    Gradients, Layout, Momentum, RunningStatistics, RunningValues, RunningVariance, Saved, Tensor,
    TrainForward,
};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();
const EPS: f64 = 1e-5;
/// Odd channels; runs in and out of fours; both layouts; tensors that begin inside of words.
const CASES: [(Layout, &[usize], usize); 5] = [
    (Layout::ChannelsFirst, &[3, 5, 4, 6], 0),
    (Layout::ChannelsFirst, &[2, 3, 7, 5], 1),
    (Layout::ChannelsFirst, &[70, 5], 0),
    (Layout::ChannelsLast, &[2, 9, 2, 5], 3),
    (Layout::ChannelsLast, &[3, 11, 4], 0),
];

/// The inputs of each of these cases.
fn cases(seed: u64) -> impl Iterator<Item = Inputs> {
    CASES.into_iter().map(move |(layout, dims, offset)| Inputs { offset, ..Inputs::of(seed, dims, layout) })
}

fn affine(context: &Context, gamma: Option<&Tensor>, beta: Option<&Tensor>) -> [Option<Vec<u32>>; 2] {
    [gamma, beta].map(|tensor| tensor.map(|tensor| bits(&download(context, tensor))))
}

#[test]
fn freezing_keeps_parameters_and_running_statistics() {
    let context = context();
    let inputs = Inputs { offset: 3, ..Inputs::new(1, &[2, 3, 4]) };
    let options = OPTIONS.momentum(Momentum::Cumulative).eps(0.25);
    let layer = inputs.layer(&context, options);
    let before = affine(&context, layer.gamma(), layer.beta());
    assert_eq!(before, [bits(inputs.gamma.as_ref().unwrap()), bits(inputs.beta.as_ref().unwrap())].map(Some));
    let frozen = layer.freeze();
    assert_eq!(affine(&context, frozen.gamma(), frozen.beta()), before);
    assert_eq!(download_running(&context, frozen.running()), inputs.running);
    assert_eq!(frozen.options(), &options);
    let layer = frozen.unfreeze();
    assert_eq!(affine(&context, layer.gamma(), layer.beta()), before);
    assert_eq!(download_running(&context, layer.running()), inputs.running);
    assert_eq!(layer.options(), &options);
}

#[test]
fn a_prepared_pass_outlives_freezing_but_is_no_other_layers() {
    let context = context();
    let inputs = Inputs::new(2, &[2, 3, 4]);
    let (x, y) = (upload(&context, &inputs.dims, &inputs.x), zeros(&context, &inputs.dims));
    let mut layer = inputs.layer(&context, OPTIONS);
    let mut other = inputs.layer(&context, OPTIONS);
    let forward = context.block_on(layer.prepare_train_forward(&x, &y, None)).unwrap();
    let mut layer = layer.freeze().unfreeze();

    let mut encoder = context.device().create_command_encoder(&Default::default());
    refused!(forward.record(&mut other, &mut encoder), Error::WrongLayer);
    let mut pass = encoder.begin_compute_pass(&Default::default());
    refused!(forward.record_in(&mut other, &mut pass), Error::WrongLayer);
    drop(pass);
    forward.record(&mut layer, &mut encoder).unwrap();
    context.queue().submit([encoder.finish()]);
    assert_eq!(download_running(&context, layer.running()).batches, 8);
    assert_eq!(download_running(&context, other.running()), inputs.running);
}

#[test]
fn an_untracked_pass_gives_the_same_bits_and_leaves_the_statistics() {
    for (name, context) in few_contexts() {
        for inputs in cases(3) {
            let dims = &inputs.dims;
            let x = inputs.place_x(&context);
            let mut layer = inputs.layer(&context, OPTIONS);
            context.block_on(async {
                // Twice, as checkpointing does.
                let (first, first_saved) = layer.train_forward_untracked(&x).await.unwrap();
                let (again, again_saved) = layer.train_forward_untracked(&x).await.unwrap();
                assert_eq!(layer.running().download(&context).await.unwrap(), inputs.running, "{name}");
                let (tracked, tracked_saved) = layer.train_forward(&x).await.unwrap();
                assert_eq!(layer.running().download(&context).await.unwrap().batches, 8, "{name}");
                let expected = bits(&context.download(&tracked).await.unwrap());
                let statistics = tracked_saved.download(&context).await.unwrap();
                for (y, saved) in [(&first, &first_saved), (&again, &again_saved)] {
                    assert_eq!(bits(&context.download(y).await.unwrap()), expected, "{dims:?} {name}");
                    assert_eq!(saved.download(&context).await.unwrap(), statistics, "{dims:?} {name}");
                }
            });
        }
    }
}

/// Records a training pass and submits it.
fn run(context: &Context, layer: &mut BatchNorm, forward: &TrainForward) {
    let mut encoder = context.device().create_command_encoder(&Default::default());
    forward.record(layer, &mut encoder).unwrap();
    context.queue().submit([encoder.finish()]);
}

#[test]
fn moments_of_x_serve_as_well_as_x() {
    for (name, context) in few_contexts() {
        for inputs in cases(4) {
            // What the crate allocates begins at a word, and words other than those of x would be summed in another order.
            let inputs = Inputs { offset: 0, ..inputs };
            let dims = &inputs.dims;
            let x = inputs.place_x(&context);
            let [mut whole, mut prepared, mut at_once] = [(); 3].map(|()| inputs.layer(&context, OPTIONS));
            context.block_on(async {
                let (y, saved) = whole.train_forward(&x).await.unwrap();
                let moments = Moments::of(&context, &x).await.unwrap();
                let y_from = context.zeros_like(&x).await.unwrap();
                let saved_from = Saved::new(&context, &x).await.unwrap();
                let forward = prepared
                    .prepare_train_forward(x.with_moments(&moments), &y_from, Some(&saved_from))
                    .await
                    .unwrap();
                run(&context, &mut prepared, &forward);
                let (y_at_once, _) = at_once.train_forward(x.with_moments(&moments)).await.unwrap();

                let what = format!("{dims:?} {name}");
                let expected = bits(&context.download(&y).await.unwrap());
                for y in [y_from, y_at_once] {
                    assert_eq!(bits(&context.download(&y).await.unwrap()), expected, "{what}");
                }
                let statistics = saved.download(&context).await.unwrap();
                assert_eq!(saved_from.download(&context).await.unwrap(), statistics, "{what}");
                let running = download_running(&context, whole.running());
                for layer in [prepared, at_once] {
                    assert_eq!(download_running(&context, layer.running()), running, "{what}");
                }
            });
        }
    }
}

#[test]
fn pooled_moments_need_a_saved_that_knows() {
    for (name, context) in few_contexts() {
        let inputs = Inputs::new(5, &[3, 5, 4, 6]);
        let other = Inputs { x: values(8, 40, 3.0, 2.0), ..Inputs::new(6, &[2, 5, 4]) };
        let x = upload(&context, &inputs.dims, &inputs.x);
        let mut layer = inputs.layer(&context, OPTIONS);
        let y = context.block_on(async {
            let mut pooled = Moments::of(&context, &x).await.unwrap();
            let other = Moments::of(&context, &upload(&context, &other.dims, &other.x)).await.unwrap();
            pooled.merge(&context, &other).await.unwrap();
            let y = context.zeros(&inputs.dims).await.unwrap();
            let saved = Saved::new(&context, &x).await.unwrap();
            refused!(
                layer.prepare_train_forward(x.with_moments(&pooled), &y, Some(&saved)).await,
                Error::Count { expected: Some(80), got: 72, .. }
            );
            layer.train_forward(x.with_moments(&pooled)).await.unwrap().0
        });
        // The reference: statistics of the pool, applied to x.
        let exact = |inputs: &Inputs| reduce::moments(&wide(&inputs.x), inputs.view());
        let s: Vec<_> = exact(&inputs)
            .into_iter()
            .zip(exact(&other))
            .map(|(a, b)| a.merge(b))
            .map(|pool| Statistics::new(pool.mean, pool.var, EPS))
            .collect();
        let (gamma, beta) = (wide(inputs.gamma.as_ref().unwrap()), wide(inputs.beta.as_ref().unwrap()));
        let expected =
            reference::batch::inference(&wide(&inputs.x), inputs.view(), &s, Some(&gamma), Some(&beta));
        let channel = channel_of(inputs.view());
        assert_within(name, &download(&context, &y), &expected, WhereNan::Nan, |i| {
            let c = channel(i);
            bounds::y(&s[c], inputs.x[i].into(), gamma[c], beta[c])
        });
        assert_eq!(download_running(&context, layer.running()).batches, 8);
    }
}

#[test]
fn moments_that_do_not_fit_the_layer_are_refused() {
    let context = context();
    let inputs = Inputs::new(5, &[3, 5, 4]);
    let x = upload(&context, &inputs.dims, &inputs.x);
    let mut layer = inputs.layer(&context, OPTIONS);
    let one = ChannelMoments { count: 1, ..Default::default() };
    for (moments, expected) in [
        (vec![ChannelMoments { count: 12, ..one }; 4], "moments must have 5 channels, got 4"),
        (vec![ChannelMoments::default(); 5], "moments covers 0 values per channel"),
        (vec![one; 5], "expected more than 1 value per channel"),
    ] {
        let moments = context.block_on(Moments::upload(&context, &moments)).unwrap();
        let error = context.block_on(layer.train_forward(x.with_moments(&moments))).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    // Counts that differ by channel are fine without saved.
    let counts: Vec<_> = (2..7).map(|count| ChannelMoments { count, var: 1.0, ..one }).collect();
    let moments = context.block_on(Moments::upload(&context, &counts)).unwrap();
    context.block_on(layer.train_forward(x.with_moments(&moments))).unwrap();
    let saved = context.block_on(Saved::new(&context, &x)).unwrap();
    let y = zeros(&context, &inputs.dims);
    refused!(
        context.block_on(layer.prepare_train_forward(x.with_moments(&moments), &y, Some(&saved))),
        Error::Count { .. }
    );
}

#[test]
fn the_convenience_calls_agree_with_the_prepared_ones() {
    for (name, context) in few_contexts() {
        for inputs in cases(7) {
            let dims = &inputs.dims;
            for affine in [Affine::Both, Affine::None] {
                let mut inputs = inputs.clone();
                if affine == Affine::None {
                    (inputs.gamma, inputs.beta) = (None, None);
                }
                let what = format!("{dims:?} {name} {affine:?}");
                let x = inputs.place_x(&context);
                let dy = inputs.place_dy(&context);
                let gradients = |y: &Tensor, g: &Gradients| Outputs {
                    y: download(&context, y),
                    dx: download(&context, &g.dx),
                    dgamma: g.dgamma.as_ref().map(|t| download(&context, t)),
                    dbeta: g.dbeta.as_ref().map(|t| download(&context, t)),
                };
                let mut layer = inputs.layer(&context, OPTIONS);
                let (y, saved) = context.block_on(layer.train_forward(&x)).unwrap();
                let got = gradients(&y, &context.block_on(layer.backward(&x, &dy, &saved)).unwrap());
                assert_eq!(got.dgamma.is_some(), affine == Affine::Both, "{what}");
                assert_train(&what, &inputs, EPS, &got);

                let layer = inputs.layer(&context, OPTIONS).freeze();
                let y = context.block_on(layer.infer(&x)).unwrap();
                let got = gradients(&y, &context.block_on(layer.backward(&x, &dy)).unwrap());
                assert_frozen(&what, &inputs, EPS, &got);
            }
        }
    }
}

#[test]
fn saved_statistics_are_those_of_the_batch() {
    for (name, context) in few_contexts() {
        for inputs in cases(7) {
            let inputs = Inputs { x: normal(1, inputs.x.len(), 1e4, 0.1), ..inputs };
            let dims = &inputs.dims;
            let x = inputs.place_x(&context);
            let (_, saved) =
                context.block_on(inputs.layer(&context, OPTIONS).train_forward_untracked(&x)).unwrap();
            let got = context.block_on(saved.download(&context)).unwrap();
            let expected = reduce::moments(&wide(&inputs.x), inputs.view());
            assert_eq!(got.len(), expected.len());
            for (got, expected) in got.iter().zip(expected) {
                let s = Statistics::new(expected.mean, expected.var, EPS);
                let mean_bound = bounds::MEAN * bounds::U * s.var.sqrt();
                assert!((got.mean() - s.mean).abs() <= mean_bound, "{dims:?} {name} {got:?} {s:?}");
                let (var, inv_std) = (f64::from(got.var), f64::from(got.inv_std));
                assert!((var - s.var).abs() <= bounds::var(&s), "{dims:?} {name} {got:?} {s:?}");
                assert!((inv_std - s.inv_std).abs() <= bounds::inv_std(&s), "{dims:?} {name} {got:?} {s:?}");
            }
        }
    }
}

#[test]
fn parameters_may_change_between_forward_and_backward() {
    for (name, context) in few_contexts() {
        let inputs = Inputs::new(9, &[3, 5, 4, 6]);
        let x = upload(&context, &inputs.dims, &inputs.x);
        let dy = upload(&context, &inputs.dims, &inputs.dy);
        let mut layer = inputs.layer(&context, OPTIONS);
        let expected = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS));
        let (_, saved) = context.block_on(layer.train_forward(&x)).unwrap();
        // An optimizer step, and another batch through the same layer.
        for parameter in [layer.gamma().unwrap(), layer.beta().unwrap()] {
            context.queue().write_buffer(parameter.buffer(), parameter.byte_offset(), &bytes(&[7.0; 5]));
        }
        context.block_on(layer.train_forward(&dy)).unwrap();
        let got = context.block_on(layer.backward(&x, &dy, &saved)).unwrap();
        assert_eq!(bits(&download(&context, &got.dx)), bits(&expected.dx), "{name}");
        assert_eq!(download(&context, &got.dgamma.unwrap()), expected.dgamma.unwrap(), "{name}");
        // What forward itself uses is the new value.
        let y = download(&context, &context.block_on(layer.train_forward(&x)).unwrap().0);
        let changed = Inputs { gamma: Some(vec![7.0; 5]), beta: Some(vec![7.0; 5]), ..inputs };
        let expected = train(&context, &changed, &mut changed.layer(&context, OPTIONS));
        assert_eq!(bits(&y), bits(&expected.y), "{name}");
    }
}

#[test]
fn every_set_of_gradients_has_the_bits_of_the_full_backward() {
    for (name, context) in few_contexts() {
        for inputs in cases(10) {
            let dims = &inputs.dims;
            let c = inputs.channels();
            let x = inputs.place_x(&context);
            let dy = inputs.place_dy(&context);
            let layer = inputs.layer(&context, OPTIONS);
            let y = inputs.places()[2].poisoned(&context, dims);
            let saved = context.block_on(Saved::new(&context, &x)).unwrap();
            let forward = layer.prepare_train_forward_untracked(&x, &y, Some(&saved));
            submit(&context, &[&context.block_on(forward).unwrap()]);
            let frozen_layer = inputs.layer(&context, OPTIONS).freeze();
            let full = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS));
            let frozen_full = frozen(&context, &inputs, OPTIONS);
            for set in 1..8 {
                let asked = |bit: usize| set >> bit & 1 == 1;
                for (train, full) in [(true, &full), (false, &frozen_full)] {
                    let untouched = |len: usize| vec![1234.5; len];
                    let dx = inputs.places()[3].placed(&context, dims, &untouched(inputs.x.len()));
                    let dgamma = upload(&context, &[c], &untouched(c));
                    let dbeta = upload(&context, &[c], &untouched(c));
                    let targets = GradientTargets::default()
                        .dx(asked(0).then_some(&dx))
                        .dgamma(asked(1).then_some(&dgamma))
                        .dbeta(asked(2).then_some(&dbeta));
                    let backward = context.block_on(async {
                        match train {
                            true => layer.prepare_backward(&x, &dy, &saved, &targets).await.unwrap(),
                            false => frozen_layer.prepare_backward(&x, &dy, &targets).await.unwrap(),
                        }
                    });
                    submit(&context, &[&backward]);
                    let tensors = [("dx", &dx), ("dgamma", &dgamma), ("dbeta", &dbeta)];
                    let full = [Some(&full.dx), full.dgamma.as_ref(), full.dbeta.as_ref()];
                    for (bit, ((gradient, tensor), full)) in tensors.into_iter().zip(full).enumerate() {
                        let got = download(&context, tensor);
                        let expected = if asked(bit) { full.unwrap().clone() } else { untouched(got.len()) };
                        let what = format!("{dims:?} {name} train {train} set {set:03b}: {gradient}");
                        assert_eq!(bits(&got), bits(&expected), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn one_value_per_channel_is_refused_unless_allowed() {
    let start = Inputs::new(12, &[1, 5]);
    for (name, context) in few_contexts() {
        for dims in [&[1, 5][..], &[1, 5, 1, 1]] {
            let inputs = Inputs { dims: dims.to_vec(), ..start.clone() };
            let x = upload(&context, dims, &inputs.x);
            let mut layer = inputs.layer(&context, OPTIONS);
            refused!(context.block_on(layer.train_forward(&x)), Error::SingleValue { .. });
            refused!(context.block_on(layer.train_forward_untracked(&x)), Error::SingleValue { .. });
            assert_eq!(download_running(&context, layer.running()), inputs.running);

            for variance in [RunningVariance::Unbiased, RunningVariance::Biased] {
                let options = OPTIONS
                    .allow_single_value(true)
                    .momentum(Momentum::WeightOfNew(0.25))
                    .running_variance(variance);
                let mut layer = inputs.layer(&context, options);
                let got = train(&context, &inputs, &mut layer);
                let what = format!("{dims:?} {name} {variance:?}");
                assert_eq!(got.y, *inputs.beta.as_ref().unwrap(), "{what}");
                assert_eq!(got.dx, [0.0; 5], "{what}");
                assert_eq!(got.dgamma.unwrap(), [0.0; 5], "{what}");
                assert_eq!(got.dbeta.unwrap(), inputs.dy, "{what}");
                // The variance of one value is 0, and so is 1 / max(1 - 1, 1) times it.
                let expected = RunningValues {
                    mean: inputs
                        .running
                        .mean
                        .iter()
                        .zip(&inputs.x)
                        .map(|(r, x)| 0.75 * r + 0.25 * x)
                        .collect(),
                    var: inputs.running.var.iter().map(|var| 0.75 * var).collect(),
                    batches: 8,
                };
                let running = download_running(&context, layer.running());
                assert_eq!((running.var, running.batches), (expected.var, expected.batches), "{what}");
                assert_within(&what, &running.mean, &wide(&expected.mean), WhereNan::Nan, |_| {
                    4.0 * bounds::U
                });
            }
        }
    }
}

#[test]
fn an_empty_batch_cannot_train() {
    let context = context();
    for dims in [&[0, 3][..], &[0, 3, 4, 4], &[2, 3, 0]] {
        let inputs = Inputs::new(13, dims);
        let x = zeros(&context, dims);
        let mut layer = inputs.layer(&context, OPTIONS.allow_single_value(true));
        let saved = context.block_on(Saved::new(&context, &x)).unwrap();
        refused!(context.block_on(layer.train_forward(&x)), Error::EmptyBatch { .. });
        refused!(context.block_on(layer.train_forward_untracked(&x)), Error::EmptyBatch { .. });
        refused!(context.block_on(layer.backward(&x, &x, &saved)), Error::EmptyBatch { .. });
        let moments = context.block_on(Moments::of(&context, &x)).unwrap();
        refused!(context.block_on(layer.train_forward(x.with_moments(&moments))), Error::EmptyBatch { .. });
        assert_eq!(download_running(&context, layer.running()), inputs.running);
    }
}

#[test]
fn an_empty_batch_passes_a_frozen_layer() {
    for (_, context) in few_contexts() {
        for dims in [&[0, 3][..], &[0, 3, 4, 4], &[2, 3, 0]] {
            let inputs = Inputs::new(14, dims);
            let layer = inputs.layer(&context, OPTIONS).freeze();
            let x = zeros(&context, dims);
            let y = context.block_on(layer.infer(&x)).unwrap();
            assert_eq!((y.shape(), download(&context, &y)), (x.shape(), Vec::new()));
            let gradients = context.block_on(layer.backward(&x, &x)).unwrap();
            assert_eq!(download(&context, &gradients.dx).len(), 0);

            let start = [1.5, f32::NAN, -2.0];
            for (accumulation, expected) in [(Accumulation::Write, [0.0; 3]), (Accumulation::Add, start)] {
                let (dgamma, dbeta) = (upload(&context, &[3], &start), upload(&context, &[3], &start));
                let targets = GradientTargets::default()
                    .dx(&x)
                    .dgamma(&dgamma)
                    .dbeta(&dbeta)
                    .accumulation(accumulation);
                submit(&context, &[&context.block_on(layer.prepare_backward(&x, &x, &targets)).unwrap()]);
                for gradient in [dgamma, dbeta] {
                    let (got, expected) = (download(&context, &gradient), expected);
                    assert!(
                        got.iter().zip(&expected).all(|(g, e)| g == e || g.is_nan() && e.is_nan()),
                        "{got:?}"
                    );
                }
            }
            let targets = GradientTargets::default().dx(&x);
            let nothing = context.block_on(layer.prepare_backward(&x, &x, &targets)).unwrap();
            assert_eq!((nothing.kernels().count(), nothing.plan()), (0, None));
            submit(&context, &[&nothing]);
        }
    }
}

#[test]
fn a_new_layer_starts_as_frameworks_do() {
    let context = context();
    for affine in [Affine::Both, Affine::Weight, Affine::Bias, Affine::None] {
        let layer = context.block_on(BatchNorm::new(&context, 3, OPTIONS.affine(affine))).unwrap();
        let [gamma, beta] = [layer.gamma(), layer.beta()].map(|t| t.map(|t| download(&context, t)));
        assert_eq!(gamma, affine.has_gamma().then(|| vec![1.0; 3]));
        assert_eq!(beta, affine.has_beta().then(|| vec![0.0; 3]));
        let start = RunningValues { mean: vec![0.0; 3], var: vec![1.0; 3], batches: 0 };
        assert_eq!(download_running(&context, layer.running()), start);
    }
    // The parameters decide, not the options.
    let parts = |gamma: Option<Tensor>, beta| {
        let running = RunningValues { mean: vec![0.0; 3], var: vec![1.0; 3], batches: 0 };
        let running = context.block_on(RunningStatistics::upload(&context, &running)).unwrap();
        FrozenBatchNorm::from_parts(&context, OPTIONS, gamma, beta, running).unwrap()
    };
    let layer = parts(None, Some(zeros(&context, &[3])));
    assert_eq!(layer.options(), &OPTIONS.affine(Affine::Bias));
    let layer = parts(Some(zeros(&context, &[3])), None);
    assert_eq!(layer.options(), &OPTIONS.affine(Affine::Weight));
}

#[test]
fn presets_follow_their_frameworks() {
    let context = context();
    // x is ±2 around 1: mean 1, biased variance 4, unbiased 4·8/7.
    let x = upload(&context, &[4, 1, 2], &[3.0, -1.0, 3.0, -1.0, 3.0, -1.0, 3.0, -1.0]);
    for (name, options, eps, weight, running_var, single) in [
        ("pytorch", BatchNormOptions::pytorch(), 1e-5, 0.1, 32.0 / 7.0, false),
        ("keras", BatchNormOptions::keras(), 1e-3, 0.01, 4.0, true),
        ("flax", BatchNormOptions::flax(), 1e-5, 0.01, 4.0, true),
        ("onnx", BatchNormOptions::onnx(), 1e-5, 0.1, 4.0, true),
        ("burn", BatchNormOptions::burn(), 1e-5, 0.1, 4.0, true),
    ] {
        context.block_on(async {
            let mut layer = BatchNorm::new(&context, 1, options).await.unwrap();
            let (y, saved) = layer.train_forward(&x).await.unwrap();
            let running = layer.running().download(&context).await.unwrap();
            let var = 1.0 - weight + weight * running_var;
            assert_within(name, &running.mean, &[weight], WhereNan::Nan, |_| 4.0 * bounds::U);
            assert_within(name, &running.var, &[var], WhereNan::Nan, |_| 8.0 * bounds::U);
            // eps shows in inv_std: 1e-3 and 1e-5 differ by 1e-4 of it.
            let inv_std = 1.0 / (4.0f64 + eps).sqrt();
            let saved = saved.download(&context).await.unwrap();
            assert_within(name, &[saved[0].inv_std], &[inv_std], WhereNan::Nan, |_| 4.0 * bounds::U);
            assert_within(
                name,
                &context.download(&y).await.unwrap()[..1],
                &[2.0 * inv_std],
                WhereNan::Nan,
                |_| 16.0 * bounds::U,
            );
            let one = context.upload(&[1, 1], &[3.0]).await.unwrap();
            match layer.train_forward(&one).await {
                Ok(_) => assert!(single, "{name} allows a single value"),
                Err(error) => {
                    assert!(!single && matches!(error, Error::SingleValue { .. }), "{name}: {error}")
                }
            }
        });
    }
}

#[test]
fn statistics_that_were_never_computed_give_nan() {
    let context = context();
    let inputs = Inputs::new(77, &[3, 4, 5]);
    let mut layer = inputs.layer(&context, OPTIONS);
    let before = context.block_on(layer.running().download(&context)).unwrap();
    let x = placed(&context, &inputs.dims, &inputs.x, 0);
    // Prepared and never submitted.
    let (moments, _) = context.block_on(Moments::prepare(&context, &x)).unwrap();
    let (y, _) = context.block_on(layer.train_forward(x.with_moments(&moments))).unwrap();
    assert!(download(&context, &y).iter().all(|v| v.is_nan()));
    assert_eq!(context.block_on(layer.running().download(&context)).unwrap(), before);
    // Saved by no forward pass.
    let saved = context.block_on(Saved::new(&context, &x)).unwrap();
    let gradients = context.block_on(layer.backward(&x, &y, &saved)).unwrap();
    assert!(download(&context, &gradients.dx).iter().all(|v| v.is_nan()));
    assert!(download(&context, &gradients.dgamma.unwrap()).iter().all(|v| v.is_nan()));
}

#[test]
fn the_counter_of_batches_saturates() {
    let context = context();
    let mut inputs = Inputs::new(78, &[3, 4, 5]);
    inputs.running.batches = u32::MAX;
    let mut layer = inputs.layer(&context, OPTIONS.momentum(Momentum::Cumulative));
    let x = placed(&context, &inputs.dims, &inputs.x, 0);
    context.block_on(layer.train_forward(&x)).unwrap();
    let after = context.block_on(layer.running().download(&context)).unwrap();
    assert_eq!(after.batches, u32::MAX);
    assert!(after.mean.iter().chain(&after.var).all(|v| v.is_finite()));
}

#[test]
fn one_parameter_gradient_of_an_empty_batch() {
    let context = context();
    let layer = context.block_on(BatchNorm::new(&context, 3, OPTIONS)).unwrap().freeze();
    let x = zeros(&context, &[0, 3, 4]);
    let sum = poisoned(&context, &[3], 0);
    for targets in [GradientTargets::default().dgamma(&sum), GradientTargets::default().dbeta(&sum)] {
        let backward = context.block_on(layer.prepare_backward(&x, &x, &targets)).unwrap();
        context.block_on(context.submit(&[&backward])).unwrap();
        assert_eq!(download_guarded(&context, &sum), [0.0; 3]);
    }
}
