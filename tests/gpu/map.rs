//! The maps, forward and backward, against the reference: every shape class, every plan, every set of parameters.

use wgnorm::{BatchNormOptions, Context};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();
const EPS: f64 = 1e-5;

/// Matrices, which are walked by columns.
const MATRICES: &[&[usize]] = &[&[6, 3], &[31, 19], &[257, 5], &[64, 8]];

/// Ranks 3 to 5; N > 1, odd C, H ≠ W; inner sizes in and out of fours; around multiples of the workgroup.
const SHAPES: &[&[usize]] = &[
    &[2, 5, 9],
    &[2, 3, 64],
    &[2, 3, 65],
    &[3, 2, 63],
    &[2, 1, 256],
    &[3, 4, 7, 5],
    &[2, 7, 4, 6],
    &[3, 130, 3, 3],
    &[2, 5, 16, 12],
    &[1, 3, 40, 40],
    &[1, 3, 4100],
    &[2, 2, 3, 5, 4],
    &[5, 3, 2, 1, 2],
    &[2, 1, 1, 1],
    &[4, 2, 31, 33],
];

/// Every shape in every plan of its walk.
fn all() -> impl Iterator<Item = (&'static str, Context, u64, &'static [usize])> {
    let cross = |contexts: Vec<(&'static str, Context)>, shapes: &'static [&'static [usize]]| {
        contexts.into_iter().flat_map(move |(name, context)| {
            shapes.iter().zip(0..).map(move |(&dims, seed)| (name, context.clone(), seed, dims))
        })
    };
    cross(contexts(), SHAPES).chain(cross(column_contexts(), MATRICES))
}

#[test]
fn training_agrees_with_the_reference() {
    for (name, context, seed, dims) in all() {
        let inputs = Inputs::new(seed * 10, dims);
        let got = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS));
        assert_train(&format!("{dims:?} {name}"), &inputs, EPS, &got);
    }
}

#[test]
fn frozen_agrees_with_the_reference() {
    for (name, context, seed, dims) in all() {
        let inputs = Inputs::new(1000 + seed * 10, dims);
        let got = frozen(&context, &inputs, OPTIONS);
        assert_frozen(&format!("{dims:?} {name}"), &inputs, EPS, &got);
    }
}

#[test]
fn every_set_of_affine_parameters_and_any_eps() {
    let context = context();
    for (gamma, beta) in [(true, true), (true, false), (false, true), (false, false)] {
        for eps in [1e-30, 1e-5, 0.3, 1e4] {
            let mut inputs = Inputs::new(7, &[3, 4, 7, 5]);
            inputs.gamma = inputs.gamma.filter(|_| gamma);
            inputs.beta = inputs.beta.filter(|_| beta);
            let what = format!("gamma {gamma} beta {beta} eps {eps}");
            let mut layer = inputs.layer(&context, OPTIONS.eps(eps));
            let got = train(&context, &inputs, &mut layer);
            assert_eq!((got.dgamma.is_some(), got.dbeta.is_some()), (gamma, beta));
            assert_train(&what, &inputs, eps, &got);
            assert_frozen(&what, &inputs, eps, &frozen(&context, &inputs, OPTIONS.eps(eps)));
        }
    }
}
