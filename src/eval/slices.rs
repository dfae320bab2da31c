//! What a norm of slices must give: the f64 reference by index maps, with the bounds of each output.

use super::batch::{running, updated};
use super::data::{Draw, widen};
use super::expected::{Expected, allow_for, avoid_kinks};
use super::gate::{self as errors, Product};
use super::inputs::Inputs;
use super::int8;
use crate::base::activation::Activation;
use crate::base::gate::GateOrder;
use crate::base::shape::Layout;
use crate::reference::family::{self, Affine, Maps, Scheme, SliceStatistics, bounds as slice_bounds};
use crate::reference::{bounds, gate, map, masked};
use crate::spec::{Norm, Spec, Wanted};

/// The reference's maps for x in logical order.
pub(super) fn maps(spec: &Spec) -> Maps {
    let Spec { norm, shape, groups, axes, .. } = spec;
    if let Some(axes) = axes {
        return Maps::over(shape, axes);
    }
    if let Some(lengths) = spec.segment_lengths() {
        let groups = match norm {
            Norm::Layer(_) => 1,
            Norm::Group(groups) => *groups,
            _ => shape[1],
        };
        return Maps::in_segments(&lengths, shape[1], groups);
    }
    match norm {
        Norm::Group(groups) => Maps::group(shape, Layout::ChannelsFirst, *groups),
        Norm::MeanVariance(axes) | Norm::L2(axes) => Maps::axes(shape, axes),
        Norm::Scale => Maps::scalar(shape, 1),
        Norm::Weight | Norm::WeightStandardization => Maps::rows(shape, shape.len() - 1),
        Norm::Layer(axes) | Norm::Rms(axes) => Maps::layer(shape, *axes).in_groups(*groups),
        _ => Maps::instance(shape, Layout::ChannelsFirst),
    }
}

/// The flat indices of the elements of each slice that shares a statistic.
pub(super) fn members(spec: &Spec) -> Vec<Vec<usize>> {
    let maps = maps(spec);
    let mut slices = vec![Vec::new(); maps.statistics];
    maps.statistic_of.iter().enumerate().for_each(|(i, &s)| slices[s].push(i));
    slices
}

/// The reference's scheme.
pub(super) fn scheme(spec: &Spec) -> Scheme {
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
    let maps = maps(spec);
    let maps = if spec.modulated { maps.modulated(spec.shape[0]) } else { maps };
    let twin = Twin::new(spec, inputs, &maps);
    let Spec { dtype, wanted, .. } = *spec;
    let Twin { scheme, statistics, product, .. } = &twin;
    let (y, y_bound) = twin.y(spec);
    let y = match spec.int8 {
        None => vec![Expected::stored(dtype, "y", y, |i| y_bound[i])],
        Some(int8) => {
            let row = spec.elements() / statistics.len().max(1);
            int8::expected(int8, &y, |i| y_bound[i], row)
        }
    };
    let of_slices =
        |name: &str, value: fn(&SliceStatistics) -> f64, bound: &dyn Fn(usize, &SliceStatistics) -> f64| {
            Expected::new(name, statistics.iter().map(value).collect(), |s| bound(s, &statistics[s]))
        };
    let of_var = |slice: usize, s: &SliceStatistics| {
        let error = product.deviation[slice];
        slice_bounds::var(s) + error * (2.0 * s.var.sqrt() + error)
    };
    let of_inv_std = |slice: usize, s: &SliceStatistics| {
        slice_bounds::inv_std(s, scheme) + product.spread(slice, s, scheme) * s.inv_std
    };
    let magnitudes = family::magnitudes(&twin.x, &maps);
    if spec.int8.is_some() {
        // For inference alone.
        let mut all = y;
        all.extend(spec.sum.then(|| Expected::new("sum", twin.x.clone(), |_| 0.0)));
        return all;
    }
    let mut all = vec![
        Expected::new("save_mean", statistics.iter().map(|s| s.mean).collect(), |s| {
            slice_bounds::single_mean(&statistics[s], scheme, magnitudes[s]) + product.mean[s]
        }),
        of_slices("save_var", |s| s.var, &of_var),
        of_slices("save_invstd", |s| s.inv_std, &of_inv_std),
    ];
    if spec.norm.tracks() {
        all.extend(expect_running(spec, inputs, statistics));
    }
    if spec.sum {
        all.push(Expected::new("sum", twin.x.clone(), |_| 0.0));
    }
    all.extend(expect_gradients(spec, inputs, &twin, &maps));
    if wanted == Wanted::Alone {
        let alone: Vec<_> = all.iter().chain(&y).filter(|e| ["y", "dx"].contains(&e.name.as_str())).collect();
        let alone: Vec<_> = alone.into_iter().map(|e| e.named(format!("{}_alone", e.name))).collect();
        all.extend(alone);
    }
    all.extend(y);
    allow_for(draw.data, &mut all);
    all
}

fn expect_gradients(spec: &Spec, inputs: &Inputs, twin: &Twin, maps: &Maps) -> Vec<Expected> {
    let Some(dy) = inputs.dy.as_deref().map(widen) else { return Vec::new() };
    let Spec { dtype, parameters, activation, wanted, .. } = *spec;
    let Twin { scheme, statistics, x, product, .. } = twin;
    let (mut dz, mut dz_error) = twin.dz(spec, &dy);
    // What a mask leaves out is replaced by something harmless: its dz is 0.
    let (mut x, mut statistics, mut product) = (x.clone(), statistics.clone(), product.clone());
    if let Some(keep) = &inputs.keep {
        let view = spec.positions();
        for i in (0..x.len()).filter(|&i| !masked::counts(view, keep, i)) {
            (x[i], dz[i], dz_error[i]) = (0.0, 0.0, 0.0);
            product.forget(i, maps.statistic_of[i]);
            statistics[maps.statistic_of[i]] =
                SliceStatistics { mean: 0.0, var: 1.0, inv_std: 1.0, ..statistics[maps.statistic_of[i]] };
        }
    }
    let (x, statistics) = (&x, &statistics);
    let mut gradients = family::backward(x, &dz, maps, scheme, statistics, twin.affine());
    let mut bound = slice_bounds::backward(x, &dz, Some(&dz_error), maps, scheme, statistics, twin.affine());
    product.widen(&mut bound, (x, &dz), maps, scheme, statistics, twin.affine());
    if let Some(d_sum) = inputs.d_sum.as_deref().map(widen) {
        // Where a map of its own adds d_sum, dx is stored in between.
        let of_its_own = spec.gate.is_some() || spec.residual && activation != Activation::None;
        let between = if of_its_own { dtype.unit_roundoff() } else { 0.0 };
        for (i, d_sum) in d_sum.into_iter().enumerate() {
            let stored = between * (gradients.dx[i].abs() + bound.dx[i]);
            gradients.dx[i] += d_sum;
            bound.dx[i] += stored + bounds::U * (gradients.dx[i].abs() + d_sum.abs());
        }
    }
    let of_gate = through_gate(spec, inputs, twin, &dy, (&mut gradients.dx, &mut bound.dx));
    let mut all = vec![Expected::stored(dtype, "dx", gradients.dx, |i| bound.dx[i])];
    all.extend(of_gate);
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

/// The gradient of the gate, if there is one; before the norm it takes its part of dx, which is du until then.
fn through_gate(
    spec: &Spec,
    inputs: &Inputs,
    twin: &Twin,
    dy: &[f64],
    (dx, dx_bound): (&mut Vec<f64>, &mut Vec<f64>),
) -> Option<Expected> {
    let (gate, of) = (twin.gate.as_deref()?, spec.activation);
    // What is masked has no gradient, whatever its gate is.
    let kept = |i: usize| inputs.keep.as_ref().is_none_or(|keep| masked::counts(spec.positions(), keep, i));
    let only_kept = |values: Vec<f64>| -> Vec<f64> {
        values.into_iter().enumerate().map(|(i, value)| if kept(i) { value } else { 0.0 }).collect()
    };
    let first = spec.gate == Some(GateOrder::GateFirst);
    // One of the factors is known, the other within a bound: z, or du.
    let (known, computed, bound) = match first {
        true => (widen(&inputs.x), dx.clone(), dx_bound.clone()),
        false => (dy.to_vec(), twin.z.clone(), twin.z_bound.clone()),
    };
    let bounds = (0..gate.len()).map(|i| errors::d_gate(of, known[i], computed[i], bound[i], gate[i]));
    let bounds = only_kept(bounds.collect());
    let values = only_kept(gate::d_gate(&known, &computed, gate, of));
    if first {
        let bounds = (0..gate.len()).map(|i| errors::gated(of, dx[i], dx_bound[i], gate[i]));
        *dx_bound = only_kept(bounds.collect());
        *dx = only_kept(gate::gated(dx, gate, of));
    }
    Some(Expected::stored(spec.dtype, "dgate", values, |i| bounds[i]))
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
    gate: Option<Vec<f64>>,
    /// Of what is normalized, where that is computed.
    product: Product,
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
        let gate = inputs.gate.as_deref().map(widen);
        let first = gate.as_deref().filter(|_| spec.gate == Some(GateOrder::GateFirst));
        let product = Product::new(&x, first, spec.activation, maps, scheme.centred);
        let x = first.map_or(x.clone(), |gate| gate::gated(&x, gate, spec.activation));
        let mut statistics = family::statistics(&x, maps, &scheme);
        // A segment of no rows has no statistics.
        if spec.segments.is_some() {
            statistics.iter_mut().filter(|s| s.count == 0).for_each(|s| s.inv_std = f64::NAN);
        }
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
        let mut z_bound = slice_bounds::z(&x, maps, &scheme, &statistics, affine, residual.as_deref());
        for (i, bound) in z_bound.iter_mut().enumerate() {
            let (slice, weight) = (maps.statistic_of[i], affine.weight(&scheme, maps.parameter_of[i]).abs());
            let s = &statistics[slice];
            *bound += weight * product.xhat(i, slice, s, &scheme, s.normalize(x[i]));
        }
        let twin =
            Self { scheme, x, statistics, gamma, beta, residual, gate, product, normalized, z, z_bound };
        if spec.gate.is_some() {
            // It is known to the last bit, and on which side of a kink.
            return twin;
        }
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

    /// y, and its bound.
    fn y(&self, spec: &Spec) -> (Vec<f64>, Vec<f64>) {
        let (z, of) = (&self.z, spec.activation);
        let all = 0..z.len();
        match (&self.gate, spec.gate) {
            (Some(gate), Some(GateOrder::NormFirst)) => {
                let bound = |i: usize| errors::gated(of, z[i], self.z_bound[i], gate[i]);
                (gate::gated(z, gate, of), all.map(bound).collect())
            }
            (Some(_), _) => (z.clone(), self.z_bound.clone()),
            _ => {
                let y = map::activated(&self.normalized, self.residual.as_deref(), of);
                (y, all.map(|i| bounds::activated(of, z[i], self.z_bound[i])).collect())
            }
        }
    }

    /// dz of dy, and its error.
    fn dz(&self, spec: &Spec, dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let of = spec.activation;
        let all = 0..dy.len();
        match (&self.gate, spec.gate) {
            (Some(gate), Some(GateOrder::NormFirst)) => {
                let error = |i: usize| errors::gated(of, dy[i], 0.0, gate[i]);
                (gate::gated(dy, gate, of), all.map(error).collect())
            }
            (Some(_), _) => (dy.to_vec(), vec![0.0; dy.len()]),
            _ => {
                let dz = map::dz(&self.normalized, self.residual.as_deref(), dy, of);
                (dz, all.map(|i| bounds::dz(of, dy[i], self.z[i], self.z_bound[i])).collect())
            }
        }
    }

    fn affine(&self) -> Affine<'_> {
        Affine { gamma: self.gamma.as_deref(), beta: self.beta.as_deref() }
    }
}
