//! Memory: inputs that stay, buffers that are shared, overlaps that are refused, scratch that is dirty, bits that repeat.

use wgnorm::statistics::Moments;
use wgnorm::tuning::prepare_copy;
use wgnorm::{
    BatchNorm, BatchNormOptions, Context, Error, FrozenBatchNorm, GradientTargets, Layout, Prepared, Result,
    RunningStatistics, Saved, Tensor,
};

use crate::support::*;

const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();
/// Runs in and out of fours, columns in and out of fours; a phase for each; the third has more elements than one
/// workgroup walks at once.
const CASES: [(Layout, &[usize], usize); 5] = [
    (Layout::ChannelsFirst, &[2, 3, 4, 6], 0),
    (Layout::ChannelsFirst, &[3, 5, 7], 3),
    (Layout::ChannelsFirst, &[2, 3, 40, 40], 1),
    (Layout::ChannelsLast, &[3, 4, 7], 1),
    (Layout::ChannelsLast, &[5, 3, 2, 4], 2),
];

fn cases(seed: u64) -> impl Iterator<Item = Inputs> {
    CASES.into_iter().map(move |(layout, dims, offset)| Inputs { offset, ..Inputs::of(seed, dims, layout) })
}

/// The tensors of a layer by name, wherever they lie.
struct Tensors(Vec<(&'static str, Tensor)>);

/// What lies between tensors of one buffer.
const GAP: f32 = 1234.5;

const NAMES: [&str; 8] = ["x", "dy", "gamma", "beta", "y", "dx", "dgamma", "dbeta"];

fn is_per_channel(name: &str) -> bool {
    !["x", "dy", "y", "dx"].contains(&name)
}

fn shape_of(name: &str, inputs: &Inputs) -> Vec<usize> {
    if is_per_channel(name) { vec![inputs.channels()] } else { inputs.dims.clone() }
}

fn layout_of(name: &str, inputs: &Inputs) -> Layout {
    if is_per_channel(name) { Layout::ChannelsFirst } else { inputs.layout }
}

/// Values of the inputs, NaN for the outputs.
fn initial(name: &str, inputs: &Inputs) -> Vec<f32> {
    match name {
        "x" => inputs.x.clone(),
        "dy" => inputs.dy.clone(),
        "gamma" => inputs.gamma.clone().unwrap(),
        "beta" => inputs.beta.clone().unwrap(),
        _ => vec![f32::NAN; shape_of(name, inputs).iter().product()],
    }
}

impl Tensors {
    /// Each in a buffer of its own.
    fn apart(context: &Context, inputs: &Inputs) -> Self {
        let tensor = |name| {
            let values = initial(name, inputs);
            upload(context, &shape_of(name, inputs), &values).with_layout(layout_of(name, inputs))
        };
        Self(NAMES.map(|name| (name, tensor(name))).into())
    }

    /// All in one buffer, each `offset` elements after a multiple of 256 bytes, every second one `skew` more.
    fn together(context: &Context, inputs: &Inputs, skew: usize) -> Self {
        let (mut content, mut offsets) = (Vec::new(), Vec::new());
        for (i, name) in NAMES.into_iter().enumerate() {
            content.resize(content.len() + inputs.offset + i % 2 * skew, GAP);
            offsets.push(4 * content.len() as u64);
            content.extend(initial(name, inputs));
            content.resize(content.len().next_multiple_of(64), GAP);
        }
        let whole = exact_buffer(context, &content);
        let part = |(name, offset)| {
            let shape = shape_of(name, inputs);
            let tensor = Tensor::from_buffer(context, whole.clone(), offset, &shape).unwrap();
            (name, tensor.with_layout(layout_of(name, inputs)))
        };
        Self(NAMES.into_iter().zip(offsets).map(part).collect())
    }

    /// Fails unless everything between the tensors of one buffer is as it was.
    fn assert_gaps(&self, context: &Context, what: &str) {
        let all = download_buffer(context, self.0[0].1.buffer());
        let mut at = 0;
        let begins = self.0.iter().map(|(_, tensor)| tensor.byte_offset() as usize / 4);
        let lens = self.0.iter().map(|(_, tensor)| tensor.shape().len() as usize);
        for (begin, len) in begins.zip(lens).chain([(all.len(), 0)]) {
            assert!(all[at..begin].iter().all(|&v| v == GAP), "{what}: values before {begin} changed");
            at = begin + len;
        }
    }

    fn get(&self, name: &str) -> &Tensor {
        &self.0.iter().find(|(n, _)| *n == name).unwrap().1
    }

    fn set(&mut self, name: &str, tensor: Tensor) {
        self.0.iter_mut().find(|(n, _)| *n == name).unwrap().1 = tensor;
    }

    fn targets(&self, names: &[&str]) -> GradientTargets<'_> {
        let get = |name| names.contains(&name).then(|| self.get(name));
        GradientTargets::default().dx(get("dx")).dgamma(get("dgamma")).dbeta(get("dbeta"))
    }

    fn outputs(&self, context: &Context) -> Outputs {
        let get = |name| download(context, self.get(name));
        Outputs { y: get("y"), dx: get("dx"), dgamma: Some(get("dgamma")), dbeta: Some(get("dbeta")) }
    }
}

fn layer_of(context: &Context, inputs: &Inputs, tensors: &Tensors) -> BatchNorm {
    let running = context.block_on(RunningStatistics::upload(context, &inputs.running)).unwrap();
    let (gamma, beta) = (tensors.get("gamma").clone(), tensors.get("beta").clone());
    BatchNorm::from_parts(context, OPTIONS, Some(gamma), Some(beta), running).unwrap()
}

/// Forward and backward of a training layer over these tensors.
async fn prepare_training(
    context: &Context,
    layer: &BatchNorm,
    tensors: &Tensors,
    targets: &[&str],
) -> Result<(Prepared, Prepared)> {
    let (x, y) = (tensors.get("x"), tensors.get("y"));
    let saved = Saved::new(context, x).await?;
    let forward = layer.prepare_train_forward_untracked(x, y, Some(&saved)).await?;
    let backward = layer.prepare_backward(x, tensors.get("dy"), &saved, &tensors.targets(targets)).await?;
    Ok((forward, backward))
}

async fn prepare_frozen(
    layer: &FrozenBatchNorm,
    tensors: &Tensors,
    targets: &[&str],
) -> Result<(Prepared, Prepared)> {
    let x = tensors.get("x");
    let forward = layer.prepare_infer(x, tensors.get("y")).await?;
    let backward = layer.prepare_backward(x, tensors.get("dy"), &tensors.targets(targets)).await?;
    Ok((forward, backward))
}

const GRADIENTS: [&str; 3] = ["dx", "dgamma", "dbeta"];

#[test]
fn inputs_stay_as_they_are_in_buffers_shared_or_not() {
    for (name, context) in few_contexts() {
        for inputs in cases(1) {
            let expected = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS));
            assert_train(name, &inputs, 1e-5, &expected);
            let expected_frozen = frozen(&context, &inputs, OPTIONS);
            for skew in [0, 4] {
                let tensors = Tensors::together(&context, &inputs, skew);
                let what = format!("{} {:?} {name} skew {skew}", inputs.layout, inputs.dims);
                let layer = layer_of(&context, &inputs, &tensors);
                context.block_on(async {
                    let (forward, backward) =
                        prepare_training(&context, &layer, &tensors, &GRADIENTS).await.unwrap();
                    context.submit(&[&forward, &backward]).await.unwrap();
                });
                assert_same(&what, &tensors.outputs(&context), &expected);
                let layer = layer.freeze();
                context.block_on(async {
                    let (forward, backward) = prepare_frozen(&layer, &tensors, &GRADIENTS).await.unwrap();
                    context.submit(&[&forward, &backward]).await.unwrap();
                    Moments::of(&context, tensors.get("x")).await.unwrap();
                });
                assert_same(&what, &tensors.outputs(&context), &expected_frozen);
                tensors.assert_gaps(&context, &what);
                for input in ["x", "dy", "gamma", "beta"] {
                    let got = download(&context, tensors.get(input));
                    assert_eq!(bits(&got), bits(&initial(input, &inputs)), "{what}: {input}");
                }
            }
        }
    }
}

#[test]
fn tensors_of_one_buffer_may_begin_at_different_elements() {
    let context = context();
    for inputs in cases(1) {
        for skew in 1..4 {
            let what = format!("{} {:?} skew {skew}", inputs.layout, inputs.dims);
            let tensors = Tensors::together(&context, &inputs, skew);
            let layer = layer_of(&context, &inputs, &tensors);
            context.block_on(async {
                let (forward, backward) =
                    prepare_training(&context, &layer, &tensors, &GRADIENTS).await.unwrap();
                context.submit(&[&forward, &backward]).await.unwrap();
            });
            assert_train(&what, &inputs, 1e-5, &tensors.outputs(&context));
            let layer = layer.freeze();
            context.block_on(async {
                let (forward, backward) = prepare_frozen(&layer, &tensors, &GRADIENTS).await.unwrap();
                context.submit(&[&forward, &backward]).await.unwrap();
            });
            assert_frozen(&what, &inputs, 1e-5, &tensors.outputs(&context));
            tensors.assert_gaps(&context, &what);
        }
    }
}

#[test]
fn shared_buffers_serve_layers_without_parameters() {
    for (name, context) in few_contexts() {
        let inputs = Inputs::new(2, &[3, 5, 4, 4]);
        let tensors = Tensors::together(&context, &inputs, 0);
        let bare = Inputs { gamma: None, beta: None, ..inputs };
        let layer = bare.layer(&context, OPTIONS);
        context.block_on(async {
            let (forward, backward) = prepare_training(&context, &layer, &tensors, &["dx"]).await.unwrap();
            context.submit(&[&forward, &backward]).await.unwrap();
        });
        let expected = train(&context, &bare, &mut bare.layer(&context, OPTIONS));
        assert_eq!(bits(&download(&context, tensors.get("y"))), bits(&expected.y), "{name}");
        assert_eq!(bits(&download(&context, tensors.get("dx"))), bits(&expected.dx), "{name}");
    }
}

#[test]
fn inputs_may_be_one_tensor() {
    let context = context();
    let mut inputs = Inputs::new(3, &[2, 3, 4, 6]);
    inputs.dy = inputs.x.clone();
    inputs.beta = inputs.gamma.clone();
    let mut tensors = Tensors::apart(&context, &inputs);
    for (twin, name) in [("x", "dy"), ("gamma", "beta")] {
        tensors.set(name, tensors.get(twin).clone());
    }
    let layer = layer_of(&context, &inputs, &tensors);
    context.block_on(async {
        let (forward, backward) = prepare_training(&context, &layer, &tensors, &GRADIENTS).await.unwrap();
        context.submit(&[&forward, &backward]).await.unwrap();
    });
    assert_train("twins", &inputs, 1e-5, &tensors.outputs(&context));
}

/// What an operation reads and writes.
const OPERATIONS: [(&str, &[&str], &[&str]); 8] = [
    ("train forward", &["x", "gamma", "beta"], &["y"]),
    ("train backward", &["x", "dy"], &["dx", "dgamma", "dbeta"]),
    ("train backward", &["x", "dy"], &["dgamma", "dbeta"]),
    ("inference", &["x", "gamma", "beta"], &["y"]),
    ("frozen backward", &["x", "dy", "gamma"], &["dx", "dgamma", "dbeta"]),
    ("frozen backward", &["x", "dy"], &["dgamma", "dbeta"]),
    ("frozen backward", &["dy", "gamma"], &["dx"]),
    ("copy", &["x"], &["y"]),
];

/// Prepares an operation over tensors of which two share a buffer, the second `begin` words into it.
fn prepare_pair(
    context: &Context,
    inputs: &Inputs,
    (operation, writes): (&str, &[&str]),
    (first, second): (&'static str, &'static str),
    begin: usize,
) -> Result<()> {
    let mut tensors = Tensors::apart(context, inputs);
    let words = 2 * begin + inputs.x.len();
    let whole = upload(context, &[words], &values(5, words, 0.0, 1.0));
    for (name, offset) in [(first, 0), (second, 4 * begin as u64)] {
        let shape = shape_of(name, inputs);
        tensors.set(name, Tensor::from_buffer(context, whole.buffer().clone(), offset, &shape).unwrap());
    }
    let layer = layer_of(context, inputs, &tensors);
    let (x, y, dy) = (tensors.get("x"), tensors.get("y"), tensors.get("dy"));
    context.block_on(async {
        match operation {
            "train forward" => drop(layer.prepare_train_forward_untracked(x, y, None).await?),
            "train backward" => {
                let saved = Saved::new(context, x).await?;
                drop(layer.prepare_backward(x, dy, &saved, &tensors.targets(writes)).await?);
            }
            "inference" => drop(layer.freeze().prepare_infer(x, y).await?),
            "frozen backward" => {
                drop(layer.freeze().prepare_backward(x, dy, &tensors.targets(writes)).await?);
            }
            _ => drop(prepare_copy(context, x, y).await?),
        }
        Ok(())
    })
}

/// All pairs of what an operation touches, and whether one of them is written.
fn pairs(reads: &[&'static str], writes: &[&'static str]) -> Vec<(&'static str, &'static str, bool)> {
    let all: Vec<_> = reads.iter().chain(writes).copied().collect();
    let mut pairs = Vec::new();
    for (i, &first) in all.iter().enumerate() {
        pairs.extend(all.iter().skip(i + 1).map(|&second| (first, second, writes.contains(&second))));
    }
    pairs
}

#[test]
fn overlaps_are_refused_if_one_is_written() {
    let context = context();
    let inputs = Inputs::new(4, &[2, 3, 7]);
    let mut wrong = Vec::new();
    for (operation, reads, writes) in OPERATIONS {
        for (first, second, written) in pairs(reads, writes) {
            for begin in [0, 1] {
                let got = prepare_pair(&context, &inputs, (operation, writes), (first, second), begin);
                // The very same tensor is in place, where an operation can be.
                let in_place = begin == 0
                    && operation != "copy"
                    && [("x", "y"), ("dy", "dx")].contains(&(first, second));
                let right = match &got {
                    Err(Error::Overlap { first: a, second: b, .. }) => {
                        written && [(first, second), (second, first)].contains(&(a, b))
                    }
                    Ok(()) => !written || in_place,
                    Err(_) => false,
                };
                if !right {
                    wrong.push(format!("{operation} {writes:?}: {first} and {second} by {begin}: {got:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tensors_within_one_block_of_bindings_are_refused() {
    let context = context();
    let inputs = Inputs::new(4, &[2, 3, 7]);
    let alignment = context.capabilities().storage_alignment as usize;
    for (operation, reads, writes) in OPERATIONS {
        for (first, second) in [("x", "y"), ("gamma", "y"), ("dy", "dx"), ("dx", "dy"), ("dgamma", "dbeta")] {
            if ![first, second].iter().all(|name| reads.contains(name) || writes.contains(name)) {
                continue;
            }
            let words = shape_of(first, &inputs).iter().product::<usize>();
            assert_ne!(4 * words % alignment, 0);
            let got = prepare_pair(&context, &inputs, (operation, writes), (first, second), words);
            match got {
                Err(Error::SharedBlock { first: a, second: b, alignment: of }) => {
                    assert!([(first, second), (second, first)].contains(&(a, b)), "{a} and {b}");
                    assert_eq!(of, alignment as u64);
                }
                got => panic!("{operation}: {first} and {second}: {got:?}"),
            }
            // At the start of the next block they may.
            let words = words.next_multiple_of(alignment / 4);
            prepare_pair(&context, &inputs, (operation, writes), (first, second), words).unwrap();
        }
    }
}

#[test]
fn an_operation_run_again_on_other_data_is_as_new() {
    for (name, context) in few_contexts() {
        for first in cases(6) {
            // As uploaded.
            let first = Inputs { offset: 0, ..first };
            let dims = &first.dims;
            let tensors = Tensors::apart(&context, &first);
            let layer = layer_of(&context, &first, &tensors);
            let (forward, backward) =
                context.block_on(prepare_training(&context, &layer, &tensors, &GRADIENTS)).unwrap();
            let layer = layer.freeze();
            let (infer, tune) = context.block_on(prepare_frozen(&layer, &tensors, &GRADIENTS)).unwrap();
            let other = Inputs {
                x: values(60, first.x.len(), -9.0, 3.0),
                dy: values(61, first.x.len(), 0.0, 5.0),
                ..first.clone()
            };
            // NaN last leaves every partial result NaN.
            let nan = Inputs { x: vec![f32::NAN; first.x.len()], ..first.clone() };
            for (step, inputs) in [&first, &other, &nan, &first, &nan, &other].into_iter().enumerate() {
                for (tensor, values) in [("x", &inputs.x), ("dy", &inputs.dy)] {
                    context.queue().write_buffer(tensors.get(tensor).buffer(), 0, &bytes(values));
                }
                let what = format!("{dims:?} {name} step {step}");
                submit(&context, &[&forward, &backward]);
                let got = tensors.outputs(&context);
                if inputs.x[0].is_nan() {
                    assert!(got.y.iter().chain(&got.dx).all(|v| v.is_nan()), "{what}");
                } else {
                    let fresh = train(&context, inputs, &mut inputs.layer(&context, OPTIONS));
                    assert_same(&what, &got, &fresh);
                }
                submit(&context, &[&infer, &tune]);
                if !inputs.x[0].is_nan() {
                    assert_same(&what, &tensors.outputs(&context), &frozen(&context, inputs, OPTIONS));
                }
            }
        }
    }
}

#[test]
fn an_operation_recorded_twice_in_one_encoder_is_right() {
    for (name, context) in few_contexts() {
        let inputs = Inputs::new(7, &[3, 5, 4, 6]);
        let tensors = Tensors::apart(&context, &inputs);
        let layer = layer_of(&context, &inputs, &tensors);
        let (forward, backward) =
            context.block_on(prepare_training(&context, &layer, &tensors, &GRADIENTS)).unwrap();
        let mut encoder = context.device().create_command_encoder(&Default::default());
        forward.record(&mut encoder);
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for prepared in [&forward, &backward, &forward, &backward] {
            prepared.record_in(&mut pass);
        }
        drop(pass);
        backward.record(&mut encoder);
        context.queue().submit([encoder.finish()]);
        let expected = train(&context, &inputs, &mut inputs.layer(&context, OPTIONS));
        assert_same(name, &tensors.outputs(&context), &expected);
    }
}

#[test]
fn what_is_recorded_or_handed_out_outlives_its_tensors() {
    let context = context();
    let x: Vec<f32> = (0..48).map(|i| (i * 7 % 11) as f32).collect();
    let layer = context.block_on(BatchNorm::new(&context, 3, OPTIONS)).unwrap().freeze();
    let expected = {
        let x = upload(&context, &[2, 3, 8], &x);
        download(&context, &context.block_on(layer.infer(&x)).unwrap())
    };
    // An operation is bound to tensors that are gone, one of which the application has asked for.
    let (prepared, y) = {
        let (x, y) = (upload(&context, &[2, 3, 8], &x), zeros(&context, &[2, 3, 8]));
        let buffer = y.buffer().clone();
        (context.block_on(layer.prepare_infer(&x, &y)).unwrap(), buffer)
    };
    context.block_on(context.submit(&[&prepared])).unwrap();
    let read = |buffer: &wgpu::Buffer| {
        let tensor = Tensor::from_buffer(&context, buffer.clone(), 0, &[2, 3, 8]).unwrap();
        download(&context, &tensor)
    };
    assert_eq!(read(&y), expected);
    // It is gone as well when what was recorded of it is submitted.
    context.queue().write_buffer(&y, 0, &[0; 4 * 48]);
    let mut encoder = context.device().create_command_encoder(&Default::default());
    prepared.record(&mut encoder);
    drop((prepared, layer));
    context.queue().submit([encoder.finish()]);
    assert_eq!(read(&y), expected);
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    for (name, context) in few_contexts() {
        for inputs in cases(8) {
            let dims = &inputs.dims;
            let run = || {
                let mut layer = inputs.layer(&context, OPTIONS);
                let got = train(&context, &inputs, &mut layer);
                (got, running_bits(&download_running(&context, layer.running())))
            };
            let (first, running) = run();
            let first_frozen = frozen(&context, &inputs, OPTIONS);
            for again in 1..5 {
                let what = format!("{dims:?} {name} run {again}");
                let (got, got_running) = run();
                assert_same(&what, &got, &first);
                assert_eq!(got_running, running, "{what}");
                assert_same(&what, &frozen(&context, &inputs, OPTIONS), &first_frozen);
            }
        }
    }
}

#[test]
fn a_copy_is_exact() {
    for (name, context) in contexts() {
        for dims in [&[1][..], &[2], &[3], &[4], &[7], &[64], &[5, 3], &[1001], &[100_001], &[2, 3, 40, 40]] {
            for offset in 0..4 {
                let mut x = values(9, dims.iter().product(), 0.0, 1e30);
                x[0] = f32::NAN;
                let what = format!("{dims:?} {name} offset {offset}");
                // In the same phase, in another one, and up to the end of a buffer.
                for (shift, tail) in [(0, GUARD), (1, GUARD), (0, 0), (0, 1)] {
                    if tail < GUARD && x.len() > 1001 {
                        continue;
                    }
                    let place = Place { tail, ..Place::at(offset) };
                    let y = Place { offset: offset + shift, ..place }.poisoned(&context, dims);
                    let tensor = place.placed(&context, dims, &x);
                    let copy = context.block_on(prepare_copy(&context, &tensor, &y)).unwrap();
                    submit(&context, &[&copy]);
                    let got = download_guarded(&context, &y);
                    assert_eq!(bits(&got), bits(&x), "{what} shift {shift} tail {tail}");
                }
            }
        }
    }
}
