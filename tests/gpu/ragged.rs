//! Norms over segments beside PyTorch Geometric's, what their bits depend on, and what is refused. That kernels are right in all plans is the table's matter.

use wgnorm::eval::{Draw, Problem};
use wgnorm::family::{Kind, Norm};
use wgnorm::tuning::Tuning;
use wgnorm::{
    BatchNorm, BatchNormOptions, Context, Error, GradientTargets, GraphNorm, GroupNorm, InstanceNorm,
    LayerNorm, NormOptions, RmsNorm, Segments, Spec, Tangents, Tensor,
};

use crate::support::{context, download, own_context, refused, upload, zeros};

#[test]
fn kernels_and_reference_agree_with_pytorch_geometric() {
    let context = context();
    let file: serde_json::Value = serde_json::from_str(include_str!("../data/ragged/cases.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 17);
    for case in cases {
        let values = |of: &str, name: &str| -> Option<Vec<f64>> {
            let values = case[of].get(name)?.as_array().unwrap();
            Some(values.iter().map(|value| value.as_f64().unwrap()).collect())
        };
        let input = |name: &str| -> Option<Vec<f32>> {
            Some(values("inputs", name)?.into_iter().map(|value| value as f32).collect())
        };
        let line = case["line"].as_str().unwrap();
        let spec: Spec = line.parse().unwrap();
        let mut inputs = Problem::new(&spec, &Draw::default()).unwrap().inputs;
        (inputs.x, inputs.dy) = (input("x").unwrap(), input("dy"));
        (inputs.gamma, inputs.beta) = (input("gamma"), input("beta"));
        inputs.alpha = input("alpha").unwrap_or_default();
        let problem = Problem::from_inputs(&spec, inputs).unwrap();
        for name in ["y", "dx", "dweight", "dbias", "dalpha"] {
            let Some(expected) = values("results", name) else { continue };
            let ours = &problem.expectation(name).unwrap().values;
            assert_eq!(ours.len(), expected.len(), "{line} {name}");
            for (ours, expected) in ours.iter().zip(expected) {
                let bound = 1e-11 * expected.abs().max(1.0);
                assert!((ours - expected).abs() <= bound, "{line} {name}: {ours:e} is not {expected:e}");
            }
        }
        let outcome = context.block_on(problem.run(&context));
        assert!(outcome.passes(), "{line}: {:?}", outcome.failures());

        // The index of each row says the same as lengths do.
        let index: Vec<u32> =
            case["index"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as u32).collect();
        let segments = case["segments"].as_u64().unwrap() as usize;
        let segments = context.block_on(Segments::of_index(&context, &index, segments)).unwrap();
        assert_eq!(segments.rows(), spec.shape[0] as u64);
    }
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 % 1013) as f32 * 0.37).sin() + (i % 17) as f32 * 0.01).collect()
}

/// y, dx and the gradients of parameters.
fn passes<K: Kind>(
    context: &Context,
    layer: &Norm<K>,
    x: &Tensor,
    dy: &Tensor,
    segments: &Segments,
) -> Vec<Vec<f32>> {
    let (y, saved) = context.block_on(layer.forward(x.in_segments(segments))).unwrap();
    let gradients = context.block_on(layer.backward(x.in_segments(segments), dy, &saved)).unwrap();
    let parameters = [gradients.dgamma, gradients.dbeta, gradients.dalpha].into_iter().flatten();
    let all = [y, gradients.dx].into_iter().chain(parameters);
    all.map(|tensor| download(context, &tensor)).collect()
}

#[test]
fn bits_are_those_of_the_segments_alone() {
    let context = context();
    let (lengths, channels) = ([3, 70, 1, 0, 2100, 64], 16);
    let rows: usize = lengths.iter().sum();
    let (x, dy) = (values(rows * channels), values(rows * channels + 9)[9..].to_vec());
    let put =
        |context: &Context, values: &[f32]| upload(context, &[values.len() / channels, channels], values);
    let of = |context: &Context, norm: usize, x: &[f32], dy: &[f32], lengths: &[usize]| {
        let segments = context.block_on(Segments::of_lengths(context, lengths)).unwrap();
        let (x, dy) = (put(context, x), put(context, dy));
        match norm {
            0 => {
                let layer =
                    context.block_on(GraphNorm::new(context, channels, NormOptions::graph())).unwrap();
                passes(context, &layer, &x, &dy, &segments)
            }
            1 => {
                let layer =
                    context.block_on(LayerNorm::new(context, &[channels], NormOptions::layer())).unwrap();
                passes(context, &layer, &x, &dy, &segments)
            }
            _ => {
                let layer =
                    context.block_on(GroupNorm::new(context, 2, channels, NormOptions::group())).unwrap();
                passes(context, &layer, &x, &dy, &segments)
            }
        }
    };
    for norm in 0..3 {
        let all = of(&context, norm, &x, &dy, &lengths);
        assert_eq!(all.len(), if norm == 0 { 5 } else { 4 });
        // Whatever the plan is.
        for tuning in [
            Tuning::default().width(1),
            Tuning::default().strip(1),
            Tuning::default().strip(2).workgroup_size(64),
            Tuning::default().workgroup_size(32),
        ] {
            assert_eq!(of(&context.with_tuning(tuning), norm, &x, &dy, &lengths), all, "{tuning:?}");
        }
        // And whatever other segments there are.
        let mut begin = 0;
        for length in lengths {
            let end = begin + length * channels;
            if length > 0 {
                let alone = of(&context, norm, &x[begin..end], &dy[begin..end], &[length]);
                assert_eq!(
                    (&alone[0][..], &alone[1][..]),
                    (&all[0][begin..end], &all[1][begin..end]),
                    "{length} rows"
                );
            }
            begin = end;
        }
    }
}

#[test]
fn what_segments_are_made_of_is_checked() {
    let context = context();
    let offsets = |offsets: &[usize]| context.block_on(Segments::of_offsets(&context, offsets));
    let index = |index: &[u32], segments| context.block_on(Segments::of_index(&context, index, segments));
    refused!(offsets(&[]), Error::Segments { what: "offset", place: 0, got: None, .. });
    refused!(offsets(&[1, 2]), Error::Segments { what: "offset", place: 0, got: Some(1), .. });
    refused!(offsets(&[0, 4, 3, 9]), Error::Segments { what: "offset", place: 2, got: Some(3), .. });
    refused!(index(&[0, 2, 1], 3), Error::Segments { what: "index", place: 2, got: Some(1), .. });
    refused!(index(&[0, 3], 3), Error::Segments { what: "index", place: 1, got: Some(3), .. });
    refused!(index(&[0], 0), Error::Segments { what: "index", place: 0, .. });
    refused!(index(&[], usize::MAX), Error::TooLarge { .. });
    refused!(context.block_on(Segments::of_lengths(&context, &[usize::MAX, 2])), Error::TooLarge { .. });
    for (segments, expected) in
        [(offsets(&[0]), (0, 0)), (offsets(&[0, 2, 2, 5]), (3, 5)), (index(&[0, 0, 2], 4), (4, 3))]
    {
        let segments = segments.unwrap();
        assert_eq!((segments.segments(), segments.rows()), expected);
    }
    // Of offsets and of an index the same.
    let x = upload(&context, &[5, 2], &values(10));
    let layer = context.block_on(InstanceNorm::new(&context, 2, NormOptions::instance())).unwrap();
    let y = |segments: &Segments| {
        download(&context, &context.block_on(layer.infer(x.in_segments(segments))).unwrap())
    };
    assert_eq!(y(&offsets(&[0, 2, 2, 5]).unwrap()), y(&index(&[0, 0, 2, 2, 2], 3).unwrap()));
}

#[test]
fn what_is_refused() {
    let context = context();
    let x = upload(&context, &[5, 4], &values(20));
    let segments = context.block_on(Segments::of_lengths(&context, &[2, 3])).unwrap();
    let instance = context.block_on(InstanceNorm::new(&context, 4, NormOptions::instance())).unwrap();
    let graph = context.block_on(GraphNorm::new(&context, 4, NormOptions::graph())).unwrap();
    let y = zeros(&context, &[5, 4]);
    let forward = |input| context.block_on(instance.prepare_forward(input, &y, None)).map(|_| ());
    forward(x.in_segments(&segments)).unwrap();

    let few = context.block_on(Segments::of_lengths(&context, &[2, 2])).unwrap();
    refused!(forward(x.in_segments(&few)), Error::Number { expected: 5, got: 4, .. });
    let other = own_context();
    let foreign = other.block_on(Segments::of_lengths(&other, &[2, 3])).unwrap();
    refused!(forward(x.in_segments(&foreign)), Error::ForeignDevice { what: "segments" });
    refused!(
        forward(x.in_segments(&segments).with_residual(&y)),
        Error::Unsupported { what: "residual", .. }
    );
    refused!(forward(x.in_segments(&segments).plus(&y, &y)), Error::Unsupported { what: "sum", .. });
    refused!(forward(x.in_segments(&segments).modulated(None, None)), Error::Unsupported { .. });
    let cube = zeros(&context, &[5, 4, 1]);
    refused!(
        context.block_on(instance.infer(cube.in_segments(&segments))),
        Error::Rank { what: "an x in segments", .. }
    );
    let wide = zeros(&context, &[5, 6]);
    refused!(context.block_on(instance.infer(wide.in_segments(&segments))), Error::Channels { .. });
    // GraphNorm is nothing without them, others do not have them.
    refused!(context.block_on(graph.infer(&x)), Error::Unsupported { what: "an x without segments", .. });
    refused!(context.block_on(graph.room_for(&x)), Error::Unsupported { .. });
    let rms = context.block_on(RmsNorm::new(&context, &[4], NormOptions::rms())).unwrap();
    refused!(
        context.block_on(rms.infer(x.in_segments(&segments))),
        Error::Unsupported { what: "segments", .. }
    );
    let mut batch = context.block_on(BatchNorm::new(&context, 4, BatchNormOptions::pytorch())).unwrap();
    let trained = context.block_on(batch.train_forward(x.in_segments(&segments)));
    refused!(trained, Error::Unsupported { what: "segments", .. });
    let in_groups = context.block_on(LayerNorm::in_groups(&context, &[4], 2, NormOptions::layer())).unwrap();
    refused!(context.block_on(in_groups.infer(x.in_segments(&segments))), Error::Unsupported { .. });

    // A backward pass has the segments that forward had, not others like them, or none.
    let (_, saved) = context.block_on(graph.forward(x.in_segments(&segments))).unwrap();
    let again = context.block_on(Segments::of_lengths(&context, &[2, 3])).unwrap();
    refused!(
        context.block_on(graph.backward(x.in_segments(&again), &y, &saved)),
        Error::Unsupported { what: "segments", .. }
    );
    context.block_on(graph.backward(x.in_segments(&segments.clone()), &y, &saved)).unwrap();
    let (_, of_rows) = context.block_on(instance.forward(x.in_segments(&segments))).unwrap();
    refused!(
        context.block_on(graph.backward(x.in_segments(&segments), &y, &of_rows)),
        Error::Unsupported { .. }
    );
    let jvp = context.block_on(instance.jvp(x.in_segments(&segments), &of_rows, &Tangents::of_x(&x)));
    refused!(jvp, Error::Unsupported { .. });
    let alpha = zeros(&context, &[3]);
    refused!(
        GraphNorm::from_parts(&context, 4, NormOptions::graph(), None, None, alpha),
        Error::Shape { what: "alpha", .. }
    );
    let wrong = GradientTargets::default().dalpha(&y);
    refused!(
        context.block_on(graph.prepare_backward(x.in_segments(&segments), &y, &saved, &wrong)),
        Error::Shape { what: "dalpha", .. }
    );
}

#[test]
fn passes_and_statistics() {
    let context = context();
    let (x, y) = (upload(&context, &[64, 8], &values(512)), zeros(&context, &[64, 8]));
    let segments = context.block_on(Segments::of_lengths(&context, &[0, 40, 24])).unwrap();
    let layer = context.block_on(GroupNorm::new(&context, 2, 8, NormOptions::group())).unwrap();
    let saved = context.block_on(layer.room_for(x.in_segments(&segments))).unwrap();
    let forward =
        context.block_on(layer.prepare_forward(x.in_segments(&segments), &y, Some(&saved))).unwrap();
    let bytes = x.byte_len();
    assert_eq!((forward.traffic().floor_bytes, forward.traffic().plan_bytes), (2 * bytes, 3 * bytes));
    context.block_on(context.submit(&[&forward])).unwrap();
    let targets = GradientTargets::default().dx(&y);
    let backward =
        context.block_on(layer.prepare_backward(x.in_segments(&segments), &x, &saved, &targets)).unwrap();
    assert_eq!((backward.traffic().floor_bytes, backward.traffic().plan_bytes), (3 * bytes, 5 * bytes));
    // Two groups of each of three segments, of which the first has none.
    let statistics = context.block_on(saved.download(&context)).unwrap();
    assert_eq!(statistics.len(), 6);
    assert!(statistics[0].inv_std.is_nan() && statistics[0].count == 0.0);
    let of_group: Vec<f64> =
        values(512)[..320].chunks(8).flat_map(|row| &row[4..]).map(|&x| x.into()).collect();
    let mean = of_group.iter().sum::<f64>() / of_group.len() as f64;
    assert!((statistics[3].mean() - mean).abs() < 1e-6);
    // The plan is that of the walk, whatever is folded behind it.
    let (graph, all) = (context.block_on(GraphNorm::new(&context, 8, NormOptions::graph())).unwrap(), &y);
    let (_, of_graph) = context.block_on(graph.forward(x.in_segments(&segments))).unwrap();
    let dalpha = zeros(&context, &[8]);
    let targets = GradientTargets::default().dx(all).dalpha(&dalpha);
    let with_alpha =
        context.block_on(graph.prepare_backward(x.in_segments(&segments), &x, &of_graph, &targets)).unwrap();
    assert_eq!(with_alpha.plan(), backward.plan());
    let nothing = context.block_on(Segments::of_offsets(&context, &[0])).unwrap();
    let empty = zeros(&context, &[0, 8]);
    assert_eq!(context.block_on(layer.infer(empty.in_segments(&nothing))).unwrap().shape().dims(), [0, 8]);
}
