//! GraphNorm in f64: instance norm of which only a part of the mean is subtracted.
//!
//! Source: Cai, Luo, Xu, He, Liu & Wang, "GraphNorm: A Principled Approach to Accelerating Graph Neural Network Training", ICML 2021, equation 3; PyTorch Geometric's `GraphNorm`.

use super::family::{Maps, SliceStatistics};

/// What it has for each parameter of the [`Maps`].
#[derive(Clone, Copy, Debug)]
pub struct Parameters<'a> {
    /// The factor of x̂; 1 if there is none.
    pub gamma: Option<&'a [f64]>,
    /// What is added; 0 if there is none.
    pub beta: Option<&'a [f64]>,
    /// The part of the mean that is subtracted.
    pub alpha: &'a [f64],
}

/// The gradients of a sum of dz·z.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// By x.
    pub dx: Vec<f64>,
    /// By gamma.
    pub dgamma: Vec<f64>,
    /// By beta.
    pub dbeta: Vec<f64>,
    /// By alpha.
    pub dalpha: Vec<f64>,
}

/// Statistics of a slice: of the mean what is subtracted, of the variance the mean square of what is left.
#[derive(Clone, Copy, Debug)]
struct Slice {
    mean: f64,
    alpha: f64,
    inv_std: f64,
    count: f64,
}

impl Slice {
    fn xhat(&self, x: f64) -> f64 {
        (x - self.alpha * self.mean) * self.inv_std
    }

    /// The mean of x̂.
    fn rest(&self) -> f64 {
        (1.0 - self.alpha) * self.mean * self.inv_std
    }
}

impl Parameters<'_> {
    /// gamma of a parameter.
    pub fn weight(&self, p: usize) -> f64 {
        self.gamma.map_or(1.0, |gamma| gamma[p])
    }

    /// beta of a parameter.
    pub fn shift(&self, p: usize) -> f64 {
        self.beta.map_or(0.0, |beta| beta[p])
    }
}

fn slices(maps: &Maps, plain: &[SliceStatistics], alpha: &[f64], eps: f64) -> Vec<Slice> {
    // A slice has one parameter.
    let mut parameter_of = vec![0; maps.statistics];
    maps.statistic_of.iter().zip(&maps.parameter_of).for_each(|(&s, &p)| parameter_of[s] = p);
    let slice = |(s, of): (usize, &SliceStatistics)| {
        let alpha = alpha[parameter_of[s]];
        let rest = (1.0 - alpha) * of.mean;
        let inv_std = (of.var + rest * rest + eps).sqrt().recip();
        Slice { mean: of.mean, alpha, inv_std, count: of.count as f64 }
    };
    plain.iter().enumerate().map(slice).collect()
}

/// z = x̂·gamma + beta, and of each slice what is subtracted and 1 / σ, from its plain mean and variance.
///
/// # Panics
/// Unless all lengths fit the maps.
pub fn forward(
    x: &[f64],
    maps: &Maps,
    plain: &[SliceStatistics],
    parameters: Parameters<'_>,
    eps: f64,
) -> (Vec<f64>, Vec<(f64, f64)>) {
    let slices = slices(maps, plain, parameters.alpha, eps);
    let z = (0..x.len())
        .map(|i| {
            let p = maps.parameter_of[i];
            slices[maps.statistic_of[i]].xhat(x[i]) * parameters.weight(p) + parameters.shift(p)
        })
        .collect();
    (z, slices.iter().map(|slice| (slice.alpha * slice.mean, slice.inv_std)).collect())
}

/// The gradients from dz.
///
/// ```text
/// d = (gamma·dz − x̂·mean(gamma·dz·x̂)) / σ        dx = d − alpha·mean(d)        dalpha = −Σ over slices of mean·Σ d
/// ```
///
/// # Panics
/// Unless all lengths fit the maps.
pub fn backward(
    x: &[f64],
    dz: &[f64],
    maps: &Maps,
    plain: &[SliceStatistics],
    parameters: Parameters<'_>,
    eps: f64,
) -> Gradients {
    let slices = slices(maps, plain, parameters.alpha, eps);
    let of = |i: usize| &slices[maps.statistic_of[i]];
    let xhat = |i: usize| of(i).xhat(x[i]);
    let weighted = |i: usize| parameters.weight(maps.parameter_of[i]) * dz[i];
    let pulls = maps.per_statistic(|i| weighted(i) * xhat(i));
    let d: Vec<f64> = (0..x.len())
        .map(|i| of(i).inv_std * (weighted(i) - xhat(i) * pulls[maps.statistic_of[i]] / of(i).count))
        .collect();
    let sums = maps.per_statistic(|i| d[i]);
    let dx = (0..x.len()).map(|i| d[i] - of(i).alpha * sums[maps.statistic_of[i]] / of(i).count).collect();
    Gradients {
        dx,
        dgamma: maps.per_parameter(|i| dz[i] * xhat(i)),
        dbeta: maps.per_parameter(|i| dz[i]),
        dalpha: maps.per_parameter(|i| -of(i).mean * d[i]),
    }
}

/// The mean of x̂ of a slice whose mean and variance are plain.
pub fn rest(plain: &SliceStatistics, alpha: f64, eps: f64) -> f64 {
    let rest = (1.0 - alpha) * plain.mean;
    let slice = Slice {
        mean: plain.mean,
        alpha,
        inv_std: (plain.var + rest * rest + eps).sqrt().recip(),
        count: 1.0,
    };
    slice.rest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::family::{self, Affine, Scheme};

    const EPS: f64 = 1e-3;

    fn values(seed: u64, len: usize) -> Vec<f64> {
        (0..len as u64).map(|i| ((i * 2_654_435_761 + seed * 40_503) % 1009) as f64 / 504.5 - 1.0).collect()
    }

    #[test]
    fn gradients_are_differences() {
        let maps = Maps::in_segments(&[3, 0, 1, 4], 2, 2);
        let (x, dz) = (values(1, 16), values(2, 16));
        let (gamma, beta, alpha) = (values(3, 2), values(4, 2), values(5, 2));
        let loss = |x: &[f64], gamma: &[f64], beta: &[f64], alpha: &[f64]| {
            let plain = family::statistics(x, &maps, &Scheme::standard(EPS));
            let parameters = Parameters { gamma: Some(gamma), beta: Some(beta), alpha };
            let (z, _) = forward(x, &maps, &plain, parameters, EPS);
            z.iter().zip(&dz).map(|(z, dz)| z * dz).sum::<f64>()
        };
        let plain = family::statistics(&x, &maps, &Scheme::standard(EPS));
        let parameters = Parameters { gamma: Some(&gamma), beta: Some(&beta), alpha: &alpha };
        let got = backward(&x, &dz, &maps, &plain, parameters, EPS);
        let check = |what: &str, at: &[f64], got: &[f64], of: &dyn Fn(&[f64]) -> f64| {
            for i in 0..at.len() {
                let moved = |by: f64| {
                    let mut at = at.to_vec();
                    at[i] += by;
                    of(&at)
                };
                let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((got[i] - expected).abs() < 1e-7, "{what} {i}: {} is not {expected}", got[i]);
            }
        };
        check("dx", &x, &got.dx, &|x| loss(x, &gamma, &beta, &alpha));
        check("dgamma", &gamma, &got.dgamma, &|gamma| loss(&x, gamma, &beta, &alpha));
        check("dbeta", &beta, &got.dbeta, &|beta| loss(&x, &gamma, beta, &alpha));
        check("dalpha", &alpha, &got.dalpha, &|alpha| loss(&x, &gamma, &beta, alpha));
    }

    #[test]
    fn with_all_of_the_mean_it_is_instance_norm() {
        let maps = Maps::in_segments(&[3, 5], 2, 2);
        let (x, dz) = (values(1, 16), values(2, 16));
        let scheme = Scheme::standard(EPS);
        let plain = family::statistics(&x, &maps, &scheme);
        let got =
            backward(&x, &dz, &maps, &plain, Parameters { gamma: None, beta: None, alpha: &[1.0, 1.0] }, EPS);
        let affine = Affine { gamma: None, beta: None };
        let expected = family::backward(&x, &dz, &maps, &scheme, &plain, affine);
        assert!(got.dx.iter().zip(&expected.dx).all(|(got, expected)| (got - expected).abs() < 1e-12));
        assert_eq!(rest(&plain[0], 1.0, EPS), 0.0);
    }
}
