//! What switchable norm must give, with the bounds of each output: errors go through its formulas as those of values that are near.

use super::batch::{running, updated};
use super::data::{Draw, widen};
use super::expected::{Expected, allow_for, avoid_kinks};
use super::inputs::{Inputs, channels};
use crate::base::activation::Activation;
use crate::base::variance::RunningVariance;
use crate::reference::bounds::{self, INV_STD, MEAN, SUM, TINY, U};
use crate::reference::family::SliceStatistics;
use crate::reference::family::bounds::{self as slice_bounds, Near};
use crate::reference::switchable::{Gradients, Problem, Statistics};
use crate::reference::{Moments, map};
use crate::spec::{Spec, Wanted};

/// Error of a weight, as a part of it: three powers of e and a quotient.
const WEIGHT: f64 = 32.0;

/// Statistics as kernels find them.
struct Twin<'a> {
    problem: Problem<'a>,
    of: &'a Statistics,
    w: [Near; 3],
    v: [Near; 3],
}

/// An instance as kernels find it.
struct Instance {
    own_mean: f64,
    of_mean: f64,
    /// By how much each of three means is more than the mixture, and each variance.
    means: [Near; 3],
    variances: [Near; 3],
    moved: Near,
    var: Near,
    inv_std: Near,
}

impl Twin<'_> {
    /// A mean in two parts, and a variance.
    fn near(&self, of: &Moments) -> (Near, Near) {
        let mean = Near { value: of.mean, error: MEAN * U * (of.var + self.problem.eps).sqrt() + TINY };
        let Moments { count, mean: of_mean, var } = *of;
        let statistics = SliceStatistics { count, mean: of_mean, var, inv_std: 1.0 };
        // Those of layers and of the batch are merges of what are merges.
        (mean, Near { value: var, error: 2.0 * slice_bounds::var(&statistics) })
    }

    fn instance(&self, i: usize) -> Instance {
        let channels = self.problem.dims[1];
        let kinds = [&self.of.instances[i], &self.of.layers[i / channels], &self.of.batch[i % channels]];
        let near = kinds.map(|kind| self.near(kind));
        let from = [1, 2].map(|kind: usize| near[kind].0 - near[0].0);
        let moved = self.w[1] * from[0] + self.w[2] * from[1];
        let [v0, v1, v2] = [0, 1, 2].map(|kind: usize| self.v[kind] * near[kind].1);
        let var = v0 + v1 + v2;
        let value = (var.value + self.problem.eps).sqrt().recip();
        let error = 0.5 * var.error * value.powi(3) + 2.0 * INV_STD * U * value;
        Instance {
            own_mean: kinds[0].mean,
            of_mean: near[0].0.error,
            means: [Near::default() - moved, from[0] - moved, from[1] - moved],
            variances: [0, 1, 2].map(|kind: usize| near[kind].1 - var),
            moved,
            var,
            inv_std: Near { value, error },
        }
    }
}

impl Instance {
    fn xhat(&self, x: f64) -> Near {
        let centred = x - self.own_mean;
        (Near { value: centred, error: self.of_mean + U * centred.abs() } - self.moved) * self.inv_std
    }
}

/// Forward, and backward if there is a dy. Clears dy at kinks.
pub(super) fn expect(spec: &Spec, unbiased: bool, draw: &Draw, inputs: &mut Inputs) -> Vec<Expected> {
    let (view, activation) = (channels(&spec.shape), spec.activation);
    let dims = [view.samples, view.channels, view.inner].map(|len| len as usize);
    let x = widen(&inputs.x);
    let [gamma, beta, residual] =
        [&inputs.gamma, &inputs.beta, &inputs.residual].map(|values| values.as_deref().map(widen));
    let logits = [&inputs.alpha, &inputs.shift].map(|logits| [0, 1, 2].map(|k: usize| logits[k].into()));
    let eps = f64::from(spec.eps.value(spec.dtype) as f32);
    let (gamma, beta) = (gamma.as_deref(), beta.as_deref());
    let problem = Problem { dims, x: &x, gamma, beta, logits, eps, unbiased };
    let of = problem.statistics(None);
    let near = |weights: [f64; 3]| weights.map(|value| Near { value, error: WEIGHT * U * value });
    let twin = Twin { problem, of: &of, w: near(of.weights[0]), v: near(of.weights[1]) };
    let instances: Vec<Instance> = (0..of.instances.len()).map(|i| twin.instance(i)).collect();
    let place = |i: usize| (i / dims[2], i / dims[2] % dims[1]);
    let normalized = problem.forward(&of);
    let z = map::activated(&normalized, residual.as_deref(), Activation::None);
    let z_near: Vec<Near> = (0..x.len())
        .map(|i| {
            let (instance, c) = place(i);
            let own = instances[instance].xhat(x[i]) * Near::exact(problem.weight(c))
                + Near::exact(problem.shift(c));
            residual.as_ref().map_or(own, |residual| own + Near::exact(residual[i]))
        })
        .collect();
    avoid_kinks(activation, inputs, |i| z[i], |i| 1e-3_f64.max(4.0 * z_near[i].error));
    let y = map::activated(&normalized, residual.as_deref(), activation);
    let y = Expected::stored(spec.dtype, "y", y, |i| bounds::activated(activation, z[i], z_near[i].error));
    let mut all = vec![
        Expected::new("save_mean", of.mean.clone(), |i| {
            let own = &instances[i];
            own.of_mean + own.moved.error + 2.0 * U * own.own_mean.abs()
        }),
        Expected::new("save_var", of.var.clone(), |i| instances[i].var.error),
        Expected::new("save_invstd", instances.iter().map(|own| own.inv_std.value).collect(), |i| {
            instances[i].inv_std.error
        }),
    ];
    all.extend(expect_running(spec, inputs, &of));
    if let Some(dy) = inputs.dy.as_deref().map(widen) {
        let dz = map::dz(&normalized, residual.as_deref(), &dy, activation);
        let dz_near: Vec<Near> = (0..x.len())
            .map(|i| Near { value: dz[i], error: bounds::dz(activation, dy[i], z[i], z_near[i].error) })
            .collect();
        let gradients = problem.backward(&dz, &of);
        let errors = twin.backward(&dz_near, &instances);
        all.push(Expected::stored(spec.dtype, "dx", gradients.dx, |i| errors.dx[i]));
        if spec.residual {
            all.push(Expected::stored(spec.dtype, "dresidual", dz, |i| dz_near[i].error));
        }
        let twice = spec.wanted == Wanted::Added;
        for (name, is, values, bound) in [
            ("dweight", gamma.is_some(), gradients.dgamma, errors.dgamma),
            ("dbias", beta.is_some(), gradients.dbeta, errors.dbeta),
            ("dalpha", true, gradients.dlogits[0].to_vec(), errors.dlogits[0].to_vec()),
            ("dshift", true, gradients.dlogits[1].to_vec(), errors.dlogits[1].to_vec()),
        ] {
            if is {
                all.extend(Expected::of_parameter(spec.parameters, name, values, |p| bound[p], twice));
            }
        }
    }
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

fn expect_running(spec: &Spec, inputs: &Inputs, of: &Statistics) -> [Expected; 2] {
    // What is given runs as it is.
    let spec = Spec { running_variance: RunningVariance::Biased, ..spec.clone() };
    let after: Vec<_> =
        (0..of.batch.len()).map(|c| updated(running(inputs, c), of.batch[c], &spec)).collect();
    let bound = |value: f64| 64.0 * U * (1.0 + value.abs());
    [
        Expected::new("running_mean", after.iter().map(|r| r.mean).collect(), |c| bound(after[c].mean)),
        Expected::new("running_var", after.iter().map(|r| r.var).collect(), |c| bound(after[c].var)),
    ]
}

impl Twin<'_> {
    /// Errors of the gradients.
    fn backward(&self, dz: &[Near], instances: &[Instance]) -> Gradients {
        let [samples, channels, values] = self.problem.dims;
        let x = self.problem.x;
        let exact = |value: f64| Near::exact(value);
        let weight = |i: usize| exact(self.problem.weight(i % channels));
        let with_xhat: Vec<Near> = (0..x.len()).map(|i| dz[i] * instances[i / values].xhat(x[i])).collect();
        let sums = |of: &[Near]| -> Vec<Near> {
            of.chunks(values).map(|of| Near::sum(of.iter().copied())).collect()
        };
        let (of_dz, of_dz_xhat) = (sums(dz), sums(&with_xhat));
        let by_mean: Vec<Near> =
            (0..instances.len()).map(|i| weight(i) * instances[i].inv_std * of_dz[i]).collect();
        let by_var: Vec<Near> = (0..instances.len())
            .map(|i| weight(i) * instances[i].inv_std * of_dz_xhat[i] * (exact(0.5) * instances[i].inv_std))
            .collect();
        let over_layer = |of: &[Near], n: usize| Near::sum(of[n * channels..][..channels].iter().copied());
        let over_batch = |of: &[Near], c: usize| Near::sum(of.iter().skip(c).step_by(channels).copied());
        let each = [1.0, 1.0 / channels as f64, 1.0 / samples as f64].map(|each| exact(each / values as f64));
        let unbiased = match self.problem.unbiased {
            true => values as f64 / (values as f64 - 1.0),
            false => 1.0,
        };
        let mut dx = vec![0.0; x.len()];
        for (i, own) in instances.iter().enumerate() {
            let kinds = |of: &[Near]| [of[i], over_layer(of, i / channels), over_batch(of, i % channels)];
            let of_kind = |of: &[Near], weights: &[Near; 3]| {
                let of = kinds(of);
                [0, 1, 2].map(|k: usize| weights[k] * each[k] * of[k])
            };
            let [p0, p1, p2] = of_kind(&by_mean, &self.w);
            let [a0, a1, a2] = of_kind(&by_var, &self.v);
            let all = a0 + a1 + a2;
            let apart = a0 * own.means[0]
                + a1 * own.means[1]
                + a2 * own.means[2]
                + exact(unbiased - 1.0) * all * own.means[0];
            let constant = p0 + p1 + p2 + exact(2.0) * apart;
            for j in i * values..(i + 1) * values {
                let xhat = own.xhat(x[j]);
                let scale = exact(1.0 / own.inv_std.value);
                let pulled = xhat * (exact(2.0 * unbiased) * all * scale * scale) * own.inv_std;
                let own_part = weight(i) * dz[j] * own.inv_std;
                let relative = own.inv_std.error / own.inv_std.value + 8.0 * U;
                let magnitudes = own_part.value.abs() + constant.value.abs() + pulled.value.abs();
                dx[j] = (own_part + constant + pulled).error + 2.0 * relative * magnitudes + TINY;
            }
        }
        let per_channel = |of: &[Near]| -> Vec<f64> {
            let of_channel = |c: usize| {
                let places = (0..x.len()).filter(|i| i / values % channels == c);
                places.map(|i| of[i].error + SUM * U * of[i].value.abs()).sum::<f64>() + TINY
            };
            (0..channels).map(of_channel).collect()
        };
        let logits = |by: &[Near], w: &[Near; 3], of: fn(&Instance) -> &[Near; 3]| {
            [0, 1, 2].map(|k: usize| {
                let terms = (0..by.len()).map(|i| w[k] * by[i] * of(&instances[i])[k]);
                Near::sum(terms).error + TINY
            })
        };
        let dlogits =
            [logits(&by_mean, &self.w, |own| &own.means), logits(&by_var, &self.v, |own| &own.variances)];
        Gradients { dx, dgamma: per_channel(&with_xhat), dbeta: per_channel(dz), dlogits }
    }
}
