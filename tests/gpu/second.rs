//! Derivatives of the passes beside PyTorch's, that they are what differences are, and what is refused. That kernels are right in all plans is the table's matter.

use wgnorm::eval::{Inputs, Problem};
use wgnorm::family::Epsilon;
use wgnorm::statistics::Renorm;
use wgnorm::tuning::{Capabilities, Op};
use wgnorm::{
    Activation, ActivationFunctions, Affine, BatchNorm, BatchNormOptions, DType, Error, GroupNorm, LayerNorm,
    NormOptions, RunningValues, Saved, SecondTargets, Spec, Tangents,
};

use crate::support::{context, download, own_context, refused, upload, zeros};

#[test]
fn kernels_and_reference_agree_with_pytorch() {
    let context = context();
    let file: serde_json::Value = serde_json::from_str(include_str!("../data/second/cases.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 49);
    for case in cases {
        let values = |of: &str, name: &str| -> Option<Vec<f64>> {
            let values = case[of][name].as_array()?;
            Some(values.iter().map(|value| value.as_f64().unwrap()).collect())
        };
        let input = |name: &str| -> Option<Vec<f32>> {
            Some(values("inputs", name)?.into_iter().map(|value| value as f32).collect())
        };
        let line = case["line"].as_str().unwrap();
        let mut spec: Spec = line.parse().unwrap();
        spec.eps = Epsilon::Value(1e-5);
        let mut inputs = Problem::new(&spec, &wgnorm::eval::Draw::default()).unwrap().inputs;
        inputs.x = input("x").unwrap();
        (inputs.gamma, inputs.beta, inputs.dy) = (input("gamma"), input("beta"), input("dy"));
        let tangents = inputs.tangents.as_mut().unwrap();
        tangents.x = input("x_tangent").unwrap();
        (tangents.gamma, tangents.beta) = (input("gamma_tangent"), input("beta_tangent"));
        if let (Some(mean), Some(var)) = (input("running_mean"), input("running_var")) {
            inputs.running = RunningValues { mean, var, batches: 0 };
        }
        let given: Inputs = inputs.clone();
        let problem = Problem::from_inputs(&spec, inputs).unwrap();
        assert_eq!(problem.inputs.dy, given.dy, "{line}: no z is at a kink");
        for (output, name) in [
            ("y_tangent", "y_tangent"),
            ("second_dy", "ddy"),
            ("second_dx", "dx"),
            ("second_dweight", "dgamma"),
            ("second_dbias", "dbeta"),
        ] {
            let Some(expected) = values("results", name) else { continue };
            let ours = &problem.expectation(output).unwrap().values;
            assert_eq!(ours.len(), expected.len(), "{line} {name}");
            for (ours, expected) in ours.iter().zip(expected) {
                // eps is a number of f32 here.
                let bound = 1e-9 * expected.abs().max(1.0);
                assert!((ours - expected).abs() <= bound, "{line} {name}: {ours:e} is not {expected:e}");
            }
        }
        let outcome = context.block_on(problem.run(&context));
        assert!(outcome.passes(), "{line}: {:?}", outcome.failures());
    }
}

/// A penalty of the gradient's length by the crate's own passes: how it changes with x is what differences of it are.
#[test]
fn a_gradient_penalty_descends() {
    let context = context();
    let options = NormOptions::layer().activation(Activation::Silu);
    let layer = context.block_on(LayerNorm::new(&context, &[6], options)).unwrap();
    let dims = [4, 6];
    let values = |scale: f32| -> Vec<f32> { (0..24).map(|i| scale * ((i * 7 % 11) as f32 - 5.0)).collect() };
    let dy = upload(&context, &dims, &values(0.11));
    let penalty_and_gradient = |x: &[f32]| {
        let x = upload(&context, &dims, x);
        context.block_on(async {
            let (_, saved) = layer.forward(&x).await.unwrap();
            let gradients = layer.backward(&x, &dy, &saved).await.unwrap();
            let tangents = Tangents::of_x(&gradients.dx);
            let second = layer.double_backward(&x, &dy, &saved, &tangents).await.unwrap();
            let dx = context.download(&gradients.dx).await.unwrap();
            let penalty: f64 = dx.iter().map(|&value| 0.5 * f64::from(value).powi(2)).sum();
            (penalty, context.download(&second.dx).await.unwrap())
        })
    };
    let mut x: Vec<f32> = (0..24).map(|i| (i * 5 % 13) as f32 * 0.4 - 2.0).collect();
    let (before, slope) = penalty_and_gradient(&x);
    let steepness: f64 = slope.iter().map(|&value| f64::from(value).powi(2)).sum();
    let step = 1e-3 / steepness.sqrt();
    x.iter_mut().zip(&slope).for_each(|(x, &slope)| *x -= (step * f64::from(slope)) as f32);
    let (after, _) = penalty_and_gradient(&x);
    let ratio = (before - after) / (step * steepness);
    assert!((ratio - 1.0).abs() < 0.02, "{before} to {after} is {ratio} of what the slope says");
}

#[test]
fn what_is_refused() {
    let context = context();
    let x = zeros(&context, &[2, 4, 3]);
    let tangents = Tangents::of_x(&x);
    let mut batch = context.block_on(BatchNorm::new(&context, 4, BatchNormOptions::pytorch())).unwrap();
    let (y, saved) = context.block_on(batch.train_forward(&x)).unwrap();
    let jvp = |layer: &BatchNorm, saved: &Saved, tangents: &Tangents<'_>| {
        context.block_on(layer.jvp(&x, saved, tangents)).map(|_| ())
    };
    jvp(&batch, &saved, &tangents).unwrap();

    // Tangents that do not fit.
    let flat = zeros(&context, &[24]);
    refused!(jvp(&batch, &saved, &Tangents::of_x(&flat)), Error::Shape { what: "x_tangent", .. });
    let short = zeros(&context, &[3]);
    refused!(jvp(&batch, &saved, &tangents.gamma(&short)), Error::Shape { what: "gamma_tangent", .. });
    let half = context.block_on(context.zeros_as(&[4], DType::F16)).unwrap();
    refused!(jvp(&batch, &saved, &tangents.beta(&half)), Error::DType { what: "beta_tangent", .. });
    let foreign = zeros(&own_context(), &[4]);
    refused!(jvp(&batch, &saved, &tangents.beta(&foreign)), Error::ForeignDevice { .. });
    let plain = BatchNormOptions::pytorch().affine(Affine::None);
    let mut bare = context.block_on(BatchNorm::new(&context, 4, plain)).unwrap();
    let (_, of_bare) = context.block_on(bare.train_forward(&x)).unwrap();
    let gamma = zeros(&context, &[4]);
    refused!(jvp(&bare, &of_bare, &tangents.gamma(&gamma)), Error::NoParameter { parameter: "gamma", .. });

    // Outputs over inputs, and over each other.
    let ddy = zeros(&context, &[2, 4, 3]);
    let double = |targets: &SecondTargets<'_>| {
        context.block_on(batch.prepare_double_backward(&x, &y, &saved, &tangents, targets)).map(|_| ())
    };
    refused!(double(&SecondTargets::new(&x, &ddy)), Error::Overlap { .. });
    refused!(double(&SecondTargets::new(&ddy, &ddy)), Error::Overlap { .. });

    // What an input has besides x, and passes that have no derivatives.
    let residual = x.with_residual(&y);
    refused!(
        context.block_on(batch.jvp(residual, &saved, &tangents)),
        Error::Unsupported { what: "residual", .. }
    );
    let options = BatchNormOptions::pytorch().renorm(Renorm::fixed(2.0, 1.0));
    let mut renorm = context.block_on(BatchNorm::new(&context, 4, options)).unwrap();
    let (_, of_renorm) = context.block_on(renorm.train_forward(&x)).unwrap();
    refused!(jvp(&renorm, &of_renorm, &tangents), Error::Unsupported { what: "derivatives", .. });
    let written = context.block_on(Saved::in_place(&context, &x)).unwrap();
    let over = zeros(&context, &[2, 4, 3]);
    let forward = context.block_on(batch.prepare_train_forward(&over, &over, Some(&written))).unwrap();
    context.block_on(batch.submit(&forward)).unwrap();
    refused!(
        context.block_on(batch.jvp(&over, &written, &tangents)).map(|_| ()),
        Error::Unsupported { what: "derivatives of a pass in place", .. }
    );
    let options = NormOptions::layer();
    let apart = context.block_on(LayerNorm::over(&context, &[0, 2], &[2, 3], options)).unwrap();
    let (_, of_apart) = context.block_on(apart.forward(&x)).unwrap();
    context.block_on(apart.jvp(&x, &of_apart, &tangents)).unwrap();
    let four = zeros(&context, &[2, 4, 3, 5]);
    let copied = context.block_on(LayerNorm::over(&context, &[1, 3], &[4, 5], options)).unwrap();
    let (_, of_copied) = context.block_on(copied.forward(&four)).unwrap();
    refused!(
        context.block_on(copied.jvp(&four, &of_copied, &Tangents::of_x(&four))),
        Error::Unsupported { what: "derivatives over these axes", .. }
    );

    // An activation of one's own without a second derivative has the first all the same.
    let twice = Activation::custom(
        "doubled",
        "fn activate(z: f32) -> f32 { return 2.0 * z; } fn derivative(z: f32) -> f32 { return 2.0; }",
        ActivationFunctions::new(|z| 2.0 * z, |_| 2.0),
    )
    .unwrap();
    let options = NormOptions::group().activation(twice);
    let group = context.block_on(GroupNorm::new(&context, 2, 4, options)).unwrap();
    let (_, of_group) = context.block_on(group.forward(&x)).unwrap();
    context.block_on(group.jvp(&x, &of_group, &tangents)).unwrap();
    refused!(
        context.block_on(group.double_backward(&x, &y, &of_group, &tangents)).map(|_| ()),
        Error::Unsupported { what: "activation", .. }
    );
    // Statistics of another layer.
    refused!(jvp(&batch, &of_group, &tangents), Error::Unsupported { .. });
}

#[test]
fn traffic_is_five_and_eight_tensors() {
    let context = context();
    let x = zeros(&context, &[4, 8, 6, 6]);
    let (dy, ddy, dx) =
        (zeros(&context, &[4, 8, 6, 6]), zeros(&context, &[4, 8, 6, 6]), zeros(&context, &[4, 8, 6, 6]));
    let tangents = Tangents::of_x(&x);
    let mut layer = context.block_on(BatchNorm::new(&context, 8, BatchNormOptions::pytorch())).unwrap();
    let (_, saved) = context.block_on(layer.train_forward(&x)).unwrap();
    let bytes = x.byte_len();
    let jvp = context.block_on(layer.prepare_jvp(&x, &saved, &tangents, &ddy)).unwrap();
    assert_eq!((jvp.traffic().floor_bytes, jvp.traffic().plan_bytes), (3 * bytes, 5 * bytes));
    let targets = SecondTargets::new(&ddy, &dx);
    let second =
        context.block_on(layer.prepare_double_backward(&x, &dy, &saved, &tangents, &targets)).unwrap();
    assert_eq!((second.traffic().floor_bytes, second.traffic().plan_bytes), (5 * bytes, 8 * bytes));
    let layer = layer.freeze();
    let second = context.block_on(layer.prepare_double_backward(&x, &dy, &tangents, &targets)).unwrap();
    assert_eq!(second.traffic().plan_bytes, 5 * bytes);
    // All of it in place of nothing else: what was downloaded is what was uploaded.
    assert!(download(&context, &x).iter().all(|&value| value == 0.0));
}

/// Programs without this crate's host side run the same kernels: a line is enough.
#[test]
fn a_line_gives_recipes() {
    for line in ["batch 4x3x5 silu last second", "layer 5x8 f16 second", "group:2 2x4x6 affine=none second"] {
        let spec: Spec = line.parse().unwrap();
        let recipes = spec.recipes(&Capabilities::webgpu()).unwrap();
        let second = recipes.backward.unwrap();
        assert_eq!(second.op, Op::SecondBackward, "{line}");
        let names: Vec<_> = second.operands.iter().map(|operand| operand.name.as_str()).collect();
        for name in ["x", "dy", "x_tangent", "ddy", "dx"] {
            assert!(names.contains(&name), "{line}: {names:?}");
        }
        assert_eq!(names.contains(&"gamma_tangent"), spec.affine.has_gamma(), "{line}: {names:?}");
    }
}
