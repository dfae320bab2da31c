//! The built-in cases of the family, as those of batch norm: sizes around every boundary, ranges that overflow, slices that must not spoil
//! others, all combinations of parameters, nothing, and what exceeds the limits of a device.

use wgnorm::{Affine, BatchNormOptions, Layout, Momentum, RunningVariance};

use super::Of;
use super::setup::{Again, Setup};
use crate::check::case::Case;
use crate::check::data::{Data, HOSTILE, name_of};
use crate::check::variant::Variants;

/// One shape for every way that slices and parameters lie in memory, for all variants.
fn layouts() -> Vec<(Of, &'static [usize])> {
    vec![
        (Of::Layer(1), &[5, 37]),
        (Of::Rms(2), &[4, 6, 50]),
        (Of::Group(2), &[2, 8, 5, 3]),
        (Of::Instance, &[2, 3, 7, 5]),
        (Of::MeanVariance(vec![0, 2, 3]), &[2, 3, 4, 5]),
        (Of::MeanVariance(vec![0]), &[7, 12]),
        (Of::L2(vec![1]), &[2, 5, 4, 3]),
        (Of::Scale, &[33, 20]),
        (Of::Weight, &[6, 3, 3, 3]),
    ]
}

/// Shapes for the policy: ranks 2 to 5, slices of one value, of less than a word and of many, one slice, one channel, one group.
fn shapes() -> Vec<(Of, &'static [usize])> {
    vec![
        (Of::Layer(1), &[700, 32]),
        (Of::Layer(1), &[1, 1025]),
        (Of::Layer(1), &[9, 1]),
        (Of::Layer(1), &[2, 3, 64]),
        (Of::Layer(2), &[3, 2, 11]),
        (Of::Layer(3), &[2, 3, 4, 5]),
        (Of::Rms(1), &[5, 37]),
        (Of::Rms(1), &[9, 256]),
        (Of::Group(3), &[3, 9, 2, 4]),
        (Of::Group(1), &[2, 4, 130]),
        (Of::Group(4), &[3, 8]),
        (Of::Group(32), &[2, 64, 7, 7]),
        (Of::Instance, &[3, 4, 16, 16]),
        (Of::Instance, &[2, 3, 2, 3, 4]),
        (Of::MeanVariance(vec![1]), &[4, 5, 6]),
        (Of::MeanVariance(vec![0, 1, 2]), &[4, 5, 6]),
        (Of::L2(vec![1]), &[7, 12]),
        (Of::L2(vec![0, 1]), &[7, 12]),
        (Of::Weight, &[40, 64]),
        (Of::Standardization, &[6, 4, 3, 3]),
    ]
}

pub fn cases() -> Vec<Case> {
    let mut setups = Vec::new();
    setups.extend(layouts().into_iter().map(|(of, dims)| setup("normal", of, dims, Data::Normal)));
    for (of, dims) in shapes() {
        setups.push(Setup { variants: Variants::One("repeat"), ..setup("normal", of, dims, Data::Normal) });
    }
    for (distribution, data) in HOSTILE.into_iter().chain([("outlier", Data::Outlier)]) {
        // Fewer and more values than one accumulator sums; else the shapes above, whose kernels are compiled by now.
        for (of, dims) in layouts().into_iter().chain([(Of::Layer(1), &[3, 2100][..])]) {
            // What an adapter makes of such values is its own affair, and here they are divided by 1e-9.
            if matches!((data, &of), (Data::Subnormal, Of::MeanVariance(_))) {
                continue;
            }
            setups.push(Setup { variants: Variants::Sums, ..setup(distribution, of, dims, data) });
        }
    }
    for (of, dims) in [
        (Of::Layer(1), &[6, 3, 40][..]),
        (Of::Rms(2), &[4, 3, 7]),
        (Of::Group(2), &[3, 6, 10]),
        (Of::Instance, &[3, 4, 12]),
    ] {
        for (name, affine) in [
            ("both", Affine::Both),
            ("weight", Affine::Weight),
            ("bias", Affine::Bias),
            ("none", Affine::None),
        ] {
            for (unit_offset, modulated) in [(false, false), (true, false), (false, true), (true, true)] {
                if unit_offset && !affine.has_gamma() || modulated && affine == Affine::None {
                    continue;
                }
                let mut what = vec![format!("affine_{name}")];
                what.extend(unit_offset.then(|| "unit_offset".to_owned()));
                what.extend(modulated.then(|| "modulated".to_owned()));
                let plain = setup(&what.join("."), of.clone(), dims, Data::Normal);
                let options = plain.options.affine(affine).unit_offset(unit_offset);
                setups.push(Setup { options, modulated, variants: Variants::One("many splits"), ..plain });
            }
        }
    }
    for (of, dims) in [
        (Of::Layer(1), &[5, 37][..]),
        (Of::Rms(1), &[5, 37]),
        (Of::Group(2), &[2, 8, 5, 3]),
        (Of::MeanVariance(vec![0, 2, 3]), &[2, 3, 4, 5]),
        (Of::L2(vec![1]), &[2, 5, 4, 3]),
        (Of::Scale, &[33, 20]),
        (Of::Weight, &[6, 3, 3, 3]),
    ] {
        // No length is more than the last of these; of the one before, some are and some are not.
        for eps in [1e-30, 1e-3, 6.5, 1e3] {
            let plain = setup(&format!("eps_{eps:e}"), of.clone(), dims, Data::Normal);
            setups.push(Setup { options: plain.options.eps(eps), variants: Variants::Sums, ..plain });
        }
    }
    setups.extend(tracked());
    // Nothing in, nothing out; gradients of parameters are zero.
    for (of, dims) in [
        (Of::Layer(1), &[0, 8][..]),
        (Of::Rms(2), &[0, 3, 4]),
        (Of::Group(2), &[0, 4, 3, 3]),
        (Of::Instance, &[0, 4, 6]),
        (Of::L2(vec![1]), &[0, 4]),
    ] {
        setups.push(setup("empty", of, dims, Data::Normal));
    }
    // More workgroups than one dimension holds, and slices and columns longer than 65535 words for each of 8 invocations.
    for (of, dims, variants) in [
        (Of::Layer(1), &[140_000, 3][..], Variants::One("repeat")),
        (Of::Layer(1), &[1, 700_001], Variants::Limits),
        (Of::Rms(1), &[700_003, 1], Variants::One("large teams")),
        (Of::Group(1), &[1, 2, 262_144], Variants::One("large teams")),
        (Of::Instance, &[2, 70_000, 2], Variants::One("repeat")),
        (Of::L2(vec![1]), &[1, 700_001, 3], Variants::One("large teams")),
    ] {
        let large = setup("large", of, dims, Data::Normal);
        let layout = Some(Layout::ChannelsFirst);
        setups.push(Setup { variants, again: Again::Nothing, layout, ..large });
    }
    setups.into_iter().map(Setup::case).collect()
}

/// Instance norm with running statistics, by every convention.
fn tracked() -> Vec<Setup> {
    let options = BatchNormOptions::pytorch();
    let mut setups = Vec::new();
    let mut push = |what: &str, dims: &[usize], variants, options: BatchNormOptions| {
        let plain = setup(&format!("tracked.{what}"), Of::Instance, dims, Data::Normal);
        let norm = plain.options.eps(options.eps);
        setups.push(Setup { options: norm, tracked: Some(options), variants, ..plain });
    };
    push("pytorch", &[2, 3, 7, 5], Variants::Sums, options);
    push("pytorch", &[300, 2, 4], Variants::One("repeat"), options);
    for (convention, momentum) in [
        ("new_0", Momentum::WeightOfNew(0.0)),
        ("new_1", Momentum::WeightOfNew(1.0)),
        ("old_0.99", Momentum::WeightOfOld(0.99)),
        ("cumulative", Momentum::Cumulative),
    ] {
        for (variance, running_variance) in
            [("biased", RunningVariance::Biased), ("unbiased", RunningVariance::Unbiased)]
        {
            let options = options.momentum(momentum).running_variance(running_variance);
            push(&format!("{convention}.{variance}"), &[5, 3, 4], Variants::One("repeat"), options);
        }
    }
    setups
}

fn setup(what: &str, of: Of, dims: &[usize], data: Data) -> Setup {
    let parts = [Some(what.to_owned()), Some(name_of(dims)), of.label()];
    Setup::new(parts.into_iter().flatten().collect::<Vec<_>>().join("."), of, dims, data)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::check::expect::tests::problem;

    #[test]
    fn names_are_unique() {
        let names: Vec<_> = cases().into_iter().map(|case| case.name).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    }

    #[test]
    fn some_lengths_are_below_eps_and_some_are_not() {
        let of_eps = |case: &Case| {
            let clamps = ["l2_norm", "scale_norm", "weight_norm"].contains(&case.op.as_str());
            clamps && case.name.contains("eps_6.5e0")
        };
        let cases: Vec<_> = cases().into_iter().filter(of_eps).collect();
        assert_eq!(cases.len(), 3);
        for case in cases {
            let problem = problem(case);
            let inv_std =
                &problem.expected.iter().find(|expected| expected.name == "save_invstd").unwrap().values;
            let clamped = inv_std.iter().filter(|&&value| value == 1.0 / 6.5).count();
            assert!(clamped > 0 && clamped < inv_std.len(), "{clamped} of {}", inv_std.len());
        }
    }
}
