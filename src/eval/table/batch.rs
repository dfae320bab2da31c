//! Batch norm: sizes around every boundary, hostile values, conventions, masks, batch renorm, ranks, limits of devices. Element types,
//! activations, residuals and work in place are the matter of `pairs`.

use super::{Case, name_of};
use crate::eval::data::Data;
use crate::eval::variant::Variants;

/// Ranks 2 to 5 and sizes on both sides of words, chunks, workgroups and tiles.
const SHAPES: [&[usize]; 20] = [
    &[2, 1],
    &[6, 3],
    &[31, 19],
    &[64, 2],
    &[65, 3],
    &[1031, 5],
    &[2, 5, 9],
    &[3, 3, 1],
    &[1, 2, 3],
    &[1, 2, 4],
    &[2, 3, 63],
    &[2, 3, 64],
    &[2, 3, 65],
    &[3, 5, 256],
    &[1, 3, 4100],
    &[3, 4, 7, 5],
    &[2, 129, 4, 3],
    &[4, 3, 56, 56],
    &[2, 3, 2, 5, 4],
    &[2, 2, 8, 8, 8],
];

/// A seed whose mask of one run keeps nothing.
const MASKS_ALL: u64 = 3;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // Training and frozen, forward and backward.
    let mut both = |what: &str, shape: &[usize], words: &str, data, variants| {
        let (what, shape) = (format!("{what}.{}", name_of(shape)), name_of(shape));
        for norm in ["batch", "frozen"] {
            let line = format!("{norm} {shape} {words} backward added");
            cases.push(Case::new(&what, &line, data, variants));
        }
    };
    for shape in SHAPES {
        both("normal", shape, "", Data::Normal, Variants::All);
    }
    // Fewer and more values than one accumulator sums, for small and large workgroups.
    for shape in [&[3, 4, 7, 5][..], &[2, 3, 16, 16], &[40, 3], &[1, 2, 24_001], &[2, 2, 120, 100]] {
        for data in Data::HOSTILE {
            both(data.name(), shape, "", data, Variants::Sums);
        }
    }
    for (what, affine) in [("1_0", "weight"), ("0_1", "bias"), ("0_0", "none")] {
        let (what, words) = (format!("affine_{what}"), format!("affine={affine}"));
        both(&what, &[3, 4, 7, 5], &words, Data::Normal, Variants::Sums);
    }
    for eps in ["1e-30", "1e-12", "1e-3", "1e1"] {
        both(&format!("eps_{eps}"), &[3, 4, 7, 5], &format!("eps={eps}"), Data::Normal, Variants::Sums);
    }
    let mut push = |what: &str, shape: &[usize], words: &str, data, variants| {
        let what = format!("{what}.{}", name_of(shape));
        cases.push(Case::new(&what, &format!("batch {} {words}", name_of(shape)), data, variants));
    };
    // Runs whose last words hold none of their values, now and then or always; rows that do not fill the last one.
    for shape in [&[600, 3, 3][..], &[4, 3, 11], &[4, 3, 27], &[40, 3, 10], &[7, 5], &[2, 1001, 7]] {
        push("large_mean", shape, "backward added", Data::LargeMean, Variants::All);
    }
    for (convention, momentum) in [
        ("new_0", "new=0"),
        ("new_1", "new=1"),
        ("new_0.1", ""),
        ("old_0.99", "old=0.99"),
        ("cumulative", "cumulative"),
    ] {
        for (variance, biased) in [("biased", "biased"), ("unbiased", "")] {
            let what = format!("{convention}.{variance}");
            push(&what, &[5, 3, 4], &format!("steps=6 {momentum} {biased}"), Data::Normal, Variants::All);
        }
    }
    // One value per channel, allowed.
    push("single_value", &[1, 3], "backward added", Data::Normal, Variants::All);
    for data in [Data::Normal, Data::Constant, Data::Tiny, Data::Least, Data::Lost] {
        push(&format!("eps_0.{}", data.name()), &[6, 5, 7], "eps=0 backward added", data, Variants::Sums);
    }
    push("single_value", &[1, 3, 1], "steps=6", Data::Normal, Variants::All);
    // Masks: single positions, parts of words, many words; every walk.
    for (shape, run) in [
        (&[3, 4, 7, 5][..], 1),
        (&[2, 3, 16, 16], 3),
        (&[3, 5, 130], 40),
        (&[40, 3], 2),
        (&[33, 8], 1),
        (&[1, 2, 7001], 90),
    ] {
        for (what, data) in [("normal", Data::Normal), ("large_mean", Data::LargeMean)] {
            push(&format!("{what}.run{run}"), shape, &format!("mask={run} backward"), data, Variants::All);
        }
    }
    // Batch renorm, with limits that act in some channels, in all, and in none.
    for (shape, data) in [
        (&[3, 4, 7, 5][..], Data::Normal),
        (&[2, 7, 64], Data::Normal),
        (&[70, 5], Data::Normal),
        (&[3, 5, 130], Data::LargeMean),
    ] {
        for (what, limits) in [("narrow", "1.1,0.3"), ("wide", "1e4,1e6"), ("r", "1.2,0"), ("d", "1,0.4")] {
            push(what, shape, &format!("renorm={limits} backward"), data, Variants::All);
        }
    }
    // More workgroups than one dimension holds, and slices longer than 65535 values for each of 8 invocations.
    for shape in [&[1, 65_600, 2][..], &[1, 1, 530_000], &[3, 1, 176_667]] {
        push("large", shape, "backward added", Data::Normal, Variants::Limits);
    }
    // All positions, of which nothing is tracked.
    let mut nothing =
        Case::new("nothing.1x3x40", "batch 1x3x40 mask=40 backward", Data::Normal, Variants::Sums);
    nothing.draw.seed = MASKS_ALL;
    cases.push(nothing);
    // Ghost batches, whose moments are merged on the device.
    cases.push(Case::new("2.5x3x4", "batch 5x3x4 ghost=2 backward", Data::Normal, Variants::One("teams")));
    // Micro-batches as one batch, and moments that were computed before.
    cases.push(Case::new(
        "3.5x3x4",
        "batch 5x3x4 accumulated=3 backward",
        Data::Normal,
        Variants::One("split"),
    ));
    cases.push(Case::new("3x4x7x5", "batch 3x4x7x5 given backward", Data::Normal, Variants::One("split")));
    // Infinite z, against which a slope of 0 must hold its own.
    for activation in ["silu", "gelu", "gelu_tanh"] {
        let (what, line) =
            (format!("inf_in_one.{activation}.3x5x7x3"), format!("frozen 3x5x7x3 {activation} backward"));
        cases.push(Case::new(&what, &line, Data::InfInOne, Variants::One("shifted")));
    }
    // Strips that fill a row, so that no word is counted.
    cases.push(Case::new("strips.64x64", "batch 64x64 backward", Data::Normal, Variants::One("teams")));
    // A word that is the first and the last of a tensor, written over another.
    cases.push(Case::new(
        "in_place.1x2",
        "frozen 1x2 in_place backward",
        Data::Normal,
        Variants::One("phase 1"),
    ));
    let mut line = |what: &str, line: &str| cases.push(Case::new(what, line, Data::Normal, Variants::All));
    // Shards of other sizes, one of them empty.
    line("2+0+5+1.1x4x7x5", "batch 8x4x7x5 sync=2+0+5+1 backward");
    line("1+3.1x6", "batch 4x6 sync=1+3 backward");
    line("30+1.1x3x130", "batch 31x3x130 sync=30+1 backward");
    // Empty batches have no training; inference gives an empty result.
    line("empty.0x3", "frozen 0x3 backward added");
    line("empty.0x3x4x4", "frozen 0x3x4x4 backward added");
    line("empty.2x3x0", "frozen 2x3x0 backward added");
    cases
}

/// As `large`, but with words of four values too, and hostile values in channels of many: what takes hundreds of MB, or long.
pub(super) fn long() -> Vec<Case> {
    let case = |norm: &str, what: &str, shape: &[usize], data, variants| {
        let (what, shape) = (format!("long_{what}.{}", name_of(shape)), name_of(shape));
        Case::new(&what, &format!("{norm} {shape} backward added"), data, variants)
    };
    let mut cases: Vec<_> = [&[1, 1, 2_200_000][..], &[3, 1, 733_337], &[2, 70_000, 2]]
        .map(|shape| case("batch", "normal", shape, Data::Normal, Variants::Limits))
        .into();
    for shape in [&[1, 2, 70_001][..], &[2, 2, 300, 160]] {
        for norm in ["batch", "frozen"] {
            cases.extend(Data::HOSTILE.map(|data| case(norm, data.name(), shape, data, Variants::Sums)));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a dimension of a dispatch holds, and what one invocation may walk.
    const LIMIT: usize = 65_535;

    #[test]
    fn large_cases_exceed_what_they_are_for() {
        let large = |case: &Case| case.name.contains(".large.") || case.name.contains(".long_normal.");
        let (words, teams): (Vec<usize>, Vec<usize>) = cases()
            .iter()
            .chain(&long())
            .filter(|case| large(case))
            .map(|case| {
                let channels = case.spec.shape[1];
                // Teams of 8, of words of one value.
                (case.spec.elements() / channels / 8, channels)
            })
            .inspect(|&(words, teams)| assert!(words > LIMIT || teams > LIMIT, "{words} of {teams}"))
            .unzip();
        assert!(words.iter().any(|&words| words > LIMIT) && teams.iter().any(|&teams| teams > LIMIT));
        assert!(words.iter().any(|&words| words > 4 * LIMIT), "{words:?}");
    }

    #[test]
    fn a_mask_keeps_nothing() {
        let case = cases().into_iter().find(|case| case.name == "builtin.masked.nothing.1x3x40").unwrap();
        let problem = case.problem().unwrap();
        let variance = &problem.expectation("save_var").unwrap().values;
        assert!(variance.iter().all(|&variance| variance == 0.0), "{variance:?}");
    }
}
