//! What is made once for all tensors that lie alike: it is bound to others and gives the same bits; what lies otherwise is told apart. (That it does not
//! pile up: `alone.rs`.)

use wgnorm::{BatchNormOptions, Context, Saved, Tensor};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();

/// A tensor at a place in a buffer that is longer.
fn within(context: &Context, dims: &[usize], first: u64, values: &[f32]) -> Tensor {
    let room = context.block_on(context.zeros(&[4096])).unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    context.queue().write_buffer(room.buffer(), first * 4, &bytes);
    Tensor::from_buffer(context, room.buffer().clone(), first * 4, dims).unwrap()
}

#[test]
fn other_tensors_at_the_same_places_give_the_same_bits() {
    let context = context();
    let inputs = Inputs::new(11, &[3, 4, 5, 6]);
    let layer = inputs.layer(&context, OPTIONS);
    // Multiples of 16 bytes, of the device's alignment, and neither; each twice, so that one is bound to what the other has made.
    for first in [0, 4, 64, 1, 1024, 3] {
        let results: Vec<_> = (0..2)
            .map(|again| {
                let x = within(&context, &inputs.dims, first + again * 256, &inputs.x);
                let y = within(&context, &inputs.dims, first + again * 512, &inputs.x);
                let saved = context.block_on(Saved::new(&context, &x)).unwrap();
                let forward = layer.prepare_train_forward_untracked(&x, &y, Some(&saved));
                submit(&context, &[&context.block_on(forward).unwrap()]);
                download(&context, &y)
            })
            .collect();
        assert_eq!(results[0], results[1], "from element {first} on");
        let alone = {
            let (x, y) = (upload(&context, &inputs.dims, &inputs.x), zeros(&context, &inputs.dims));
            let forward = layer.prepare_train_forward_untracked(&x, &y, None);
            submit(&context, &[&context.block_on(forward).unwrap()]);
            download(&context, &y)
        };
        let far = alone.iter().zip(&results[0]).any(|(a, b)| (a - b).abs() > 1e-5);
        assert!(!far, "from element {first} on: {:?}, expected {alone:?}", results[0]);
    }
}

#[test]
fn who_shares_a_buffer_with_whom_is_told_apart() {
    let context = context();
    let inputs = Inputs::new(12, &[2, 3, 4, 4]);
    let layer = inputs.layer(&context, OPTIONS).freeze();
    let len = inputs.x.len() as u64;
    let forward = |x: &Tensor, y: &Tensor| {
        submit(&context, &[&context.block_on(layer.prepare_infer(x, y)).unwrap()]);
        download(&context, y)
    };
    let apart = forward(&upload(&context, &inputs.dims, &inputs.x), &zeros(&context, &inputs.dims));
    for _ in 0..2 {
        // In one buffer, y after x and before it; in place.
        for (first, second) in [(0, 1024), (1024, 0), (len, 2048), (64, 64)] {
            let x = within(&context, &inputs.dims, first, &inputs.x);
            let y = Tensor::from_buffer(&context, x.buffer().clone(), second * 4, &inputs.dims).unwrap();
            assert_eq!(forward(&x, &y), apart, "x at {first}, y at {second} of one buffer");
        }
        let (x, y) = (within(&context, &inputs.dims, 0, &inputs.x), zeros(&context, &inputs.dims));
        assert_eq!(forward(&x, &y), apart);
    }
}
