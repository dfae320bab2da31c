//! The matrix of what a layer can be asked for: operation, layout, element types, activation, residual, work in place,
//! shape with data, and variant. Each pair of values of two of them occurs in some case, or, of a smaller product, all.

use wgnorm::{Activation, BatchNormOptions, DType, Layout};

use super::layer::Setup;
use crate::check::case::Case;
use crate::check::covering::pairwise;
use crate::check::data::{DTYPES, Data, name_of};
use crate::check::variant::{self, Variants};
use crate::layout;

/// Shapes with data: odd inner sizes and channel counts, rank 2, runs of one value, fewer values than a word or a channel
/// needs, several windows, and channels that must not spoil others.
const SHAPES: [(&str, &[usize], Data); 11] = [
    ("normal", &[3, 4, 7, 5], Data::Normal),
    ("normal", &[4, 5, 3, 43], Data::Normal),
    ("normal", &[31, 19], Data::Normal),
    ("normal", &[8, 4, 1, 1], Data::Normal),
    ("normal", &[1, 1, 7], Data::Normal),
    ("normal", &[2, 3, 1], Data::Normal),
    ("single_value", &[1, 5, 1], Data::Normal),
    ("shifted_mean", &[6, 8, 12, 12], Data::ShiftedMean),
    ("overflow_in_one", &[4, 3, 11], Data::OverflowInOne),
    ("nan_in_one", &[65, 7], Data::NanInOne),
    ("normal", &[2, 129, 2, 3], Data::Normal),
];

/// The factors, in the order of a row of the covering array.
mod factor {
    pub const TRAIN: usize = 0;
    pub const LAYOUT: usize = 1;
    pub const DTYPE: usize = 2;
    pub const ACTIVATION: usize = 3;
    pub const RESIDUAL: usize = 4;
    pub const IN_PLACE: usize = 5;
    pub const PARAMETERS: usize = 6;
    pub const TWICE: usize = 7;
    pub const SHAPE: usize = 8;
    pub const VARIANT: usize = 9;
}

/// What a case is made of; the fields are indices.
struct Choice<'a>(&'a [usize]);

impl Choice<'_> {
    fn case(&self) -> Case {
        let at = |factor: usize| self.0[factor];
        let yes = |factor: usize| at(factor) == 1;
        let (what, dims, data) = SHAPES[at(factor::SHAPE)];
        let (layout, dtype) = (layout::ALL[at(factor::LAYOUT)], DTYPES[at(factor::DTYPE)]);
        let activation = Activation::ALL[at(factor::ACTIVATION)];
        let variant = variant::all()[at(factor::VARIANT)].name;
        let parameters = if yes(factor::PARAMETERS) { dtype } else { DType::F32 };
        let mut parts = vec![what.to_owned(), name_of(dims), dtype.name().to_owned()];
        for (is, part) in [
            (activation != Activation::None, activation.name()),
            (yes(factor::RESIDUAL), "residual"),
            (yes(factor::IN_PLACE), "in_place"),
            (parameters != DType::F32, "parameters"),
            (layout == Layout::ChannelsLast, "last"),
        ] {
            if is {
                parts.push(part.to_owned());
            }
        }
        parts.push(variant::label(variant));
        let setup = Setup {
            options: BatchNormOptions::pytorch().activation(activation).allow_single_value(true),
            dtype,
            parameters,
            residual: yes(factor::RESIDUAL),
            in_place: yes(factor::IN_PLACE),
            twice: yes(factor::TWICE),
            signs: true,
            layout: Some(layout),
            variants: Variants::One(variant),
            ..Setup::new(format!("matrix.{}", parts.join(".")), dims, data)
        };
        if yes(factor::TRAIN) { setup.train() } else { setup.eval() }
    }
}

fn levels() -> [usize; 10] {
    [2, 2, DTYPES.len(), Activation::ALL.len(), 2, 2, 2, 2, SHAPES.len(), variant::all().len()]
}

/// Which values of two factors exclude each other.
fn forbidden(i: usize, a: usize, j: usize, b: usize) -> bool {
    let of = |shape: usize| SHAPES[shape].1;
    let dtype = |index: usize| DTYPES[index];
    let variant = |index: usize| variant::all()[index].name;
    match (i, j) {
        (_, factor::VARIANT) if variant::PLAIN.contains(&variant(b)) => true,
        // At rank 2 the layouts are the same.
        (factor::LAYOUT, factor::SHAPE) => layout::ALL[a] == Layout::ChannelsLast && of(b).len() == 2,
        // The type of x is f32 then.
        (factor::DTYPE, factor::PARAMETERS) => dtype(a) == DType::F32 && b == 1,
        (factor::DTYPE, factor::VARIANT) => dtype(a) != DType::F16 && variant(b) == "integer f16",
        // One window, or one sample, is what other variants have.
        (factor::SHAPE, factor::VARIANT) => {
            variant(b) == "windows" && 2 * of(a).iter().product::<usize>() as u64 <= variant::WINDOW
                || variant(b) == "parts" && of(a)[0] < 2
        }
        _ => false,
    }
}

/// Cases that together have every pair.
pub fn pairs() -> Vec<Case> {
    let mut cases: Vec<_> = pairwise(&levels(), forbidden).iter().map(|row| Choice(row).case()).collect();
    cases.extend(lost_channels());
    cases.push(overflowing_y());
    cases
}

/// x fits f16 and y does not: the elements far from the mean are infinite.
fn overflowing_y() -> Case {
    let setup = Setup::new("matrix.overflowing_y.4x3x11.float16".to_owned(), &[4, 3, 11], Data::ShiftedMean);
    Setup { dtype: DType::F16, gain: 4e4, variants: Variants::One("phase 1"), ..setup }.eval()
}

/// A channel whose gamma is too small for x̂ to be recovered from y: its dx and dgamma are NaN, and no other's.
fn lost_channels() -> impl Iterator<Item = Case> {
    DTYPES.into_iter().map(|dtype| {
        let what = format!("matrix.lost_channel.3x4x7x5.{dtype}");
        let setup = Setup::new(what, &[3, 4, 7, 5], Data::Normal);
        Setup { dtype, in_place: true, lost: Some(1), variants: Variants::One("split"), ..setup }.train()
    })
}

/// Every combination of operation, layout, element type, activation, residual and place, on a few shapes.
pub fn full() -> Vec<Case> {
    let levels = levels();
    let variants = variant::all();
    let policy = variants.iter().position(|variant| variant.name == "policy").expect("a variant");
    let shapes = [0, 7, 8];
    let mut cases = Vec::new();
    let product: usize = levels[..factor::PARAMETERS].iter().product();
    for index in 0..product * shapes.len() {
        let mut row = vec![0; levels.len()];
        let mut rest = index;
        for factor in 0..factor::PARAMETERS {
            row[factor] = rest % levels[factor];
            rest /= levels[factor];
        }
        row[factor::SHAPE] = shapes[rest];
        // Not factors of the product, but both occur.
        row[factor::PARAMETERS] = rest % 2;
        row[factor::TWICE] = rest % 2;
        row[factor::VARIANT] = policy;
        cases.push(Choice(&row).case());
    }
    cases
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::check::case::Content;
    use crate::check::covering::tests::assert_covers;

    #[test]
    fn every_allowed_pair_has_a_case() {
        let rows = pairwise(&levels(), forbidden);
        assert_covers(&levels(), forbidden, &rows);
        assert!(rows.len() < 250, "{}", rows.len());
    }

    #[test]
    fn names_are_unique_and_tell_a_case() {
        let cases = full();
        assert_eq!(cases.len(), 3 * 480);
        let names: HashSet<_> = cases.iter().map(|case| case.name.clone()).collect();
        assert_eq!(names.len(), cases.len());
    }

    #[test]
    fn some_of_y_overflows_and_some_does_not() {
        let Content::Problem(problem) = overflowing_y().content else { panic!() };
        let y = &problem.expected.iter().find(|expected| expected.name == "y").unwrap().values;
        assert!(y.iter().any(|y| y.abs() > 7e4) && y.iter().any(|y| y.abs() < 6e4));
    }
}
