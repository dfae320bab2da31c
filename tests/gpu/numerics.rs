//! Numbers that break naive kernels: means far above the deviation, outliers, overflow, NaN and infinities.

use wgnorm::reference::{self, WhereNan, reduce};
use wgnorm::tuning::Tuning;
use wgnorm::{Activation, BatchNorm, BatchNormOptions, Context, Layout, RunningValues};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();
const EPS: f64 = 1e-5;

/// A shape, and the element of a word at which its tensors begin.
#[derive(Clone, Copy, Debug)]
struct Case {
    layout: Layout,
    dims: &'static [usize],
    offset: usize,
}

impl Case {
    const fn first(dims: &'static [usize], offset: usize) -> Self {
        Self { layout: Layout::ChannelsFirst, dims, offset }
    }

    const fn last(dims: &'static [usize], offset: usize) -> Self {
        Self { layout: Layout::ChannelsLast, dims, offset }
    }

    fn len(&self) -> usize {
        self.dims.iter().product()
    }

    fn inputs(&self, seed: u64) -> Inputs {
        Inputs { offset: self.offset, ..Inputs::of(seed, self.dims, self.layout) }
    }

    /// y is x̂.
    fn plain(&self, x: Vec<f32>) -> Inputs {
        let inputs = self.inputs(1);
        let c = inputs.channels();
        Inputs { x, gamma: Some(vec![1.0; c]), beta: Some(vec![0.0; c]), ..inputs }
    }
}

/// Inner sizes in and out of fours, runs of one, and long channels; several rows as one, and rows of whole words.
const CASES: [Case; 8] = [
    Case::first(&[3, 5, 7, 5], 0),
    Case::first(&[4, 3, 16, 12], 0),
    Case::first(&[2, 3, 9, 7], 3),
    Case::first(&[300, 7], 0),
    Case::first(&[1, 2, 30_001], 1),
    Case::last(&[7, 5, 9, 5], 1),
    Case::last(&[4, 75, 4], 2),
    Case::last(&[3, 2000, 2], 0),
];

/// Fewer and smaller.
const FEW_CASES: [Case; 6] = [
    Case::first(&[3, 5, 7, 5], 1),
    Case::first(&[2, 3, 16, 4], 0),
    Case::first(&[40, 7], 0),
    Case::first(&[2, 2, 1100], 0),
    Case::last(&[4, 3, 5, 5], 3),
    Case::last(&[3, 20, 7], 0),
];

/// Puts a value into the first place of every channel.
fn first_in_channels(inputs: &mut Inputs, value: f32) {
    for c in 0..inputs.channels() as u64 {
        let first = reduce::channel(inputs.view(), c).next().unwrap();
        inputs.x[first] = value;
    }
}

/// Everything within its bound, and y within 1e-5, relative to |y| where that is above 1.
fn assert_accurate(what: &str, context: &Context, inputs: &Inputs) {
    let got = train(context, inputs, &mut inputs.layer(context, OPTIONS));
    assert_train(what, inputs, EPS, &got);
    let expected =
        wgnorm::reference::batch::train_forward(&wide(&inputs.x), inputs.view(), None, None, EPS).y;
    assert_within(what, &got.y, &expected, WhereNan::Nan, |i| 1e-5 * expected[i].abs().max(1.0));
}

#[test]
fn a_mean_far_above_the_deviation_costs_no_digits() {
    for (name, context) in few_contexts() {
        for case in CASES {
            for (mean, std) in [(1e4, 0.1), (-1e4, 0.1), (1e6, 1.0), (3e5, 100.0), (0.0, 1.0)] {
                let mut inputs = case.plain(normal(1, case.len(), mean, std));
                let what = format!("{case:?} {name} N({mean}, {std})");
                assert_accurate(&what, &context, &inputs);
                first_in_channels(&mut inputs, 0.0);
                assert_accurate(&format!("{what} after 0"), &context, &inputs);
            }
        }
    }
}

#[test]
fn large_and_small_scales_are_right() {
    for (name, context) in few_contexts() {
        for case in CASES {
            // Squares overflow, variances do not, even those of two values eight deviations apart.
            for (mean, std) in
                [(1e20, 1e14), (-3e37, 1e18), (0.0, 1e18), (1e19, 1e18), (0.0, 4e18), (0.0, 1e-15)]
            {
                let inputs = case.plain(normal(2, case.len(), mean, std));
                let what = format!("{case:?} {name} N({mean}, {std})");
                let got = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS));
                assert!(got.y.iter().chain(&got.dx).all(|v| v.is_finite()), "{what}");
                assert_train(&what, &inputs, EPS, &got);
            }
        }
    }
}

#[test]
fn a_variance_far_below_one_is_right() {
    for (name, context) in few_contexts() {
        for case in CASES {
            for (mean, std, eps) in
                [(1.0, 1e-6, 1e-30), (0.0, 1e-15, 1e-30), (1e-3, 1e-9, 1e-20), (0.0, 1e-14, 1e-37)]
            {
                let inputs = case.plain(normal(3, case.len(), mean, std));
                let what = format!("{case:?} {name} N({mean}, {std}) eps {eps}");
                let got = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS.eps(eps)));
                assert_train(&what, &inputs, eps, &got);
            }
        }
    }
}

#[test]
fn the_smallest_variances_and_eps_are_right() {
    for (name, context) in few_contexts() {
        for case in FEW_CASES {
            // Below, squares are subnormal, and devices may take those for zero.
            for std in [1e-15, 1e-16] {
                let inputs = case.plain(normal(3, case.len(), 0.0, std));
                let eps = f64::from(f32::MIN_POSITIVE);
                let got = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS.eps(eps)));
                assert_train(&format!("{case:?} {name} N(0, {std})"), &inputs, eps, &got);
            }
        }
    }
}

#[test]
fn constant_channels_give_beta() {
    for (name, context) in few_contexts() {
        for case in CASES {
            for value in [0.0, 1.0, 0.1, -1e4 / 3.0, 3.3e38, 1e-40] {
                let inputs = Inputs { x: vec![value; case.len()], ..case.inputs(4) };
                let got = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS));
                let (what, channel) = (format!("{case:?} {name} {value}"), channel_of(inputs.view()));
                let beta = inputs.beta.as_ref().unwrap();
                assert!(got.y.iter().enumerate().all(|(i, y)| *y == beta[channel(i)]), "{what}");
                assert!(got.dgamma.as_ref().unwrap().iter().all(|&dgamma| dgamma == 0.0), "{what}");
                assert_train(&what, &inputs, EPS, &got);
            }
        }
    }
}

#[test]
fn subnormal_inputs_stay_harmless() {
    for (name, context) in few_contexts() {
        for case in FEW_CASES {
            for eps in [EPS, f32::MIN_POSITIVE.into()] {
                let inputs = case.plain(values(5, case.len(), 0.0, 1e-39));
                let what = format!("{case:?} {name} eps {eps}");
                let got = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS.eps(eps)));
                assert_train(&what, &inputs, eps, &got);
                assert_frozen(&what, &inputs, eps, &frozen(&context, &inputs, OPTIONS.eps(eps)));
            }
        }
    }
}

/// What has to be the same in all channels but one, bit by bit.
#[track_caller]
fn assert_others_same(what: &str, inputs: &Inputs, poisoned: usize, got: &Outputs, clean: &Outputs) {
    let channel = channel_of(inputs.view());
    for (array, got, clean) in [("y", &got.y, &clean.y), ("dx", &got.dx, &clean.dx)] {
        for (i, (got, clean)) in got.iter().zip(clean).enumerate() {
            assert!(
                channel(i) == poisoned || got.to_bits() == clean.to_bits(),
                "{what}: {array}[{i}] {got} {clean}"
            );
        }
    }
    for (array, got, clean) in [("dgamma", &got.dgamma, &clean.dgamma), ("dbeta", &got.dbeta, &clean.dbeta)] {
        let (got, clean) = (got.as_ref().unwrap(), clean.as_ref().unwrap());
        for (c, (got, clean)) in got.iter().zip(clean).enumerate() {
            assert!(c == poisoned || got.to_bits() == clean.to_bits(), "{what}: {array}[{c}] {got} {clean}");
        }
    }
}

/// The values of one channel.
fn of_channel<'a>(inputs: &Inputs, values: &'a [f32], c: usize) -> impl Iterator<Item = f32> + 'a {
    reduce::channel(inputs.view(), c as u64).map(|i| values[i])
}

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

#[test]
fn what_has_no_finite_variance_makes_its_channel_nan() {
    let poisons: [(&str, &[f32]); 8] = [
        ("NaN", &[NAN]),
        ("+inf", &[INF]),
        ("-inf", &[-INF]),
        ("both inf", &[INF, -INF]),
        ("1e20", &[1e20, -1e20]),
        ("3e38", &[3e38, -3e38]),
        ("one 3e38", &[3e38]),
        ("all inf", &[INF; 40]),
    ];
    for (name, context) in few_contexts() {
        for case in FEW_CASES {
            let inputs = case.inputs(6);
            let clean = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS));
            for (poison, values) in poisons {
                for (c, last) in [(0, false), (inputs.channels() - 1, true)] {
                    // The overflow has to survive a division by the number of values.
                    if poison == "1e20" && inputs.view().count() > 50 {
                        continue;
                    }
                    let mut poisoned = inputs.clone();
                    let places: Vec<_> = reduce::channel(inputs.view(), c as u64).collect();
                    for (i, value) in values.iter().enumerate() {
                        poisoned.x[if last { places[places.len() - 1 - i] } else { places[i] }] = *value;
                    }
                    let what = format!("{case:?} {name} {poison} in channel {c}");
                    let mut layer = poisoned.layer(&context, OPTIONS);
                    let got = train(&context, &poisoned, &mut layer);
                    assert!(of_channel(&inputs, &got.y, c).all(f32::is_nan), "{what}: y is not NaN");
                    assert!(of_channel(&inputs, &got.dx, c).all(f32::is_nan), "{what}: dx is not NaN");
                    assert!(got.dgamma.as_ref().unwrap()[c].is_nan(), "{what}: dgamma is not NaN");
                    assert_others_same(&what, &inputs, c, &got, &clean);
                    let running = download_running(&context, layer.running());
                    assert!(!running.var[c].is_finite(), "{what}: running_var {}", running.var[c]);
                }
            }
        }
    }
}

#[test]
fn an_outlier_in_a_long_channel_is_right_or_nan_but_never_finite_and_wrong() {
    for (name, context) in few_contexts() {
        let case = Case::first(&[1, 2, 100_000], 0);
        for outlier in [1e10, 1e18, 1e20, 1.4e20, 1e21] {
            for at in [0, 37, 199_999] {
                let mut inputs = case.plain(normal(7, 200_000, 1.0, 1.0));
                inputs.x[at] = outlier;
                let got = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS));
                let c = at / 100_000;
                let what = format!("{name} {outlier} at {at}");
                if of_channel(&inputs, &got.y, c).all(f32::is_nan) && outlier >= 1e20 {
                    // A chunk's variance has overflowed, though that of the channel would not.
                    assert!(of_channel(&inputs, &got.dx, c).all(f32::is_nan), "{what}");
                } else {
                    assert_train(&what, &inputs, EPS, &got);
                }
            }
        }
    }
}

#[test]
fn nan_in_dy_stays_in_its_channel() {
    for (name, context) in few_contexts() {
        for case in FEW_CASES {
            let inputs = case.inputs(8);
            let clean = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS));
            let clean_frozen = frozen(&context, &inputs, OPTIONS);
            let c = inputs.channels() / 2;
            let at = reduce::channel(inputs.view(), c as u64).last().unwrap();
            for value in [NAN, INF, -INF] {
                let mut poisoned = inputs.clone();
                poisoned.dy[at] = value;
                let what = format!("{case:?} {name} {value}");
                let got = train(&context, &poisoned, &mut poisoned.layer(&context, OPTIONS));
                assert_eq!(bits(&got.y), bits(&clean.y), "{what}");
                assert!(!of_channel(&inputs, &got.dx, c).any(f32::is_finite), "{what}: a finite dx");
                assert!(got.dx[at].is_nan() || !value.is_nan(), "{what}");
                assert_others_same(&what, &inputs, c, &got, &clean);
                let got_frozen = frozen(&context, &poisoned, OPTIONS);
                assert_others_same(&what, &inputs, c, &got_frozen, &clean_frozen);
                assert!(!got_frozen.dx[at].is_finite(), "{what}");
                assert_eq!(got_frozen.dx[at].is_nan(), value.is_nan(), "{what}");
                assert!(
                    of_channel(&inputs, &got_frozen.dx, c).filter(|v| v.is_finite()).count() + 1
                        == inputs.view().count() as usize
                );
                for sums in [&got.dgamma, &got.dbeta, &got_frozen.dgamma, &got_frozen.dbeta] {
                    assert!(!sums.as_ref().unwrap()[c].is_finite(), "{what}: a finite sum");
                }
            }
        }
    }
}

#[test]
fn nan_in_x_at_inference_stays_in_its_place() {
    for (name, context) in few_contexts() {
        for case in FEW_CASES {
            let inputs = case.inputs(9);
            let clean = frozen(&context, &inputs, OPTIONS);
            let at = reduce::channel(inputs.view(), 0).last().unwrap();
            for value in [NAN, INF, -INF] {
                let mut poisoned = inputs.clone();
                poisoned.x[at] = value;
                let got = frozen(&context, &poisoned, OPTIONS);
                let what = format!("{case:?} {name} {value}");
                assert!(!got.y[at].is_finite(), "{what}");
                assert_eq!(got.y[at].is_nan(), value.is_nan(), "{what}");
                assert_eq!(bits(&got.y)[..at], bits(&clean.y)[..at], "{what}");
                assert_eq!(bits(&got.y)[at + 1..], bits(&clean.y)[at + 1..], "{what}");
                // Frozen dx does not look at x.
                assert_eq!(bits(&got.dx), bits(&clean.dx), "{what}");
                assert!(!got.dgamma.as_ref().unwrap()[0].is_finite(), "{what}");
                assert_others_same(&what, &inputs, 0, &Outputs { y: clean.y.clone(), ..got }, &clean);
            }
        }
    }
}

#[test]
fn a_running_variance_without_a_root_makes_its_channel_nan() {
    for (name, context) in few_contexts() {
        for case in [
            Case::first(&[3, 5, 7, 5], 2),
            Case::first(&[2, 5, 16, 4], 0),
            Case::first(&[40, 5], 0),
            Case::last(&[3, 4, 5], 1),
        ] {
            let inputs = case.inputs(10);
            let clean = frozen(&context, &inputs, OPTIONS);
            for var in [NAN, INF, -INF, -1.0, -1.1e-5] {
                let mut poisoned = inputs.clone();
                poisoned.running.var[2] = var;
                let got = frozen(&context, &poisoned, OPTIONS);
                let what = format!("{case:?} {name} running_var {var}");
                assert!(of_channel(&inputs, &got.y, 2).all(f32::is_nan), "{what}: y is not NaN");
                assert!(of_channel(&inputs, &got.dx, 2).all(f32::is_nan), "{what}: dx is not NaN");
                assert!(got.dgamma.as_ref().unwrap()[2].is_nan(), "{what}");
                assert_others_same(&what, &inputs, 2, &got, &clean);
            }
            // These have one.
            for var in [0.0, 1e-40, f32::MAX, -1e-6] {
                let mut running = inputs.running.clone();
                running.var[2] = var;
                let inputs = Inputs { running, ..inputs.clone() };
                let got = frozen(&context, &inputs, OPTIONS);
                assert_frozen(&format!("{case:?} {name} running_var {var}"), &inputs, EPS, &got);
            }
            let running = RunningValues { mean: vec![1.0, NAN, 1.0, 1.0, 1.0], ..inputs.running.clone() };
            let got = frozen(&context, &Inputs { running, ..inputs.clone() }, OPTIONS);
            assert!(of_channel(&inputs, &got.y, 1).all(f32::is_nan), "{case:?} {name} running_mean NaN");
        }
    }
}

#[test]
fn masked_words_are_no_values() {
    // Runs of 3, 10, 11 and 27 values touch fewer words than they might; in teams of 2 to 8 some invocations meet such last
    // words only, or first. A shift of 0 in place of what they do not hold would cost all digits of the variance.
    for dims in [&[600, 3, 3][..], &[40, 3, 10], &[4, 3, 11], &[4, 3, 27], &[7, 5], &[9, 3]] {
        for team_size in [None, Some(2), Some(4), Some(8)] {
            let tuning = Tuning::default().workgroup_size(8).team_size(team_size);
            let context = context().with_tuning(tuning);
            for phase in 0..4 {
                let inputs = Inputs::new(dims.len() as u64, dims);
                let x = normal(phase as u64 + 5, inputs.x.len(), 1e4, 0.1);
                let inputs = Inputs { x, offset: phase, ..inputs };
                let got = train(&context, &inputs, &mut inputs.layer(&context, BatchNormOptions::pytorch()));
                assert_train(&format!("{dims:?} team {team_size:?} at {phase}"), &inputs, 1e-5, &got);
            }
        }
    }
}

#[test]
fn kinks_and_nan() {
    // A constant channel: z is beta, which is 0 here, exactly at the kink of most activations.
    let context = context();
    for activation in Activation::ALL {
        let options = OPTIONS.activation(activation);
        context.block_on(async {
            let x = context.upload(&[2, 2, 2], &[3.0, 3.0, f32::NAN, 1.0, 3.0, 3.0, 2.0, 1.0]).await.unwrap();
            let dy = context.upload(&[2, 2, 2], &[1.0; 8]).await.unwrap();
            let mut layer = BatchNorm::new(&context, 2, options).await.unwrap();
            let (y, saved) = layer.train_forward(&x).await.unwrap();
            let y = context.download(&y).await.unwrap();
            let at_zero = reference::activation::activate(activation, 0.0) as f32;
            assert!([0, 1, 4, 5].iter().all(|&i| y[i] == at_zero), "{activation}: {y:?}");
            assert!([2, 3, 6, 7].iter().all(|&i| y[i].is_nan()), "{activation}: {y:?}");
            let gradients = layer.backward(&x, &dy, &saved).await.unwrap();
            let dbeta = context.download(&gradients.dbeta.unwrap()).await.unwrap();
            let slope = reference::activation::gradient(activation, 0.0, 1.0);
            assert!((f64::from(dbeta[0]) - 4.0 * slope).abs() < 1e-6, "{activation}: {dbeta:?}");
        });
    }
}
