//! Devices: the application's own, lost ones, small ones, used by several threads, driven by any executor.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wgnorm::eval::{Data, table};
use wgnorm::statistics::Moments;
use wgnorm::{BatchNormOptions, Context, Error, Prepared, RunningStatistics, Saved, Tensor};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();
const EPS: f64 = 1e-5;

/// Every call of a context whose device goes away in between.
fn after_losing(context: &Context) {
    let inputs = Inputs::new(1, &[2, 3, 4]);
    let mut layer = inputs.layer(context, OPTIONS);
    let (x, y) = (upload(context, &inputs.dims, &inputs.x), zeros(context, &inputs.dims));
    let saved = context.block_on(Saved::new(context, &x)).unwrap();
    let mut moments = context.block_on(Moments::of(context, &x)).unwrap();
    let other = context.block_on(Moments::of(context, &x)).unwrap();
    let prepared = context.block_on(layer.prepare_train_forward_untracked(&x, &y, Some(&saved))).unwrap();
    submit(context, &[&prepared]);

    context.device().destroy();
    let mut fine = Vec::new();
    let mut note = |what: &str, failed: bool| {
        if !failed {
            fine.push(what.to_owned());
        }
    };
    note("download", context.block_on(context.download(&y)).is_err());
    note("upload", context.block_on(context.upload(&[3], &[1.0; 3])).is_err());
    note("zeros", context.block_on(context.zeros(&[3])).is_err());
    note("submit", context.block_on(context.submit(&[&prepared])).is_err());
    note("prepare", context.block_on(layer.prepare_train_forward(&x, &y, None)).is_err());
    let again = layer.prepare_train_forward_untracked(&x, &y, Some(&saved));
    note("bind", context.block_on(again).is_err());
    note("train_forward", context.block_on(layer.train_forward(&x)).is_err());
    note("backward", context.block_on(layer.backward(&x, &y, &saved)).is_err());
    note("moments", context.block_on(Moments::of(context, &x)).is_err());
    note("merge", context.block_on(moments.merge(context, &other)).is_err());
    note("moments.download", context.block_on(moments.download(context)).is_err());
    note("saved.download", context.block_on(saved.download(context)).is_err());
    note("running.download", context.block_on(layer.running().download(context)).is_err());
    note("running.upload", context.block_on(RunningStatistics::upload(context, &inputs.running)).is_err());
    note("the executor of others", pollster::block_on(context.download(&y)).is_err());
    let layer = layer.freeze();
    note("forward", context.block_on(layer.infer(&x)).is_err());
    assert!(fine.is_empty(), "no error from {fine:?} after the device was lost");
}

#[test]
fn a_lost_device_of_the_crate_is_an_error() {
    let context = headless();
    after_losing(&context);
    refused!(context.block_on(context.zeros(&[3])), Error::DeviceLost { .. });
}

#[test]
fn a_lost_device_of_the_application_is_an_error() {
    after_losing(&own_context());
}

#[test]
fn an_upload_right_after_the_loss_is_an_error() {
    for context in [headless(), own_context()] {
        context.device().destroy();
        let upload = context.block_on(context.upload(&[3], &[1.0; 3]));
        assert!(upload.is_err(), "{upload:?}");
    }
}

#[test]
fn callbacks_of_the_application_stay_in_place() {
    let (device, queue) = own_device(wgpu::Limits::default());
    let (errors, losses) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counter = errors.clone();
    device.on_uncaptured_error(Arc::new(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    let counter = losses.clone();
    device.set_device_lost_callback(move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let context = Context::from_wgpu(device.clone(), queue).unwrap();

    // Errors that the crate catches are its own affair.
    let inputs = Inputs::new(1, &[2, 3, 4]);
    let layer = inputs.layer(&context, OPTIONS).freeze();
    let x = zeros(&context, &inputs.dims);
    let raw = zeros(&own_context(), &inputs.dims).buffer().clone();
    let theirs = Tensor::from_buffer(&context, raw, 0, &inputs.dims).unwrap();
    refused!(context.block_on(layer.infer(&theirs)), Error::Validation { .. });
    refused!(context.block_on(context.zeros(&[1 << 40])), Error::TooLarge { .. });
    x.buffer().destroy();
    refused!(context.block_on(layer.infer(&x)), Error::Validation { .. });
    refused!(context.block_on(context.download(&x)), Error::Validation { .. });
    assert_eq!(errors.load(Ordering::SeqCst), 0);

    // Errors of the application still reach it.
    let _ = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::MAP_WRITE,
        mapped_at_creation: false,
    });
    assert_eq!(errors.load(Ordering::SeqCst), 1);
    assert_eq!(losses.load(Ordering::SeqCst), 0);
    device.destroy();
    let _ = device.poll(wgpu::PollType::wait_indefinitely());
    assert_eq!(losses.load(Ordering::SeqCst), 1);
}

#[test]
fn webgpu_limits_are_enough() {
    let context = own_context();
    assert_eq!(context.capabilities().max_workgroup_size, 256);
    for dims in [&[3, 5, 7, 5][..], &[2, 2, 40_000], &[2, 66_000, 1]] {
        let inputs = Inputs::new(2, dims);
        let got = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS));
        assert_train(&format!("{dims:?}"), &inputs, EPS, &got);
        assert_frozen(&format!("{dims:?}"), &inputs, EPS, &frozen(&context, &inputs, OPTIONS));
    }
}

/// With checks, what reads beyond a binding gets another value: so these are right because no kernel does.
#[test]
fn kernels_with_checks_give_the_same_bits() {
    let checked = checked_context();
    for (i, case) in table::quick().into_iter().enumerate() {
        // A sample, because kernels with checks are others, which nothing else compiles.
        let runs = case.runs();
        if !i.is_multiple_of(37) || case.spec.elements() > 1 << 16 || runs.is_empty() {
            continue;
        }
        let (layout, variant) = runs[i % runs.len()];
        let problem = case.problem().unwrap();
        let [with, without] = [&checked, &context()]
            .map(|context| context.block_on(problem.run_in(context, &variant.plan(layout))));
        let what = format!("{} {layout} {}", case.name, variant.name);
        assert!(with.passes(), "{what}: {:#?}", with.failures());
        assert!(without.passes(), "{what}: {:#?}", without.failures());
        // Elsewhere compilers may contract other operations, or make something else of infinities and NaN.
        if case.draw.data == Data::Normal && case.spec.norm.is_batch() {
            assert_same_outcome(&what, &with, &without);
        }
    }
}

#[test]
fn threads_share_a_context() {
    // A context of its own, so that both threads compile at once.
    let context = headless();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let context = &context;
            scope.spawn(move || {
                for step in 0..8 {
                    let inputs = Inputs::new(100 * thread + step, &[2, 3, 5 + thread as usize, 7]);
                    let got = train(context, &inputs, &mut inputs.layer(context, OPTIONS));
                    assert_train(&format!("thread {thread} step {step}"), &inputs, EPS, &got);
                    // Errors of one thread do not show up in another.
                    let x = zeros(context, &inputs.dims);
                    x.buffer().destroy();
                    refused!(context.block_on(context.download(&x)), Error::Validation { .. });
                }
            });
        }
    });
}

#[test]
fn any_executor_drives_the_futures() {
    let context = context();
    let y = pollster::block_on(async {
        let x = context.upload(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0]).await.unwrap();
        let layer = wgnorm::BatchNorm::new(&context, 1, OPTIONS.eps(1e-12)).await.unwrap();
        let (y, saved) = layer.train_forward_untracked(&x).await.unwrap();
        assert_eq!(saved.download(&context).await.unwrap()[0].mean(), 2.5);
        // Two at once on one executor, the second polled before the first has finished.
        let mut first = std::pin::pin!(context.download(&y));
        let mut second = std::pin::pin!(context.download(&x));
        let polled = std::future::poll_fn(|cx| {
            let first = first.as_mut().poll(cx);
            std::task::Poll::Ready((first, second.as_mut().poll(cx)))
        });
        let (a, b) = polled.await;
        let b = match b {
            std::task::Poll::Ready(b) => b,
            std::task::Poll::Pending => second.await,
        };
        assert_eq!(b.unwrap(), [1.0, 2.0, 3.0, 4.0]);
        match a {
            std::task::Poll::Ready(a) => a.unwrap(),
            std::task::Poll::Pending => first.await.unwrap(),
        }
    });
    assert!((y[3] - 1.341_640_8).abs() < 1e-6, "{y:?}");
}

#[test]
fn a_read_back_that_is_dropped_leaves_nothing() {
    let context = context();
    let x = upload(&context, &[3], &[1.0, 2.0, 3.0]);
    {
        let mut download = std::pin::pin!(context.download(&x));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = download.as_mut().poll(&mut cx);
    }
    assert_eq!(download(&context, &x), [1.0, 2.0, 3.0]);
}

#[test]
fn a_context_shares_its_kernels_with_its_clones() {
    let context = headless();
    assert!(context.compiled_kernels().is_empty());
    let x = zeros(&context, &[2, 3, 4]);
    let (_, prepared): (_, Prepared) = context.block_on(Moments::prepare(&context, &x)).unwrap();
    let kernels: Vec<_> = prepared.kernels().map(str::to_owned).collect();
    assert_eq!(kernels.len(), 1);
    assert_eq!(context.clone().compiled_kernels(), kernels);
    context.block_on(Moments::of(&context.with_tuning(Default::default()), &x)).unwrap();
    assert_eq!(context.compiled_kernels(), kernels);
}

#[test]
fn the_driver_of_the_tests_is_tried() {
    let context = context();
    context.block_on(context.try_driver()).unwrap();
    // What was found is kept.
    context.block_on(context.try_driver()).unwrap();
}
