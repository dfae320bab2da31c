//! Which kernels a norm of rows takes, and what it does where one dispatch cannot bind all.

use wgnorm::tuning::Tuning;

use crate::support::{assert_holds, context};

/// The kernels of the backward pass of layer norm.
fn kernels(context: &wgnorm::Context, dims: &[usize], targets: [bool; 2]) -> Vec<String> {
    use wgnorm::{GradientTargets, LayerNorm, NormOptions};
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
        ["reduce_row_gradients", "fold_means", "reduce_gradients<means", "fold_gradients"]
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
