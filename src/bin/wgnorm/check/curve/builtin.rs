//! The built-in cases of both curves: every element type and layout, what is fused, values that are not numbers or far beyond where a curve
//! is flat, where tensors may lie, and nothing.

use wgnorm::{Activation, Affine, Curve, DType};

use super::super::case::Case;
use super::super::data::{Data, name_of};
use super::super::variant::Variants;
use super::setup::Setup;

pub fn cases() -> Vec<Case> {
    Curve::ALL.into_iter().flat_map(of_curve).map(Setup::case).collect()
}

/// Few variants each, which together are most that there are: compiling takes nearly all of the time.
fn of_curve(curve: Curve) -> Vec<Setup> {
    let setup = |what: &str, dims: &[usize], data, variants| {
        let plain = Setup::new(format!("{what}.{}", name_of(dims)), curve, dims, data);
        Setup { variants, ..plain }
    };
    let normal =
        |what: &str, dims: &[usize], variant| setup(what, dims, Data::Normal, Variants::One(variant));
    vec![
        setup("normal", &[3, 5, 7, 3], Data::Normal, Variants::Sums),
        normal("normal", &[41, 5], "repeat"),
        normal("windows", &[7, 65, 3], "windows"),
        normal("view", &[3, 5, 7, 3], "view"),
        Setup {
            dtype: DType::F16,
            residual: true,
            activation: Activation::Gelu,
            ..normal("float16.gelu.residual", &[2, 33, 3], "repeat")
        },
        Setup { dtype: DType::F16, parameters: DType::F16, ..normal("float16.parts", &[4, 5, 6], "parts") },
        Setup {
            dtype: DType::Bf16,
            parameters: DType::Bf16,
            residual: true,
            activation: Activation::Silu,
            ..normal("bfloat16.silu.residual", &[3, 5, 7, 3], "shifted")
        },
        Setup {
            residual: true,
            activation: Activation::Relu,
            in_place: true,
            ..normal("relu.residual.in_place", &[3, 5, 7, 3], "one buffer")
        },
        Setup { affine: Affine::None, ..normal("affine_none", &[9, 8], "repeat") },
        setup("nan_in_one", &[3, 5, 7, 3], Data::NanInOne, Variants::One("teams")),
        setup("inf_in_one", &[3, 5, 7, 3], Data::InfInOne, Variants::One("many splits")),
        setup("huge_spread", &[3, 5, 7, 3], Data::HugeSpread, Variants::One("scalar")),
        setup("subnormal", &[3, 5, 7, 3], Data::Subnormal, Variants::One("repeat")),
        Setup {
            dtype: DType::F16,
            ..setup("float16.overflow_in_one", &[2, 33, 3], Data::OverflowInOne, Variants::One("repeat"))
        },
        normal("empty", &[0, 5], "repeat"),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: Vec<_> = cases().into_iter().map(|case| case.name).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    }
}
