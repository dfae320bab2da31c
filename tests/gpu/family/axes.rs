//! Layer and RMS norm over any axes beside Keras and PyTorch, what the plan tells, and what is refused.

use wgnorm::reference::WhereNan;
use wgnorm::tuning::Autotuning;
use wgnorm::{DType, Error, GradientTargets, Int8, LayerNorm, NormOptions, RmsNorm, Tensor};

use crate::support::{assert_holds, assert_within, context, download, headless, upload, zeros};

#[test]
fn kernels_agree_with_keras_and_pytorch() {
    let context = context();
    let file: serde_json::Value = serde_json::from_str(include_str!("../../data/axes/cases.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 18);
    for case in cases {
        let of = |values: &serde_json::Value| -> Vec<f64> {
            values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        let indices =
            |name: &str| -> Vec<usize> { of(&case[name]).into_iter().map(|i| i as usize).collect() };
        let (dims, axes) = (indices("shape"), indices("axes"));
        let lengths: Vec<_> = axes.iter().map(|&axis| dims[axis]).collect();
        let tensor = |name: &str, dims: &[usize]| {
            let values: Vec<f32> = of(&case["inputs"][name]).into_iter().map(|value| value as f32).collect();
            upload(&context, dims, &values)
        };
        let (x, dy, gamma) = (tensor("x", &dims), tensor("dy", &dims), Some(tensor("gamma", &lengths)));
        let (y, gradients) = context.block_on(async {
            if case["norm"] == "rms" {
                let options = NormOptions::rms().eps(1e-5);
                let layer =
                    RmsNorm::over_from_parts(&context, &axes, &lengths, options, gamma, None).unwrap();
                let (y, saved) = layer.forward(&x).await.unwrap();
                (y, layer.backward(&x, &dy, &saved).await.unwrap())
            } else {
                let beta = Some(tensor("beta", &lengths));
                let options = NormOptions::layer();
                let layer =
                    LayerNorm::over_from_parts(&context, &axes, &lengths, options, gamma, beta).unwrap();
                let (y, saved) = layer.forward(&x).await.unwrap();
                (y, layer.backward(&x, &dy, &saved).await.unwrap())
            }
        });
        let hold = |name: &str, got: &Tensor| {
            let expected = of(&case["results"][name]);
            let what = format!("{} {:?} {name}", case["norm"], axes);
            assert_within(&what, &download(&context, got), &expected, WhereNan::Nan, |i| {
                3e-6 * expected[i].abs().max(1.0)
            });
        };
        hold("y", &y);
        hold("dx", &gradients.dx);
        hold("dgamma", gradients.dgamma.as_ref().unwrap());
        assert_eq!(gradients.dbeta.is_some(), case["norm"] == "layer");
        gradients.dbeta.iter().for_each(|dbeta| hold("dbeta", dbeta));
    }
}

#[test]
fn plans_tell_what_goes_through_copies() {
    let context = context();
    let told = |axes: &[usize], lengths: &[usize]| {
        let options = NormOptions::layer();
        let prepared = context.block_on(async {
            let layer = LayerNorm::over(&context, axes, lengths, options).await.unwrap();
            let x = context.zeros(&[2, 3, 4, 8]).await.unwrap();
            let y = context.zeros_like(&x).await.unwrap();
            layer.prepare_forward(&x, &y, None).await.unwrap()
        });
        let copies = prepared.kernels().filter(|kernel| kernel.starts_with("map_permute")).count();
        let reasons = &prepared.plan().unwrap().reasons;
        let why = reasons.iter().filter(|reason| reason.starts_with("axes: ")).cloned().collect::<Vec<_>>();
        let traffic = prepared.traffic();
        assert_eq!(traffic.floor_bytes, 2 * 2 * 3 * 4 * 8 * 4);
        (copies, why.join("\n"), traffic.plan_bytes / (2 * 3 * 4 * 8 * 4))
    };
    for (axes, lengths) in [(&[1][..], &[3][..]), (&[0], &[2]), (&[0, 2, 3], &[2, 4, 8]), (&[2, 3], &[4, 8])]
    {
        assert_eq!(told(axes, lengths), (0, String::new(), 3), "{axes:?}");
    }
    // x and y; gamma and beta, whose bytes are counted too.
    let (copies, why, passes) = told(&[1, 3], &[3, 8]);
    assert!((copies, passes) == (2, 7) && why.contains("in the order [0, 2, 1, 3], through copies"), "{why}");
    let (copies, why, _) = told(&[3, 1], &[8, 3]);
    assert!(copies == 2 && why.contains("in the order [0, 2, 3, 1], through copies"), "{why}");
    let (copies, why, _) = told(&[3, 2], &[8, 4]);
    assert!(copies == 2 && why.contains("the parameters go through copies"), "{why}");
}

#[test]
fn of_no_axes_layer_norm_is_beta() {
    let context = context();
    context.block_on(async {
        let (gamma, beta) =
            (context.upload(&[1], &[3.0]).await.unwrap(), context.upload(&[1], &[0.5]).await.unwrap());
        let options = NormOptions::layer();
        let layer = LayerNorm::over_from_parts(&context, &[], &[], options, Some(gamma), Some(beta)).unwrap();
        let x = context.upload(&[2, 3], &[1.0, -7.0, 3e20, 0.0, 2.5, 9.0]).await.unwrap();
        let (y, saved) = layer.forward(&x).await.unwrap();
        assert_eq!(context.download(&y).await.unwrap(), [0.5; 6]);
        let gradients = layer.backward(&x, &x, &saved).await.unwrap();
        assert_eq!(context.download(&gradients.dx).await.unwrap(), [0.0; 6]);
        assert_eq!(context.download(gradients.dgamma.as_ref().unwrap()).await.unwrap(), [0.0]);
    });
}

#[test]
fn what_axes_cannot_be() {
    let context = context();
    let options = NormOptions::layer();
    let over = |axes: &[usize], lengths: &[usize]| {
        context.block_on(LayerNorm::over(&context, axes, lengths, options))
    };
    assert!(matches!(over(&[1], &[3, 4]), Err(Error::Rank { got: 2, .. })));
    assert!(matches!(over(&[1], &[0]), Err(Error::Channels { .. })));
    assert!(matches!(over(&[0, 1, 2, 3, 4, 5], &[1; 6]), Err(Error::Rank { .. })));
    let x = zeros(&context, &[2, 3, 8]);
    for (axes, lengths, told) in [
        (&[3][..], &[3][..], "statistics over the axes [3] of [2, 3, 8]: there is no such axis"),
        (&[1, 1], &[3, 3], "one is named twice"),
        (&[1], &[8], "x must have shape [2, 8, 8]"),
        (&[2, 1], &[3, 8], "x must have shape [2, 8, 3]"),
    ] {
        let error = context.block_on(over(axes, lengths).unwrap().infer(&x)).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
    context.block_on(async {
        let layer = over(&[1], &[3]).unwrap();
        let error = layer.infer(x.modulated(Some(&x), None)).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { what: "modulation", .. }), "{error}");
        let mask = wgnorm::Mask::of_rows(&context, &[true; 16]).await.unwrap();
        let error = layer.infer(x.masked(&mask)).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { what: "mask", .. }), "{error}");
        // int8: by one scale where x is walked as it lies.
        let y = context.zeros_as(&[2, 3, 8], DType::I8).await.unwrap();
        let given = Int8::PerTensor { scale: 0.05, zero_point: 0 };
        layer.prepare_infer_int8(&x, &y, given).await.unwrap();
        let scales = context.zeros(&[16]).await.unwrap();
        let error = layer.prepare_infer_int8(&x, &y, Int8::PerRow(&scales)).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { what: "scales of rows", .. }), "{error}");
        let parameters = over(&[2, 1], &[8, 3]).unwrap();
        let error = parameters.prepare_infer_int8(&x, &y, given).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { what: "y of int8", .. }), "{error}");
    });
}

#[test]
fn autotuning_tells_ways_of_parameters_apart() {
    let context = headless().with_autotuning(Autotuning::Measure);
    for line in
        ["layer 4x16x64 axes=1", "layer 64x64 axes=0", "layer 8x16x16 axes=0,2", "layer 4x6x4x8 axes=1,3"]
    {
        assert_holds(&context, &format!("{line} backward"));
    }
    let pinned = context.pinned_tunings();
    let by_row = pinned.iter().filter(|pin| pin.problem.contains("of_rows")).count();
    assert_eq!((by_row, pinned.len()), (4, 8));
}

#[test]
fn no_tensor_is_read_more_often_than_it_must() {
    let context = context();
    let entries = |prepared: wgnorm::Prepared| -> Vec<String> {
        prepared.kernels().map(|kernel| kernel.split(' ').next().unwrap_or_default().to_owned()).collect()
    };
    context.block_on(async {
        let layer = LayerNorm::over(&context, &[1], &[6], NormOptions::layer()).await.unwrap();
        let (x, y, dx) = (
            context.zeros(&[4, 6, 64]).await.unwrap(),
            context.zeros(&[4, 6, 64]).await.unwrap(),
            context.zeros(&[4, 6, 64]).await.unwrap(),
        );
        let (saved, dgamma) = (layer.room_for(&x).await.unwrap(), context.zeros(&[6]).await.unwrap());
        let forward = layer.prepare_forward(&x, &y, Some(&saved)).await.unwrap();
        assert_eq!(entries(forward), ["reduce_moments", "map_forward<slices>"]);
        let all = GradientTargets::default().dx(&dx).dgamma(&dgamma);
        let backward = layer.prepare_backward(&x, &y, &saved, &all).await.unwrap();
        assert_eq!(backward.traffic().plan_bytes, 5 * x.byte_len());
        assert_eq!(
            entries(backward),
            ["reduce_gradients<recorded>", "fold_means", "reduce_row_gradients<means,dx>", "fold_gradients"]
        );
        let sums = GradientTargets::default().dgamma(&dgamma);
        let backward = layer.prepare_backward(&x, &y, &saved, &sums).await.unwrap();
        assert_eq!(entries(backward), ["reduce_row_gradients<recorded>", "fold_gradients"]);
    });
}
