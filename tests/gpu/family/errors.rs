//! Whatever a caller gives the norms of the family, the answer is a result or an error that says what is wrong.

use wgnorm::family::{L2Norm, MeanVarianceNorm, ScaleNorm, TrackedInstanceNorm, WeightNorm};
use wgnorm::{
    Activation, Affine, BatchNorm, BatchNormOptions, DType, Error, GradientTargets, GroupNorm, Input,
    InstanceNorm, LayerNorm, Layout, NormOptions, RmsNorm,
};

use crate::support::{context, download, own_context, refused, upload, values, zeros};

fn layer(width: usize) -> LayerNorm {
    let context = context();
    context.block_on(LayerNorm::new(&context, &[width], NormOptions::layer())).unwrap()
}

#[test]
fn shapes_that_do_not_fit() {
    let context = context();
    let layer = layer(8);
    let run = |dims: &[usize]| context.block_on(layer.infer(&zeros(&context, dims))).map(|y| y.shape());
    refused!(run(&[2, 7]), Error::Shape { what: "x", .. });
    assert_eq!(run(&[8]).unwrap().dims(), [8]);
    let wide = context.block_on(LayerNorm::new(&context, &[2, 8], NormOptions::layer())).unwrap();
    refused!(context.block_on(wide.infer(&zeros(&context, &[8]))), Error::Rank { what: "x", got: 1, .. });
    refused!(context.block_on(LayerNorm::new(&context, &[], NormOptions::layer())), Error::Rank { .. });
    refused!(context.block_on(LayerNorm::new(&context, &[0], NormOptions::layer())), Error::Channels { .. });
    refused!(
        context.block_on(GroupNorm::new(&context, 3, 8, NormOptions::group())),
        Error::Groups { channels: 8, groups: 3 }
    );
    refused!(
        context.block_on(GroupNorm::new(&context, 0, 8, NormOptions::group())),
        Error::Groups { groups: 0, .. }
    );
    let group = context.block_on(GroupNorm::new(&context, 2, 8, NormOptions::group())).unwrap();
    refused!(
        context.block_on(group.infer(&zeros(&context, &[2, 6, 3]))),
        Error::Channels { expected: 8, got: 6, .. }
    );
    let axes = context.block_on(MeanVarianceNorm::new(&context, &[4], NormOptions::mean_variance())).unwrap();
    refused!(context.block_on(axes.infer(&zeros(&context, &[2, 6, 3]))), Error::Axes { .. });
    let gamma = Some(zeros(&context, &[7]));
    refused!(
        LayerNorm::from_parts(&context, &[8], NormOptions::layer(), gamma, None),
        Error::Shape { what: "gamma", .. }
    );
}

#[test]
fn what_a_norm_does_not_take() {
    let context = context();
    let x = zeros(&context, &[2, 8]);
    let layer = layer(8);
    let gamma = zeros(&context, &[2, 8]);
    refused!(
        context.block_on(layer.infer(x.modulated(Some(&gamma), None))),
        Error::Unsupported { what: "modulation", .. }
    );
    let plain = LayerNorm::from_parts(&context, &[8], NormOptions::layer(), None, None).unwrap();
    refused!(
        context.block_on(plain.infer(x.modulated(Some(&zeros(&context, &[8])), None))),
        Error::Shape { what: "gamma", .. }
    );
    let scale = ScaleNorm::from_parts(&context, 8, NormOptions::scale(), None, None).unwrap();
    refused!(context.block_on(scale.infer(x.modulated(Some(&gamma), None))), Error::Unsupported { .. });
    let weight = WeightNorm::from_parts(&context, 2, NormOptions::weight(), None).unwrap();
    refused!(context.block_on(weight.infer(x.modulated(Some(&gamma), None))), Error::Unsupported { .. });
    refused!(
        context.block_on(L2Norm::new(&context, &[1], NormOptions::l2().affine(Affine::Weight))),
        Error::Unsupported { .. }
    );
    // Batch norm takes no modulation.
    let mut batch = context.block_on(BatchNorm::new(&context, 8, BatchNormOptions::pytorch())).unwrap();
    refused!(
        context.block_on(batch.train_forward(x.modulated(Some(&gamma), None))),
        Error::Unsupported { layer: "batch norm", .. }
    );
    let mut tracked =
        context.block_on(TrackedInstanceNorm::new(&context, 4, BatchNormOptions::pytorch())).unwrap();
    let image = zeros(&context, &[2, 4, 3]);
    let gamma = zeros(&context, &[2, 4]);
    refused!(
        context.block_on(tracked.train_forward(image.modulated(Some(&gamma), None))),
        Error::Unsupported { .. }
    );
}

#[test]
fn one_value_teaches_nothing() {
    let context = context();
    let instance = context.block_on(InstanceNorm::new(&context, 4, NormOptions::instance())).unwrap();
    refused!(context.block_on(instance.forward(&zeros(&context, &[2, 4, 1]))), Error::SingleValue { .. });
    refused!(context.block_on(instance.forward(&zeros(&context, &[2, 4]))), Error::SingleValue { .. });
    refused!(context.block_on(instance.infer(&zeros(&context, &[2, 4, 0]))), Error::EmptyBatch { .. });
    // Layer norm over one value is beta, as PyTorch has it.
    let layer = layer(1);
    assert_eq!(
        download(&context, &context.block_on(layer.infer(&upload(&context, &[2, 1], &[3.0, -4.0]))).unwrap()),
        [0.0; 2]
    );
}

#[test]
fn nothing_gives_nothing() {
    let context = context();
    let layer = layer(8);
    let x = zeros(&context, &[0, 8]);
    let (y, saved) = context.block_on(layer.forward(&x)).unwrap();
    assert_eq!(y.shape().len(), 0);
    let gradients = context.block_on(layer.backward(&x, &y, &saved)).unwrap();
    assert_eq!(download(&context, &gradients.dgamma.unwrap()), [0.0; 8]);
    assert_eq!(download(&context, &gradients.dbeta.unwrap()), [0.0; 8]);
}

#[test]
fn backward_goes_with_forward() {
    let context = context();
    let layer = layer(8);
    let x = upload(&context, &[3, 8], &values(1, 24, 0.0, 1.0));
    let (y, saved) = context.block_on(layer.forward(&x)).unwrap();
    let other = upload(&context, &[4, 8], &values(1, 32, 0.0, 1.0));
    refused!(context.block_on(layer.backward(&other, &other, &saved)), Error::Number { .. });
    let rms = context.block_on(RmsNorm::new(&context, &[8], NormOptions::rms())).unwrap();
    refused!(context.block_on(rms.backward(&x, &y, &saved)), Error::Unsupported { .. });
    let silu = NormOptions::layer().activation(Activation::Silu);
    let activated = context.block_on(LayerNorm::new(&context, &[8], silu)).unwrap();
    refused!(context.block_on(activated.backward(&x, &y, &saved)), Error::Activation { .. });
    refused!(
        context.block_on(layer.backward(x.with_residual(&x), &y, &saved)),
        Error::Residual { expected: false }
    );
    let targets = GradientTargets::default();
    refused!(context.block_on(layer.prepare_backward(&x, &y, &saved, &targets)), Error::NoGradient);
    let wrong = zeros(&context, &[7]);
    let targets = GradientTargets::default().dgamma(&wrong);
    refused!(
        context.block_on(layer.prepare_backward(&x, &y, &saved, &targets)),
        Error::Shape { what: "dgamma", .. }
    );
    let plain = LayerNorm::from_parts(&context, &[8], NormOptions::layer(), None, None).unwrap();
    let right = zeros(&context, &[8]);
    let targets = GradientTargets::default().dbeta(&right);
    refused!(
        context.block_on(plain.prepare_backward(&x, &y, &saved, &targets)),
        Error::NoParameter { gradient: "dbeta", .. }
    );
}

#[test]
fn tensors_that_cannot_be_walked() {
    let context = context();
    let layer = layer(8);
    let larger = zeros(&context, &[4, 6, 8]);
    let view = larger.slice_channels(0..3).unwrap();
    refused!(context.block_on(layer.infer(&view)), Error::NotContiguous { what: "x" });
    let x = zeros(&context, &[2, 8]);
    let foreign = own_context();
    refused!(context.block_on(layer.infer(&zeros(&foreign, &[2, 8]))), Error::ForeignDevice { .. });
    let half = context.block_on(context.zeros_as(&[2, 8], DType::F16)).unwrap();
    refused!(
        context.block_on(layer.prepare_forward(&x, &half, None)).map(|_| ()),
        Error::DType { what: "y", .. }
    );
    // y over x keeps nothing for backward.
    let saved = context.block_on(layer.room_for(&x)).unwrap();
    refused!(
        context.block_on(layer.prepare_forward(&x, &x, Some(&saved))).map(|_| ()),
        Error::InPlace { .. }
    );
    assert!(context.block_on(layer.prepare_forward(&x, &x, None)).is_ok());
    // Half of x.
    let shifted = wgnorm::Tensor::from_buffer(&context, x.buffer().clone(), 0, &[1, 8]).unwrap();
    let one = zeros(&context, &[1, 8]);
    assert!(context.block_on(layer.prepare_forward(&shifted, &one, None)).is_ok());
    let group = context.block_on(GroupNorm::new(&context, 2, 4, NormOptions::group())).unwrap();
    let first = zeros(&context, &[2, 4, 4]);
    let last = zeros(&context, &[2, 4, 4]).with_layout(Layout::ChannelsLast);
    refused!(
        context.block_on(group.prepare_forward(&first, &last, None)).map(|_| ()),
        Error::Layout { what: "y", .. }
    );
    let bf16 = context.block_on(context.zeros_as(&[4], DType::Bf16)).unwrap();
    let group = GroupNorm::from_parts(&context, 2, 4, NormOptions::group(), Some(bf16), None).unwrap();
    refused!(context.block_on(group.infer(&first)), Error::DType { what: "gamma", .. });
}

#[test]
fn what_is_split_into_several_refuses_what_one_dispatch_would() {
    let context = context();
    // Rows of whole words, and rows that share one: there the sum over an addend is a map of its own.
    for width in [8, 7] {
        let layer = layer(width);
        let [x, addend, sum] = [(); 3].map(|()| zeros(&context, &[4, width]));
        let saved = context.block_on(layer.room_for(&x)).unwrap();
        let forward = |input: Input<'_>, y| {
            context.block_on(layer.prepare_forward(input.plus(&addend, &addend), y, Some(&saved))).map(|_| ())
        };
        assert_eq!(forward(Input::from(&x), &sum), Ok(()), "{width}");
        refused!(forward(Input::from(&x), &addend), Error::Overlap { .. });
        refused!(forward(x.with_residual(&addend), &sum), Error::Overlap { .. });
    }
    // dx and what is added to it are two dispatches, where there is a residual and an activation.
    let layer = context
        .block_on(LayerNorm::new(&context, &[8], NormOptions::layer().activation(Activation::Relu)))
        .unwrap();
    let [x, dy, dx, d_sum, d_residual, residual] = [(); 6].map(|()| zeros(&context, &[4, 8]));
    let dgamma = zeros(&context, &[8]);
    let saved = context.block_on(layer.room_for(&x)).unwrap();
    let backward = |d_residual| {
        let targets = GradientTargets::default().dx(&dx).d_residual(d_residual).dgamma(&dgamma);
        let input = x.with_residual(&residual);
        let input = input.with_d_sum(&d_sum);
        context.block_on(layer.prepare_backward(input, &dy, &saved, &targets)).map(|_| ())
    };
    assert_eq!(backward(&d_residual), Ok(()));
    refused!(backward(&d_sum), Error::Overlap { .. });
    // The second of these takes values one after the other, which rows of a wider tensor are not.
    let wide = zeros(&context, &[4, 16]);
    let apart = wide.slice_channels(8..16).unwrap();
    let targets = GradientTargets::default().dx(&apart).d_residual(&d_residual).dgamma(&dgamma);
    let input = x.with_residual(&residual).with_d_sum(&d_sum);
    refused!(
        context.block_on(layer.prepare_backward(input, &dy, &saved, &targets)),
        Error::NotContiguous { what: "dx" }
    );
    let targets = GradientTargets::default().dx(&dx).d_residual(&d_residual).dgamma(&dgamma);
    let input = input.with_d_sum(&apart);
    refused!(
        context.block_on(layer.prepare_backward(input, &dy, &saved, &targets)),
        Error::NotContiguous { what: "d_sum" }
    );
}

#[test]
fn gates_that_do_not_fit() {
    use wgnorm::GateOrder::{GateFirst, NormFirst};
    let context = context();
    let layer = layer(8);
    let (x, gate, other) = (zeros(&context, &[2, 8]), zeros(&context, &[2, 8]), zeros(&context, &[2, 8]));
    let forward = |input: Input<'_>| context.block_on(layer.infer(input)).map(|y| y.shape());
    let narrow = zeros(&context, &[2, 7]);
    refused!(forward(x.gated(&narrow, NormFirst)), Error::Shape { what: "gate", .. });
    refused!(
        forward(x.gated(&gate, NormFirst).with_residual(&other)),
        Error::Unsupported { what: "residual", .. }
    );
    refused!(
        forward(x.gated(&gate, GateFirst).plus(&other, &zeros(&context, &[2, 8]))),
        Error::Unsupported { what: "sum", .. }
    );
    let batch = context.block_on(BatchNorm::new(&context, 8, BatchNormOptions::pytorch())).unwrap();
    refused!(
        context.block_on(batch.freeze().infer(x.gated(&gate, NormFirst))),
        Error::Unsupported { what: "gate", .. }
    );

    let (_, saved) = context.block_on(layer.forward(x.gated(&gate, GateFirst))).unwrap();
    let backward = |input: Input<'_>, targets: GradientTargets<'_>| {
        context.block_on(layer.prepare_backward(input, &x, &saved, &targets)).map(|_| ())
    };
    let (dx, d_gate) = (zeros(&context, &[2, 8]), zeros(&context, &[2, 8]));
    let both = GradientTargets::default().dx(&dx).d_gate(&d_gate);
    assert!(backward(x.gated(&gate, GateFirst), both).is_ok());
    refused!(
        backward(x.gated(&gate, NormFirst), both),
        Error::Gate { expected: Some(GateFirst), got: Some(NormFirst) }
    );
    refused!(backward(Input::from(&x), both), Error::NoParameter { gradient: "d_gate", .. });
    refused!(
        backward(x.gated(&gate, GateFirst), GradientTargets::default().d_gate(&d_gate)),
        Error::Unsupported { what: "d_gate", .. }
    );
}
