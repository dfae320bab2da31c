//! Statistics and what is saved of them, in tensors of the caller's: the same bits, where the caller finds them.

use wgnorm::{
    BatchNorm, BatchNormOptions, DType, Error, GroupNorm, NormOptions, RunningStatistics, Saved, Tensor,
};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();
/// Elements that begin where any device can bind.
const ALIGNED: u64 = 64;

#[test]
fn running_statistics_are_where_the_caller_wants_them() {
    let context = context();
    let inputs = Inputs::new(21, &[4, 3, 5, 5]);
    context.block_on(async {
        let x = inputs.place_x(&context);
        let room = context.upload(&[1024], &[0.0; 1024]).await.unwrap();
        let state = Tensor::from_buffer(&context, room.buffer().clone(), ALIGNED * 4, &[3, 3]).unwrap();
        let running = RunningStatistics::from_tensor(&context, &state).unwrap();
        let mut theirs = BatchNorm::from_parts(&context, OPTIONS, None, None, running).unwrap();
        theirs.reset_running().await.unwrap();
        let own = RunningStatistics::upload(&context, &wgnorm::RunningValues::initial(3)).await.unwrap();
        let mut ours = BatchNorm::from_parts(&context, OPTIONS, None, None, own).unwrap();
        for _ in 0..3 {
            let (a, _) = theirs.train_forward(&x).await.unwrap();
            let (b, _) = ours.train_forward(&x).await.unwrap();
            assert_eq!(
                bits(&context.download(&a).await.unwrap()),
                bits(&context.download(&b).await.unwrap())
            );
        }
        let values = ours.running().download(&context).await.unwrap();
        assert_eq!(theirs.running().download(&context).await.unwrap(), values);
        let held = context.download(&state).await.unwrap();
        assert_eq!((&held[..3], &held[3..6]), (&values.mean[..], &values.var[..]));
        assert!(held[6..].iter().all(|batches| batches.to_bits() == 3));
        // Nothing beside it.
        let all = context.download(&room).await.unwrap();
        let (before, after) = (&all[..ALIGNED as usize], &all[ALIGNED as usize + 9..]);
        assert!(before.iter().chain(after).all(|&value| value == 0.0));
        // Frozen, it is read where it is.
        let (theirs, ours) = (theirs.freeze(), ours.freeze());
        let (a, b) = (theirs.infer(&x).await.unwrap(), ours.infer(&x).await.unwrap());
        assert_eq!(context.download(&a).await.unwrap(), context.download(&b).await.unwrap());
    });
}

#[test]
fn what_is_saved_can_be_read_by_others() {
    let context = context();
    let inputs = Inputs::new(22, &[3, 5, 4, 6]);
    context.block_on(async {
        let (x, dy) = (inputs.place_x(&context), inputs.place_dy(&context));
        let layer = inputs.layer(&context, OPTIONS);
        let tensor = context.zeros(&[5, 10]).await.unwrap();
        let room =
            [Saved::from_tensor(&context, &x, &tensor).unwrap(), Saved::new(&context, &x).await.unwrap()];
        let mut results = Vec::new();
        for saved in &room {
            let y = context.zeros_like(&x).await.unwrap();
            let forward = layer.prepare_train_forward_untracked(&x, &y, Some(saved)).await.unwrap();
            context.submit(&[&forward]).await.unwrap();
            let gradients = layer.backward(&x, &dy, saved).await.unwrap();
            let mut all = context.download(&y).await.unwrap();
            all.extend(context.download(&gradients.dx).await.unwrap());
            all.extend(context.download(&gradients.dgamma.unwrap()).await.unwrap());
            results.push((bits(&all), saved.download(&context).await.unwrap()));
        }
        assert_eq!(results[0], results[1]);
        let rows = context.download(&tensor).await.unwrap();
        for (row, saved) in rows.chunks(10).zip(&results[0].1) {
            assert_eq!(
                (row[0], row[1], row[2], row[3]),
                (saved.shift, saved.delta, saved.inv_std, saved.var)
            );
            assert_eq!((row[6].to_bits(), row[7], row[8], row[9]), (0, 72.0, 1.0, 0.0));
        }
    });
}

#[test]
fn norms_of_slices_save_where_the_caller_wants_it() {
    let context = context();
    context.block_on(async {
        let values: Vec<f32> = (0..2 * 6 * 9).map(|i| ((i * 29) % 31) as f32 - 7.5).collect();
        let x = context.upload(&[2, 6, 3, 3], &values).await.unwrap();
        let norm = GroupNorm::new(&context, 2, 6, NormOptions::group()).await.unwrap();
        let tensor = context.zeros(&[4, 4]).await.unwrap();
        let theirs = norm.room_in(&x, &tensor).unwrap();
        let y = context.zeros_like(&x).await.unwrap();
        let forward = norm.prepare_forward(&x, &y, Some(&theirs)).await.unwrap();
        context.submit(&[&forward]).await.unwrap();
        let (_, ours) = norm.forward(&x).await.unwrap();
        let [a, b] = [&theirs, &ours].map(|saved| norm.backward(&x, &y, saved));
        let (a, b) = (a.await.unwrap(), b.await.unwrap());
        assert_eq!(context.download(&a.dx).await.unwrap(), context.download(&b.dx).await.unwrap());
        let rows = context.download(&tensor).await.unwrap();
        for (row, saved) in rows.chunks(4).zip(ours.download(&context).await.unwrap()) {
            assert_eq!(row, [saved.shift, saved.delta, saved.inv_std, saved.var]);
        }
    });
}

#[test]
fn tensors_that_are_no_room_are_refused() {
    let context = context();
    context.block_on(async {
        let from = |tensor: &Tensor| RunningStatistics::from_tensor(&context, tensor);
        refused!(from(&context.zeros(&[3]).await.unwrap()), Error::Channels { got: 0, .. });
        refused!(from(&context.zeros(&[2, 4]).await.unwrap()), Error::Shape { .. });
        refused!(from(&context.zeros_as(&[3, 4], DType::F16).await.unwrap()), Error::DType { .. });
        let room = context.zeros(&[100]).await.unwrap();
        let shifted = Tensor::from_buffer(&context, room.buffer().clone(), 4, &[3, 4]).unwrap();
        refused!(from(&shifted), Error::Misaligned { offset: 4, .. });
        let other = other_context();
        refused!(from(&other.zeros(&[3, 4]).await.unwrap()), Error::ForeignDevice { .. });
        let x = context.zeros(&[2, 3, 4]).await.unwrap();
        let four = context.zeros(&[4, 10]).await.unwrap();
        refused!(Saved::from_tensor(&context, &x, &four), Error::Shape { .. });
        // What cannot be copied from cannot be downloaded; it is written and read by kernels all the same.
        let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 48,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        });
        let bare = from(&Tensor::from_buffer(&context, buffer, 0, &[3, 4]).unwrap()).unwrap();
        refused!(bare.download(&context).await, Error::BufferUsage { missing: "COPY_SRC", .. });
        let mut layer = BatchNorm::from_parts(&context, OPTIONS, None, None, bare).unwrap();
        refused!(layer.reset_running().await, Error::BufferUsage { missing: "COPY_DST", .. });
        let x = context.zeros(&[2, 4]).await.unwrap();
        layer.train_forward(&x).await.unwrap();
    });
}
