//! Which parameters there are, how they are stored, and whose they are.

use wgnorm::{Activation, Affine, DType, Layout};

use super::setup::{Of, Setup, check};
use crate::support::context;

fn affine_setups() -> Vec<Setup> {
    vec![
        Setup::new(Of::Layer(1), &[6, 3, 40]),
        Setup::new(Of::Rms(2), &[4, 3, 7]),
        Setup::new(Of::Group(2), &[3, 6, 10]),
        Setup { layout: Layout::ChannelsLast, ..Setup::new(Of::Group(2), &[3, 10, 6]) },
        Setup::new(Of::Instance, &[3, 4, 12]),
        Setup { layout: Layout::ChannelsLast, ..Setup::new(Of::Instance, &[3, 12, 4]) },
    ]
}

#[test]
fn any_of_the_parameters_may_be_absent() {
    for setup in affine_setups() {
        for affine in [Affine::Both, Affine::Weight, Affine::Bias, Affine::None] {
            check(&context(), "affine", &Setup { affine, ..setup.clone() });
            let activation = Activation::Silu;
            check(&context(), "affine, activated", &Setup { affine, activation, ..setup.clone() });
        }
    }
}

#[test]
fn gamma_as_its_distance_from_one() {
    for setup in affine_setups() {
        check(
            &context(),
            "unit offset",
            &Setup { unit_offset: true, affine: Affine::Weight, ..setup.clone() },
        );
        check(&context(), "unit offset, none", &Setup { unit_offset: true, affine: Affine::None, ..setup });
    }
}

#[test]
fn parameters_of_each_sample() {
    for setup in affine_setups() {
        for affine in [Affine::Both, Affine::Weight, Affine::Bias] {
            let modulated = Setup { modulated: true, affine, ..setup.clone() };
            check(&context(), "modulated", &modulated);
            let dtype = DType::Bf16;
            check(
                &context(),
                "modulated",
                &Setup { dtype, activation: Activation::Gelu, unit_offset: true, ..modulated },
            );
        }
    }
}

#[test]
fn gradients_are_added_to_what_is_there() {
    for setup in affine_setups() {
        check(&context(), "added", &Setup { accumulate: true, ..setup.clone() });
        check(&context(), "added", &Setup { accumulate: true, modulated: true, ..setup });
    }
}
