//! Variants of kernels over segments of rows (src/pass/slices/ragged.rs) and of mixtures (src/pass/switchable.rs), as the host asks for them.

use super::*;

pub(super) fn variants() -> Vec<Variant> {
    let mut variants = Vec::new();
    let walked = [
        Kernel::ReduceMoments,
        Kernel::ReduceGradients { statistics: StatisticsFrom::Recorded, dx: false },
        Kernel::MapForward(StatisticsFrom::Recorded),
        Kernel::MapBackward { statistics: StatisticsFrom::Means, dx: true },
    ];
    for kernel in walked {
        for activation in [Activation::None, Activation::Silu] {
            for (width, strip, dtype) in [
                (1, 1, DType::F32),
                (4, 1, DType::F32),
                (4, 8, DType::F32),
                (1, 1, DType::F16),
                (4, 2, DType::Bf16),
            ] {
                for shared in [false, true] {
                    let pointwise = Pointwise {
                        activation: ActivationKind::of(activation),
                        ragged: true,
                        ..Pointwise::default()
                    };
                    let variant = Variant {
                        pointwise,
                        walk: WalkKind::Columns,
                        width,
                        edges: false,
                        strip,
                        depth: 1,
                        dtype,
                        shared,
                        team_size: 1,
                        subgroup_size: 0,
                        ..example(kernel)
                    };
                    variants.push(variant.reduced());
                }
            }
        }
    }
    let folds = [
        Kernel::FoldStatistics(StatisticsFrom::Slices),
        Kernel::FoldMeans { times_gamma: true },
        Kernel::FoldNodes(Monoid::Moments),
        Kernel::FoldNodes(Monoid::GradientSums),
    ];
    for kernel in folds {
        for (team_size, mean_scale) in [(1, false), (1, true), (32, false)] {
            for shared in [false, true] {
                let pointwise = Pointwise { ragged: true, mean_scale, ..Pointwise::default() };
                let example = example(kernel);
                let workgroup_size = example.workgroup_size.max(team_size);
                let walk = WalkKind::Segments;
                let variant =
                    Variant { pointwise, team_size, workgroup_size, shared, walk, width: 1, ..example };
                variants.push(variant.reduced());
            }
        }
    }
    let mixtures = [
        Kernel::FoldMixture { running: false },
        Kernel::FoldMixture { running: true },
        Kernel::FoldMixtureSums,
        Kernel::FoldMixtureMeans,
        Kernel::FoldTotal(Monoid::Moments),
    ];
    for kernel in mixtures {
        for (unbiased, shared) in [(false, false), (true, false), (false, true), (true, true)] {
            for parameters in [DType::F32, DType::F16] {
                let pointwise = Pointwise { unbiased, ..Pointwise::default() };
                let (walk, width, team_size) = (WalkKind::Segments, 1, 1);
                let variant =
                    Variant { pointwise, shared, parameters, walk, width, team_size, ..example(kernel) };
                variants.push(variant.reduced());
            }
        }
    }
    variants
}
