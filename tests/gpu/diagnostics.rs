//! Diagnostics of layers on the GPU: what is downloaded is what is looked at.

use wgnorm::diagnostics::{DiagnosticOptions, Finding};
use wgnorm::statistics::Moments;
use wgnorm::{BatchNorm, BatchNormOptions, Error, RunningStatistics, RunningValues};

use crate::support::*;

#[test]
fn a_layer_is_diagnosed_where_it_is() {
    let context = context();
    let options = BatchNormOptions::pytorch();
    let thresholds = DiagnosticOptions::default();
    let running = RunningValues { mean: vec![0.0, 0.0, 1e3], var: vec![1.0, 1e-9, 1.0], batches: 100 };
    let running = context.block_on(RunningStatistics::upload(&context, &running)).unwrap();
    let gamma = upload(&context, &[3], &[1.0, 1.0, -1e-6]);
    let layer = BatchNorm::from_parts(&context, options, Some(gamma), None, running).unwrap();
    let x: Vec<_> = values(1, 3 * 4 * 5, 0.0, 1.7);
    let x = upload(&context, &[4, 3, 5], &x);
    let batch = context.block_on(Moments::of(&context, &x)).unwrap();
    let findings = context.block_on(layer.diagnose(Some(&batch), &thresholds)).unwrap();
    let [
        Finding::DeadChannels { channels: dead, .. },
        Finding::PrunableChannels { channels: prunable, .. },
        Finding::Drifted { channels: drifted },
    ] = &findings[..]
    else {
        panic!("{findings:?}")
    };
    assert_eq!((dead[0].channel, prunable[0].channel), (1, 2));
    assert_eq!(drifted.iter().map(|at| at.channel).collect::<Vec<_>>(), [1, 2]);
    assert!((drifted[1].drift.mean_shift + 1e3).abs() < 2.0 && drifted[1].count == 20);

    // Frozen, the same.
    let layer = layer.freeze();
    let frozen = context.block_on(layer.diagnose(Some(&batch), &thresholds)).unwrap();
    assert_eq!(frozen, findings);
    let alone = context.block_on(layer.diagnose(None, &thresholds)).unwrap();
    assert_eq!(alone, findings[..2]);

    let other = context.block_on(Moments::empty(&context, 4)).unwrap();
    let refused = context.block_on(layer.diagnose(Some(&other), &thresholds));
    refused!(refused, Error::Channels { expected: 3, got: 4, .. });
    let foreign = other_context();
    let foreign = foreign.block_on(Moments::empty(&foreign, 3)).unwrap();
    let refused = context.block_on(layer.diagnose(Some(&foreign), &thresholds));
    refused!(refused, Error::ForeignDevice { what: "moments" });
}
