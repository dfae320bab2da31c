//! What GraphNorm must give, with the bounds of each output: errors go through its formulas as those of values that are near.

use super::data::{Draw, widen};
use super::expected::{Expected, allow_for, avoid_kinks};
use super::inputs::Inputs;
use super::slices::{maps, scheme};
use crate::reference::bounds::{self, INV_STD, MEAN, TINY, U};
use crate::reference::family::bounds::{self as slice_bounds, Near};
use crate::reference::family::{self, Maps, Scheme, SliceStatistics};
use crate::reference::graph::{self, Parameters};
use crate::reference::map;
use crate::spec::{Spec, Wanted};

/// A slice as kernels find it.
struct Slice {
    /// x̂ of nothing but the mean is not known to more than this.
    of_mean: f64,
    mean: f64,
    /// (1 − alpha)·mean.
    rest: Near,
    alpha: Near,
    inv_std: Near,
    count: f64,
}

impl Slice {
    fn new(plain: &SliceStatistics, alpha: f64, scheme: &Scheme) -> Self {
        let deviation = (plain.var + scheme.eps).sqrt();
        let mean = Near { value: plain.mean, error: slice_bounds::mean(plain, scheme) };
        let alpha = Near::exact(alpha);
        let rest = (Near::exact(1.0) - alpha) * mean;
        let var = Near { value: plain.var, error: slice_bounds::var(plain) } + rest * rest;
        let value = (var.value + scheme.eps).sqrt().recip();
        let error = 0.5 * var.error * value.powi(3) + 2.0 * INV_STD * U * value;
        let inv_std = Near { value: if plain.count == 0 { f64::NAN } else { value }, error };
        Self {
            of_mean: MEAN * U * deviation + TINY,
            mean: plain.mean,
            rest,
            alpha,
            inv_std,
            count: plain.count as f64,
        }
    }

    fn xhat(&self, x: f64) -> Near {
        let centred = x - self.mean;
        (Near { value: centred, error: self.of_mean + U * centred.abs() } + self.rest) * self.inv_std
    }

    /// The mean of x̂.
    fn mean_xhat(&self) -> Near {
        self.rest * self.inv_std
    }

    /// What is subtracted, in deviations.
    fn subtracted(&self) -> Near {
        let subtracted = Near { value: self.mean, error: self.of_mean + U * self.mean.abs() } - self.rest;
        subtracted * self.inv_std
    }
}

/// Forward, and backward if there is a dy. Clears dy at kinks.
pub(super) fn expect(spec: &Spec, draw: &Draw, inputs: &mut Inputs) -> Vec<Expected> {
    let (maps, scheme, of) = (maps(spec), scheme(spec), spec.activation);
    let x = widen(&inputs.x);
    let plain = family::statistics(&x, &maps, &scheme);
    let offset = if spec.unit_offset { 1.0 } else { 0.0 };
    let gamma = inputs
        .gamma
        .as_deref()
        .map(|gamma| widen(gamma).iter().map(|gamma| gamma + offset).collect::<Vec<_>>());
    let (beta, alpha) = (inputs.beta.as_deref().map(widen), widen(&inputs.alpha));
    let parameters = Parameters { gamma: gamma.as_deref(), beta: beta.as_deref(), alpha: &alpha };
    let slices = slices(&maps, &plain, &alpha, &scheme);
    let weight = |i: usize| {
        let value = parameters.weight(maps.parameter_of[i]);
        Near { value, error: offset * U * value.abs() }
    };
    let slice = |i: usize| &slices[maps.statistic_of[i]];
    let (z, statistics) = graph::forward(&x, &maps, &plain, parameters, scheme.eps);
    let z_near: Vec<Near> = (0..x.len())
        .map(|i| slice(i).xhat(x[i]) * weight(i) + Near::exact(parameters.shift(maps.parameter_of[i])))
        .collect();
    avoid_kinks(of, inputs, |i| z[i], |i| 1e-3_f64.max(4.0 * z_near[i].error));
    let y = map::activated(&z, None, of);
    let y_bound = |i: usize| bounds::activated(of, z[i], z_near[i].error);
    let empty = |s: usize| plain[s].count == 0;
    let mut all = vec![
        Expected::new("save_mean", statistics.iter().map(|(mean, _)| *mean).collect(), |s| {
            slices[s].of_mean + slices[s].rest.error + 2.0 * U * plain[s].mean.abs()
        }),
        Expected::new(
            "save_invstd",
            (0..slices.len()).map(|s| if empty(s) { f64::NAN } else { statistics[s].1 }).collect(),
            |s| slices[s].inv_std.error,
        ),
    ];
    if let Some(dy) = inputs.dy.as_deref().map(widen) {
        let dz = map::dz(&z, None, &dy, of);
        let dz_near: Vec<Near> = (0..x.len())
            .map(|i| Near { value: dz[i], error: bounds::dz(of, dy[i], z[i], z_near[i].error) })
            .collect();
        let gradients = graph::backward(&x, &dz, &maps, &plain, parameters, scheme.eps);
        let errors = backward(&x, &dz_near, &maps, &slices, &weight);
        all.push(Expected::stored(spec.dtype, "dx", gradients.dx, |i| errors.dx[i]));
        let twice = spec.wanted == Wanted::Added;
        for (name, is, values, bound) in [
            ("dweight", gamma.is_some(), gradients.dgamma, errors.dgamma),
            ("dbias", beta.is_some(), gradients.dbeta, errors.dbeta),
            ("dalpha", true, gradients.dalpha, errors.dalpha),
        ] {
            if is {
                all.extend(Expected::of_parameter(spec.parameters, name, values, |p| bound[p], twice));
            }
        }
    }
    let y = Expected::stored(spec.dtype, "y", y, y_bound);
    if spec.wanted == Wanted::Alone {
        let alone: Vec<_> =
            all.iter().chain([&y]).filter(|e| ["y", "dx"].contains(&e.name.as_str())).collect();
        let alone: Vec<_> = alone.into_iter().map(|e| e.named(format!("{}_alone", e.name))).collect();
        all.extend(alone);
    }
    all.push(y);
    allow_for(draw.data, &mut all);
    all
}

fn slices(maps: &Maps, plain: &[SliceStatistics], alpha: &[f64], scheme: &Scheme) -> Vec<Slice> {
    let mut parameter_of = vec![0; maps.statistics];
    maps.statistic_of.iter().zip(&maps.parameter_of).for_each(|(&s, &p)| parameter_of[s] = p);
    plain.iter().zip(parameter_of).map(|(plain, p)| Slice::new(plain, alpha[p], scheme)).collect()
}

/// Errors of the gradients.
fn backward(
    x: &[f64],
    dz: &[Near],
    maps: &Maps,
    slices: &[Slice],
    weight: &dyn Fn(usize) -> Near,
) -> graph::Gradients {
    let mut members = vec![Vec::new(); maps.statistics];
    maps.statistic_of.iter().enumerate().for_each(|(i, &s)| members[s].push(i));
    let mut dx = vec![0.0; x.len()];
    let (mut to_gamma, mut to_alpha) =
        (vec![Near::default(); x.len()], vec![Near::default(); maps.statistics]);
    let mut parameter_of = vec![0; maps.statistics];
    for (s, (slice, members)) in slices.iter().zip(&members).enumerate() {
        let Some(&first) = members.first() else { continue };
        parameter_of[s] = maps.parameter_of[first];
        let count = Near::exact(1.0 / slice.count);
        for &i in members {
            to_gamma[i] = dz[i] * slice.xhat(x[i]);
        }
        let sum = weight(first) * Near::sum(members.iter().map(|&i| dz[i]));
        let pull = weight(first) * Near::sum(members.iter().map(|&i| to_gamma[i]));
        let left = sum - slice.mean_xhat() * pull;
        let mean = slice.alpha * left * count;
        for &i in members {
            let own = weight(i) * dz[i] - slice.xhat(x[i]) * (pull * count) - mean;
            dx[i] = (own * slice.inv_std).error + TINY;
        }
        to_alpha[s] = (slice.subtracted() + slice.mean_xhat()) * left;
    }
    let per_parameter =
        |of: &[Near]| maps.per_parameter(|i| of[i].error + bounds::SUM * U * of[i].value.abs() + TINY);
    let mut dalpha = vec![TINY; maps.parameters];
    for (near, p) in to_alpha.iter().zip(parameter_of) {
        dalpha[p] += near.error + bounds::SUM * U * near.value.abs();
    }
    graph::Gradients { dx, dgamma: per_parameter(&to_gamma), dbeta: per_parameter(dz), dalpha }
}
