//! Batch norm: operation, layout, element types, activation, residual, work in place, shape with data, and variant.

use super::super::Case;
use super::{case, policy, row};
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::shape::Layout;
use crate::eval::covering::pairwise;
use crate::eval::data::{Data, Gamma};
use crate::eval::layout;
use crate::eval::variant::{self, Variants};
use crate::spec::{Norm, Passes, Spec, Wanted};

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

fn levels() -> [usize; 10] {
    [2, 2, DType::ALL.len(), Activation::ALL.len(), 2, 2, 2, 2, SHAPES.len(), variant::all().len()]
}

/// Which values of two factors exclude each other.
fn forbidden(i: usize, a: usize, j: usize, b: usize) -> bool {
    let of = |shape: usize| SHAPES[shape].1;
    let dtype = |index: usize| DType::ALL[index];
    let variant = |index: usize| variant::all()[index].name;
    match (i, j) {
        (_, factor::VARIANT) if variant::PLAIN.contains(&variant(b)) || variant(b) == "along rows" => true,
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

/// The case of a row, whose values are indices.
fn of_row(row: &[usize]) -> Case {
    let yes = |factor: usize| row[factor] == 1;
    let (what, shape, data) = SHAPES[row[factor::SHAPE]];
    let (dtype, activation) = (DType::ALL[row[factor::DTYPE]], Activation::ALL[row[factor::ACTIVATION]]);
    let parameters = if yes(factor::PARAMETERS) { dtype } else { DType::F32 };
    let spec = Spec {
        dtype,
        parameters,
        activation,
        residual: yes(factor::RESIDUAL),
        in_place: yes(factor::IN_PLACE),
        passes: Passes::Backward,
        wanted: if yes(factor::TWICE) { Wanted::Added } else { Wanted::All },
        ..Spec::new(if yes(factor::TRAIN) { Norm::Batch } else { Norm::FrozenBatch }, shape)
    };
    let parts = [
        (true, dtype.name()),
        (activation != Activation::None, activation.name()),
        (spec.residual, "residual"),
        (spec.in_place, "in_place"),
        (parameters != DType::F32, "parameters"),
    ];
    let draw = |case: &mut Case| (case.draw.data, case.draw.gamma) = (data, Gamma::Signs);
    let variant = variant::all()[row[factor::VARIANT]].name;
    case(what, spec, draw, &parts, layout::ALL[row[factor::LAYOUT]], variant)
}

/// Cases that together have every pair.
pub fn pairs() -> Vec<Case> {
    let mut cases: Vec<_> = pairwise(&levels(), forbidden).iter().map(|row| of_row(row)).collect();
    cases.extend(lost_channels());
    cases.push(overflowing_y());
    cases
}

/// x fits f16 and y does not: the elements far from the mean are infinite.
fn overflowing_y() -> Case {
    let (what, line) = ("matrix.overflowing_y.4x3x11.float16", "frozen 4x3x11 f16 backward added");
    let mut case = Case::new(what, line, Data::ShiftedMean, Variants::One("phase 1"));
    case.draw.gamma = Gamma::Large;
    case
}

/// A channel whose gamma is too small for x̂ to be recovered from y: its dx and dgamma are NaN, and no other's.
fn lost_channels() -> impl Iterator<Item = Case> {
    DType::ALL.into_iter().map(|dtype| {
        let what = format!("matrix.lost_channel.3x4x7x5.{dtype}");
        let line = format!("batch 3x4x7x5 {} in_place backward added", dtype.short());
        let mut case = Case::new(&what, &line, Data::Normal, Variants::One("split"));
        case.draw.gamma = Gamma::Lost(1);
        case
    })
}

/// Every combination of operation, layout, element type, activation, residual and place, on a few shapes.
pub fn all() -> Vec<Case> {
    let levels = levels();
    let product: usize = levels[..factor::PARAMETERS].iter().product();
    let mut cases = Vec::new();
    for (which, shape) in [0, 7, 8].into_iter().enumerate() {
        for index in 0..product {
            let mut row = row(&levels, factor::PARAMETERS, index);
            row[factor::SHAPE] = shape;
            // Not factors of the product, but both occur.
            row[factor::PARAMETERS] = which % 2;
            row[factor::TWICE] = which % 2;
            row[factor::VARIANT] = policy();
            cases.push(of_row(&row));
        }
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
        assert!(rows.len() < 250, "{}", rows.len());
        assert_eq!(all().len(), 3 * 480);
    }

    #[test]
    fn some_of_y_overflows_and_some_does_not() {
        let problem = overflowing_y().problem().unwrap();
        let y = &problem.expectation("y").unwrap().values;
        assert!(y.iter().any(|y| y.abs() > 7e4) && y.iter().any(|y| y.abs() < 6e4));
    }
}
