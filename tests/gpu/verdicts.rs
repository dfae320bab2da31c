//! What the device says of a call comes late in a browser: a call waits for it once, and misses none of it.

use std::pin::pin;
use std::task::{Poll, Waker};

use wgnorm::curve::{DynamicCurve, Tanh};
use wgnorm::eval::late_verdicts;
use wgnorm::statistics::Moments;
use wgnorm::{BatchNormOptions, CurveOptions, Error, LayerNorm, NormOptions, Spec, Tensor};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();

/// Runs with verdicts that come late to this thread.
fn late<T>(run: impl FnOnce() -> T) -> T {
    struct AtOnce;
    impl Drop for AtOnce {
        fn drop(&mut self) {
            late_verdicts(false);
        }
    }
    late_verdicts(true);
    let _at_once = AtOnce;
    run()
}

/// Polls a call so many times at most, and drops it; what came of it, if it ended before, and how often it waited.
fn polled<T>(most: usize, call: impl Future<Output = T>) -> (Option<T>, usize) {
    let mut call = pin!(call);
    for waits in 0..most {
        if let Poll::Ready(value) = call.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())) {
            return (Some(value), waits);
        }
    }
    (None, most)
}

/// What comes of a call, and how often it waited.
fn waits<T>(call: impl Future<Output = T>) -> (T, usize) {
    let (value, waits) = polled(1000, call);
    (value.expect("it never ends"), waits)
}

/// Calls are made twice: the first may compile and probe, which must be known to have gone well before the next step.
macro_rules! assert_waits_once {
    ($context:expr, $call:expr) => {{
        $context.block_on($call).unwrap();
        let (result, waits) = late(|| waits($call));
        assert!(waits <= 1, "{} waits {waits} times", stringify!($call));
        result.unwrap()
    }};
}

#[test]
fn a_call_waits_once() {
    let context = context();
    let inputs = Inputs::new(3, &[3, 4, 7]);
    let (x, dy) = (upload(&context, &inputs.dims, &inputs.x), upload(&context, &inputs.dims, &inputs.dy));
    let mut batch = inputs.layer(&context, OPTIONS);
    let (_, saved) = assert_waits_once!(context, batch.train_forward(&x));
    assert_waits_once!(context, batch.train_forward_untracked(&x));
    assert_waits_once!(context, batch.backward(&x, &dy, &saved));
    assert_waits_once!(context, Moments::of(&context, &x));
    let (_, saved) = assert_waits_once!(context, batch.train_forward_ghost(&x, 1));
    assert_waits_once!(context, batch.backward_ghost(&x, &dy, &saved));
    let inputs = [(&x).into(), (&dy).into()];
    let outputs = assert_waits_once!(context, batch.train_forward_accumulated(&inputs));
    let saved = [&outputs[0].1, &outputs[1].1];
    assert_waits_once!(context, batch.backward_accumulated(&inputs, &[&dy, &x], &saved));
    let frozen = batch.freeze();
    assert_waits_once!(context, frozen.infer(&x));
    assert_waits_once!(context, frozen.backward(&x, &dy));

    let layer = context.block_on(LayerNorm::new(&context, &[7], NormOptions::layer())).unwrap();
    let (_, saved) = assert_waits_once!(context, layer.forward(&x));
    assert_waits_once!(context, layer.infer(&x));
    assert_waits_once!(context, layer.backward(&x, &dy, &saved));
    let curve = context.block_on(DynamicCurve::<Tanh>::new(&context, 4, CurveOptions::default())).unwrap();
    assert_waits_once!(context, curve.forward(&x));
    assert_waits_once!(context, curve.backward(&x, &dy));
}

#[test]
fn what_fails_late_is_an_error_and_changes_nothing() {
    let context = context();
    let inputs = Inputs::new(4, &[3, 4, 7]);
    let theirs = zeros(&own_context(), &inputs.dims).buffer().clone();
    let theirs = Tensor::from_buffer(&context, theirs, 0, &inputs.dims).unwrap();
    let gone = zeros(&context, &inputs.dims);
    gone.buffer().destroy();
    let mut layer = inputs.layer(&context, OPTIONS);
    // Warm, so that all that can fail is what comes late.
    let x = upload(&context, &inputs.dims, &inputs.x);
    let (_, saved) = context.block_on(layer.train_forward(&x)).unwrap();
    let before = download_running(&context, layer.running());
    for x in [&theirs, &gone] {
        let wait = |late_result: (wgnorm::Result<()>, usize)| {
            assert!(matches!(late_result.0, Err(Error::Validation { .. })), "{late_result:?}");
        };
        wait(late(|| waits(async { layer.train_forward(x).await.map(drop) })));
        wait(late(|| waits(async { layer.backward(x, x, &saved).await.map(drop) })));
        wait(late(|| waits(async { Moments::of(&context, x).await.map(drop) })));
        assert_eq!(download_running(&context, layer.running()), before);
    }
    // Nothing lingers: not in what is kept of operations, and not in their scratch.
    context.block_on(layer.train_forward(&x)).unwrap();
    assert_ne!(download_running(&context, layer.running()), before);
}

#[test]
fn results_are_the_same_when_verdicts_come_late() {
    let context = context();
    for line in ["batch 3x4x7x5 relu residual backward", "layer 24x40 backward", "group:2 2x6x5x5 backward"] {
        let spec: Spec = line.parse().unwrap();
        let problem = wgnorm::eval::Problem::new(&spec, &wgnorm::eval::Draw::default()).unwrap();
        let at_once = context.block_on(problem.run(&context));
        let outcome = late(|| context.block_on(problem.run(&context)));
        assert!(outcome.passes(), "{line}: {:?}", outcome.failures());
        assert_same_outcome(line, &outcome, &at_once);
    }
}

/// A call that is dropped wherever it waits has done nothing or all: layers, tensors and what is kept of operations serve the next call as if it had not been.
#[test]
fn a_call_dropped_at_any_await_leaves_all_in_order() {
    let context = context();
    let inputs = Inputs::new(5, &[3, 4, 7]);
    let (x, dy) = (upload(&context, &inputs.dims, &inputs.x), upload(&context, &inputs.dims, &inputs.dy));
    let mut layer = inputs.layer(&context, OPTIONS);
    let norm = context.block_on(LayerNorm::new(&context, &[7], NormOptions::layer())).unwrap();
    let once = |layer: &mut wgnorm::BatchNorm| -> wgnorm::Result<Vec<Vec<f32>>> {
        context.block_on(async {
            let (y, saved) = layer.train_forward_untracked(&x).await?;
            let gradients = layer.backward(&x, &dy, &saved).await?;
            let (z, kept) = norm.forward(&x).await?;
            let of_norm = norm.backward(&x, &dy, &kept).await?;
            let mut all = Vec::new();
            for tensor in [&y, &gradients.dx, &z, &of_norm.dx] {
                all.push(context.download(tensor).await?);
            }
            Ok(all)
        })
    };
    let right = once(&mut layer).unwrap();
    let mut moments = context.block_on(Moments::of(&context, &x)).unwrap();
    let other = context.block_on(Moments::of(&context, &dy)).unwrap();
    let (_, saved) = context.block_on(layer.train_forward(&x)).unwrap();
    let (_, kept) = context.block_on(norm.forward(&x)).unwrap();
    let most = 60;
    let mut ended = [0; 9];
    for polls in 0..most {
        let before = download_running(&context, layer.running());
        let counted = context.block_on(moments.download(&context)).unwrap()[0].count;
        late(|| {
            let mut drop_one = |i: usize, came: bool| ended[i] += usize::from(came);
            drop_one(0, polled(polls, layer.train_forward(&x)).0.is_some());
            drop_one(1, polled(polls, layer.backward(&x, &dy, &saved)).0.is_some());
            drop_one(2, polled(polls, norm.forward(&x)).0.is_some());
            drop_one(3, polled(polls, norm.backward(&x, &dy, &kept)).0.is_some());
            drop_one(4, polled(polls, moments.merge(&context, &other)).0.is_some());
            drop_one(5, polled(polls, context.upload(&[3], &[1.0; 3])).0.is_some());
            drop_one(6, polled(polls, context.download(&x)).0.is_some());
            drop_one(7, polled(polls, Moments::of(&context, &x)).0.is_some());
            drop_one(8, polled(polls, saved.download(&context)).0.is_some());
        });
        // Once or not at all.
        let after = download_running(&context, layer.running());
        assert!([before.batches, before.batches + 1].contains(&after.batches), "{polls} polls: {after:?}");
        assert_eq!(after.mean == before.mean, after.batches == before.batches, "{polls} polls");
        let merged = context.block_on(moments.download(&context)).unwrap()[0].count;
        assert!([counted, counted + 21].contains(&merged), "{polls} polls: {counted}, then {merged}");
        assert!(
            once(&mut layer).unwrap() == right,
            "other results after calls that were dropped after {polls} polls"
        );
    }
    assert!(ended.iter().all(|&ended| 0 < ended && ended < most), "dropped nowhere or everywhere: {ended:?}");
}
