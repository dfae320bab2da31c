//! What a norm makes of a slice: its center, its divisor, and how gamma is stored.

use super::Maps;

/// What the distance from the center is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// `inv_std = 1 / sqrt(var + eps)`.
    Variance,
    /// `inv_std = 1 / (sqrt(var) + eps)`: MeanVarianceNormalization of ONNX.
    Deviation,
    /// `inv_std = 1 / max(sqrt(n·var), eps)`, the Euclidean length of the slice: `F.normalize`, ScaleNorm.
    Length,
    /// The same; 0 where the length is, so that zeros, which have no direction, give zeros and have no gradient: weight norm.
    Direction,
    /// As [`Variance`](Self::Variance), where mean and variance are constants that no x changes: frozen statistics.
    Constant,
}

/// What a norm makes of a slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scheme {
    /// Whether the mean is subtracted. Where it is not, it is 0, and `var` is the mean square.
    pub centred: bool,
    /// What is divided by.
    pub spread: Spread,
    /// What keeps the divisor from 0.
    pub eps: f64,
    /// gamma is stored as its distance from 1 (Gemma, DiT).
    pub unit_offset: bool,
}

impl Scheme {
    /// `(x − mean) / sqrt(var + eps)`.
    pub const fn standard(eps: f64) -> Self {
        Self { centred: true, spread: Spread::Variance, eps, unit_offset: false }
    }

    /// `x / sqrt(mean square + eps)`.
    pub const fn rms(eps: f64) -> Self {
        Self { centred: false, spread: Spread::Variance, eps, unit_offset: false }
    }

    /// `(x − mean) / (sqrt(var) + eps)`.
    pub const fn deviation(eps: f64) -> Self {
        Self { centred: true, spread: Spread::Deviation, eps, unit_offset: false }
    }

    /// `x / max(‖x‖, eps)`.
    pub const fn length(eps: f64) -> Self {
        Self { centred: false, spread: Spread::Length, eps, unit_offset: false }
    }

    /// `v / ‖v‖`, or by eps if that is more; zeros give zeros and have no gradient.
    pub const fn direction(eps: f64) -> Self {
        Self { centred: false, spread: Spread::Direction, eps, unit_offset: false }
    }

    /// `(x − mean) / sqrt(var + eps)` of a mean and a variance that are constants: nothing is subtracted of gradients.
    pub const fn constant(eps: f64) -> Self {
        Self { centred: false, spread: Spread::Constant, eps, unit_offset: false }
    }

    /// The same with gamma stored as its distance from 1.
    pub const fn with_unit_offset(self) -> Self {
        Self { unit_offset: true, ..self }
    }

    /// inv_std of a slice. NaN where `var` is infinite: 0 would turn finite values of the slice into a finite constant.
    pub fn inv_std(&self, count: u64, var: f64) -> f64 {
        if var.is_infinite() {
            return f64::NAN;
        }
        let divisor = match self.spread {
            Spread::Variance | Spread::Constant => (var + self.eps).sqrt(),
            Spread::Deviation => var.sqrt() + self.eps,
            // Not `max`, which would drop NaN.
            Spread::Direction if var == 0.0 => return 0.0,
            Spread::Length | Spread::Direction if self.clamps(count, var) => self.eps,
            Spread::Length | Spread::Direction => length(count, var),
        };
        // Where all values are equal and eps is 0, there is nothing to divide by; 0 / 0 is NaN.
        if divisor == 0.0 { f64::NAN } else { 1.0 / divisor }
    }

    /// How much of Σ g·dz·x̂ is in dx: `d inv_std / dx = −pull·x̂·inv_std²`. For [`Spread::Variance`] it is 1/n.
    ///
    /// For [`Spread::Deviation`] it is `(σ + eps) / (σ·n)`, and 0 where σ is: x̂ is 0 there too. For [`Spread::Length`] it is 1, and 0
    /// where eps is divided by.
    pub fn pull(&self, count: u64, var: f64) -> f64 {
        let n = count as f64;
        match self.spread {
            Spread::Variance => 1.0 / n,
            Spread::Constant => 0.0,
            Spread::Deviation if var == 0.0 => 0.0,
            Spread::Deviation => (var.sqrt() + self.eps) / (var.sqrt() * n),
            Spread::Length | Spread::Direction if self.clamps(count, var) => 0.0,
            Spread::Length | Spread::Direction => 1.0,
        }
    }

    /// How [`pull`](Self::pull) varies: `d pull / dx = −pull_slope·x̂`. 0 but for [`Spread::Deviation`].
    pub(super) fn pull_slope(&self, count: u64, var: f64) -> f64 {
        let (n, deviation) = (count as f64, var.sqrt());
        match self.spread {
            Spread::Deviation if var > 0.0 => self.eps * (deviation + self.eps) / (deviation.powi(3) * n * n),
            _ => 0.0,
        }
    }

    /// Whether eps is divided by in place of the slice's length.
    fn clamps(&self, count: u64, var: f64) -> bool {
        length(count, var) < self.eps
    }
}

/// Euclidean length of a slice about its center.
pub(super) fn length(count: u64, var: f64) -> f64 {
    (count as f64 * var).sqrt()
}

/// The parameters, by the index that [`Maps`] gives.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Affine<'a> {
    /// Factors of x̂, or their distances from 1; without, all are 1.
    pub gamma: Option<&'a [f64]>,
    /// Summands; without, all are 0.
    pub beta: Option<&'a [f64]>,
}

impl Affine<'_> {
    /// What x̂ is multiplied by: gamma, or 1 + gamma where it is stored as its distance from 1.
    pub fn weight(&self, scheme: &Scheme, parameter: usize) -> f64 {
        match self.gamma {
            None => 1.0,
            Some(gamma) if scheme.unit_offset => 1.0 + gamma[parameter],
            Some(gamma) => gamma[parameter],
        }
    }

    /// What is added.
    pub fn shift(&self, parameter: usize) -> f64 {
        self.beta.map_or(0.0, |beta| beta[parameter])
    }

    /// Panics unless both fit the maps.
    pub(super) fn expect_fit(&self, maps: &Maps) {
        self.gamma.iter().for_each(|gamma| maps.expect_parameters("gamma", gamma.len()));
        self.beta.iter().for_each(|beta| maps.expect_parameters("beta", beta.len()));
    }
}
