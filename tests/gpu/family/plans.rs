//! Which kernels a norm of rows takes, and what it does where one dispatch cannot bind all.

use wgnorm::tuning::Tuning;
use wgnorm::{Error, GradientTargets, LayerNorm, Layout, NormOptions, Tensor};

use crate::support::{assert_holds, context};

/// The kernels of the backward pass of layer norm.
fn kernels(context: &wgnorm::Context, dims: &[usize], targets: [bool; 2]) -> Vec<String> {
    let width = dims[dims.len() - 1];
    context.block_on(async {
        let layer = LayerNorm::new(context, &[width], NormOptions::layer()).await.unwrap();
        let tensor = async || context.zeros(dims).await.unwrap();
        let (x, dy, dx, dgamma) =
            (tensor().await, tensor().await, tensor().await, context.zeros(&[width]).await.unwrap());
        let saved = layer.room_for(&x).await.unwrap();
        let [with_dx, with_dgamma] = targets;
        let targets =
            GradientTargets::default().dx(with_dx.then_some(&dx)).dgamma(with_dgamma.then_some(&dgamma));
        let backward = layer.prepare_backward(&x, &dy, &saved, &targets).await.unwrap();
        let entry = |kernel: &str| kernel.split(' ').next().unwrap_or_default().to_owned();
        backward.kernels().map(entry).collect()
    })
}

#[test]
fn no_tensor_is_read_more_often_than_it_must() {
    let context = context();
    let rows = Tuning::default().resident(false).along_columns(false);
    let streaming = context.with_tuning(rows);
    assert_eq!(
        kernels(&streaming, &[64, 256], [true, true]),
        ["reduce_gradients<recorded>", "fold_means", "reduce_gradients<means", "fold_gradients"]
    );
    assert_eq!(
        kernels(&streaming, &[64, 256], [true, false]),
        ["reduce_gradients<recorded>", "fold_means", "map_backward<means>"]
    );
    assert_eq!(
        kernels(&streaming, &[64, 256], [false, true]),
        ["reduce_gradients<recorded", "fold_gradients"]
    );
    let columns = context.with_tuning(rows.along_columns(true));
    assert_eq!(
        kernels(&columns, &[64, 256], [true, true]),
        ["reduce_row_gradients<recorded", "fold_means", "reduce_gradients<means", "fold_gradients"]
    );
    let held = context.with_tuning(Tuning::default().resident(true));
    assert_eq!(kernels(&held, &[64, 256], [true, true]), ["resident_backward<recorded>", "fold_gradients"]);
    assert_eq!(kernels(&held, &[64, 256], [true, false]), ["resident_backward<recorded>"]);
}

#[test]
fn several_dispatches_where_one_cannot_bind_all() {
    use wgnorm::{NormOptions, RmsNorm, Tensor};
    let context = context();
    let held = context.with_tuning(Tuning::default().resident(true));
    // x ends and y begins in one block of a buffer; the sum, which is what the second of two dispatches reads, is elsewhere.
    let (dims, len) = ([3, 5], 15);
    let values = crate::support::values(1, len, 0.5, 1.0);
    let both = crate::support::upload(&context, &[2 * len], &[&values[..], &values[..]].concat());
    let [x, y] =
        [0, 4 * len].map(|offset| Tensor::from_buffer(&context, both.buffer().clone(), offset as u64, &dims));
    let (x, y) = (x.unwrap(), y.unwrap());
    let addend = crate::support::upload(&context, &dims, &values);
    context.block_on(async {
        let layer = RmsNorm::new(&held, &[5], NormOptions::rms()).await.unwrap();
        let sum = context.zeros(&dims).await.unwrap();
        let alone = layer.forward(addend.plus(&addend, &sum)).await.unwrap();
        let apart = layer.prepare_forward(addend.plus(&addend, &sum), &alone.0, None).await.unwrap();
        assert!(apart.kernels().all(|kernel| kernel.starts_with("resident")));
        let forward = layer.prepare_forward(x.plus(&addend, &sum), &y, None).await.unwrap();
        assert!(forward.kernels().all(|kernel| !kernel.starts_with("resident")));
        held.submit(&[&forward]).await.unwrap();
        let [got, expected] = [&y, &alone.0].map(|y| crate::support::download(&context, y));
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() <= 1e-6 * expected.abs(), "{got} is not {expected}");
        }
    });
}

#[test]
#[ignore = "of the full gate: large workgroups take long to compile"]
fn teams_of_every_size_hold_slices() {
    for teams in ["workgroup_size=8", "workgroup_size=64 team_size=32", "workgroup_size=256"] {
        for norm in
            ["layer 5x37", "layer 2x3x64", "rms 9x256", "group:2 2x8x5x3", "instance 2x3x7x5", "scale 33x20"]
        {
            assert_holds(&context(), &format!("{norm} backward resident=true {teams}"));
            assert_holds(&context(), &format!("{norm} sum backward resident=true {teams}"));
        }
    }
}

#[test]
#[ignore = "of the full gate: the table has each of these, if not all together"]
fn rows_are_walked_in_splits_and_windows() {
    for norm in ["layer 5x37", "layer 700x32", "rms 9x256", "rms:2 3x2x11"] {
        for words in ["", "sum silu", "modulated phase=4", "f16 residual sum relu"] {
            for along in ["along_columns=false", "along_columns=true", "along_columns=false splits=3"] {
                assert_holds(&context(), &format!("{norm} {words} backward {along}"));
            }
        }
        assert_holds(&context(), &format!("{norm} sum backward window_bytes=1024"));
    }
}

/// Queries of packed queries, keys and values: rows of a wider tensor, which are normalized where they are.
#[test]
fn rows_of_a_wider_tensor_are_walked_where_they_are() {
    let context = crate::support::context();
    let (samples, tokens, width) = (2, 5, 8);
    let packed = crate::support::values(3, samples * tokens * 3 * width, 1.5, 2.0);
    let all = crate::support::upload(&context, &[samples, tokens, 3 * width], &packed);
    let all = all.with_layout(Layout::ChannelsLast);
    context.block_on(async {
        let layer = LayerNorm::new(&context, &[width], NormOptions::layer()).await.unwrap();
        for of in 0..3 {
            let rows = packed.chunks(3 * width).flat_map(|row| &row[of * width..][..width]).copied();
            let copy = context.upload(&[samples, tokens, width], &rows.collect::<Vec<_>>()).await.unwrap();
            let view = all.slice_channels(of * width..(of + 1) * width).unwrap();
            let (expected, saved) = layer.forward(&copy).await.unwrap();
            // The view is read where it lies, y is dense.
            let (y, of_view) = layer.forward(&view).await.unwrap();
            let [y, expected_y] = [&y, &expected].map(|y| crate::support::download(&context, y));
            assert_eq!(y, expected_y, "{of}");
            let expected = layer.backward(&copy, &expected, &saved).await.unwrap();
            // And written where it lies, over what was there.
            let dy = context.upload(&[samples, tokens, width], &expected_y).await.unwrap();
            let over = all.slice_channels(of * width..(of + 1) * width).unwrap();
            let dgamma = context.zeros(&[width]).await.unwrap();
            let targets = GradientTargets::default().dx(&over).dgamma(&dgamma);
            let refused = layer.prepare_backward(&view, &dy, &of_view, &targets).await;
            assert!(matches!(refused, Err(Error::Overlap { .. })), "{refused:?}");
            let gradients = layer.backward(&view, &dy, &of_view).await.unwrap();
            let both = [&gradients.dx, &expected.dx].map(|dx| crate::support::download(&context, dx));
            assert_eq!(both[0], both[1], "{of}");
            let both = [&gradients.dgamma, &expected.dgamma];
            let both = both.map(|dgamma| crate::support::download(&context, dgamma.as_ref().unwrap()));
            assert_eq!(both[0], both[1], "{of}");
        }
        // Tokens left out at the end of each sample: rows are not equally far apart.
        let whole = context.zeros(&[samples, tokens * width]).await.unwrap();
        let fewer = [samples, tokens - 1, width];
        let stride = (tokens * width) as u64;
        let apart = Tensor::from_strided_buffer(
            &context,
            whole.buffer().clone(),
            0,
            &fewer,
            wgnorm::DType::F32,
            stride,
        );
        let refused = layer.forward(&apart.unwrap()).await;
        assert!(matches!(refused, Err(Error::NotContiguous { what: "x" })), "{refused:?}");
    });
}
