//! Both passes: by hand, by finite differences, against batch norm, and at the edges.

use super::*;
use crate::base::variance::RunningVariance;
use crate::norm::Momentum;
use crate::reference::fold::Running;
use crate::reference::{self, Moments};

#[test]
fn spreads_by_hand() {
    // 1 and 7: mean 4, variance 9, mean square 25, lengths sqrt(18) and sqrt(50).
    let maps = Maps::layer(&[2], 1);
    let of = |scheme: Scheme| {
        let (z, s) = forward(&[1.0, 7.0], &maps, &scheme, NONE);
        (s[0].mean, s[0].var, 1.0 / s[0].inv_std, z)
    };
    let expect = |scheme: Scheme, mean: f64, var: f64, divisor: f64| {
        let (got_mean, got_var, got_divisor, z) = of(scheme);
        let got = [got_mean, got_var, got_divisor, z[0], z[1]];
        let expected = [mean, var, divisor, (1.0 - mean) / divisor, (7.0 - mean) / divisor];
        let close = got.iter().zip(&expected).all(|(g, e)| (g - e).abs() <= 1e-14 * e.abs());
        assert!(close, "{scheme:?}: {got:?} is not {expected:?}");
    };
    expect(Scheme::standard(16.0), 4.0, 9.0, 5.0);
    expect(Scheme::rms(11.0), 0.0, 25.0, 6.0);
    expect(Scheme::deviation(2.0), 4.0, 9.0, 5.0);
    expect(Scheme { centred: false, ..Scheme::deviation(2.0) }, 0.0, 25.0, 7.0);
    expect(Scheme::length(2.0), 0.0, 25.0, 50f64.sqrt());
    expect(Scheme::length(8.0), 0.0, 25.0, 8.0);
    expect(Scheme { centred: true, ..Scheme::length(2.0) }, 4.0, 9.0, 18f64.sqrt());

    assert_eq!(Scheme::rms(11.0).pull(2, 25.0), 0.5);
    assert_eq!(Scheme::deviation(2.0).pull(2, 16.0), 0.75);
    assert_eq!(Scheme::deviation(2.0).pull(2, 0.0), 0.0);
    assert_eq!(Scheme::length(2.0).pull(2, 25.0), 1.0);
    assert_eq!(Scheme::length(8.0).pull(2, 25.0), 0.0);
    // A length of eps itself is not clamped: (3, 4).
    assert_eq!(Scheme::length(5.0).pull(2, 12.5), 1.0);
}

#[test]
fn parameters_by_hand() {
    // Lengths 5 and 10 of two rows.
    let x = [3.0, 4.0, 6.0, -8.0];
    let (gamma, beta) = (&[10.0, 20.0][..], &[0.5, -0.5][..]);
    let z = |maps: &Maps, scheme: Scheme| {
        let (used, parameters) = (maps.parameters, Affine { gamma: Some(gamma), beta: Some(beta) });
        let affine = if used == 2 { parameters } else { Affine { gamma: Some(&gamma[..1]), beta: None } };
        forward(&x, maps, &scheme, affine).0
    };
    assert_close("layer", &z(&Maps::layer(&[2, 2], 1), Scheme::length(0.0)), &[6.5, 15.5, 6.5, -16.5]);
    assert_close("weight norm", &z(&Maps::rows(&[2, 2], 1), Scheme::length(0.0)), &[6.5, 8.5, 11.5, -16.5]);
    assert_close("ScaleNorm", &z(&Maps::scalar(&[2, 2], 1), Scheme::length(0.0)), &[6.0, 8.0, 6.0, -8.0]);
    let offset = Scheme::length(0.0).with_unit_offset();
    assert_close("1 + gamma", &z(&Maps::scalar(&[2, 2], 1), offset), &[6.6, 8.8, 6.6, -8.8]);
    // An offset that is absent: the weight is 1, not 0.
    assert_eq!(NONE.weight(&offset, 0), 1.0);
}

#[test]
fn backward_by_hand() {
    // x̂ = (0.6, 0.8), g·dz = (2, 6): s2 = 6; dx = ((2, 6) − 6·x̂) / 5.
    let maps = Maps::layer(&[2], 1);
    let affine = Affine { gamma: Some(&[2.0, 3.0]), beta: None };
    let of = |scheme: Scheme| {
        let s = statistics(&[3.0, 4.0], &maps, &scheme);
        backward(&[3.0, 4.0], &[1.0, 2.0], &maps, &scheme, &s, affine)
    };
    let out = of(Scheme::length(0.0));
    assert_close("dx", &out.dx, &[-0.32, 0.24]);
    assert_close("dgamma", &out.dgamma, &[0.6, 1.6]);
    assert_close("dbeta", &out.dbeta, &[1.0, 2.0]);
    // Clamped, dx is g·dz / eps.
    assert_close("clamped", &of(Scheme::length(10.0)).dx, &[0.2, 0.6]);
    // With 1 + gamma, g·dz = (3, 8): s2 = 8.2.
    assert_close("offset", &of(Scheme::length(0.0).with_unit_offset()).dx, &[-0.384, 0.288]);
    // mean 3.5, σ 0.5; eps 0.5: x̂ = (−0.5, 0.5), s1 = 8, s2 = 2, pull = 1: (2, 6) − 4 ± 0.5·2.
    assert_close("deviation", &of(Scheme::deviation(0.5)).dx, &[-1.0, 1.0]);
}

/// dL/dv by central differences, for L = Σ dz·z.
fn numeric(v: &[f64], dz: &[f64], z_of: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let h = 1e-5;
    let loss = |v: &[f64]| z_of(v).iter().zip(dz).map(|(z, dz)| z * dz).sum::<f64>();
    (0..v.len())
        .map(|i| {
            let mut moved = v.to_vec();
            moved[i] = v[i] + h;
            let above = loss(&moved);
            moved[i] = v[i] - h;
            (above - loss(&moved)) / (2.0 * h)
        })
        .collect()
}

#[test]
fn gradients_are_finite_differences() {
    for (what, maps) in all_maps() {
        let (x, dz) = (values(1, maps.len()), values(2, maps.len()));
        let (gamma, beta) = (values(3, maps.parameters), values(4, maps.parameters));
        for scheme in all_schemes() {
            let what = format!("{what} {scheme:?}");
            let z = |x: &[f64], g: &[f64], b: &[f64]| {
                forward(x, &maps, &scheme, Affine { gamma: Some(g), beta: Some(b) }).0
            };
            let s = statistics(&x, &maps, &scheme);
            let affine = Affine { gamma: Some(&gamma), beta: Some(&beta) };
            let out = backward(&x, &dz, &maps, &scheme, &s, affine);
            assert_close(&what, &out.dx, &numeric(&x, &dz, |x| z(x, &gamma, &beta)));
            assert_close(&what, &out.dgamma, &numeric(&gamma, &dz, |g| z(&x, g, &beta)));
            assert_close(&what, &out.dbeta, &numeric(&beta, &dz, |b| z(&x, &gamma, b)));
            // Without parameters; an offset from 1 that is absent is none.
            let out = backward(&x, &dz, &maps, &scheme, &s, NONE);
            assert_close(&what, &out.dx, &numeric(&x, &dz, |x| forward(x, &maps, &scheme, NONE).0));
        }
    }
}

#[test]
fn batch_norm_is_one_of_the_family() {
    for layout in LAYOUTS {
        let (maps, view) = batch_maps(&[2, 3, 5, 3], layout);
        let (x, dz) = (values(1, 90), values(2, 90));
        let (gamma, beta) = (values(3, 3), values(4, 3));
        let scheme = Scheme::standard(1e-3);
        let affine = Affine { gamma: Some(&gamma), beta: Some(&beta) };
        let (z, s) = forward(&x, &maps, &scheme, affine);
        let batch = reference::batch::train_forward(&x, view, Some(&gamma), Some(&beta), 1e-3);
        assert_close("z", &z, &batch.y);
        let out = backward(&x, &dz, &maps, &scheme, &s, affine);
        let expected = reference::batch::backward(&x, &dz, view, &batch.statistics, Some(&gamma));
        assert_close("dx", &out.dx, &expected.dx);
        assert_close("dgamma", &out.dgamma, &expected.dgamma);
        assert_close("dbeta", &out.dbeta, &expected.dbeta);
        assert!(s.iter().all(|s| s.count == 30));
    }
}

#[test]
fn layouts_are_permutations() {
    // [2, 6, 3] and the same values as [2, 3, 6].
    let first = values(1, 36);
    let place = |i: usize| (i / 18, i / 3 % 6, i % 3);
    let to_last = |i: usize| {
        let (n, c, at) = place(i);
        n * 18 + at * 6 + c
    };
    let mut last = vec![0.0; 36];
    (0..36).for_each(|i| last[to_last(i)] = first[i]);
    let gamma = values(2, 6);
    let affine = Affine { gamma: Some(&gamma), beta: None };
    for groups in [1, 2, 3, 6] {
        let of = |x: &[f64], dims: &[usize], layout| {
            forward(x, &Maps::group(dims, layout, groups), &Scheme::standard(0.1), affine).0
        };
        let z_first = of(&first, &[2, 6, 3], Layout::ChannelsFirst);
        let z_last = of(&last, &[2, 3, 6], Layout::ChannelsLast);
        assert_close("layouts", &(0..36).map(|i| z_last[to_last(i)]).collect::<Vec<_>>(), &z_first);
    }
}

#[test]
fn modulation_by_equal_parameters_is_none() {
    for (what, maps) in all_maps().into_iter().filter(|(what, _)| !what.contains("modulated")) {
        let modulated = maps.clone().modulated(2);
        let (x, dz) = (values(1, maps.len()), values(2, maps.len()));
        let gamma = values(3, maps.parameters);
        let twice = [gamma.clone(), gamma.clone()].concat();
        let scheme = Scheme::standard(0.1);
        let s = statistics(&x, &maps, &scheme);
        let of = |maps: &Maps, gamma: &[f64]| {
            let affine = Affine { gamma: Some(gamma), beta: None };
            (forward(&x, maps, &scheme, affine).0, backward(&x, &dz, maps, &scheme, &s, affine))
        };
        let ((z, out), (z_modulated, out_modulated)) = (of(&maps, &gamma), of(&modulated, &twice));
        assert_eq!(z, z_modulated, "{what}");
        assert_eq!(out.dx, out_modulated.dx, "{what}");
        let (first, second) = out_modulated.dgamma.split_at(maps.parameters);
        let sum: Vec<f64> = first.iter().zip(second).map(|(a, b)| a + b).collect();
        assert_close(&what, &sum, &out.dgamma);
    }
}

#[test]
fn running_statistics_of_instances_are_means_over_samples() {
    // Channel 0: (1, 3) and (5, 9); channel 1: (0, 0) and (2, 2).
    let x = [1.0, 3.0, 0.0, 0.0, 5.0, 9.0, 2.0, 2.0];
    let maps = Maps::instance(&[2, 2, 2], Layout::ChannelsFirst);
    let s = statistics(&x, &maps, &Scheme::standard(1e-5));
    let moments = average_over_samples(&s, 2);
    assert_eq!(moments[0], Moments { count: 2, mean: 4.5, var: 2.5 });
    assert_eq!(moments[1], Moments { count: 2, mean: 1.0, var: 0.0 });
    // The unbiased variances are 2 and 8.
    let running = Running { mean: 0.0, var: 1.0, batches: 0 };
    let after = running.update(moments[0], Momentum::WeightOfNew(1.0), RunningVariance::Unbiased);
    assert_eq!((after.mean, after.var), (4.5, 5.0));
    assert_eq!(average_over_samples(&[], 2), [Moments::default(); 2]);
}

#[test]
fn equal_values_have_no_spread_whatever_eps_is() {
    let x = [0.1; 7];
    let maps = Maps::layer(&[7], 1);
    for scheme in [Scheme::standard(1e-300), Scheme::deviation(1e-300)] {
        let beta = values(1, 7);
        let (z, s) = forward(&x, &maps, &scheme, Affine { gamma: None, beta: Some(&beta) });
        assert_eq!((s[0].mean, s[0].var), (0.1, 0.0));
        assert_eq!(z, beta);
    }
    // x̂ is 0, so what is left of dx is (dz − s1/n) / eps.
    let scheme = Scheme::deviation(0.5);
    let dz = values(2, 7);
    let s = statistics(&x, &maps, &scheme);
    let out = backward(&x, &dz, &maps, &scheme, &s, NONE);
    let mean = dz.iter().sum::<f64>() / 7.0;
    assert_close("dx", &out.dx, &dz.iter().map(|dz| (dz - mean) * 2.0).collect::<Vec<_>>());
}

#[test]
fn what_is_not_finite_stays_in_its_slice() {
    let maps = Maps::layer(&[3, 5], 1);
    for scheme in all_schemes() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for at in [5, 7] {
                let (mut x, dz) = (values(1, 15), values(2, 15));
                x[at] = bad;
                let (z, s) = forward(&x, &maps, &scheme, NONE);
                let dx = backward(&x, &dz, &maps, &scheme, &s, NONE).dx;
                for i in 0..15 {
                    let slice = i / 5 == 1;
                    assert_eq!(z[i].is_nan(), slice, "{scheme:?} {bad} z {z:?}");
                    assert_eq!(dx[i].is_nan(), slice, "{scheme:?} {bad} dx {dx:?}");
                }
            }
        }
    }
}

#[test]
fn tensors_without_elements_have_answers() {
    for (maps, statistics, parameters) in [
        (Maps::layer(&[0, 3], 1), 0, 3),
        (Maps::layer(&[2, 0], 1), 2, 0),
        (Maps::rows(&[2, 0], 1), 2, 2),
        (Maps::instance(&[2, 3, 0], Layout::ChannelsFirst), 6, 3),
        (Maps::instance(&[2, 0, 3], Layout::ChannelsLast), 6, 3),
        (Maps::group(&[0, 4, 2], Layout::ChannelsFirst, 2), 0, 4),
        (Maps::axes(&[2, 0, 3], &[1]), 6, 1),
        (Maps::axes(&[2, 0, 3], &[0]), 0, 1),
        (Maps::layer(&[2, 0], 1).modulated(2), 2, 0),
    ] {
        for scheme in all_schemes() {
            let (z, s) = forward(&[], &maps, &scheme, NONE);
            assert_eq!((z.len(), s.len()), (0, statistics));
            assert!(s.iter().all(|s| (s.count, s.mean, s.var) == (0, 0.0, 0.0)));
            let out = backward(&[], &[], &maps, &scheme, &s, NONE);
            assert_eq!(out.dgamma, vec![0.0; parameters]);
            let bound = bounds::backward(&[], &[], None, &maps, &scheme, &s, NONE);
            assert!(bound.dbeta.len() == parameters && bound.dbeta.iter().all(|&b| b > 0.0));
        }
    }
}
