//! Lengths that do not fit panic.

use std::panic::{RefUnwindSafe, catch_unwind};

use super::*;

#[test]
fn mismatches_panic() {
    let maps = || Maps::layer(&[2, 3], 1);
    let s = |len: usize| vec![SliceStatistics { count: 3, mean: 0.0, var: 1.0, inv_std: 1.0 }; len];
    let scheme = Scheme::standard(0.1);
    let affine =
        |gamma: &'static [f64], beta: &'static [f64]| Affine { gamma: Some(gamma), beta: Some(beta) };
    let panics = |what: &str, run: &(dyn Fn() + RefUnwindSafe)| {
        assert!(catch_unwind(run).is_err(), "{what} is taken");
    };
    let back = |x: usize, dz: usize, len: usize| {
        backward(&vec![0.0; x], &vec![0.0; dz], &maps(), &scheme, &s(len), NONE);
    };
    let bound = |x: usize, dz: usize, errors: usize, len: usize| {
        let errors = vec![0.0; errors];
        bounds::backward(&vec![0.0; x], &vec![0.0; dz], Some(&errors), &maps(), &scheme, &s(len), NONE);
    };
    let z_bound = |x: usize, residual: usize, len: usize| {
        bounds::z(&vec![0.0; x], &maps(), &scheme, &s(len), NONE, Some(&vec![0.0; residual]));
    };
    let twice = |x: usize, dz: usize, change: usize, parameters: usize, len: usize| {
        let (change, parameters) = (vec![0.0; change], vec![0.0; parameters]);
        let tangents = Tangents { x: &change, gamma: Some(&parameters), beta: Some(&parameters) };
        second(&vec![0.0; x], &vec![0.0; dz], &maps(), &scheme, &s(len), NONE, tangents);
    };
    // What fits does not.
    back(6, 6, 2);
    twice(6, 6, 6, 3, 2);
    bound(6, 6, 6, 2);
    z_bound(6, 6, 2);
    forward(&[0.0; 6], &maps(), &scheme, affine(&[1.0; 3], &[1.0; 3]));
    for wrong in [5, 7] {
        panics("x", &|| drop(statistics(&vec![0.0; wrong], &maps(), &scheme)));
        panics("x", &|| drop(forward(&vec![0.0; wrong], &maps(), &scheme, NONE)));
        panics("x", &|| back(wrong, 6, 2));
        panics("dz", &|| back(6, wrong, 2));
        panics("x twice", &|| twice(wrong, 6, 6, 3, 2));
        panics("dz twice", &|| twice(6, wrong, 6, 3, 2));
        panics("change of x", &|| twice(6, 6, wrong, 3, 2));
        panics("changes of parameters", &|| twice(6, 6, 6, wrong, 2));
        panics("x of bounds", &|| bound(wrong, 6, 6, 2));
        panics("dz of bounds", &|| bound(6, wrong, 6, 2));
        panics("errors of dz", &|| bound(6, 6, wrong, 2));
        panics("x of z's bound", &|| z_bound(wrong, 6, 2));
        panics("residual", &|| z_bound(6, wrong, 2));
    }
    for wrong in [1, 3] {
        panics("statistics", &|| back(6, 6, wrong));
        panics("statistics twice", &|| twice(6, 6, 6, 3, wrong));
        panics("statistics of bounds", &|| bound(6, 6, 6, wrong));
        panics("statistics of z's bound", &|| z_bound(6, 6, wrong));
    }
    for (gamma, beta) in [(&[1.0; 2][..], &[1.0; 3][..]), (&[1.0; 4], &[1.0; 3]), (&[1.0; 3], &[1.0; 4])] {
        panics("parameters", &|| drop(forward(&[0.0; 6], &maps(), &scheme, affine(gamma, beta))));
    }
    let halved = || Maps { parameter_of: vec![0; 3], ..maps() };
    panics("half of a map", &|| drop(forward(&[0.0; 6], &halved(), &scheme, NONE)));
    panics("axes", &|| drop(Maps::layer(&[2, 3], 3)));
    panics("axes", &|| drop(Maps::axes(&[2, 3], &[2])));
    panics("rank", &|| drop(Maps::instance(&[2], Layout::ChannelsLast)));
    panics("groups", &|| drop(Maps::group(&[2, 6], Layout::ChannelsFirst, 4)));
    panics("groups", &|| drop(Maps::group(&[2, 6], Layout::ChannelsFirst, 0)));
    panics("samples", &|| drop(maps().modulated(4)));
    panics("samples", &|| drop(maps().modulated(0)));
    panics("channels", &|| drop(average_over_samples(&s(3), 2)));
    panics("channels", &|| drop(average_over_samples(&s(3), 0)));
}
