//! What derivatives of the passes must give: the tangent of y, and gradients of gradients, of any norm of slices, channels of a batch and constants among them.

use super::data::widen;
use super::expected::Expected;
use super::inputs::{Inputs, channels};
use super::slices::{maps, scheme};
use crate::base::activation::Activation;
use crate::reference::activation::{curvature, gradient, kinks};
use crate::reference::family::bounds::{self as slice_bounds, Near, Upstream};
use crate::reference::family::{self, Affine, Maps, Scheme, SliceStatistics, Tangents};
use crate::reference::{bounds, reduce};
use crate::spec::{Norm, Spec, Wanted};

/// The outputs of a spec whose dy is 0 at kinks.
pub(super) fn expect(spec: &Spec, inputs: &Inputs) -> Vec<Expected> {
    let (Some(dy), Some(tangents)) = (&inputs.dy, &inputs.tangents) else { return Vec::new() };
    let (x, dy, of) = (widen(&inputs.x), widen(dy), spec.activation);
    let (maps, scheme, statistics) = slices(spec, inputs, &x);
    let [gamma, beta] = [&inputs.gamma, &inputs.beta].map(|values| values.as_deref().map(widen));
    let affine = Affine { gamma: gamma.as_deref(), beta: beta.as_deref() };
    let own = [&tangents.gamma, &tangents.beta].map(|values| values.as_deref().map(widen));
    let x_tangent = widen(&tangents.x);
    let tangents = Tangents { x: &x_tangent, gamma: own[0].as_deref(), beta: own[1].as_deref() };

    let z: Vec<f64> = (0..x.len())
        .map(|i| {
            let (s, p) = (&statistics[maps.statistic_of[i]], maps.parameter_of[i]);
            s.normalize(x[i]) * affine.weight(&scheme, p) + affine.shift(p)
        })
        .collect();
    let z_bound = slice_bounds::z(&x, &maps, &scheme, &statistics, affine, None);
    let upstream: Vec<_> = (0..x.len())
        .map(|i| {
            let dz =
                Near { value: gradient(of, z[i], dy[i]), error: bounds::dz(of, dy[i], z[i], z_bound[i]) };
            let bent =
                Near { value: curvature(of, z[i], dy[i]), error: bounds::bent(of, dy[i], z[i], z_bound[i]) };
            Upstream { dz, bent }
        })
        .collect();
    let dz: Vec<f64> = upstream.iter().map(|upstream| upstream.dz.value).collect();
    let z_tangent = family::tangent(&x, &maps, &scheme, &statistics, affine, tangents);
    // What the second derivative of the activation adds goes through the backward pass as any other gradient.
    let bent = |(up, z): (&Upstream, &f64)| if up.bent.value == 0.0 { 0.0 } else { up.bent.value * z };
    let dz_tangent: Vec<f64> = upstream.iter().zip(&z_tangent).map(bent).collect();
    let second = family::second(&x, &dz, &maps, &scheme, &statistics, affine, tangents);
    let more = family::backward(&x, &dz_tangent, &maps, &scheme, &statistics, affine);
    let plus = |a: Vec<f64>, b: &[f64]| a.into_iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f64>>();
    let (dx, dgamma) = (plus(second.x, &more.dx), plus(second.gamma, &more.dgamma));

    let errors = slice_bounds::second(&x, &upstream, &maps, &scheme, &statistics, affine, tangents);
    let y_tangent: Vec<f64> = (0..x.len()).map(|i| gradient(of, z[i], z_tangent[i])).collect();
    let y_error = |i: usize| {
        let near_kink = kinks(of).iter().any(|kink| (z[i] - kink).abs() <= 4.0 * z_bound[i] + 1e-6);
        let steepest = steepest(of, z[i]);
        // There either slope is right.
        let jump = if near_kink { steepest * z_tangent[i].abs() } else { 0.0 };
        bounds::dz(of, z_tangent[i], z[i], z_bound[i]) + steepest * errors.z_tangent[i].error + jump
    };
    let of_tangent = |name: &str| Expected::stored(spec.dtype, name, y_tangent.clone(), y_error);
    let mut all = vec![
        of_tangent("y_tangent"),
        of_tangent("second_dy"),
        Expected::stored(spec.dtype, "second_dx", dx, |i| errors.dx[i] + bounds::TINY),
    ];
    let twice = spec.wanted == Wanted::Added;
    for (name, is, values, bound) in [
        ("second_dweight", gamma.is_some(), dgamma, &errors.dgamma),
        ("second_dbias", beta.is_some(), more.dbeta, &errors.dbeta),
    ] {
        if is {
            all.extend(Expected::of_parameter(spec.parameters, name, values, |p| bound[p], twice));
        }
    }
    all
}

/// The greatest slope that an activation has near z.
fn steepest(of: Activation, z: f64) -> f64 {
    match of {
        Activation::LeakyRelu { slope } => f64::from(slope).abs().max(1.0),
        Activation::Custom(custom) => 1.5 * custom.functions().derivative(z).abs().max(0.1),
        _ => 1.2,
    }
}

/// The norm as one of slices.
fn slices(spec: &Spec, inputs: &Inputs, x: &[f64]) -> (Maps, Scheme, Vec<SliceStatistics>) {
    if !spec.norm.is_batch() {
        let (maps, scheme) = (maps(spec), scheme(spec));
        let maps = if spec.modulated { maps.modulated(spec.shape[0]) } else { maps };
        let statistics = trusted(family::statistics(x, &maps, &scheme), &scheme);
        return (maps, scheme, statistics);
    }
    let view = channels(&spec.shape);
    let eps = f64::from(spec.batch_options().eps as f32);
    let mut of = vec![0; x.len()];
    (0..view.channels).for_each(|c| reduce::channel(view, c).for_each(|i| of[i] = c as usize));
    let channels = view.channels as usize;
    let maps =
        Maps { statistics: channels, parameters: channels, statistic_of: of.clone(), parameter_of: of };
    if spec.norm == Norm::Batch {
        let scheme = Scheme::standard(eps);
        let statistics = trusted(family::statistics(x, &maps, &scheme), &scheme);
        return (maps, scheme, statistics);
    }
    let scheme = Scheme::constant(eps);
    let constant = |c: usize| {
        let [mean, var] = [&inputs.running.mean, &inputs.running.var].map(|all| f64::from(all[c]));
        SliceStatistics { count: view.count(), mean, var, inv_std: scheme.inv_std(view.count(), var) }
    };
    let statistics = (0..channels).map(constant).collect();
    (maps, scheme, statistics)
}

/// A variance beyond the limits is NaN in all that follows from it.
fn trusted(mut statistics: Vec<SliceStatistics>, scheme: &Scheme) -> Vec<SliceStatistics> {
    for s in statistics.iter_mut().filter(|s| slice_bounds::is_beyond(s, scheme)) {
        s.inv_std = f64::NAN;
    }
    statistics
}
