//! Folding into weights in tensors: against convolutions in f64, in all layouts, types and places.

use wgnorm::absorb::{
    AbsorbedTensors, Border, Destination, InferenceNorm, TensorWeights, WeightLayout, Weights,
};
use wgnorm::{
    Activation, BatchNormOptions, Context, DType, Error, FrozenBatchNorm, RunningStatistics, RunningValues,
    Shape, Tensor,
};

use crate::convolution::{Convolution, Image, Kind, Norm, close};
use crate::support::*;

fn layer_of(context: &Context, norm: &Norm, options: BatchNormOptions) -> FrozenBatchNorm {
    let running = RunningValues { mean: norm.mean.clone(), var: norm.var.clone(), batches: 9 };
    let running = context.block_on(RunningStatistics::upload(context, &running)).unwrap();
    let parameter = |v: &Option<Vec<f32>>| v.as_ref().map(|v| upload(context, &[v.len()], v));
    let options = options.eps(norm.eps);
    FrozenBatchNorm::from_parts(context, options, parameter(&norm.gamma), parameter(&norm.beta), running)
        .unwrap()
}

fn layer(context: &Context, norm: &Norm) -> FrozenBatchNorm {
    layer_of(context, norm, BatchNormOptions::pytorch())
}

/// A norm whose results 16 bits can hold.
fn moderate(seed: u64, channels: usize) -> Norm {
    Norm {
        mean: values(seed, channels, 1.0, 3.0),
        var: values(seed + 1, channels, 1.0, 0.9),
        gamma: Some(values(seed + 2, channels, 0.0, 2.0)),
        beta: Some(values(seed + 3, channels, 0.0, 1.0)),
        eps: 1e-3,
    }
}

/// The norm before or after the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Preceding,
    Following,
}

struct Case {
    convolution: Convolution,
    weight: Tensor,
    bias: Option<Tensor>,
    x: Image,
}

impl Case {
    /// Weights that begin `offset` elements into their buffer.
    fn new(
        context: &Context,
        convolution: Convolution,
        seed: u64,
        dtype: DType,
        offset: usize,
        bias: Option<DType>,
    ) -> Self {
        let place = |dims: &[usize], values: &[f32], dtype: DType| {
            let all = [&vec![0.5; offset], values, &[0.5; 8]].concat();
            let all = context.block_on(context.upload_as(&[all.len()], &all, dtype)).unwrap();
            let begin = offset as u64 * dtype.size();
            Tensor::from_buffer_as(context, all.buffer().clone(), begin, dims, dtype).unwrap()
        };
        let weight = place(&convolution.dims(), &values(seed, convolution.len(), 0.0, 1.0), dtype);
        let outputs = convolution.all_outputs();
        let bias = bias.map(|dtype| place(&[outputs], &values(seed + 1, outputs, 0.0, 1.0), dtype));
        let size = if convolution.kernel.is_some() { [4, 3] } else { [1, 1] };
        let x = wide(&values(seed + 2, convolution.all_inputs() * size[0] * size[1], 0.0, 1.0));
        Self { convolution, weight, bias, x: Image { values: x, size } }
    }

    fn weights(&self) -> TensorWeights<'_> {
        TensorWeights { weight: &self.weight, bias: self.bias.as_ref(), layout: self.convolution.layout() }
    }

    /// What norm and convolution give together, and the magnitudes of what was added up.
    fn expected(&self, context: &Context, norm: &Norm, side: Side) -> (Image, Vec<f64>) {
        let weights = wide(&download(context, &self.weight));
        let bias = self.bias.as_ref().map(|bias| wide(&download(context, bias)));
        let apply = |x: &Image| self.convolution.apply(x, &weights, bias.as_deref());
        match side {
            Side::Preceding => {
                let (y, magnitudes) = apply(&self.x);
                norm.apply(&y, &magnitudes)
            }
            Side::Following => {
                let magnitudes: Vec<_> = self.x.values.iter().map(|x| x.abs()).collect();
                let (normalized, magnitudes) = norm.apply(&self.x, &magnitudes);
                let magnitudes = Image { values: magnitudes, size: self.x.size };
                (apply(&normalized).0, apply(&magnitudes).1)
            }
        }
    }

    #[track_caller]
    fn assert(&self, context: &Context, (expected, magnitudes): (Image, Vec<f64>), got: &AbsorbedTensors) {
        let (weight, bias) = (download(context, &got.weight), download(context, &got.bias));
        let (y, _) = self.convolution.apply(&self.x, &wide(&weight), Some(&wide(&bias)));
        let largest = self.x.values.iter().fold(0.0, |largest: f64, x| x.abs().max(largest));
        let allowed = got.deviation.of_output(largest);
        for (at, (&got, &expected)) in y.values.iter().zip(&expected.values).enumerate() {
            assert!(
                close(got, expected, magnitudes[at], allowed),
                "{:?} [{at}]: {got:e}, expected {expected:e} within {allowed:e}",
                self.convolution
            );
        }
        // What is reported is what rounding, and the kernel's few units in the last place, explain.
        let largest = |values: &[f32]| wide(values).into_iter().fold(0.0, |a: f64, b| a.max(b.abs()));
        let unit = |tensor: &Tensor| match tensor.dtype() {
            DType::F16 => (tensor.dtype().unit_roundoff(), 6e-8),
            dtype => (dtype.unit_roundoff(), 1.2e-38),
        };
        let ((unit_weight, least_weight), (unit_bias, least_bias)) = (unit(&got.weight), unit(&got.bias));
        let allowed =
            (1.01 * unit_weight + 10.0 * DType::F32.unit_roundoff()) * largest(&weight) + least_weight;
        assert!(got.deviation.weight <= allowed, "{:?}, {allowed:e}", got.deviation);
        let allowed = 1.01 * unit_bias * largest(&bias) + least_bias;
        assert!(got.deviation.bias <= allowed, "{:?}, {allowed:e}", got.deviation);
    }

    fn absorb(
        &self,
        context: &Context,
        norm: &Norm,
        side: Side,
        destination: Destination,
    ) -> AbsorbedTensors {
        let layer = layer(context, norm);
        context
            .block_on(async {
                match side {
                    Side::Preceding => layer.absorb_into_preceding(&self.weights(), destination).await,
                    Side::Following => {
                        layer.absorb_into_following(&self.weights(), Border::Unpadded, destination).await
                    }
                }
            })
            .unwrap()
    }

    fn channels(&self, side: Side) -> usize {
        match side {
            Side::Preceding => self.convolution.all_outputs(),
            Side::Following => self.convolution.all_inputs(),
        }
    }
}

fn sides(kind: Kind) -> &'static [Side] {
    if kind.is_transposed() { &[Side::Preceding] } else { &[Side::Preceding, Side::Following] }
}

#[test]
fn every_convolution_agrees_with_the_reference() {
    let context = context();
    let kinds = Kind::ALL.into_iter().flat_map(|kind| [1, 2].map(|groups| Convolution::of(kind, groups)));
    let linear = [Kind::OutputFirst, Kind::OutputLast].map(Convolution::linear);
    for (seed, convolution) in (0..).step_by(10).zip(kinds.chain(linear)) {
        for &side in sides(convolution.kind) {
            let case = Case::new(&context, convolution, seed, DType::F32, 0, None);
            let norm = Norm::hostile(&values(seed + 5, 4 * case.channels(side), 0.0, 1.0));
            let got = case.absorb(&context, &norm, side, Destination::New);
            case.assert(&context, case.expected(&context, &norm, side), &got);
            assert_eq!(
                (got.weight.shape(), got.bias.shape().len()),
                (case.weight.shape(), convolution.all_outputs() as u64)
            );
        }
    }
}

#[test]
fn in_place_and_of_every_type_and_at_every_place() {
    let context = context();
    for (seed, dtype) in (0..).step_by(10).zip(DType::ALL) {
        for (offset, bias) in [(0, None), (1, Some(dtype)), (3, Some(DType::F32))] {
            // 27 weights: an odd number, and rows that end inside of words.
            let odd =
                Convolution { kernel: Some([3, 3]), inputs: 1, ..Convolution::of(Kind::OutputFirst, 1) };
            for convolution in [odd, Convolution::of(Kind::InputLast, 2)] {
                for &side in sides(convolution.kind) {
                    let case = Case::new(&context, convolution, seed, dtype, offset, bias);
                    let norm = moderate(seed, case.channels(side));
                    let expected = case.expected(&context, &norm, side);
                    let apart = case.absorb(&context, &norm, side, Destination::New);
                    case.assert(&context, expected, &apart);
                    assert_eq!(apart.bias.dtype(), bias.unwrap_or(dtype));

                    let around = |tensor: &Tensor| {
                        let size = (tensor.buffer().size() / dtype.size()) as usize;
                        let all =
                            Tensor::from_buffer_as(&context, tensor.buffer().clone(), 0, &[size], dtype);
                        let mut all = download(&context, &all.unwrap());
                        all.drain(offset..offset + convolution.len());
                        all
                    };
                    let before = around(&case.weight);
                    let got = case.absorb(&context, &norm, side, Destination::InPlace);
                    assert_eq!(got.weight.buffer(), case.weight.buffer());
                    assert_bits(
                        "weights",
                        &download(&context, &case.weight),
                        &download(&context, &apart.weight),
                    );
                    assert_bits("around the weights", &around(&case.weight), &before);
                    if let Some(bias) = &case.bias {
                        assert_eq!(got.bias.buffer(), bias.buffer());
                        assert_bits("bias", &download(&context, bias), &download(&context, &apart.bias));
                    }
                    assert_eq!(got.deviation, apart.deviation);
                }
            }
        }
    }
}

#[test]
fn tensors_and_slices_agree() {
    let context = context();
    let norm = Norm::hostile(&values(3, 4 * 6, 0.0, 1.0));
    let layer = layer(&context, &norm);
    let on_host: InferenceNorm = InferenceNorm {
        mean: &norm.mean,
        var: &norm.var,
        gamma: norm.gamma.as_deref(),
        beta: norm.beta.as_deref(),
        eps: norm.eps,
    };
    let epilogue = context.block_on(layer.scale_shift()).unwrap();
    assert_eq!(epilogue, on_host.scale_shift().unwrap());
    let (scale, shift) = context.block_on(epilogue.upload(&context)).unwrap();
    assert_bits("scale", &download(&context, &scale), &epilogue.scale);
    assert_bits("shift", &download(&context, &shift), &epilogue.shift);
}

#[test]
fn three_kernel_axes_and_other_contexts() {
    let norm = moderate(4, 6);
    let values = values(9, 6 * 2 * 2 * 3 * 2, 0.0, 1.0);
    let dims = [6, 2, 2, 3, 2];
    let layout = WeightLayout::OutputFirst { groups: 2 };
    let on_host: InferenceNorm = InferenceNorm {
        mean: &norm.mean,
        var: &norm.var,
        gamma: norm.gamma.as_deref(),
        beta: norm.beta.as_deref(),
        eps: norm.eps,
    };
    let expected =
        on_host.absorb_into_preceding(&Weights { values: &values, dims: &dims, layout, bias: None });
    let expected = expected.unwrap();
    for (name, context) in few_contexts() {
        let weight = upload(&context, &dims, &values);
        let weights = TensorWeights { weight: &weight, bias: None, layout };
        let layer = layer(&context, &norm);
        let got = context.block_on(layer.absorb_into_preceding(&weights, Destination::New)).unwrap();
        assert_bits(name, &download(&context, &got.bias), &expected.bias);
        assert_bits("the weight that was given", &download(&context, &weight), &values);
        for (got, expected) in download(&context, &got.weight).into_iter().zip(&expected.weight) {
            assert!(
                (got - expected).abs() <= 6e-7 * expected.abs(),
                "{name}: {got:e}, expected {expected:e}"
            );
        }
    }
}

#[test]
fn the_activation_stays_with_the_caller() {
    let context = context();
    let norm = moderate(1, 2);
    let layer = layer_of(&context, &norm, BatchNormOptions::pytorch().activation(Activation::Relu));
    let weight = upload(&context, &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let layout = WeightLayout::OutputFirst { groups: 1 };
    let weights = TensorWeights { weight: &weight, bias: None, layout };
    let absorbed = context.block_on(layer.absorb_into_preceding(&weights, Destination::New)).unwrap();
    assert_eq!(absorbed.activation, Activation::Relu);
    let refused = context.block_on(layer.absorb_into_following(&weights, Border::Unpadded, Destination::New));
    refused!(refused, Error::InexactFolding { why } if why.contains("activation"));
}

#[test]
fn what_is_refused_changes_nothing() {
    let context = context();
    let norm = moderate(1, 2);
    let norm_layer = layer(&context, &norm);
    let layout = WeightLayout::OutputFirst { groups: 1 };
    let content = [1.0, 2.0, 3.0, 4.0];
    let weight = upload(&context, &[2, 2], &content);
    let bias = upload(&context, &[2], &[0.5, -0.5]);
    let weights = TensorWeights { weight: &weight, bias: Some(&bias), layout };
    let into = |layer: &FrozenBatchNorm, weights: TensorWeights<'_>| {
        context.block_on(layer.absorb_into_preceding(&weights, Destination::InPlace))
    };
    let three = upload(&context, &[3], &[0.0; 3]);
    refused!(
        into(&norm_layer, TensorWeights { bias: Some(&three), ..weights }),
        Error::Shape { what: "bias", .. }
    );
    let flat = upload(&context, &[4], &content);
    refused!(into(&norm_layer, TensorWeights { weight: &flat, ..weights }), Error::WeightShape { .. });
    let none = zeros(&context, &[2, 0]);
    refused!(into(&norm_layer, TensorWeights { weight: &none, ..weights }), Error::WeightShape { .. });
    let groups = WeightLayout::OutputFirst { groups: 3 };
    refused!(
        into(&norm_layer, TensorWeights { layout: groups, ..weights }),
        Error::WeightShape { groups: 3, .. }
    );
    let wide_layer = layer(&context, &moderate(1, 4));
    refused!(into(&wide_layer, weights), Error::Channels { expected: 4, got: 2, .. });
    let view = upload(&context, &[2, 4], &[1.0; 8]).slice_channels(0..2).unwrap();
    refused!(
        into(&norm_layer, TensorWeights { weight: &view, ..weights }),
        Error::NotContiguous { what: "weight" }
    );
    let parts =
        Tensor::concat(&[&upload(&context, &[1, 2], &[1.0; 2]), &upload(&context, &[1, 2], &[1.0; 2])]);
    refused!(
        into(&norm_layer, TensorWeights { weight: &parts.unwrap(), ..weights }),
        Error::NotContiguous { .. }
    );
    let foreign = upload(&other_context(), &[2, 2], &content);
    refused!(
        into(&norm_layer, TensorWeights { weight: &foreign, ..weights }),
        Error::ForeignDevice { what: "weight" }
    );
    let overlapping = Tensor::from_buffer(&context, weight.buffer().clone(), 8, &[2]).unwrap();
    refused!(into(&norm_layer, TensorWeights { bias: Some(&overlapping), ..weights }), Error::Overlap { .. });
    let storage = context.device().create_buffer(&wgnorm::wgpu::BufferDescriptor {
        label: None,
        size: 16,
        usage: wgnorm::wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let storage = Tensor::from_buffer(&context, storage, 0, &[2, 2]).unwrap();
    refused!(
        into(&norm_layer, TensorWeights { weight: &storage, ..weights }),
        Error::BufferUsage { missing: "COPY_SRC", .. }
    );
    let nan = upload(&context, &[2, 2], &[1.0, 2.0, f32::NAN, 4.0]);
    refused!(
        into(&norm_layer, TensorWeights { weight: &nan, ..weights }),
        Error::Value { what: "weight", index: 2, .. }
    );
    let negative = layer(&context, &Norm { var: vec![1.0, -1.0], ..norm.clone() });
    refused!(into(&negative, weights), Error::Value { what: "running_var", index: 1, .. });
    let infinite = layer(&context, &Norm { mean: vec![f32::INFINITY, 0.0], ..norm.clone() });
    refused!(into(&infinite, weights), Error::Value { what: "running_mean", index: 0, .. });

    let half = context.block_on(context.upload_as(&[2, 2], &[6e4; 4], DType::F16)).unwrap();
    let steep = layer(&context, &Norm { gamma: Some(vec![4.0, 1.0]), ..norm.clone() });
    refused!(
        into(&steep, TensorWeights { weight: &half, ..weights }),
        Error::Unrepresentable { what: "the folded weight", dtype: DType::F16, .. }
    );
    // The bias that is new has the type of the weight, which cannot hold it.
    let small = context.block_on(context.upload_as(&[2, 2], &[1.0; 4], DType::F16)).unwrap();
    let far = layer(&context, &Norm { mean: vec![1e6, 0.0], ..norm.clone() });
    let refused = into(&far, TensorWeights { weight: &small, bias: None, ..weights });
    refused!(refused, Error::Unrepresentable { what: "the folded bias", dtype: DType::F16, .. });
    refused!(
        context.block_on(norm_layer.absorb_into_following(&weights, Border::Zeros, Destination::InPlace)),
        Error::InexactFolding { .. }
    );
    assert_eq!(weight.shape(), Shape::new(&[2, 2]).unwrap());
    assert_bits("weight", &download(&context, &weight), &content);
    assert_bits("bias", &download(&context, &bias), &[0.5, -0.5]);
    assert_bits("f16", &download(&context, &half), &[6e4; 4].map(|_| 60000.0));
    assert_bits("f16", &download(&context, &small), &[1.0; 4]);
}
