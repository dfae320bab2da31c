//! Norms of slices: norm, layout, element types, parameters and whose they are, activation, residual, sum, work in place, what is run again,
//! shape, distribution, and variant.

use super::super::Case;
use super::super::slices::label;
use super::{case, policy, row};
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::shape::Layout;
use crate::eval::covering::pairwise;
use crate::eval::data::Data;
use crate::eval::layout;
use crate::eval::variant;
use crate::pass::Affine;
use crate::spec::{Norm, Passes, Spec, Wanted};

/// Norms, for any shape.
const NORMS: [fn(&[usize]) -> Norm; 11] = [
    |_| Norm::Layer(1),
    |shape| Norm::Layer(shape.len() - 1),
    |_| Norm::Rms(1),
    |shape| Norm::Rms(shape.len() - 1),
    // The smallest group of more than one channel.
    |shape| Norm::Group((1..shape[1]).rev().find(|groups| shape[1].is_multiple_of(*groups)).unwrap_or(1)),
    |_| Norm::Instance,
    |shape| Norm::MeanVariance((0..shape.len()).filter(|&axis| axis != 1).collect()),
    |_| Norm::L2(vec![1]),
    |_| Norm::Scale,
    |_| Norm::Weight,
    |_| Norm::WeightStandardization,
];

/// Shapes: odd lengths, rank 2, runs shorter than a word, several windows, many channels.
const SHAPES: [&[usize]; 7] =
    [&[3, 4, 7, 5], &[4, 6, 3, 43], &[31, 20], &[7, 1026], &[2, 3, 64], &[1, 6, 130], &[2, 130, 2, 3]];

/// Those that plain cases do not have in every type.
const DATA: [Data; 7] = [
    Data::Normal,
    Data::ShiftedMean,
    Data::Constant,
    Data::Tiny,
    Data::Outlier,
    Data::OverflowInOne,
    Data::NanInOne,
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

const WANTED: [(&str, Wanted); 3] =
    [("once", Wanted::All), ("twice", Wanted::Added), ("alone", Wanted::Alone)];

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
    pub const WANTED: usize = 11;
    pub const SHAPE: usize = 12;
    pub const DATA: usize = 13;
    pub const VARIANT: usize = 14;
}

fn levels() -> [usize; 15] {
    [
        NORMS.len(),
        layout::ALL.len(),
        DType::ALL.len(),
        ACTIVATIONS.len(),
        2,
        2,
        AFFINE.len(),
        2,
        2,
        2,
        2,
        WANTED.len(),
        SHAPES.len(),
        DATA.len(),
        variant::all().len(),
    ]
}

/// Which values of two factors exclude each other.
fn forbidden(i: usize, a: usize, j: usize, b: usize) -> bool {
    let variant = |index: usize| variant::all()[index].name;
    let last = |index: usize| layout::ALL[index] == Layout::ChannelsLast;
    // Of any shape: what it can have does not depend on it.
    let norm = |index: usize| NORMS[index](&[2, 2, 2]);
    match (i, j) {
        (_, factor::VARIANT) if variant::PLAIN.contains(&variant(b)) => true,
        // Tensors are contiguous, each in one buffer. Splits are what plain cases have.
        (_, factor::VARIANT) if ["parts", "view", "view of words", "many splits"].contains(&variant(b)) => {
            true
        }
        (factor::NORM, factor::VARIANT) if variant(b) == "along rows" => {
            !matches!(norm(a), Norm::Layer(_) | Norm::Rms(_))
        }
        (factor::LAYOUT, factor::VARIANT) if variant(b) == "along rows" => last(a),
        (factor::NORM, factor::LAYOUT) => last(b) && !norm(a).has_channels(),
        (factor::NORM, factor::AFFINE) => !norm(a).allows(AFFINE[b].1),
        (factor::NORM, factor::MODULATED) => b == 1 && !norm(a).can_be_modulated(),
        (factor::NORM, factor::PARAMETERS | factor::UNIT_OFFSET) => b == 1 && !norm(a).allows(Affine::Weight),
        // One value per slice is refused.
        (factor::NORM, factor::SHAPE) => norm(a) == Norm::Instance && SHAPES[b].len() == 2,
        // At rank 2 the layouts are the same.
        (factor::LAYOUT, factor::SHAPE) => last(a) && SHAPES[b].len() == 2,
        // A standard deviation of 1e-7 about 1e-3 is 0 in types of 16 bits.
        (factor::DTYPE, factor::DATA) => DType::ALL[a] != DType::F32 && DATA[b] == Data::Tiny,
        (factor::PARAMETERS, factor::DATA) => a == 1 && DATA[b] == Data::Tiny,
        (factor::DATA, factor::VARIANT) => DATA[a] == Data::Tiny && variant(b) == "integer f16",
        // The type of x is f32 then.
        (factor::DTYPE, factor::PARAMETERS) => DType::ALL[a] == DType::F32 && b == 1,
        (factor::DTYPE, factor::VARIANT) => DType::ALL[a] != DType::F16 && variant(b) == "integer f16",
        // A sum has a spread of its own.
        (factor::SUM, factor::DATA) => a == 1 && [Data::Constant, Data::Tiny].contains(&DATA[b]),
        (factor::AFFINE, factor::PARAMETERS | factor::MODULATED) => AFFINE[a].1 == Affine::None && b == 1,
        (factor::AFFINE, factor::UNIT_OFFSET) => !AFFINE[a].1.has_gamma() && b == 1,
        // One window is what other variants have.
        (factor::SHAPE, factor::VARIANT) => {
            variant(b) == "windows" && 2 * SHAPES[a].iter().product::<usize>() as u64 <= variant::WINDOW
        }
        _ => false,
    }
}

/// The case of a row, whose values are indices.
fn of_row(row: &[usize]) -> Case {
    let yes = |factor: usize| row[factor] == 1;
    let (shape, data, dtype) =
        (SHAPES[row[factor::SHAPE]], DATA[row[factor::DATA]], DType::ALL[row[factor::DTYPE]]);
    let activation = ACTIVATIONS[row[factor::ACTIVATION]];
    let ((affine_name, affine), (wanted_name, wanted)) =
        (AFFINE[row[factor::AFFINE]], WANTED[row[factor::WANTED]]);
    let parameters = if yes(factor::PARAMETERS) { dtype } else { DType::F32 };
    let spec = Spec {
        affine,
        activation,
        unit_offset: yes(factor::UNIT_OFFSET),
        dtype,
        parameters,
        residual: yes(factor::RESIDUAL),
        sum: yes(factor::SUM),
        modulated: yes(factor::MODULATED),
        in_place: yes(factor::IN_PLACE),
        passes: Passes::Backward,
        wanted,
        ..Spec::new(NORMS[row[factor::NORM]](shape), shape)
    };
    let label = label(&spec.norm);
    let parts = [
        (label.is_some(), label.as_deref().unwrap_or_default()),
        (true, dtype.name()),
        (activation != Activation::None, activation.name()),
        (spec.residual, "residual"),
        (spec.sum, "sum"),
        (true, affine_name),
        (parameters != DType::F32, "parameters"),
        (spec.modulated, "modulated"),
        (spec.unit_offset, "unit_offset"),
        (spec.in_place, "in_place"),
        (wanted != Wanted::All, wanted_name),
    ];
    let draw = |case: &mut Case| case.draw.data = data;
    let variant = variant::all()[row[factor::VARIANT]].name;
    case(data.name(), spec, draw, &parts, layout::ALL[row[factor::LAYOUT]], variant)
}

/// Cases that together have every pair.
pub fn pairs() -> Vec<Case> {
    pairwise(&levels(), forbidden).iter().map(|row| of_row(row)).collect()
}

/// Every combination of norm, layout, element type, activation, residual and sum, on one shape.
pub fn all() -> Vec<Case> {
    let levels = levels();
    let mut cases = Vec::new();
    for index in 0..levels[..factor::AFFINE].iter().product() {
        let mut row = row(&levels, factor::AFFINE, index);
        if forbidden(factor::NORM, row[factor::NORM], factor::LAYOUT, row[factor::LAYOUT]) {
            continue;
        }
        // The first parameters that the norm can have.
        let allowed = |&affine: &usize| !forbidden(factor::NORM, row[factor::NORM], factor::AFFINE, affine);
        row[factor::AFFINE] = (0..AFFINE.len()).find(allowed).unwrap_or_default();
        row[factor::VARIANT] = policy();
        cases.push(of_row(&row));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::covering::tests::assert_covers;

    #[test]
    fn every_allowed_pair_has_a_case() {
        let rows = pairwise(&levels(), forbidden);
        assert_covers(&levels(), forbidden, &rows);
        assert!(rows.len() < 160, "{}", rows.len());
        // Two norms of eleven have layouts.
        assert_eq!(all().len(), 13 * 3 * ACTIVATIONS.len() * 4);
    }
}
