//! The sum before the norm, written out, and its gradient.

use wgnorm::{Activation, DType, Layout};

use super::setup::{Of, Setup, check};
use crate::support::context;

fn sum_setups() -> Vec<Setup> {
    let sum = |of, dims: &[usize]| Setup { sum: true, ..Setup::new(of, dims) };
    vec![
        sum(Of::Layer(1), &[6, 64]),
        sum(Of::Layer(1), &[7, 37]),
        sum(Of::Rms(1), &[5, 3, 128]),
        sum(Of::Rms(1), &[3, 1030]),
        sum(Of::Group(2), &[2, 4, 15]),
        Setup { layout: Layout::ChannelsLast, ..sum(Of::Group(2), &[2, 15, 4]) },
        sum(Of::Instance, &[2, 4, 16]),
    ]
}

#[test]
fn of_x_and_an_addend() {
    for setup in sum_setups() {
        check(&context(), "sum", &setup);
        check(&context(), "sum", &Setup { dtype: DType::F16, offset: 1, ..setup.clone() });
        check(&context(), "sum", &Setup { dtype: DType::Bf16, activation: Activation::Silu, ..setup });
    }
}

#[test]
fn over_the_addend_and_dx_over_dy() {
    for setup in sum_setups() {
        for dtype in [DType::F32, DType::Bf16] {
            for offset in [0, 2] {
                check(&context(), "in place", &Setup { in_place: true, dtype, offset, ..setup.clone() });
            }
        }
    }
}

#[test]
fn with_a_residual_after_the_norm() {
    for setup in sum_setups() {
        let activation = Activation::Relu;
        check(&context(), "both", &Setup { residual: true, activation, ..setup.clone() });
        check(&context(), "both", &Setup { residual: true, activation, dtype: DType::F16, ..setup });
    }
}
