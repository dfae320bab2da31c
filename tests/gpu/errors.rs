//! Errors: everything a caller can do wrong is told as what it is, before anything is recorded.

use wgnorm::spec::{self, Spec};
use wgnorm::statistics::{ChannelMoments, Moments};
use wgnorm::tuning::{Tuning, prepare_copy};
use wgnorm::{
    Affine, BatchNorm, BatchNormOptions, Context, ContextOptions, Error, GradientTargets, Layout, Momentum,
    RunningStatistics, RunningValues, Saved, Shape, Tensor, Train,
};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();

/// A layer of three channels on a context.
fn layer(context: &Context) -> BatchNorm {
    Inputs::new(1, &[2, 3, 4]).layer(context, OPTIONS)
}

fn raw_buffer(context: &Context, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    context.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage,
        mapped_at_creation: false,
    })
}

#[test]
fn wrong_ranks() {
    let context = context();
    refused!(Shape::new(&[]), Error::Rank { got: 0, .. });
    refused!(Shape::new(&[1; 6]), Error::Rank { got: 6, .. });
    refused!(context.block_on(context.zeros(&[1; 6])), Error::Rank { got: 6, .. });
    refused!(context.block_on(context.upload(&[], &[])), Error::Rank { got: 0, .. });
    let flat = zeros(&context, &[3]);
    refused!(Tensor::from_buffer(&context, flat.buffer().clone(), 0, &[1; 7]), Error::Rank { got: 7, .. });
    let (x, mut layer) = (zeros(&context, &[2, 3, 4]), layer(&context));
    let saved = context.block_on(Saved::new(&context, &x)).unwrap();
    let moments = context.block_on(Moments::of(&context, &x)).unwrap();
    refused!(context.block_on(Moments::of(&context, &flat)), Error::Rank { got: 1, .. });
    refused!(context.block_on(Saved::new(&context, &flat)), Error::Rank { got: 1, .. });
    refused!(context.block_on(layer.train_forward(&flat)), Error::Rank { got: 1, .. });
    refused!(context.block_on(layer.train_forward_untracked(&flat)), Error::Rank { got: 1, .. });
    refused!(context.block_on(layer.train_forward(flat.with_moments(&moments))), Error::Rank { got: 1, .. });
    refused!(context.block_on(layer.backward(&flat, &flat, &saved)), Error::Rank { got: 1, .. });
    let layer = layer.freeze();
    refused!(context.block_on(layer.infer(&flat)), Error::Rank { got: 1, .. });
    refused!(context.block_on(layer.backward(&flat, &flat)), Error::Rank { got: 1, .. });
}

#[test]
fn wrong_channels() {
    let context = context();
    let mut layer = layer(&context);
    for (dims, got_channels) in [(&[2, 4, 4][..], 4), (&[3, 2], 2), (&[2, 0, 4], 0), (&[0, 4], 4)] {
        let x = zeros(&context, dims);
        refused!(
            context.block_on(layer.train_forward(&x)),
            Error::Channels { expected: 3 | 1, got, .. } if got == got_channels
        );
    }
    let x = zeros(&context, &[2, 4, 3]);
    let saved = context.block_on(Saved::new(&context, &x)).unwrap();
    refused!(context.block_on(layer.backward(&x, &x, &saved)), Error::Channels { expected: 3, got: 4, .. });
    let (mine, y) = (zeros(&context, &[2, 3, 4]), zeros(&context, &[2, 3, 4]));
    refused!(
        context.block_on(layer.prepare_train_forward(&mine, &y, Some(&saved))),
        Error::Channels { expected: 3, got: 4, .. }
    );
    let layer = layer.freeze();
    refused!(context.block_on(layer.infer(&x)), Error::Channels { expected: 3, got: 4, .. });
    refused!(context.block_on(layer.backward(&x, &x)), Error::Channels { expected: 3, got: 4, .. });

    refused!(context.block_on(BatchNorm::new(&context, 0, OPTIONS)), Error::Channels { got: 0, .. });
    refused!(context.block_on(Moments::empty(&context, 0)), Error::Channels { got: 0, .. });
    refused!(context.block_on(Moments::upload(&context, &[])), Error::Channels { got: 0, .. });
    refused!(
        context.block_on(Saved::new(&context, &zeros(&context, &[2, 0]))),
        Error::Channels { got: 0, .. }
    );
    let empty = RunningValues { mean: vec![], var: vec![], batches: 0 };
    refused!(context.block_on(RunningStatistics::upload(&context, &empty)), Error::Channels { got: 0, .. });
}

#[test]
fn wrong_shapes() {
    let context = context();
    let mut layer = layer(&context);
    let x = zeros(&context, &[2, 3, 4]);
    let saved = context.block_on(Saved::new(&context, &x)).unwrap();
    for dims in [&[2, 3, 5][..], &[3, 2, 4], &[2, 3, 4, 1], &[24], &[0, 3, 4]] {
        let other = zeros(&context, dims);
        let shape = other.shape();
        refused!(
            context.block_on(layer.prepare_train_forward(&x, &other, None)),
            Error::Shape { what: "y", expected, got } if expected == x.shape() && got == shape
        );
        refused!(context.block_on(layer.backward(&x, &other, &saved)), Error::Shape { what: "dy", got, .. } if got == shape);
        let targets = GradientTargets::default().dx(&other);
        refused!(
            context.block_on(layer.prepare_backward(&x, &x, &saved, &targets)),
            Error::Shape { what: "dx", got, .. } if got == shape
        );
        refused!(context.block_on(prepare_copy(&context, &x, &other)), Error::Shape { what: "y", .. });
    }
    let frozen = self::layer(&context).freeze();
    for dims in [&[4][..], &[3, 1], &[2]] {
        let other = zeros(&context, dims);
        let dgamma = GradientTargets::default().dgamma(&other);
        let dbeta = GradientTargets::default().dbeta(&other);
        for (name, targets) in [("dgamma", dgamma), ("dbeta", dbeta)] {
            refused!(
                context.block_on(layer.prepare_backward(&x, &x, &saved, &targets)),
                Error::Shape { what, .. } if what == name
            );
            refused!(
                context.block_on(frozen.prepare_backward(&x, &x, &targets)),
                Error::Shape { what, .. } if what == name
            );
        }
        let running = || initial_running(&context, 3);
        refused!(
            BatchNorm::from_parts(&context, OPTIONS, Some(other.clone()), None, running()),
            Error::Shape { what: "gamma", .. }
        );
        refused!(
            BatchNorm::from_parts(&context, OPTIONS, None, Some(other), running()),
            Error::Shape { what: "beta", .. }
        );
    }
    let y = zeros(&context, &[2, 3, 5]);
    refused!(context.block_on(frozen.prepare_infer(&x, &y)), Error::Shape { what: "y", .. });
    refused!(context.block_on(frozen.backward(&x, &y)), Error::Shape { what: "dy", .. });
}

#[test]
fn wrong_layouts() {
    let context = context();
    let (first, last) = (Layout::ChannelsFirst, Layout::ChannelsLast);
    // A shape that has three channels either way.
    for dims in [&[2, 3, 3][..], &[2, 3, 4, 3], &[2, 3, 1, 2, 3]] {
        for (mine, theirs) in [(first, last), (last, first)] {
            let inputs = Inputs::of(1, dims, mine);
            let mut layer = inputs.layer(&context, OPTIONS);
            let x = inputs.upload_x(&context);
            let other = poisoned(&context, dims, 0).with_layout(theirs);
            let c = poisoned(&context, &[3], 0);
            let saved = context.block_on(Saved::new(&context, &x)).unwrap();
            let (_, real_saved) = context.block_on(layer.train_forward_untracked(&x)).unwrap();
            let moments = context.block_on(Moments::of(&context, &x)).unwrap();
            let targets = GradientTargets::default().dx(&other).dgamma(&c);
            let right = GradientTargets::default().dgamma(&c);
            let is = |error: &Error, name: &str| {
                matches!(error, Error::Layout { what, expected, got }
                    if *what == name && *expected == mine && *got == theirs)
            };
            context.block_on(async {
                let errors = [
                    ("y", layer.prepare_train_forward(&x, &other, Some(&saved)).await.err()),
                    ("y", layer.prepare_train_forward_untracked(&x, &other, Some(&saved)).await.err()),
                    ("y", layer.prepare_train_forward(x.with_moments(&moments), &other, None).await.err()),
                    ("dy", layer.prepare_backward(&x, &other, &real_saved, &right).await.err()),
                    ("dx", layer.prepare_backward(&x, &x, &real_saved, &targets).await.err()),
                    ("dy", layer.backward(&x, &other, &real_saved).await.err()),
                ];
                for (i, (what, error)) in errors.into_iter().enumerate() {
                    let error = error.unwrap_or_else(|| panic!("call {i}: no error"));
                    assert!(is(&error, what), "call {i}: {error}");
                }
            });
            assert_eq!(download_running(&context, layer.running()), inputs.running);
            let frozen = layer.freeze();
            context.block_on(async {
                let errors = [
                    ("y", frozen.prepare_infer(&x, &other).await.err()),
                    ("dy", frozen.prepare_backward(&x, &other, &right).await.err()),
                    ("dx", frozen.prepare_backward(&x, &x, &targets).await.err()),
                    ("dy", frozen.backward(&x, &other).await.err()),
                ];
                for (i, (what, error)) in errors.into_iter().enumerate() {
                    let error = error.unwrap_or_else(|| panic!("frozen call {i}: no error"));
                    assert!(is(&error, what), "frozen call {i}: {error}");
                }
                // Nothing ran.
                assert!(saved.download(&context).await.unwrap().iter().all(|s| s.inv_std.is_nan()));
            });
            assert_eq!(download_running(&context, frozen.running()), inputs.running);
            for untouched in [&other, &c] {
                assert!(download_guarded(&context, untouched).iter().all(|v| v.is_nan()));
            }
        }
    }
    let x = zeros(&context, &[2, 3, 3]).with_layout(last);
    let layer = self::layer(&context);
    let error =
        context.block_on(layer.prepare_train_forward_untracked(&x, &zeros(&context, &[2, 3, 3]), None));
    assert_eq!(error.unwrap_err().to_string(), "y must be channels_last as x is, got channels_first");
}

#[test]
fn wrong_axes_of_channels_last() {
    let context = context();
    let last = |dims: &[usize]| zeros(&context, dims).with_layout(Layout::ChannelsLast);
    let mut layer = layer(&context);
    let flat = last(&[3]);
    refused!(flat.channels(), Error::Rank { got: 1, .. });
    refused!(context.block_on(layer.train_forward(&flat)), Error::Rank { got: 1, .. });
    refused!(context.block_on(Moments::of(&context, &flat)), Error::Rank { got: 1, .. });
    refused!(context.block_on(Saved::new(&context, &flat)), Error::Rank { got: 1, .. });
    // Three channels, but channels first.
    let x = last(&[2, 3, 4]);
    assert_eq!(x.channels().unwrap().channels, 4);
    refused!(context.block_on(layer.train_forward(&x)), Error::Channels { expected: 3, got: 4, .. });
    refused!(
        context.block_on(layer.train_forward(&zeros(&context, &[2, 4, 3]))),
        Error::Channels { expected: 3, got: 4, .. }
    );
    refused!(context.block_on(layer.train_forward(&last(&[2, 0]))), Error::Channels { got: 0, .. });
    // Saved statistics and moments go by channels, not by layout.
    let saved = context.block_on(Saved::new(&context, &last(&[2, 3, 4]))).unwrap();
    let x = last(&[2, 4, 3]);
    refused!(context.block_on(layer.backward(&x, &x, &saved)), Error::Channels { expected: 3, got: 4, .. });
    let start = RunningValues { batches: 7, ..download_running(&context, layer.running()) };
    assert_eq!(download_running(&context, layer.running()), start);
    let layer = layer.freeze();
    refused!(context.block_on(layer.infer(&flat)), Error::Rank { got: 1, .. });
    refused!(context.block_on(layer.infer(&last(&[2, 3, 4]))), Error::Channels { expected: 3, got: 4, .. });
}

#[test]
fn wrong_options() {
    let context = context();
    for eps in [-1.0, f64::NAN, f64::INFINITY, 1e-46] {
        refused!(
            context.block_on(BatchNorm::new(&context, 3, OPTIONS.eps(eps))),
            Error::Epsilon { got } if got.to_bits() == eps.to_bits()
        );
    }
    for momentum in [Momentum::WeightOfNew(-0.1), Momentum::WeightOfOld(1.5), Momentum::WeightOfNew(f64::NAN)]
    {
        let options = OPTIONS.momentum(momentum);
        refused!(context.block_on(BatchNorm::new(&context, 3, options)), Error::Momentum { .. });
        let running = initial_running(&context, 3);
        refused!(BatchNorm::from_parts(&context, options, None, None, running), Error::Momentum { .. });
    }
}

#[test]
fn wrong_lengths() {
    let context = context();
    for len in [0, 5, 7] {
        refused!(
            context.block_on(context.upload(&[2, 3], &vec![0.0; len])),
            Error::Length { expected: 6, got, .. } if got == len as u64
        );
    }
    let values = RunningValues { mean: vec![0.0; 3], var: vec![0.0; 4], batches: 0 };
    refused!(
        context.block_on(RunningStatistics::upload(&context, &values)),
        Error::Length { what: "running_var", expected: 3, got: 4, .. }
    );
}

#[test]
fn gradients_that_do_not_exist() {
    let context = context();
    let x = zeros(&context, &[2, 3, 4]);
    let (c, other) = (zeros(&context, &[3]), zeros(&context, &[3]));
    let saved = context.block_on(Saved::new(&context, &x)).unwrap();
    for affine in [Affine::Both, Affine::Weight, Affine::Bias, Affine::None] {
        let [train, frozen] =
            [(); 2].map(|()| context.block_on(BatchNorm::new(&context, 3, OPTIONS.affine(affine))).unwrap());
        let frozen = frozen.freeze();
        for (dgamma, dbeta) in [(false, false), (true, false), (false, true), (true, true)] {
            let targets =
                GradientTargets::default().dgamma(dgamma.then_some(&c)).dbeta(dbeta.then_some(&other));
            for got in [
                context.block_on(train.prepare_backward(&x, &x, &saved, &targets)),
                context.block_on(frozen.prepare_backward(&x, &x, &targets)),
            ] {
                if dgamma && !affine.has_gamma() {
                    refused!(got, Error::NoParameter { gradient: "dgamma", parameter: "gamma" });
                } else if dbeta && !affine.has_beta() {
                    refused!(got, Error::NoParameter { gradient: "dbeta", parameter: "beta" });
                } else if !dgamma && !dbeta {
                    refused!(got, Error::NoGradient);
                } else {
                    got.unwrap();
                }
            }
        }
    }
}

#[test]
fn saved_statistics_of_other_geometry() {
    let context = context();
    let mut layer = layer(&context);
    let (x, y) = (zeros(&context, &[2, 3, 4]), zeros(&context, &[2, 3, 4]));
    let saved = context.block_on(Saved::new(&context, &zeros(&context, &[2, 3, 5]))).unwrap();
    refused!(
        context.block_on(layer.prepare_train_forward(&x, &y, Some(&saved))),
        Error::Count { expected: Some(10), got: 8, .. }
    );
    refused!(
        context.block_on(layer.backward(&x, &x, &saved)),
        Error::Count { expected: Some(10), got: 8, .. }
    );
}

#[test]
fn buffers_that_do_not_hold_a_tensor() {
    let context = context();
    let buffer = zeros(&context, &[16]).buffer().clone();
    let tensor = |offset, dims: &[usize]| Tensor::from_buffer(&context, buffer.clone(), offset, dims);
    for offset in [1, 2, 3, 65, u64::MAX] {
        refused!(tensor(offset, &[2]), Error::Misaligned { alignment: 4, offset: got, .. } if got == offset);
    }
    for (begin, dims) in [
        (0, &[17][..]),
        (4, &[16]),
        (64, &[1]),
        (u64::MAX - 3, &[1]),
        (u64::MAX - 7, &[2]),
        (1 << 63, &[1 << 50]),
    ] {
        refused!(tensor(begin, dims), Error::BufferTooSmall { offset, size: 64, .. } if offset == begin);
    }
    tensor(60, &[1]).unwrap();
    tensor(64, &[0]).unwrap();
    // Without elements any distance will do.
    let strided = |sample_stride| {
        Tensor::from_strided_buffer(
            &context,
            buffer.clone(),
            0,
            &[3, 0, 2],
            wgnorm::DType::F32,
            sample_stride,
        )
    };
    for sample_stride in [0, 7, 1 << 40, u64::MAX] {
        let nothing = strided(sample_stride).unwrap();
        assert_eq!(nothing.slice_samples(1..3).unwrap().shape().dims(), [2, 0, 2]);
        assert_eq!(nothing.slice_samples(2..2).unwrap().shape().dims(), [0, 0, 2]);
        let all = Tensor::concat(&[&nothing, &strided(5).unwrap()]).unwrap();
        assert_eq!(all.shape().dims(), [6, 0, 2]);
        assert_eq!(context.block_on(context.download(&all)).unwrap(), [0.0; 0]);
    }
    let wide = tensor(0, &[0, 1 << 30, 1 << 29]).unwrap();
    let long = tensor(0, &[1 << 30, 0, 1 << 29]).unwrap();
    refused!(Tensor::concat(&[&wide, &long]), Error::Shape { .. } | Error::TooLarge { .. });
    let many = tensor(0, &[1 << 59, 0]).unwrap();
    refused!(Tensor::concat(&[&many, &many, &many]), Error::TooLarge { .. });
    refused!(tensor(0, &[usize::MAX, 2]), Error::TooLarge { .. });
}

#[test]
fn buffers_without_the_usage() {
    let context = context();
    let buffer = raw_buffer(&context, 64, wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST);
    refused!(Tensor::from_buffer(&context, buffer, 0, &[16]), Error::BufferUsage { missing: "STORAGE", .. });
    let buffer = raw_buffer(&context, 64, wgpu::BufferUsages::STORAGE);
    let tensor = Tensor::from_buffer(&context, buffer, 0, &[16]).unwrap();
    refused!(context.block_on(context.download(&tensor)), Error::BufferUsage { missing: "COPY_SRC", .. });
}

#[test]
fn more_than_the_device_has() {
    let context = context();
    let capabilities = context.capabilities();
    // Buffers are not touched, so the size costs address space alone.
    let words = usize::try_from(capabilities.max_buffer_bytes / 4).unwrap() + 4;
    refused!(
        context.block_on(context.zeros(&[words])),
        Error::TooLarge { limit_name: "max_buffer_size", unit: "bytes", .. }
    );
    refused!(
        context.block_on(context.zeros(&[1 << 50])),
        Error::TooLarge { limit_name: "max_buffer_size", .. }
    );
    let (binding, alignment) = (capabilities.max_binding_bytes, capabilities.storage_alignment);
    assert!(binding + alignment <= capabilities.max_buffer_bytes);
    let buffer = raw_buffer(&context, binding + alignment, wgpu::BufferUsages::STORAGE);
    let words = (binding / 4) as usize;
    let tensor =
        |offset, dims: &[usize]| Tensor::from_buffer(&context, buffer.clone(), offset, dims).unwrap();
    for (offset, dims) in [(0, [1, 1, words + 1]), (4, [1, 1, words]), (0, [1, 3, words / 3 + 1])] {
        // More than a binding is walked in windows.
        let x = tensor(offset, &dims);
        let (_, moments) = context.block_on(Moments::prepare(&context, &x)).unwrap();
        assert!(moments.plan().unwrap().windows.len() > 1);
        let layer = context.block_on(BatchNorm::new(&context, dims[1], OPTIONS)).unwrap();
        let forward = context.block_on(layer.freeze().prepare_infer(&x, &x)).unwrap();
        assert!(forward.plan().unwrap().windows.len() > 1);
    }
    // The largest that fits.
    let (_, moments) = context.block_on(Moments::prepare(&context, &tensor(0, &[1, 1, words]))).unwrap();
    assert_eq!(moments.plan().unwrap().windows.len(), 1);
}

#[test]
fn norms_of_slices_are_walked_in_windows_too() {
    let context = context();
    // Buffers are not touched, so the size costs address space alone.
    let rows = (context.capabilities().max_binding_bytes / 4096) as usize + 100;
    for line in [
        format!("layer {rows}x1024"),
        format!("layer 1x{rows}x1024"),
        format!("rms:2 {rows}x32x32"),
        format!("scale {rows}x1024"),
        format!("weight {rows}x1024"),
        format!("standardization {rows}x16x64"),
        format!("group:4 {rows}x16x64"),
        format!("group:4 {rows}x16x64 last"),
        format!("instance {rows}x16x64"),
        format!("instance {rows}x16x64 last"),
        format!("mvn:1 {rows}x1024"),
        format!("mvn:0 1024x{rows}"),
        format!("l2:1 {rows}x1024"),
        format!("l2:1 {}x1024x8", rows / 8),
    ] {
        let spec: Spec = format!("{line} backward").parse().unwrap();
        context.block_on(async {
            let mut dims = spec.shape.clone();
            if spec.layout == Layout::ChannelsLast {
                dims[1..].rotate_left(1);
            }
            let x = context.zeros(&dims).await.unwrap().with_layout(spec.layout);
            let y = context.zeros_like(&x).await.unwrap();
            let parameters = async |is: bool| match is {
                true => Some(context.zeros(&spec.parameter_shape()).await.unwrap()),
                false => None,
            };
            let parameters = spec::Parameters {
                gamma: parameters(spec.affine.has_gamma()).await,
                beta: parameters(spec.affine.has_beta()).await,
                ..Default::default()
            };
            let mut layer = spec::Layer::new(&context, &spec, parameters).await.unwrap();
            let saved = layer.room_for(&x).await.unwrap();
            let forward = layer.prepare_train_forward(&x, &y, Some(&saved)).await;
            let forward = forward.unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(forward.plan().unwrap().windows.len() > 1, "{line}");
            let targets = GradientTargets::default().dx(&y);
            let backward = layer.prepare_backward(&x, &x, &saved, &targets).await;
            let backward = backward.unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(backward.plan().unwrap().windows.len() > 1, "{line}");
        });
    }
}

#[test]
fn a_workgroup_that_the_device_lacks() {
    let moments = |tuning| {
        let context = context().with_tuning(tuning);
        let x = zeros(&context, &[2, 3, 4]);
        context.block_on(Moments::of(&context, &x))
    };
    refused!(
        moments(Tuning::default().workgroup_size(1 << 20)),
        Error::MissingCapability { needed, .. } if needed == 1 << 20
    );
    refused!(
        moments(Tuning::default().workgroup_size(0)),
        Error::Tuning { choice: "workgroup_size", got: 0, .. }
    );
    refused!(
        moments(Tuning::default().workgroup_size(8).team_size(3)),
        Error::Tuning { choice: "team_size", got: 3, .. }
    );
}

#[test]
fn values_of_another_device() {
    let (context, other) = (context(), own_context());
    let dims = &[2, 3, 4];
    let (x, y, theirs) = (zeros(&context, dims), zeros(&context, dims), zeros(&other, dims));
    let foreign = zeros(&other, &[3]);
    let saved = context.block_on(Saved::new(&context, &x)).unwrap();
    let their_saved = other.block_on(Saved::new(&other, &theirs)).unwrap();
    let moments = context.block_on(Moments::of(&context, &x)).unwrap();
    let mut their_moments = other.block_on(Moments::of(&other, &theirs)).unwrap();
    let mut layer = layer(&context);
    let wait = |future: std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + '_>>| {
        refused!(context.block_on(future), Error::ForeignDevice { .. });
    };
    wait(Box::pin(async { context.download(&theirs).await.map(drop) }));
    wait(Box::pin(async { Moments::of(&context, &theirs).await.map(drop) }));
    wait(Box::pin(async { their_moments.merge(&context, &moments).await }));
    wait(Box::pin(async { their_moments.merge(&other, &moments).await }));
    wait(Box::pin(async { their_moments.download(&context).await.map(drop) }));
    wait(Box::pin(async { their_saved.download(&context).await.map(drop) }));
    wait(Box::pin(async { layer.train_forward(&theirs).await.map(drop) }));
    wait(Box::pin(async { layer.prepare_train_forward(&x, &theirs, None).await.map(drop) }));
    wait(Box::pin(async { layer.prepare_train_forward(&x, &y, Some(&their_saved)).await.map(drop) }));
    wait(Box::pin(async { layer.train_forward(x.with_moments(&their_moments)).await.map(drop) }));
    wait(Box::pin(async { layer.backward(&theirs, &x, &saved).await.map(drop) }));
    wait(Box::pin(async { layer.backward(&x, &theirs, &saved).await.map(drop) }));
    wait(Box::pin(async { layer.backward(&x, &x, &their_saved).await.map(drop) }));
    for targets in [
        GradientTargets::default().dx(&theirs),
        GradientTargets::default().dgamma(&foreign),
        GradientTargets::default().dbeta(&foreign),
    ] {
        wait(Box::pin(async { layer.prepare_backward(&x, &y, &saved, &targets).await.map(drop) }));
    }
    refused!(other.block_on(layer.running().download(&other)), Error::ForeignDevice { .. });
    wait(Box::pin(async { prepare_copy(&context, &theirs, &y).await.map(drop) }));
    wait(Box::pin(async { prepare_copy(&context, &x, &theirs).await.map(drop) }));
    let from_parts = |gamma, beta, running| BatchNorm::from_parts(&context, OPTIONS, gamma, beta, running);
    let mine = || initial_running(&context, 3);
    let values = RunningValues { mean: vec![0.0; 3], var: vec![0.0; 3], batches: 0 };
    let their_running = other.block_on(RunningStatistics::upload(&other, &values)).unwrap();
    refused!(from_parts(None, None, their_running), Error::ForeignDevice { what: "running statistics" });
    refused!(from_parts(Some(foreign.clone()), None, mine()), Error::ForeignDevice { what: "gamma" });
    refused!(from_parts(None, Some(foreign), mine()), Error::ForeignDevice { what: "beta" });
}

/// A context as of an application that has an instance of its own.
fn context_of_another_instance() -> Context {
    let descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    let instance = wgpu::Instance::new(descriptor);
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).unwrap();
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
    kept(Context::from_wgpu(device, queue).unwrap())
}

#[test]
fn values_of_another_instance() {
    // wgpu numbers the devices of each instance from the start and compares them by number.
    let [context, other] = [context_of_another_instance(), context_of_another_instance()];
    let x = zeros(&other, &[2, 3, 4]);
    refused!(context.block_on(context.download(&x)), Error::ForeignDevice { .. });
    refused!(context.block_on(Moments::of(&context, &x)), Error::ForeignDevice { .. });
    refused!(context.block_on(layer(&context).train_forward(&x)), Error::ForeignDevice { .. });
    let saved = other.block_on(Saved::new(&other, &x)).unwrap();
    refused!(context.block_on(saved.download(&context)), Error::ForeignDevice { .. });
    let moments = other.block_on(Moments::empty(&other, 3)).unwrap();
    refused!(context.block_on(moments.download(&context)), Error::ForeignDevice { .. });
    let running = initial_running(&other, 3);
    refused!(BatchNorm::from_parts(&context, OPTIONS, None, None, running), Error::ForeignDevice { .. });
}

#[test]
fn a_raw_buffer_of_another_device_is_found_when_it_is_bound() {
    let context = context();
    let theirs = zeros(&own_context(), &[2, 3, 4]).buffer().clone();
    // A buffer does not tell its device.
    let x = Tensor::from_buffer(&context, theirs, 0, &[2, 3, 4]).unwrap();
    refused!(context.block_on(Moments::of(&context, &x)), Error::Validation { .. });
    refused!(context.block_on(layer(&context).train_forward(&x)), Error::Validation { .. });
    refused!(context.block_on(layer(&context).freeze().infer(&x)), Error::Validation { .. });
    refused!(context.block_on(context.download(&x)), Error::Validation { .. });
}

#[test]
fn a_destroyed_buffer_is_an_error_and_not_a_panic() {
    let context = context();
    let dims = &[2, 3, 4];
    let (x, y) = (zeros(&context, dims), zeros(&context, dims));
    let layer = layer(&context).freeze();
    let forward = context.block_on(layer.prepare_infer(&x, &y)).unwrap();
    x.buffer().destroy();
    refused!(context.block_on(context.submit(&[&forward])), Error::Validation { .. });
    refused!(context.block_on(layer.infer(&x)), Error::Validation { .. });
    refused!(context.block_on(Moments::of(&context, &x)), Error::Validation { .. });
    refused!(context.block_on(context.download(&x)), Error::Validation { .. });
    // Nothing lingers.
    context.block_on(layer.infer(&y)).unwrap();
}

#[test]
fn adapters_are_those_of_the_backends_that_are_asked_for() {
    let backend = context().device().adapter_info().backend;
    for preference in [wgpu::PowerPreference::LowPower, wgpu::PowerPreference::HighPerformance] {
        let options =
            ContextOptions::default().backends(wgpu::Backends::from(backend)).power_preference(preference);
        let own = pollster::block_on(Context::headless_with(&options)).unwrap();
        assert_eq!(own.device().adapter_info().backend, backend);
    }
    match pollster::block_on(Context::headless_with(
        &ContextOptions::default().backends(wgpu::Backends::empty()),
    )) {
        Err(Error::NoAdapter { available, .. }) => assert!(available.is_empty()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_adapter_that_does_not_exist() {
    let options = ContextOptions::default().adapter_name("no such adapter".to_owned());
    match pollster::block_on(Context::headless_with(&options)) {
        Err(Error::NoAdapter { wanted, available, .. }) => {
            assert_eq!(wanted.as_deref(), Some("no such adapter"));
            assert!(available.contains(&context().device().adapter_info().name), "{available:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_device_with_less_than_webgpu() {
    let limits = wgpu::Limits { max_storage_buffers_per_shader_stage: 7, ..Default::default() };
    let (device, queue) = own_device(limits);
    refused!(
        Context::from_wgpu(device, queue),
        Error::MissingCapability { what: "max_storage_buffers_per_shader_stage", needed: 8, got: 7 }
    );
}

#[test]
fn nothing_changes_on_an_error() {
    let context = context();
    let inputs = Inputs::new(1, &[2, 3, 4]);
    let mut layer = inputs.layer(&context, OPTIONS);
    let x = upload(&context, &inputs.dims, &inputs.x);
    let one = upload(&context, &[1, 3], &inputs.x[..3]);
    let wrong = zeros(&context, &[2, 3, 5]);
    let mut moments = context.block_on(Moments::of(&context, &x)).unwrap();
    let other = context.block_on(Moments::of(&context, &zeros(&context, &[2, 4]))).unwrap();
    context.block_on(async {
        let saved = Saved::new(&context, &x).await.unwrap();
        assert!(layer.prepare_train_forward(&x, &x, Some(&saved)).await.is_err());
        assert!(layer.prepare_train_forward(&x, &wrong, None).await.is_err());
        assert!(layer.train_forward(&one).await.is_err());
        assert!(layer.train_forward(x.with_moments(&other)).await.is_err());
        let before = moments.download(&context).await.unwrap();
        assert!(moments.merge(&context, &other).await.is_err());
        assert_eq!((moments.download(&context).await.unwrap(), moments.count()), (before, Some(8)));
    });
    assert_eq!(download_running(&context, layer.running()), inputs.running);
    assert_eq!(Some(download(&context, layer.gamma().unwrap())), inputs.gamma);
    assert_eq!(Some(download(&context, layer.beta().unwrap())), inputs.beta);
    assert_eq!(download(&context, &x), inputs.x);
}

#[test]
fn errors_say_what_was_expected_and_what_was_got() {
    let context = context();
    let mut layer = layer(&context);
    let x = zeros(&context, &[2, 3, 4]);
    let say = |error: Error| error.to_string();
    let wait = |layer: &mut BatchNorm, x: &Tensor, y: &Tensor| {
        context.block_on(layer.prepare_train_forward(x, y, None)).unwrap_err().to_string()
    };
    assert_eq!(wait(&mut layer, &x, &zeros(&context, &[2, 3])), "y must have shape [2, 3, 4], got [2, 3]");
    assert_eq!(wait(&mut layer, &zeros(&context, &[2, 4]), &x), "x must have 3 channels, got 4");
    let moved =
        Tensor::from_buffer(&context, zeros(&context, &[48]).buffer().clone(), 0, &[2, 3, 4]).unwrap();
    let overlapping = Tensor::from_buffer(&context, moved.buffer().clone(), 4, &[2, 3, 4]).unwrap();
    assert_eq!(
        wait(&mut layer, &moved, &overlapping),
        "x and y overlap: bytes 0..96 and 4..100 of one buffer"
    );
    assert_eq!(
        say(context.block_on(context.upload(&[2, 3], &[0.0])).unwrap_err()),
        "a tensor of shape [2, 3] holds 6 elements, got 1"
    );
    assert_eq!(say(Shape::new(&[1; 6]).unwrap_err()), "a tensor must have 1 to 5 axes, got 6");
    let one = [ChannelMoments { count: 1, ..Default::default() }; 3];
    let moments = context.block_on(Moments::upload(&context, &one)).unwrap();
    let single = say(context.block_on(layer.train_forward(x.with_moments(&moments))).unwrap_err());
    assert!(single.contains("[2, 3, 4]") && single.contains("allow_single_value"), "{single}");
}

#[test]
fn more_channels_than_a_buffer_holds() {
    let context = context();
    // An empty tensor of any number of channels is legal.
    let many = context.block_on(context.zeros(&[0, 1 << 59])).unwrap();
    refused!(context.block_on(Moments::of(&context, &many)), Error::TooLarge { .. });
    refused!(context.block_on(Saved::new(&context, &many)), Error::TooLarge { .. });
    for channels in [1 << 44, usize::MAX] {
        refused!(context.block_on(BatchNorm::new(&context, channels, OPTIONS)), Error::TooLarge { .. });
        refused!(context.block_on(Moments::empty(&context, channels)), Error::TooLarge { .. });
    }
}

#[test]
fn operations_of_another_context() {
    let (context, other) = (context(), own_context());
    let x = zeros(&other, &[2, 3, 4]);
    let (_, moments) = other.block_on(Moments::prepare(&other, &x)).unwrap();
    refused!(context.block_on(context.submit(&[&moments])), Error::ForeignDevice { .. });
}

#[test]
fn an_unknown_width_of_words() {
    let context = context().with_tuning(Tuning::default().width(3));
    let x = zeros(&context, &[2, 3, 4]);
    refused!(context.block_on(Moments::of(&context, &x)), Error::Tuning { choice: "width", got: 3, .. });
}

#[test]
fn what_the_crate_keeps_per_channel_may_exceed_a_binding() {
    // 1 MiB per binding: x with 32772 channels fits, its saved statistics of 40 bytes each do not; of 140000 channels, no part of the running statistics does.
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 20, ..wgpu::Limits::default() };
    let (device, queue) = own_device(limits);
    let context = Context::from_wgpu(device, queue).unwrap();
    for (channels, fits) in [((1 << 15) + 4, true), (140_000, false)] {
        let options = BatchNormOptions::pytorch();
        let mut layer = context.block_on(BatchNorm::new(&context, channels, options)).unwrap();
        let [x, y] = [(); 2].map(|()| zeros(&context, &[2, channels]));
        let saved = context.block_on(Saved::new(&context, &x)).unwrap();
        let untracked = context.block_on(layer.prepare_train_forward_untracked(&x, &y, Some(&saved)));
        assert!(untracked.is_ok(), "{untracked:?}");
        let tracked = context.block_on(layer.prepare_train_forward(&x, &y, Some(&saved)));
        match fits {
            true => drop(tracked.unwrap()),
            false => {
                refused!(tracked, Error::TooLarge { what: "running statistics", limit, .. } if limit == 1 << 20);
            }
        }
    }
}

/// Every field of an input is used, or refused by name.
#[test]
fn inputs_that_a_call_has_no_use_for_are_refused() {
    use wgnorm::family::TrackedInstanceNorm;
    use wgnorm::norm::{CrossIteration, GhostSaved};
    let context = context();
    let dims = [4, 3, 5];
    let [x, y, other] = [(); 3].map(|()| zeros(&context, &dims));
    let wait =
        |future: std::pin::Pin<Box<dyn Future<Output = wgnorm::Result<()>> + '_>>| context.block_on(future);
    let mut layer = layer(&context);
    let moments = context.block_on(Moments::of(&context, &x)).unwrap();
    let with = x.with_moments(&moments);
    refused!(
        wait(Box::pin(async { layer.train_forward_accumulated(&[with]).await.map(drop) })),
        Error::Unsupported { what: "moments", .. }
    );
    let ghost = context.block_on(GhostSaved::new(&context, &x, 2)).unwrap();
    refused!(
        wait(Box::pin(async { layer.prepare_train_forward_ghost(with, &y, &ghost).await.map(drop) })),
        Error::Unsupported { what: "moments", .. }
    );
    let mut last = CrossIteration::new(2).unwrap();
    refused!(
        wait(Box::pin(async { last.train_forward(&mut layer, with).await.map(drop) })),
        Error::Unsupported { what: "moments", .. }
    );
    let sum = x.plus(&other, &y);
    refused!(
        wait(Box::pin(async { layer.train_forward(sum).await.map(drop) })),
        Error::Unsupported { what: "sum", .. }
    );
    let d_sum = x.with_d_sum(&other);
    refused!(
        wait(Box::pin(async { layer.train_forward(d_sum).await.map(drop) })),
        Error::Unsupported { what: "d_sum", .. }
    );
    for (input, extra) in
        [(sum, "sum"), (d_sum, "d_sum"), (with, "moments"), (x.modulated(None, None), "modulation")]
    {
        let got = context.block_on(Moments::of(&context, input)).unwrap_err();
        assert!(matches!(got, Error::Unsupported { what, .. } if what == extra), "{got:?}");
    }
    let frozen = self::layer(&context).freeze();
    refused!(
        wait(Box::pin(async { frozen.infer(with).await.map(drop) })),
        Error::Unsupported { what: "moments", .. }
    );
    let options = BatchNormOptions::pytorch();
    let mut tracked = context.block_on(TrackedInstanceNorm::new(&context, 3, options)).unwrap();
    refused!(
        wait(Box::pin(async { tracked.prepare_train_forward(&x, &x, None).await.map(drop) })),
        Error::InPlace { .. }
    );
    wait(Box::pin(async { tracked.prepare_train_forward(&x, &y, None).await.map(drop) })).unwrap();
}
