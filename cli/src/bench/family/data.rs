//! Inputs of one shape on the host, and what a norm of the family must make of them by [`reference::family`]: computed once,
//! held against every layout and cache state.

use std::borrow::Cow;
use std::cell::OnceCell;

use wgnorm::reference::activation::kinks;
use wgnorm::reference::family::{
    self, Affine, Gradients, Maps, Scheme, SliceStatistics, bounds as slice_bounds,
};
use wgnorm::reference::{bounds, map};
use wgnorm::{Activation, DType, NormOptions};

use super::layer;
use crate::bench::data::{rounded, values, widen};
use crate::bench::expected::{Worst, clear_kinks};
use crate::bench::norm::Norm;
use crate::bench::variant::Variant;

/// Inputs in logical order; the values that are uploaded, already rounded to the element type.
pub struct Data {
    pub norm: Norm,
    pub dims: Vec<usize>,
    pub variant: Variant,
    pub options: NormOptions,
    pub x: Vec<f32>,
    pub residual: Option<Vec<f32>>,
    /// What is added to x before the norm.
    pub addend: Option<Vec<f32>>,
    pub dy: Vec<f32>,
    /// What the sum's gradient has beside that of the norm.
    pub d_sum: Option<Vec<f32>>,
    pub gamma: Option<Vec<f32>>,
    pub beta: Option<Vec<f32>>,
    maps: Maps,
    scheme: Scheme,
    forward: OnceCell<Forward>,
    backward: OnceCell<Backward>,
}

struct Forward {
    statistics: Vec<SliceStatistics>,
    /// `x̂·gamma + beta`, and its bound with the residual included.
    z: Vec<f64>,
    z_bound: Vec<f64>,
    /// `None` where it is z.
    y: Option<Vec<f64>>,
}

struct Backward {
    gradients: Gradients,
    bounds: Gradients,
    /// `None` where it is dy.
    dz: Option<Vec<f64>>,
    /// Of dz; `None` where it is exact.
    dz_error: Option<Vec<f64>>,
}

/// Results of an operation in logical order.
pub enum Results {
    Forward { y: Vec<f32>, sum: Option<Vec<f32>>, saved_inv_std: Option<Vec<f32>> },
    Backward { dx: Vec<f32>, d_residual: Option<Vec<f32>>, dgamma: Option<Vec<f32>>, dbeta: Option<Vec<f32>> },
}

impl Data {
    pub fn new(norm: Norm, dims: &[usize], variant: Variant) -> Self {
        let (maps, options) = (layer::maps(norm, dims), layer::options(norm, variant));
        let stored = |seed, shift, scale| rounded(variant.dtype, values(seed, maps.len(), shift, scale));
        let mut data = Self {
            norm,
            dims: dims.to_vec(),
            variant,
            options,
            x: stored(1, 0.5, 2.0),
            residual: variant.residual.then(|| stored(7, 0.0, 1.0)),
            addend: variant.sum.then(|| stored(8, 0.1, 1.0)),
            dy: stored(2, 0.0, 1.0),
            d_sum: variant.sum.then(|| stored(9, 0.0, 1.0)),
            gamma: options.affine.has_gamma().then(|| values(3, maps.parameters, 1.0, 0.5)),
            beta: options.affine.has_beta().then(|| values(4, maps.parameters, 0.0, 0.5)),
            scheme: layer::scheme(norm, variant.dtype),
            maps,
            forward: OnceCell::new(),
            backward: OnceCell::new(),
        };
        data.clear_kinks();
        data
    }

    /// Clears dy where the derivative may jump.
    fn clear_kinks(&mut self) {
        if kinks(self.variant.activation).is_empty() {
            return;
        }
        let mut dy = std::mem::take(&mut self.dy);
        let Forward { z, .. } = self.forward();
        clear_kinks(&mut dy, self.variant.activation, |i| z[i] + self.residual(i));
        self.dy = dy;
    }

    /// Compares results with the reference, within `factor` times the bounds of the crate. Returns the worst error as
    /// a fraction of that, or what is wrong.
    pub fn check(&self, results: &Results, factor: f64) -> Result<f64, String> {
        let dtype = self.variant.dtype;
        let mut worst = Worst::within(factor);
        match results {
            Results::Forward { y, sum, saved_inv_std } => {
                let Forward { statistics, z, z_bound, y: activated } = self.forward();
                let expected = activated.as_deref().unwrap_or(z);
                worst.hold("y", dtype, y, expected, |i| {
                    let bound = match self.variant.activation {
                        Activation::None => z_bound[i],
                        activation => bounds::activated(activation, z[i] + self.residual(i), z_bound[i]),
                    };
                    bounds::stored(dtype, expected[i], bound)
                })?;
                if let Some(sum) = sum {
                    // As it is stored, it is one rounding of one addition: no bound but equality.
                    let (got, wanted) = (sum.iter().map(|s| s.to_bits()), self.normalized());
                    if !got.eq(wanted.iter().map(|s| s.to_bits())) {
                        return Err("sum: not x plus the addend".to_owned());
                    }
                }
                if let Some(got) = saved_inv_std {
                    let expected: Vec<_> = statistics.iter().map(|s| s.inv_std).collect();
                    worst.hold("inv_std", DType::F32, got, &expected, |s| {
                        slice_bounds::inv_std(&statistics[s])
                    })?;
                }
            }
            Results::Backward { dx, d_residual, dgamma, dbeta } => {
                let Backward { gradients, bounds: allowed, dz, dz_error } = self.backward();
                worst.hold("dx", dtype, dx, &gradients.dx, |i| {
                    bounds::stored(dtype, gradients.dx[i], allowed.dx[i])
                })?;
                if let (Some(got), Some(dz), Some(error)) = (d_residual, dz, dz_error) {
                    worst.hold("d_residual", dtype, got, dz, |i| bounds::stored(dtype, dz[i], error[i]))?;
                }
                for (what, got, expected, allowed) in [
                    ("dgamma", dgamma, &gradients.dgamma, &allowed.dgamma),
                    ("dbeta", dbeta, &gradients.dbeta, &allowed.dbeta),
                ] {
                    if let Some(got) = got {
                        worst.hold(what, DType::F32, got, expected, |p| allowed[p])?;
                    }
                }
            }
        }
        Ok(worst.ratio)
    }

    /// What is normalized.
    fn normalized(&self) -> Cow<'_, [f32]> {
        match &self.addend {
            None => Cow::Borrowed(&self.x),
            Some(addend) => {
                let sum = self.x.iter().zip(addend).map(|(x, addend)| x + addend);
                Cow::Owned(rounded(self.variant.dtype, sum.collect()))
            }
        }
    }

    fn residual(&self, i: usize) -> f64 {
        self.residual.as_ref().map_or(0.0, |residual| residual[i].into())
    }

    fn affine(&self) -> [Option<Vec<f64>>; 2] {
        [&self.gamma, &self.beta].map(|parameter| parameter.as_deref().map(widen))
    }

    fn forward(&self) -> &Forward {
        self.forward.get_or_init(|| {
            let (x, [gamma, beta]) = (widen(&self.normalized()), self.affine());
            let affine = Affine { gamma: gamma.as_deref(), beta: beta.as_deref() };
            let residual = self.residual.as_deref().map(widen);
            let (z, statistics) = family::forward(&x, &self.maps, &self.scheme, affine);
            let z_bound =
                slice_bounds::z(&x, &self.maps, &self.scheme, &statistics, affine, residual.as_deref());
            let fused = residual.is_some() || self.variant.activation != Activation::None;
            let y = fused.then(|| map::activated(&z, residual.as_deref(), self.variant.activation));
            Forward { statistics, z, z_bound, y }
        })
    }

    fn backward(&self) -> &Backward {
        self.backward.get_or_init(|| {
            let Forward { statistics, z, z_bound, .. } = self.forward();
            let (maps, scheme, activation) = (&self.maps, &self.scheme, self.variant.activation);
            let (x, dy, [gamma, beta]) = (widen(&self.normalized()), widen(&self.dy), self.affine());
            let affine = Affine { gamma: gamma.as_deref(), beta: beta.as_deref() };
            let activated = activation != Activation::None;
            let dz = activated.then(|| {
                let residual = self.residual.as_deref().map(widen);
                map::dz(z, residual.as_deref(), &dy, activation)
            });
            let dz_error = activated.then(|| {
                dy.iter().zip(z_bound).map(|(&dy, &z)| bounds::dz(activation, dy, z)).collect::<Vec<_>>()
            });
            let gradient = dz.as_deref().unwrap_or(&dy);
            let mut gradients = family::backward(&x, gradient, maps, scheme, statistics, affine);
            let mut allowed =
                slice_bounds::backward(&x, gradient, dz_error.as_deref(), maps, scheme, statistics, affine);
            if let Some(d_sum) = &self.d_sum {
                // Where the sum's gradient takes a pass of its own, dx is stored in between.
                let between = if self.residual.is_some() && activated {
                    self.variant.dtype.unit_roundoff()
                } else {
                    0.0
                };
                for ((dx, bound), &d_sum) in gradients.dx.iter_mut().zip(&mut allowed.dx).zip(d_sum) {
                    let d_sum = f64::from(d_sum);
                    *bound += between * dx.abs();
                    *dx += d_sum;
                    *bound += bounds::U * (dx.abs() + d_sum.abs());
                }
            }
            Backward { gradients, bounds: allowed, dz, dz_error }
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::bench::norm::NormName;

    fn narrow(values: &[f64]) -> Vec<f32> {
        values.iter().map(|&value| value as f32).collect()
    }

    /// Every norm of the family, plain and with everything that can be fused.
    fn cases() -> impl Iterator<Item = (Norm, Variant)> {
        let fused = Variant {
            dtype: DType::Bf16,
            activation: Activation::Relu,
            residual: true,
            sum: true,
            ..Variant::default()
        };
        let family = NormName::value_variants()
            .iter()
            .filter(|&&name| name != NormName::Batch && Norm::plain(name).curve().is_none());
        family
            .flat_map(move |&name| [Variant::default(), fused].map(|variant| (Norm::named(name, 3), variant)))
    }

    #[test]
    fn the_reference_passes_and_what_is_off_does_not() {
        for (norm, variant) in cases() {
            let data = Data::new(norm, &[2, 6, 5, 7], variant);
            let stored = |values: &[f64]| rounded(variant.dtype, narrow(values));
            let moved = |mut values: Vec<f32>, by: f32| {
                values[17] += by;
                values
            };
            let forward = |by| {
                let Forward { z, y, .. } = data.forward();
                let y = moved(stored(y.as_deref().unwrap_or(z)), by);
                Results::Forward {
                    y,
                    sum: variant.sum.then(|| data.normalized().into_owned()),
                    saved_inv_std: None,
                }
            };
            let backward = |by| {
                let Backward { gradients, dz, .. } = data.backward();
                Results::Backward {
                    dx: moved(stored(&gradients.dx), by),
                    d_residual: dz.as_ref().map(|dz| stored(dz)),
                    dgamma: data.gamma.as_ref().map(|_| narrow(&gradients.dgamma)),
                    dbeta: data.beta.as_ref().map(|_| narrow(&gradients.dbeta)),
                }
            };
            let off = if variant.dtype == DType::F32 { 1e-3 } else { 2.0 };
            for results in [&forward as &dyn Fn(f32) -> Results, &backward] {
                assert!(data.check(&results(0.0), 1.0).is_ok(), "{norm:?} {variant:?}");
                assert!(data.check(&results(off), 1.0).is_err(), "{norm:?} {variant:?}");
                assert!(data.check(&results(f32::NAN), 1e6).is_err(), "{norm:?} {variant:?}");
            }
        }
    }

    #[test]
    fn a_sum_is_held_to_the_bit() {
        let variant = Variant { sum: true, ..Variant::default() };
        let data = Data::new(Norm::plain(NormName::Rms), &[3, 8], variant);
        let y = narrow(&data.forward().z);
        let mut sum = data.normalized().into_owned();
        let check = |sum: &[f32]| {
            data.check(&Results::Forward { y: y.clone(), sum: Some(sum.to_vec()), saved_inv_std: None }, 1.0)
        };
        assert!(check(&sum).is_ok());
        sum[5] = f32::from_bits(sum[5].to_bits() + 1);
        assert!(check(&sum).is_err());
    }
}
