//! The matrix of what a norm of the family can be asked for: norm, layout, element types, parameters and whose they are, activation, residual,
//! sum, work in place, what is run again, shape, distribution, and variant. Each pair of values of two of them occurs in some case.

use wgnorm::{Activation, Affine, DType, Layout};

use super::Of;
use super::setup::{Again, Setup};
use crate::check::case::Case;
use crate::check::covering::pairwise;
use crate::check::data::{DTYPES, Data, name_of};
use crate::check::variant::{self, Variants};
use crate::layout;

/// Norms, for any shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Norm {
    Layer,
    /// All axes but the first.
    LayerOfSample,
    Rms,
    RmsOfSample,
    Group,
    Instance,
    /// All axes but that of channels.
    MeanVariance,
    L2,
    Scale,
    Weight,
    Standardization,
}

const NORMS: [Norm; 11] = [
    Norm::Layer,
    Norm::LayerOfSample,
    Norm::Rms,
    Norm::RmsOfSample,
    Norm::Group,
    Norm::Instance,
    Norm::MeanVariance,
    Norm::L2,
    Norm::Scale,
    Norm::Weight,
    Norm::Standardization,
];

impl Norm {
    fn of(self, dims: &[usize]) -> Of {
        match self {
            Norm::Layer => Of::Layer(1),
            Norm::LayerOfSample => Of::Layer(dims.len() - 1),
            Norm::Rms => Of::Rms(1),
            Norm::RmsOfSample => Of::Rms(dims.len() - 1),
            // The smallest group of more than one channel.
            Norm::Group => Of::Group((1..dims[1]).rev().find(|g| dims[1].is_multiple_of(*g)).unwrap_or(1)),
            Norm::Instance => Of::Instance,
            Norm::MeanVariance => Of::MeanVariance((0..dims.len()).filter(|&axis| axis != 1).collect()),
            Norm::L2 => Of::L2(vec![1]),
            Norm::Scale => Of::Scale,
            Norm::Weight => Of::Weight,
            Norm::Standardization => Of::Standardization,
        }
    }

    fn allows(self, affine: Affine) -> bool {
        match self {
            Norm::MeanVariance | Norm::L2 => affine == Affine::None,
            Norm::Weight | Norm::Standardization => !affine.has_beta(),
            _ => true,
        }
    }

    /// Whether gamma and beta can be those of each sample.
    fn has_samples(self) -> bool {
        !matches!(self, Norm::MeanVariance | Norm::L2 | Norm::Scale | Norm::Weight | Norm::Standardization)
    }
}

/// Shapes: odd lengths, rank 2, runs shorter than a word, several windows, many channels.
const SHAPES: [&[usize]; 7] =
    [&[3, 4, 7, 5], &[4, 6, 3, 43], &[31, 20], &[7, 1026], &[2, 3, 64], &[1, 6, 130], &[2, 130, 2, 3]];

/// Those that plain cases do not have in every type.
const DATA: [(&str, Data); 7] = [
    ("normal", Data::Normal),
    ("shifted_mean", Data::ShiftedMean),
    ("constant", Data::Constant),
    ("tiny", Data::Tiny),
    ("outlier", Data::Outlier),
    ("overflow_in_one", Data::OverflowInOne),
    ("nan_in_one", Data::NanInOne),
];

/// Every way to differentiate and to be given parameters; that all activations are right is batch norm's matter, whose code this is.
const ACTIVATIONS: [Activation; 6] = [
    Activation::None,
    Activation::Relu,
    Activation::LeakyRelu { slope: 0.01 },
    Activation::Silu,
    Activation::GeluTanh,
    Activation::Sigmoid,
];

const AFFINE: [(&str, Affine); 4] =
    [("both", Affine::Both), ("weight", Affine::Weight), ("bias", Affine::Bias), ("none", Affine::None)];

const AGAIN: [(&str, Again); 3] =
    [("once", Again::Nothing), ("twice", Again::Twice), ("alone", Again::Alone)];

/// The factors, in the order of a row of the covering array.
mod factor {
    pub const NORM: usize = 0;
    pub const LAYOUT: usize = 1;
    pub const DTYPE: usize = 2;
    pub const ACTIVATION: usize = 3;
    pub const RESIDUAL: usize = 4;
    pub const SUM: usize = 5;
    pub const AFFINE: usize = 6;
    pub const PARAMETERS: usize = 7;
    pub const MODULATED: usize = 8;
    pub const UNIT_OFFSET: usize = 9;
    pub const IN_PLACE: usize = 10;
    pub const AGAIN: usize = 11;
    pub const SHAPE: usize = 12;
    pub const DATA: usize = 13;
    pub const VARIANT: usize = 14;
}

fn levels() -> [usize; 15] {
    [
        NORMS.len(),
        layout::ALL.len(),
        DTYPES.len(),
        ACTIVATIONS.len(),
        2,
        2,
        AFFINE.len(),
        2,
        2,
        2,
        2,
        AGAIN.len(),
        SHAPES.len(),
        DATA.len(),
        variant::all().len(),
    ]
}

/// Which values of two factors exclude each other.
fn forbidden(i: usize, a: usize, j: usize, b: usize) -> bool {
    let variant = |index: usize| variant::all()[index].name;
    let last = |index: usize| layout::ALL[index] == Layout::ChannelsLast;
    match (i, j) {
        (_, factor::VARIANT) if variant::PLAIN.contains(&variant(b)) => true,
        // Tensors are contiguous, each in one buffer. Splits are what plain cases have.
        (_, factor::VARIANT) if ["parts", "view", "view of words", "many splits"].contains(&variant(b)) => {
            true
        }
        (factor::NORM, factor::LAYOUT) => last(b) && !NORMS[a].of(&[2, 2, 2]).has_channels(),
        (factor::NORM, factor::AFFINE) => !NORMS[a].allows(AFFINE[b].1),
        (factor::NORM, factor::MODULATED) => b == 1 && !NORMS[a].has_samples(),
        (factor::NORM, factor::PARAMETERS | factor::UNIT_OFFSET) => {
            b == 1 && !NORMS[a].allows(Affine::Weight)
        }
        // One value per slice is refused.
        (factor::NORM, factor::SHAPE) => NORMS[a] == Norm::Instance && SHAPES[b].len() == 2,
        // At rank 2 the layouts are the same.
        (factor::LAYOUT, factor::SHAPE) => last(a) && SHAPES[b].len() == 2,
        // A standard deviation of 1e-7 about 1e-3 is 0 in types of 16 bits.
        (factor::DTYPE, factor::DATA) => DTYPES[a] != DType::F32 && DATA[b].0 == "tiny",
        (factor::PARAMETERS, factor::DATA) => a == 1 && DATA[b].0 == "tiny",
        (factor::DATA, factor::VARIANT) => DATA[a].0 == "tiny" && variant(b) == "integer f16",
        // The type of x is f32 then.
        (factor::DTYPE, factor::PARAMETERS) => DTYPES[a] == DType::F32 && b == 1,
        (factor::DTYPE, factor::VARIANT) => DTYPES[a] != DType::F16 && variant(b) == "integer f16",
        // A sum has a spread of its own.
        (factor::SUM, factor::DATA) => a == 1 && ["constant", "tiny"].contains(&DATA[b].0),
        (factor::AFFINE, factor::PARAMETERS | factor::MODULATED) => AFFINE[a].1 == Affine::None && b == 1,
        (factor::AFFINE, factor::UNIT_OFFSET) => !AFFINE[a].1.has_gamma() && b == 1,
        // One window is what other variants have.
        (factor::SHAPE, factor::VARIANT) => {
            variant(b) == "windows" && 2 * SHAPES[a].iter().product::<usize>() as u64 <= variant::WINDOW
        }
        _ => false,
    }
}

/// What a case is made of; the fields are indices.
struct Choice<'a>(&'a [usize]);

impl Choice<'_> {
    fn case(&self) -> Case {
        let at = |factor: usize| self.0[factor];
        let yes = |factor: usize| at(factor) == 1;
        let dims = SHAPES[at(factor::SHAPE)];
        let of = NORMS[at(factor::NORM)].of(dims);
        let ((what, data), dtype) = (DATA[at(factor::DATA)], DTYPES[at(factor::DTYPE)]);
        let layout = layout::ALL[at(factor::LAYOUT)];
        let activation = ACTIVATIONS[at(factor::ACTIVATION)];
        let ((affine_name, affine), (again_name, again)) =
            (AFFINE[at(factor::AFFINE)], AGAIN[at(factor::AGAIN)]);
        let variant = variant::all()[at(factor::VARIANT)].name;
        let parameters = if yes(factor::PARAMETERS) { dtype } else { DType::F32 };
        let mut parts = vec!["matrix".to_owned(), what.to_owned(), name_of(dims)];
        parts.extend(of.label());
        parts.push(dtype.name().to_owned());
        for (is, part) in [
            (activation != Activation::None, activation.name()),
            (yes(factor::RESIDUAL), "residual"),
            (yes(factor::SUM), "sum"),
            (true, affine_name),
            (parameters != DType::F32, "parameters"),
            (yes(factor::MODULATED), "modulated"),
            (yes(factor::UNIT_OFFSET), "unit_offset"),
            (yes(factor::IN_PLACE), "in_place"),
            (again != Again::Nothing, again_name),
            (layout == Layout::ChannelsLast, "last"),
        ] {
            if is {
                parts.push(part.to_owned());
            }
        }
        parts.push(variant::label(variant));
        let plain = Setup::new(parts.join("."), of, dims, data);
        Setup {
            options: plain
                .options
                .affine(affine)
                .activation(activation)
                .unit_offset(yes(factor::UNIT_OFFSET)),
            dtype,
            parameters,
            residual: yes(factor::RESIDUAL),
            sum: yes(factor::SUM),
            modulated: yes(factor::MODULATED),
            in_place: yes(factor::IN_PLACE),
            again,
            layout: Some(layout),
            variants: Variants::One(variant),
            ..plain
        }
        .case()
    }
}

/// Cases that together have every pair.
pub fn pairs() -> Vec<Case> {
    pairwise(&levels(), forbidden).iter().map(|row| Choice(row).case()).collect()
}

/// Every combination of norm, layout, element type, activation, residual and sum, on one shape.
pub fn full() -> Vec<Case> {
    let levels = levels();
    let policy = variant::all().iter().position(|variant| variant.name == "policy").expect("a variant");
    let mut cases = Vec::new();
    for index in 0..levels[..factor::AFFINE].iter().product() {
        let mut row = vec![0; levels.len()];
        let mut rest = index;
        for factor in 0..factor::AFFINE {
            row[factor] = rest % levels[factor];
            rest /= levels[factor];
        }
        if forbidden(factor::NORM, row[factor::NORM], factor::LAYOUT, row[factor::LAYOUT]) {
            continue;
        }
        // The first parameters that the norm can have.
        let allowed = |&affine: &usize| !forbidden(factor::NORM, row[factor::NORM], factor::AFFINE, affine);
        row[factor::AFFINE] = (0..AFFINE.len()).find(allowed).expect("none is always possible");
        row[factor::VARIANT] = policy;
        cases.push(Choice(&row).case());
    }
    cases
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::check::covering::tests::assert_covers;

    #[test]
    fn every_allowed_pair_has_a_case() {
        let rows = pairwise(&levels(), forbidden);
        assert_covers(&levels(), forbidden, &rows);
        assert!(rows.len() < 160, "{}", rows.len());
    }

    #[test]
    fn names_are_unique_and_tell_a_case() {
        let cases = full();
        // Two norms of eleven have layouts.
        assert_eq!(cases.len(), 13 * 3 * ACTIVATIONS.len() * 4);
        let names: HashSet<_> = cases.iter().map(|case| case.name.clone()).collect();
        assert_eq!(names.len(), cases.len());
    }
}
