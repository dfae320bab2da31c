//! Layers of weights, and what begins from them; instance norm with running statistics.

use wgnorm::family::{ScaleNorm, TrackedInstanceNorm, WeightNorm};
use wgnorm::reference::{self, family, fold::Running};
use wgnorm::{BatchNormOptions, Error, Layout, Momentum, NormOptions, RunningVariance};

use crate::support::{bits, context, download, download_running, refused, upload, values, wide};

#[test]
fn weight_norm_leaves_the_weight_that_it_is_made_of() {
    let context = context();
    let weight = values(1, 6 * 27, 0.1, 1.0);
    let tensor = upload(&context, &[6, 3, 3, 3], &weight);
    let layer = context.block_on(WeightNorm::of(&context, &tensor)).unwrap();
    let got = download(&context, &context.block_on(layer.infer(&tensor)).unwrap());
    for (got, expected) in got.iter().zip(&weight) {
        assert!((got - expected).abs() <= 4e-7 * expected.abs(), "{got} is not {expected}");
    }
    // A row of zeros stays one, and so does its gradient.
    let zeros = upload(&context, &[2, 3], &[0.0, 0.0, 0.0, 1.0, 2.0, 2.0]);
    let layer = context.block_on(WeightNorm::of(&context, &zeros)).unwrap();
    let (y, saved) = context.block_on(layer.forward(&zeros)).unwrap();
    let got = download(&context, &y);
    assert_eq!(got[..3], [0.0; 3]);
    let gradients = context.block_on(layer.backward(&zeros, &zeros, &saved)).unwrap();
    assert!(download(&context, &gradients.dx).iter().all(|value| value.is_finite()));
}

#[test]
fn scale_norm_begins_with_the_root_of_its_length() {
    let context = context();
    let layer = context.block_on(ScaleNorm::new(&context, 16, NormOptions::scale())).unwrap();
    assert_eq!(download(&context, layer.gamma().unwrap()), [4.0]);
    let x = upload(&context, &[2, 16], &values(3, 32, 0.0, 1.0));
    let y = download(&context, &context.block_on(layer.infer(&x)).unwrap());
    let square: f32 = y[..16].iter().map(|y| y * y).sum();
    assert!((square - 16.0).abs() < 1e-4, "{square}");
}

#[test]
fn many_rows_share_one_scale() {
    // More partial results than one team folds.
    let context = context();
    let (rows, places) = (9001, 3);
    let (x, dy) = (values(4, rows * places, 0.2, 1.0), values(5, rows * places, 0.3, 1.0));
    let layer = context.block_on(ScaleNorm::new(&context, places, NormOptions::scale())).unwrap();
    let tensors = [&x, &dy].map(|values| upload(&context, &[rows, places], values));
    let (_, saved) = context.block_on(layer.forward(&tensors[0])).unwrap();
    let gradients = context.block_on(layer.backward(&tensors[0], &tensors[1], &saved)).unwrap();
    let got = f64::from(download(&context, &gradients.dgamma.unwrap())[0]);
    let maps = family::Maps::scalar(&[rows, places], 1);
    let scheme = family::Scheme::length(f64::from(1e-5_f32));
    let statistics = family::statistics(&wide(&x), &maps, &scheme);
    let affine = family::Affine::default();
    let expected = family::backward(&wide(&x), &wide(&dy), &maps, &scheme, &statistics, affine).dgamma[0];
    let bound =
        family::bounds::backward(&wide(&x), &wide(&dy), None, &maps, &scheme, &statistics, affine).dgamma[0];
    assert!((got - expected).abs() <= bound, "{got} is not {expected} within {bound}");
}

#[test]
fn running_statistics_of_more_samples_than_a_loop_has_iterations() {
    let context = context();
    let samples = 600_001;
    let mut layer =
        context.block_on(TrackedInstanceNorm::new(&context, 1, BatchNormOptions::pytorch())).unwrap();
    let x = upload(&context, &[samples, 1, 2], &[1.0, 3.0].repeat(samples));
    context.block_on(layer.train_forward(&x)).unwrap();
    let running = download_running(&context, layer.running());
    // The mean of each is 2, its unbiased variance 2.
    assert!((running.mean[0] - 0.2).abs() < 1e-6 && (running.var[0] - 1.1).abs() < 1e-6, "{running:?}");
}

#[test]
fn running_statistics_of_instances() {
    let context = context();
    for (layout, dims) in [(Layout::ChannelsFirst, [5, 3, 4, 2]), (Layout::ChannelsLast, [5, 4, 2, 3])] {
        for (momentum, variance) in [
            (Momentum::WeightOfNew(0.1), RunningVariance::Unbiased),
            (Momentum::Cumulative, RunningVariance::Biased),
        ] {
            let options = BatchNormOptions::pytorch().momentum(momentum).running_variance(variance);
            let mut layer = context.block_on(TrackedInstanceNorm::new(&context, 3, options)).unwrap();
            let mut expected = [Running { mean: 0.0, var: 1.0, batches: 0 }; 3];
            for step in 0..3 {
                let x = values(7 + step, 120, 3.0, 2.0);
                let maps = family::Maps::instance(&dims, layout);
                let statistics = family::statistics(&wide(&x), &maps, &family::Scheme::standard(1e-5));
                for (running, batch) in expected.iter_mut().zip(family::average_over_samples(&statistics, 3))
                {
                    *running = running.update(batch, momentum, variance);
                }
                let x = upload(&context, &dims, &x).with_layout(layout);
                let (y, saved) = context.block_on(layer.train_forward(&x)).unwrap();
                let plain = wgnorm::InstanceNorm::from_parts(
                    &context,
                    3,
                    NormOptions::instance(),
                    layer.gamma().cloned(),
                    layer.beta().cloned(),
                );
                let same = context.block_on(plain.unwrap().infer(&x)).unwrap();
                assert_eq!(bits(&download(&context, &y)), bits(&download(&context, &same)));
                context.block_on(layer.backward(&x, &y, &saved)).unwrap();
            }
            let got = download_running(&context, layer.running());
            assert_eq!(got.batches, 3);
            for (c, expected) in expected.iter().enumerate() {
                let bound = |value: f64| 16.0 * reference::bounds::U * value.abs().max(1.0);
                let (mean, var) = (f64::from(got.mean[c]), f64::from(got.var[c]));
                assert!((mean - expected.mean).abs() <= bound(expected.mean), "{mean}: {expected:?}");
                assert!((var - expected.var).abs() <= bound(expected.var), "{var}: {expected:?}");
            }
            // Recorded by the caller, once more; by this layer alone.
            let (x, y) = [7, 8]
                .map(|seed| upload(&context, &dims, &values(seed, 120, 3.0, 2.0)).with_layout(layout))
                .into();
            let saved = context.block_on(layer.room_for(&x)).unwrap();
            let forward = context.block_on(layer.prepare_train_forward(&x, &y, Some(&saved))).unwrap();
            let mut other = context.block_on(TrackedInstanceNorm::new(&context, 3, options)).unwrap();
            let mut encoder = context.device().create_command_encoder(&Default::default());
            refused!(forward.record(&mut other, &mut encoder), Error::WrongLayer);
            forward.record(&mut layer, &mut encoder).unwrap();
            let mut pass = encoder.begin_compute_pass(&Default::default());
            refused!(forward.record_in(&mut other, &mut pass), Error::WrongLayer);
            forward.record_in(&mut layer, &mut pass).unwrap();
            drop(pass);
            context.queue().submit([encoder.finish()]);
            assert_eq!(download_running(&context, layer.running()).batches, 5);
            assert_eq!(download_running(&context, other.running()).batches, 0);
            // Inference takes them.
            let x = upload(&context, &dims, &values(1, 120, 3.0, 2.0)).with_layout(layout);
            context.block_on(layer.freeze().infer(&x)).unwrap();
        }
    }
}
