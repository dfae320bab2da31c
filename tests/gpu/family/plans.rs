//! The same results however a walk is cut.

use wgnorm::{Activation, DType, Tuning};

use super::setup::{Of, Setup, check};
use super::shapes::setups;
use crate::support::{column_contexts, contexts, trusted_context};

#[test]
fn forced_plans() {
    for (name, context) in contexts().into_iter().chain(column_contexts()) {
        for setup in setups() {
            check(&context, name, &setup);
        }
    }
}

#[test]
fn along_rows_and_along_columns() {
    for along_columns in [false, true] {
        for splits in [None, Some(3)] {
            let context = trusted_context().with_tuning(Tuning {
                along_columns: Some(along_columns),
                splits,
                ..Tuning::default()
            });
            for setup in setups().into_iter().filter(|setup| matches!(setup.of, Of::Layer(_) | Of::Rms(_))) {
                check(&context, "plain", &setup);
                check(&context, "sum", &Setup { sum: true, activation: Activation::Silu, ..setup.clone() });
                check(&context, "modulated", &Setup { modulated: true, offset: 4, ..setup.clone() });
                let fused = Setup {
                    residual: true,
                    sum: true,
                    activation: Activation::Relu,
                    dtype: DType::F16,
                    ..setup
                };
                check(&context, "fused", &fused);
            }
        }
    }
}

#[test]
fn windows() {
    let tuning = Tuning { window_bytes: Some(1024), ..Tuning::default() };
    for setup in setups() {
        check(&trusted_context().with_tuning(tuning), "windows", &Setup { sum: true, ..setup });
    }
}

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
        let targets = GradientTargets {
            dx: with_dx.then_some(&dx),
            dgamma: with_dgamma.then_some(&dgamma),
            ..Default::default()
        };
        let backward = layer.prepare_backward(&x, &dy, &saved, &targets).await.unwrap();
        let entry = |kernel: &str| kernel.split(' ').next().unwrap_or_default().to_owned();
        backward.kernels().map(entry).collect()
    })
}

#[test]
fn no_tensor_is_read_more_often_than_it_must() {
    let context = trusted_context();
    let rows = Tuning { resident: Some(false), along_columns: Some(false), ..Tuning::default() };
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
    let columns = context.with_tuning(Tuning { along_columns: Some(true), ..rows });
    assert_eq!(
        kernels(&columns, &[64, 256], [true, true]),
        ["reduce_row_gradients", "fold_means", "reduce_gradients<means", "fold_gradients"]
    );
    let held = context.with_tuning(Tuning { resident: Some(true), ..Tuning::default() });
    assert_eq!(kernels(&held, &[64, 256], [true, true]), ["resident_backward<recorded>", "fold_gradients"]);
    assert_eq!(kernels(&held, &[64, 256], [true, false]), ["resident_backward<recorded>"]);
}

#[test]
fn several_dispatches_where_one_cannot_bind_all() {
    use wgnorm::{NormOptions, RmsNorm, Tensor};
    let context = trusted_context();
    let held = context.with_tuning(Tuning { resident: Some(true), ..Tuning::default() });
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
        let alone = layer.forward_of_sum(&addend, &addend).await.unwrap();
        let apart = layer.prepare_forward_of_sum(&addend, &addend, &sum, &alone.0, None).await.unwrap();
        assert!(apart.kernels().all(|kernel| kernel.starts_with("resident")));
        let forward = layer.prepare_forward_of_sum(&x, &addend, &sum, &y, None).await.unwrap();
        assert!(forward.kernels().all(|kernel| !kernel.starts_with("resident")));
        held.submit(&[&forward]).await.unwrap();
        let [got, expected] = [&y, &alone.0].map(|y| crate::support::download(&context, y));
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() <= 1e-6 * expected.abs(), "{got} is not {expected}");
        }
    });
}

#[test]
fn held_slices() {
    for (workgroup_size, team_size) in [(8, None), (64, Some(32)), (256, None)] {
        let tuning = Tuning {
            resident: Some(true),
            workgroup_size: Some(workgroup_size),
            team_size,
            ..Tuning::default()
        };
        for setup in setups() {
            check(&trusted_context().with_tuning(tuning), "held", &setup);
            check(&trusted_context().with_tuning(tuning), "held sum", &Setup { sum: true, ..setup });
        }
    }
}
