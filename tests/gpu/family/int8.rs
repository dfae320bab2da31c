//! A y of int8 beside ONNX Runtime's and vLLM's, and what is refused.

use wgnorm::{
    BatchNorm, BatchNormOptions, DType, Error, GroupNorm, Int8, LayerNorm, NormOptions, RmsNorm, Tensor,
};

use wgnorm::tuning::Tuning;

use crate::support::{context, download, placed, refused, upload, zeros};

#[test]
fn kernels_agree_with_onnx_runtime_and_vllm() {
    let context = context();
    let file: serde_json::Value = serde_json::from_str(include_str!("../../data/int8/cases.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let of = |name: &str| -> Vec<f32> {
            case[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
        };
        let dims: Vec<_> = of("shape").into_iter().map(|dim| dim as usize).collect();
        let (width, x) = (&dims[1..], upload(&context, &dims, &of("x")));
        let gamma = Some(upload(&context, width, &of("gamma")));
        let y = context.block_on(context.zeros_as(&dims, DType::I8)).unwrap();
        let scales = zeros(&context, &dims[..1]);
        let int8 = match case["scale"].as_f64() {
            Some(scale) => {
                Int8::PerTensor { scale: scale as f32, zero_point: case["zero"].as_i64().unwrap() as i8 }
            }
            None => Int8::PerRow(&scales),
        };
        let prepared = context.block_on(async {
            match case["norm"] == "layer" {
                true => {
                    let beta = Some(upload(&context, width, &of("beta")));
                    let layer = LayerNorm::from_parts(&context, width, NormOptions::layer(), gamma, beta);
                    layer.unwrap().prepare_infer_int8(&x, &y, int8).await
                }
                false => {
                    let options = NormOptions::rms().eps(1e-5);
                    let layer = RmsNorm::from_parts(&context, width, options, gamma, None);
                    layer.unwrap().prepare_infer_int8(&x, &y, int8).await
                }
            }
        });
        context.block_on(context.submit(&[&prepared.unwrap()])).unwrap();
        let got = download(&context, &y);
        for (i, (got, expected)) in got.iter().zip(case["q"].as_array().unwrap()).enumerate() {
            if let Some(expected) = expected.as_i64() {
                assert_eq!(*got as i64, expected, "{} {} {i}", case["norm"], case["scale"]);
            }
        }
        // What is beyond the type, or the largest of its row.
        if case["scale"] == 0.001 || case["scale"].is_null() {
            assert!(got.iter().any(|got| got.abs() >= 127.0));
        }
        if case["scale"].is_null() {
            for (got, expected) in download(&context, &scales).iter().zip(of("scales")) {
                assert!((got - expected).abs() <= 1e-6 * expected, "{got} is not {expected}");
            }
        }
    }
}

#[test]
fn what_has_no_int8() {
    let context = context();
    let (x, y) = (zeros(&context, &[4, 8]), context.block_on(context.zeros_as(&[4, 8], DType::I8)).unwrap());
    let scales = zeros(&context, &[4]);
    let layer = context.block_on(LayerNorm::new(&context, &[8], NormOptions::layer())).unwrap();
    let prepare = |x: &Tensor, y: &Tensor, int8: Int8<'_>| {
        context.block_on(layer.prepare_infer_int8(x, y, int8)).map(|_| ())
    };
    let given = Int8::PerTensor { scale: 0.1, zero_point: 0 };
    assert!(prepare(&x, &y, given).is_ok() && prepare(&x, &y, Int8::PerRow(&scales)).is_ok());
    refused!(prepare(&x, &x, given), Error::DType { what: "y", expected: DType::I8, got: DType::F32 });
    // An int8 is a result, and no input or other output.
    refused!(context.block_on(layer.infer(&y)), Error::DType { what: "x", got: DType::I8, .. });
    refused!(context.block_on(layer.prepare_forward(&x, &y, None)), Error::DType { what: "y", .. });
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        refused!(prepare(&x, &y, Int8::PerTensor { scale, zero_point: 0 }), Error::Scale { .. });
    }
    refused!(prepare(&x, &y, Int8::PerRow(&zeros(&context, &[3]))), Error::Shape { what: "scales", .. });
    // Four values are one word.
    let narrow = context.block_on(LayerNorm::new(&context, &[6], NormOptions::layer())).unwrap();
    let small = context.block_on(context.zeros_as(&[4, 6], DType::I8)).unwrap();
    refused!(
        context.block_on(narrow.prepare_infer_int8(&zeros(&context, &[4, 6]), &small, Int8::PerRow(&scales))),
        Error::Unsupported { what: "y of int8", .. }
    );
    let shifted = placed(&context, &[4, 8], &[1.0; 32], 1);
    refused!(prepare(&shifted, &y, given), Error::Unsupported { what: "y of int8", .. });
    assert!(prepare(&placed(&context, &[4, 8], &[1.0; 32], 4), &y, given).is_ok());
    // A row with a scale is one team's, or nobody's.
    let split = context.with_tuning(Tuning::default().splits(4));
    let forced = context.block_on(LayerNorm::new(&split, &[8], NormOptions::layer())).unwrap();
    refused!(
        context.block_on(forced.prepare_infer_int8(&x, &y, Int8::PerRow(&scales))),
        Error::Tuning { choice: "splits", got: 4, .. }
    );
    const LONG: usize = 1 << 22;
    let (row, of_row) = (zeros(&context, &[1, LONG]), zeros(&context, &[1]));
    let long = context.block_on(RmsNorm::new(&context, &[LONG], NormOptions::rms())).unwrap();
    let y_of_row = context.block_on(context.zeros_as(&[1, LONG], DType::I8)).unwrap();
    match context.block_on(long.prepare_infer_int8(&row, &y_of_row, Int8::PerRow(&of_row))) {
        Ok(prepared) => assert_eq!(prepared.plan().map(|plan| plan.splits), Some(1)),
        Err(error) => assert!(matches!(error, Error::Unsupported { what: "scales of rows", .. }), "{error}"),
    }
    // Rows, not channels or groups of channels.
    let batch = context.block_on(BatchNorm::new(&context, 8, BatchNormOptions::pytorch())).unwrap().freeze();
    refused!(
        context.block_on(batch.prepare_infer_int8(&x, &y, Int8::PerRow(&scales))),
        Error::Unsupported { what: "scales of rows", .. }
    );
    assert!(context.block_on(batch.prepare_infer_int8(&x, &y, given)).is_ok());
    let group = context.block_on(GroupNorm::new(&context, 2, 8, NormOptions::group())).unwrap();
    refused!(
        context.block_on(group.prepare_infer_int8(&x, &y, Int8::PerRow(&scales))),
        Error::Unsupported { what: "scales of rows", .. }
    );
    let grouped = context.block_on(RmsNorm::in_groups(&context, &[8], 2, NormOptions::rms())).unwrap();
    refused!(
        context.block_on(grouped.prepare_infer_int8(&x, &y, Int8::PerRow(&scales))),
        Error::Unsupported { what: "scales of rows", .. }
    );
}
