//! Kernels that are compiled ahead: what was warmed up compiles nothing any more, and nothing but that is compiled.

use std::future::Future;
use std::pin::pin;
use std::task::{Poll, Waker};

use wgnorm::{Error, Spec};

use crate::support::*;

const LINES: [&str; 11] = [
    "batch 2x3x16x16 relu residual backward",
    "batch 6x20 bf16 last backward",
    "batch 3x5x7x5 mask=3 backward",
    "batch 2x4x6x6 renorm=1.5,0.5 backward",
    "frozen 2x3x5x5 gelu backward",
    "layer 24x64 f16 sum relu backward",
    "group:2 2x6x5x5 last relu residual backward",
    "rms 16x40 modulated backward",
    "tanh 8x32 backward",
    "layer 4x16x64 axes=1 backward",
    "rms 3x5x4x8 affine=both axes=3,1 backward",
];

#[test]
fn what_was_warmed_up_compiles_nothing() {
    let context = headless();
    let specs: Vec<Spec> = LINES.iter().map(|line| line.parse().unwrap()).collect();
    let count = context.block_on(context.warm_up(&specs)).unwrap();
    let compiled = context.compiled_kernels();
    assert!(count >= 2 * LINES.len() && compiled.len() == count, "{count} of {compiled:#?}");
    assert_eq!(context.block_on(context.warm_up(&specs)).unwrap(), 0);
    for line in LINES {
        assert_holds(&context, line);
        let now = context.compiled_kernels();
        let new: Vec<_> = now.iter().filter(|key| !compiled.contains(key)).collect();
        assert!(new.is_empty(), "{line}: {new:#?}");
    }
}

#[test]
fn who_does_not_wait_gets_no_more() {
    let context = headless();
    let specs = [LINES[0].parse().unwrap(), LINES[5].parse().unwrap()];
    {
        let mut warm = pin!(context.warm_up(&specs));
        let polled = warm.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending), "{polled:?}");
    }
    // The one at hand may be finished, and what is asked for now is compiled as ever.
    assert_holds(&context, LINES[0]);
    assert!(context.block_on(context.warm_up(&specs)).unwrap() > 0);
}

#[test]
fn problems_that_are_none_are_refused() {
    let context = context();
    let refused = |line: &str| {
        let spec: Spec = line.parse().unwrap();
        context.block_on(context.warm_up(&[spec])).unwrap_err()
    };
    assert!(matches!(refused("batch 8x3x4x4 ghost=2"), Error::Spec { .. }));
    assert!(matches!(refused("batch 4000000x4000000"), Error::TooLarge { .. }));
}
