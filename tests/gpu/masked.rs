//! Masks: what does not count enters nothing, whatever it is.

use wgnorm::reference::bounds::{self, Magnitudes};
use wgnorm::reference::{Statistics, WhereNan, map, masked};
use wgnorm::statistics::Moments;
use wgnorm::tuning::Tuning;
use wgnorm::{Activation, BatchNormOptions, Channels, Context, DType, Error, Layout, Mask, Tensor};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();
const EPS: f64 = 1e-5;

/// Which positions count: runs of some length, so that whole words and parts of words are masked.
fn keep(seed: u64, view: Channels, run: usize) -> Vec<bool> {
    let n = view.count() as usize;
    let draws = values(seed, n.div_ceil(run), 0.0, 1.0);
    (0..n).map(|i| draws[i / run] > -0.2).collect()
}

struct Case {
    inputs: Inputs,
    keep: Vec<bool>,
}

impl Case {
    /// Padding is what a kernel must not look at: NaN, infinite, huge.
    fn new(seed: u64, dims: &[usize], layout: Layout, run: usize, shift: f32) -> Self {
        let mut inputs = Inputs::of(seed, dims, layout);
        inputs.x.iter_mut().for_each(|x| *x += shift);
        let view = inputs.view();
        let keep = keep(seed, view, run);
        for i in 0..inputs.x.len() {
            if !masked::counts(view, &keep, i) {
                inputs.x[i] = [f32::NAN, 1e30, f32::INFINITY, -7.0][i % 4];
                inputs.dy[i] = [3.0, f32::NAN, f32::INFINITY, -7.0][i % 4];
            }
        }
        Self { inputs, keep }
    }

    fn tensors(&self, context: &Context) -> (Tensor, Tensor, Mask) {
        let (x, dy) = (self.inputs.place_x(context), self.inputs.place_dy(context));
        let mask = context.block_on(Mask::of_positions(context, &x, &self.keep)).unwrap();
        (x, dy, mask)
    }

    fn train(&self, context: &Context) -> Outputs {
        let (x, dy, mask) = self.tensors(context);
        let mut layer = self.inputs.layer(context, OPTIONS);
        context.block_on(async {
            let (y, saved) = layer.train_forward(x.masked(&mask)).await.unwrap();
            let gradients = layer.backward(x.masked(&mask), &dy, &saved).await.unwrap();
            Outputs {
                y: context.download(&y).await.unwrap(),
                dx: context.download(&gradients.dx).await.unwrap(),
                dgamma: Some(context.download(&gradients.dgamma.unwrap()).await.unwrap()),
                dbeta: Some(context.download(&gradients.dbeta.unwrap()).await.unwrap()),
            }
        })
    }

    #[track_caller]
    fn assert_train(&self, what: &str, got: &Outputs) {
        let Inputs { gamma, beta, .. } = &self.inputs;
        let (gamma, beta) = (wide(gamma.as_ref().unwrap()), wide(beta.as_ref().unwrap()));
        let (x, dy, view) = (wide(&self.inputs.x), wide(&self.inputs.dy), self.inputs.view());
        let forward = masked::train_forward(&x, view, &self.keep, Some(&gamma), Some(&beta), EPS);
        let backward = masked::backward(&x, &dy, view, &self.keep, &forward, Some(&gamma));
        let sums = masked::gradient_sums(&x, &dy, view, &self.keep, &forward.statistics);
        let m = self.magnitudes(&forward.statistics);
        let s = &forward.statistics;
        let channel = channel_of(view);
        // What is masked is normalized as usual: NaN stays NaN, infinities and huge values have no bound that is worth a test.
        let counted = |i: usize| masked::counts(view, &self.keep, i);
        let y: Vec<f32> =
            (0..x.len()).map(|i| if counted(i) || x[i] == -7.0 { got.y[i] } else { 0.0 }).collect();
        let expected: Vec<f64> =
            (0..x.len()).map(|i| if counted(i) || x[i] == -7.0 { forward.y[i] } else { 0.0 }).collect();
        assert_within(&format!("{what}: y"), &y, &expected, WhereNan::Nan, |i| {
            let c = channel(i);
            if counted(i) || x[i] == -7.0 { bounds::y(&s[c], x[i], gamma[c], beta[c]) } else { 0.0 }
        });
        assert_within(&format!("{what}: dx"), &got.dx, &backward.dx, WhereNan::Nan, |i| {
            let c = channel(i);
            // As many values as count.
            let view = Channels { samples: forward.moments[c].count, inner: 1, ..view };
            if counted(i) { bounds::dx(&s[c], &m[c], &sums[c], view, x[i], dy[i], gamma[c]) } else { 0.0 }
        });
        let parameters = [(&got.dgamma, &backward.dgamma), (&got.dbeta, &backward.dbeta)];
        for (k, (got, expected)) in parameters.into_iter().enumerate() {
            assert_within(
                &format!("{what}: parameter {k}"),
                got.as_ref().unwrap(),
                expected,
                WhereNan::Nan,
                |c| {
                    if k == 0 { bounds::dgamma(&m[c]) } else { bounds::dbeta(&m[c]) }
                },
            );
        }
    }

    fn magnitudes(&self, s: &[Statistics]) -> Vec<Magnitudes> {
        let mut all = vec![Magnitudes::default(); s.len()];
        let view = self.inputs.view();
        for i in (0..self.inputs.x.len()).filter(|&i| masked::counts(view, &self.keep, i)) {
            let c = view.channel_of(i as u64) as usize;
            let dy = f64::from(self.inputs.dy[i]);
            all[c].dy += dy.abs();
            all[c].dy_xhat += (dy * s[c].normalize(self.inputs.x[i].into())).abs();
        }
        all
    }
}

/// Runs of every length within words, rows of every width, one run.
const SHAPES: [(&[usize], Layout); 8] = [
    (&[3, 5, 8, 4], Layout::ChannelsFirst),
    (&[5, 3, 7, 7], Layout::ChannelsFirst),
    (&[4, 3, 5], Layout::ChannelsFirst),
    (&[6, 11, 8], Layout::ChannelsLast),
    (&[6, 11, 5], Layout::ChannelsLast),
    (&[70, 6], Layout::ChannelsFirst),
    (&[3, 1, 45], Layout::ChannelsFirst),
    (&[2, 3, 1100], Layout::ChannelsFirst),
];

#[test]
fn masked_training_is_that_of_the_values_that_count() {
    for (dims, layout) in SHAPES {
        let contexts = if Case::new(1, dims, layout, 1, 0.0).inputs.view().inner > 1
            && layout == Layout::ChannelsFirst
        {
            contexts()
        } else {
            column_contexts()
        };
        for (name, context) in contexts {
            for (seed, run, shift, offset) in [(1, 1, 0.0, 0), (2, 5, 1e4, 3), (3, 40, -30.0, 1)] {
                let mut case = Case::new(seed, dims, layout, run, shift);
                case.inputs.offset = offset;
                let got = case.train(&context);
                case.assert_train(&format!("{dims:?} {layout:?} {name} runs of {run} from {offset}"), &got);
            }
        }
    }
}

#[test]
fn windows_of_masked_tensors_give_the_bits_of_one() {
    for (dims, layout) in [
        (&[6, 5, 7, 9][..], Layout::ChannelsFirst),
        (&[2, 6, 33, 5], Layout::ChannelsFirst),
        (&[2, 2, 51, 31], Layout::ChannelsFirst),
        (&[6, 31, 9, 5], Layout::ChannelsLast),
        (&[700, 3], Layout::ChannelsFirst),
        (&[3, 1, 45, 15], Layout::ChannelsFirst),
    ] {
        let context = context();
        let case = Case::new(4, dims, layout, 3, 2.0);
        let small = context.with_tuning(Tuning::default().window_bytes(1200));
        let x = case.inputs.upload_x(&context);
        let plan = small.block_on(Moments::prepare(&small, &x.with_layout(layout))).unwrap().1;
        let plan = plan.plan().unwrap();
        assert!(plan.windows.len() > 1, "{plan}");
        let whole = context.with_tuning(Tuning::default().tile(plan.tile_words));
        let what = format!("{dims:?}");
        let got = case.train(&small);
        case.assert_train(&what, &got);
        let expected = case.train(&whole);
        assert_bits(&what, &got.dx, &expected.dx);
        assert_eq!(got.dgamma, expected.dgamma);
    }
}

#[test]
fn without_any_value_y_is_beta_and_nothing_is_learned() {
    for (name, context) in few_contexts() {
        let inputs = Inputs::new(1, &[3, 4, 6]);
        let x = upload(&context, &inputs.dims, &inputs.x);
        let dy = upload(&context, &inputs.dims, &inputs.dy);
        let mut layer = inputs.layer(&context, OPTIONS);
        context.block_on(async {
            let mask = Mask::of_samples(&context, &x, &[false; 3]).await.unwrap();
            let (y, saved) = layer.train_forward(x.masked(&mask)).await.unwrap();
            let gradients = layer.backward(x.masked(&mask), &dy, &saved).await.unwrap();
            let moments = Moments::of(&context, x.masked(&mask)).await.unwrap();
            let (from, _) = layer.train_forward(x.with_moments(&moments)).await.unwrap();
            for y in [y, from] {
                for (i, y) in context.download(&y).await.unwrap().into_iter().enumerate() {
                    assert_eq!(y, inputs.beta.as_ref().unwrap()[i / 6 % 4], "{name}");
                }
            }
            let zero =
                async |tensor: &Tensor| context.download(tensor).await.unwrap().iter().all(|&v| v == 0.0);
            assert!(zero(&gradients.dx).await);
            assert!(zero(&gradients.dgamma.unwrap()).await && zero(&gradients.dbeta.unwrap()).await);
            assert_eq!(saved.download(&context).await.unwrap()[0].count, 0.0);
            assert_eq!(layer.running().download(&context).await.unwrap(), inputs.running, "{name}");
        });
    }
}

#[test]
fn a_mask_of_everything_changes_no_value() {
    let context = context();
    for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
        let mut case = Case::new(5, &[4, 6, 8], layout, 3, 1.0);
        case.inputs = Inputs::of(5, &[4, 6, 8], layout);
        case.keep.fill(true);
        let got = case.train(&context);
        case.assert_train("all", &got);
        assert_train("all", &case.inputs, EPS, &got);
    }
}

#[test]
fn frozen_gradients_are_of_the_values_that_count() {
    for (name, context) in few_contexts() {
        for (dims, layout) in SHAPES {
            let case = Case::new(6, dims, layout, 3, 0.0);
            let (x, dy, mask) = case.tensors(&context);
            let view = case.inputs.view();
            let layer = case.inputs.layer(&context, OPTIONS).freeze();
            let (gradients, y, unmasked) = context.block_on(async {
                let gradients = layer.backward(x.masked(&mask), &dy).await.unwrap();
                let y = layer.infer(x.masked(&mask)).await.unwrap();
                (gradients, y, layer.infer(&x).await.unwrap())
            });
            assert_eq!(bits(&download(&context, &y)), bits(&download(&context, &unmasked)));
            let running = &case.inputs.running;
            let s: Vec<_> = running
                .mean
                .iter()
                .zip(&running.var)
                .map(|(&mean, &var)| Statistics::new(mean.into(), var.into(), EPS))
                .collect();
            let gamma = wide(case.inputs.gamma.as_ref().unwrap());
            let counted = |i: usize| masked::counts(view, &case.keep, i);
            let dy: Vec<f64> = (0..case.inputs.dy.len())
                .map(|i| if counted(i) { case.inputs.dy[i].into() } else { 0.0 })
                .collect();
            let expected = map::frozen(&dy, view, &s, Some(&gamma));
            let channel = channel_of(view);
            let what = format!("{dims:?} {name}");
            assert_within(&what, &download(&context, &gradients.dx), &expected, WhereNan::Nan, |i| {
                bounds::frozen_dx(&s[channel(i)], dy[i], gamma[channel(i)])
            });
            let sums = masked::gradient_sums(&wide(&case.inputs.x), &dy, view, &case.keep, &s);
            let m = case.magnitudes(&s);
            let dgamma: Vec<_> = sums.iter().map(|s| s.dy_xhat).collect();
            let got = download(&context, &gradients.dgamma.unwrap());
            assert_within(&what, &got, &dgamma, WhereNan::Nan, |c| bounds::dgamma(&m[c]));
        }
    }
}

#[test]
fn residuals_activations_and_halves_go_with_masks() {
    let context = context();
    for (dims, layout) in [(&[3, 5, 7, 7][..], Layout::ChannelsFirst), (&[5, 9, 6], Layout::ChannelsLast)] {
        for (dtype, frozen) in
            [(DType::F32, false), (DType::Bf16, false), (DType::F32, true), (DType::F16, true)]
        {
            // With everything that is masked replaced by 0, and by NaN: the same results where values count, and zeros elsewhere.
            let options = OPTIONS.activation(Activation::Gelu);
            let inputs = Inputs::of(8, dims, layout);
            let view = inputs.view();
            let keep = keep(8, view, 3);
            let residual = values(80, inputs.x.len(), 0.0, 1.0);
            let run = |padding: f32| {
                let place = |values: &[f32]| {
                    let values: Vec<f32> = (0..values.len())
                        .map(|i| if masked::counts(view, &keep, i) { values[i] } else { padding })
                        .collect();
                    context.block_on(context.upload_as(dims, &values, dtype)).unwrap().with_layout(layout)
                };
                let (x, dy, residual) = (place(&inputs.x), place(&inputs.dy), place(&residual));
                let mut layer = inputs.layer(&context, options);
                context.block_on(async {
                    let mask = Mask::of_positions(&context, &x, &keep).await.unwrap();
                    let input = x.with_residual(&residual).masked(&mask);
                    let (y, gradients) = if frozen {
                        let layer = layer.freeze();
                        (layer.infer(input).await.unwrap(), layer.backward(input, &dy).await.unwrap())
                    } else {
                        let (y, saved) = layer.train_forward(input).await.unwrap();
                        (y, layer.backward(input, &dy, &saved).await.unwrap())
                    };
                    let mut all = Vec::new();
                    for tensor in [&y, &gradients.dx, gradients.d_residual.as_ref().unwrap()] {
                        all.push(context.download(tensor).await.unwrap());
                    }
                    for tensor in [gradients.dgamma, gradients.dbeta].iter().flatten() {
                        all.push(context.download(tensor).await.unwrap());
                    }
                    all
                })
            };
            let (zeros, nans) = (run(0.0), run(f32::NAN));
            for (k, (zeros, nans)) in zeros.iter().zip(&nans).enumerate() {
                for (i, (a, b)) in zeros.iter().zip(nans).enumerate() {
                    let what = format!("{dims:?} {dtype:?} frozen {frozen} output {k} [{i}]");
                    if k > 2 || masked::counts(view, &keep, i) {
                        assert!(a.to_bits() == b.to_bits() && a.is_finite(), "{what}: {a} {b}");
                    } else if k > 0 {
                        assert!(*a == 0.0 && *b == 0.0, "{what}: {a} {b}");
                    }
                }
            }
        }
    }
}

#[test]
fn masks_are_made_written_and_sliced() {
    let context = context();
    let mut inputs = Inputs::new(9, &[4, 3, 10]);
    inputs.x.iter_mut().enumerate().for_each(|(i, x)| *x += (i / 30 * 50) as f32);
    let x = upload(&context, &inputs.dims, &inputs.x);
    context.block_on(async {
        let mean_of = async |mask: &Mask, x: &Tensor| {
            let moments = Moments::of(&context, x.masked(mask)).await.unwrap();
            let first = moments.download(&context).await.unwrap()[0];
            (first.count, first.mean())
        };
        let expected = |keep: &dyn Fn(usize, usize) -> bool| {
            let all: Vec<f64> = (0..4)
                .flat_map(|n| (0..10).map(move |i| (n, i)))
                .filter(|&(n, i)| keep(n, i))
                .map(|(n, i)| f64::from(inputs.x[n * 30 + i]))
                .collect();
            (all.len() as u64, all.iter().sum::<f64>() / all.len() as f64)
        };
        let same = |got: (u64, f64), expected: (u64, f64)| {
            assert_eq!(got.0, expected.0);
            assert!((got.1 - expected.1).abs() < 1e-4, "{got:?} {expected:?}");
        };
        let lengths = [10, 0, 3, 7];
        let mask = Mask::of_lengths(&context, &x, &lengths).await.unwrap();
        assert_eq!((mask.samples(), mask.positions()), (4, 10));
        same(mean_of(&mask, &x).await, expected(&|n, i| i < lengths[n]));
        let part = mask.slice_samples(2..4).unwrap();
        let x_part = x.slice_samples(2..4).unwrap();
        same(mean_of(&part, &x_part).await, expected(&|n, i| n >= 2 && i < lengths[n]));
        refused!(part.write(&context, &[true; 20]).await, Error::NotContiguous { .. });
        let samples = [true, false, false, true];
        let mask = Mask::of_samples(&context, &x, &samples).await.unwrap();
        same(mean_of(&mask, &x).await, expected(&|n, _| samples[n]));

        // Of an extent, as of an x with as many.
        let keep: Vec<bool> = (0..40).map(|i| i % 7 != 0).collect();
        let mask = Mask::of_extent(&context, [4, 10], &keep).await.unwrap();
        same(mean_of(&mask, &x).await, expected(&|n, i| keep[10 * n + i]));
        let beyond = Mask::of_extent(&context, [usize::MAX, 10], &keep).await;
        refused!(beyond, Error::TooLarge { what: "a mask", .. });
        let mask = Mask::of_samples(&context, &x, &samples).await.unwrap();

        // A prepared operation follows what is written.
        let (moments, prepared) = Moments::prepare(&context, x.masked(&mask)).await.unwrap();
        let keep: Vec<bool> = (0..40).map(|i| i % 3 == 0).collect();
        mask.write(&context, &keep).await.unwrap();
        context.submit(&[&prepared]).await.unwrap();
        let first = moments.download(&context).await.unwrap()[0];
        same((first.count, first.mean()), expected(&|n, i| keep[10 * n + i]));

        refused!(
            Mask::of_positions(&context, &x, &keep[1..]).await,
            Error::Number { expected: 40, got: 39, .. }
        );
        refused!(Mask::of_samples(&context, &x, &keep).await, Error::Number { expected: 4, got: 40, .. });
        refused!(Mask::of_lengths(&context, &x, &[1, 11, 1, 1]).await, Error::Range { end: 11, len: 10, .. });
        refused!(mask.write(&context, &[]).await, Error::Number { .. });
        refused!(mask.slice_samples(3..5), Error::Range { .. });
        let mut layer = inputs.layer(&context, OPTIONS);
        refused!(layer.train_forward(x_part.masked(&mask)).await, Error::Mask { got: (4, 10), .. });
        let (y, saved) = layer.train_forward(x.masked(&mask)).await.unwrap();
        refused!(layer.backward(&x, &y, &saved).await, Error::Masked { expected: true });
        let theirs = own_context();
        let x = upload(&theirs, &inputs.dims, &inputs.x);
        let foreign = Mask::of_samples(&theirs, &x, &samples).await.unwrap();
        let x = upload(&context, &inputs.dims, &inputs.x);
        refused!(layer.train_forward(x.masked(&foreign)).await, Error::ForeignDevice { .. });
    });
}

/// Micro-batches and ghost batches with masks are those of the values that count.
#[test]
fn compositions_go_with_masks() {
    let context = context();
    let case = Case::new(11, &[5, 4, 9], Layout::ChannelsFirst, 4, 100.0);
    let (x, _, mask) = case.tensors(&context);
    context.block_on(async {
        let parts = [0..2, 2..5]
            .map(|range| (x.slice_samples(range.clone()).unwrap(), mask.slice_samples(range).unwrap()));
        let inputs: Vec<_> = parts.iter().map(|(x, mask)| x.masked(mask)).collect();
        let [mut whole, mut accumulated, mut ghost] = [(); 3].map(|()| case.inputs.layer(&context, OPTIONS));
        whole.train_forward(x.masked(&mask)).await.unwrap();
        accumulated.train_forward_accumulated(&inputs).await.unwrap();
        ghost.train_forward_ghost(x.masked(&mask), 2).await.unwrap();
        let expected = whole.running().download(&context).await.unwrap();
        for layer in [accumulated, ghost] {
            let got = layer.running().download(&context).await.unwrap();
            assert_eq!(got.batches, expected.batches);
            for (got, expected) in [(&got.mean, &expected.mean), (&got.var, &expected.var)] {
                for (g, e) in got.iter().zip(expected) {
                    assert!((g - e).abs() <= 1e-5 * e.abs(), "{g} {e}");
                }
            }
        }
    });
}

/// Longer than one invocation may walk at once, with a mask that leaves the very end: what looks for the first value that counts
/// comes before the sums.
#[test]
fn a_value_at_the_very_end_is_found() {
    // As few workgroups as loops allow.
    let long = Tuning::default().splits(1).workgroup_size(8).team_size(1).strip(1);
    for (name, context) in [("policy", context()), ("long", context().with_tuning(long))] {
        for (dims, layout) in [
            (&[1, 1, 2_200_001][..], Layout::ChannelsFirst),
            (&[300_001, 3], Layout::ChannelsFirst),
            (&[2, 3, 400_000], Layout::ChannelsFirst),
        ] {
            let view = Inputs::of(1, dims, layout).view();
            let n = view.count() as usize;
            let values: Vec<f32> = (0..view.elements()).map(|i| 1e4 + (i % 7) as f32).collect();
            let x = upload(&context, dims, &values);
            let keep: Vec<bool> = (0..n).map(|i| i >= n - 5).collect();
            let moments = context.block_on(async {
                let mask = Mask::of_positions(&context, &x, &keep).await.unwrap();
                Moments::of(&context, x.masked(&mask)).await.unwrap().download(&context).await.unwrap()
            });
            let expected = masked::moments(&wide(&values), view, &keep);
            for (got, expected) in moments.iter().zip(&expected) {
                assert_eq!(got.count, 5, "{name} {dims:?}");
                assert!(
                    (got.mean() - expected.mean).abs() <= 1e-6 * expected.var.sqrt(),
                    "{name} {dims:?}: {got:?}"
                );
                assert!((f64::from(got.var) / expected.var - 1.0).abs() <= 2e-6, "{name} {dims:?}: {got:?}");
            }
        }
    }
}
