//! Batch renorm: held against the reference, and as the batch norm with another gamma and beta that it is, in all compositions.

use wgnorm::norm::CrossIteration;
use wgnorm::reference::renorm::{self, Correction};
use wgnorm::reference::{Statistics, WhereNan, bounds, fold, reduce};
use wgnorm::statistics::{Moments, Ramp, Renorm, SavedStatistics};
use wgnorm::tuning::{Autotuning, Tuning};
use wgnorm::{
    Accumulation, Activation, BatchNorm, BatchNormOptions, Context, DType, Error, GradientTargets, Input,
    Layout, Mask, Momentum, RunningStatistics, RunningValues, Saved, Shape, Tensor,
};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();
const EPS: f64 = 1e-5;

/// Running statistics on the host as the reference has them.
fn running_of(values: &RunningValues) -> Vec<fold::Running> {
    let pairs = values.mean.iter().zip(&values.var);
    pairs
        .map(|(&mean, &var)| fold::Running {
            mean: mean.into(),
            var: var.into(),
            batches: values.batches.into(),
        })
        .collect()
}

fn statistics_of(values: &RunningValues) -> Vec<Statistics> {
    running_of(values).iter().map(|running| Statistics::new(running.mean, running.var, EPS)).collect()
}

/// The reference holds, for limits r_max and d_max.
#[track_caller]
fn assert_renorm(what: &str, inputs: &Inputs, limits: (f64, f64), got: &Outputs) {
    let view = inputs.view();
    let (x, dy) = (wide(&inputs.x), wide(&inputs.dy));
    let running = running_of(&inputs.running);
    let (gamma, beta) = (inputs.gamma.as_deref().map(wide), inputs.beta.as_deref().map(wide));
    let forward = renorm::train_forward(&x, view, &running, limits, gamma.as_deref(), beta.as_deref(), EPS);
    let backward = renorm::backward(&x, &dy, view, &forward);
    let s = &forward.statistics;
    let sums = reduce::gradient_sums(&x, &dy, view, s);
    let m = bounds::magnitudes(&x, &dy, view, s);
    let errors: Vec<_> = s
        .iter()
        .zip(statistics_of(&inputs.running))
        .map(|(batch, running)| bounds::renorm(batch, &running, limits))
        .collect();
    let channel = channel_of(view);
    let affine =
        |c: usize| (gamma.as_ref().map_or(1.0, |gamma| gamma[c]), beta.as_ref().map_or(0.0, |beta| beta[c]));
    assert_within(&format!("{what}: y"), &got.y, &forward.y, WhereNan::Nan, |i| {
        let c = channel(i);
        let (gamma, beta) = affine(c);
        bounds::y(&s[c], x[i], forward.gamma[c], forward.beta[c])
            + bounds::renorm_y(&s[c], x[i], gamma, beta, &forward.corrections[c], errors[c])
    });
    assert_within(&format!("{what}: dx"), &got.dx, &backward.dx, WhereNan::Nan, |i| {
        let c = channel(i);
        let of_gamma = (errors[c].0 / forward.corrections[c].r + bounds::U) * backward.dx[i].abs();
        bounds::dx(&s[c], &m[c], &sums[c], view, x[i], dy[i], forward.gamma[c]) + of_gamma
    });
    if let Some(dgamma) = &got.dgamma {
        assert_within(&format!("{what}: dgamma"), dgamma, &backward.dgamma, WhereNan::NonFinite, |c| {
            bounds::renorm_dgamma(&m[c], &sums[c], &forward.corrections[c], errors[c])
        });
    }
    if let Some(dbeta) = &got.dbeta {
        let bound = |c: usize| bounds::dbeta(&m[c]);
        assert_within(&format!("{what}: dbeta"), dbeta, &backward.dbeta, WhereNan::NonFinite, bound);
    }
}

/// A mean far from 0, and running statistics beside, near and far on both sides: limits of both r and d act on both sides in some
/// channels and not in others.
fn hostile(seed: u64, dims: &[usize], layout: Layout) -> Inputs {
    let mut inputs = Inputs::of(seed, dims, layout);
    inputs.x = values(seed, inputs.x.len(), 1e4, 0.1);
    for c in 0..inputs.channels() {
        inputs.running.mean[c] = 1e4 + [0.0, 0.05, -0.3, 5.0, -1e4, 0.01][c % 6];
        inputs.running.var[c] = [3.3e-3, 1e-4, 1.0, 1e-9, 4e3, 2e-3][c % 6];
    }
    inputs
}

#[test]
fn it_is_that_of_the_reference_in_every_walk() {
    for (dims, layout) in [
        (&[3, 6, 7, 5][..], Layout::ChannelsFirst),
        (&[2, 7, 64], Layout::ChannelsFirst),
        (&[5, 9, 6], Layout::ChannelsLast),
        (&[70, 5], Layout::ChannelsFirst),
    ] {
        let rows = dims.len() == 2 || layout == Layout::ChannelsLast;
        for (name, context) in if rows { column_contexts() } else { contexts() } {
            for (k, limits) in [(3.0, 5.0), (1e4, 1e5), (1.0, 2.0), (1.2, 0.0)].into_iter().enumerate() {
                let mut inputs = hostile(11 + k as u64, dims, layout);
                inputs.offset = k;
                match k {
                    1 => inputs.beta = None,
                    2 => inputs.gamma = None,
                    _ => {}
                }
                let options = OPTIONS.renorm(Renorm::fixed(limits.0, limits.1));
                let mut layer = inputs.layer(&context, options);
                let got = train(&context, &inputs, &mut layer);
                let what = format!("{dims:?} {layout:?} {name} {limits:?}");
                assert_renorm(&what, &inputs, limits, &got);
                assert_running_near(&what, &inputs, &download_running(&context, layer.running()));
            }
        }
    }
}

/// As `assert_running`, with what running statistics of a mean of 1e4 round by.
#[track_caller]
fn assert_running_near(what: &str, inputs: &Inputs, got: &RunningValues) {
    let batch = reduce::moments(&wide(&inputs.x), inputs.view());
    assert_eq!(got.batches, inputs.running.batches + 1, "{what}");
    for (c, (before, batch)) in running_of(&inputs.running).into_iter().zip(batch).enumerate() {
        let after = before.update(batch, OPTIONS.momentum, OPTIONS.running_variance);
        let close = |got: f32, expected: f64, scale: f64| (f64::from(got) - expected).abs() <= 1e-6 * scale;
        assert!(close(got.mean[c], after.mean, after.mean.abs()), "{what} [{c}]: {} {after:?}", got.mean[c]);
        assert!(close(got.var[c], after.var, 10.0 * after.var), "{what} [{c}]: {} {after:?}", got.var[c]);
    }
}

/// The shared device without resident kernels: with plans that batch norm and batch renorm have in common.
fn streaming() -> Vec<(&'static str, Context)> {
    let plain = Tuning::default().resident(false);
    let few = plain.workgroup_size(8).team_size(8).strip(1);
    vec![
        ("policy", context().with_tuning(plain)),
        ("split 3", context().with_tuning(few.splits(3))),
        ("windows", context().with_tuning(plain.window_bytes(1200))),
        ("groups", context().with_tuning(plain.group_bytes(2000))),
    ]
}

#[test]
fn with_closed_limits_it_has_the_bits_of_batch_norm() {
    for (dims, layout) in [(&[4, 5, 8, 9][..], Layout::ChannelsFirst), (&[6, 31, 7], Layout::ChannelsLast)] {
        for (name, context) in streaming() {
            let mut inputs = Inputs::of(3, dims, layout);
            inputs.running.mean[1] = f32::NAN;
            inputs.running.var[2] = f32::NAN;
            let mut plain = inputs.layer(&context, OPTIONS);
            let expected = train(&context, &inputs, &mut plain);
            let running = download_running(&context, plain.running());
            // Closed for ever, and not yet open.
            for renorm in [Renorm::fixed(1.0, 0.0), Renorm::paper()] {
                let mut layer = inputs.layer(&context, OPTIONS.renorm(renorm));
                let got = train(&context, &inputs, &mut layer);
                assert_same(name, &got, &expected);
                let got = download_running(&context, layer.running());
                assert_eq!(running_bits(&got), running_bits(&running), "{name}");
            }
        }
    }
}

/// What is run beside the normalization.
#[derive(Clone, Debug)]
struct Setup {
    dims: Vec<usize>,
    layout: Layout,
    dtype: DType,
    activation: Activation,
    residual: bool,
    in_place: bool,
    masked: bool,
}

struct Results {
    /// y, dx, d_residual, dbeta.
    tensors: Vec<Vec<f32>>,
    dgamma: Vec<f32>,
    dbeta: Vec<f32>,
    saved: Vec<SavedStatistics>,
}

impl Setup {
    fn new(dims: &[usize], layout: Layout) -> Self {
        Self {
            dims: dims.to_vec(),
            layout,
            dtype: DType::F32,
            activation: Activation::None,
            residual: false,
            in_place: false,
            masked: false,
        }
    }

    fn channels(&self) -> usize {
        Shape::new(&self.dims).unwrap().channels(self.layout).unwrap().channels as usize
    }

    fn upload(&self, context: &Context, seed: u64, shift: f32) -> Tensor {
        let values = values(seed, self.dims.iter().product(), shift, 2.0);
        context.block_on(context.upload_as(&self.dims, &values, self.dtype)).unwrap().with_layout(self.layout)
    }

    fn layer(
        &self,
        context: &Context,
        renorm: Option<Renorm>,
        gamma: &[f32],
        beta: &[f32],
        running: &RunningValues,
    ) -> BatchNorm {
        let options = OPTIONS.activation(self.activation);
        let options = renorm.map_or(options, |renorm| options.renorm(renorm));
        let [gamma, beta] = [gamma, beta].map(|values| Some(upload(context, &[self.channels()], values)));
        let running = context.block_on(RunningStatistics::upload(context, running)).unwrap();
        BatchNorm::from_parts(context, options, gamma, beta, running).unwrap()
    }

    /// Forward and backward, with a residual of its own and every third position masked.
    fn run(&self, context: &Context, layer: &mut BatchNorm) -> Results {
        let (x, dy) = (self.upload(context, 1, 5.0), self.upload(context, 2, 0.3));
        let residual = self.upload(context, 3, 0.0);
        let count = x.channels().unwrap().count() as usize;
        let keep: Vec<bool> = (0..count).map(|i| i % 3 != 1).collect();
        context.block_on(async {
            let mask = Mask::of_positions(context, &x, &keep).await.unwrap();
            let mut input = if self.residual { x.with_residual(&residual) } else { Input::from(&x) };
            if self.masked {
                input = input.masked(&mask);
            }
            let (y, saved, dx) = match self.in_place {
                true => (x.clone(), Saved::in_place(context, &x).await.unwrap(), dy.clone()),
                false => (
                    context.zeros_like(&x).await.unwrap(),
                    Saved::new(context, &x).await.unwrap(),
                    context.zeros_like(&x).await.unwrap(),
                ),
            };
            let d_residual = context.zeros_like(&x).await.unwrap();
            let [dgamma, dbeta] = [(); 2].map(|()| zeros(context, &[self.channels()]));
            let activated = self.residual && self.activation != Activation::None;
            let targets = GradientTargets::default()
                .dx(&dx)
                .d_residual(activated.then_some(&d_residual))
                .dgamma(&dgamma)
                .dbeta(&dbeta);
            let forward = layer.prepare_train_forward(input, &y, Some(&saved)).await.unwrap();
            layer.submit(&forward).await.unwrap();
            let y = context.download(&y).await.unwrap();
            let backward = layer.prepare_backward(input, &dy, &saved, &targets).await.unwrap();
            context.submit(&[&backward]).await.unwrap();
            let mut tensors = vec![y];
            for tensor in [&dx, &d_residual] {
                tensors.push(context.download(tensor).await.unwrap());
            }
            Results {
                tensors,
                dgamma: context.download(&dgamma).await.unwrap(),
                dbeta: context.download(&dbeta).await.unwrap(),
                saved: saved.download(context).await.unwrap(),
            }
        })
    }

    /// With r and d known, it is batch norm with gamma·r and beta + gamma·d, bit by bit, but for dgamma.
    fn assert_is_batch_norm(&self, what: &str, context: &Context) {
        let c = self.channels();
        // Beta is 0, so that a fused multiplication rounds as any other.
        let (gamma, beta) = (values(4, c, 1.0, 0.5), vec![0.0; c]);
        let running = RunningValues { mean: values(5, c, 4.5, 3.0), var: values(6, c, 2.0, 1.9), batches: 9 };
        let renorm = Some(Renorm::fixed(1.5, 0.4));
        let mut layer = self.layer(context, renorm, &gamma, &beta, &running);
        let got = self.run(context, &mut layer);
        let after = download_running(context, layer.running());
        let scaled: Vec<f32> = gamma.iter().zip(&got.saved).map(|(gamma, s)| gamma * s.r).collect();
        let shifted: Vec<f32> = gamma.iter().zip(&got.saved).map(|(gamma, s)| gamma * s.d).collect();
        let mut plain = self.layer(context, None, &scaled, &shifted, &running);
        let expected = self.run(context, &mut plain);
        let what = format!("{what} {self:?}");
        assert!(got.saved.iter().any(|s| s.r != 1.0 && s.d != 0.0), "{what}");
        for (k, (got, expected)) in got.tensors.iter().zip(&expected.tensors).enumerate() {
            assert_bits(&format!("{what}: tensor {k}"), got, expected);
        }
        assert_bits(&format!("{what}: dbeta"), &got.dbeta, &expected.dbeta);
        let dgamma: Vec<f64> = (0..c)
            .map(|c| {
                let SavedStatistics { r, d, .. } = got.saved[c];
                f64::from(r) * f64::from(expected.dgamma[c]) + f64::from(d) * f64::from(expected.dbeta[c])
            })
            .collect();
        assert_within(&format!("{what}: dgamma"), &got.dgamma, &dgamma, WhereNan::Nan, |c| {
            4.0 * bounds::U * 2.0 * (expected.dgamma[c].abs() + expected.dbeta[c].abs()) as f64
        });
        assert_eq!(after, download_running(context, plain.running()), "{what}");
    }
}

#[test]
fn with_activations_residuals_masks_halves_and_in_place_it_is_a_batch_norm() {
    let leaky = Activation::LeakyRelu { slope: 0.25 };
    for (dims, layout) in [(&[3, 5, 7, 7][..], Layout::ChannelsFirst), (&[5, 9, 6], Layout::ChannelsLast)] {
        let base = Setup::new(dims, layout);
        let setups = [
            Setup { activation: Activation::Relu, ..base.clone() },
            Setup { activation: Activation::Gelu, residual: true, ..base.clone() },
            Setup { dtype: DType::Bf16, activation: Activation::Silu, residual: true, ..base.clone() },
            Setup { dtype: DType::F16, ..base.clone() },
            Setup { masked: true, ..base.clone() },
            Setup { masked: true, activation: Activation::Relu, residual: true, ..base.clone() },
            Setup { in_place: true, ..base.clone() },
            Setup { in_place: true, activation: leaky, residual: true, ..base.clone() },
            Setup { in_place: true, dtype: DType::Bf16, activation: leaky, ..base.clone() },
        ];
        // Each in one of the plans; windows of tensors that share words, of these only.
        for (setup, (name, context)) in setups.iter().zip(streaming().into_iter().cycle()) {
            if name != "windows" || !setup.in_place {
                setup.assert_is_batch_norm(name, &context);
            }
        }
    }
}

#[test]
fn what_r_makes_too_small_is_not_recovered_in_place() {
    let context = context();
    let setup = Setup { in_place: true, ..Setup::new(&[4, 3, 8], Layout::ChannelsFirst) };
    let least = Saved::least_gamma(DType::F32);
    let gamma = [1.0, 1.5 * least, 3.0 * least];
    let running = RunningValues { mean: vec![5.0; 3], var: vec![1e4; 3], batches: 9 };
    let mut layer = setup.layer(&context, Some(Renorm::fixed(2.0, 0.0)), &gamma, &[0.0; 3], &running);
    let got = setup.run(&context, &mut layer);
    assert!(got.saved.iter().all(|s| s.r == 0.5 && s.d == 0.0));
    assert_eq!(got.saved.iter().map(|s| s.recoverable).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(got.dgamma.iter().map(|g| g.is_nan()).collect::<Vec<_>>(), [false, true, false]);
}

#[test]
fn resident_backward_writes_its_dgamma() {
    let tuning = Tuning::default().resident(true);
    let context = context().with_tuning(tuning);
    for (dims, layout) in [(&[3, 6, 8, 4][..], Layout::ChannelsFirst), (&[30, 6], Layout::ChannelsFirst)] {
        let inputs = hostile(21, dims, layout);
        let mut layer = inputs.layer(&context, OPTIONS.renorm(Renorm::fixed(2.0, 3.0)));
        let x = inputs.upload_x(&context);
        let kernels = context.block_on(async {
            let (y, saved) = layer.train_forward_untracked(&x).await.unwrap();
            let [dx, dgamma] = [x.shape().dims(), &[inputs.channels()]].map(|dims| zeros(&context, dims));
            let targets = GradientTargets::default().dx(&dx).dgamma(&dgamma);
            let backward = layer.prepare_backward(&x, &y, &saved, &targets).await.unwrap();
            let forward = layer.prepare_train_forward_untracked(&x, &y, None).await.unwrap();
            forward.kernels().chain(backward.kernels()).map(str::to_owned).collect::<Vec<_>>()
        });
        assert_eq!(kernels.len(), 4, "{kernels:?}");
        assert!(
            kernels[1].starts_with("fold_statistics<batch>") && kernels[2].starts_with("map_forward<saved>")
        );
        assert!(kernels[3].starts_with("resident_backward<saved> renorm"), "{kernels:?}");
        let got = train(&context, &inputs, &mut layer);
        assert_renorm(&format!("{dims:?}"), &inputs, (2.0, 3.0), &got);
    }
}

/// r and d of all channels are those of the reference, for moments of x.
#[track_caller]
fn assert_corrections(
    what: &str,
    batch: &[Statistics],
    before: &RunningValues,
    limits: (f64, f64),
    got: &[SavedStatistics],
) {
    for (c, (batch, running)) in batch.iter().zip(statistics_of(before)).enumerate() {
        let expected = Correction::new(batch, &running, limits);
        let (r, d) = bounds::renorm(batch, &running, limits);
        for (name, got, expected, bound) in [("r", got[c].r, expected.r, r), ("d", got[c].d, expected.d, d)] {
            let off = (f64::from(got) - expected).abs();
            assert!(off <= bound, "{what}: {name} of channel {c} is {got}, expected {expected}");
        }
    }
}

#[test]
fn limits_open_with_the_batches_that_were_seen() {
    let context = context();
    let mut inputs = Inputs::new(5, &[4, 3, 6]);
    inputs.running = RunningValues { mean: vec![9.0, -9.0, 0.5], var: vec![25.0, 1e-3, 1.3], batches: 6 };
    let renorm = Renorm::fixed(2.0, 1.5).r_ramp(8, 12).d_ramp(9, 10);
    assert_eq!(renorm.r_max, Ramp { limit: 2.0, begin: 8, end: 12 });
    let options = OPTIONS.renorm(renorm).momentum(Momentum::WeightOfNew(0.02));
    let mut layer = inputs.layer(&context, options);
    let x = inputs.upload_x(&context);
    let batch: Vec<_> = reduce::moments(&wide(&inputs.x), inputs.view())
        .iter()
        .map(|m| Statistics::new(m.mean, m.var, EPS))
        .collect();
    context.block_on(async {
        let [y, again] = [(); 2].map(|()| zeros(&context, &inputs.dims));
        let saved = Saved::new(&context, &x).await.unwrap();
        let forward = layer.prepare_train_forward(&x, &y, Some(&saved)).await.unwrap();
        let untracked = layer.prepare_train_forward_untracked(&x, &again, None).await.unwrap();
        let mut seen = Vec::new();
        for step in 0..8 {
            let before = layer.running().download(&context).await.unwrap();
            assert_eq!(before.batches, 6 + step);
            context.submit(&[&untracked]).await.unwrap();
            assert_eq!(layer.running().download(&context).await.unwrap(), before);
            layer.submit(&forward).await.unwrap();
            // A pass that does not update sees the same statistics and limits as the next that does.
            assert_bits(
                "again",
                &context.download(&again).await.unwrap(),
                &context.download(&y).await.unwrap(),
            );
            let got = saved.download(&context).await.unwrap();
            let limits = renorm.limits(before.batches);
            assert_corrections(&format!("step {step}"), &batch, &before, limits, &got);
            seen.push((got[0].r, got[0].d));
        }
        assert_eq!(seen[..3], [(1.0, 0.0); 3]);
        assert_eq!(seen[6], (0.5, -1.5));
    });
}

#[test]
fn nan_and_overflow_stay_in_their_channel() {
    for (name, context) in few_contexts() {
        let mut clean = Inputs::new(7, &[4, 7, 6]);
        clean.running.batches = 0;
        let options = OPTIONS.renorm(Renorm::fixed(2.0, 1.0));
        let expected = train(&context, &clean, &mut clean.layer(&context, options));
        let mut inputs = clean.clone();
        let first = |c: usize| 6 * c;
        inputs.x[first(1)] = f32::NAN;
        inputs.x[first(2) + 1] = f32::INFINITY;
        (inputs.x[first(3)], inputs.x[first(3) + 2]) = (3e38, -3e38);
        inputs.running.mean[4] = f32::NAN;
        inputs.running.var[5] = f32::NAN;
        let mut layer = inputs.layer(&context, options);
        let got = train(&context, &inputs, &mut layer);
        let channel = channel_of(inputs.view());
        for (i, (y, dx)) in got.y.iter().zip(&got.dx).enumerate() {
            let c = channel(i);
            if [0, 6].contains(&c) {
                assert!(*y == expected.y[i] && *dx == expected.dx[i], "{name} {i}: {y} {dx}");
            } else {
                assert!(y.is_nan(), "{name} {i}: {y}");
            }
            // A running mean that is NaN is in d alone.
            assert_eq!(dx.is_nan(), ![0, 4, 6].contains(&c), "{name} {i}: {dx}");
        }
        let (dgamma, dbeta) = (got.dgamma.unwrap(), got.dbeta.unwrap());
        for (c, dgamma) in dgamma.iter().enumerate() {
            assert_eq!(dgamma.is_nan(), ![0, 6].contains(&c), "{name} channel {c}: {dgamma}");
        }
        assert_bits(name, &dbeta, &expected.dbeta.unwrap());
        let after = download_running(&context, layer.running());
        assert!([0, 6].iter().all(|&c| after.mean[c].is_finite() && after.var[c].is_finite()));
    }
}

#[test]
fn given_moments_and_no_values() {
    for (name, context) in few_contexts() {
        let inputs = hostile(9, &[4, 6, 5], Layout::ChannelsFirst);
        let limits = (3.0, 5.0);
        let options = OPTIONS.renorm(Renorm::fixed(3.0, 5.0));
        let (x, dy) = (inputs.upload_x(&context), inputs.upload_dy(&context));
        context.block_on(async {
            // Moments of x, from before, with everything else as ever.
            let mut layer = inputs.layer(&context, options);
            let moments = Moments::of(&context, &x).await.unwrap();
            let (y, saved) = layer.train_forward(x.with_moments(&moments)).await.unwrap();
            let (sums, gradients) = layer.gradient_sums(&x, &dy, &saved).await.unwrap();
            let dx = layer.backward_from(&sums, &x, &dy, &saved).await.unwrap();
            let got = Outputs {
                y: context.download(&y).await.unwrap(),
                dx: context.download(&dx).await.unwrap(),
                dgamma: Some(context.download(&gradients.dgamma.unwrap()).await.unwrap()),
                dbeta: Some(context.download(&gradients.dbeta.unwrap()).await.unwrap()),
            };
            assert_renorm(name, &inputs, limits, &got);
            // Sums as a value are those of batch norm.
            let raw = sums.download(&context).await.unwrap();
            assert_eq!(raw[3].dz, got.dbeta.as_ref().unwrap()[3]);
            assert_ne!(raw[3].dz_xhat, got.dgamma.as_ref().unwrap()[3]);

            // An update by moments alone is the one of that pass.
            let mut updated = inputs.layer(&context, options);
            updated.update_running(&moments).await.unwrap();
            let (a, b) =
                (layer.running().download(&context).await, updated.running().download(&context).await);
            assert_eq!(a.unwrap(), b.unwrap());

            // Without any value y is beta, and nothing is learned.
            let mut layer = inputs.layer(&context, options);
            let mask = Mask::of_samples(&context, &x, &[false; 4]).await.unwrap();
            let (y, saved) = layer.train_forward(x.masked(&mask)).await.unwrap();
            let gradients = layer.backward(x.masked(&mask), &dy, &saved).await.unwrap();
            for (i, y) in context.download(&y).await.unwrap().into_iter().enumerate() {
                assert_eq!(y, inputs.beta.as_ref().unwrap()[i / 5 % 6], "{name}");
            }
            for tensor in [&gradients.dx, &gradients.dgamma.unwrap()] {
                assert!(context.download(tensor).await.unwrap().iter().all(|&v| v == 0.0), "{name}");
            }
            let saved = saved.download(&context).await.unwrap();
            assert!(saved.iter().all(|s| (s.r, s.d, s.count) == (1.0, 0.0, 0.0)));
            assert_eq!(layer.running().download(&context).await.unwrap(), inputs.running, "{name}");
        });
    }
}

/// Micro-batches, ghost batches and steps merged: r and d are those of the merged moments, of running statistics from before.
#[test]
fn compositions_share_running_statistics_from_before() {
    let context = context();
    let inputs = hostile(13, &[5, 6, 4], Layout::ChannelsFirst);
    let renorm = Renorm::fixed(3.0, 5.0);
    let options = OPTIONS.renorm(renorm);
    let (x, dy) = (inputs.upload_x(&context), inputs.upload_dy(&context));
    let part =
        |range: std::ops::Range<usize>| [&x, &dy].map(|tensor| tensor.slice_samples(range.clone()).unwrap());
    let of = |range: std::ops::Range<usize>| {
        let at = 24 * range.start..24 * range.end;
        let (x, dy) = (inputs.x[at.clone()].to_vec(), inputs.dy[at].to_vec());
        Inputs { dims: vec![range.len(), 6, 4], x, dy, ..inputs.clone() }
    };
    context.block_on(async {
        let [a, b] = [part(0..2), part(2..5)];
        let mut layer = inputs.layer(&context, options);
        let batches: Vec<Input> = vec![(&a[0]).into(), (&b[0]).into()];
        let outputs = layer.train_forward_accumulated(&batches).await.unwrap();
        let saved: Vec<_> = outputs.iter().map(|(_, saved)| saved).collect();
        let gradients = layer.backward_accumulated(&batches, &[&a[1], &b[1]], &saved).await.unwrap();
        let all = async |tensors: [&Tensor; 2]| {
            let mut all = context.download(tensors[0]).await.unwrap();
            all.extend(context.download(tensors[1]).await.unwrap());
            all
        };
        let got = Outputs {
            y: all([&outputs[0].0, &outputs[1].0]).await,
            dx: all([&gradients.dx[0], &gradients.dx[1]]).await,
            dgamma: Some(context.download(&gradients.dgamma.unwrap()).await.unwrap()),
            dbeta: Some(context.download(&gradients.dbeta.unwrap()).await.unwrap()),
        };
        assert_renorm("accumulated", &inputs, (3.0, 5.0), &got);
        assert_running_near("accumulated", &inputs, &layer.running().download(&context).await.unwrap());

        let mut layer = inputs.layer(&context, options);
        let (y, saved) = layer.train_forward_ghost(&x, 3).await.unwrap();
        let gradients = layer.backward_ghost(&x, &dy, &saved).await.unwrap();
        let (y, dx) = (context.download(&y).await.unwrap(), context.download(&gradients.dx).await.unwrap());
        let mut dgamma = vec![0.0; 6];
        for range in [0..3, 3..5] {
            let at = 24 * range.start..24 * range.end;
            let part = of(range);
            let got = Outputs { y: y[at.clone()].to_vec(), dx: dx[at].to_vec(), dgamma: None, dbeta: None };
            assert_renorm("ghost", &part, (3.0, 5.0), &got);
            let (gamma, running) = (wide(part.gamma.as_ref().unwrap()), running_of(&part.running));
            let (x, dy) = (wide(&part.x), wide(&part.dy));
            let forward =
                renorm::train_forward(&x, part.view(), &running, (3.0, 5.0), Some(&gamma), None, EPS);
            let of_part = renorm::backward(&x, &dy, part.view(), &forward).dgamma;
            dgamma.iter_mut().zip(of_part).for_each(|(sum, of_part)| *sum += of_part);
        }
        let got = context.download(&gradients.dgamma.unwrap()).await.unwrap();
        assert_within("ghost: dgamma", &got, &dgamma, WhereNan::Nan, |_| 1e-4);
        assert_running_near("ghost", &inputs, &layer.running().download(&context).await.unwrap());

        let mut layer = inputs.layer(&context, options);
        let mut last = CrossIteration::new(2).unwrap();
        last.train_forward(&mut layer, &a[0]).await.unwrap();
        let before = layer.running().download(&context).await.unwrap();
        let (y, saved) = last.train_forward(&mut layer, &b[0]).await.unwrap();
        last.backward(&layer, &b[0], &y, &saved).await.unwrap();
        let batch: Vec<_> = reduce::moments(&wide(&inputs.x), inputs.view())
            .iter()
            .map(|m| Statistics::new(m.mean, m.var, EPS))
            .collect();
        let saved = saved.download(&context).await.unwrap();
        assert_corrections("cross-iteration", &batch, &before, (3.0, 5.0), &saved);
    });
}

#[test]
fn parameter_gradients_alone_and_added() {
    let inputs = hostile(15, &[3, 6, 10], Layout::ChannelsFirst);
    for (name, context) in streaming() {
        let (x, dy) = (inputs.upload_x(&context), inputs.upload_dy(&context));
        let mut layer = inputs.layer(&context, OPTIONS.renorm(Renorm::fixed(3.0, 5.0)));
        context.block_on(async {
            let (_, saved) = layer.train_forward(&x).await.unwrap();
            let all = layer.backward(&x, &dy, &saved).await.unwrap();
            let dgamma = upload(&context, &[6], &[100.0; 6]);
            let targets = GradientTargets::default().dgamma(&dgamma).accumulation(Accumulation::Add);
            let backward = layer.prepare_backward(&x, &dy, &saved, &targets).await.unwrap();
            context.submit(&[&backward]).await.unwrap();
            let once = context.download(&all.dgamma.unwrap()).await.unwrap();
            let added: Vec<f32> = once.iter().map(|once| 100.0 + once).collect();
            assert_bits(name, &context.download(&dgamma).await.unwrap(), &added);
        });
    }
}

#[test]
fn half_parameters_are_those_of_their_values() {
    for dtype in [DType::F16, DType::Bf16] {
        for (name, context) in streaming() {
            let setup = Setup { dtype, ..Setup::new(&[4, 5, 9], Layout::ChannelsFirst) };
            let running =
                RunningValues { mean: values(5, 5, 4.5, 3.0), var: values(6, 5, 2.0, 1.9), batches: 9 };
            let (gamma, beta) = ([1.5, -0.25, 3.0, 0.5, 1.0], [0.5, 1.0, -2.0, 0.25, 0.0]);
            let renorm = Renorm::fixed(1.5, 0.4);
            let x = setup.upload(&context, 1, 5.0);
            context.block_on(async {
                let mut layer = setup.layer(&context, Some(renorm), &gamma, &beta, &running);
                let (expected, saved) = layer.train_forward(&x).await.unwrap();
                let expected_dx = layer.backward(&x, &expected, &saved).await.unwrap().dx;
                let gamma = context.upload_as(&[5], &gamma, dtype).await.unwrap();
                let beta = context.upload_as(&[5], &beta, dtype).await.unwrap();
                let running = RunningStatistics::upload(&context, &running).await.unwrap();
                let options = OPTIONS.renorm(renorm);
                let mut layer =
                    BatchNorm::from_parts(&context, options, Some(gamma), Some(beta), running).unwrap();
                let (y, saved) = layer.train_forward(&x).await.unwrap();
                let gradients = layer.backward(&x, &y, &saved).await.unwrap();
                for (got, expected) in [(&y, &expected), (&gradients.dx, &expected_dx)] {
                    let (got, expected) = (context.download(got).await, context.download(expected).await);
                    assert_bits(name, &got.unwrap(), &expected.unwrap());
                }
                layer.update_running(&Moments::of(&context, &x).await.unwrap()).await.unwrap();
                assert_eq!(layer.running().download(&context).await.unwrap().batches, 11);
            });
        }
    }
}

#[test]
fn autotuning_knows_it_as_a_problem_of_its_own_and_changes_nothing() {
    let context = headless().with_autotuning(Autotuning::Measure);
    let inputs = hostile(17, &[2, 6, 40, 40], Layout::ChannelsFirst);
    let mut layer = inputs.layer(&context, OPTIONS.renorm(Renorm::fixed(3.0, 5.0)));
    let got = train(&context, &inputs, &mut layer);
    assert_renorm("measured", &inputs, (3.0, 5.0), &got);
    assert_eq!(download_running(&context, layer.running()).batches, inputs.running.batches + 1);
    train(&context, &inputs, &mut inputs.layer(&context, OPTIONS));
    let problems: Vec<_> = context.pinned_tunings().into_iter().map(|pin| pin.problem).collect();
    let forward: Vec<_> = problems.iter().filter(|problem| problem.starts_with("train_forward")).collect();
    assert_eq!(forward.len(), 2, "{problems:?}");
    assert_eq!(forward.iter().filter(|problem| problem.contains("renorm")).count(), 1, "{problems:?}");
    // What is exported can be read again.
    let text = context.export_tunings();
    let other = headless().with_autotuning(Autotuning::Measure);
    assert_eq!(other.import_tunings(&text).unwrap().pinned, problems.len());
}

#[test]
fn what_does_not_fit_is_refused_and_freezing_forgets_nothing() {
    let context = context();
    let inputs = Inputs::new(1, &[2, 3, 4]);
    let (x, dy) = (inputs.upload_x(&context), inputs.upload_dy(&context));
    context.block_on(async {
        for (renorm, expected) in [
            (Renorm::fixed(0.9, 1.0), Error::RenormLimit { what: "r_max", least: 1.0, got: 0.9 }),
            (Renorm::fixed(2.0, -1.0), Error::RenormLimit { what: "d_max", least: 0.0, got: -1.0 }),
            (Renorm::paper().d_ramp(5, 4), Error::RenormRamp { what: "d_max", begin: 5, end: 4 }),
        ] {
            let refused = BatchNorm::new(&context, 3, OPTIONS.renorm(renorm)).await;
            assert_eq!(refused.err(), Some(expected));
        }
        let renorm = OPTIONS.renorm(Renorm::fixed(3.0, 5.0));
        let (mut plain, mut layer) = (inputs.layer(&context, OPTIONS), inputs.layer(&context, renorm));
        let (_, of_plain) = plain.train_forward(&x).await.unwrap();
        let (_, of_renorm) = layer.train_forward(&x).await.unwrap();
        refused!(layer.backward(&x, &dy, &of_plain).await, Error::Renormalized { expected: false });
        refused!(plain.backward(&x, &dy, &of_renorm).await, Error::Renormalized { expected: true });
        let saved = of_plain.download(&context).await.unwrap();
        assert!(saved.iter().all(|s| (s.r, s.d) == (1.0, 0.0)));

        // Inference knows no r and d.
        let (plain, layer) = (plain.freeze(), layer.freeze());
        let y = layer.infer(&x).await.unwrap();
        let expected = plain.infer(&x).await.unwrap();
        assert_bits("y", &context.download(&y).await.unwrap(), &context.download(&expected).await.unwrap());
        let gradients = layer.backward(&x, &dy).await.unwrap();
        let expected = plain.backward(&x, &dy).await.unwrap();
        let [got, expected] = [gradients, expected].map(|g| download(&context, &g.dgamma.unwrap()));
        assert_bits("dgamma", &got, &expected);
        assert_eq!(layer.unfreeze().options().renorm, renorm.renorm);
    });
}
