//! Spectral norm beside PyTorch's, its vectors and names, and what is refused. That kernels are right in all plans is the table's matter.

use wgnorm::eval::{Draw, Problem};
use wgnorm::spectral::{PowerOrder, SpectralNorm, SpectralNormOptions};
use wgnorm::{
    BatchNorm, BatchNormOptions, Context, DType, Error, GradientTargets, Infer, Input, LayerNorm,
    NormOptions, Spec, Train,
};

use crate::support::{context, download, own_context, refused, upload, zeros};

#[test]
fn kernels_and_reference_agree_with_pytorch() {
    let context = context();
    let file: serde_json::Value = serde_json::from_str(include_str!("../data/spectral/cases.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let values = |of: &str, name: &str| -> Vec<f64> {
            case[of][name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        let input = |name: &str| -> Vec<f32> {
            values("inputs", name).into_iter().map(|value| value as f32).collect()
        };
        let line = case["line"].as_str().unwrap();
        let spec: Spec = line.parse().unwrap();
        let mut inputs = Problem::new(&spec, &Draw::default()).unwrap().inputs;
        (inputs.x, inputs.dy) = (input("x"), Some(input("dy")));
        inputs.directions = (input("u"), input("v"));
        let problem = Problem::from_inputs(&spec, inputs).unwrap();
        for name in ["u", "v", "y", "dx"] {
            let (ours, expected) = (&problem.expectation(name).unwrap().values, values("results", name));
            assert_eq!(ours.len(), expected.len(), "{line} {name}");
            for (ours, expected) in ours.iter().zip(expected) {
                let bound = 1e-12 * expected.abs().max(1.0);
                assert!((ours - expected).abs() <= bound, "{line} {name}: {ours:e} is not {expected:e}");
            }
        }
        let outcome = context.block_on(problem.run(&context));
        assert!(outcome.passes(), "{line}: {:?}", outcome.failures());
    }
}

fn layer(context: &Context, shape: &[usize], options: SpectralNormOptions) -> SpectralNorm {
    context.block_on(SpectralNorm::new(context, shape, options, 3)).unwrap()
}

#[test]
fn steps_add_up_and_only_training_takes_them() {
    let context = context();
    let w =
        upload(&context, &[6, 10], &(0..60).map(|i| (i * 17 % 23) as f32 * 0.1 - 1.0).collect::<Vec<_>>());
    for order in [PowerOrder::VFirst, PowerOrder::UFirst] {
        let options = SpectralNormOptions::hook().order(order);
        // Three forward passes of one step are one of three, to the bit.
        let mut each = layer(&context, &[6, 10], options);
        let mut three = layer(&context, &[6, 10], options.iterations(3));
        for _ in 0..2 {
            context.block_on(each.train_forward(&w)).unwrap();
        }
        let (y, saved) = context.block_on(each.train_forward(&w)).unwrap();
        let (y_of_three, _) = context.block_on(three.train_forward(&w)).unwrap();
        assert_eq!(download(&context, &y), download(&context, &y_of_three));
        let directions = context.block_on(each.directions()).unwrap();
        assert_eq!(directions, context.block_on(three.directions()).unwrap());
        let sigma = context.block_on(each.sigma(&saved)).unwrap();
        let length = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
        assert!((length(&directions.0) - 1.0).abs() < 1e-6 && (length(&directions.1) - 1.0).abs() < 1e-6);

        // What was forward's is backward's, whatever steps come after.
        let dy = zeros(&context, &[6, 10]);
        let before = context.block_on(each.backward(&w, &w, &saved)).unwrap();
        context.block_on(each.train_forward(&w)).unwrap();
        let after = context.block_on(each.backward(&w, &w, &saved)).unwrap();
        assert_eq!(download(&context, &before.dx), download(&context, &after.dx));
        let none = context.block_on(each.backward(&w, &dy, &saved)).unwrap();
        assert!(download(&context, &none.dx).iter().all(|&value| value == 0.0));

        // Frozen, and with no steps: u and v stay, and σ is nearly that of the last step.
        let directions = context.block_on(each.directions()).unwrap();
        let frozen = each.freeze();
        let folded = context.block_on(frozen.fold(&w)).unwrap();
        assert_eq!(directions, context.block_on(frozen.directions()).unwrap());
        let ratio = download(&context, &w)[7] / download(&context, &folded)[7];
        assert!((ratio / sigma - 1.0).abs() < 0.05, "{ratio} after {sigma}");
        let mut still = context
            .block_on(SpectralNorm::from_directions(
                &context,
                &[6, 10],
                options.iterations(0),
                &directions.0,
                &directions.1,
            ))
            .unwrap();
        let (y, saved) = context.block_on(still.train_forward(&w)).unwrap();
        assert_eq!(download(&context, &y), download(&context, &folded));
        assert_eq!(directions, context.block_on(still.directions()).unwrap());
        // Its gradient has the same vectors.
        let dx = download(&context, &context.block_on(still.backward(&w, &w, &saved)).unwrap().dx);
        let w = download(&context, &w);
        let sigma = context.block_on(still.sigma(&saved)).unwrap();
        let square: f32 = w.iter().map(|w| w * w).sum();
        let expected = (w[13] - square / sigma * directions.0[1] * directions.1[3]) / sigma;
        assert!((dx[13] - expected).abs() < 1e-4 * expected.abs().max(1.0), "{} is not {expected}", dx[13]);
    }
}

#[test]
fn what_is_refused() {
    let context = context();
    let options = SpectralNormOptions::hook();
    let new = |shape: &[usize], options| {
        context.block_on(SpectralNorm::new(&context, shape, options, 0)).map(|_| ())
    };
    refused!(new(&[4], options), Error::Rank { .. });
    refused!(new(&[4, 3], options.axis(2)), Error::Axes { .. });
    refused!(new(&[4, 0], options), Error::EmptyBatch { .. });
    refused!(new(&[4, 3], options.eps(-1.0)), Error::Epsilon { .. });
    refused!(new(&[4, 3], options.eps(f64::NAN)), Error::Epsilon { .. });
    let given = |u: &[f32], v: &[f32]| {
        context.block_on(SpectralNorm::from_directions(&context, &[4, 3], options, u, v)).map(|_| ())
    };
    refused!(given(&[1.0; 3], &[1.0; 3]), Error::Number { what: "values of u", expected: 4, got: 3 });
    refused!(given(&[1.0; 4], &[1.0; 4]), Error::Number { expected: 7, got: 8, .. });

    let mut layer = self::layer(&context, &[4, 3], options);
    let w = zeros(&context, &[4, 3]);
    let forward =
        |layer: &mut SpectralNorm, input: Input<'_>| context.block_on(layer.train_forward(input)).map(|_| ());
    refused!(forward(&mut layer, (&zeros(&context, &[3, 4])).into()), Error::Shape { what: "a weight", .. });
    refused!(forward(&mut layer, (&zeros(&own_context(), &[4, 3])).into()), Error::ForeignDevice { .. });
    refused!(forward(&mut layer, w.with_residual(&w)), Error::Unsupported { what: "residual", .. });
    refused!(new(&[4, 3], options.iterations(1025)), Error::TooLarge { limit: 1024, .. });
    refused!(layer.set_iterations(u32::MAX), Error::TooLarge { .. });
    assert_eq!(layer.options().iterations, 1);
    layer.set_iterations(2).unwrap();
    let frozen = self::layer(&context, &[4, 3], options).freeze();
    refused!(
        context.block_on(frozen.infer(w.with_residual(&w))),
        Error::Unsupported { what: "residual", .. }
    );
    let saved = context.block_on(layer.room_for(&w)).unwrap();
    refused!(context.block_on(layer.prepare_train_forward(&w, &w, Some(&saved))), Error::InPlace { .. });
    let half = context.block_on(context.zeros_as(&[4, 3], DType::F16)).unwrap();
    refused!(context.block_on(layer.prepare_train_forward(&w, &half, None)), Error::DType { what: "y", .. });
    let y = zeros(&context, &[4, 3]);
    refused!(context.block_on(layer.prepare_train_forward(&half, &half, Some(&saved))), Error::DType { .. });
    let gradient = |targets: &GradientTargets<'_>| {
        context.block_on(layer.prepare_backward(&w, &y, &saved, targets)).map(|_| ())
    };
    refused!(gradient(&GradientTargets::default()), Error::NoGradient);
    refused!(gradient(&GradientTargets::default().dx(&half)), Error::DType { what: "dx", .. });
    let gamma = zeros(&context, &[4]);
    refused!(gradient(&GradientTargets::default().dgamma(&gamma)), Error::NoParameter { .. });
    gradient(&GradientTargets::default().dx(&y)).unwrap();

    // What another layer saved, and the pass of another.
    let norm = context.block_on(LayerNorm::new(&context, &[3], NormOptions::layer())).unwrap();
    let (_, of_norm) = context.block_on(norm.forward(&w)).unwrap();
    refused!(
        context.block_on(layer.prepare_backward(&w, &y, &of_norm, &GradientTargets::default().dx(&y))),
        Error::Unsupported { .. }
    );
    let pass = context.block_on(layer.prepare_train_forward(&w, &y, None)).unwrap();
    let mut other = context.block_on(BatchNorm::new(&context, 3, BatchNormOptions::pytorch())).unwrap();
    refused!(context.block_on(other.submit(&pass)), Error::WrongLayer);
    context.block_on(Train::submit(&mut layer, &pass)).unwrap();
}

#[test]
fn traffic_is_four_tensors() {
    let context = context();
    let mut layer = layer(&context, &[16, 8, 3, 3], SpectralNormOptions::hook());
    let (w, y) = (zeros(&context, &[16, 8, 3, 3]), zeros(&context, &[16, 8, 3, 3]));
    let saved = context.block_on(layer.room_for(&w)).unwrap();
    let bytes = w.byte_len();
    let forward = context.block_on(layer.prepare_train_forward(&w, &y, Some(&saved))).unwrap();
    assert_eq!((forward.traffic().floor_bytes, forward.traffic().plan_bytes), (2 * bytes, 4 * bytes));
    let targets = GradientTargets::default().dx(&y);
    let backward = context.block_on(layer.prepare_backward(&w, &y, &saved, &targets)).unwrap();
    assert_eq!((backward.traffic().floor_bytes, backward.traffic().plan_bytes), (3 * bytes, 4 * bytes));
    let frozen = layer.freeze();
    let inference = context.block_on(frozen.prepare_infer(&w, &y)).unwrap();
    assert_eq!(inference.traffic().plan_bytes, 3 * bytes);
}
