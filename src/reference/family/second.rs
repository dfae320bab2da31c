//! Derivatives of the passes: forward mode, and gradients of gradients.
//!
//! With `P(v) = v − Σv/n − x̂·pull·Σ v·x̂` (the mean only where it is subtracted), x̂ changes by `inv_std·P(ẋ)` as x changes by ẋ, and
//! `dx = inv_std·P(g·dz)`. P is symmetric, so both directions have the same sums.

use super::{Affine, Maps, Scheme, SliceStatistics};

/// Tangents of x, gamma and beta, of which [`tangent`] makes that of z; or gradients of dx, dgamma and dbeta, of which [`second`] makes those of dz, x and gamma.
#[derive(Clone, Copy, Debug)]
pub struct Tangents<'a> {
    /// Of x, or of dx.
    pub x: &'a [f64],
    /// Of gamma, or of dgamma; without, 0.
    pub gamma: Option<&'a [f64]>,
    /// Of beta, or of dbeta; without, 0.
    pub beta: Option<&'a [f64]>,
}

/// Gradients of a scalar that is made of dx, dgamma and dbeta.
#[derive(Clone, Debug, PartialEq)]
pub struct SecondGradients {
    /// Of dz.
    pub dz: Vec<f64>,
    /// Of x.
    pub x: Vec<f64>,
    /// Of gamma, whether the norm has it or not.
    pub gamma: Vec<f64>,
}

/// How z changes as x, gamma and beta do: `ż = g·inv_std·P(ẋ) + gammȧ·x̂ + betȧ`, with g = gamma, or 1 + gamma.
///
/// ```
/// use wgnorm::reference::family::{self, Affine, Tangents, Maps, Scheme};
/// // All values of a row by as much: its layer norm stays.
/// let (x, maps, scheme) = ([1.0, 2.0, 6.0], Maps::layer(&[1, 3], 1), Scheme::standard(1e-5));
/// let statistics = family::statistics(&x, &maps, &scheme);
/// let tangents = Tangents { x: &[0.5; 3], gamma: None, beta: None };
/// let dz = family::tangent(&x, &maps, &scheme, &statistics, Affine::default(), tangents);
/// assert!(dz.iter().all(|dz| dz.abs() < 1e-12));
/// ```
///
/// # Panics
/// Unless all lengths fit the maps.
pub fn tangent(
    x: &[f64],
    maps: &Maps,
    scheme: &Scheme,
    statistics: &[SliceStatistics],
    affine: Affine<'_>,
    tangents: Tangents<'_>,
) -> Vec<f64> {
    maps.expect_elements("x", x.len());
    maps.expect_elements("the change of x", tangents.x.len());
    maps.expect_statistics(statistics.len());
    affine.expect_fit(maps);
    Affine { gamma: tangents.gamma, beta: tangents.beta }.expect_fit(maps);
    let slices = Slices { x, maps, scheme, statistics };
    let projected = slices.projected(tangents.x);
    (0..x.len())
        .map(|i| {
            let p = maps.parameter_of[i];
            let of = |values: Option<&[f64]>| values.map_or(0.0, |values| values[p]);
            affine.weight(scheme, p) * slices.of(i).inv_std * projected[i]
                + of(tangents.gamma) * slices.xhat(i)
                + of(tangents.beta)
        })
        .collect()
}

/// Gradients of dz, x and gamma from those of what [`backward`](super::backward) gives, v of dx, u of dgamma and w of dbeta:
///
/// - of dz `g·inv_std·P(v) + u·x̂ + w`: a [`tangent`];
/// - of gamma `Σ inv_std·P(v)·dz` over the elements of a parameter;
/// - of x `inv_std·P(q) − pull·inv_std·x̂·Σ v·dx`, with `q = u·dz − inv_std·pull·(v·Σ g·dz·x̂ + g·dz·Σ v·x̂)`, which is how dx and dgamma depend on x̂; the rest is how dx
///   depends on inv_std, and on pull where that varies ([`Spread::Deviation`](super::Spread::Deviation)).
///
/// # Panics
/// Unless all lengths fit the maps.
pub fn second(
    x: &[f64],
    dz: &[f64],
    maps: &Maps,
    scheme: &Scheme,
    statistics: &[SliceStatistics],
    affine: Affine<'_>,
    of: Tangents<'_>,
) -> SecondGradients {
    maps.expect_elements("dz", dz.len());
    let of_dz = tangent(x, maps, scheme, statistics, affine, of);
    let slices = Slices { x, maps, scheme, statistics };
    let (v, projected) = (of.x, slices.projected(of.x));
    let g: Vec<f64> = (0..x.len()).map(|i| affine.weight(scheme, maps.parameter_of[i]) * dz[i]).collect();
    let v_xhat = maps.per_statistic(|i| v[i] * slices.xhat(i));
    let g_xhat = maps.per_statistic(|i| g[i] * slices.xhat(i));
    // Σ v·dx / inv_std.
    let v_dx = maps.per_statistic(|i| projected[i] * g[i]);
    let q: Vec<f64> = (0..x.len())
        .map(|i| {
            let (s, statistic) = (maps.statistic_of[i], slices.of(i));
            let of_gamma = of.gamma.map_or(0.0, |u| u[maps.parameter_of[i]]);
            of_gamma * dz[i] - statistic.inv_std * slices.pull(i) * (v[i] * g_xhat[s] + g[i] * v_xhat[s])
        })
        .collect();
    let of_x = slices.projected(&q).into_iter().enumerate().map(|(i, projected)| {
        let (s, statistic) = (maps.statistic_of[i], slices.of(i));
        let by_spread = slices.pull(i) * statistic.inv_std * v_dx[s]
            - scheme.pull_slope(statistic.count, statistic.var) * v_xhat[s] * g_xhat[s];
        statistic.inv_std * projected - slices.xhat(i) * statistic.inv_std * by_spread
    });
    SecondGradients {
        dz: of_dz,
        x: of_x.collect(),
        gamma: maps.per_parameter(|i| slices.of(i).inv_std * projected[i] * dz[i]),
    }
}

/// x, by its slices.
struct Slices<'a> {
    x: &'a [f64],
    maps: &'a Maps,
    scheme: &'a Scheme,
    statistics: &'a [SliceStatistics],
}

impl Slices<'_> {
    fn of(&self, i: usize) -> SliceStatistics {
        self.statistics[self.maps.statistic_of[i]]
    }

    fn xhat(&self, i: usize) -> f64 {
        self.of(i).normalize(self.x[i])
    }

    fn pull(&self, i: usize) -> f64 {
        self.scheme.pull(self.of(i).count, self.of(i).var)
    }

    /// P(v).
    fn projected(&self, v: &[f64]) -> Vec<f64> {
        let sums = self.maps.per_statistic(|i| v[i]);
        let products = self.maps.per_statistic(|i| v[i] * self.xhat(i));
        let of = |i: usize| {
            let s = self.maps.statistic_of[i];
            let mean = if self.scheme.centred { sums[s] / self.of(i).count as f64 } else { 0.0 };
            v[i] - mean - self.xhat(i) * self.pull(i) * products[s]
        };
        (0..v.len()).map(of).collect()
    }
}
