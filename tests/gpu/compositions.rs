//! Micro-batches, ghost batches and masks are what the operations on the whole batch are: also recorded twice, with 16-bit
//! parameters, without an activation, and in tensors that overlap.

use wgnorm::norm::{CrossIteration, GhostSaved, MicroBatch, MicroBatchGradient};
use wgnorm::statistics::Moments;
use wgnorm::{BatchNorm, BatchNormOptions, DType, Error, GradientTargets, Input, Mask, Saved, Tensor};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();

/// Whatever runs again gives the same again, wherever the empty batch is.
#[test]
fn micro_batches_of_which_one_is_empty_repeat() {
    let context = context();
    let empty = upload(&context, &[0, 2, 3], &[]);
    let a = upload(&context, &[2, 2, 3], &values(1, 12, 0.0, 1.0));
    let b = upload(&context, &[3, 2, 3], &values(2, 18, 5.0, 1.0));
    for xs in [[&empty, &a, &b], [&a, &empty, &b], [&a, &b, &empty]] {
        context.block_on(async {
            let mut layer = BatchNorm::new(&context, 2, OPTIONS).await.unwrap();
            let (mut saved, mut dxs) = (Vec::new(), Vec::new());
            for x in xs {
                saved.push(Saved::new(&context, x).await.unwrap().pooled());
                dxs.push(context.zeros_like(x).await.unwrap());
            }
            let ys = dxs.clone();
            let batches: Vec<_> =
                (0..3).map(|i| MicroBatch { input: xs[i].into(), y: &ys[i], saved: &saved[i] }).collect();
            let gradients: Vec<_> = (0..3)
                .map(|i| MicroBatchGradient {
                    input: xs[i].into(),
                    dy: xs[i],
                    saved: &saved[i],
                    dx: &dxs[i],
                    d_residual: None,
                })
                .collect();
            let forward = layer.prepare_train_forward_accumulated(&batches).await.unwrap();
            let targets = GradientTargets::default();
            let backward = layer.prepare_backward_accumulated(&gradients, &targets).await.unwrap();
            let mut rounds = Vec::new();
            for _ in 0..2 {
                layer.submit(&forward).await.unwrap();
                context.submit(&[&backward]).await.unwrap();
                let mut round = Vec::new();
                for (saved, dx) in saved.iter().zip(&dxs).filter(|(_, dx)| dx.shape().len() > 0) {
                    let statistics = saved.download(&context).await.unwrap()[0];
                    round.push((statistics.count, bits(&context.download(dx).await.unwrap())));
                }
                rounds.push(round);
            }
            let samples = xs.map(|x| x.shape().dims()[0]);
            assert_eq!(rounds[0], rounds[1], "micro-batches of {samples:?} samples");
        });
    }
}

/// A part of a mask is not written, also if it is the first.
#[test]
fn the_first_part_of_a_mask_keeps_the_others() {
    let context = context();
    context.block_on(async {
        let x = upload(&context, &[2, 1, 4], &[1.0; 8]);
        let mask = Mask::of_samples(&context, &x, &[true, true]).await.unwrap();
        let part = mask.slice_samples(0..1).unwrap();
        refused!(part.write(&context, &[true; 4]).await, Error::NotContiguous { .. });
        let moments = Moments::of(&context, x.masked(&mask)).await.unwrap();
        assert_eq!(moments.download(&context).await.unwrap()[0].count, 8);
    });
}

/// Without an activation too, dy of what is masked counts as 0.
#[test]
fn residuals_have_no_gradient_where_values_are_masked() {
    let context = context();
    context.block_on(async {
        let dims = [2, 1, 3];
        let x = upload(&context, &dims, &values(1, 6, 0.0, 1.0));
        let residual = upload(&context, &dims, &values(2, 6, 0.0, 1.0));
        let dy = upload(&context, &dims, &[1.0, 2.0, f32::NAN, 3.0, 4.0, 5.0]);
        let mask = Mask::of_lengths(&context, &x, &[2, 1]).await.unwrap();
        let input = x.with_residual(&residual).masked(&mask);
        let mut layer = BatchNorm::new(&context, 1, OPTIONS).await.unwrap();
        let (_, saved) = layer.train_forward(input).await.unwrap();
        let whole = layer.backward(input, &dy, &saved).await.unwrap().d_residual;
        let accumulated = layer.backward_accumulated(&[input], &[&dy], &[&saved]).await.unwrap().d_residual;
        let frozen = layer.freeze().backward(input, &dy).await.unwrap().d_residual;
        for d_residual in [whole, accumulated.into_iter().next().unwrap(), frozen] {
            let got = context.download(&d_residual.unwrap()).await.unwrap();
            assert_eq!(got, [1.0, 2.0, 0.0, 3.0, 0.0, 0.0]);
        }
    });
}

/// Sums over parts are rounded once, not once for each part: 1024 with 4 ten times on each side is no sum that bfloat16 can be brought to in
/// steps, from neither end.
#[test]
fn gradients_of_16_bit_parameters_are_rounded_once() {
    let context = context();
    context.block_on(async {
        let parameter = async |value| context.upload_as(&[1], &[value], DType::Bf16).await.unwrap();
        let (gamma, beta) = (parameter(1.0).await, parameter(0.0).await);
        let running = initial_running(&context, 1);
        let mut layer = BatchNorm::from_parts(&context, OPTIONS, Some(gamma), Some(beta), running).unwrap();
        let samples = 21;
        let upload = async |values: &[f32]| context.upload_as(&[samples, 1, 4], values, DType::Bf16).await;
        let x = upload(&[0.0, 1.0, 2.0, 3.0].repeat(samples)).await.unwrap();
        let mut dy = vec![1.0; 4 * samples];
        dy[4 * (samples / 2)..][..4].fill(256.0);
        let dy = upload(&dy).await.unwrap();
        let (_, saved) = layer.train_forward_ghost(&x, 1).await.unwrap();
        let ghost = layer.backward_ghost(&x, &dy, &saved).await.unwrap().dbeta;

        let parts = |tensor: &Tensor| -> Vec<Tensor> {
            (0..samples).map(|n| tensor.slice_samples(n..n + 1).unwrap()).collect()
        };
        let (xs, dys) = (parts(&x), parts(&dy));
        let inputs: Vec<Input> = xs.iter().map(Into::into).collect();
        let outputs = layer.train_forward_accumulated(&inputs).await.unwrap();
        let saved: Vec<_> = outputs.iter().map(|(_, saved)| saved).collect();
        let dys: Vec<_> = dys.iter().collect();
        let accumulated = layer.backward_accumulated(&inputs, &dys, &saved).await.unwrap().dbeta;
        for (what, dbeta) in [("ghost", ghost), ("accumulated", accumulated)] {
            assert_eq!(context.download(&dbeta.unwrap()).await.unwrap(), [1104.0], "{what}");
        }
    });
}

/// What an operation on the whole refuses, it refuses in parts.
#[test]
fn outputs_over_inputs_of_other_parts_are_refused() {
    let context = context();
    context.block_on(async {
        let all = upload(&context, &[6, 2, 4], &values(3, 48, 0.0, 1.0));
        let (first, later) = (all.slice_samples(0..4).unwrap(), all.slice_samples(2..6).unwrap());
        let mut layer = BatchNorm::new(&context, 2, OPTIONS).await.unwrap();
        let saved = GhostSaved::new(&context, &first, 2).await.unwrap();
        let forward = layer.prepare_train_forward_ghost(&first, &later, &saved).await;
        refused!(forward, Error::Overlap { .. });
        let (dy, targets) = (zeros(&context, &[4, 2, 4]), GradientTargets::default().dx(&later));
        refused!(layer.prepare_backward_ghost(&first, &dy, &saved, &targets).await, Error::Overlap { .. });

        let [a, b, c] = [0, 2, 4].map(|n| all.slice_samples(n..n + 2).unwrap());
        let pooled = async |x| Saved::new(&context, x).await.unwrap().pooled();
        let (of_a, of_b) = (pooled(&a).await, pooled(&b).await);
        let (a, b) = (Input::from(&a), Input::from(&b));
        for (y_a, y_b) in [(b.x, &c), (&c, &c)] {
            let batches = [
                MicroBatch { input: a, y: y_a, saved: &of_a },
                MicroBatch { input: b, y: y_b, saved: &of_b },
            ];
            refused!(layer.prepare_train_forward_accumulated(&batches).await, Error::Overlap { .. });
        }
        // One tensor for two results of a part.
        let (residual, dy) = (zeros(&context, &[2, 2, 4]), zeros(&context, &[2, 2, 4]));
        let input = a.x.with_residual(&residual);
        let batch = MicroBatchGradient { input, dy: &dy, saved: &of_a, dx: &c, d_residual: Some(&c) };
        let backward = layer.prepare_backward_accumulated(&[batch], &GradientTargets::default()).await;
        refused!(backward, Error::Overlap { .. });
        for (dx_a, dx_b) in [(b.x, &c), (&c, &c)] {
            let batch = |input, saved, dx| MicroBatchGradient { input, dy: &dy, saved, dx, d_residual: None };
            let batches = [batch(a, &of_a, dx_a), batch(b, &of_b, dx_b)];
            let backward = layer.prepare_backward_accumulated(&batches, &GradientTargets::default()).await;
            refused!(backward, Error::Overlap { .. });
        }
    });
}

/// What a framework does that owns all memory: the same bits as in tensors that the crate makes.
#[test]
fn ghost_batches_and_last_steps_go_into_tensors_of_the_callers() {
    let context = context();
    let x = upload(&context, &[5, 2, 3], &values(1, 30, 0.5, 1.0));
    let dy = upload(&context, &[5, 2, 3], &values(2, 30, 0.0, 1.0));
    context.block_on(async {
        let mut layer = BatchNorm::new(&context, 2, OPTIONS).await.unwrap();
        let (y, saved) = layer.train_forward_ghost(&x, 2).await.unwrap();
        let gradients = layer.backward_ghost(&x, &dy, &saved).await.unwrap();
        let mut parts = Vec::new();
        for range in [0..2, 2..4, 4..5] {
            let room = context.zeros(&[2, 10]).await.unwrap();
            parts.push(Saved::from_tensor(&context, &x.slice_samples(range).unwrap(), &room).unwrap());
        }
        let own = GhostSaved::from_parts(&x, 2, parts).unwrap();
        let (own_y, dx) = (context.zeros_like(&x).await.unwrap(), context.zeros_like(&x).await.unwrap());
        let forward = layer.prepare_train_forward_ghost(&x, &own_y, &own).await.unwrap();
        layer.submit(&forward).await.unwrap();
        let backward =
            layer.prepare_backward_ghost(&x, &dy, &own, &GradientTargets::default().dx(&dx)).await.unwrap();
        context.submit(&[&backward]).await.unwrap();
        assert_eq!(bits(&download(&context, &own_y)), bits(&download(&context, &y)));
        assert_eq!(bits(&download(&context, &dx)), bits(&download(&context, &gradients.dx)));
        let few = GhostSaved::from_parts(&x, 2, Vec::new());
        refused!(few, Error::Number { what: "parts of a ghost batch", expected: 3, got: 0 });
        refused!(GhostSaved::from_parts(&x, 0, Vec::new()), Error::GhostSize { samples: 5 });

        let mut outputs = Vec::new();
        for into in [false, true] {
            let mut last = CrossIteration::new(2).unwrap();
            last.train_forward(&mut layer, &dy).await.unwrap();
            let (y, saved) = if into {
                let y = context.zeros_like(&x).await.unwrap();
                let saved = Saved::new(&context, &x).await.unwrap().pooled();
                last.train_forward_into(&mut layer, &x, &y, Some(&saved)).await.unwrap();
                (y, saved)
            } else {
                last.train_forward(&mut layer, &x).await.unwrap()
            };
            let dx = if into {
                let dx = context.zeros_like(&x).await.unwrap();
                let targets = GradientTargets::default().dx(&dx);
                CrossIteration::backward_into(&layer, &x, &dy, &saved, &targets).await.unwrap();
                dx
            } else {
                last.backward(&layer, &x, &dy, &saved).await.unwrap().dx
            };
            outputs.push([download(&context, &y), download(&context, &dx)]);
            let none = GradientTargets::default();
            refused!(CrossIteration::backward_into(&layer, &x, &dy, &saved, &none).await, Error::NoGradient);
        }
        for (one, other) in outputs[0].iter().zip(&outputs[1]) {
            assert_eq!(bits(one), bits(other));
        }
    });
}

/// Copies before and after an operation, in its submission.
#[test]
fn an_operation_is_submitted_between_commands_of_the_applications() {
    let context = context();
    let given = upload(&context, &[4, 2], &values(1, 8, 0.5, 1.0));
    context.block_on(async {
        let mut layer = BatchNorm::new(&context, 2, OPTIONS).await.unwrap();
        let x = context.zeros_like(&given).await.unwrap();
        let (y, result) = (context.zeros_like(&x).await.unwrap(), context.zeros_like(&x).await.unwrap());
        let forward = layer.prepare_train_forward(&x, &y, None).await.unwrap();
        let copy = |from: &Tensor, to: &Tensor| {
            let [from, to] = [from, to].map(|of| (of.buffer().clone(), of.byte_offset()));
            move |encoder: &mut wgnorm::wgpu::CommandEncoder| {
                encoder.copy_buffer_to_buffer(&from.0, from.1, &to.0, to.1, 32);
            }
        };
        let operation = forward.operation(&mut layer).unwrap();
        context.submit_between(copy(&given, &x), &[operation], copy(&y, &result)).await.unwrap();
        let (expected, _) = layer.train_forward_untracked(&given).await.unwrap();
        assert_eq!(bits(&download(&context, &result)), bits(&download(&context, &expected)));
        // A copy that wgpu refuses is an error, and nothing is submitted.
        let beyond = |encoder: &mut wgnorm::wgpu::CommandEncoder| {
            encoder.copy_buffer_to_buffer(given.buffer(), 1 << 20, x.buffer(), 0, 32);
        };
        refused!(context.submit_between(beyond, &[], |_| {}).await, Error::Validation { .. });
        let mut other = BatchNorm::new(&context, 2, OPTIONS).await.unwrap();
        refused!(forward.operation(&mut other), Error::WrongLayer);
    });
}
