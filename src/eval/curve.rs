//! What a curve must give, Dynamic Tanh or Derf: the f64 reference with the bounds of each output.

use super::data::widen;
use super::expected::{Expected, avoid_kinks};
use super::inputs::{Inputs, channels};
use crate::base::activation::Activation;
use crate::base::curve::Curve;
use crate::reference::curve::{self as reference, Parameters};
use crate::reference::{bounds, map, masked};
use crate::spec::{Spec, Wanted};

/// Forward, and backward if there is a dy. Clears dy at kinks.
pub(super) fn expect(spec: &Spec, curve: Curve, inputs: &mut Inputs) -> Vec<Expected> {
    let Spec { dtype, parameters, activation, wanted, .. } = *spec;
    let view = channels(&spec.shape);
    let x = widen(&inputs.x);
    let [gamma, beta, residual] =
        [&inputs.gamma, &inputs.beta, &inputs.residual].map(|values| values.as_deref().map(widen));
    let (alpha, shift) = (inputs.alpha[0].into(), inputs.shift.first().copied().unwrap_or(0.0).into());
    let p = Parameters { curve, alpha, shift, gamma: gamma.as_deref(), beta: beta.as_deref() };
    let channel = |i: usize| view.channel_of(i as u64) as usize;
    let z = reference::forward(&x, view, &p);
    let with_residual = map::activated(&z, residual.as_deref(), Activation::None);
    let added = |i: usize| residual.as_ref().map(|residual| residual[i]);
    let z_bound: Vec<_> = (0..z.len()).map(|i| reference::z_bound(&p, x[i], channel(i), added(i))).collect();
    avoid_kinks(activation, inputs, |i| with_residual[i], |i| (4.0 * z_bound[i]).max(1e-3));

    let y = map::activated(&z, residual.as_deref(), activation);
    let y_bound = |i: usize| bounds::activated(activation, with_residual[i], z_bound[i]);
    let mut all = vec![Expected::stored(dtype, "y", y, y_bound)];
    let Some(dy) = inputs.dy.as_deref().map(widen) else { return all };
    // What a mask leaves out is replaced by something harmless: its dz is 0.
    let counts = |i: usize| inputs.keep.as_ref().is_none_or(|keep| masked::counts(view, keep, i));
    let of_counted = |values: Vec<f64>| -> Vec<f64> {
        values.into_iter().enumerate().map(|(i, value)| if counts(i) { value } else { 0.0 }).collect()
    };
    let x = of_counted(x);
    let dz = of_counted(map::dz(&z, residual.as_deref(), &dy, activation));
    let dz_bound = of_counted(
        (0..dz.len()).map(|i| bounds::dz(activation, dy[i], with_residual[i], z_bound[i])).collect(),
    );
    let gradients = reference::backward(&x, &dz, view, &p);
    let sums = reference::sum_bounds(&x, &dz, view, &p, |i| dz_bound[i]);
    let dx_bound = |i: usize| reference::dx_bound(&p, x[i], channel(i), dz[i], dz_bound[i]);
    all.push(Expected::stored(dtype, "dx", gradients.dx, dx_bound));
    if wanted == Wanted::Alone {
        let alone: Vec<_> = all.iter().map(|e| e.named(format!("{}_alone", e.name))).collect();
        all.extend(alone);
    }
    for (name, is, values, bound) in [
        ("dweight", inputs.gamma.is_some(), gradients.dgamma, sums.dgamma),
        ("dbias", inputs.beta.is_some(), gradients.dbeta, sums.dbeta),
        ("dalpha", true, vec![gradients.dalpha], vec![sums.dalpha]),
        ("dshift", curve != Curve::Tanh, vec![gradients.dshift], vec![sums.dshift]),
    ] {
        if is {
            let twice = wanted == Wanted::Added;
            all.extend(Expected::of_parameter(parameters, name, values, |p| bound[p], twice));
        }
    }
    if spec.residual {
        all.push(Expected::stored(dtype, "dresidual", dz, |i| dz_bound[i]));
    }
    all
}
