//! Every norm over shapes of every kind, in both layouts and all types.

use wgnorm::{Activation, DType, Layout};

use super::setup::{Of, Setup, check};
use crate::support::context;

/// Norms and shapes: ranks 2 to 5, odd lengths, one row, many rows, one channel, rows of one word and of several.
pub fn setups() -> Vec<Setup> {
    let mut setups = vec![
        Setup::new(Of::Layer(1), &[5, 37]),
        Setup::new(Of::Layer(2), &[3, 2, 11]),
        Setup::new(Of::Layer(1), &[2, 3, 64]),
        Setup::new(Of::Layer(3), &[2, 3, 4, 5]),
        Setup::new(Of::Layer(1), &[1, 1025]),
        Setup::new(Of::Layer(1), &[700, 32]),
        Setup::new(Of::Rms(1), &[5, 37]),
        Setup::new(Of::Rms(1), &[9, 256]),
        Setup::new(Of::Weight, &[6, 3, 3, 3]),
        Setup::new(Of::Standardization, &[6, 4, 3, 3]),
        Setup::new(Of::Scale, &[33, 20]),
        Setup::new(Of::MeanVariance(vec![0, 2, 3]), &[2, 3, 4, 5]),
        Setup::new(Of::MeanVariance(vec![0]), &[7, 12]),
        Setup::new(Of::L2(vec![1]), &[2, 5, 4, 3]),
        Setup::new(Of::L2(vec![1]), &[7, 12]),
        Setup::new(Of::L2(vec![0, 1]), &[7, 12]),
    ];
    for (of, first, last) in [
        (Of::Group(2), [2, 8, 5, 3], [2, 5, 3, 8]),
        (Of::Group(3), [3, 9, 2, 4], [3, 2, 4, 9]),
        (Of::Group(1), [2, 4, 2, 2], [2, 2, 2, 4]),
        (Of::Instance, [2, 3, 7, 5], [2, 7, 5, 3]),
        (Of::Instance, [3, 4, 4, 4], [3, 4, 4, 4]),
    ] {
        setups.push(Setup::new(of.clone(), &first));
        setups.push(Setup { layout: Layout::ChannelsLast, ..Setup::new(of, &last) });
    }
    setups.push(Setup::new(Of::Group(4), &[3, 8]));
    setups.push(Setup::new(Of::Instance, &[2, 3, 2, 3, 4]));
    setups
}

#[test]
fn every_norm_in_every_shape() {
    for setup in setups() {
        check(&context(), "plain", &setup);
    }
}

#[test]
fn tensors_begin_anywhere_in_a_word() {
    for (i, setup) in setups().into_iter().enumerate() {
        check(&context(), "moved", &Setup { offset: 1 + i % 3, ..setup });
    }
}

#[test]
fn types_of_two_bytes() {
    for (i, setup) in setups().into_iter().enumerate() {
        let dtype = if i % 2 == 0 { DType::F16 } else { DType::Bf16 };
        let parameters = if i % 3 == 0 { dtype } else { DType::F32 };
        check(&context(), "half", &Setup { dtype, parameters, offset: i % 2, ..setup });
    }
}

#[test]
fn activation_and_residual() {
    let activations = [Activation::Relu, Activation::Silu, Activation::GeluTanh];
    for (i, setup) in setups().into_iter().enumerate() {
        let activation = activations[i % 3];
        check(&context(), "fused", &Setup { activation, residual: i % 2 == 0, ..setup });
    }
}

#[test]
fn the_error_does_not_grow_with_the_mean() {
    for of in [Of::Layer(1), Of::Group(2), Of::Instance] {
        for dims in [&[4, 8, 40][..], &[2, 4, 300]] {
            check(&context(), "far", &Setup { shift: 1e4, ..Setup::new(of.clone(), dims) });
        }
    }
}

#[test]
fn values_that_may_be_flushed_to_zero() {
    let context = context();
    for of in [Of::MeanVariance(vec![0, 2]), Of::L2(vec![1]), Of::Layer(1), Of::Weight] {
        for (shift, scale) in [(1e-33, 1e-39), (0.0, 1e-37), (1e-38, 1e-38)] {
            check(&context, "tiny", &Setup { shift, scale, ..Setup::new(of.clone(), &[4, 8, 40]) });
        }
    }
}

#[test]
fn groups_of_more_channels_than_a_loop_has_iterations() {
    check(&context(), "many channels", &Setup::new(Of::Group(1), &[1, 70_001, 2]));
}
