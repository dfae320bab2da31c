//! 16-bit storage: every place of a word, both conversions, what is around the tensor, and the values that rounding is about.

use wgnorm::tuning::prepare_copy;
use wgnorm::{
    BatchNorm, BatchNormOptions, Context, DType, FrozenBatchNorm, RunningStatistics, RunningValues, Tensor,
};

use crate::support::{assert_bits, assert_holds, assert_same_outcome, context, download, refused, submit};

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();
const HALVES: [DType; 2] = [DType::F16, DType::Bf16];

/// The device's own conversion, if it is exact, and that by integer arithmetic.
fn conversions(context: &Context) -> [Context; 2] {
    let tuning = *context.tuning();
    [context.clone(), context.with_tuning(tuning.integer_f16(true))]
}

#[test]
fn both_conversions_of_binary16_give_the_same_bits() {
    let context = context();
    let line = "batch 3x5x7x3 f16 relu residual backward";
    let own = assert_holds(&context, line);
    let integer = assert_holds(&context, &format!("{line} integer_f16"));
    assert_same_outcome("integer conversion", &own, &integer);
    // Where the device's own conversion is exact, the two are different kernels; elsewhere there is one.
    let packed = |kernels: &[String]| kernels.iter().any(|key| key.contains(" packed"));
    let exact = context.block_on(context.has_exact_f16()).unwrap();
    assert_eq!((packed(&own.kernels), packed(&integer.kernels)), (exact, false));
}

#[test]
fn tensors_begin_anywhere_in_a_word() {
    let context = context();
    for norm in ["batch", "frozen"] {
        for words in ["f16", "bf16", "f16 last", "bf16 last"] {
            for at in 0..8 {
                let line = format!("{norm} 2x5x3x3 {words} relu residual backward phase={at}");
                assert_holds(&context, &line);
            }
            // Each at another element: one value at a time, two of which share 4 bytes.
            assert_holds(&context, &format!("{norm} 2x5x3x3 {words} silu residual backward shifted"));
        }
    }
}

#[test]
fn a_few_elements() {
    let context = context();
    for dtype in ["f32", "f16", "bf16"] {
        for elements in [2, 3, 5, 7] {
            for at in [0, 1, 5] {
                for shape in [format!("{elements}x1x1"), format!("1x1x{elements}"), format!("2x1x{elements}")]
                {
                    assert_holds(&context, &format!("batch {shape} {dtype} backward phase={at}"));
                    assert_holds(&context, &format!("frozen {shape} {dtype} backward phase={at}"));
                }
                assert_holds(&context, &format!("frozen 1x{elements} {dtype} backward phase={at}"));
            }
        }
        assert_holds(&context, &format!("frozen 1x1 {dtype} backward"));
    }
}

/// Inference that changes nothing: mean 0, variance 1 − eps, so that y is x rounded twice.
fn identity(context: &Context, channels: usize) -> FrozenBatchNorm {
    let values = RunningValues { mean: vec![0.0; channels], var: vec![1.0; channels], batches: 0 };
    let running = context.block_on(RunningStatistics::upload(context, &values)).unwrap();
    FrozenBatchNorm::from_parts(context, OPTIONS.eps(1e-12), None, None, running).unwrap()
}

#[test]
fn every_value_survives_and_every_tie_goes_to_even() {
    for context in conversions(&context()) {
        for dtype in HALVES {
            let layer = identity(&context, 1);
            let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let all = dtype.decode(&all);
            let forward = |values: &[f32]| {
                context.block_on(async {
                    let x = context.upload_as(&[values.len(), 1], values, dtype).await.unwrap();
                    context.download(&layer.infer(&x).await.unwrap()).await.unwrap()
                })
            };
            let y = forward(&all);
            for (x, y) in all.iter().zip(&y) {
                // Subnormal f32 numbers, which bf16 has too, may be flushed.
                let flushed = x.abs() < f32::MIN_POSITIVE && *y == 0.0;
                assert!(
                    x.to_bits() == y.to_bits() || flushed || x.is_nan() && y.is_nan(),
                    "{dtype}: {x:e} became {y:e}"
                );
            }
        }
    }
}

/// y = beta for any x: what is rounded is an f32 of our choice.
#[test]
fn results_are_rounded_to_the_nearest() {
    for context in conversions(&context()) {
        for dtype in HALVES {
            // Midpoints of neighbouring values, and what is next to them, of all magnitudes.
            let mut betas =
                vec![65503.0, 65519.996, 65520.0, 65521.0, 3.39e38, 3.396e38, 3.397e38, 3.4e38, f32::MAX];
            for bits in (0..0x7f00_u16).step_by(37) {
                let pair = dtype.decode(&[bits.to_le_bytes(), (bits + 1).to_le_bytes()].concat());
                if pair[1].is_finite() {
                    let middle = ((f64::from(pair[0]) + f64::from(pair[1])) / 2.0) as f32;
                    let bits = middle.to_bits();
                    betas.extend([bits - bits.min(1), bits, bits + 1].map(f32::from_bits));
                }
            }
            betas.retain(|beta| *beta >= f32::MIN_POSITIVE);
            betas.extend(betas.clone().iter().map(|beta| -beta));
            let c = betas.len();
            let values = RunningValues { mean: vec![0.0; c], var: vec![1.0; c], batches: 0 };
            let y = context.block_on(async {
                let running = RunningStatistics::upload(&context, &values).await.unwrap();
                let beta = Some(context.upload(&[c], &betas).await.unwrap());
                let layer = FrozenBatchNorm::from_parts(&context, OPTIONS, None, beta, running).unwrap();
                let x = context.zeros_as(&[1, c], dtype).await.unwrap();
                context.download(&layer.infer(&x).await.unwrap()).await.unwrap()
            });
            let expected = dtype.decode(&dtype.encode(&betas));
            for ((beta, y), expected) in betas.iter().zip(&y).zip(&expected) {
                let flushed = expected.abs() < f32::MIN_POSITIVE && *y == 0.0;
                assert!(y == expected || flushed, "{dtype}: {beta:e} became {y:e}, not {expected:e}");
            }
        }
    }
}

#[test]
fn overflow_and_nan_stay_in_their_channel() {
    let context = context();
    context.block_on(async {
        // Squares of the first channel's values overflow binary16, its y does not; the second holds a NaN.
        let x = [60000.0, -60000.0, f32::NAN, 1.0, 0.5, -0.5, 60000.0, -60000.0, 2.0, 1.0, 0.25, 0.5];
        let x = context.upload_as(&[2, 3, 2], &x, DType::F16).await.unwrap();
        let mut layer = BatchNorm::new(&context, 3, OPTIONS).await.unwrap();
        let (y, saved) = layer.train_forward(&x).await.unwrap();
        let y = context.download(&y).await.unwrap();
        assert_eq!(&y[..2], [1.0, -1.0]);
        assert!(y[2].is_nan() && y[3].is_nan() && y[8].is_nan());
        assert!(y[4..6].iter().chain(&y[10..]).all(|v| v.is_finite()), "{y:?}");
        let statistics = saved.download(&context).await.unwrap();
        assert_eq!(statistics[0].var, 3.6e9);
    });
}

#[test]
fn types_must_agree() {
    use wgnorm::{Error, GradientTargets, Saved};
    let context = context();
    context.block_on(async {
        let mut layer = BatchNorm::new(&context, 3, OPTIONS).await.unwrap();
        let x = context.zeros_as(&[2, 3, 4], DType::F16).await.unwrap();
        let other = context.zeros_as(&[2, 3, 4], DType::Bf16).await.unwrap();
        let expected = DType::F16;
        refused!(
            layer.prepare_train_forward(&x, &other, None).await,
            Error::DType { what: "y", expected: e, got: DType::Bf16 } if e == expected
        );
        refused!(
            layer.prepare_train_forward(x.with_residual(&other), &x, None).await,
            Error::DType { what: "residual", .. }
        );
        let saved = Saved::new(&context, &x).await.unwrap();
        let targets = GradientTargets::default().dx(&other);
        refused!(layer.prepare_backward(&x, &x, &saved, &targets).await, Error::DType { what: "dx", .. });
        let dgamma = context.zeros_as(&[3], DType::Bf16).await.unwrap();
        let targets = GradientTargets::default().dgamma(&dgamma);
        refused!(layer.prepare_backward(&x, &x, &saved, &targets).await, Error::DType { what: "dgamma", .. });
        let dbeta = context.zeros_as(&[3], DType::F16).await.unwrap();
        let dgamma = context.zeros(&[3]).await.unwrap();
        let targets = GradientTargets::default().dgamma(&dgamma).dbeta(&dbeta);
        refused!(layer.prepare_backward(&x, &x, &saved, &targets).await, Error::DType { what: "dbeta", .. });
        // 16-bit parameters go with tensors of their type.
        let gamma = context.zeros_as(&[3], DType::F16).await.unwrap();
        let values = RunningValues { mean: vec![0.0; 3], var: vec![1.0; 3], batches: 0 };
        let running = RunningStatistics::upload(&context, &values).await.unwrap();
        let layer = FrozenBatchNorm::from_parts(&context, OPTIONS, Some(gamma), None, running).unwrap();
        assert!(layer.infer(&x).await.is_ok());
        refused!(layer.infer(&other).await, Error::DType { what: "gamma", .. });
    });
}

#[test]
fn copies_begin_anywhere_in_a_word() {
    let context = context();
    for dtype in HALVES {
        for (from, to) in [(0, 0), (0, 1), (1, 0), (3, 3), (2, 5)] {
            let place = |offset: usize, values: &[f32]| {
                let all = [&vec![0.5; offset], values, &[0.5; 8]].concat();
                let all = context.block_on(context.upload_as(&[all.len()], &all, dtype)).unwrap();
                let begin = offset as u64 * dtype.size();
                Tensor::from_buffer_as(&context, all.buffer().clone(), begin, &[6], dtype).unwrap()
            };
            let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
            let y = place(to, &[0.0; 6]);
            let copy = context.block_on(prepare_copy(&context, &place(from, &x), &y)).unwrap();
            submit(&context, &[&copy]);
            assert_bits(&format!("{dtype} from {from} to {to}"), &download(&context, &y), &x);
            let after =
                Tensor::from_buffer_as(&context, y.buffer().clone(), 0, &[6 + to + 8], dtype).unwrap();
            assert_bits("after", &download(&context, &after)[to + 6..], &[0.5; 8]);
        }
    }
}
