//! Autotuning: off by default; measured once, with nothing of the caller's changed; pinned plans give the same bits.

use std::path::{Path, PathBuf};

use wgnorm::tuning::{Autotuning, Tuning, TuningSource};
use wgnorm::{
    Accumulation, Activation, BatchNorm, BatchNormOptions, Context, DType, Error, GradientTargets, Layout,
    Saved, Tensor,
};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();
const EPS: f64 = 1e-5;

/// A device of the test's own: what is pinned is pinned for all contexts of a device.
fn open(mode: Autotuning) -> Context {
    headless().with_autotuning(mode)
}

/// The problems that a context has pinned, and whether each was measured.
fn pinned(context: &Context) -> Vec<(String, bool)> {
    let measured = |source| matches!(source, TuningSource::Measured { .. });
    context.pinned_tunings().into_iter().map(|pin| (pin.problem, measured(pin.source))).collect()
}

/// What the plan of an inference pass says about tuning, and its tiles per slice.
fn inference(context: &Context, x: &Tensor) -> (Vec<String>, u32) {
    let channels = x.channels().unwrap().channels as usize;
    context.block_on(async {
        let layer = BatchNorm::new(context, channels, OPTIONS).await.unwrap().freeze();
        let y = context.zeros_like(x).await.unwrap();
        let forward = layer.prepare_infer(x, &y).await.unwrap();
        let plan = forward.plan().unwrap();
        let said = plan.reasons.iter().filter(|reason| reason.starts_with("tuning")).cloned().collect();
        (said, plan.splits)
    })
}

#[test]
fn it_is_off_by_default() {
    let context = open(Autotuning::default());
    assert_eq!(context.autotuning(), Autotuning::Off);
    // Pinned plans make no difference then.
    let text = context.export_tunings() + "inference f32 channels_first 2x3x1024 = splits 2\n";
    assert_eq!(context.import_tunings(&text).unwrap().pinned, 1);
    let x = zeros(&context, &[2, 3, 32, 32]);
    let other = other_context();
    let (_, splits) = inference(&other, &zeros(&other, &[2, 3, 32, 32]));
    assert_eq!(inference(&context, &x), (vec![], splits));
}

#[test]
fn all_operations_are_measured_once_and_stay_right() {
    let context = open(Autotuning::Measure);
    let inputs = Inputs::new(1, &[2, 3, 40, 40]);
    let run = || {
        let mut layer = inputs.layer(&context, OPTIONS);
        (train(&context, &inputs, &mut layer), frozen(&context, &inputs, OPTIONS))
    };
    let (trained, fine_tuned) = run();
    assert_train("measured", &inputs, EPS, &trained);
    assert_frozen("measured", &inputs, EPS, &fine_tuned);
    let problems = ["frozen_backward", "inference", "train_backward", "train_forward"];
    let wanted = problems.map(|op| (format!("{op} f32 channels_first 2x3x1600"), true));
    assert_eq!(pinned(&context), wanted);

    let kernels = context.compiled_kernels();
    let (again, fine_tuned_again) = run();
    assert_eq!((pinned(&context), context.compiled_kernels()), (wanted.to_vec(), kernels));
    assert_same("again", &again, &trained);
    assert_same("again, frozen", &fine_tuned_again, &fine_tuned);

    let (said, _) = inference(&context, &zeros(&context, &[2, 3, 40, 40]));
    assert!(
        matches!(said.as_slice(), [one] if one.contains("measured") || one.contains("fastest")),
        "{said:?}"
    );
}

#[test]
fn pinned_plans_give_the_same_bits_and_nothing_is_measured() {
    let inputs = Inputs::new(2, &[2, 3, 40, 40]);
    let run = |context: &Context| {
        let mut layer = inputs.layer(context, OPTIONS);
        (train(context, &inputs, &mut layer), frozen(context, &inputs, OPTIONS))
    };
    let first = open(Autotuning::Measure);
    let mut text = first.export_tunings();
    // Plans that the policy would not take, so that their bits differ from its own; the fourth is measured.
    for op in ["train_forward", "train_backward", "frozen_backward"] {
        text += &format!("{op} f32 channels_first 2x3x1600 = splits 5, team_size 1\n");
    }
    assert_eq!(first.import_tunings(&text).unwrap().pinned, 3);
    let expected = run(&first);
    assert_eq!(pinned(&first).iter().filter(|(_, measured)| *measured).count(), 1);

    // What was pinned is what a forced plan computes.
    let forced = first.with_autotuning(Autotuning::Off).with_tuning(Tuning::default().splits(5).team_size(1));
    let mut layer = inputs.layer(&forced, OPTIONS);
    assert_same("forced", &train(&forced, &inputs, &mut layer), &expected.0);

    for mode in [Autotuning::Pinned, Autotuning::Measure] {
        let next = open(mode);
        let loaded = next.import_tunings(&first.export_tunings()).unwrap();
        assert_eq!((loaded.pinned, loaded.known, loaded.ignored), (4, 0, vec![]));
        let got = run(&next);
        assert_same("training", &got.0, &expected.0);
        assert_same("frozen", &got.1, &expected.1);
        assert!(pinned(&next).iter().all(|(_, measured)| !measured), "{:?}", pinned(&next));
        assert_eq!(pinned(&next).len(), 4);
    }
}

#[test]
fn nothing_of_the_callers_changes() {
    let context = open(Autotuning::Measure);
    let inputs = Inputs::new(3, &[2, 3, 20, 20]);
    let mut layer = inputs.layer(&context, OPTIONS.activation(Activation::Relu));
    let running = running_bits(&download_running(&context, layer.running()));
    let (x, dy) = (inputs.place_x(&context), inputs.place_dy(&context));
    let before = [&x, &dy].map(|tensor| bits(&download_buffer(&context, tensor.buffer())));
    let poisoned_like = || poisoned(&context, &inputs.dims, 0);
    let (y, residual, dx, d_residual) = (poisoned_like(), poisoned_like(), poisoned_like(), poisoned_like());
    let dgamma = upload(&context, &[3], &[1.0, 2.0, 3.0]);
    let targets = GradientTargets::default()
        .dx(&dx)
        .d_residual(&d_residual)
        .dgamma(&dgamma)
        .accumulation(Accumulation::Add);
    context.block_on(async {
        let saved = Saved::new(&context, &x).await.unwrap();
        layer.prepare_train_forward(x.with_residual(&residual), &y, Some(&saved)).await.unwrap();
        assert!(saved.download(&context).await.unwrap().iter().all(|saved| saved.inv_std.is_nan()));
        layer.prepare_backward(x.with_residual(&residual), &dy, &saved, &targets).await.unwrap();
        assert_eq!(running_bits(&layer.running().download(&context).await.unwrap()), running);
        let layer = layer.freeze();
        layer.prepare_infer(x.with_residual(&residual), &y).await.unwrap();
        layer.prepare_backward(x.with_residual(&residual), &dy, &targets).await.unwrap();
        assert_eq!(running_bits(&layer.running().download(&context).await.unwrap()), running);
    });
    assert!(pinned(&context).len() == 4 && pinned(&context).iter().all(|(_, measured)| *measured));
    assert_eq!([&x, &dy].map(|tensor| bits(&download_buffer(&context, tensor.buffer()))), before);
    for output in [&y, &dx, &d_residual] {
        assert!(download_guarded(&context, output).iter().all(|value| value.is_nan()));
    }
    assert_eq!(download(&context, &dgamma), [1.0, 2.0, 3.0]);
}

#[test]
fn norms_of_slices_are_measured_too() {
    let lines = [
        "layer 40x64 relu residual backward",
        "group:2 2x6x9x9 backward",
        "rms 24x32 bf16 sum backward",
        "instance 2x3x8x8 last backward",
    ];
    let first = open(Autotuning::Measure);
    let measured = lines.map(|line| assert_holds(&first, line));
    let pins = pinned(&first);
    assert!(pins.iter().all(|(_, measured)| *measured), "{:?}", first.pinned_tunings());
    for wanted in [
        "train_forward f32 channels_first 1x40x64 relu layer norm gamma beta residual",
        "train_backward f32 channels_first 1x40x64 relu layer norm gamma beta residual d_residual",
        "train_forward f32 channels_first 1x12x81 by 3 group norm gamma beta",
        "train_forward bf16 channels_first 1x24x32 RMS norm gamma sum",
        "train_backward f32 channels_last 2x3x64 instance norm gamma beta",
    ] {
        assert!(pins.iter().any(|(problem, _)| problem.starts_with(wanted)), "{wanted}: {pins:#?}");
    }

    // The next process has the same plans, and so the same bits.
    let next = open(Autotuning::Pinned);
    assert_eq!(next.import_tunings(&first.export_tunings()).unwrap().pinned, pins.len());
    for (line, expected) in lines.iter().zip(&measured) {
        assert_same_outcome(line, &assert_holds(&next, line), expected);
    }
}

#[test]
fn every_kind_of_tensor_is_measured_as_it_lies() {
    let context = open(Autotuning::Measure);
    let dims = [2, 6, 12, 8];
    let layer = context.block_on(BatchNorm::new(&context, 4, OPTIONS)).unwrap().freeze();
    let forward = |x: &Tensor, y: &Tensor| {
        context.block_on(layer.prepare_infer(x, y)).unwrap();
        let all = pinned(&context);
        assert!(all.iter().all(|(_, measured)| *measured), "{:?}", context.pinned_tunings());
        all.into_iter().map(|(problem, _)| problem).collect::<Vec<_>>()
    };
    let whole = zeros(&context, &dims);
    let view = whole.slice_channels(1..5).unwrap();
    let y = context.block_on(context.zeros_like(&view)).unwrap();
    // A view and a dense tensor; in place; moved by an element; at different elements; a buffer that ends inside of a word; the
    // last axis; 16 bits.
    assert!(forward(&view, &y)[0].ends_with("apart"));
    assert!(forward(&y, &y).iter().any(|problem| problem.ends_with("in_place")));
    let at = |offset| poisoned(&context, &[2, 4, 12, 8], offset);
    assert!(forward(&at(1), &at(1)).iter().any(|problem| problem.ends_with("phase 1")));
    assert!(forward(&at(1), &at(2)).iter().any(|problem| problem.ends_with("unaligned")));
    let cut = || {
        let buffer = exact_buffer(&context, &[0.0; 4 * 35 + 1]);
        Tensor::from_buffer(&context, buffer, 4, &[1, 4, 35]).unwrap()
    };
    assert!(forward(&cut(), &cut()).iter().any(|problem| problem.ends_with("1x4x35 cut")));
    let last = context
        .block_on(context.zeros_as(&[2, 12, 8, 4], DType::Bf16))
        .unwrap()
        .with_layout(Layout::ChannelsLast);
    assert!(forward(&last, &last).iter().any(|problem| problem.contains("bf16 channels_last")));
}

#[test]
fn what_is_forced_goes_before_what_is_measured() {
    let context = open(Autotuning::Measure);
    let forced = context.with_tuning(Tuning::default().splits(3));
    let (said, splits) = inference(&forced, &zeros(&context, &[6, 3, 8, 8]));
    assert!(said.is_empty() && splits == 3 && pinned(&context).is_empty(), "{said:?}, {splits}");
    assert_eq!(forced.autotuning(), Autotuning::Measure);
}

#[test]
fn tensors_in_several_buffers_are_left_to_the_policy() {
    let context = open(Autotuning::Measure);
    let parts = [zeros(&context, &[1, 3, 8, 8]), zeros(&context, &[1, 3, 8, 8])];
    let x = Tensor::concat(&[&parts[0], &parts[1]]).unwrap();
    let (said, _) = inference(&context, &x);
    assert!(
        said[0].contains("the policy's plan, not measured") && said[0].contains("dispatches"),
        "{said:?}"
    );
    assert!(matches!(context.pinned_tunings()[0].source, TuningSource::Unmeasured { .. }));
    // Nor is it written to files.
    assert!(!context.export_tunings().contains("inference"));
}

#[test]
fn a_pinned_plan_that_is_not_possible_is_the_policys() {
    let context = open(Autotuning::Pinned);
    let text = context.export_tunings() + "inference f32 channels_first 2x3x64 = workgroup_size 1048576\n";
    assert_eq!(context.import_tunings(&text).unwrap().pinned, 1);
    let (said, _) = inference(&context, &zeros(&context, &[2, 3, 8, 8]));
    assert!(said[0].contains("not possible"), "{said:?}");
    let (said, _) = inference(&context, &zeros(&context, &[2, 3, 8, 9]));
    assert!(said[0].contains("none is pinned"), "{said:?}");
}

#[test]
fn checked_shaders_are_a_problem_of_their_own() {
    let checked = checked_context().with_autotuning(Autotuning::Measure);
    inference(&checked, &zeros(&checked, &[2, 3, 4, 31]));
    let all = pinned(&checked);
    assert!(all.contains(&("inference f32 channels_first 2x3x124 checked".to_owned(), true)), "{all:?}");
}

#[test]
fn a_device_without_timestamps_is_measured_by_the_wall_clock() {
    let context = own_context().with_autotuning(Autotuning::Measure);
    assert!(!context.device().features().contains(wgpu::Features::TIMESTAMP_QUERY));
    inference(&context, &zeros(&context, &[2, 3, 8, 8]));
    let [one] = &context.pinned_tunings()[..] else { panic!() };
    assert!(matches!(one.source, TuningSource::Measured { ns, .. } if ns > 0.0), "{one}");
}

/// A file of a test's own that does not exist yet.
fn scratch(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tuning").join(test);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    directory.join("wgnorm.tunings")
}

#[test]
fn files_are_saved_loaded_and_refused() {
    let path = scratch("files");
    let context = open(Autotuning::Measure);
    refused!(context.load_tunings(&path), Error::File { action: "read", .. });
    inference(&context, &zeros(&context, &[2, 3, 8, 8]));
    context.save_tunings(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 5, "{text}");

    // Of another driver: told, ignored, and another adapter's lines are kept when saving.
    let others = text.replace("driver = ", "driver = another ") + "adapter = another\ninference = splits 2\n";
    std::fs::write(&path, others).unwrap();
    let next = open(Autotuning::Pinned);
    let loaded = next.load_tunings(&path).unwrap();
    assert_eq!((loaded.pinned, loaded.ignored.len()), (0, 2), "{loaded:?}");
    assert!(loaded.ignored[0].reason.contains("driver") && loaded.ignored[1].reason.contains("adapter"));
    context.save_tunings(&path).unwrap();
    let both = std::fs::read_to_string(&path).unwrap();
    assert_eq!(both, text + "adapter = another\ninference = splits 2\n");

    for (wrong, lines) in
        [(&b""[..], 0), (b"\xff\xfe\x00", 0), (b"precious\n", 0), (b"# wgnorm tunings 1\nx\n", 1)]
    {
        std::fs::write(&path, wrong).unwrap();
        match next.load_tunings(&path) {
            Ok(loaded) => assert_eq!((loaded.pinned, loaded.ignored.len()), (0, lines)),
            Err(Error::Tunings { .. }) => {
                refused!(next.save_tunings(&path), Error::Tunings { .. });
                assert_eq!(std::fs::read(&path).unwrap(), wrong);
                assert_eq!(lines, 0);
            }
            Err(other) => panic!("{other}"),
        }
    }
    let nowhere = path.join("no such directory");
    refused!(context.save_tunings(&nowhere), Error::File { .. });
}

#[test]
fn threads_that_measure_at_once_agree() {
    let context = open(Autotuning::Measure);
    let inputs = Inputs::new(5, &[2, 3, 16, 16]);
    let results: Vec<_> = std::thread::scope(|scope| {
        let run = || {
            let mut layer = inputs.layer(&context, OPTIONS);
            train(&context, &inputs, &mut layer)
        };
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(pinned(&context).len(), 2);
    for result in &results[1..] {
        assert_same("another thread", result, &results[0]);
    }
}

/// What prepares an operation can be sent to another thread, with autotuning as without.
#[test]
fn futures_can_be_sent() {
    fn sent<T: Send>(future: T) -> T {
        future
    }
    let context = open(Autotuning::Off);
    let x = zeros(&context, &[2, 3, 4]);
    let mut layer = Inputs::new(1, &[2, 3, 4]).layer(&context, OPTIONS);
    let (y, saved) = context.block_on(sent(layer.train_forward(&x))).unwrap();
    context.block_on(sent(layer.backward(&x, &y, &saved))).unwrap();
    let layer = layer.freeze();
    context.block_on(sent(layer.infer(&x))).unwrap();
    context.block_on(sent(layer.backward(&x, &y))).unwrap();
}
