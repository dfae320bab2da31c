//! What batch norm must give whose statistics are not those of one tensor alone: of what a mask leaves of it, of the shards of several
//! ranks, of ghost batches, corrected towards the running ones, or those that a sequence of batches leaves behind.

use super::batch::{self, Twin, expect_running, running};
use super::data::{Draw, widen};
use super::expected::Expected;
use super::inputs::{Inputs, channels};
use crate::base::shape::Channels;
use crate::reference::bounds::{self, Magnitudes};
use crate::reference::{self, Statistics, masked as reference_masked, reduce, renorm as reference_renorm};
use crate::spec::{Norm, Spec, Statistics as From};

fn channel(view: Channels, i: usize) -> usize {
    view.channel_of(i as u64) as usize
}

/// gamma and beta of all channels.
fn affine(inputs: &Inputs, c: usize) -> (Vec<f64>, Vec<f64>) {
    ((0..c).map(|c| inputs.gamma(c)).collect(), (0..c).map(|c| inputs.beta(c)).collect())
}

/// dweight and dbias, if they are asked for.
fn parameters(
    spec: &Spec,
    inputs: &Inputs,
    dgamma: Vec<f64>,
    dbeta: Vec<f64>,
    bounds: [&dyn Fn(usize) -> f64; 2],
) -> Vec<Expected> {
    let mut all = Vec::new();
    for (is, name, values, bound) in [
        (inputs.gamma.is_some(), "dweight", dgamma, bounds[0]),
        (inputs.beta.is_some(), "dbias", dbeta, bounds[1]),
    ] {
        all.extend(is.then(|| Expected::stored(spec.parameters, name, values, bound)));
    }
    all
}

/// Training over the positions that a mask keeps.
pub(super) fn masked(spec: &Spec, inputs: &Inputs, keep: &[bool]) -> Vec<Expected> {
    let (view, eps) = (channels(&spec.shape), spec.batch_options().eps);
    let x = widen(&inputs.x);
    let (gamma, beta) = affine(inputs, view.channels as usize);
    let forward = reference_masked::train_forward(&x, view, keep, Some(&gamma), Some(&beta), eps);
    let s = &forward.statistics;
    let y_bound =
        |i: usize| bounds::y(&s[channel(view, i)], x[i], gamma[channel(view, i)], beta[channel(view, i)]);
    let mut expected = vec![
        Expected::stored(spec.dtype, "y", forward.y.clone(), y_bound),
        Expected::new("save_mean", s.iter().map(|s| s.mean).collect(), |c| bounds::mean(&s[c], eps)),
        Expected::new("save_var", s.iter().map(|s| s.var).collect(), |c| bounds::var(&s[c])),
    ];
    if let Some(dy) = inputs.dy.as_deref().map(widen) {
        let backward = reference_masked::backward(&x, &dy, view, keep, &forward, Some(&gamma));
        let sums = reference_masked::gradient_sums(&x, &dy, view, keep, s);
        let mut m = vec![Magnitudes::default(); s.len()];
        for i in (0..x.len()).filter(|&i| reference_masked::counts(view, keep, i)) {
            let c = channel(view, i);
            m[c].dy += dy[i].abs();
            m[c].dy_xhat += (dy[i] * s[c].normalize(x[i])).abs();
        }
        let dx_bound = |i: usize| {
            let c = channel(view, i);
            // As many values as count.
            let counted = Channels { samples: forward.moments[c].count, inner: 1, ..view };
            match reference_masked::counts(view, keep, i) {
                true => bounds::dx(&s[c], &m[c], &sums[c], counted, x[i], dy[i], gamma[c]),
                false => 0.0,
            }
        };
        expected.push(Expected::stored(spec.dtype, "dx", backward.dx, dx_bound));
        let bounds: [&dyn Fn(usize) -> f64; 2] = [&|c| bounds::dgamma(&m[c]), &|c| bounds::dbeta(&m[c])];
        expected.extend(parameters(spec, inputs, backward.dgamma, backward.dbeta, bounds));
    }
    expected.extend(expect_running(spec, inputs, &forward.moments));
    expected
}

/// Training over the shards of several ranks.
pub(super) fn synchronised(spec: &Spec, inputs: &Inputs) -> Vec<Expected> {
    let (view, eps) = (channels(&spec.shape), spec.batch_options().eps);
    let shards = &inputs.parts;
    let x: Vec<f64> = shards.iter().flat_map(|shard| widen(&shard.x)).collect();
    let (gamma, beta) = affine(inputs, view.channels as usize);
    let forward = reference::batch::train_forward(&x, view, Some(&gamma), Some(&beta), eps);
    let s = &forward.statistics;
    let mut expected = vec![
        Expected::new("save_mean", s.iter().map(|s| s.mean).collect(), |c| bounds::mean(&s[c], eps)),
        Expected::new("save_invstd", s.iter().map(|s| s.inv_std).collect(), |c| bounds::inv_std(&s[c])),
    ];
    expected.extend(expect_running(spec, inputs, &forward.moments));
    let mut of_ranks = |name: &str, values: &[f64], bound: &dyn Fn(usize) -> f64| {
        let mut first = 0;
        for (rank, shard) in shards.iter().enumerate() {
            let at = first..first + shard.x.len();
            first = at.end;
            let own = values[at.clone()].to_vec();
            expected
                .push(Expected::stored(spec.dtype, &format!("{name}_{rank}"), own, |i| bound(at.start + i)));
        }
    };
    of_ranks("y", &forward.y, &|i| {
        let c = channel(view, i);
        bounds::y(&s[c], x[i], gamma[c], beta[c])
    });
    if spec.has_backward() {
        let dy: Vec<f64> =
            shards.iter().flat_map(|shard| widen(shard.dy.as_deref().unwrap_or_default())).collect();
        let backward = reference::batch::backward(&x, &dy, view, s, Some(&gamma));
        let sums = reduce::gradient_sums(&x, &dy, view, s);
        let m = bounds::magnitudes(&x, &dy, view, s);
        of_ranks("dx", &backward.dx, &|i| {
            let c = channel(view, i);
            bounds::dx(&s[c], &m[c], &sums[c], view, x[i], dy[i], gamma[c])
        });
        // Sums over all ranks, which are f32 whatever the parameters.
        expected.push(Expected::new("dweight", backward.dgamma, |c| bounds::dgamma(&m[c])));
        expected.push(Expected::new("dbias", backward.dbeta, |c| bounds::dbeta(&m[c])));
    }
    expected
}

/// Training with batch renorm, whose limits are open from the first batch.
pub(super) fn renorm(spec: &Spec, inputs: &Inputs, limits: (f64, f64)) -> Vec<Expected> {
    let (view, eps) = (channels(&spec.shape), spec.batch_options().eps);
    let x = widen(&inputs.x);
    let c = view.channels as usize;
    let (gamma, beta) = affine(inputs, c);
    let before: Vec<_> = (0..c).map(|c| running(inputs, c)).collect();
    let forward = reference_renorm::train_forward(&x, view, &before, limits, Some(&gamma), Some(&beta), eps);
    let (s, corrections) = (&forward.statistics, &forward.corrections);
    let errors: Vec<_> = (0..c)
        .map(|c| bounds::renorm(&s[c], &Statistics::new(before[c].mean, before[c].var, eps), limits))
        .collect();
    let y_bound = |i: usize| {
        let c = channel(view, i);
        bounds::y(&s[c], x[i], forward.gamma[c], forward.beta[c])
            + bounds::renorm_y(&s[c], x[i], gamma[c], beta[c], &corrections[c], errors[c])
    };
    let mut expected = vec![
        Expected::stored(spec.dtype, "y", forward.y.clone(), y_bound),
        Expected::new("save_mean", s.iter().map(|s| s.mean).collect(), |c| bounds::mean(&s[c], eps)),
    ];
    if let Some(dy) = inputs.dy.as_deref().map(widen) {
        let backward = reference_renorm::backward(&x, &dy, view, &forward);
        let sums = reduce::gradient_sums(&x, &dy, view, s);
        let m = bounds::magnitudes(&x, &dy, view, s);
        let dx_bound = |i: usize| {
            let c = channel(view, i);
            let of_gamma = (errors[c].0 / corrections[c].r + bounds::U) * backward.dx[i].abs();
            bounds::dx(&s[c], &m[c], &sums[c], view, x[i], dy[i], forward.gamma[c]) + of_gamma
        };
        expected.push(Expected::stored(spec.dtype, "dx", backward.dx.clone(), dx_bound));
        let bounds: [&dyn Fn(usize) -> f64; 2] =
            [&|c| bounds::renorm_dgamma(&m[c], &sums[c], &corrections[c], errors[c]), &|c| {
                bounds::dbeta(&m[c])
            }];
        expected.extend(parameters(spec, inputs, backward.dgamma, backward.dbeta, bounds));
    }
    expected
}

/// Training in ghost batches: each is a batch of its own, and running statistics see all of them as one.
pub(super) fn ghost(spec: &Spec, draw: &Draw, inputs: &mut Inputs, size: usize) -> Vec<Expected> {
    let sample = spec.elements() / spec.shape[0].max(1);
    let mut whole: Vec<Expected> = Vec::new();
    for first in (0..spec.shape[0]).step_by(size) {
        let samples = size.min(spec.shape[0] - first);
        let at = first * sample..(first + samples) * sample;
        let mut part = Spec { statistics: From::Own, ..spec.clone() };
        part.shape[0] = samples;
        let cut = |values: &Option<Vec<f32>>| values.as_ref().map(|values| values[at.clone()].to_vec());
        let mut own = Inputs {
            x: inputs.x[at.clone()].to_vec(),
            dy: cut(&inputs.dy),
            residual: cut(&inputs.residual),
            ..inputs.clone()
        };
        let mut expected = batch::train(&part, draw, &mut own);
        if let (Some(dy), Some(own)) = (&mut inputs.dy, own.dy) {
            dy[at].copy_from_slice(&own);
        }
        expected.retain(|e| ["y", "dx", "dweight", "dbias"].contains(&e.name.as_str()));
        if whole.is_empty() {
            whole = expected;
            continue;
        }
        for (whole, part) in whole.iter_mut().zip(expected) {
            if ["y", "dx"].contains(&part.name.as_str()) {
                whole.values.extend(part.values);
                whole.gate.extend(part.gate);
            } else {
                let sums = whole.values.iter_mut().zip(&mut whole.gate);
                sums.zip(part.values.iter().zip(&part.gate)).for_each(|((value, gate), (more, bound))| {
                    *value += more;
                    *gate += bound + bounds::U * value.abs();
                });
            }
        }
    }
    let moments = reduce::moments(&widen(&inputs.x), channels(&spec.shape));
    whole.extend(expect_running(spec, inputs, &moments));
    whole
}

/// Batches after each other, then inference with what they left.
pub(super) fn sequence(spec: &Spec, inputs: &Inputs) -> Vec<Expected> {
    let (view, eps) = (channels(&spec.shape), spec.batch_options().eps);
    let Some((last, steps)) = inputs.parts.split_last() else { return Vec::new() };
    let c = view.channels as usize;
    let mut after: Vec<_> = (0..c).map(|c| running(inputs, c)).collect();
    let mut expected = Vec::new();
    for (step, batch) in steps.iter().enumerate() {
        let moments = reduce::moments(&widen(&batch.x), channels(&batch.shape));
        for (running, m) in after.iter_mut().zip(&moments) {
            *running = batch::updated(*running, *m, spec);
        }
        // Every update rounds a few times, and the batch statistics have errors of their own.
        let slack = 32.0 * bounds::U * (step + 1) as f64;
        let mean: Vec<_> = after.iter().map(|r| r.mean).collect();
        let var: Vec<_> = after.iter().map(|r| r.var).collect();
        for (name, values) in [("running_mean", mean), ("running_var", var)] {
            let magnitudes = values.clone();
            let bound = |c: usize| slack * (1.0 + f64::abs(magnitudes[c]));
            expected.push(Expected::new(&format!("{name}_{step}"), values, bound));
        }
    }
    let s: Vec<_> = after.iter().map(|r| Statistics::new(r.mean, r.var, eps)).collect();
    let inference = Spec { norm: Norm::FrozenBatch, shape: last.shape.clone(), ..spec.clone() };
    let mut of_last = Inputs { x: last.x.clone(), dy: None, ..inputs.clone() };
    let view = channels(&last.shape);
    let mut y = Twin::new(&inference, &mut of_last, view, s.clone()).expect_y().named("y_eval".to_owned());
    // The running statistics that the kernel uses are off by what is allowed above.
    for (i, gate) in y.gate.iter_mut().enumerate() {
        let c = channel(view, i);
        let (s, x) = (&s[c], f64::from(last.x[i]));
        let mean_off = (1.0 + s.mean.abs()) * s.inv_std;
        let var_off = (1.0 + s.var) * s.inv_std.powi(2) * s.normalize(x).abs();
        *gate += 32.0 * steps.len() as f64 * bounds::U * (mean_off + var_off) * inputs.gamma(c).abs();
    }
    expected.push(y);
    expected
}
