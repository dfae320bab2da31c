//! Values at the ends of f32, slices with nothing to divide by, and those of one value: the right answers, to the bit where they are exact.

use wgnorm::family::{L2Norm, MeanVarianceNorm, ScaleNorm, TrackedInstanceNorm, WeightNorm};
use wgnorm::statistics::SavedStatistics;
use wgnorm::{
    Affine, BatchNorm, BatchNormOptions, Context, DType, GroupNorm, InstanceNorm, LayerNorm, NormOptions,
    RmsNorm, reference,
};

use crate::support::*;

/// Magnitudes of rows, all normal with 3·4 of them.
const MAGNITUDES: [f32; 9] = [2e-38, 1e-35, 1e-23, 1e-19, 1e-9, 1.0, 1e19, 2e30, 6e37];

#[track_caller]
fn assert_near(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= 4e-7 * expected.abs(), "{got} is not {expected}");
    }
}

#[test]
fn rows_of_any_magnitude_have_a_length() {
    let context = context();
    context.block_on(async {
        for m in MAGNITUDES {
            let x = upload(&context, &[1, 2], &[3.0 * m, 4.0 * m]);
            let gain = upload(&context, &[1], &[2.5]);
            let weight = WeightNorm::from_parts(&context, 1, NormOptions::weight(), Some(gain)).unwrap();
            assert_near(&context.download(&weight.infer(&x).await.unwrap()).await.unwrap(), &[1.5, 2.0]);
            let l2 = L2Norm::new(&context, &[1], NormOptions::l2().eps(0.0)).await.unwrap();
            assert_near(&context.download(&l2.infer(&x).await.unwrap()).await.unwrap(), &[0.6, 0.8]);
            let rms = RmsNorm::new(&context, &[2], NormOptions::rms().eps(0.0)).await.unwrap();
            let root = 12.5_f32.sqrt();
            let (y, saved) = rms.forward(&x).await.unwrap();
            assert_near(&context.download(&y).await.unwrap(), &[3.0 / root, 4.0 / root]);
            let gradients = rms.backward(&x, &y, &saved).await.unwrap();
            assert_near(&context.download(gradients.dgamma.as_ref().unwrap()).await.unwrap(), &[0.72, 1.28]);
            // dy is y, which pulls at nothing.
            let dx = context.download(&gradients.dx).await.unwrap();
            assert!(dx.iter().all(|dx| dx.abs() <= 1e-6 / m), "{dx:?} of {m}");
        }
        // The sum of the squares is 1e77, its root is not beyond f32; that of eight such values would be.
        let x = upload(&context, &[2, 8], &[[3e38; 8], [1e-38; 8]].concat());
        let scale = ScaleNorm::new(&context, 8, NormOptions::scale().eps(0.0)).await.unwrap();
        assert_near(&context.download(&scale.infer(&x).await.unwrap()).await.unwrap(), &[1.0; 16]);
    });
}

#[test]
fn a_row_of_zeros_has_no_direction() {
    let context = context();
    context.block_on(async {
        let v = upload(&context, &[2, 3], &[0.0, 0.0, 0.0, 1.0, 2.0, 2.0]);
        let dy = upload(&context, &[2, 3], &[1.0, -2.0, 3.0, 1.0, 2.0, 2.0]);
        let weight = WeightNorm::of(&context, &v).await.unwrap();
        let (y, saved) = weight.forward(&v).await.unwrap();
        assert_eq!(context.download(&y).await.unwrap()[..3], [0.0; 3]);
        let gradients = weight.backward(&v, &dy, &saved).await.unwrap();
        assert_eq!(context.download(&gradients.dx).await.unwrap()[..3], [0.0; 3]);
        assert_eq!(context.download(gradients.dgamma.as_ref().unwrap()).await.unwrap()[0], 0.0);
        // x / max(‖x‖, eps) has a gradient there.
        let l2 = L2Norm::new(&context, &[1], NormOptions::l2().eps(0.5)).await.unwrap();
        let (_, saved) = l2.forward(&v).await.unwrap();
        let gradients = l2.backward(&v, &dy, &saved).await.unwrap();
        assert_eq!(context.download(&gradients.dx).await.unwrap()[..3], [2.0, -4.0, 6.0]);
    });
}

#[test]
fn one_value_per_slice_is_beta() {
    let context = context();
    context.block_on(async {
        let beta: Vec<f32> = (0..27).map(|i| i as f32 - 3.5).collect();
        let x = upload(&context, &[7, 27], &values(1, 7 * 27, 3.0, 2.0));
        let parameters = (upload(&context, &[27], &[2.0; 27]), upload(&context, &[27], &beta));
        let options = NormOptions::group();
        let group = |options| {
            let (gamma, beta) = parameters.clone();
            GroupNorm::from_parts(&context, 27, 27, options, Some(gamma), Some(beta)).unwrap()
        };
        let expected: Vec<f32> = beta.iter().copied().cycle().take(7 * 27).collect();
        assert_eq!(context.download(&group(options).infer(&x).await.unwrap()).await.unwrap(), expected);
        refused!(group(options).forward(&x).await, wgnorm::Error::SingleValue { .. });
        let asked = group(options.allow_single_value(true));
        let (y, saved) = asked.forward(&x).await.unwrap();
        assert_eq!(context.download(&y).await.unwrap(), expected);
        refused!(group(options).backward(&x, &y, &saved).await, wgnorm::Error::SingleValue { .. });
        let gradients = asked.backward(&x, &y, &saved).await.unwrap();
        assert_eq!(context.download(&gradients.dx).await.unwrap(), [0.0; 7 * 27]);
        for shape in [&[2, 4, 1, 1][..], &[8, 1]] {
            let x = upload(&context, shape, &values(2, 8, 3.0, 2.0));
            let instance = InstanceNorm::new(&context, shape[1], NormOptions::instance()).await.unwrap();
            assert_eq!(context.download(&instance.infer(&x).await.unwrap()).await.unwrap(), [0.0; 8]);
            let mut refuses =
                TrackedInstanceNorm::new(&context, shape[1], BatchNormOptions::pytorch()).await.unwrap();
            refused!(refuses.train_forward(&x).await, wgnorm::Error::SingleValue { .. });
            let options = BatchNormOptions::pytorch().allow_single_value(true);
            let mut takes = TrackedInstanceNorm::new(&context, shape[1], options).await.unwrap();
            let (y, _) = takes.train_forward(&x).await.unwrap();
            assert_eq!(context.download(&y).await.unwrap(), [0.0; 8]);
        }
    });
}

#[test]
fn no_eps_is_taken_at_its_word() {
    let context = context();
    context.block_on(async {
        // WebNN's conformance case.
        let tiny = 2_f32.powi(-24);
        let x = upload(&context, &[1, 2, 2], &[-tiny, tiny, tiny, -tiny]);
        let (gamma, beta) = (upload(&context, &[2], &[0.5, 2.0]), upload(&context, &[2], &[0.25, -0.5]));
        let options = NormOptions::instance().affine(Affine::Both).eps(0.0);
        let instance = InstanceNorm::from_parts(&context, 2, options, Some(gamma), Some(beta)).unwrap();
        let got = context.download(&instance.infer(&x).await.unwrap()).await.unwrap();
        for (got, expected) in got.iter().zip([-0.25, 0.75, 1.5, -2.5_f32]) {
            assert!((got - expected).abs() <= f32::EPSILON * expected.abs(), "{got} is not {expected}");
        }
        // Without spread, or length, there is nothing to divide by.
        let equal = upload(&context, &[2, 2], &[3.0, 3.0, 1.0, 2.0]);
        let zeros = upload(&context, &[2, 2], &[0.0, 0.0, 3.0, 4.0]);
        let layer = LayerNorm::new(&context, &[2], NormOptions::layer().eps(0.0)).await.unwrap();
        let rms = RmsNorm::new(&context, &[2], NormOptions::rms().eps(0.0)).await.unwrap();
        let l2 = L2Norm::new(&context, &[1], NormOptions::l2().eps(0.0)).await.unwrap();
        let plain =
            MeanVarianceNorm::new(&context, &[1], NormOptions::mean_variance().eps(0.0)).await.unwrap();
        let all = [
            layer.infer(&equal).await.unwrap(),
            plain.infer(&equal).await.unwrap(),
            rms.infer(&zeros).await.unwrap(),
            l2.infer(&zeros).await.unwrap(),
        ];
        for y in all {
            let y = context.download(&y).await.unwrap();
            assert!(y[..2].iter().all(|y| y.is_nan()) && y[2..].iter().all(|y| y.is_finite()), "{y:?}");
        }
        // ONNX's MeanVarianceNormalization as its definition reads.
        let y = context.download(&plain.infer(&equal).await.unwrap()).await.unwrap();
        assert_near(&y[2..], &[-1.0, 1.0]);
        let mut batch = BatchNorm::new(&context, 2, BatchNormOptions::pytorch().eps(0.0)).await.unwrap();
        let x = upload(&context, &[2, 2], &[3.0, 1.0, 3.0, 2.0]);
        let (y, _) = batch.train_forward(&x).await.unwrap();
        let y = context.download(&y).await.unwrap();
        assert!(y[0].is_nan() && y[2].is_nan(), "{y:?}");
        assert_near(&[y[1], y[3]], &[-1.0, 1.0]);
    });
}

#[test]
fn values_of_the_smallest_halves() {
    let context = context();
    context.block_on(async {
        // The smallest binary16, which is subnormal: a device may take it for 0, whose slice has no spread.
        let tiny = 2_f32.powi(-24);
        let x = context.upload_as(&[1, 1, 2], &[-tiny, tiny], DType::F16).await.unwrap();
        let instance = InstanceNorm::new(&context, 1, NormOptions::instance().eps(0.0)).await.unwrap();
        let y = context.download(&instance.infer(&x).await.unwrap()).await.unwrap();
        let flushed = y.iter().all(|y| y.is_nan());
        if flushed {
            eprintln!("this device flushes subnormal binary16");
        }
        assert!(flushed || y == [-1.0, 1.0], "{y:?}");
    });
}

#[test]
fn gamma_and_its_divisor_meet_only_in_the_result() {
    let context = context();
    context.block_on(async {
        let (rows, width) = (3, 40);
        let x: Vec<f32> = (0..rows * width).map(|i| 3.5 - (i / width) as f32).collect();
        let x = upload(&context, &[rows, width], &x);
        let beta = values(1, width, 0.0, 1.0);
        let gamma = Some(upload(&context, &[width], &vec![1e36; width]));
        let options = NormOptions::layer().eps(1e-12);
        let layer = LayerNorm::from_parts(
            &context,
            &[width],
            options,
            gamma,
            Some(upload(&context, &[width], &beta)),
        );
        let y = context.download(&layer.unwrap().infer(&x).await.unwrap()).await.unwrap();
        assert_eq!(y, beta.repeat(rows));
        // inv_std·gamma = 1e42, and y = ±1e36.
        let options = BatchNormOptions::pytorch().eps(1e-30);
        let gamma = Some(upload(&context, &[1], &[1e36]));
        let running = initial_running(&context, 1);
        let mut batch =
            BatchNorm::from_parts(&context, options.affine(Affine::Weight), gamma, None, running).unwrap();
        let x = upload(&context, &[2, 1], &[1e-6, -1e-6]);
        let (y, saved) = batch.train_forward(&x).await.unwrap();
        assert_near(&context.download(&y).await.unwrap(), &[1e36, -1e36]);
        let dy = upload(&context, &[2, 1], &[1e-10, 1e-10]);
        let gradients = batch.backward(&x, &dy, &saved).await.unwrap();
        assert_eq!(context.download(&gradients.dx).await.unwrap(), [0.0; 2]);
    });
}

/// Means as one number, of many slices of few values: the worst error in units of 2^-24·mean|x|, and how many are beyond 4.
fn worst_mean(context: &Context, n: usize, outlier: bool) -> (f64, usize) {
    let rows = 20_000;
    let mut x = values(n as u64, rows * n, 0.0, 1.0);
    if outlier {
        x.chunks_mut(n).enumerate().for_each(|(row, x)| x[row % n] *= 1e3);
    }
    let tensor = upload(context, &[rows, n], &x);
    let layer = context.block_on(LayerNorm::new(context, &[n], NormOptions::layer())).unwrap();
    let saved = context.block_on(layer.forward(&tensor)).unwrap().1;
    let got = context.block_on(saved.download(context)).unwrap();
    let of = |(x, got): (&[f32], &SavedStatistics)| {
        let mean = |of: fn(f64) -> f64| x.iter().map(|&x| of(x.into())).sum::<f64>() / n as f64;
        (f64::from(got.mean() as f32) - mean(|x| x)).abs() / (mean(f64::abs) * reference::bounds::U)
    };
    let errors: Vec<f64> = x.chunks(n).zip(&got).map(of).collect();
    (errors.iter().copied().fold(0.0, f64::max), errors.iter().filter(|&&error| error > 4.0).count())
}

#[test]
fn means_of_few_values_are_near() {
    // Up to how many values the bound holds for outliers too.
    let contexts = [("wide", 16, tuned("team_size=1 workgroup_size=8")), ("narrow", 8, tuned("width=1"))];
    for (name, few, context) in contexts {
        for n in [3, 5, 8, 12, 16, 33, 64, 200] {
            for outlier in [false, true] {
                let (worst, beyond) = worst_mean(&context, n, outlier);
                println!("{name} n {n} outlier {outlier}: {worst:.2}, {beyond} beyond");
                // Several additions after an outlier, in the same sum: see docs/NUMERICS.md.
                let most = if outlier && n > few { 12.0 } else { 4.0 };
                assert!(worst <= most, "{name} n {n} outlier {outlier}: {worst}");
            }
        }
    }
}
