//! Forward mode and gradients of gradients: against differences of the passes, by hand, and against each other.

use super::*;

const STEP: f64 = 1e-5;

/// How a number changes with each of some others.
fn differences(at: &[f64], mut of: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    let mut moved = at.to_vec();
    let mut to = |i: usize, by: f64| {
        moved[i] = at[i] + by;
        let value = of(&moved);
        moved[i] = at[i];
        value
    };
    (0..at.len()).map(|i| (to(i, STEP) - to(i, -STEP)) / (2.0 * STEP)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn assert_near(what: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1.0_f64, |most, value| most.max(value.abs()));
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= 1e-7 * largest, "{what}: {got} is not {expected}");
    }
}

#[test]
fn every_scheme_over_every_map_against_differences() {
    for (name, maps) in all_maps() {
        let (len, parameters) = (maps.statistic_of.len(), maps.parameters);
        let [x, dz, v] = [1, 2, 3].map(|seed| values(seed, len));
        let [gamma, beta, u, w] = [4, 5, 6, 7].map(|seed| values(seed, parameters));
        let tangents = Tangents { x: &v, gamma: Some(&u), beta: Some(&w) };
        for scheme in all_schemes() {
            // A slice of one value has no distance from its mean, and differences of a root of 0 are none.
            if maps.counts().contains(&1) && scheme.centred && scheme.spread != Spread::Variance {
                continue;
            }
            let what = format!("{name}, {scheme:?}");
            let affine = Affine { gamma: Some(&gamma), beta: Some(&beta) };
            let statistics = statistics(&x, &maps, &scheme);
            let z = |x: &[f64], gamma: &[f64], beta: &[f64]| {
                forward(x, &maps, &scheme, Affine { gamma: Some(gamma), beta: Some(beta) }).0
            };
            // dL of L = Σ dz·z, both ways: by the changes, and by the gradients.
            let changed = tangent(&x, &maps, &scheme, &statistics, affine, tangents);
            let by_x = differences(&x, |x| dot(&dz, &z(x, &gamma, &beta)));
            let by_gamma = differences(&gamma, |gamma| dot(&dz, &z(&x, gamma, &beta)));
            let by_beta = differences(&beta, |beta| dot(&dz, &z(&x, &gamma, beta)));
            let expected = dot(&by_x, &v) + dot(&by_gamma, &u) + dot(&by_beta, &w);
            assert_near(&format!("{what}: tangent"), &[dot(&dz, &changed)], &[expected]);

            let scalar = |x: &[f64], dz: &[f64], gamma: &[f64]| {
                let affine = Affine { gamma: Some(gamma), beta: Some(&beta) };
                let statistics = super::statistics(x, &maps, &scheme);
                let Gradients { dx, dgamma, dbeta } = backward(x, dz, &maps, &scheme, &statistics, affine);
                dot(&dx, &v) + dot(&dgamma, &u) + dot(&dbeta, &w)
            };
            let got = second(&x, &dz, &maps, &scheme, &statistics, affine, tangents);
            assert_near(&format!("{what}: dz"), &got.dz, &differences(&dz, |dz| scalar(&x, dz, &gamma)));
            assert_near(&format!("{what}: x"), &got.x, &differences(&x, |x| scalar(x, &dz, &gamma)));
            assert_near(
                &format!("{what}: gamma"),
                &got.gamma,
                &differences(&gamma, |gamma| scalar(&x, &dz, gamma)),
            );
            assert_eq!(got.dz, changed);
        }
    }
}

#[test]
fn what_is_absent_does_not_change() {
    let maps = Maps::layer(&[3, 5], 1);
    let scheme = Scheme::standard(0.1);
    let [x, dz, v] = [1, 2, 3].map(|seed| values(seed, 15));
    let statistics = statistics(&x, &maps, &scheme);
    let zeros = [0.0; 5];
    let of = |values| Tangents { x: &v, gamma: values, beta: values };
    let [without, with] =
        [None, Some(&zeros[..])].map(|values| second(&x, &dz, &maps, &scheme, &statistics, NONE, of(values)));
    assert_eq!(without, with);
}

#[test]
fn a_direction_of_zeros_has_none() {
    let (maps, scheme) = (Maps::rows(&[2, 2], 1), Scheme::direction(1e-6));
    let x = [0.0, 0.0, 3.0, 4.0];
    let statistics = statistics(&x, &maps, &scheme);
    let tangents = Tangents { x: &[1.0, 2.0, -4.0, 3.0], gamma: None, beta: None };
    let got = second(&x, &[1.0; 4], &maps, &scheme, &statistics, NONE, tangents);
    // Across (3, 4) the direction turns by a fifth; dz along it has no gradient.
    assert_close("dz", &got.dz, &[0.0, 0.0, -0.8, 0.6]);
    assert_eq!(got.x[..2], [0.0, 0.0]);
}
