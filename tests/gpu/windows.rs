//! Tensors larger than a binding, in several buffers, and views: the same bits as one dense tensor in one window.

use wgnorm::eval::{Outcome, layout};
use wgnorm::statistics::Moments;
use wgnorm::tuning::Tuning;
use wgnorm::{Activation, BatchNorm, BatchNormOptions, Context, DType, Error, Layout, Spec, Tensor};

use crate::support::{
    assert_holds, assert_same_outcome, context, few_contexts, own_device, refused, tuned, values,
};

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();

/// Shapes that are cut in every way: whole samples, slices of a sample, tiles of a slice, rows, rows as one, one run.
const SHAPES: [&str; 9] = [
    "6x5x7x9",
    "2x6x33x5",
    "2x2x51x31",
    "2x2x60x32",
    "6x8x5x7 last",
    "6x5x31x9 last",
    "700x3",
    "700x4",
    "3x1x45x15",
];

/// Training and frozen.
fn both(context: &Context, words: &str) -> [Outcome; 2] {
    ["batch", "frozen"].map(|norm| assert_holds(context, &format!("{norm} {words} backward")))
}

/// The plan of the moments of a tensor like x.
fn plan_of(context: &Context, words: &str, parts: bool) -> wgnorm::tuning::Plan {
    let spec: Spec = format!("batch {words}").parse().unwrap();
    let zeros = |samples: usize| {
        let mut dims = spec.shape.clone();
        dims[0] = samples;
        let memory = layout::memory_dims(spec.layout, &dims);
        context.block_on(context.zeros_as(&memory, spec.dtype)).unwrap().with_layout(spec.layout)
    };
    let cut = spec.shape[0] / 2;
    let x = match parts {
        true => Tensor::concat(&[&zeros(cut), &zeros(spec.shape[0] - cut)]).unwrap(),
        false => zeros(spec.shape[0]),
    };
    context.block_on(Moments::prepare(context, &x)).unwrap().1.plan().unwrap().clone()
}

#[test]
#[ignore = "of the full gate: the table holds these to the reference; that bits are the same is seen only here"]
fn windows_give_the_bits_of_one() {
    for (name, context) in few_contexts() {
        for shape in SHAPES {
            for fused in ["relu residual", "f16"] {
                let words = format!("{shape} {fused}");
                let tuning = *context.tuning();
                let small = context.with_tuning(tuning.window_bytes(1200));
                let plan = plan_of(&small, &words, false);
                assert!(plan.windows.len() > 1, "{name}: {plan}");
                let whole = context.with_tuning(tuning.tile(plan.tile_words));
                assert_eq!(plan_of(&whole, &words, false).windows.len(), 1);
                for (windowed, whole) in both(&small, &words).iter().zip(&both(&whole, &words)) {
                    assert_same_outcome(&format!("{name} {words}"), windowed, whole);
                }
            }
        }
    }
}

#[test]
fn parts_give_the_bits_of_one_buffer() {
    let context = context();
    let mut compared = 0;
    for shape in SHAPES {
        for dtype in ["f32", "bf16"] {
            let words = format!("{shape} {dtype} relu residual");
            let plan = plan_of(&context, &words, true);
            assert_eq!(plan.windows.len(), 2);
            let whole = context.with_tuning(Tuning::default().tile(plan.tile_words));
            let whole = both(&whole, &words);
            for (parts, whole) in both(&context, &format!("{words} parts")).iter().zip(&whole) {
                // A part that begins elsewhere in a word than it would in one buffer has other words.
                let spec: Spec = format!("batch {words}").parse().unwrap();
                let sample: usize = spec.shape[1..].iter().product();
                if (spec.shape[0] / 2 * sample).is_multiple_of(4) {
                    assert_same_outcome(&words, parts, whole);
                    compared += 1;
                }
            }
        }
    }
    assert!(compared >= 12, "{compared}");
}

#[test]
fn tensors_of_an_operation_lie_in_different_ways() {
    let context = context();
    for shape in SHAPES {
        for words in ["relu residual mixed", "f16 relu residual mixed", "in_place mixed"] {
            both(&context, &format!("{shape} {words}"));
        }
    }
}

#[test]
#[ignore = "of the full gate: the table has each of these, if not all together"]
fn views_agree_with_the_reference() {
    let context = context();
    for shape in SHAPES {
        for place in ["view=4,4", "view=1,2", "gaps=3", "gaps=8"] {
            for words in ["relu residual", "f16 relu residual", "in_place"] {
                both(&context, &format!("{shape} {place} {words}"));
            }
        }
    }
}

#[test]
fn views_in_windows() {
    let small = tuned("window_bytes=2400");
    for shape in SHAPES {
        // And gaps that no window reaches over.
        for place in ["view=4,8", "gaps=4", "gaps=1", "gaps=1000"] {
            both(&small, &format!("{shape} {place}"));
        }
    }
}

#[test]
fn a_concatenation_of_channels_without_a_copy() {
    // Two layers write next to each other, a third reads what both have written.
    let context = context();
    context.block_on(async {
        let all = context.zeros(&[2, 12, 3, 3]).await.unwrap();
        let (left, right) = (all.slice_channels(0..8).unwrap(), all.slice_channels(8..12).unwrap());
        let a = context.upload(&[2, 8, 3, 3], &values(1, 144, 0.0, 1.0)).await.unwrap();
        let b = context.upload(&[2, 4, 3, 3], &values(2, 72, 0.0, 1.0)).await.unwrap();
        for (x, y, channels) in [(&a, &left, 8), (&b, &right, 4)] {
            let layer = BatchNorm::new(&context, channels, OPTIONS).await.unwrap();
            let forward = layer.prepare_train_forward_untracked(x, y, None).await.unwrap();
            context.submit(&[&forward]).await.unwrap();
            let dense = layer.train_forward_untracked(x).await.unwrap().0;
            assert_eq!(context.download(y).await.unwrap(), context.download(&dense).await.unwrap());
        }
        let both = context.download(&all).await.unwrap();
        let left = context.download(&left).await.unwrap();
        assert_eq!(both[..72], left[..72]);
        assert_eq!(both[108..180], left[72..]);
    });
}

#[test]
fn views_that_lie_between_each_other() {
    // x, residual and y are channels of one tensor, as dy and dx are.
    let context = context();
    for (layout, dims) in [
        (Layout::ChannelsFirst, [3, 16, 5, 5]),
        (Layout::ChannelsLast, [3, 5, 5, 16]),
        (Layout::ChannelsFirst, [3, 16, 2, 2]),
    ] {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            for (first, second) in [(0..4, 8..12), (9..14, 2..7)] {
                context.block_on(async {
                    let data = values(3, 3 * 16 * dims.iter().product::<usize>() / 48, 0.3, 1.0);
                    let all = context.upload_as(&dims, &data, dtype).await.unwrap().with_layout(layout);
                    let gradients = context.upload_as(&dims, &data, dtype).await.unwrap().with_layout(layout);
                    let (x, y) = (
                        all.slice_channels(first.clone()).unwrap(),
                        all.slice_channels(second.clone()).unwrap(),
                    );
                    let (dy, dx) = (
                        gradients.slice_channels(first.clone()).unwrap(),
                        gradients.slice_channels(second.clone()).unwrap(),
                    );
                    let dense = async |view: &Tensor| {
                        let values = context.download(view).await.unwrap();
                        let tensor = context.upload_as(view.shape().dims(), &values, dtype).await.unwrap();
                        tensor.with_layout(layout)
                    };
                    let (x_dense, dy_dense) = (dense(&x).await, dense(&dy).await);
                    let options = OPTIONS.activation(Activation::Silu);
                    let layer = BatchNorm::new(&context, first.len(), options).await.unwrap();
                    let (expected, saved) = layer.train_forward_untracked(&x_dense).await.unwrap();
                    let expected_dx = layer.backward(&x_dense, &dy_dense, &saved).await.unwrap().dx;
                    let before = context.download(&all).await.unwrap();

                    let saved = wgnorm::Saved::new(&context, &x).await.unwrap();
                    let forward = layer.prepare_train_forward_untracked(&x, &y, Some(&saved)).await.unwrap();
                    let targets = wgnorm::GradientTargets::default().dx(&dx);
                    let backward = layer.prepare_backward(&x, &dy, &saved, &targets).await.unwrap();
                    context.submit(&[&forward, &backward]).await.unwrap();
                    // The plans may differ, and so the last bits.
                    for (got, expected) in [(&y, &expected), (&dx, &expected_dx)] {
                        let (got, expected) =
                            (context.download(got).await.unwrap(), context.download(expected).await.unwrap());
                        let unit = dtype.unit_roundoff() as f32;
                        for (got, expected) in got.iter().zip(&expected) {
                            assert!(
                                (got - expected).abs() <= 32.0 * unit * (1.0 + expected.abs()),
                                "{got} {expected}"
                            );
                        }
                    }
                    // Nothing but y has changed.
                    let after = all.slice_channels(0..16).unwrap();
                    let after = context.download(&after).await.unwrap();
                    let view = all.channels().unwrap();
                    for (i, (before, after)) in before.iter().zip(&after).enumerate() {
                        let channel = view.channel_of(i as u64) as usize;
                        assert!(second.contains(&channel) || before == after, "{i}");
                    }
                    // Views that share a channel are refused.
                    let start = if first.end + 3 <= 16 { first.start + 3 } else { first.start - 3 };
                    let more = all.slice_channels(start..start + first.len()).unwrap();
                    refused!(
                        layer.prepare_train_forward_untracked(&x, &more, None).await,
                        Error::Overlap { .. }
                    );
                });
            }
        }
    }
}

#[test]
fn parts_that_lie_between_others_in_some_buffers() {
    // x and y share the buffer of their first samples, not that of the others.
    let context = context();
    context.block_on(async {
        let data = values(9, 2 * 8 * 4, 0.3, 1.0);
        let one = async |seed| context.upload(&[2, 8, 4], &values(seed, 64, 0.3, 1.0)).await.unwrap();
        let (a, b, c) = (one(1).await, one(2).await, one(3).await);
        let left = |tensor: &Tensor| tensor.slice_channels(0..4).unwrap();
        let right = |tensor: &Tensor| tensor.slice_channels(4..8).unwrap();
        let x = Tensor::concat(&[&left(&a), &left(&b)]).unwrap();
        let before: Vec<f32> = context.download(&right(&b)).await.unwrap();
        for y in [[&a, &c], [&c, &a]] {
            let y = Tensor::concat(&[&right(y[0]), &right(y[1])]).unwrap();
            let dense = context.upload(&[4, 4, 4], &context.download(&x).await.unwrap()).await.unwrap();
            let layer = BatchNorm::new(&context, 4, OPTIONS).await.unwrap();
            let expected = layer.train_forward_untracked(&dense).await.unwrap().0;
            let forward = layer.prepare_train_forward_untracked(&x, &y, None).await.unwrap();
            context.submit(&[&forward]).await.unwrap();
            let (got, expected) =
                (context.download(&y).await.unwrap(), context.download(&expected).await.unwrap());
            assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} {expected:?}");
            assert_eq!(context.download(&right(&b)).await.unwrap(), before);
        }
        // What is written must not lie twice in the same memory; what is read may.
        let x = context.upload(&[2, 8, 4], &data).await.unwrap();
        let twice = Tensor::concat(&[&x, &x]).unwrap();
        let layer = BatchNorm::new(&context, 8, OPTIONS).await.unwrap();
        refused!(
            layer.prepare_train_forward_untracked(&twice, &twice, None).await,
            Error::Overlap { first: "y", second: "y", .. }
        );
        assert!(layer.train_forward_untracked(&twice).await.is_ok());
        // Rows of one sample that are rows of the next.
        let buffer = context.zeros(&[64]).await.unwrap().buffer().clone();
        let whole = Tensor::from_strided_buffer(&context, buffer, 0, &[3, 2, 4], DType::F32, 10).unwrap();
        let view = whole.with_layout(Layout::ChannelsLast).slice_channels(0..2).unwrap();
        let (x, y) = (view.slice_samples(0..2).unwrap(), view.slice_samples(1..3).unwrap());
        let layer = BatchNorm::new(&context, 2, OPTIONS).await.unwrap();
        refused!(layer.prepare_train_forward_untracked(&x, &y, None).await, Error::Overlap { .. });
    });
}

#[test]
fn an_input_between_two_outputs_is_refused() {
    let context = context();
    context.block_on(async {
        let all = context.zeros(&[2, 12, 3, 3]).await.unwrap();
        let [dy, dx, d_residual] = [0..4, 4..8, 8..12].map(|range| all.slice_channels(range).unwrap());
        let x = context.zeros(&[2, 4, 3, 3]).await.unwrap();
        let options = OPTIONS.activation(Activation::Relu);
        let layer = BatchNorm::new(&context, 4, options).await.unwrap().freeze();
        let targets = wgnorm::GradientTargets::default().dx(&dx).d_residual(&d_residual);
        refused!(
            layer.prepare_backward(x.with_residual(&x), &dy, &targets).await,
            Error::Between { input: "dy", first: "dx", second: "d_residual" }
        );
    });
}

#[test]
fn distances_that_no_element_depends_on() {
    let context = context();
    let buffer = context.block_on(context.zeros(&[64])).unwrap().buffer().clone();
    let strided = |dims: &[usize], stride| {
        Tensor::from_strided_buffer(&context, buffer.clone(), 0, dims, DType::F32, stride)
    };
    let one = strided(&[1, 3, 4, 4], u64::MAX).unwrap();
    assert!(one.is_contiguous());
    refused!(strided(&[2, 3, 4, 1], u64::MAX), Error::BufferTooSmall { .. });
    let view = context.block_on(context.zeros(&[1, 8, 3, 3])).unwrap().slice_channels(2..6).unwrap();
    assert!(view.is_contiguous());
    let dense = context.block_on(context.zeros(&[2, 4, 3, 3])).unwrap();
    assert_eq!(Tensor::concat(&[&view, &dense]).unwrap().shape().dims(), [3, 4, 3, 3]);
    let matrix = context.block_on(context.zeros(&[4, 10])).unwrap();
    let (slice, same) = (matrix.slice_channels(0..4).unwrap(), strided(&[4, 4], 10).unwrap());
    assert_eq!(Tensor::concat(&[&slice, &same]).unwrap().shape().dims(), [8, 4]);
    let none = context.block_on(context.zeros(&[1 << 59, 0])).unwrap();
    refused!(Tensor::concat(&[&none; 33]), Error::Shape { .. } | Error::TooLarge { .. });
}

#[test]
fn slices_that_do_not_exist() {
    let context = context();
    let x = context.block_on(context.zeros(&[2, 6, 4])).unwrap();
    #[expect(clippy::reversed_empty_ranges, reason = "refused")]
    for range in [0..7, 3..3, 4..2] {
        refused!(x.slice_channels(range), Error::Range { what: "channels", len: 6, .. });
    }
    refused!(x.slice_samples(0..3), Error::Range { what: "samples", len: 2, .. });
    assert_eq!(x.slice_samples(1..1).unwrap().shape().len(), 0);
    assert_eq!(x.slice_samples(1..2).unwrap().byte_offset(), 96);
    refused!(Tensor::concat(&[]), Error::Empty { .. });
    let other = context.block_on(context.zeros(&[2, 5, 4])).unwrap();
    refused!(Tensor::concat(&[&x, &other]), Error::Shape { .. });
    let half = context.block_on(context.zeros_as(&[2, 6, 4], DType::F16)).unwrap();
    refused!(Tensor::concat(&[&x, &half]), Error::DType { .. });
    refused!(
        Tensor::concat(&[&x, &x.slice_channels(0..6).unwrap().with_layout(Layout::ChannelsLast)]),
        Error::Layout { .. }
    );
    // A view of channels-last channels is no channels-first tensor.
    let last = context.block_on(context.zeros(&[2, 4, 6])).unwrap().with_layout(Layout::ChannelsLast);
    let view = last.slice_channels(0..3).unwrap().with_layout(Layout::ChannelsFirst);
    refused!(context.block_on(Moments::of(&context, &view)), Error::Strides { .. });
    let buffer = x.buffer().clone();
    refused!(
        Tensor::from_strided_buffer(&context, buffer.clone(), 0, &[2, 6, 4], DType::F32, 23),
        Error::Strides { expected: 24, got: 23, .. }
    );
    refused!(
        Tensor::from_strided_buffer(&context, buffer, 0, &[2, 6, 4], DType::F32, 25),
        Error::BufferTooSmall { needed: 196, .. }
    );
}

/// As [`Tuning::binding_bytes`] has it, on a device that has no more: nothing of it may be bound.
#[test]
fn a_device_with_small_bindings_works_in_parts() {
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 20, ..wgpu::Limits::default() };
    let (device, queue) = own_device(limits);
    let context = Context::from_wgpu(device, queue).unwrap();
    assert_eq!(context.capabilities().max_binding_bytes, 1 << 20);
    for line in [
        "batch 2x40000x2 backward",
        "frozen 3x90000 backward",
        "layer 60000x4 added backward",
        "layer 2x300000 added backward",
        "group:20000 2x60000x2 added backward",
        "scale 70000x4 added backward",
    ] {
        assert_holds(&context, line);
    }
}

#[test]
fn tensors_that_overlap_are_refused_in_parts_too() {
    let context = context().with_tuning(Tuning::default().binding_bytes(16384));
    let layer = context.block_on(BatchNorm::new(&context, 900, OPTIONS)).unwrap();
    let room = context.block_on(context.zeros(&[2 * 3 * 900 * 5])).unwrap();
    let at =
        |offset: u64| Tensor::from_buffer(&context, room.buffer().clone(), offset, &[3, 900, 5]).unwrap();
    // The second half of one lies over the first of the other.
    let (x, y) = (at(0), at(900 * 5 * 2 * 4));
    let prepared = context.block_on(layer.prepare_train_forward_untracked(&x, &y, None));
    refused!(prepared, Error::Overlap { .. });
    let apart = at(3 * 900 * 5 * 4);
    let prepared = context.block_on(layer.prepare_train_forward_untracked(&x, &apart, None)).unwrap();
    assert!(prepared.plan().unwrap().reasons.iter().any(|reason| reason.contains("in parts")));
    let reductions = prepared.kernels().filter(|kernel| kernel.starts_with("reduce_moments")).count();
    assert!(reductions > 2, "{:?}", prepared.kernels().collect::<Vec<_>>());
}
