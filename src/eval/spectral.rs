//! What spectral norm must give: u and v after the steps of a forward pass, y, and the gradient of the weight.

use super::data::widen;
use super::expected::Expected;
use super::inputs::Inputs;
use crate::reference::bounds::{SUM, TINY, U};
use crate::reference::family::bounds::Near;
use crate::reference::spectral::{Directions, WeightMatrix};
use crate::spec::Spec;
use crate::spectral::{PowerOrder, SpectralNormOptions};

/// u, v, y, and the gradient if there is a dy.
pub(super) fn expect(spec: &Spec, options: SpectralNormOptions, inputs: &Inputs) -> Vec<Expected> {
    let SpectralNormOptions { axis, order, iterations, .. } = options;
    let eps = f64::from(options.eps as f32);
    let w = widen(&inputs.x);
    let matrix = WeightMatrix::new(&w, &spec.shape, axis);
    let (u, v) = (widen(&inputs.directions.0), widen(&inputs.directions.1));
    let found = matrix.directions(&u, &v, order, iterations, eps);
    // The error of each vector from that of the one before it.
    let near = |values: &[f64], errors: &[f64]| -> Vec<Near> {
        values.iter().zip(errors).map(|(&value, &error)| Near { value, error }).collect()
    };
    let (mut of_u, mut of_v) = (near(&u, &vec![0.0; u.len()]), near(&v, &vec![0.0; v.len()]));
    let magnitude: Vec<f64> = w.iter().map(|w| w.abs()).collect();
    let magnitudes = WeightMatrix::new(&magnitude, &spec.shape, axis);
    let mut sigma_error = 0.0;
    let mut step = |of: &[Near], transposed: bool| -> Vec<Near> {
        let (values, errors): (Vec<f64>, Vec<f64>) =
            of.iter().map(|near| (near.value, near.error + (SUM + 1.0) * U * near.value.abs())).unzip();
        let (product, error) = match transposed {
            true => (matrix.transposed_times(&values), magnitudes.transposed_times(&errors)),
            false => (matrix.times(&values), magnitudes.times(&errors)),
        };
        let length = product.iter().map(|value| value * value).sum::<f64>().sqrt();
        let length_error =
            error.iter().map(|error| error * error).sum::<f64>().sqrt() + (SUM + 4.0) * U * length;
        sigma_error = length_error + 4.0 * U * length;
        let divisor = if length < eps { eps } else { length };
        let unit = |(value, error): (&f64, &f64)| Near {
            value: value / divisor,
            error: (error + value.abs() * length_error / divisor + 4.0 * U * value.abs()) / divisor + TINY,
        };
        product.iter().zip(&error).map(unit).collect()
    };
    for _ in 0..iterations {
        if order == PowerOrder::UFirst {
            of_u = step(&of_v, false);
        }
        of_v = step(&of_u, true);
        if order == PowerOrder::VFirst {
            of_u = step(&of_v, false);
        }
    }
    let Directions { sigma, .. } = found;
    let relative = sigma_error / sigma + 4.0 * U;
    let y: Vec<f64> = w.iter().map(|w| w / sigma).collect();
    let y_bound = |i: usize| y[i].abs() * relative + TINY;
    let mut all = vec![
        Expected::new("u", found.u.clone(), |h| of_u[h].error),
        Expected::new("v", found.v.clone(), |m| of_v[m].error),
        Expected::stored(spec.dtype, "y", y.clone(), y_bound),
    ];
    if let Some(dy) = inputs.dy.as_deref().map(widen) {
        let dx = matrix.backward(&dy, &found);
        let product = |i: usize| (dy[i] * y[i]).abs();
        let inner = dy.iter().zip(&y).map(|(dy, y)| dy * y).sum::<f64>();
        let inner_error = (0..dy.len()).map(product).sum::<f64>() * (relative + SUM * U);
        let bound = |i: usize| {
            let (h, m) = matrix.place(i);
            let both = (found.u[h] * found.v[m]).abs();
            let of_both = of_u[h].error * found.v[m].abs() + of_v[m].error * found.u[h].abs();
            let terms = dy[i].abs() + inner.abs() * both;
            let error = inner_error * both + inner.abs() * of_both + (relative + 8.0 * U) * terms;
            error / sigma.abs() + TINY
        };
        all.push(Expected::stored(spec.dtype, "dx", dx, bound));
    }
    all
}
