//! What a gate adds to the errors of a norm: those of its activation, and before the norm those of what is normalized.

use crate::base::activation::Activation;
use crate::reference::activation::{activate, gradient};
use crate::reference::bounds::{self, U};
use crate::reference::family::{Affine, Gradients, Maps, Scheme, SliceStatistics, Spread, slice_sums};

/// Error of act(gate).
pub fn factor_error(activation: Activation, gate: f64) -> f64 {
    bounds::activated(activation, gate, 0.0)
}

/// Bound of `value·act(gate)`, of a value within a bound.
pub fn gated(activation: Activation, value: f64, bound: f64, gate: f64) -> f64 {
    let factor = activate(activation, gate).abs();
    bound * factor + (value.abs() + bound) * factor_error(activation, gate) + U * value.abs() * factor
}

/// Bound of `upstream·value·act'(gate)`, of a value within a bound.
pub fn d_gate(activation: Activation, upstream: f64, value: f64, bound: f64, gate: f64) -> f64 {
    let slope = gradient(activation, gate, 1.0).abs();
    let product = (upstream * value).abs();
    upstream.abs() * bound * slope + bounds::dz(activation, product, gate, 0.0) + 3.0 * U * product * slope
}

/// Errors of u = x·act(gate), which is computed in f32 wherever it is needed, and of what is made of it. All 0 where nothing is multiplied.
#[derive(Clone, Debug)]
pub struct Product {
    /// Of each value.
    of_value: Vec<f64>,
    /// Of the mean of each slice, and of its standard deviation, or root of mean squares.
    pub mean: Vec<f64>,
    pub deviation: Vec<f64>,
}

impl Product {
    pub fn new(x: &[f64], gate: Option<&[f64]>, activation: Activation, maps: &Maps, centred: bool) -> Self {
        let of_value: Vec<f64> = match gate {
            Some(gate) => x.iter().zip(gate).map(|(&x, &gate)| gated(activation, x, 0.0, gate)).collect(),
            None => vec![0.0; x.len()],
        };
        let count = maps.per_statistic(|_| 1.0);
        let mean = |sums: Vec<f64>| sums.into_iter().zip(&count).map(|(sum, count)| sum / count.max(1.0));
        let of_mean = mean(maps.per_statistic(|i| of_value[i]));
        let of_mean = of_mean.map(|error| if centred { error } else { 0.0 }).collect();
        let deviation = mean(maps.per_statistic(|i| of_value[i] * of_value[i])).map(f64::sqrt).collect();
        Self { of_value, mean: of_mean, deviation }
    }

    /// Without those of a value that is masked, and so all of its slice.
    pub fn forget(&mut self, i: usize, slice: usize) {
        (self.of_value[i], self.mean[slice], self.deviation[slice]) = (0.0, 0.0, 0.0);
    }

    pub fn is_exact(&self) -> bool {
        self.of_value.iter().all(|&error| error == 0.0)
    }

    /// Of the inverse deviation of a slice, as a part of it.
    pub fn spread(&self, slice: usize, s: &SliceStatistics, scheme: &Scheme) -> f64 {
        let values = match scheme.spread {
            Spread::Variance | Spread::Deviation | Spread::Constant => 1.0,
            Spread::Length | Spread::Direction => (s.count as f64).sqrt(),
        };
        if self.deviation[slice] == 0.0 { 0.0 } else { values * self.deviation[slice] * s.inv_std }
    }

    /// Of x̂ of a value.
    pub fn xhat(&self, i: usize, slice: usize, s: &SliceStatistics, scheme: &Scheme, xhat: f64) -> f64 {
        match self.of_value[i] + self.mean[slice] + self.deviation[slice] {
            0.0 => 0.0,
            _ => {
                s.inv_std * (self.of_value[i] + self.mean[slice]) + xhat.abs() * self.spread(slice, s, scheme)
            }
        }
    }

    /// What they add to the bounds of the gradients, to first order.
    pub fn widen(
        &self,
        bound: &mut Gradients,
        (u, dz): (&[f64], &[f64]),
        maps: &Maps,
        scheme: &Scheme,
        statistics: &[SliceStatistics],
        affine: Affine<'_>,
    ) {
        if self.is_exact() {
            return;
        }
        let of = |i: usize| (maps.statistic_of[i], &statistics[maps.statistic_of[i]]);
        let xhat = |i: usize| of(i).1.normalize(u[i]);
        let error = |i: usize| self.xhat(i, of(i).0, of(i).1, scheme, xhat(i));
        let weighted = |i: usize| (affine.weight(scheme, maps.parameter_of[i]) * dz[i]).abs();
        let sums = slice_sums(u, dz, maps, scheme, statistics, affine);
        let s2_error = maps.per_statistic(|i| weighted(i) * error(i));
        for i in 0..u.len() {
            let (slice, s) = of(i);
            let (pull, share) =
                (scheme.pull(s.count, s.var), if scheme.centred { 1.0 / s.count as f64 } else { 0.0 });
            let (s1, s2) = (sums[slice].dz.abs(), sums[slice].dz_xhat.abs());
            let terms = weighted(i) + share * s1 + xhat(i).abs() * pull * s2;
            let of_terms = error(i) * pull * s2 + xhat(i).abs() * pull * s2_error[slice];
            bound.dx[i] += s.inv_std * (of_terms + 2.0 * self.spread(slice, s, scheme) * terms);
        }
        let of_parameters = maps.per_parameter(|i| dz[i].abs() * error(i));
        bound.dgamma.iter_mut().zip(of_parameters).for_each(|(bound, error)| *bound += error);
    }
}
