//! The built-in cases: what must hold on every adapter, generated here and computed by the f64 reference.
//!
//! They cover what stored fixtures lack: sizes around every boundary, ranges that overflow, empty batches, more
//! workgroups than one dimension holds, slices longer than one invocation may walk. Element types, activations,
//! residuals and work in place are the matter of `matrix`.

use wgnorm::reference::{Statistics, bounds, reduce};
use wgnorm::{BatchNormOptions, Momentum, RunningVariance};

use super::layer::{Layer, Setup, channel};
use super::{Task, pooled, renorm};
use crate::check::case::{Batch, Case};
use crate::check::data::{Data, HOSTILE, name_of, view, widen, x_of};
use crate::check::expect::expected;
use crate::check::variant::Variants;

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
    let mut both = |setup: Setup| {
        cases.push(setup.clone().train());
        cases.push(setup.eval());
    };
    for dims in SHAPES {
        both(setup("normal", dims, Data::Normal));
    }
    for (distribution, data) in HOSTILE {
        // Fewer and more values than one accumulator sums, for small and large workgroups.
        for dims in [&[3, 4, 7, 5][..], &[2, 3, 16, 16], &[40, 3], &[1, 2, 70_001], &[2, 2, 300, 160]] {
            both(Setup { variants: Variants::Sums, ..setup(distribution, dims, data) });
        }
    }
    for (gamma, beta) in [(true, false), (false, true), (false, false)] {
        let what = format!("affine_{}_{}", u8::from(gamma), u8::from(beta));
        both(Setup { gamma, beta, variants: Variants::Sums, ..setup(&what, &[3, 4, 7, 5], Data::Normal) });
    }
    for eps in [1e-30, 1e-12, 1e-3, 10.0] {
        let setup = setup(&format!("eps_{eps:e}"), &[3, 4, 7, 5], Data::Normal);
        both(Setup { options: options.eps(eps), variants: Variants::Sums, ..setup });
    }
    // Runs whose last words hold none of their values, now and then or always; rows that do not fill the last one.
    for dims in [&[600, 3, 3][..], &[4, 3, 11], &[4, 3, 27], &[40, 3, 10], &[7, 5], &[2, 1001, 7]] {
        cases.push(setup("large_mean", dims, Data::LargeMean).train());
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
            let setup = setup(&format!("{convention}.{variance}"), &[5, 3, 4], Data::Normal);
            cases.push(sequence(Setup { options, ..setup }));
        }
    }
    // One value per channel, allowed.
    let single = options.allow_single_value(true);
    cases.push(Setup { options: single, ..setup("single_value", &[1, 3], Data::Normal) }.train());
    cases.push(sequence(Setup { options: single, ..setup("single_value", &[1, 3, 1], Data::Normal) }));
    // Masks: single positions, parts of words, many words; every walk.
    for (dims, run) in [
        (&[3, 4, 7, 5][..], 1),
        (&[2, 3, 16, 16], 3),
        (&[3, 5, 130], 40),
        (&[40, 3], 2),
        (&[33, 8], 1),
        (&[1, 2, 7001], 90),
    ] {
        for (what, data) in [("normal", Data::Normal), ("large_mean", Data::LargeMean)] {
            cases.push(pooled::masked(setup(&format!("{what}.run{run}"), dims, data), run));
        }
    }
    // Batch renorm, with limits that act in some channels, in all, and in none.
    for (dims, data) in [
        (&[3, 4, 7, 5][..], Data::Normal),
        (&[2, 7, 64], Data::Normal),
        (&[70, 5], Data::Normal),
        (&[3, 5, 130], Data::LargeMean),
    ] {
        for (what, r_max, d_max) in
            [("narrow", 1.1, 0.3), ("wide", 1e4, 1e6), ("r", 1.2, 0.0), ("d", 1.0, 0.4)]
        {
            cases.push(renorm::train(setup(what, dims, data), r_max, d_max));
        }
    }
    // Shards of other sizes, one of them empty.
    for (dims, samples) in
        [(&[1, 4, 7, 5][..], &[2, 0, 5, 1][..]), (&[1, 6], &[1, 3]), (&[1, 3, 130], &[30, 1])]
    {
        let what = samples.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
        cases.push(pooled::synchronised(setup(&what, dims, Data::Normal), samples));
    }
    // Empty batches have no training; inference gives an empty result.
    for dims in [&[0, 3][..], &[0, 3, 4, 4], &[2, 3, 0]] {
        cases.push(setup("empty", dims, Data::Normal).eval());
    }
    // More workgroups than one dimension holds, and slices longer than 65535 words for each of 32 invocations.
    for dims in [&[2, 70_000, 2][..], &[1, 1, 2_200_000], &[3, 1, 733_337]] {
        cases.push(Setup { variants: Variants::Limits, ..setup("large", dims, Data::Normal) }.train());
    }
    cases
}

fn setup(what: &str, dims: &[usize], data: Data) -> Setup {
    Setup::new(format!("{what}.{}", name_of(dims)), dims, data)
}

/// Batches of a sequence.
const STEPS: usize = 6;

/// Batches of different means, then inference with what they left.
fn sequence(setup: Setup) -> Case {
    let (name, dims, options) = (&setup.name, &setup.dims, setup.options);
    let view = view(dims);
    let layer = Layer::new(&setup);
    let steps: Vec<_> = (0..STEPS)
        .map(|step| {
            let x = x_of(&format!("{name}/{step}"), dims, Data::Normal);
            let values = x.into_iter().map(|v| v + step as f32).collect();
            Batch { dims: dims.clone(), values }
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
    let mut y_eval = layer.expect_inference(&setup, "y_eval", widen(&x_eval32), s.clone());
    let x_eval = widen(&x_eval32);
    // The running statistics that the kernel uses are off by what is allowed above.
    for (i, gate) in y_eval.gate.iter_mut().enumerate() {
        let c = channel(view, i);
        let s = &s[c];
        let mean_off = (1.0 + s.mean.abs()) * s.inv_std;
        let var_off = (1.0 + s.var) * s.inv_std.powi(2) * s.normalize(x_eval[i]).abs();
        *gate += 32.0 * STEPS as f64 * bounds::U * (mean_off + var_off) * layer.gamma(c).abs();
    }
    expectations.push(y_eval);
    let task = Task::Sequence { steps, x_eval: Batch { dims: dims.clone(), values: x_eval32 } };
    layer.case("sequence", setup, task, None, expectations)
}
