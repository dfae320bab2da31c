//! The built-in matrix: what must hold on every adapter, generated here and computed by the f64 reference.
//!
//! It covers what stored fixtures lack: sizes around every boundary, ranges that overflow, empty batches, more
//! workgroups than one dimension holds, slices longer than one invocation may walk.

use wgnorm::reference::fold::Running;
use wgnorm::reference::{Statistics, batch, bounds, reduce};
use wgnorm::{BatchNormOptions, Channels, Layout, Momentum, RunningValues, RunningVariance, Shape};

use super::case::{Batch, Case, Content, Expected, Problem, Task};
use crate::{layout, random};

/// Distributions of x; each channel has its own mean and scale.
#[derive(Clone, Copy)]
enum Data {
    /// Near N(0, 1).
    Normal,
    /// Mean 1e4, standard deviation 0.1.
    LargeMean,
    /// As `LargeMean`, with 0 as the first element of each channel (padding, ReLU).
    FirstZero,
    /// As `LargeMean`, with 0 as the first 40 elements of each channel: the first shift of every invocation of a small
    /// workgroup is an outlier, which docs/NUMERICS.md allows twice the error.
    Padded,
    /// The mean moves by 1000 standard deviations along the channel.
    Drift,
    /// One value per channel.
    Constant,
    /// Standard deviation 1e-7 about a mean of 1e-3.
    Tiny,
    /// Below the smallest normal number.
    Subnormal,
    /// Mean 1e20, spread 1e14: squares of values overflow, the variance does not.
    HugeMean,
    /// Standard deviation 1e18: squares are near overflow, the variance is not.
    HugeSpread,
    /// Channel 0 holds ±1e20: its variance overflows. The others are normal.
    OverflowInOne,
    /// Channel 0 holds a NaN.
    NanInOne,
    /// Channel 0 holds an infinity.
    InfInOne,
}

const HOSTILE: [(&str, Data); 12] = [
    ("large_mean", Data::LargeMean),
    ("first_zero", Data::FirstZero),
    ("padded", Data::Padded),
    ("drift", Data::Drift),
    ("constant", Data::Constant),
    ("tiny", Data::Tiny),
    ("subnormal", Data::Subnormal),
    ("huge_mean", Data::HugeMean),
    ("huge_spread", Data::HugeSpread),
    ("overflow_in_one", Data::OverflowInOne),
    ("nan_in_one", Data::NanInOne),
    ("inf_in_one", Data::InfInOne),
];

/// Ranks 2 to 5 and sizes on both sides of words, chunks, workgroups and tiles.
const SHAPES: [&[usize]; 20] = [
    &[2, 1],
    &[6, 3],
    &[31, 19],
    &[64, 2],
    &[65, 3],
    &[1031, 5],
    &[2, 5, 9],
    &[3, 3, 1],
    &[1, 2, 3],
    &[1, 2, 4],
    &[2, 3, 63],
    &[2, 3, 64],
    &[2, 3, 65],
    &[3, 5, 256],
    &[1, 3, 4100],
    &[3, 4, 7, 5],
    &[2, 129, 4, 3],
    &[4, 3, 56, 56],
    &[2, 3, 2, 5, 4],
    &[2, 2, 8, 8, 8],
];

pub fn cases() -> Vec<Case> {
    let options = BatchNormOptions::pytorch();
    let mut cases = Vec::new();
    for dims in SHAPES {
        cases.push(train(&format!("normal.{}", name(dims)), dims, Data::Normal, options, true, true));
        cases.push(eval(&format!("normal.{}", name(dims)), dims, Data::Normal, options, true, true));
    }
    for (distribution, data) in HOSTILE {
        // Fewer and more values than one accumulator sums, for small and large workgroups.
        for dims in [&[3, 4, 7, 5][..], &[2, 3, 16, 16], &[40, 3], &[1, 2, 70_001], &[2, 2, 300, 160]] {
            let name = format!("{distribution}.{}", name(dims));
            cases.push(train(&name, dims, data, options, true, true));
            cases.push(eval(&name, dims, data, options, true, true));
        }
    }
    // Runs whose last words hold none of their values, now and then or always; rows that do not fill the last one.
    for dims in [&[600, 3, 3][..], &[4, 3, 11], &[4, 3, 27], &[40, 3, 10], &[7, 5], &[2, 1001, 7]] {
        let name = format!("large_mean.{}", name(dims));
        cases.push(train(&name, dims, Data::LargeMean, options, true, true));
    }
    for (gamma, beta) in [(true, false), (false, true), (false, false)] {
        let name = format!("affine_{}_{}.3x4x7x5", u8::from(gamma), u8::from(beta));
        cases.push(train(&name, &[3, 4, 7, 5], Data::Normal, options, gamma, beta));
        cases.push(eval(&name, &[3, 4, 7, 5], Data::Normal, options, gamma, beta));
    }
    for eps in [1e-30, 1e-12, 1e-3, 10.0] {
        let name = format!("eps_{eps:e}.3x4x7x5");
        cases.push(train(&name, &[3, 4, 7, 5], Data::Normal, options.eps(eps), true, true));
        cases.push(eval(&name, &[3, 4, 7, 5], Data::Normal, options.eps(eps), true, true));
    }
    for (convention, momentum) in [
        ("new_0", Momentum::WeightOfNew(0.0)),
        ("new_1", Momentum::WeightOfNew(1.0)),
        ("new_0.1", Momentum::WeightOfNew(0.1)),
        ("old_0.99", Momentum::WeightOfOld(0.99)),
        ("cumulative", Momentum::Cumulative),
    ] {
        for (variance, running_variance) in
            [("biased", RunningVariance::Biased), ("unbiased", RunningVariance::Unbiased)]
        {
            let options = options.momentum(momentum).running_variance(running_variance);
            cases.push(sequence(&format!("{convention}.{variance}.5x3x4"), &[5, 3, 4], options));
        }
    }
    // One value per channel, allowed.
    let single = options.allow_single_value(true);
    cases.push(train("single_value.1x3", &[1, 3], Data::Normal, single, true, true));
    cases.push(sequence("single_value.1x3x1", &[1, 3, 1], single));
    // Empty batches have no training; inference gives an empty result.
    for dims in [&[0, 3][..], &[0, 3, 4, 4], &[2, 3, 0]] {
        cases.push(eval(&format!("empty.{}", name(dims)), dims, Data::Normal, options, true, true));
    }
    // More workgroups than one dimension holds, and slices longer than 65535 words for each of 32 invocations.
    for dims in [&[2, 70_000, 2][..], &[1, 1, 2_200_000], &[3, 1, 733_337]] {
        cases.push(train(&format!("large.{}", name(dims)), dims, Data::Normal, options, true, true));
    }
    cases
}

fn name(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// Uniform pseudo-random numbers in [-1, 1).
fn uniform(seed: &str, len: usize) -> Vec<f64> {
    random::uniform(random::seed_of(seed)).take(len).collect()
}

/// Sums of three uniform numbers: variance 1, bounded, bell-shaped.
fn bell(seed: &str, len: usize) -> Vec<f64> {
    let parts: Vec<_> = (0..3).map(|i| uniform(&format!("{seed}/{i}"), len)).collect();
    (0..len).map(|i| parts[0][i] + parts[1][i] + parts[2][i]).collect()
}

fn x_of(seed: &str, dims: &[usize], data: Data) -> Vec<f32> {
    let view = view(dims);
    let normal = bell(seed, view.elements() as usize);
    let mut x = vec![0.0; normal.len()];
    for c in 0..view.channels {
        let k = c as f64;
        for (position, i) in reduce::channel(view, c).enumerate() {
            let z = normal[i];
            x[i] = match data {
                Data::Normal => 0.3 * k.min(10.0) + z * (1.0 + 0.1 * k.min(10.0)),
                Data::LargeMean => 1e4 + 0.1 * z,
                Data::FirstZero if position == 0 => 0.0,
                Data::Padded if position < 40 => 0.0,
                Data::FirstZero | Data::Padded => 1e4 + 0.1 * z,
                Data::Drift => 1e3 * position as f64 / view.count() as f64 + z,
                Data::Constant => 3.7 - 1e3 * k,
                Data::Tiny => 1e-3 + 1e-7 * z,
                Data::Subnormal => 1e-41 * z,
                Data::HugeMean => 1e20 + 1e14 * z,
                Data::HugeSpread => 1e18 * z,
                Data::OverflowInOne if c == 0 => 1e20 * z.signum(),
                Data::NanInOne if c == 0 && position == 1 => f64::NAN,
                Data::InfInOne if c == 0 && position == 1 => f64::INFINITY,
                Data::OverflowInOne | Data::NanInOne | Data::InfInOne => z,
            } as f32;
        }
    }
    x
}

fn view(dims: &[usize]) -> Channels {
    Shape::new(dims).and_then(|shape| shape.channels(Layout::ChannelsFirst)).expect("a valid shape")
}

fn narrow(values: Vec<f64>) -> Vec<f32> {
    values.into_iter().map(|value| value as f32).collect()
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Parameters and running statistics of a case.
struct Layer {
    gamma: Option<Vec<f32>>,
    beta: Option<Vec<f32>>,
    running: RunningValues,
}

impl Layer {
    fn new(seed: &str, channels: u64, gamma: bool, beta: bool) -> Self {
        let c = channels as usize;
        let values = |what: &str, shift: f64| {
            narrow(uniform(&format!("{seed}/{what}"), c)).iter().map(|v| v + shift as f32).collect()
        };
        Self {
            gamma: gamma.then(|| values("gamma", 1.5)),
            beta: beta.then(|| values("beta", 0.0)),
            running: RunningValues { mean: values("mean", 0.2), var: values("var", 1.4), batches: 0 },
        }
    }

    fn gamma(&self, c: usize) -> f64 {
        self.gamma.as_ref().map_or(1.0, |gamma| gamma[c].into())
    }

    fn beta(&self, c: usize) -> f64 {
        self.beta.as_ref().map_or(0.0, |beta| beta[c].into())
    }

    /// The expected y, or whatever is mapped like it.
    fn expect_y(&self, name: &str, view: Channels, s: &[Statistics], x: &[f64], y: Vec<f64>) -> Expected {
        expected(name, y, |i| {
            let c = channel(view, i);
            bounds::y(&s[c], x[i], self.gamma(c), self.beta(c))
        })
    }

    /// The expected gradients of the parameters that the layer has.
    fn expect_parameters(&self, g: &batch::Gradients, m: &[bounds::Magnitudes]) -> Vec<Expected> {
        let mut all = Vec::new();
        if self.gamma.is_some() {
            all.push(expected("dweight", g.dgamma.clone(), |c| bounds::dgamma(&m[c])));
            let twice = g.dgamma.iter().map(|sum| 2.0 * sum).collect();
            all.push(expected("dweight_twice", twice, |c| 2.0 * bounds::dgamma(&m[c])));
        }
        if self.beta.is_some() {
            all.push(expected("dbias", g.dbeta.clone(), |c| bounds::dbeta(&m[c])));
            let twice = g.dbeta.iter().map(|sum| 2.0 * sum).collect();
            all.push(expected("dbias_twice", twice, |c| 2.0 * bounds::dbeta(&m[c])));
        }
        all
    }

    fn case(
        self,
        kind: &str,
        name: &str,
        dims: &[usize],
        options: BatchNormOptions,
        task: Task,
        expected: Vec<Expected>,
    ) -> Case {
        let Self { gamma, beta, running } = self;
        Case {
            name: format!("builtin.{kind}.{name}"),
            op: format!("batch_norm_{kind}"),
            dtype: "float32".to_owned(),
            content: Content::Problem(Box::new(Problem {
                dims: dims.to_vec(),
                stored: Layout::ChannelsFirst,
                // At rank 2 they are the same.
                layouts: if dims.len() == 2 { vec![Layout::ChannelsFirst] } else { layout::ALL.to_vec() },
                options,
                gamma,
                beta,
                running,
                task,
                expected,
            })),
        }
    }

    fn running(&self, c: usize) -> Running {
        Running { mean: self.running.mean[c].into(), var: self.running.var[c].into(), batches: 0 }
    }
}

/// Channel of a flat index.
fn channel(view: Channels, i: usize) -> usize {
    view.channel_of(i as u64) as usize
}

fn expected(name: &str, values: Vec<f64>, bound: impl Fn(usize) -> f64) -> Expected {
    let gate: Vec<_> = (0..values.len()).map(bound).collect();
    Expected { name: name.to_owned(), strict: gate.clone(), gate, values, sample: None, peer_err: None }
}

fn train(name: &str, dims: &[usize], data: Data, options: BatchNormOptions, gamma: bool, beta: bool) -> Case {
    let view = view(dims);
    let layer = Layer::new(name, view.channels, gamma, beta);
    let x32 = x_of(name, dims, data);
    let dy32 = narrow(bell(&format!("{name}/dy"), x32.len()));
    let (x, dy) = (widen(&x32), widen(&dy32));
    let (g, b) = (layer.gamma.as_deref().map(widen), layer.beta.as_deref().map(widen));
    let eps = options.eps;

    let mut forward = batch::train_forward(&x, view, g.as_deref(), b.as_deref(), eps);
    // A variance beyond f32 is NaN in y, and in all that follows from it, never a finite number.
    for s in &mut forward.statistics {
        if s.var > f64::from(f32::MAX) {
            s.inv_std = f64::NAN;
        }
    }
    forward.y = batch::inference(&x, view, &forward.statistics, g.as_deref(), b.as_deref());
    let s = &forward.statistics;
    let backward = batch::backward(&x, &dy, view, s, g.as_deref());
    let sums = reduce::gradient_sums(&x, &dy, view, s);
    let m = bounds::magnitudes(&x, &dy, view, s);

    let mut expectations = vec![
        layer.expect_y("y", view, s, &x, forward.y.clone()),
        expected("dx", backward.dx.clone(), |i| {
            let c = channel(view, i);
            bounds::dx(&s[c], &m[c], &sums[c], view, x[i], dy[i], layer.gamma(c))
        }),
        expected("save_mean", s.iter().map(|s| s.mean).collect(), |c| bounds::mean(&s[c], eps)),
        expected("save_var", s.iter().map(|s| s.var).collect(), |c| bounds::var(&s[c])),
        expected("save_invstd", s.iter().map(|s| s.inv_std).collect(), |c| bounds::inv_std(&s[c])),
    ];
    let running: Vec<_> = (0..s.len())
        .map(|c| layer.running(c).update(forward.moments[c], options.momentum, options.running_variance))
        .collect();
    expectations.push(expected("running_mean", running.iter().map(|r| r.mean).collect(), |c| {
        bounds::mean(&s[c], eps) + 8.0 * bounds::U * (s[c].mean.abs() + layer.running(c).mean.abs())
    }));
    expectations.push(expected("running_var", running.iter().map(|r| r.var).collect(), |c| {
        2.0 * bounds::var(&s[c]) + 8.0 * bounds::U * layer.running(c).var
    }));
    expectations.extend(layer.expect_parameters(&backward, &m));
    if matches!(data, Data::Padded) {
        for bound in expectations.iter_mut().flat_map(|e| e.gate.iter_mut().chain(&mut e.strict)) {
            *bound *= 2.0;
        }
    }
    layer.case("train", name, dims, options, Task::Train { x: x32, dy: Some(dy32) }, expectations)
}

fn eval(name: &str, dims: &[usize], data: Data, options: BatchNormOptions, gamma: bool, beta: bool) -> Case {
    let view = view(dims);
    let mut layer = Layer::new(name, view.channels, gamma, beta);
    let x32 = x_of(name, dims, data);
    let dy32 = narrow(bell(&format!("{name}/dy"), x32.len()));
    let (x, dy) = (widen(&x32), widen(&dy32));
    // Running statistics near those of the data, so that x̂ is of order one also for large means.
    if view.count() > 0 {
        for (c, m) in reduce::moments(&x, view).iter().enumerate() {
            if m.var.is_finite() && m.var < 1e37 {
                layer.running.mean[c] += m.mean as f32;
                layer.running.var[c] += m.var as f32;
            }
        }
    }
    let (g, b) = (layer.gamma.as_deref().map(widen), layer.beta.as_deref().map(widen));
    let eps = options.eps;
    let s: Vec<_> = (0..view.channels as usize)
        .map(|c| {
            let running = layer.running(c);
            Statistics::new(running.mean, running.var, eps)
        })
        .collect();
    let y = batch::inference(&x, view, &s, g.as_deref(), b.as_deref());
    let backward = batch::frozen_backward(&x, &dy, view, &s, g.as_deref());
    let m = bounds::magnitudes(&x, &dy, view, &s);
    let mut expectations = vec![
        layer.expect_y("y", view, &s, &x, y),
        expected("dx", backward.dx.clone(), |i| {
            let c = channel(view, i);
            bounds::frozen_dx(&s[c], dy[i], layer.gamma(c))
        }),
    ];
    expectations.extend(layer.expect_parameters(&backward, &m));
    layer.case("eval", name, dims, options, Task::Eval { x: x32, dy: Some(dy32) }, expectations)
}

/// Batches of a sequence.
const STEPS: usize = 6;

/// Batches of different means, then inference with what they left.
fn sequence(name: &str, dims: &[usize], options: BatchNormOptions) -> Case {
    let view = view(dims);
    let layer = Layer::new(name, view.channels, true, true);
    let steps: Vec<_> = (0..STEPS)
        .map(|step| {
            let x = x_of(&format!("{name}/{step}"), dims, Data::Normal);
            let values = x.into_iter().map(|v| v + step as f32).collect();
            Batch { dims: dims.to_vec(), values }
        })
        .collect();
    let x_eval32 = x_of(&format!("{name}/eval"), dims, Data::Normal);
    let eps = options.eps;

    let c = view.channels as usize;
    let mut running: Vec<_> = (0..c).map(|c| layer.running(c)).collect();
    let mut expectations = Vec::new();
    for (step, x) in steps.iter().enumerate() {
        let moments = reduce::moments(&widen(&x.values), view);
        for (running, m) in running.iter_mut().zip(&moments) {
            *running = running.update(*m, options.momentum, options.running_variance);
        }
        // Every update rounds a few times, and the batch statistics have errors of their own.
        let slack = 32.0 * bounds::U * (step + 1) as f64;
        let mean: Vec<_> = running.iter().map(|r| r.mean).collect();
        let var: Vec<_> = running.iter().map(|r| r.var).collect();
        expectations
            .push(expected(&format!("running_mean_{step}"), mean.clone(), |c| slack * (1.0 + mean[c].abs())));
        expectations.push(expected(&format!("running_var_{step}"), var.clone(), |c| slack * (1.0 + var[c])));
    }
    let s: Vec<_> = running.iter().map(|r| Statistics::new(r.mean, r.var, eps)).collect();
    let (g, b) = (layer.gamma.as_deref().map(widen), layer.beta.as_deref().map(widen));
    let x_eval = widen(&x_eval32);
    let y = batch::inference(&x_eval, view, &s, g.as_deref(), b.as_deref());
    // The running statistics that the kernel uses are off by what is allowed above.
    let mut y_eval = layer.expect_y("y_eval", view, &s, &x_eval, y);
    for (i, gate) in y_eval.gate.iter_mut().enumerate() {
        let c = channel(view, i);
        let s = &s[c];
        let mean_off = (1.0 + s.mean.abs()) * s.inv_std;
        let var_off = (1.0 + s.var) * s.inv_std.powi(2) * s.normalize(x_eval[i]).abs();
        *gate += 32.0 * STEPS as f64 * bounds::U * (mean_off + var_off) * layer.gamma(c).abs();
    }
    expectations.push(y_eval);
    let task = Task::Sequence { steps, x_eval: Batch { dims: dims.to_vec(), values: x_eval32 } };
    layer.case("sequence", name, dims, options, task, expectations)
}
