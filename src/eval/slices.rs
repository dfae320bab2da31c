//! What a norm of slices must give: the f64 reference by index maps, with the bounds of each output.

use super::batch::{running, updated};
use super::data::{Draw, widen};
use super::expected::{Expected, allow_for, avoid_kinks};
use super::inputs::Inputs;
use crate::base::activation::Activation;
use crate::base::shape::Layout;
use crate::reference::family::{self, Affine, Maps, Scheme, SliceStatistics, bounds as slice_bounds};
use crate::reference::{bounds, map, masked};
use crate::spec::{Norm, Spec, Wanted};

/// The reference's maps for x in logical order.
fn maps(norm: &Norm, shape: &[usize]) -> Maps {
    match norm {
        Norm::Group(groups) => Maps::group(shape, Layout::ChannelsFirst, *groups),
        Norm::MeanVariance(axes) | Norm::L2(axes) => Maps::axes(shape, axes),
        Norm::Scale => Maps::scalar(shape, 1),
        Norm::Weight | Norm::WeightStandardization => Maps::rows(shape, shape.len() - 1),
        Norm::Layer(axes) | Norm::Rms(axes) => Maps::layer(shape, *axes),
        _ => Maps::instance(shape, Layout::ChannelsFirst),
    }
}

/// The flat indices of the elements of each slice that shares a statistic.
pub(super) fn members(norm: &Norm, shape: &[usize]) -> Vec<Vec<usize>> {
    let maps = maps(norm, shape);
    let mut slices = vec![Vec::new(); maps.statistics];
    maps.statistic_of.iter().enumerate().for_each(|(i, &s)| slices[s].push(i));
    slices
}

/// The reference's scheme.
fn scheme(spec: &Spec) -> Scheme {
    // As kernels have it.
    let eps = f64::from(spec.eps.value(spec.dtype) as f32);
    let scheme = match spec.norm {
        Norm::Rms(_) => Scheme::rms(eps),
        Norm::MeanVariance(_) => Scheme::deviation(eps),
        Norm::L2(_) | Norm::Scale => Scheme::length(eps),
        Norm::Weight => Scheme::direction(eps),
        _ => Scheme::standard(eps),
    };
    if spec.unit_offset { scheme.with_unit_offset() } else { scheme }
}

/// Forward, and backward if there is a dy. Clears dy at kinks.
pub(super) fn expect(spec: &Spec, draw: &Draw, inputs: &mut Inputs) -> Vec<Expected> {
    let maps = maps(&spec.norm, &spec.shape);
    let maps = if spec.modulated { maps.modulated(spec.shape[0]) } else { maps };
    let twin = Twin::new(spec, inputs, &maps);
    let Spec { dtype, activation, wanted, .. } = *spec;
    let Twin { scheme, statistics, .. } = &twin;
    let y = map::activated(&twin.normalized, twin.residual.as_deref(), activation);
    let y = Expected::stored(dtype, "y", y, |i| bounds::activated(activation, twin.z[i], twin.z_bound[i]));
    let of_slices =
        |name: &str, value: fn(&SliceStatistics) -> f64, bound: &dyn Fn(&SliceStatistics) -> f64| {
            Expected::new(name, statistics.iter().map(value).collect(), |s| bound(&statistics[s]))
        };
    let magnitudes = family::magnitudes(&twin.x, &maps);
    let mut all = vec![
        Expected::new("save_mean", statistics.iter().map(|s| s.mean).collect(), |s| {
            slice_bounds::single_mean(&statistics[s], scheme, magnitudes[s])
        }),
        of_slices("save_var", |s| s.var, &slice_bounds::var),
        of_slices("save_invstd", |s| s.inv_std, &|s| slice_bounds::inv_std(s, scheme)),
    ];
    if spec.norm.tracks() {
        all.extend(expect_running(spec, inputs, statistics));
    }
    if spec.sum {
        all.push(Expected::new("sum", twin.x.clone(), |_| 0.0));
    }
    all.extend(expect_gradients(spec, inputs, &twin, &maps));
    if wanted == Wanted::Alone {
        let alone: Vec<_> =
            all.iter().chain([&y]).filter(|e| ["y", "dx"].contains(&e.name.as_str())).collect();
        let alone: Vec<_> = alone.into_iter().map(|e| e.named(format!("{}_alone", e.name))).collect();
        all.extend(alone);
    }
    all.push(y);
    allow_for(draw.data, &mut all);
    all
}

fn expect_gradients(spec: &Spec, inputs: &Inputs, twin: &Twin, maps: &Maps) -> Vec<Expected> {
    let Some(dy) = inputs.dy.as_deref().map(widen) else { return Vec::new() };
    let Spec { dtype, parameters, activation, wanted, .. } = *spec;
    let Twin { scheme, statistics, x, .. } = twin;
    let mut dz = map::dz(&twin.normalized, twin.residual.as_deref(), &dy, activation);
    let mut dz_error: Vec<_> =
        (0..dz.len()).map(|i| bounds::dz(activation, dy[i], twin.z[i], twin.z_bound[i])).collect();
    // What a mask leaves out is replaced by something harmless: its dz is 0.
    let (mut x, mut statistics) = (x.clone(), statistics.clone());
    if let Some(keep) = &inputs.keep {
        let view = spec.positions();
        for i in (0..x.len()).filter(|&i| !masked::counts(view, keep, i)) {
            (x[i], dz[i], dz_error[i]) = (0.0, 0.0, 0.0);
            statistics[maps.statistic_of[i]] =
                SliceStatistics { mean: 0.0, var: 1.0, inv_std: 1.0, ..statistics[maps.statistic_of[i]] };
        }
    }
    let (x, statistics) = (&x, &statistics);
    let mut gradients = family::backward(x, &dz, maps, scheme, statistics, twin.affine());
    let mut bound = slice_bounds::backward(x, &dz, Some(&dz_error), maps, scheme, statistics, twin.affine());
    if let Some(d_sum) = inputs.d_sum.as_deref().map(widen) {
        // Where a map of its own adds d_sum, dx is stored in between.
        let of_its_own = spec.residual && activation != Activation::None;
        let between = if of_its_own { dtype.unit_roundoff() } else { 0.0 };
        for (i, d_sum) in d_sum.into_iter().enumerate() {
            let stored = between * (gradients.dx[i].abs() + bound.dx[i]);
            gradients.dx[i] += d_sum;
            bound.dx[i] += stored + bounds::U * (gradients.dx[i].abs() + d_sum.abs());
        }
    }
    let mut all = vec![Expected::stored(dtype, "dx", gradients.dx, |i| bound.dx[i])];
    for (name, is, values, bound) in [
        ("dweight", inputs.gamma.is_some(), gradients.dgamma, bound.dgamma),
        ("dbias", inputs.beta.is_some(), gradients.dbeta, bound.dbeta),
    ] {
        if is {
            let twice = wanted == Wanted::Added;
            all.extend(Expected::of_parameter(parameters, name, values, |p| bound[p], twice));
        }
    }
    if spec.residual {
        all.push(Expected::stored(dtype, "dresidual", dz, |i| dz_error[i]));
    }
    all
}

fn expect_running(spec: &Spec, inputs: &Inputs, statistics: &[SliceStatistics]) -> [Expected; 2] {
    let average = family::average_over_samples(statistics, spec.shape[1]);
    let after: Vec<_> = (0..average.len()).map(|c| updated(running(inputs, c), average[c], spec)).collect();
    let bound = |value: f64| 64.0 * bounds::U * (1.0 + value.abs());
    [
        Expected::new("running_mean", after.iter().map(|r| r.mean).collect(), |c| bound(after[c].mean)),
        Expected::new("running_var", after.iter().map(|r| r.var).collect(), |c| bound(after[c].var)),
    ]
}

/// The reference's view of a norm at work, with the error of each step.
struct Twin {
    scheme: Scheme,
    x: Vec<f64>,
    statistics: Vec<SliceStatistics>,
    gamma: Option<Vec<f64>>,
    beta: Option<Vec<f64>>,
    residual: Option<Vec<f64>>,
    /// `x̂·gamma + beta`, and with the residual.
    normalized: Vec<f64>,
    z: Vec<f64>,
    z_bound: Vec<f64>,
}

impl Twin {
    /// Clears dy at kinks.
    fn new(spec: &Spec, inputs: &mut Inputs, maps: &Maps) -> Self {
        let scheme = scheme(spec);
        let x = widen(&inputs.normalized(spec.dtype));
        let mut statistics = family::statistics(&x, maps, &scheme);
        // A variance beyond the limits is NaN in y, and in all that follows from it, never a finite number.
        for s in statistics.iter_mut().filter(|s| slice_bounds::is_beyond(s, &scheme)) {
            s.inv_std = f64::NAN;
        }
        let [gamma, beta, residual] =
            [&inputs.gamma, &inputs.beta, &inputs.residual].map(|values| values.as_deref().map(widen));
        let affine = Affine { gamma: gamma.as_deref(), beta: beta.as_deref() };
        let normalized: Vec<_> = (0..x.len())
            .map(|i| {
                let (s, p) = (&statistics[maps.statistic_of[i]], maps.parameter_of[i]);
                s.normalize(x[i]) * affine.weight(&scheme, p) + affine.shift(p)
            })
            .collect();
        let z = map::activated(&normalized, residual.as_deref(), Activation::None);
        let z_bound = slice_bounds::z(&x, maps, &scheme, &statistics, affine, residual.as_deref());
        let twin = Self { scheme, x, statistics, gamma, beta, residual, normalized, z, z_bound };
        avoid_kinks(
            spec.activation,
            inputs,
            |i| twin.z[i],
            |i| {
                let scale = twin.normalized[i].abs() + twin.affine().shift(maps.parameter_of[i]).abs();
                (1e-3 * scale.max(1.0)).max(4.0 * twin.z_bound[i])
            },
        );
        twin
    }

    fn affine(&self) -> Affine<'_> {
        Affine { gamma: self.gamma.as_deref(), beta: self.beta.as_deref() }
    }
}
