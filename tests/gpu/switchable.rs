//! Switchable norm beside the authors' program, what its ends are, and what is refused. That kernels are right in all plans is the table's matter.

use wgnorm::eval::{Draw, Problem};
use wgnorm::switchable::{SwitchableNorm, SwitchableNormOptions};
use wgnorm::{
    Activation, BatchNorm, BatchNormOptions, Context, Error, GradientTargets, InstanceNorm, Momentum,
    NormOptions, RunningStatistics, RunningValues, Spec, Tensor, Train,
};

use crate::support::{context, download, own_context, refused, upload, zeros};

#[test]
fn kernels_and_reference_agree_with_the_authors_program() {
    let context = context();
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../data/switchable/cases.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 9);
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
        (inputs.gamma, inputs.beta) = (Some(input("gamma")), Some(input("beta")));
        (inputs.alpha, inputs.shift) = (input("alpha"), input("shift"));
        (inputs.running.mean, inputs.running.var) = (input("running_mean"), input("running_var"));
        let problem = Problem::from_inputs(&spec, inputs.clone()).unwrap();
        for name in ["y", "dx", "dweight", "dbias", "dalpha", "dshift", "running_mean", "running_var"] {
            let (ours, expected) = (&problem.expectation(name).unwrap().values, values("results", name));
            assert_eq!(ours.len(), expected.len(), "{line} {name}");
            // Weights of momentum are those of f32.
            let near = if name.starts_with("running") { 1e-7 } else { 1e-10 };
            for (ours, expected) in ours.iter().zip(expected) {
                let bound = near * expected.abs().max(1.0);
                assert!((ours - expected).abs() <= bound, "{line} {name}: {ours:e} is not {expected:e}");
            }
        }
        let outcome = context.block_on(problem.run(&context));
        assert!(outcome.passes(), "{line}: {:?}", outcome.failures());

        // Inference, with the running statistics before.
        let channels = spec.shape[1];
        let put = |values: &[f32]| upload(&context, &[values.len()], values);
        let running = context.block_on(RunningStatistics::upload(&context, &inputs.running)).unwrap();
        let options = match line.contains("unbiased") {
            true => SwitchableNormOptions::authors(),
            false => SwitchableNormOptions::paper(),
        };
        let layer = SwitchableNorm::from_parts(
            &context,
            options.eps(spec.eps.value(spec.dtype)),
            inputs.gamma.as_deref().map(put),
            inputs.beta.as_deref().map(put),
            [put(&inputs.alpha), put(&inputs.shift)],
            running,
        )
        .unwrap();
        assert_eq!(layer.running().channels(), channels as u64);
        let x = upload(&context, &spec.shape, &inputs.x);
        let y = download(&context, &context.block_on(layer.freeze().infer(&x)).unwrap());
        for (y, expected) in y.iter().zip(values("results", "inference")) {
            assert!(
                (f64::from(*y) - expected).abs() < 1e-5 * expected.abs().max(1.0),
                "{line}: {y} is not {expected}"
            );
        }
    }
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 % 1013) as f32 * 0.37).sin() + (i % 17) as f32 * 0.1).collect()
}

/// A layer that has one of the three alone.
fn layer(context: &Context, channels: usize, kind: usize) -> SwitchableNorm {
    let weights = || {
        let mut weights = [-1e4_f32; 3];
        weights[kind] = 0.0;
        upload(context, &[3], &weights)
    };
    let running =
        context.block_on(RunningStatistics::upload(context, &RunningValues::initial(channels))).unwrap();
    let options = SwitchableNormOptions::paper().momentum(Momentum::WeightOfNew(0.1));
    SwitchableNorm::from_parts(context, options, None, None, [weights(), weights()], running).unwrap()
}

#[test]
fn its_ends_are_instance_and_batch_norm() {
    let context = context();
    let shape = [3, 4, 5, 2];
    let (x, dy) = (upload(&context, &shape, &values(120)), upload(&context, &shape, &values(130)[10..]));
    let passes = |mut layer: SwitchableNorm| {
        let (y, saved) = context.block_on(layer.train_forward(&x)).unwrap();
        let gradients = context.block_on(layer.backward(&x, &dy, &saved)).unwrap();
        let running = context.block_on(layer.running().download(&context)).unwrap();
        (download(&context, &y), download(&context, &gradients.dx), running)
    };
    let near = |got: &[f32], expected: &Tensor| {
        let expected = download(&context, expected);
        let worst =
            got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max);
        assert!(worst < 3e-6, "{worst}");
    };
    let instance = context.block_on(InstanceNorm::new(&context, 4, NormOptions::instance())).unwrap();
    let (y, saved) = context.block_on(instance.forward(&x)).unwrap();
    let (got, got_dx, of_instance) = passes(layer(&context, 4, 0));
    near(&got, &y);
    near(&got_dx, &context.block_on(instance.backward(&x, &dy, &saved)).unwrap().dx);

    let options =
        BatchNormOptions::keras().eps(1e-5).affine(wgnorm::Affine::None).momentum(Momentum::WeightOfNew(0.1));
    let mut batch = context.block_on(BatchNorm::new(&context, 4, options)).unwrap();
    let (y, saved) = context.block_on(batch.train_forward(&x)).unwrap();
    let (got, got_dx, of_batch) = passes(layer(&context, 4, 2));
    near(&got, &y);
    near(&got_dx, &context.block_on(batch.backward(&x, &dy, &saved)).unwrap().dx);
    // The batch's moments run, whatever they weigh.
    let running = context.block_on(batch.running().download(&context)).unwrap();
    for got in [&of_instance, &of_batch] {
        let pairs = got.mean.iter().zip(&running.mean).chain(got.var.iter().zip(&running.var));
        assert!(pairs.into_iter().all(|(got, expected)| (got - expected).abs() < 1e-6));
        assert_eq!(got.batches, 1);
    }
    // And frozen it is frozen batch norm.
    let mut layer = layer(&context, 4, 2);
    context.block_on(layer.train_forward(&x)).unwrap();
    let y = context.block_on(batch.freeze().infer(&x)).unwrap();
    near(&download(&context, &context.block_on(layer.freeze().infer(&x)).unwrap()), &y);
}

#[test]
fn what_is_refused() {
    let context = context();
    let mut layer =
        context.block_on(SwitchableNorm::new(&context, 4, SwitchableNormOptions::paper())).unwrap();
    let x = zeros(&context, &[2, 4, 3]);
    let y = zeros(&context, &[2, 4, 3]);
    let forward =
        |layer: &mut SwitchableNorm, x: &Tensor| context.block_on(layer.train_forward(x)).map(|_| ());
    refused!(forward(&mut layer, &zeros(&context, &[2, 3, 3])), Error::Channels { .. });
    refused!(forward(&mut layer, &zeros(&own_context(), &[2, 4, 3])), Error::ForeignDevice { .. });
    refused!(forward(&mut layer, &zeros(&context, &[0, 4, 3])), Error::EmptyBatch { .. });
    refused!(forward(&mut layer, &zeros(&context, &[2, 4, 0])), Error::EmptyBatch { .. });
    let unbiased = SwitchableNormOptions::authors();
    let mut authors = context.block_on(SwitchableNorm::new(&context, 4, unbiased)).unwrap();
    refused!(forward(&mut authors, &zeros(&context, &[2, 4])), Error::SingleValue { .. });
    forward(&mut layer, &zeros(&context, &[2, 4])).unwrap();
    let addend = zeros(&context, &[2, 4, 3]);
    refused!(
        context.block_on(layer.train_forward(x.plus(&addend, &addend))),
        Error::Unsupported { what: "sum", .. }
    );
    let saved = context.block_on(layer.room_for(&x)).unwrap();
    refused!(context.block_on(layer.prepare_train_forward(&x, &x, Some(&saved))), Error::InPlace { .. });
    let new = |options| context.block_on(SwitchableNorm::new(&context, 4, options)).map(|_| ());
    refused!(new(SwitchableNormOptions::paper().eps(-1.0)), Error::Epsilon { .. });
    refused!(
        new(SwitchableNormOptions::paper().momentum(Momentum::WeightOfNew(2.0))),
        Error::Momentum { .. }
    );
    let running =
        || context.block_on(RunningStatistics::upload(&context, &RunningValues::initial(4))).unwrap();
    let weights = [zeros(&context, &[3]), zeros(&context, &[2])];
    refused!(
        SwitchableNorm::from_parts(&context, SwitchableNormOptions::paper(), None, None, weights, running()),
        Error::Shape { what: "shift", .. }
    );

    let (_, saved) = context.block_on(layer.train_forward(&x)).unwrap();
    let gradient = |targets: &GradientTargets<'_>| {
        context.block_on(layer.prepare_backward(&x, &y, &saved, targets)).map(|_| ())
    };
    refused!(gradient(&GradientTargets::default()), Error::NoGradient);
    let four = zeros(&context, &[4]);
    refused!(gradient(&GradientTargets::default().dalpha(&four)), Error::Shape { what: "dalpha", .. });
    let three = zeros(&context, &[3]);
    gradient(&GradientTargets::default().dalpha(&three)).unwrap();
    refused!(context.block_on(layer.backward(x.with_residual(&y), &y, &saved)), Error::Residual { .. });
    // What other layers have saved, and passes of others.
    let instance = context.block_on(InstanceNorm::new(&context, 4, NormOptions::instance())).unwrap();
    let (_, of_instance) = context.block_on(instance.forward(&x)).unwrap();
    refused!(context.block_on(layer.backward(&x, &y, &of_instance)), Error::Unsupported { .. });
    let relu = SwitchableNormOptions::paper().activation(Activation::Relu);
    let relu = context.block_on(SwitchableNorm::new(&context, 4, relu)).unwrap();
    refused!(context.block_on(relu.backward(&x, &y, &saved)), Error::Activation { .. });
    let pass = context.block_on(layer.prepare_train_forward(&x, &y, None)).unwrap();
    refused!(context.block_on(Train::submit(&mut authors, &pass)), Error::WrongLayer);
}

#[test]
fn traffic_is_three_and_five_tensors() {
    let context = context();
    let mut layer =
        context.block_on(SwitchableNorm::new(&context, 8, SwitchableNormOptions::paper())).unwrap();
    let (x, y) = (zeros(&context, &[4, 8, 6]), zeros(&context, &[4, 8, 6]));
    let saved = context.block_on(layer.room_for(&x)).unwrap();
    let bytes = x.byte_len();
    let forward = context.block_on(layer.prepare_train_forward(&x, &y, Some(&saved))).unwrap();
    assert_eq!((forward.traffic().floor_bytes, forward.traffic().plan_bytes), (2 * bytes, 3 * bytes));
    let targets = GradientTargets::default().dx(&y);
    let backward = context.block_on(layer.prepare_backward(&x, &x, &saved, &targets)).unwrap();
    assert_eq!((backward.traffic().floor_bytes, backward.traffic().plan_bytes), (3 * bytes, 5 * bytes));
}
