//! Plans that a GPU's policy chooses and a software adapter's does not, forced: slices held in registers, teams that merge by
//! shuffles or through workgroup memory, groups of channels for the cache, workgroups of a GPU's size.

use wgnorm::eval::{Outcome, layout};
use wgnorm::tuning::Plan;
use wgnorm::{Activation, BatchNormOptions, DType, Layout, Spec};

use crate::support::{self, Inputs, assert_holds, assert_same_outcome, context, normal, tuned};

/// Ways to hold slices.
const HOLDING: [&str; 3] = [
    "resident=true subgroups=true",
    "resident=true subgroups=false workgroup_size=256",
    "resident=true width=1 workgroup_size=128",
];

/// Shapes that a workgroup can hold, with the words of an invocation that are partly empty; channels that several teams of a
/// workgroup take, and one that needs all of it.
const SHAPES: [&str; 9] =
    ["3x5x7x4", "3x5x7x3", "2x3x40x20", "40x8", "1x6x4", "2x8x9x5 last", "5x20x3x3 last", "4x1x60", "2x1x1"];

/// The plans and kernels of forward and backward, as a line says.
fn plans(words: &str) -> [(Plan, Vec<String>); 2] {
    let spec: Spec = format!("batch {words}").parse().unwrap();
    let context = context().with_tuning(spec.tuning);
    let memory = layout::memory_dims(spec.layout, &spec.shape);
    context.block_on(async {
        let x = context.zeros_as(&memory, spec.dtype).await.unwrap().with_layout(spec.layout);
        let options = BatchNormOptions::pytorch();
        let mut layer = wgnorm::BatchNorm::new(&context, spec.shape[1], options).await.unwrap();
        let y = context.zeros_like(&x).await.unwrap();
        let dx = context.zeros_like(&x).await.unwrap();
        let saved = wgnorm::Saved::new(&context, &x).await.unwrap();
        let forward = layer.prepare_train_forward(&x, &y, Some(&saved)).await.unwrap();
        let targets = wgnorm::GradientTargets::default().dx(&dx);
        let backward = layer.prepare_backward(&x, &y, &saved, &targets).await.unwrap();
        [
            (forward.plan().unwrap().clone(), forward.kernels().map(str::to_owned).collect()),
            (backward.plan().unwrap().clone(), backward.kernels().map(str::to_owned).collect()),
        ]
    })
}

/// Asserts that each pass is one dispatch of a resident kernel.
#[track_caller]
fn assert_resident(words: &str) {
    for (plan, kernels) in plans(words) {
        assert!(plan.held > 0, "{words}: {plan}: {:?}", plan.reasons);
        assert!(
            matches!(kernels.as_slice(), [kernel] if kernel.starts_with("resident_")),
            "{words}: {kernels:?}"
        );
    }
}

#[track_caller]
fn train(words: &str) -> Outcome {
    assert_holds(&context(), &format!("batch {words} backward"))
}

#[track_caller]
fn assert_held(holding: &str, shape: &str) {
    let words = format!("{shape} {holding}");
    assert_resident(&words);
    assert_same_outcome(&words, &train(&words), &train(&words));
}

#[test]
fn held_slices_agree_with_the_reference() {
    for (holding, shape) in HOLDING.into_iter().zip([SHAPES[1], SHAPES[5], SHAPES[2]]) {
        assert_held(holding, shape);
    }
}

#[test]
fn words_that_are_loaded_ahead_change_no_bit() {
    let one = "workgroup_size=8 team_size=8 strip=1";
    // Steps that are full, those that are not, words that hold the end of a slice, rows; what else is loaded of a word.
    for line in [
        "batch 3x5x7x44 relu residual",
        "batch 2x5x61x3 relu",
        "batch 9x9x5x5 last residual relu",
        "layer 7x516 sum",
        "rms 5x1203 f16",
    ] {
        let with = |depth: u32| {
            let line = format!("{line} backward {one} depth={depth} along_columns=false");
            assert_holds(&context(), &line)
        };
        let expected = with(1);
        [2, 8].into_iter().for_each(|depth| assert_same_outcome(line, &with(depth), &expected));
    }
    let [(plan, kernels), _] = plans(&format!("3x5x7x44 {one} depth=4"));
    assert_eq!(plan.depth, 4, "{plan}");
    assert!(kernels.iter().all(|kernel| kernel.contains(" depth4 ")), "{kernels:?}");
    let [(plan, _), _] = plans("3x5x7x44 depth=4 strip=2");
    assert_eq!(plan.depth, 1, "{plan}");
}

#[test]
#[ignore = "of the full gate: large workgroups take long to compile"]
fn held_slices_of_every_shape() {
    HOLDING.into_iter().for_each(|holding| SHAPES.into_iter().for_each(|shape| assert_held(holding, shape)));
}

#[test]
fn large_workgroups_hold_long_slices() {
    for subgroups in [true, false] {
        let words = format!("2x2x64x96 resident=true subgroups={subgroups}");
        assert_resident(&words);
        // Forward holds one value for each of x, backward two.
        assert_eq!(plans(&words).map(|(plan, _)| plan.team_size), [512, 1024]);
        train(&words);
    }
}

#[test]
fn held_slices_with_everything_around() {
    for words in [
        "3x5x7x4 relu residual",
        "3x5x7x4 bf16 relu residual",
        "2x8x9x5 last f16 relu residual",
        "3x5x7x4 f16 parameters=f16 relu residual",
        "3x5x7x3 gelu residual",
        "3x5x7x4 in_place leaky_relu=0.25",
        "2x8x9x5 last in_place leaky_relu=0.25",
        "3x5x7x4 relu residual phase=4",
        // A matrix that begins and ends inside of words, and views.
        "2x8x9x5 last relu residual phase=3",
        "3x4x3 last bf16 relu residual phase=1",
        "3x4x7x4 relu residual view=4,4",
        "3x8x5 last relu residual gaps=8",
    ] {
        let words = format!("{words} resident=true workgroup_size=64");
        if !["phase", "view", "gaps"].iter().any(|place| words.contains(place)) {
            assert_resident(&words);
        }
        train(&words);
    }
}

#[test]
fn held_slices_of_hostile_data() {
    let dims = [4, 6, 5, 8];
    for (name, context) in HOLDING.map(|words| (words, tuned(words))) {
        for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
            let mut inputs = Inputs::of(5, &dims, layout);
            let (view, len) = (inputs.view(), inputs.x.len());
            let noise = normal(3, len, 0.0, 1.0);
            let channel = |i: usize| view.channel_of(i as u64) as usize;
            let mut firsts = vec![true; inputs.channels()];
            inputs.x = (0..len)
                .map(|i| match channel(i) {
                    // A mean far above the deviation, a constant, an outlier first, a large and a small scale.
                    0 => 1e4 + 0.1 * noise[i],
                    1 => 3.7,
                    2 if std::mem::take(&mut firsts[2]) => 1e6,
                    3 => 1e15 * noise[i],
                    4 => 1e-15 * noise[i],
                    _ => noise[i],
                })
                .collect();
            let mut layer = inputs.layer(&context, BatchNormOptions::pytorch());
            let got = support::train(&context, &inputs, &mut layer);
            support::assert_train(&format!("{name} {layout:?}"), &inputs, 1e-5, &got);
            support::assert_running(
                &format!("{name} {layout:?}"),
                &inputs,
                &support::download_running(&context, layer.running()),
            );
        }
    }
}

#[test]
fn what_is_not_finite_stays_in_its_channel() {
    let (dims, inner) = ([2, 3, 6, 4], 24);
    for (name, context) in HOLDING.map(|words| (words, tuned(words))) {
        let mut inputs = Inputs::new(9, &dims);
        inputs.x[inner + 5] = f32::NAN;
        let mut layer = inputs.layer(&context, BatchNormOptions::pytorch());
        let got = support::train(&context, &inputs, &mut layer);
        let nan = |values: &[f32], c: usize| {
            (0..values.len()).filter(|i| i / inner % 3 == c).all(|i| values[i].is_nan())
        };
        let finite = |values: &[f32], c: usize| {
            (0..values.len()).filter(|i| i / inner % 3 == c).all(|i| values[i].is_finite())
        };
        for values in [&got.y, &got.dx] {
            assert!(finite(values, 0) && nan(values, 1) && finite(values, 2), "{name}: {values:?}");
        }
    }
}

#[test]
fn what_cannot_be_held_is_streamed() {
    // Too long a slice, in both layouts.
    for shape in ["9x2x32x32", "500x64x3x3 last"] {
        let words = format!("{shape} resident=true workgroup_size=64");
        for (plan, kernels) in plans(&words) {
            assert!(plan.held == 0 && kernels.len() == 2, "{plan}: {kernels:?}");
        }
        train(&words);
    }
}

/// In one dispatch dx and d_residual cannot share a block of one buffer, in two they can: a device whose policy holds slices must
/// take what others take.
#[test]
fn tensors_that_one_dispatch_cannot_bind_are_streamed() {
    let context = tuned("resident=true");
    context.block_on(async {
        let dims = [3, 5, 7, 4];
        let len: usize = dims.iter().product();
        let options = BatchNormOptions::pytorch().activation(Activation::Gelu);
        let layer = wgnorm::BatchNorm::new(&context, 5, options).await.unwrap();
        let zeros = || context.zeros_as(&dims, DType::F16);
        let (x, dy, residual, y) =
            (zeros().await.unwrap(), zeros().await.unwrap(), zeros().await.unwrap(), zeros().await.unwrap());
        let saved = wgnorm::Saved::new(&context, &x).await.unwrap();
        let input = x.with_residual(&residual);
        let _ = layer.prepare_train_forward_untracked(input, &y, Some(&saved)).await.unwrap();
        let both = context.zeros_as(&[2 * len + 8], DType::F16).await.unwrap();
        let part =
            |at: u64| wgnorm::Tensor::from_buffer_as(&context, both.buffer().clone(), at, &dims, DType::F16);
        let (d_residual, dx) = (part(0).unwrap(), part(2 * len as u64).unwrap());
        let targets = wgnorm::GradientTargets::default().dx(&dx).d_residual(&d_residual);
        let backward = layer.prepare_backward(input, &dy, &saved, &targets).await.unwrap();
        let plan = backward.plan().unwrap();
        assert!(plan.held == 0 && plan.reasons.iter().any(|why| why.contains("streamed")), "{plan:?}");
    });
}

#[track_caller]
fn assert_merged(subgroups: bool, teams: &str, shape: &str) {
    let words = format!("{shape} {teams} subgroups={subgroups} splits=2 strip=1");
    let plan = &plans(&words)[0].0;
    let shuffled = plan.subgroup_size > 0;
    // Shuffles need sizes that are powers of two, and members of a team that share a subgroup.
    assert!(subgroups || !shuffled, "{words}");
    let rows = shape.contains("last");
    let team_fits = plan.team_size.is_power_of_two() && plan.team_size > 1 && !rows;
    let has = context().capabilities().subgroup_size.is_some();
    assert!(shuffled == (subgroups && has) || !team_fits, "{words}");
    assert_same_outcome(&words, &train(&words), &train(&words));
}

const MERGED: [&str; 4] = ["6x3x40x32", "100x64x3 last", "6x3x7x9", "100x12x3 last"];

#[test]
fn teams_of_a_gpu_merge_by_shuffles_and_through_workgroup_memory() {
    for subgroups in [true, false] {
        assert_merged(subgroups, "workgroup_size=256", MERGED[0]);
        assert_merged(subgroups, "workgroup_size=48 team_size=48", MERGED[1]);
        assert_merged(subgroups, "workgroup_size=64 team_size=16", MERGED[2]);
    }
}

#[test]
#[ignore = "of the full gate: large workgroups take long to compile"]
fn teams_of_every_size_merge() {
    for subgroups in [true, false] {
        for teams in [
            "workgroup_size=256",
            "workgroup_size=128 team_size=128",
            "workgroup_size=64 team_size=16",
            "workgroup_size=32 team_size=8",
            "workgroup_size=48 team_size=48",
        ] {
            MERGED.into_iter().for_each(|shape| assert_merged(subgroups, teams, shape));
        }
    }
}

#[test]
fn groups_give_the_bits_of_all_at_once() {
    // Words of two slices in some: groups of whole words.
    for shape in ["4x10x8x8", "4x12x7x5", "2x9x64x2", "9x96x4 last", "9x64x4 last"] {
        for teams in ["team_size=8", "team_size=1", "team_size=8 splits=3"] {
            let words = format!("{shape} relu residual workgroup_size=8 strip=1 {teams}");
            let grouped = format!("{words} group_bytes=1");
            let [(plan, kernels), _] = plans(&grouped);
            assert!(plan.grouped && kernels.len() == 2 * plan.windows.len(), "{plan}: {kernels:?}");
            // Reduce and map of one group precede those of the next.
            assert!(kernels[0].starts_with("reduce") && kernels[1].starts_with("map"), "{kernels:?}");
            assert_same_outcome(&words, &train(&words), &train(&grouped));
        }
    }
}
