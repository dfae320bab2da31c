//! Each finding where it is due and nowhere else.

use super::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();

fn running(mean: &[f32], var: &[f32], batches: u32) -> RunningValues {
    RunningValues { mean: mean.to_vec(), var: var.to_vec(), batches }
}

fn sound() -> RunningValues {
    running(&[0.5, -1.0, 1e6], &[1.0, 0.25, 4.0], 1000)
}

/// A batch with these values per channel, like the running statistics.
fn batch_like(running: &RunningValues, counts: &[u64]) -> Vec<ChannelMoments> {
    let one = |(c, &count): (usize, &u64)| {
        let (shift, var) = (running.mean[c], running.var[c]);
        ChannelMoments { count, shift, delta: 0.0, var }
    };
    counts.iter().enumerate().map(one).collect()
}

fn of(running: &RunningValues) -> LayerState<'_> {
    LayerState {
        options: &OPTIONS,
        running,
        gamma: Some(&[1.0, -0.5, 2.0]),
        beta: Some(&[0.0; 3]),
        batch: None,
    }
}

fn found(state: &LayerState<'_>) -> Vec<Finding> {
    diagnose(state, &DiagnosticOptions::default()).unwrap()
}

/// The only finding.
fn only(state: &LayerState<'_>) -> Finding {
    let mut findings = found(state);
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0)
}

fn indices(channels: &[ChannelValue]) -> Vec<usize> {
    channels.iter().map(|at| at.channel).collect()
}

#[test]
fn a_sound_layer_has_no_findings() {
    let running = sound();
    let batch = batch_like(&running, &[16, 100, u64::MAX]);
    assert_eq!(found(&LayerState { batch: Some(&batch), ..of(&running) }), []);
    assert_eq!(found(&LayerState { gamma: None, beta: None, ..of(&running) }), []);
    // Unknown numbers of batches are no finding where the values tell that there were some.
    assert_eq!(found(&of(&RunningValues { batches: 0, ..running })), []);
}

#[test]
fn few_values_are_told_by_how_few() {
    let running = sound();
    let with = |counts: [u64; 3]| {
        let batch = batch_like(&running, &counts);
        found(&LayerState { batch: Some(&batch), ..of(&running) })
    };
    let few = with([7, 8, 15]);
    let [
        Finding::FewValues { channels: very_few, fewer_than: 8 },
        Finding::FewValues { channels: few, fewer_than: 16 },
    ] = &few[..]
    else {
        panic!("{few:?}")
    };
    assert_eq!((indices(very_few), indices(few)), (vec![0], vec![1, 2]));
    assert_eq!(few[1].value, 15.0);
    let none = with([0, 1, 2]);
    let [
        Finding::NoValues { channels: none },
        Finding::SingleValue { channels: one },
        Finding::FewValues { .. },
    ] = &none[..]
    else {
        panic!("{none:?}")
    };
    assert_eq!((&none[..], &one[..]), (&[0][..], &[1][..]));
}

#[test]
fn dead_and_prunable_channels_are_named() {
    let dead = running(&[0.0, 0.1, 0.2], &[1e-6, 1.1e-6, 0.0], 1000);
    let Finding::DeadChannels { channels, eps } = only(&of(&dead)) else { panic!() };
    assert_eq!((indices(&channels), eps), (vec![0, 2], 1e-5));

    let running = sound();
    let pruned = LayerState { gamma: Some(&[-1e-3, 1.1e-3, 0.0]), ..of(&running) };
    let Finding::PrunableChannels { channels, at_most } = only(&pruned) else { panic!() };
    assert_eq!((indices(&channels), at_most), (vec![0, 2], 1e-3));
    let strict = DiagnosticOptions { prunable_gamma: 0.0, ..Default::default() };
    let findings = diagnose(&pruned, &strict).unwrap();
    let [Finding::PrunableChannels { channels, .. }] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!(indices(channels), [2]);
}

#[test]
fn statistics_that_were_never_updated_say_nothing_about_drift() {
    let new = running(&[0.0; 3], &[1.0; 3], 0);
    let batch = batch_like(&running(&[50.0; 3], &[9.0; 3], 0), &[64; 3]);
    assert_eq!(only(&LayerState { batch: Some(&batch), ..of(&new) }), Finding::NeverUpdated);
    // After a batch, the same values are statistics.
    let findings = found(&LayerState { batch: Some(&batch), ..of(&RunningValues { batches: 1, ..new }) });
    assert!(matches!(findings[..], [Finding::Unsettled { batches: 1, .. }, Finding::Drifted { .. }]));
}

#[test]
fn momentum_decides_when_statistics_are_settled() {
    let weight = |options: BatchNormOptions, batches| {
        let running = RunningValues { batches, ..sound() };
        match &found(&LayerState { options: &options, ..of(&running) })[..] {
            [] => None,
            [Finding::Unsettled { weight_of_initial, settled_after, .. }] => {
                Some((*weight_of_initial, settled_after.ceil()))
            }
            other => panic!("{other:?}"),
        }
    };
    // 0.9^28 > 0.05 > 0.9^29
    let (initial, settled) = weight(OPTIONS, 28).unwrap();
    assert!((initial - 0.9_f64.powi(28)).abs() < 1e-12 && settled == 29.0);
    assert_eq!(weight(OPTIONS, 29), None);
    // 0.99^298 > 0.05 > 0.99^299
    assert_eq!(weight(BatchNormOptions::keras(), 298).unwrap().1, 299.0);
    assert_eq!(weight(BatchNormOptions::keras(), 299), None);
    assert_eq!(weight(OPTIONS.momentum(Momentum::Cumulative), 1), None);
    assert_eq!(weight(OPTIONS.momentum(Momentum::WeightOfNew(1.0)), 1), None);
    let never = weight(OPTIONS.momentum(Momentum::WeightOfNew(0.0)), u32::MAX).unwrap();
    assert_eq!(never, (1.0, f64::INFINITY));
}

#[test]
fn drift_beyond_chance_is_reported() {
    let running = sound();
    let with = |count: u64, moved: f32, stretched: f32| {
        let mut batch = batch_like(&running, &[count; 3]);
        batch[1].delta += moved * 0.5;
        batch[1].var *= stretched * stretched;
        let biased = OPTIONS.running_variance(RunningVariance::Biased);
        match &found(&LayerState { options: &biased, batch: Some(&batch), ..of(&running) })[..] {
            [] => None,
            [Finding::Drifted { channels }] => {
                assert_eq!((channels.len(), channels[0].channel, channels[0].count), (1, 1, count));
                Some(channels[0].drift)
            }
            other => panic!("{other:?}"),
        }
    };
    // 0.5 + 4 / sqrt(10000) = 0.54; 4 / sqrt(64) is more than a shift of 0.9 allows for.
    assert!(with(10_000, 0.53, 1.0).is_none() && with(64, 0.9, 1.0).is_none());
    let drift = with(10_000, 0.55, 1.0).unwrap();
    assert!((drift.mean_shift - 0.55).abs() < 1e-3 && (drift.std_ratio - 1.0).abs() < 1e-3);
    assert!(with(64, -1.1, 1.0).unwrap().mean_shift < -1.0);
    // 2·exp(4 / sqrt(20000)) = 2.057
    assert!(with(10_000, 0.0, 2.05).is_none() && with(10_000, 0.0, 0.49).is_none());
    assert!(with(10_000, 0.0, 2.07).is_some() && with(10_000, 0.0, 0.48).is_some());
}

#[test]
fn the_convention_of_the_running_variance_is_minded() {
    // Of 20 values, unbiased: 20 / 19 of the biased variance.
    let running = running(&[0.0; 3], &[20.0 / 19.0; 3], 1000);
    let batch = vec![ChannelMoments { count: 20, shift: 0.0, delta: 0.0, var: 1.0 }; 3];
    let strict = DiagnosticOptions { std_ratio: 1.0, ..Default::default() };
    let state = LayerState { batch: Some(&batch), ..of(&running) };
    assert_eq!(diagnose(&state, &strict).unwrap(), []);
}

#[test]
fn unsound_values_are_findings() {
    let bad = running(&[0.0, f32::NAN, 1.0], &[-1.0, f32::INFINITY, 1.0], 1000);
    let mut batch = batch_like(&sound(), &[100; 3]);
    batch[2].var = f32::NAN;
    let state = LayerState {
        gamma: Some(&[1.0, 1.0, f32::NEG_INFINITY]),
        beta: Some(&[f32::NAN, 0.0, 0.0]),
        batch: Some(&batch),
        ..of(&bad)
    };
    let findings = found(&state);
    let what: Vec<_> = findings
        .iter()
        .map(|finding| match finding {
            Finding::NotFinite { what, channels } => (*what, indices(channels)),
            Finding::NegativeVariance { channels } => ("negative", indices(channels)),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        ("running_mean", vec![1]),
        ("running_var", vec![1]),
        ("gamma", vec![2]),
        ("beta", vec![0]),
        ("mean or variance of the batch", vec![2]),
        ("negative", vec![0]),
    ];
    assert_eq!(what, expected);
}

#[test]
fn findings_explain_themselves() {
    let many = running(&[0.5; 20], &[0.0; 20], 3);
    let batch = batch_like(&many, &[5; 20]);
    let state =
        LayerState { options: &OPTIONS, running: &many, gamma: None, beta: None, batch: Some(&batch) };
    let findings = found(&state);
    let [unsettled, dead, few] = &findings[..] else { panic!("{findings:?}") };
    for (finding, parts) in [
        (unsettled, ["72.9 %", "after 3 batches", "takes 29", "2105.07576"]),
        (dead, ["20 channels: 0 (0), 1 (0)", ", …", "eps = 1e-5", "by as much as 316"]),
        (few, ["fewer than 8 values", "0 (5)", "1803.08494", "1702.03275"]),
    ] {
        let text = finding.to_string();
        for part in parts {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(text.ends_with(&format!("[{}]", finding.literature())));
    }
}

#[test]
fn every_finding_names_channels_and_literature() {
    let channels = vec![ChannelValue { channel: 7, value: 1.5e-9 }];
    let drift = ChannelDrift::between((0.0, 1.0), (-2.0, 4.0), 1e-12);
    let with_value = "1 channel: 7 (1.50e-9)";
    for (finding, part) in [
        (Finding::NotFinite { what: "gamma", channels: channels.clone() }, with_value),
        (Finding::NegativeVariance { channels: channels.clone() }, with_value),
        (Finding::NeverUpdated, "mean 0 and variance 1"),
        (
            Finding::Unsettled { batches: 2, weight_of_initial: 1.0, settled_after: f64::INFINITY },
            "never lets go",
        ),
        (Finding::NoValues { channels: vec![7] }, "in 1 channel: 7:"),
        (Finding::SingleValue { channels: vec![7, 8] }, "in 2 channels: 7, 8:"),
        (Finding::FewValues { channels: channels.clone(), fewer_than: 8 }, with_value),
        (Finding::DeadChannels { channels: channels.clone(), eps: 1e-5 }, with_value),
        (Finding::PrunableChannels { channels, at_most: 1e-3 }, with_value),
        (
            Finding::Drifted { channels: vec![DriftedChannel { channel: 7, count: 100, drift }] },
            "channel 7: mean -2.000 standard deviations, standard deviation ×2.000",
        ),
    ] {
        let text = finding.to_string();
        assert!(
            text.contains(part) && text.ends_with("]") && text.contains("https://arxiv.org/abs/"),
            "{text}"
        );
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let refuse = |state: LayerState<'_>, options: DiagnosticOptions| diagnose(&state, &options).unwrap_err();
    let default = DiagnosticOptions::default();
    let running = sound();
    let length = |error: Error, name: &str| {
        assert!(matches!(error, Error::Length { what, expected: 3, got: 2, .. } if what == name), "{error}");
    };
    length(refuse(LayerState { gamma: Some(&[1.0; 2]), ..of(&running) }, default), "gamma");
    length(refuse(LayerState { beta: Some(&[1.0; 2]), ..of(&running) }, default), "beta");
    let short = RunningValues { var: vec![1.0; 2], ..running.clone() };
    length(refuse(of(&short), default), "running_var");
    let batch = batch_like(&running, &[100; 2]);
    let error = refuse(LayerState { batch: Some(&batch), ..of(&running) }, default);
    assert!(matches!(error, Error::Channels { expected: 3, got: 2, .. }), "{error}");
    let none = self::running(&[], &[], 0);
    assert!(matches!(refuse(of(&none), default), Error::Channels { got: 0, .. }));
    let eps = OPTIONS.eps(-1.0);
    assert_eq!(refuse(LayerState { options: &eps, ..of(&running) }, default), Error::Epsilon { got: -1.0 });
    let momentum = OPTIONS.momentum(Momentum::WeightOfOld(2.0));
    let error = refuse(LayerState { options: &momentum, ..of(&running) }, default);
    assert_eq!(error, Error::Momentum { got: 2.0 });
    for (what, options) in [
        ("dead_variance_per_eps", DiagnosticOptions { dead_variance_per_eps: -1.0, ..default }),
        ("prunable_gamma", DiagnosticOptions { prunable_gamma: f64::NAN, ..default }),
        ("weight_of_initial", DiagnosticOptions { weight_of_initial: f64::NAN, ..default }),
        ("mean_shift", DiagnosticOptions { mean_shift: -0.1, ..default }),
        ("std_ratio", DiagnosticOptions { std_ratio: 0.5, ..default }),
        ("std_ratio", DiagnosticOptions { std_ratio: f64::NAN, ..default }),
    ] {
        let error = refuse(of(&running), options);
        assert!(matches!(error, Error::Threshold { what: named, .. } if named == what), "{error}");
    }
}
