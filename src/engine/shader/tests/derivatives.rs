//! Variants of kernels that differentiate (src/pass/second.rs), and of spectral norm (src/pass/spectral.rs), as the host asks for them.

use super::*;

/// The kernels with what they differentiate, and whether they write in words.
fn kernels() -> Vec<(Kernel, Option<Derivative>, bool)> {
    use StatisticsFrom::{Means, MeansOfRow, Recorded, Running, Saved};
    let both = [Derivative::Tangent, Derivative::Second].map(Some);
    let mut all = Vec::new();
    all.extend([Saved, Running, Recorded].map(|from| (Kernel::FoldTangents(from), None, false)));
    all.push((Kernel::FoldGroups, None, false));
    for derivative in both {
        all.push((Kernel::FoldSecond, derivative, false));
        all.push((Kernel::ReduceSecond, derivative, false));
        let dx = derivative == Some(Derivative::Second);
        all.extend(
            [Means, Recorded].map(|statistics| (Kernel::MapBackward { statistics, dx }, derivative, true)),
        );
    }
    let second = Some(Derivative::Second);
    all.extend(
        [Means, MeansOfRow, Recorded]
            .map(|statistics| (Kernel::ReduceGradients { statistics, dx: true }, second, true)),
    );
    all.push((Kernel::ReduceRowGradients { statistics: Means, dx: true }, second, true));
    all
}

/// Along what parameters vary in a kernel.
fn affine_of(kernel: Kernel) -> &'static [AffineOf] {
    match kernel {
        Kernel::FoldTangents(_) | Kernel::FoldGroups | Kernel::FoldSecond | Kernel::FoldDirection { .. } => {
            &[AffineOf::Slice]
        }
        // What they multiply with varies within a slice.
        Kernel::ReduceProduct => &[AffineOf::Place, AffineOf::Row],
        _ if kernel.statistics() == StatisticsFrom::RankOne => &[AffineOf::Place, AffineOf::Row],
        Kernel::ReduceRowGradients { .. } => &[AffineOf::Row],
        // Gradients of parameters that vary within rows are summed along columns.
        Kernel::ReduceGradients { .. } => &[AffineOf::Slice],
        _ if kernel.statistics() == StatisticsFrom::Recorded && kernel != Kernel::ReduceSecond => {
            &[AffineOf::Slice]
        }
        _ => &[AffineOf::Slice, AffineOf::Place, AffineOf::Row],
    }
}

pub(super) fn variants() -> Vec<Variant> {
    let mut variants = Vec::new();
    let functions = ActivationFunctions::new(|z| 2.0 * z, |_| 2.0).second_derivative(|_| 0.0);
    let wgsl = "fn activate(z: f32) -> f32 { return 2.0 * z; } fn derivative(z: f32) -> f32 { return 2.0; }
                fn second_derivative(z: f32) -> f32 { return 0.0; }";
    let custom = Activation::custom("twice_bent", wgsl, functions).unwrap();
    for (kernel, derivative, y_tangent) in kernels() {
        let folds = per_slice(kernel);
        for (&affine, uncentred) in affine_of(kernel).iter().flat_map(|of| [(of, false), (of, true)]) {
            let bent = [Activation::None, Activation::Gelu, custom];
            let all = kernel == Kernel::ReduceSecond && affine == AffineOf::Slice;
            // Whether a curvature is valid one kernel shows.
            let activations = if all { [&Activation::ALL[..], &[custom]].concat() } else { bent.to_vec() };
            for activation in activations {
                let pointwise = Pointwise {
                    activation: ActivationKind::of(activation),
                    uncentred,
                    affine,
                    derivative,
                    y_tangent,
                    ..Pointwise::default()
                };
                let pointwise = pointwise.of(kernel);
                for (walk, width, edges, strip, dtype) in [
                    (WalkKind::Segments, 1, false, 1, DType::F32),
                    (WalkKind::Segments, 4, false, 4, DType::F32),
                    (WalkKind::Segments, 4, true, 1, DType::Bf16),
                    (WalkKind::Columns, 1, true, 1, DType::F16),
                    (WalkKind::Columns, 4, false, 8, DType::F32),
                    (WalkKind::Columns, 4, true, 1, DType::Bf16),
                ] {
                    let columns = walk == WalkKind::Columns;
                    let only_columns = affine == AffineOf::Row || kernel.statistics().of_rows();
                    if folds && (columns || width == 4)
                        || columns && affine == AffineOf::Place
                        || !columns && only_columns
                    {
                        continue;
                    }
                    for (shared, team_size, subgroup_size) in [(false, 64, 0), (true, 1, 0), (false, 64, 32)]
                    {
                        let variant = Variant {
                            pointwise,
                            walk,
                            width,
                            edges,
                            strip,
                            dtype,
                            shared,
                            team_size,
                            subgroup_size,
                            ..example(kernel)
                        };
                        variants.push(variant.reduced());
                    }
                }
            }
        }
    }
    variants
}
