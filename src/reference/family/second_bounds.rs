//! How far derivatives of the passes in f32 may be from the reference: every value with its error, through the formulas that kernels compute
//! (shaders/lib/second.wesl, shaders/fold/second.wesl).

use std::ops::{Add, Mul, Sub};

use super::bounds::{pull, spread, xhat_error};
use super::{Affine, Maps, Scheme, SliceStatistics, Tangents};
use crate::reference::bounds::{SUM, TINY, U};

/// A value of f64 and how far the f32 one may be from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Near {
    /// The value.
    pub value: f64,
    /// Its error.
    pub error: f64,
}

/// What derivatives are taken of an element: dz and dy·act''(z), each with its error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upstream {
    /// dz.
    pub dz: Near,
    /// The factor of ż in the tangent of dz.
    pub bent: Near,
}

/// Errors of derivatives.
#[derive(Clone, Debug, Default)]
pub struct SecondBounds {
    /// ż with its error, of each element.
    pub z_tangent: Vec<Near>,
    /// Of the tangents of dx, dgamma and dbeta.
    pub dx: Vec<f64>,
    /// By parameter.
    pub dgamma: Vec<f64>,
    /// By parameter.
    pub dbeta: Vec<f64>,
}

impl Near {
    /// A value without an error.
    pub const fn exact(value: f64) -> Self {
        Self { value, error: 0.0 }
    }

    /// The product; nothing where this is nothing, whatever the other is.
    fn times_unless_zero(self, other: Self) -> Self {
        if self.value == 0.0 && self.error == 0.0 { self } else { self * other }
    }

    /// The sum, as folds add it.
    pub(crate) fn sum(values: impl Iterator<Item = Self>) -> Self {
        let (mut sum, mut magnitudes) = (Self::default(), 0.0);
        for near in values {
            sum.value += near.value;
            sum.error += near.error;
            magnitudes += near.value.abs();
        }
        Self { error: sum.error + SUM * U * magnitudes, ..sum }
    }
}

impl Add for Near {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let value = self.value + other.value;
        Self { value, error: self.error + other.error + U * value.abs() }
    }
}

impl Sub for Near {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + Self { value: -other.value, ..other }
    }
}

impl Mul for Near {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let value = self.value * other.value;
        let crossed = self.value.abs() * other.error + other.value.abs() * self.error;
        Self { value, error: crossed + self.error * other.error + U * value.abs() + TINY }
    }
}

/// The errors of [`tangent`](super::tangent) and [`second`](super::second), with what goes through the second derivative of an activation; statistics that are
/// constants are those of infinitely many values.
///
/// # Panics
/// Unless all lengths fit the maps.
pub fn second(
    x: &[f64],
    upstream: &[Upstream],
    maps: &Maps,
    scheme: &Scheme,
    statistics: &[SliceStatistics],
    affine: Affine<'_>,
    of: Tangents<'_>,
) -> SecondBounds {
    maps.expect_elements("x", x.len());
    maps.expect_elements("dz", upstream.len());
    let mut members = vec![Vec::new(); statistics.len()];
    maps.statistic_of.iter().enumerate().for_each(|(i, &s)| members[s].push(i));
    let mut bounds = SecondBounds {
        z_tangent: vec![Near::default(); x.len()],
        dx: vec![0.0; x.len()],
        dgamma: Vec::new(),
        dbeta: Vec::new(),
    };
    let (mut to_gamma, mut to_beta) = (vec![Near::default(); x.len()], vec![Near::default(); x.len()]);
    for (s, members) in statistics.iter().zip(members) {
        let slice = Slice { s, scheme };
        let element = |i: usize| {
            let p = maps.parameter_of[i];
            let xhat = s.normalize(x[i]);
            let weight = affine.weight(scheme, p);
            let rounded = if scheme.unit_offset { U * weight.abs() } else { 0.0 };
            Element {
                xhat: Near { value: xhat, error: xhat_error(s, scheme, xhat) },
                g: Near { value: weight, error: rounded },
                v: Near::exact(of.x[i]),
                u: Near::exact(of.gamma.map_or(0.0, |u| u[p])),
                w: Near::exact(of.beta.map_or(0.0, |w| w[p])),
                upstream: upstream[i],
            }
        };
        let elements: Vec<Element> = members.iter().map(|&i| element(i)).collect();
        let folded = slice.fold(&elements);
        for (&i, e) in members.iter().zip(&elements) {
            let xhat_tangent = folded.inv_std * (e.v - folded.mean_x - e.xhat * folded.x_xhat);
            let z_tangent = e.g * xhat_tangent + e.h();
            let dz_tangent = e.upstream.bent.times_unless_zero(z_tangent);
            let p = e.g * e.upstream.dz;
            let q = e.u * e.upstream.dz + e.g * dz_tangent - folded.of_x * e.v - folded.of_dz * p;
            let dx = folded.inv_std * (q - folded.mean - e.xhat * folded.mean_xhat);
            bounds.z_tangent[i] = z_tangent;
            bounds.dx[i] = dx.error;
            to_beta[i] = dz_tangent;
            to_gamma[i] = dz_tangent * e.xhat + e.upstream.dz * xhat_tangent;
        }
    }
    let per_parameter = |of: &[Near]| {
        let errors = maps.per_parameter(|i| of[i].error + SUM * U * of[i].value.abs());
        errors.into_iter().map(|error| error + TINY).collect()
    };
    (bounds.dgamma, bounds.dbeta) = (per_parameter(&to_gamma), per_parameter(&to_beta));
    bounds
}

struct Element {
    xhat: Near,
    g: Near,
    v: Near,
    u: Near,
    w: Near,
    upstream: Upstream,
}

impl Element {
    /// What the tangents of parameters add to ż.
    fn h(&self) -> Near {
        self.u * self.xhat + self.w
    }
}

/// What is subtracted of a slice.
struct Folded {
    inv_std: Near,
    mean_x: Near,
    x_xhat: Near,
    of_x: Near,
    of_dz: Near,
    mean: Near,
    mean_xhat: Near,
}

struct Slice<'a> {
    s: &'a SliceStatistics,
    scheme: &'a Scheme,
}

impl Slice<'_> {
    fn fold(&self, elements: &[Element]) -> Folded {
        let Self { s, scheme } = *self;
        let inv_std = Near { value: s.inv_std, error: spread(s, scheme) * s.inv_std };
        let share = Near::exact(if scheme.centred { 1.0 / s.count as f64 } else { 0.0 });
        let (pull, pull_error) = pull(s, scheme);
        let pull = Near { value: pull, error: pull_error + U * pull };
        let slope = scheme.pull_slope(s.count, s.var);
        let slope = Near { value: slope, error: (4.0 * spread(s, scheme) + 8.0 * U) * slope };
        let sum = |of: &dyn Fn(&Element) -> Near| Near::sum(elements.iter().map(of));
        let p = |e: &Element| e.g * e.upstream.dz;
        let c = |e: &Element| e.upstream.bent.times_unless_zero(e.g * e.g);
        let r = |e: &Element| e.u * e.upstream.dz + e.upstream.bent.times_unless_zero(e.g * e.h());
        let (x, x_xhat) = (sum(&|e| e.v), sum(&|e| e.v * e.xhat));
        let (p_one, p_xhat) = (sum(&p), sum(&|e| p(e) * e.xhat));
        let (r_one, r_xhat) = (sum(&r), sum(&|e| r(e) * e.xhat));
        let p_x = sum(&|e| p(e) * e.v);
        let (c_one, c_xhat) = (sum(&c), sum(&|e| c(e) * e.xhat));
        let c_xhat2 = sum(&|e| c(e) * e.xhat * e.xhat);
        let (c_x, c_x_xhat) = (sum(&|e| c(e) * e.v), sum(&|e| c(e) * e.v * e.xhat));
        let (mean_x, pulled_x, pulled_p) = (share * x, pull * x_xhat, pull * p_xhat);
        let (of_x, of_dz) = (inv_std * pulled_p, inv_std * pulled_x);
        let up = r_one + inv_std * (c_x - mean_x * c_one - pulled_x * c_xhat);
        let up_xhat = r_xhat + inv_std * (c_x_xhat - mean_x * c_xhat - pulled_x * c_xhat2);
        let mean = share * (up - (of_x * x + of_dz * p_one));
        let q_xhat = up_xhat - (of_x * x_xhat + of_dz * p_xhat);
        let x_dx = p_x - share * p_one * x - pulled_p * x_xhat;
        let mean_xhat = pull * (q_xhat + inv_std * x_dx) - slope * (x_xhat * p_xhat);
        Folded { inv_std, mean_x, x_xhat: pulled_x, of_x, of_dz, mean, mean_xhat }
    }
}
