//! By hand, by finite differences, and against each other.

use super::*;
use crate::shape::Layout;

const LAYOUTS: [Layout; 2] = [Layout::ChannelsFirst, Layout::ChannelsLast];
const NONE: Affine<'static> = Affine { gamma: None, beta: None };

/// Values without structure.
fn values(seed: u64, len: usize) -> Vec<f64> {
    (0..len as u64).map(|i| (((i + 1) * 7919 + seed * 104_729) % 1009) as f64 / 300.0 - 1.5).collect()
}

/// Values at the places that an element's statistic, or parameter, has.
fn assert_close(what: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() <= 1e-7 * (1.0 + e.abs()), "{what}: {got:?} is not {expected:?}");
    }
}

/// Every way of choosing the two maps, with odd lengths.
fn all_maps() -> Vec<(String, Maps)> {
    let mut all = Vec::new();
    for axes in 1..=3 {
        all.push((format!("layer {axes}"), Maps::layer(&[2, 3, 5], axes)));
        all.push((format!("rows {axes}"), Maps::rows(&[2, 3, 5], axes)));
        all.push((format!("scalar {axes}"), Maps::scalar(&[2, 3, 5], axes)));
    }
    for layout in LAYOUTS {
        let dims: &[usize] = if layout == Layout::ChannelsFirst { &[2, 6, 3] } else { &[2, 3, 6] };
        all.push((format!("instance {layout}"), Maps::instance(dims, layout)));
        for groups in [1, 2, 3, 6] {
            all.push((format!("group {groups} {layout}"), Maps::group(dims, layout, groups)));
        }
    }
    for axes in [&[0, 2][..], &[1], &[2, 0, 1]] {
        all.push((format!("axes {axes:?}"), Maps::axes(&[2, 3, 5], axes)));
    }
    let modulated = |(what, maps): &(String, Maps)| (format!("{what} modulated"), maps.clone().modulated(2));
    all.iter().map(modulated).collect::<Vec<_>>().into_iter().chain(all).collect()
}

/// Every scheme; an eps that matters where gradients stay smooth.
fn all_schemes() -> Vec<Scheme> {
    let mut all = Vec::new();
    for (spread, eps) in
        [(Spread::Variance, 0.1), (Spread::Deviation, 0.3), (Spread::Length, 1e-3), (Spread::Length, 1e3)]
    {
        for centred in [true, false] {
            for unit_offset in [true, false] {
                all.push(Scheme { centred, spread, eps, unit_offset });
            }
        }
    }
    all
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
