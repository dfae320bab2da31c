//! Plans that a GPU's policy chooses and a software adapter's does not, forced: slices held in registers, teams that merge by
//! shuffles or through workgroup memory, groups of channels for the cache, workgroups of a GPU's size.

use wgnorm::{Activation, BatchNormOptions, Context, DType, Layout, Plan, Tuning};

use crate::fused::{Outputs, Place, Setup, assert_same_bits, assert_train};
use crate::support::{self, Inputs, context, normal, trusted_context};

const RESIDENT: Tuning = Tuning { resident: Some(true), ..NOTHING };

/// `Tuning::default()`, as a constant.
const NOTHING: Tuning = Tuning {
    width: None,
    workgroup_size: None,
    team_size: None,
    splits: None,
    rows: None,
    strip: None,
    tile: None,
    window_bytes: None,
    resident: None,
    subgroups: None,
    group_bytes: None,
    along_columns: None,
    integer_f16: false,
};

/// Shapes that a workgroup can hold, with the words of an invocation that are partly empty; channels that several teams of a
/// workgroup take, and one that needs all of it.
const SHAPES: [(&[usize], Layout); 9] = [
    (&[3, 5, 7, 4], Layout::ChannelsFirst),
    (&[3, 5, 7, 3], Layout::ChannelsFirst),
    (&[2, 3, 40, 20], Layout::ChannelsFirst),
    (&[40, 8], Layout::ChannelsFirst),
    (&[1, 6, 4], Layout::ChannelsFirst),
    (&[2, 9, 5, 8], Layout::ChannelsLast),
    (&[5, 3, 3, 20], Layout::ChannelsLast),
    (&[4, 1, 60], Layout::ChannelsFirst),
    (&[2, 1, 1], Layout::ChannelsFirst),
];

/// Ways to hold slices.
fn holding() -> [(&'static str, Context); 4] {
    let with = |tuning| context().with_tuning(tuning);
    [
        ("shuffles", with(Tuning { subgroups: Some(true), ..RESIDENT })),
        ("workgroup memory", with(Tuning { subgroups: Some(false), workgroup_size: Some(256), ..RESIDENT })),
        ("words of one value", with(Tuning { width: Some(1), workgroup_size: Some(128), ..RESIDENT })),
        ("trusted", trusted_context().with_tuning(Tuning { workgroup_size: Some(128), ..RESIDENT })),
    ]
}

/// The plans and kernels of forward and backward.
fn plans(context: &Context, setup: &Setup) -> [(Plan, Vec<String>); 2] {
    context.block_on(async {
        let x = context.zeros_as(&setup.dims, setup.dtype).await.unwrap().with_layout(setup.layout);
        let channels = setup.view().channels as usize;
        let mut layer = wgnorm::BatchNorm::new(context, channels, BatchNormOptions::pytorch()).await.unwrap();
        let y = context.zeros_like(&x).await.unwrap();
        let dx = context.zeros_like(&x).await.unwrap();
        let saved = wgnorm::Saved::new(context, &x).await.unwrap();
        let forward = layer.prepare_train_forward(&x, &y, Some(&saved)).await.unwrap();
        let targets = wgnorm::GradientTargets { dx: Some(&dx), ..Default::default() };
        let backward = layer.prepare_backward(&x, &y, &saved, &targets).await.unwrap();
        [
            (forward.plan().unwrap().clone(), forward.kernels().map(str::to_owned).collect()),
            (backward.plan().unwrap().clone(), backward.kernels().map(str::to_owned).collect()),
        ]
    })
}

/// Asserts that each pass is one dispatch of a resident kernel.
#[track_caller]
fn assert_resident(what: &str, context: &Context, setup: &Setup) {
    for (plan, kernels) in plans(context, setup) {
        assert!(plan.held > 0, "{what}: {plan}: {:?}", plan.reasons);
        assert!(
            matches!(kernels.as_slice(), [kernel] if kernel.starts_with("resident_")),
            "{what}: {kernels:?}"
        );
    }
}

#[test]
fn held_slices_agree_with_the_reference() {
    for (name, context) in holding() {
        for ((dims, layout), seed) in SHAPES.into_iter().zip(1..) {
            let setup = Setup { layout, ..Setup::new(dims, DType::F32, Activation::None) };
            let what = format!("{name} {setup:?}");
            println!("{what}");
            assert_resident(&what, &context, &setup);
            let once = assert_train(&context, &setup, seed);
            assert_same_bits(&what, &once, &assert_train(&context, &setup, seed));
        }
    }
}

#[test]
fn large_workgroups_hold_long_slices() {
    let setup = Setup::new(&[2, 2, 64, 96], DType::F32, Activation::None);
    for subgroups in [true, false] {
        let context = context().with_tuning(Tuning { subgroups: Some(subgroups), ..RESIDENT });
        assert_resident("long slices", &context, &setup);
        // Forward holds one value for each of x, backward two.
        assert_eq!(plans(&context, &setup).map(|(plan, _)| plan.team_size), [512, 1024]);
        assert_train(&context, &setup, 1);
    }
}

#[test]
fn held_slices_with_everything_around() {
    let (_, context) = &holding()[1];
    let relu = |dims: &[usize], dtype| Setup { residual: true, ..Setup::new(dims, dtype, Activation::Relu) };
    let leaky = Activation::LeakyRelu { slope: 0.25 };
    let setups = [
        relu(&[3, 5, 7, 4], DType::F32),
        relu(&[3, 5, 7, 4], DType::Bf16),
        Setup { layout: Layout::ChannelsLast, ..relu(&[2, 9, 5, 8], DType::F16) },
        Setup { parameters: DType::F16, ..relu(&[3, 5, 7, 4], DType::F16) },
        Setup { residual: true, ..Setup::new(&[3, 5, 7, 3], DType::F32, Activation::Gelu) },
        Setup { in_place: true, ..Setup::new(&[3, 5, 7, 4], DType::F32, leaky) },
        Setup { in_place: true, layout: Layout::ChannelsLast, ..relu(&[2, 9, 5, 8], DType::F32) },
        Setup { places: [Place::At(4); 6], ..relu(&[3, 5, 7, 4], DType::F32) },
        // A matrix that begins and ends inside of words, and views.
        Setup { places: [Place::At(3); 6], layout: Layout::ChannelsLast, ..relu(&[2, 9, 5, 8], DType::F32) },
        Setup { places: [Place::At(1); 6], layout: Layout::ChannelsLast, ..relu(&[3, 3, 4], DType::Bf16) },
        Setup { places: [Place::Channels { first: 4, of: 12 }; 6], ..relu(&[3, 4, 7, 4], DType::F32) },
        Setup { places: [Place::Apart(8); 6], layout: Layout::ChannelsLast, ..relu(&[3, 5, 8], DType::F32) },
    ];
    for (mut setup, seed) in setups.into_iter().zip(1..) {
        if setup.in_place {
            (setup.residual, setup.activation) = (false, leaky);
        }
        println!("{setup:?}");
        if setup.places == [Place::At(0); 6] {
            assert_resident(&format!("{setup:?}"), context, &setup);
        }
        assert_train(context, &setup, seed);
    }
}

#[test]
fn held_slices_of_hostile_data() {
    let dims = [4, 6, 5, 8];
    for (name, context) in holding() {
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
    for (name, context) in holding() {
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
    let context = context().with_tuning(Tuning { workgroup_size: Some(64), ..RESIDENT });
    // Too long a slice, in both layouts.
    let too_long = Setup::new(&[9, 2, 32, 32], DType::F32, Activation::None);
    let last =
        Setup { layout: Layout::ChannelsLast, ..Setup::new(&[500, 3, 3, 64], DType::F32, Activation::None) };
    for (setup, seed) in [too_long, last].into_iter().zip(1..) {
        for (plan, kernels) in plans(&context, &setup) {
            assert!(plan.held == 0 && kernels.len() == 2, "{plan}: {kernels:?}");
        }
        assert_train(&context, &setup, seed);
    }
}

/// In one dispatch dx and d_residual cannot share a block of one buffer, in two they can: a device whose policy holds slices must
/// take what others take.
#[test]
fn tensors_that_one_dispatch_cannot_bind_are_streamed() {
    let context = context().with_tuning(RESIDENT);
    context.block_on(async {
        let dims = [3, 5, 7, 4];
        let len: usize = dims.iter().product();
        let options = BatchNormOptions::pytorch().activation(Activation::Gelu);
        let layer = wgnorm::BatchNorm::new(&context, 5, options).await.unwrap();
        let zeros = || context.zeros_as(&dims, DType::F16);
        let (x, dy, residual, y) =
            (zeros().await.unwrap(), zeros().await.unwrap(), zeros().await.unwrap(), zeros().await.unwrap());
        let saved = wgnorm::Saved::new(&context, &x).await.unwrap();
        let input = x.plus(&residual);
        let _ = layer.prepare_train_forward_untracked(input, &y, Some(&saved)).await.unwrap();
        let both = context.zeros_as(&[2 * len + 8], DType::F16).await.unwrap();
        let part =
            |at: u64| wgnorm::Tensor::from_buffer_as(&context, both.buffer().clone(), at, &dims, DType::F16);
        let (d_residual, dx) = (part(0).unwrap(), part(2 * len as u64).unwrap());
        let targets =
            wgnorm::GradientTargets { dx: Some(&dx), d_residual: Some(&d_residual), ..Default::default() };
        let backward = layer.prepare_backward(input, &dy, &saved, &targets).await.unwrap();
        let plan = backward.plan().unwrap();
        assert!(plan.held == 0 && plan.reasons.iter().any(|why| why.contains("streamed")), "{plan:?}");
    });
}

#[test]
fn teams_of_a_gpu_merge_by_shuffles_and_through_workgroup_memory() {
    let shapes: [(&[usize], Layout); 4] = [
        (&[6, 3, 40, 32], Layout::ChannelsFirst),
        (&[6, 3, 7, 9], Layout::ChannelsFirst),
        (&[100, 3, 64], Layout::ChannelsLast),
        (&[100, 3, 12], Layout::ChannelsLast),
    ];
    for subgroups in [true, false] {
        for (workgroup_size, team_size) in
            [(256, None), (128, Some(128)), (64, Some(16)), (32, Some(8)), (48, Some(48))]
        {
            let tuning = Tuning {
                subgroups: Some(subgroups),
                workgroup_size: Some(workgroup_size),
                team_size,
                splits: Some(2),
                strip: Some(1),
                ..NOTHING
            };
            let context = context().with_tuning(tuning);
            for ((dims, layout), seed) in shapes.into_iter().zip(1..) {
                let setup = Setup { layout, ..Setup::new(dims, DType::F32, Activation::None) };
                let what = format!("{tuning:?} {setup:?}");
                println!("{what}");
                let plan = &plans(&context, &setup)[0].0;
                let shuffled = plan.subgroup_size > 0;
                // Shuffles need sizes that are powers of two, and members of a team that share a subgroup.
                assert!(subgroups || !shuffled, "{what}");
                let team_fits =
                    plan.team_size.is_power_of_two() && plan.team_size > 1 && layout == Layout::ChannelsFirst;
                let has = context.capabilities().subgroup_size.is_some();
                assert!(shuffled == (subgroups && has) || !team_fits, "{what}");
                let once = assert_train(&context, &setup, seed);
                assert_same_bits(&what, &once, &assert_train(&context, &setup, seed));
            }
        }
    }
}

#[test]
fn groups_give_the_bits_of_all_at_once() {
    let shapes: [(&[usize], Layout); 5] = [
        (&[4, 10, 8, 8], Layout::ChannelsFirst),
        // Words of two slices: groups of whole words.
        (&[4, 12, 7, 5], Layout::ChannelsFirst),
        (&[2, 9, 64, 2], Layout::ChannelsFirst),
        (&[9, 4, 96], Layout::ChannelsLast),
        (&[9, 4, 64], Layout::ChannelsLast),
    ];
    let few = Tuning { workgroup_size: Some(8), team_size: Some(8), strip: Some(1), ..NOTHING };
    let one = Tuning { team_size: Some(1), ..few };
    for (dims, layout) in shapes {
        for tuning in [few, one, Tuning { splits: Some(3), ..few }] {
            let setup = Setup { layout, residual: true, ..Setup::new(dims, DType::F32, Activation::Relu) };
            let whole = context().with_tuning(tuning);
            let grouped = context().with_tuning(Tuning { group_bytes: Some(1), ..tuning });
            let [(plan, kernels), _] = plans(&grouped, &setup);
            assert!(plan.grouped && kernels.len() == 2 * plan.windows.len(), "{plan}: {kernels:?}");
            // Reduce and map of one group precede those of the next.
            assert!(kernels[0].starts_with("reduce") && kernels[1].starts_with("map"), "{kernels:?}");
            println!("{setup:?}: {plan}");
            let [a, b]: [Outputs; 2] = [&whole, &grouped].map(|context| assert_train(context, &setup, 3));
            assert_same_bits(&format!("{setup:?} {plan}"), &a, &b);
        }
    }
}
