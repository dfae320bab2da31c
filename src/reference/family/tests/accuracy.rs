//! Bounds: those of batch norm where it is one of the family; kept by f32, and not by another norm.

use super::*;
use crate::reference::bounds as batch_bounds;
use crate::reference::fold::Statistics;
use crate::reference::reduce;

#[test]
fn bounds_of_batch_norm_are_little_more_than_its_own() {
    let within = |what: &str, got: f64, own: f64| {
        assert!(got >= own * (1.0 - 1e-12) && got <= 1.25 * own, "{what}: {got:e} for {own:e}");
    };
    for (layout, offset) in LAYOUTS.into_iter().flat_map(|layout| [(layout, 0.0), (layout, 1e4)]) {
        let (maps, view) = batch_maps(&[2, 3, 5, 3], layout);
        let (x, dz) = (values(1, 90).iter().map(|x| x + offset).collect::<Vec<_>>(), values(2, 90));
        let (gamma, beta) = (values(3, 3), values(4, 3));
        let residual = values(5, 90);
        let scheme = Scheme::standard(1e-3);
        let affine = Affine { gamma: Some(&gamma), beta: Some(&beta) };
        let s = statistics(&x, &maps, &scheme);
        let own: Vec<_> = s.iter().map(|s| Statistics::new(s.mean, s.var, 1e-3)).collect();
        for (s, own) in s.iter().zip(&own) {
            within("mean", bounds::mean(s, &scheme), batch_bounds::mean(own, 1e-3));
            within("var", bounds::var(s), batch_bounds::var(own));
            within("inv_std", bounds::inv_std(s, &scheme), batch_bounds::inv_std(own));
        }
        let z = bounds::z(&x, &maps, &scheme, &s, affine, None);
        let added = bounds::z(&x, &maps, &scheme, &s, affine, Some(&residual));
        let errors = vec![1e-5; 90];
        let out = bounds::backward(&x, &dz, None, &maps, &scheme, &s, affine);
        let inexact = bounds::backward(&x, &dz, Some(&errors), &maps, &scheme, &s, affine);
        let m = batch_bounds::magnitudes(&x, &dz, view, &own);
        let sums = reduce::gradient_sums(&x, &dz, view, &own);
        let m_inexact: Vec<_> = (0..3)
            .map(|c| {
                let mut m = m[c];
                for i in reduce::channel(view, c as u64) {
                    m.dy_error += 1e-5;
                    m.dy_xhat_error += 1e-5 * own[c].normalize(x[i]).abs();
                }
                m
            })
            .collect();
        for c in 0..3 {
            within("dgamma", out.dgamma[c], batch_bounds::dgamma(&m[c]));
            within("dbeta", out.dbeta[c], batch_bounds::dbeta(&m[c]));
            within("inexact dgamma", inexact.dgamma[c], batch_bounds::dgamma(&m_inexact[c]));
            within("inexact dbeta", inexact.dbeta[c], batch_bounds::dbeta(&m_inexact[c]));
        }
        for i in 0..90 {
            let c = maps.statistic_of[i];
            let (s, g) = (&own[c], gamma[c]);
            within("z", z[i], batch_bounds::y(s, x[i], g, beta[c]));
            within("z + residual", added[i], batch_bounds::z(s, x[i], g, beta[c], residual[i]));
            let dx = |m: &_| batch_bounds::dx(s, m, &sums[c], view, x[i], dz[i], g);
            within("dx", out.dx[i], dx(&m[c]));
            let of_dz = batch_bounds::dx_error(s, &sums[c], view, g, 1e-5, 0.0);
            within("inexact dx", inexact.dx[i], dx(&m_inexact[c]) + of_dz);
        }
    }
}

/// Results of both passes, in order.
struct Passes {
    mean: Vec<f64>,
    var: Vec<f64>,
    inv_std: Vec<f64>,
    z: Vec<f64>,
    gradients: Gradients,
}

impl Passes {
    fn named(&self) -> [(&'static str, &[f64]); 7] {
        let Gradients { dx, dgamma, dbeta } = &self.gradients;
        [
            ("mean", &self.mean),
            ("var", &self.var),
            ("inv_std", &self.inv_std),
            ("z", &self.z),
            ("dx", dx),
            ("dgamma", dgamma),
            ("dbeta", dbeta),
        ]
    }

    /// Outputs of which some value is not within its bound.
    fn beyond(&self, expected: &Self, bound: &Self) -> Vec<&'static str> {
        let all = self.named().into_iter().zip(expected.named()).zip(bound.named());
        all.filter(|(((_, got), (_, expected)), (_, bound))| {
            assert!(got.len() == expected.len() && got.len() == bound.len());
            !(0..got.len()).all(|i| (got[i] - expected[i]).abs() <= bound[i])
        })
        .map(|(((name, _), _), _)| name)
        .collect()
    }
}

/// A problem in values that f32 has.
struct Problem {
    x: Vec<f64>,
    dz: Vec<f64>,
    gamma: Vec<f64>,
    beta: Vec<f64>,
}

impl Problem {
    fn new(maps: &Maps, offset: f64) -> Self {
        let round = |values: Vec<f64>| values.into_iter().map(|v| f64::from(v as f32)).collect();
        Self {
            x: round(values(1, maps.len()).iter().map(|x| x + offset).collect()),
            dz: round(values(2, maps.len())),
            gamma: round(values(3, maps.parameters)),
            beta: round(values(4, maps.parameters)),
        }
    }

    fn affine(&self) -> Affine<'_> {
        Affine { gamma: Some(&self.gamma), beta: Some(&self.beta) }
    }

    fn expected(&self, maps: &Maps, scheme: &Scheme) -> Passes {
        let (z, s) = forward(&self.x, maps, scheme, self.affine());
        Passes {
            mean: s.iter().map(|s| s.mean).collect(),
            var: s.iter().map(|s| s.var).collect(),
            inv_std: s.iter().map(|s| s.inv_std).collect(),
            z,
            gradients: backward(&self.x, &self.dz, maps, scheme, &s, self.affine()),
        }
    }

    fn bounds(&self, maps: &Maps, scheme: &Scheme) -> Passes {
        let s = statistics(&self.x, maps, scheme);
        Passes {
            mean: s.iter().map(|s| bounds::mean(s, scheme)).collect(),
            var: s.iter().map(bounds::var).collect(),
            inv_std: s.iter().map(|s| bounds::inv_std(s, scheme)).collect(),
            z: bounds::z(&self.x, maps, scheme, &s, self.affine(), None),
            gradients: bounds::backward(&self.x, &self.dz, None, maps, scheme, &s, self.affine()),
        }
    }

    /// Both passes in f32, as kernels take them, one value after the other.
    fn in_f32(&self, maps: &Maps, scheme: &Scheme) -> Passes {
        let f32s = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
        let (x, dz, gamma, beta) = (f32s(&self.x), f32s(&self.dz), f32s(&self.gamma), f32s(&self.beta));
        let summed = |bins: usize, of: &[usize], value: &dyn Fn(usize) -> f32| {
            let mut sums = vec![0f32; bins];
            (0..of.len()).for_each(|i| sums[of[i]] += value(i));
            sums
        };
        let slices = |value: &dyn Fn(usize) -> f32| summed(maps.statistics, &maps.statistic_of, value);
        let parameters = |value: &dyn Fn(usize) -> f32| summed(maps.parameters, &maps.parameter_of, value);
        let n = slices(&|_| 1.0);
        let eps = scheme.eps as f32;

        // The mean in two parts: some value, and the mean distance from it.
        let mut shift = vec![0f32; maps.statistics];
        if scheme.centred {
            (0..x.len()).for_each(|i| shift[maps.statistic_of[i]] = x[i]);
        }
        let of = &maps.statistic_of;
        let delta: Vec<f32> = match scheme.centred {
            true => slices(&|i| x[i] - shift[of[i]]).iter().zip(&n).map(|(sum, n)| sum / n).collect(),
            false => vec![0.0; maps.statistics],
        };
        let distance = |i: usize| (x[i] - shift[of[i]]) - delta[of[i]];
        let squares = slices(&|i| distance(i) * distance(i));
        let var: Vec<f32> = squares.iter().zip(&n).map(|(sum, n)| sum / n).collect();
        let inv_std: Vec<f32> = (0..maps.statistics)
            .map(|s| match scheme.spread {
                Spread::Variance | Spread::Constant => 1.0 / (var[s] + eps).sqrt(),
                Spread::Deviation => 1.0 / (var[s].sqrt() + eps),
                Spread::Length | Spread::Direction => 1.0 / squares[s].sqrt().max(eps),
            })
            .collect();
        let xhat = |i: usize| distance(i) * inv_std[of[i]];
        let weight = |i: usize| match scheme.unit_offset {
            true => 1.0 + gamma[maps.parameter_of[i]],
            false => gamma[maps.parameter_of[i]],
        };
        let s1 = slices(&|i| weight(i) * dz[i]);
        let s2 = slices(&|i| weight(i) * dz[i] * xhat(i));
        let pull = |s: usize| match scheme.spread {
            Spread::Variance => 1.0 / n[s],
            Spread::Constant => 0.0,
            Spread::Deviation => (var[s].sqrt() + eps) / (var[s].sqrt() * n[s]),
            Spread::Length | Spread::Direction => f32::from(squares[s].sqrt() >= eps),
        };
        let dx = |i: usize| {
            let of_mean = if scheme.centred { s1[of[i]] / n[of[i]] } else { 0.0 };
            inv_std[of[i]] * (weight(i) * dz[i] - of_mean - xhat(i) * pull(of[i]) * s2[of[i]])
        };
        let f64s = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let elements = |value: &dyn Fn(usize) -> f32| (0..x.len()).map(|i| f64::from(value(i))).collect();
        Passes {
            mean: (0..maps.statistics).map(|s| f64::from(shift[s] + delta[s])).collect(),
            var: f64s(&var),
            inv_std: f64s(&inv_std),
            z: elements(&|i| xhat(i) * weight(i) + beta[maps.parameter_of[i]]),
            gradients: Gradients {
                dx: elements(&dx),
                dgamma: f64s(&parameters(&|i| dz[i] * xhat(i))),
                dbeta: f64s(&parameters(&|i| dz[i])),
            },
        }
    }
}

#[test]
fn f32_is_within_bounds_and_other_norms_are_not() {
    for (what, maps) in all_maps() {
        for scheme in all_schemes() {
            let scheme = Scheme { eps: f64::from(scheme.eps as f32), ..scheme };
            for offset in [0.0, 1e4] {
                let problem = Problem::new(&maps, offset);
                let (expected, bound) = (problem.expected(&maps, &scheme), problem.bounds(&maps, &scheme));
                let what = format!("{what} {scheme:?} {offset}");
                let beyond = problem.in_f32(&maps, &scheme).beyond(&expected, &bound);
                assert!(beyond.is_empty(), "{what}: {beyond:?}");
            }
            // What a confused kernel computes is seen in both passes.
            let problem = Problem::new(&maps, 0.25);
            let (expected, bound) = (problem.expected(&maps, &scheme), problem.bounds(&maps, &scheme));
            let seen = |confused: &Scheme, outputs: &[&str]| {
                let beyond = problem.in_f32(&maps, confused).beyond(&expected, &bound);
                let all = outputs.iter().all(|output| beyond.contains(output));
                assert!(all, "{what} {scheme:?} by {confused:?}: only {beyond:?}");
            };
            seen(&Scheme { centred: !scheme.centred, ..scheme }, &["mean", "var", "z", "dx"]);
            seen(&Scheme { unit_offset: !scheme.unit_offset, ..scheme }, &["z", "dx"]);
            for spread in [Spread::Variance, Spread::Deviation, Spread::Length] {
                if spread != scheme.spread {
                    seen(&Scheme { spread, ..scheme }, &["inv_std", "z", "dx"]);
                }
            }
        }
    }
}

#[test]
fn a_length_at_eps_may_be_clamped_or_not() {
    // Of length 5; g·dz·x̂ sums to 2.2.
    let (maps, x, dz) = (Maps::layer(&[2], 1), [3.0, 4.0], [1.0, 2.0]);
    let of = |eps: f64| {
        let scheme = Scheme::length(eps);
        let s = statistics(&x, &maps, &scheme);
        let dx = backward(&x, &dz, &maps, &scheme, &s, NONE).dx;
        (dx, bounds::backward(&x, &dz, None, &maps, &scheme, &s, NONE).dx)
    };
    let (below, at, above, far) = (of(5.0 - 1e-7), of(5.0), of(5.0 + 1e-7), of(5.1));
    assert!((at.0[0] - above.0[0]).abs() > 0.2);
    for (dx, bound) in [below, at.clone(), above] {
        for (other, i) in [(at.0[0], 0), (0.2, 0), (at.0[1], 1), (0.4, 1)] {
            assert!((dx[i] - other).abs() <= bound[i], "{dx:?} {other} {bound:?}");
        }
    }
    assert!(far.1.iter().all(|&bound| bound < 1e-4), "{far:?}");
}
