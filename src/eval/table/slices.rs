//! The norms of slices: sizes around every boundary, ranges that overflow, slices that must not spoil others, all combinations of parameters,
//! nothing, and what exceeds the limits of a device.

use super::{Case, name_of};
use crate::base::shape::Layout;
use crate::eval::data::{Data, Gamma};
use crate::eval::variant::Variants;
use crate::spec::{Norm, Spec};

/// One shape for every way that slices and parameters lie in memory, for all variants.
const LAYOUTS: [&str; 9] = [
    "layer 5x37",
    "rms:2 4x6x50",
    "group:2 2x8x5x3",
    "instance 2x3x7x5",
    "mvn:0,2,3 2x3x4x5",
    "mvn:0 7x12",
    "l2:1 2x5x4x3",
    "scale 33x20",
    "weight 6x3x3x3",
];

/// Shapes for the policy: ranks 2 to 5, slices of one value, of less than a word and of many, one slice, one channel, one group.
const SHAPES: [&str; 20] = [
    "layer 700x32",
    "layer 1x1025",
    "layer 9x1",
    "layer 2x3x64",
    "layer:2 3x2x11",
    "layer:3 2x3x4x5",
    "rms 5x37",
    "rms 9x256",
    "group:3 3x9x2x4",
    "group:1 2x4x130",
    "group:4 3x8",
    "group:32 2x64x7x7",
    "instance 3x4x16x16",
    "instance 2x3x2x3x4",
    "mvn:1 4x5x6",
    "mvn:0,1,2 4x5x6",
    "l2:1 7x12",
    "l2:0,1 7x12",
    "weight 40x64",
    "standardization 6x4x3x3",
];

/// What tells two norms of one name apart, for names of cases.
pub(super) fn label(norm: &Norm) -> Option<String> {
    match norm {
        Norm::Layer(1) | Norm::Rms(1) => None,
        Norm::Layer(axes) | Norm::Rms(axes) => Some(format!("last{axes}")),
        Norm::Group(groups) => Some(format!("g{groups}")),
        Norm::MeanVariance(axes) | Norm::L2(axes) => {
            Some(format!("over{}", axes.iter().map(ToString::to_string).collect::<String>()))
        }
        _ => None,
    }
}

/// A case of a norm and shape, forward and backward, with more words.
fn case(what: &str, of: &str, words: &str, data: Data, variants: Variants) -> Case {
    let line = format!("{of} {words} backward");
    let spec: Spec = line.parse().unwrap_or_else(|error| panic!("a line of the table: {error}"));
    let parts = [Some(what.to_owned()), Some(name_of(&spec.shape)), label(&spec.norm)];
    Case::of(&parts.into_iter().flatten().collect::<Vec<_>>().join("."), spec, data, variants)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let added = "added";
    cases.extend(LAYOUTS.map(|of| case("normal", of, added, Data::Normal, Variants::All)));
    cases.extend(SHAPES.map(|of| case("normal", of, added, Data::Normal, Variants::One("repeat"))));
    for data in Data::HOSTILE.into_iter().chain([Data::Outlier]) {
        // Fewer and more values than one accumulator sums; else the shapes above, whose kernels are compiled by now.
        for of in LAYOUTS.into_iter().chain(["layer 3x2100"]) {
            // What an adapter makes of such values is its own affair, and here they are divided by 1e-9.
            if data == Data::Subnormal && of.starts_with("mvn") {
                continue;
            }
            cases.push(case(data.name(), of, added, data, Variants::Sums));
        }
    }
    for of in ["layer 6x3x40", "rms:2 4x3x7", "group:2 3x6x10", "instance 3x4x12"] {
        for affine in ["both", "weight", "bias", "none"] {
            for (offset, modulated) in [(false, false), (true, false), (false, true), (true, true)] {
                if offset && !["both", "weight"].contains(&affine) || modulated && affine == "none" {
                    continue;
                }
                let mut what = vec![format!("affine_{affine}")];
                let mut words = vec![format!("affine={affine} added")];
                for (is, name, word) in
                    [(offset, "unit_offset", "offset"), (modulated, "modulated", "modulated")]
                {
                    what.extend(is.then(|| name.to_owned()));
                    words.extend(is.then(|| word.to_owned()));
                }
                let variants = Variants::One("many splits");
                cases.push(case(&what.join("."), of, &words.join(" "), Data::Normal, variants));
            }
        }
    }
    for of in [
        "layer 5x37",
        "rms 5x37",
        "group:2 2x8x5x3",
        "mvn:0,2,3 2x3x4x5",
        "l2:1 2x5x4x3",
        "scale 33x20",
        "weight 6x3x3x3",
    ] {
        // No length is more than the last of these; of the one before, some are and some are not.
        for eps in ["1e-30", "1e-3", "6.5e0", "1e3"] {
            let words = format!("eps={eps} added");
            cases.push(case(&format!("eps_{eps}"), of, &words, Data::Normal, Variants::Sums));
        }
    }
    cases.extend(tracked());
    // Samples with parameters of their own, whose slices are no multiple of the teams that share them.
    cases.push(case("modulated", "layer 3x101x12", "modulated", Data::Normal, Variants::One("resident")));
    // Slices of which a window has a part: its places begin within them.
    for of in ["layer:3 4x6x3x43", "rms:3 4x6x3x43"] {
        cases.push(case("parts_of_slices", of, added, Data::Normal, Variants::One("windows")));
    }
    // Rows of wider tensors.
    for of in ["layer 24x64", "rms 33x20", "scale 16x30"] {
        for (what, words, variant) in [
            ("rows_apart.residual", "relu residual", "view"),
            ("rows_apart.bfloat16", "bf16", "view of words"),
            ("rows_apart.sum", "sum", "view of words"),
        ] {
            cases.push(case(what, of, &format!("{words} {added}"), Data::Normal, Variants::One(variant)));
        }
    }
    // Padded rows.
    for (of, words, variants) in [
        ("layer 24x64", "mask=3 relu residual", Variants::All),
        ("layer 33x65", "mask=1", Variants::Sums),
        ("rms 33x20", "mask=2 silu residual", Variants::One("policy")),
        ("layer 24x7", "mask=2 sum", Variants::One("view")),
        ("rms 24x8", "mask=2 relu residual sum", Variants::One("resident")),
        ("layer 16x40", "mask=3 modulated", Variants::One("many splits")),
        ("layer:2 14x3x16", "mask=1 bf16 residual", Variants::One("windows")),
        ("rms:2 6x3x5", "mask=1 f16 parameters=f16 gelu", Variants::One("phase 1")),
        ("layer 64x30", "mask=5 affine=none", Variants::One("resident")),
        ("scale 33x20", "mask=2 relu", Variants::Sums),
    ] {
        cases.push(case("padded_rows", of, &format!("{words} {added}"), Data::Normal, variants));
    }
    cases.extend(limits());
    // Nothing in, nothing out; gradients of parameters are zero.
    for of in ["layer 0x8", "rms:2 0x3x4", "group:2 0x4x3x3", "instance 0x4x6", "l2:1 0x4"] {
        cases.push(case("empty", of, added, Data::Normal, Variants::All));
    }
    // More workgroups than one dimension holds, and slices and columns longer than 65535 words for each of 8 invocations.
    for (of, variants) in [
        ("layer 140000x3", Variants::One("repeat")),
        ("layer 1x530001", Variants::Limits),
        ("rms 530003x1", Variants::One("large teams")),
        ("group:1 1x2x262144", Variants::One("large teams")),
        // More channels of a group than a loop has iterations.
        ("group:1 1x70001x2", Variants::One("repeat")),
        ("instance 2x70000x2", Variants::One("repeat")),
        ("l2:1 1x530001x2", Variants::One("large teams")),
        // Rows of which an invocation has as many as it could walk, were their sums not exchanged at each.
        ("layer 15700x32 splits=1", Variants::One("policy")),
        ("rms 15700x32 axes=0 splits=1", Variants::One("policy")),
    ] {
        cases.push(case("large", of, "", Data::Normal, variants).in_layout(Layout::ChannelsFirst));
    }
    cases
}

/// Slices that have nothing to divide by, or values that only some of the ways to the result can hold.
fn limits() -> Vec<Case> {
    let mut cases = Vec::new();
    // Of any magnitude, where no mean is subtracted; the divisor is that of the slice, or eps.
    for of in ["rms 70x37", "rms:2 70x6x50", "l2:1 9x10x7", "l2:0 33x40", "scale 70x20", "weight 70x64"] {
        for eps in ["0", "1e-35", "1e-20", "1e-5"] {
            let words = format!("eps={eps} added");
            cases.push(case(&format!("magnitudes.eps_{eps}"), of, &words, Data::Magnitudes, Variants::Sums));
        }
        let words = "eps=0 added";
        cases.push(case("mixed_magnitudes", of, words, Data::MixedMagnitudes, Variants::Sums));
        let words = "eps=0 bf16 added";
        cases.push(case("magnitudes.bfloat16", of, words, Data::Magnitudes, Variants::One("policy")));
    }
    // No eps: slices without spread, or without length, are NaN, those of weight norm zeros.
    for of in LAYOUTS {
        for data in [
            Data::Normal,
            Data::Constant,
            Data::ZeroInOne,
            Data::Tiny,
            Data::Least,
            Data::Lost,
            Data::HugeSpread,
        ] {
            let what = format!("eps_0.{}", data.name());
            cases.push(case(&what, of, "eps=0 added", data, Variants::Sums));
        }
    }
    // Less than the least variance: of equal values y is beta all the same.
    for of in ["layer 5x37", "group:2 2x8x5x3", "mvn:0 7x12"] {
        cases.push(case("eps_1e-35.constant", of, "eps=1e-35 added", Data::Constant, Variants::Sums));
    }
    // gamma·inv_std is beyond f32, and y is not.
    for of in ["layer 5x37", "group:2 2x8x5x3", "instance 2x3x7x5"] {
        let huge = case("huge_gamma", of, "eps=1e-12 added", Data::Constant, Variants::Sums);
        cases.push(huge.with_gamma(Gamma::Huge));
    }
    // Means of few values, most of which are nothing beside one.
    for of in ["layer 1500x5", "layer 1500x8", "layer 700x13", "instance 40x30x7"] {
        cases.push(case("means", of, "", Data::Outlier, Variants::Sums));
    }
    // One value per slice: y is beta.
    for of in ["group:27 7x27", "instance 3x5x1x1", "instance 3x5x1", "tracked 4x5x1x1", "mvn:1 7x1"] {
        for eps in ["1e-5", "0"] {
            let words = format!("eps={eps} added");
            cases.push(case(&format!("single_value.eps_{eps}"), of, &words, Data::Normal, Variants::Sums));
        }
    }
    cases
}

/// Instance norm with running statistics, by every convention.
fn tracked() -> Vec<Case> {
    let case = |what: &str, shape: &str, words: &str, variants| {
        // The parameters of an instance norm that tracks are those that PyTorch's has by default.
        let line = format!("tracked {shape} {words} backward added");
        Case::new(&format!("tracked.{what}.{shape}"), &line, Data::Normal, variants)
    };
    let mut cases = vec![
        case("pytorch", "2x3x7x5", "", Variants::Sums),
        case("pytorch", "300x2x4", "", Variants::One("repeat")),
    ];
    for (convention, momentum) in
        [("new_0", "new=0"), ("new_1", "new=1"), ("old_0.99", "old=0.99"), ("cumulative", "cumulative")]
    {
        for (variance, biased) in [("biased", "biased"), ("unbiased", "")] {
            let (what, words) = (format!("{convention}.{variance}"), format!("{momentum} {biased}"));
            cases.push(case(&what, "5x3x4", &words, Variants::One("repeat")));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_lengths_are_below_eps_and_some_are_not() {
        let cases: Vec<_> = cases()
            .into_iter()
            .filter(|case| ["l2_norm", "scale_norm", "weight_norm"].contains(&case.op().as_str()))
            .filter(|case| case.name.contains("eps_6.5e0"))
            .collect();
        assert_eq!(cases.len(), 3);
        for case in cases {
            let problem = case.problem().unwrap();
            let inv_std = &problem.expectation("save_invstd").unwrap().values;
            let clamped = inv_std.iter().filter(|&&value| value == 1.0 / 6.5).count();
            assert!(clamped > 0 && clamped < inv_std.len(), "{clamped} of {}", inv_std.len());
        }
    }
}
