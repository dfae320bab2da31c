//! Layouts and phases: channels last, tensors that begin and buffers that end at any element, tiny and many slices.

use wgnorm::statistics::Moments;
use wgnorm::tuning::{Plan, Tuning, WalkKind, prepare_copy};
use wgnorm::{BatchNormOptions, Context, GradientTargets, Layout, Prepared, Saved, TrainForward};

use crate::support::*;

const FIRST: Layout = Layout::ChannelsFirst;
const LAST: Layout = Layout::ChannelsLast;
/// One row is one value per channel.
const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch().allow_single_value(true);
const EPS: f64 = 1e-5;

/// `[N, .., C]` of a rank, with so many values per channel.
fn matrix(rows: usize, channels: usize, rank: usize) -> Vec<usize> {
    let (mut dims, mut rest) = (Vec::new(), rows);
    for _ in 2..rank {
        let factor = (2..=rest).find(|&factor| rest.is_multiple_of(factor)).unwrap_or(1);
        dims.push(factor);
        rest /= factor;
    }
    dims.extend([rest, channels]);
    dims
}

/// Training and frozen operations agree with the reference.
#[track_caller]
fn assert_layer(what: &str, context: &Context, inputs: &Inputs) -> Outputs {
    let mut layer = inputs.layer(context, OPTIONS);
    let got = train(context, inputs, &mut layer);
    assert_train(what, inputs, EPS, &got);
    assert_running(what, inputs, &download_running(context, layer.running()));
    assert_frozen(what, inputs, EPS, &frozen(context, inputs, OPTIONS));
    got
}

/// Moments agree with the reference, and normalizing with them gives the bits of a training pass.
#[track_caller]
fn assert_moments_serve(what: &str, context: &Context, inputs: &Inputs, trained: &Outputs) {
    let x = inputs.place_x(context);
    let y = inputs.places()[2].poisoned(context, &inputs.dims);
    let mut layer = inputs.layer(context, OPTIONS);
    let moments = context.block_on(async {
        let moments = Moments::of(context, &x).await.unwrap();
        let forward = layer.prepare_train_forward(x.with_moments(&moments), &y, None).await.unwrap();
        let mut encoder = context.device().create_command_encoder(&Default::default());
        forward.record(&mut layer, &mut encoder).unwrap();
        context.queue().submit([encoder.finish()]);
        moments.download(context).await.unwrap()
    });
    assert_moments(what, inputs.view(), &inputs.x, &moments);
    assert_bits(&format!("{what}: y from moments"), &download_guarded(context, &y), &trained.y);
}

/// The plan of inference.
fn plan_of(context: &Context, inputs: &Inputs) -> Plan {
    let layer = inputs.layer(context, OPTIONS).freeze();
    let y = inputs.places()[2].poisoned(context, &inputs.dims);
    let forward = context.block_on(layer.prepare_infer(&inputs.place_x(context), &y)).unwrap();
    forward.plan().unwrap().clone()
}

const CHANNELS: [usize; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 31, 32, 64, 129, 256, 260];
const ROWS: [usize; 7] = [1, 2, 3, 5, 64, 65, 1000];

#[test]
fn channels_last_agrees_with_the_reference() {
    // The first plan takes all pairs, the others take turns.
    for (turn, (name, context)) in column_contexts().into_iter().enumerate() {
        for (i, channels) in CHANNELS.into_iter().enumerate() {
            for (j, rows) in ROWS.into_iter().enumerate() {
                if turn != 0 && !(i + j + turn).is_multiple_of(5) {
                    continue;
                }
                let dims = matrix(rows, channels, 2 + (i + 3 * j + turn) % 4);
                let inputs = Inputs::of(50 + (i + 20 * j) as u64, &dims, LAST);
                assert_eq!(inputs.view().count(), rows as u64);
                let what = format!("{dims:?} {name}");
                let got = assert_layer(&what, &context, &inputs);
                assert_moments_serve(&what, &context, &inputs, &got);
            }
        }
    }
}

#[test]
fn the_policy_agrees_with_the_reference_in_channels_last() {
    // Teams of 8 rows and of one.
    for (i, channels) in [2, 4, 5, 7, 31, 129, 260].into_iter().enumerate() {
        for (j, rows) in [2, 65, 1000].into_iter().enumerate() {
            let dims = matrix(rows, channels, 2 + (i + j) % 4);
            let inputs = Inputs { offset: (i + j) % 4, ..Inputs::of(70 + i as u64, &dims, LAST) };
            let what = format!("{dims:?} offset {}", inputs.offset);
            let got = assert_layer(&what, &context(), &inputs);
            assert_moments_serve(&what, &context(), &inputs, &got);
        }
    }
}

#[test]
#[ignore = "of the full gate: long strips take long to compile"]
fn long_strips() {
    // Rows of 64 words, 8 teams of 8 words each on a CPU; the same with words of one value; rows of 128 words, 8 of 16.
    let context = context();
    let forced = |tuning| context.with_tuning(tuning);
    let narrow = forced(Tuning::default().width(1).strip(8));
    let longest = forced(Tuning::default().strip(16));
    for (context, channels, strip) in [(context.clone(), 256, 8), (narrow, 64, 8), (longest, 512, 16)] {
        for rows in [9, 65] {
            let inputs = Inputs::of(71, &[rows, channels], LAST);
            let plan = plan_of(&context, &inputs);
            assert!(plan.strip == strip || !context.capabilities().cpu, "{plan}");
            let got = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS));
            assert_train(&format!("{rows} x {channels}"), &inputs, EPS, &got);
        }
    }
}

#[test]
fn strips_may_be_longer_than_what_is_left_of_a_row() {
    for (rows, channels) in [(70, 1000), (256, 100), (300, 36), (40, 252)] {
        let inputs = Inputs::new(channels as u64, &[rows, channels]);
        let plan = plan_of(&context(), &inputs);
        let lanes = plan.workgroup_size / plan.team_size * plan.strip;
        // Only adapters whose policy takes strips have any.
        assert!(plan.strip == 1 || plan.edges || plan.windows[0].run_words.is_multiple_of(lanes), "{plan}");
        assert_layer(&format!("{rows} x {channels}"), &context(), &inputs);
    }
}

#[test]
fn every_rank_has_both_layouts() {
    let (_, context) = column_contexts().swap_remove(0);
    for rank in 2..=5 {
        let last = matrix(30, 5, rank);
        let mut first = last.clone();
        let channels = first.pop().unwrap();
        first.insert(1, channels);
        for (layout, dims) in [(FIRST, first), (LAST, last)] {
            let inputs = Inputs::of(rank as u64, &dims, layout);
            assert_eq!(inputs.channels(), 5);
            assert_layer(&format!("{layout} {dims:?}"), &context, &inputs);
        }
    }
}

#[test]
fn a_matrix_is_the_same_in_both_layouts() {
    for (name, context) in column_contexts() {
        for (dims, offset) in [([65, 5], 0), ([33, 7], 1), ([40, 8], 3), ([9, 1], 2)] {
            let first = Inputs { offset, ..Inputs::of(8, &dims, FIRST) };
            let last = Inputs { layout: LAST, ..first.clone() };
            let what = format!("{dims:?} {name} offset {offset}");
            let run = |inputs: &Inputs| {
                let mut layer = inputs.layer(&context, OPTIONS);
                let got = train(&context, inputs, &mut layer);
                (got, running_bits(&download_running(&context, layer.running())))
            };
            let ((a, running_a), (b, running_b)) = (run(&first), run(&last));
            assert_train(&what, &last, EPS, &b);
            assert_same(&what, &a, &b);
            assert_eq!(running_a, running_b, "{what}");
            let [a, b] = [&first, &last].map(|inputs| frozen(&context, inputs, OPTIONS));
            assert_same(&what, &a, &b);
        }
    }
}

#[test]
fn a_matrix_of_either_layout_goes_with_the_other() {
    let context = context();
    let inputs = Inputs::new(9, &[6, 3]);
    let expected = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS));
    let expected_frozen = frozen(&context, &inputs, OPTIONS);
    let layer = inputs.layer(&context, OPTIONS);
    let (x, dy) = (inputs.place_x(&context), inputs.place_dy(&context).with_layout(LAST));
    let y = poisoned(&context, &inputs.dims, 0).with_layout(LAST);
    let dx = poisoned(&context, &inputs.dims, 0).with_layout(LAST);
    let targets = GradientTargets::default().dx(&dx);
    context.block_on(async {
        let saved = Saved::new(&context, &x.clone().with_layout(LAST)).await.unwrap();
        let forward = layer.prepare_train_forward_untracked(&x, &y, Some(&saved)).await.unwrap();
        let backward = layer.prepare_backward(&x, &dy, &saved, &targets).await.unwrap();
        context.submit(&[&forward, &backward]).await.unwrap();
    });
    assert_bits("y", &download_guarded(&context, &y), &expected.y);
    assert_bits("dx", &download_guarded(&context, &dx), &expected.dx);
    let layer = layer.freeze();
    context.block_on(async {
        let forward = layer.prepare_infer(&x, &y).await.unwrap();
        let backward = layer.prepare_backward(&x, &dy, &targets).await.unwrap();
        context.submit(&[&forward, &backward]).await.unwrap();
    });
    assert_bits("y", &download_guarded(&context, &y), &expected_frozen.y);
    assert_bits("dx", &download_guarded(&context, &dx), &expected_frozen.dx);
}

#[test]
fn results_have_the_layout_of_their_inputs() {
    let context = context();
    for layout in [FIRST, LAST] {
        let inputs = Inputs::of(10, &[2, 3, 4, 3], layout);
        let (x, dy) = (inputs.upload_x(&context), inputs.upload_dy(&context));
        let mut layer = inputs.layer(&context, OPTIONS);
        let zeros = context.block_on(context.zeros_like(&x)).unwrap();
        assert_eq!((zeros.shape(), zeros.layout()), (x.shape(), layout));
        assert_eq!(download(&context, &zeros), [0.0; 72]);
        context.block_on(async {
            let (y, saved) = layer.train_forward(&x).await.unwrap();
            assert_eq!((y.shape(), y.layout()), (x.shape(), layout));
            let gradients = layer.backward(&x, &dy, &saved).await.unwrap();
            assert_eq!((gradients.dx.shape(), gradients.dx.layout()), (x.shape(), layout));
            let moments = Moments::of(&context, &x).await.unwrap();
            assert_eq!(moments.count(), Some(24));
            assert_eq!(layer.train_forward(x.with_moments(&moments)).await.unwrap().0.layout(), layout);
            let layer = layer.freeze();
            assert_eq!(layer.infer(&x).await.unwrap().layout(), layout);
            assert_eq!(layer.backward(&x, &dy).await.unwrap().dx.layout(), layout);
        });
    }
}

#[test]
fn runs_begin_anywhere_in_a_word() {
    let inners = [3, 4, 5, 7, 9, 49, 50, 51, 63, 64, 65];
    for (turn, (name, context)) in contexts().into_iter().enumerate() {
        for (i, inner) in inners.into_iter().enumerate() {
            for offset in 0..4 {
                for (j, channels) in [3, 5, 1, 2].into_iter().enumerate() {
                    if turn != 0 && !(i + j + turn).is_multiple_of(4) {
                        continue;
                    }
                    let dims = [1 + (i + offset + turn) % 3, channels, inner];
                    let inputs = Inputs { offset, ..Inputs::new((i * 40 + offset) as u64, &dims) };
                    let what = format!("{dims:?} {name} offset {offset}");
                    let got = assert_layer(&what, &context, &inputs);
                    assert_moments_serve(&what, &context, &inputs, &got);
                }
            }
        }
    }
    let edges = plan_of(&context(), &Inputs { offset: 1, ..Inputs::new(1, &[2, 3, 64]) });
    assert_eq!(
        (edges.walk, edges.width, edges.edges, edges.windows[0].phase),
        (WalkKind::Segments, 4, true, 1)
    );
}

#[test]
fn columns_begin_anywhere_in_a_word() {
    for (turn, (name, context)) in column_contexts().into_iter().enumerate() {
        for (i, channels) in [1, 2, 3, 4, 5, 6, 7, 8, 31, 33, 64].into_iter().enumerate() {
            for offset in 0..4 {
                for (j, rows) in [1, 2, 5, 65, 130].into_iter().enumerate() {
                    if turn != 0 && !(i + j + turn + offset).is_multiple_of(5) {
                        continue;
                    }
                    let dims = matrix(rows, channels, 2 + (i + j) % 3);
                    let inputs = Inputs { offset, ..Inputs::of((i * 40 + j) as u64, &dims, LAST) };
                    let what = format!("{dims:?} {name} offset {offset}");
                    let got = assert_layer(&what, &context, &inputs);
                    assert_moments_serve(&what, &context, &inputs, &got);
                }
            }
        }
    }
    let edges = plan_of(&context(), &Inputs { offset: 3, ..Inputs::of(1, &[6, 2, 260], LAST) });
    assert_eq!(
        (edges.walk, edges.width, edges.edges, edges.windows[0].phase),
        (WalkKind::Columns, 4, true, 3)
    );
}

#[test]
fn tensors_may_begin_at_different_elements() {
    let skews = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 3], [0, 1, 2, 3], [2, 1, 1, 2]];
    for (name, context) in column_contexts() {
        for (layout, dims) in
            [(FIRST, &[2, 3, 4, 4][..]), (FIRST, &[3, 5, 7]), (LAST, &[3, 4, 5]), (LAST, &[9, 4, 8])]
        {
            for (i, skew) in skews.into_iter().enumerate() {
                let inputs = Inputs { skew, offset: i % 2, ..Inputs::of(i as u64, dims, layout) };
                let what = format!("{layout} {dims:?} {name} moved by {skew:?}");
                assert_layer(&what, &context, &inputs);
                let same = skew[0] == skew[2];
                let plan = plan_of(&context, &inputs);
                assert!((plan.width == 4) == (same && name != "scalar"), "{what}: {plan}");
                // Whole words apart they are alike.
                let inputs = Inputs { skew: skew.map(|skew| 4 * skew), ..inputs };
                let plan = plan_of(&context, &inputs);
                assert!((plan.width == 4) == (name != "scalar"), "{what}: {plan}");
                if i == 4 {
                    assert_layer(&format!("{what} words"), &context, &inputs);
                }
            }
        }
    }
}

#[test]
fn a_buffer_may_end_with_its_tensor() {
    let (_, context) = column_contexts().swap_remove(0);
    // 0 to 3 values beyond whole words.
    let shapes: [(Layout, &[usize]); 10] = [
        (FIRST, &[2, 3, 4]),
        (FIRST, &[3, 5, 3]),
        (FIRST, &[2, 3, 7]),
        (FIRST, &[1, 3, 65]),
        (FIRST, &[1, 1, 1001]),
        (LAST, &[4, 5]),
        (LAST, &[3, 1, 7]),
        (LAST, &[5, 2, 3]),
        (LAST, &[3, 5]),
        (LAST, &[3, 11, 2, 33]),
    ];
    let mut seen = [0; 4];
    for (layout, dims) in shapes {
        for offset in 0..4 {
            let inputs = Inputs { offset, tail: 0, ..Inputs::of(11, dims, layout) };
            let beyond = (offset + inputs.x.len()) % 4;
            seen[beyond] += 1;
            let what = format!("{layout} {dims:?} offset {offset}");
            let plan = plan_of(&context, &inputs);
            assert_eq!(plan.width, if beyond == 0 { 4 } else { 1 }, "{what}: {plan}");
            let cut = plan.reasons.iter().any(|reason| reason.contains("a buffer ends inside"));
            assert_eq!(cut, beyond != 0, "{what}: {:?}", plan.reasons);
            let got = assert_layer(&what, &context, &inputs);
            assert_moments_serve(&what, &context, &inputs, &got);

            // One element less than the last word needs, and as many.
            let needed = (4 - beyond) % 4;
            if needed > 1 {
                assert_eq!(plan_of(&context, &Inputs { tail: needed - 1, ..inputs.clone() }).width, 1);
            }
            let inputs = Inputs { tail: needed, ..inputs };
            let plan = plan_of(&context, &inputs);
            assert_eq!(plan.width, 4, "{what} and {needed} more: {plan}");
            let got = assert_layer(&format!("{what} and {needed} more"), &context, &inputs);
            assert_moments_serve(&what, &context, &inputs, &got);
        }
    }
    assert!(seen.iter().all(|&count| count > 2), "{seen:?}");
}

#[test]
fn one_tensor_that_is_cut_makes_its_operation_scalar() {
    let (_, context) = column_contexts().swap_remove(0);
    for (layout, dims) in [(FIRST, &[2, 3, 7][..]), (LAST, &[2, 7, 3])] {
        let inputs = Inputs::of(12, dims, layout);
        let layer = inputs.layer(&context, OPTIONS).freeze();
        let cut = Place { tail: 0, ..inputs.places()[0] };
        let (x, y) = (inputs.place_x(&context), inputs.places()[2].poisoned(&context, dims));
        let (cut_x, cut_y) = (cut.placed(&context, dims, &inputs.x), cut.poisoned(&context, dims));
        let width = |x, y| {
            let forward = context.block_on(layer.prepare_infer(x, y)).unwrap();
            submit(&context, &[&forward]);
            forward.plan().unwrap().width
        };
        let expected = frozen(&context, &inputs, OPTIONS).y;
        assert_eq!(width(&x, &y), 4);
        assert_eq!(width(&cut_x, &y), 1);
        assert_bits("y", &download_guarded(&context, &y), &expected);
        assert_eq!(width(&x, &cut_y), 1);
        assert_bits("cut_y", &download_guarded(&context, &cut_y), &expected);
    }
}

#[test]
fn tiny_slices() {
    for (name, context) in few_contexts() {
        for inner in 1..=4 {
            for (samples, channels, offset) in [(1, 5003, 1), (2, 2050, 0), (3, 1999, 2), (5, 64, 3)] {
                let inputs = Inputs { offset, ..Inputs::new(13, &[samples, channels, inner]) };
                assert_layer(&format!("{:?} {name}", inputs.dims), &context, &inputs);
            }
        }
        for (rows, channels, offset) in [(2, 5003, 1), (3, 4096, 0)] {
            let inputs = Inputs { offset, ..Inputs::of(14, &[rows, channels], LAST) };
            assert_layer(&format!("{:?} {name}", inputs.dims), &context, &inputs);
        }
    }
}

#[test]
fn one_channel_of_a_large_map() {
    for (name, context) in few_contexts() {
        for (layout, dims, offset) in
            [(FIRST, [1, 1, 257, 301], 1), (LAST, [2, 129, 301, 1], 3), (LAST, [1, 300, 200, 1], 0)]
        {
            let inputs = Inputs { offset, ..Inputs::of(15, &dims, layout) };
            let what = format!("{layout} {dims:?} {name}");
            let got = assert_layer(&what, &context, &inputs);
            assert_moments_serve(&what, &context, &inputs, &got);
        }
    }
}

#[test]
fn more_workgroups_than_one_dimension_holds() {
    // A team per workgroup.
    let team = Tuning::default().workgroup_size(8).team_size(8).strip(1);
    let context = context().with_tuning(team);
    for (layout, dims, offset) in [
        (FIRST, &[2, 70_000, 2][..], 0),
        (FIRST, &[1, 65_537, 3], 1),
        (LAST, &[2, 65_539], 0),
        (LAST, &[3, 1, 65_537], 3),
    ] {
        let inputs = Inputs { offset, ..Inputs::of(16, dims, layout) };
        let plan = plan_of(&context, &inputs);
        assert!(plan.windows[0].grid[1] > 1, "{plan}");
        let what = format!("{layout} {dims:?}");
        let got = assert_layer(&what, &context, &inputs);
        assert_moments_serve(&what, &context, &inputs, &got);
    }
}

/// Channels of ResNet-18's 20 batch-norm layers.
fn resnet18() -> Vec<usize> {
    let mut channels = vec![64; 5];
    for wide in [128, 256, 512] {
        // Two blocks of two, and the first one's shortcut.
        channels.extend([wide; 5]);
    }
    channels
}

#[test]
fn a_network_prepared_once_and_submitted_at_once() {
    // A device of its own, so that no other test compiles for it.
    let strips = Tuning::default().strip(2);
    let context = headless().with_tuning(strips);
    for layout in [FIRST, LAST] {
        let inputs: Vec<_> = resnet18()
            .into_iter()
            .enumerate()
            .map(|(i, c)| {
                let side = [3, 4, 2][i % 3];
                let dims = if layout == FIRST { [2, c, side, side] } else { [2, side, side, c] };
                let offset = if layout == FIRST { i % 2 } else { 0 };
                Inputs { offset, ..Inputs::of(100 + i as u64, &dims, layout) }
            })
            .collect();
        struct Step {
            layer: wgnorm::BatchNorm,
            forward: TrainForward,
            backward: Prepared,
            outputs: [wgnorm::Tensor; 4],
        }
        let mut steps: Vec<_> = inputs
            .iter()
            .map(|inputs| {
                let mut layer = inputs.layer(&context, OPTIONS);
                let (x, dy) = (inputs.place_x(&context), inputs.place_dy(&context));
                let per_channel = || inputs.place_per_channel().poisoned(&context, &[inputs.channels()]);
                let outputs = [
                    inputs.places()[2].poisoned(&context, &inputs.dims),
                    inputs.places()[3].poisoned(&context, &inputs.dims),
                    per_channel(),
                    per_channel(),
                ];
                let [y, dx, dgamma, dbeta] = &outputs;
                let targets = GradientTargets::default().dx(dx).dgamma(dgamma).dbeta(dbeta);
                let (forward, backward) = context.block_on(async {
                    let saved = Saved::new(&context, &x).await.unwrap();
                    let forward = layer.prepare_train_forward(&x, y, Some(&saved)).await.unwrap();
                    let backward = layer.prepare_backward(&x, &dy, &saved, &targets).await.unwrap();
                    (forward, backward)
                });
                Step { layer, forward, backward, outputs }
            })
            .collect();
        let kernels = context.compiled_kernels();
        for pass in 0..2 {
            let mut encoder = context.device().create_command_encoder(&Default::default());
            for step in &mut steps {
                step.forward.record(&mut step.layer, &mut encoder).unwrap();
            }
            for step in steps.iter().rev() {
                step.backward.record(&mut encoder);
            }
            context.queue().submit([encoder.finish()]);
            assert_eq!(context.compiled_kernels(), kernels);
            for (i, (step, inputs)) in steps.iter().zip(&inputs).enumerate() {
                let what = format!("{layout} layer {i} {:?} pass {pass}", inputs.dims);
                let [y, dx, dgamma, dbeta] = step.outputs.each_ref().map(|t| download_guarded(&context, t));
                let got = Outputs { y, dx, dgamma: Some(dgamma), dbeta: Some(dbeta) };
                let mut layer = inputs.layer(&context, OPTIONS);
                let alone = train(&context, inputs, &mut layer);
                if pass == 0 {
                    assert_train(&what, inputs, EPS, &alone);
                } else {
                    train(&context, inputs, &mut layer);
                }
                assert_same(&what, &got, &alone);
                let [running, expected] = [&step.layer, &layer]
                    .map(|layer| running_bits(&download_running(&context, layer.running())));
                assert_eq!(running, expected, "{what}");
            }
        }
        assert_eq!(context.compiled_kernels(), kernels);
    }
}

#[test]
fn the_last_value_of_an_incomplete_row_has_its_own_channel() {
    // Several rows of words of one value as one, the last of them not full.
    let scalar = Tuning::default().width(1).workgroup_size(8).team_size(1).strip(1);
    let context = context().with_tuning(scalar);
    for (rows, channels) in [(65, 33), (130, 6), (130, 5)] {
        let inputs = Inputs::of(20, &[rows, channels], LAST);
        for run in 0..100 {
            let got = frozen(&context, &inputs, OPTIONS);
            assert_frozen(&format!("{rows} x {channels} run {run}"), &inputs, EPS, &got);
        }
    }
}

#[test]
fn what_is_allocated_begins_where_its_model_does() {
    let context = context();
    for offset in 0..4 {
        let x = placed(&context, &[3, 5, 7], &values(9, 105, 0.0, 1.0), offset);
        let y = context.block_on(context.zeros_like(&x)).unwrap();
        assert_eq!(y.byte_offset(), 4 * offset as u64);
        assert_eq!(download(&context, &y), [0.0; 105]);
        let (_, prepared) = context.block_on(Moments::prepare(&context, &x)).unwrap();
        let copy = context.block_on(prepare_copy(&context, &x, &y)).unwrap();
        assert_eq!(copy.plan().unwrap().width, prepared.plan().unwrap().width);
    }
}
