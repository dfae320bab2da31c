//! Moments of tensors: accuracy, counts, and walks on both sides of the loop limit.

use wgnorm::statistics::{ChannelMoments, Moments};
use wgnorm::tuning::{Plan, Tuning};
use wgnorm::{BatchNormOptions, Context, Layout, Shape};

use crate::support::*;

const SHAPES: &[&[usize]] = &[
    &[6, 7],
    &[257, 5],
    &[2, 5, 9],
    &[2, 3, 64],
    &[2, 3, 65],
    &[3, 4, 7, 5],
    &[2, 7, 4, 6],
    &[3, 2, 33, 36],
    &[2, 2, 3, 5, 4],
    &[1, 3, 1],
    &[1, 1, 100_003],
    &[2, 1, 200, 300],
];

fn moments_of(context: &Context, dims: &[usize], x: &[f32], offset: usize) -> Vec<ChannelMoments> {
    let x = placed(context, dims, x, offset);
    context.block_on(async { Moments::of(context, &x).await.unwrap().download(context).await }).unwrap()
}

#[track_caller]
fn assert_moments(what: &str, dims: &[usize], x: &[f32], got: &[ChannelMoments]) {
    let view = Shape::new(dims).unwrap().channels(Layout::ChannelsFirst).unwrap();
    crate::support::assert_moments(what, view, x, got);
}

#[test]
fn moments_agree_with_the_reference() {
    for (name, context) in contexts() {
        for (seed, dims) in SHAPES.iter().enumerate() {
            let x = values(seed as u64, dims.iter().product(), 0.5, 2.0);
            for offset in [0, 1] {
                let got = moments_of(&context, dims, &x, offset);
                assert_moments(&format!("{dims:?} {name} offset {offset}"), dims, &x, &got);
            }
        }
    }
}

#[test]
fn the_mean_is_far_better_than_one_f32() {
    for (name, context) in few_contexts() {
        for (seed, dims) in SHAPES.iter().enumerate() {
            let x = normal(seed as u64, dims.iter().product(), 1e4, 0.1);
            let got = moments_of(&context, dims, &x, 0);
            assert_moments(&format!("{dims:?} {name}"), dims, &x, &got);
        }
    }
}

#[test]
fn an_outlier_costs_few_digits_wherever_it_stands() {
    for (name, context) in few_contexts() {
        for len in [65, 640, 4096, 60_001] {
            for (mean, std) in [(1e4, 0.1), (1e4, 10.0), (1.0, 1.0)] {
                for outlier in [0.0, 1e5, -3.3e6] {
                    for at in [0, 1, 2, 3, 37, len - 1] {
                        let mut x = normal(len as u64, len, mean, std);
                        x[at] = outlier;
                        let what = format!("{len} of N({mean}, {std}) {name}, {outlier} at {at}");
                        assert_moments(&what, &[1, 1, len], &x, &moments_of(&context, &[1, 1, len], &x, 0));
                    }
                }
            }
        }
    }
}

#[test]
fn an_empty_tensor_has_the_moments_of_nothing() {
    for (_, context) in contexts() {
        for dims in [&[0, 3][..], &[2, 3, 0, 4], &[0, 3, 0]] {
            assert_eq!(moments_of(&context, dims, &[], 0), [ChannelMoments::default(); 3], "{dims:?}");
        }
    }
}

#[test]
fn moments_are_of_nothing_until_they_are_submitted() {
    let context = context();
    let x = upload(&context, &[1, 2, 3], &[1.0; 6]);
    context.block_on(async {
        let (moments, prepared) = Moments::prepare(&context, &x).await.unwrap();
        assert_eq!(moments.download(&context).await.unwrap(), [ChannelMoments::default(); 2]);
        context.submit(&[&prepared]).await.unwrap();
        let one = ChannelMoments { count: 3, shift: 1.0, delta: 0.0, var: 0.0 };
        assert_eq!(moments.download(&context).await.unwrap(), [one; 2]);
    });
}

/// One workgroup of 32 invocations over a whole channel, unless the loop limit demands more.
fn narrow() -> Context {
    context().with_tuning(Tuning::default().width(1).workgroup_size(32).team_size(32).splits(1))
}

/// Around 65535 loop iterations of 32 invocations.
const LENGTHS: [usize; 5] = [1_900_000, 65_535 * 32, 65_536 * 32, 65_537 * 32 + 5, 4_200_000];

#[track_caller]
fn assert_loops(context: &Context, plan: Option<&Plan>) {
    let (longest, limit) = (plan.unwrap().longest_loop, context.capabilities().max_loop_iterations);
    assert!(longest < limit, "{longest} iterations, the device ends invocations after {limit}");
}

/// The last values weigh so much that a walk which ends too early is far off.
fn heavy_tail(len: usize) -> Vec<f32> {
    let mut x = values(len as u64, len, 0.0, 1.0);
    x[len - 64..].fill(1000.0);
    x
}

#[test]
fn moments_of_walks_around_the_loop_limit() {
    let context = narrow();
    for len in LENGTHS {
        let (dims, values) = ([1, 1, len], heavy_tail(len));
        let x = upload(&context, &dims, &values);
        let (_, prepared) = context.block_on(Moments::prepare(&context, &x)).unwrap();
        assert_loops(&context, prepared.plan());
        assert_moments(&format!("{len}"), &dims, &values, &moments_of(&context, &dims, &values, 0));
    }
}

#[test]
fn columns_and_their_strips_stay_below_the_loop_limit() {
    // As few workgroups as the limit allows, each of one vector of a CPU; rows beyond what an invocation may walk.
    for strip in [1, 8] {
        let tuning = Tuning::default().workgroup_size(8).team_size(1).splits(1).strip(strip);
        let context = context().with_tuning(tuning);
        for (rows, channels) in [(140_000, 32), (70_001, 64)] {
            let (dims, values) = ([rows, channels], heavy_tail(rows * channels));
            let x = upload(&context, &dims, &values);
            let (_, prepared) = context.block_on(Moments::prepare(&context, &x)).unwrap();
            assert_loops(&context, prepared.plan());
            assert_moments(&format!("{dims:?}"), &dims, &values, &moments_of(&context, &dims, &values, 0));
        }
    }
}

#[test]
fn gradients_of_walks_around_the_loop_limit() {
    let context = narrow();
    for len in [LENGTHS[1], LENGTHS[3]] {
        // Sums of ones and twos stay exact.
        let dy: Vec<f32> = (0..len).map(|i| 1.0 + (i % 2) as f32).collect();
        let inputs = Inputs { x: heavy_tail(len), dy, ..Inputs::new(1, &[1, 1, len]) };
        let layer = &mut inputs.layer(&context, BatchNormOptions::pytorch());
        let got = train(&context, &inputs, layer);
        assert_eq!(got.dbeta.as_deref(), Some(&[(len + len / 2) as f32][..]), "{len}");
        assert_train(&format!("{len}"), &inputs, 1e-5, &got);
    }
}

#[test]
fn folds_of_many_splits_stay_below_the_loop_limit() {
    // Two invocations per slice fold as many partial results as there are splits.
    let tuning = Tuning::default().workgroup_size(2).splits(1 << 18);
    let context = context().with_tuning(tuning);
    let dims = [1, 1, (1 << 18) + 1];
    let x = heavy_tail(dims[2]);
    let tensor = upload(&context, &dims, &x);
    let (_, prepared) = context.block_on(Moments::prepare(&context, &tensor)).unwrap();
    assert_loops(&context, prepared.plan());
    assert_moments("many splits", &dims, &x, &moments_of(&context, &dims, &x, 0));
}

#[test]
fn identical_chunks_do_not_let_rounding_drift() {
    // Every chunk of 64 values of every invocation has the same moments, so all merges round the same way.
    for context in [narrow(), context()] {
        for seed in 0..4 {
            let pattern = values(seed, 64, 0.3, 1.0);
            let lanes = if context.capabilities().cpu { 32 } else { 256 };
            let x: Vec<f32> = (0..2_000_000).map(|i| pattern[i / lanes % 64]).collect();
            let dims = [1, 1, x.len()];
            assert_moments(&format!("seed {seed}"), &dims, &x, &moments_of(&context, &dims, &x, 0));
        }
    }
}

#[test]
fn any_workgroup_size_will_do() {
    for (size, dims, splits) in [
        (1, &[5, 3, 7, 9][..], None),
        (7, &[70, 5], None),
        (33, &[70, 5], Some(5)),
        (256, &[2, 3, 8, 10], None),
    ] {
        let size = size.min(context().capabilities().max_workgroup_size);
        let tuning = Tuning::default().workgroup_size(size).splits(splits).strip(1);
        let context = context().with_tuning(tuning);
        let inputs = Inputs::new(size.into(), dims);
        let what = format!("{dims:?} workgroups of {size} splits {splits:?}");
        let options = BatchNormOptions::pytorch();
        let got = train(&context, &inputs, &mut inputs.layer(&context, options));
        assert_train(&what, &inputs, 1e-5, &got);
        assert_frozen(&what, &inputs, 1e-5, &frozen(&context, &inputs, options));
    }
}

#[test]
fn words_without_values_are_no_shift() {
    // Three values in the first word, none in the second that a run may touch.
    let dims = [1, 2, 3];
    let x = [1e4, 1e4 + 0.125, 1e4 + 0.25, 1e4, 1e4 + 0.125, 1e4 + 0.25];
    assert_moments("policy", &dims, &x, &moments_of(&context(), &dims, &x, 0));
    // Invocations with two words, the second without values.
    let tuning = Tuning::default().workgroup_size(8).team_size(8).splits(3);
    let dims = [3, 5, 35];
    let x = normal(1, 525, 1e4, 0.1);
    let context = context().with_tuning(tuning);
    assert_moments("teams of 8", &dims, &x, &moments_of(&context, &dims, &x, 0));
}

#[test]
fn sums_of_columns_are_as_exact_as_those_of_runs() {
    let (dims, x) = ([64, 256], values(142, 64 * 256, 0.5, 2.0));
    assert_moments("64 rows", &dims, &x, &moments_of(&context(), &dims, &x, 0));
}
