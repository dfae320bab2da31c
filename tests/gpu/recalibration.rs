//! Running statistics of a whole data set.

use wgnorm::recalibration::Recalibration;
use wgnorm::reference::reduce;
use wgnorm::statistics::ChannelMoments;
use wgnorm::{BatchNormOptions, Channels, Error, Layout, Mask, RunningValues, RunningVariance};

use crate::support::*;

#[test]
fn many_batches_pool_to_the_statistics_of_all_values() {
    for (name, context) in few_contexts() {
        // Means that drift from batch to batch, sizes from 0 to thousands.
        let sizes: Vec<usize> = (0..60).map(|i| [0, 1, 3, 500, 40, 7][i % 6] + i).collect();
        let channels = 3;
        let mut all: Vec<Vec<f32>> = vec![Vec::new(); channels];
        let mut recalibration = Recalibration::new(channels).unwrap().of_batches(60);
        for (i, &n) in sizes.iter().enumerate() {
            let (mean, std) = ([1e4, -3.0, 0.0][i % 3] + i as f64, [0.1, 10.0, 1.0][i % 3]);
            let x = normal(i as u64, n * channels, mean, std);
            for (k, &value) in x.iter().enumerate() {
                all[k % channels].push(value);
            }
            let x = upload(&context, &[n, channels], &x);
            let progress = context.block_on(recalibration.add(&context, &x)).unwrap();
            assert_eq!(progress.values, all[0].len() as u64);
        }
        let mut layer = Inputs::new(1, &[1, channels]).layer(&context, BatchNormOptions::pytorch());
        let before = download_running(&context, layer.running());
        let drift = context.block_on(recalibration.finish(&mut layer)).unwrap();
        let after = download_running(&context, layer.running());
        assert_eq!(after.batches, 59);
        assert_eq!((drift.batches_before, drift.batches_after), (before.batches, 59));
        for (c, values) in all.iter().enumerate() {
            let view = Channels {
                samples: 1,
                channels: 1,
                inner: values.len() as u64,
                layout: Layout::ChannelsFirst,
            };
            let exact = reduce::moments(&wide(values), view)[0];
            let pooled = recalibration.pooled()[c];
            assert_eq!(pooled.count, exact.count);
            assert!(
                (pooled.mean - exact.mean).abs() <= 1e-6 * exact.var.sqrt(),
                "{name}: {pooled:?} {exact:?}"
            );
            assert!((pooled.var / exact.var - 1.0).abs() <= 2e-6, "{name}: {pooled:?} {exact:?}");
            let n = exact.count as f64;
            assert!((f64::from(after.var[c]) / (exact.var * n / (n - 1.0)) - 1.0).abs() <= 2e-6);
            let old = f64::from(before.var[c]) + 1e-5;
            let shift = (f64::from(after.mean[c]) - f64::from(before.mean[c])) / old.sqrt();
            assert!((drift.channels[c].mean_shift - shift).abs() <= 1e-6 * shift.abs());
        }
    }
}

#[test]
fn parts_join_and_masked_values_stay_out() {
    let context = context();
    context.block_on(async {
        let x = upload(&context, &[2, 1, 3], &[1.0, 2.0, f32::NAN, 6.0, f32::NAN, f32::NAN]);
        let mask = Mask::of_lengths(&context, &x, &[2, 1]).await.unwrap();
        let mut here = Recalibration::new(1).unwrap();
        here.add(&context, x.masked(&mask)).await.unwrap();
        let mut there = Recalibration::new(1).unwrap();
        there.add(&context, &upload(&context, &[1, 1, 1], &[7.0])).await.unwrap();
        assert_eq!(here.merge(&there).unwrap().values, 4);
        let running = here.running(RunningVariance::Biased).unwrap();
        assert_eq!(running, RunningValues { mean: vec![4.0], var: vec![6.5], batches: 2 });
        let unbiased = here.running(RunningVariance::Unbiased).unwrap().var[0];
        assert!((unbiased / (26.0 / 3.0) - 1.0).abs() <= 2e-6, "{unbiased}");
    });
}

#[test]
fn errors_change_nothing() {
    let context = context();
    let mut layer = Inputs::new(1, &[1, 3]).layer(&context, BatchNormOptions::keras());
    let before = download_running(&context, layer.running());
    context.block_on(async {
        refused!(Recalibration::new(0), Error::Channels { .. });
        let mut recalibration = Recalibration::new(3).unwrap();
        refused!(recalibration.finish(&mut layer).await, Error::NothingPooled { channel: 0 });
        let x = zeros(&context, &[5, 2]);
        refused!(recalibration.add(&context, &x).await, Error::Channels { expected: 3, got: 2, .. });
        refused!(recalibration.add_moments(&[ChannelMoments::default(); 4]), Error::Channels { .. });
        refused!(recalibration.merge(&Recalibration::new(2).unwrap()), Error::Channels { .. });
        let nothing = zeros(&context, &[0, 3]);
        assert_eq!(recalibration.add(&context, &nothing).await.unwrap().batches, 0);
        assert_eq!(recalibration, Recalibration::new(3).unwrap());
        let mut other = Recalibration::new(2).unwrap();
        other.add(&context, &x).await.unwrap();
        refused!(other.finish(&mut layer).await, Error::Channels { .. });
    });
    assert_eq!(download_running(&context, layer.running()), before);
}
