//! Recipes as data: they come back from text as they were, and run as the layer that they are of, to the bit.

use std::collections::BTreeMap;

use wgnorm::eval::{Draw, Operands, Problem};
use wgnorm::recipe::{Recipe, Source};
use wgnorm::spec::Passes;
use wgnorm::tuning::{Capabilities, ShaderChecks};
use wgnorm::{Context, ContextOptions, Error, Spec, Tensor};

use crate::support::*;

const LINES: [&str; 26] = [
    "batch 2x3x16x16 relu residual backward",
    "batch 6x20 f16 backward",
    "batch 3x5x7x5 backward splits=3",
    "batch 2x4x6x6 renorm=1.5,0.5 backward",
    "batch 4x3x5x5 in_place leaky_relu backward",
    "frozen 2x3x5x5 gelu backward",
    "layer 24x64 backward",
    "layer 24x7 sum backward",
    "layer 24x7 sum in_place backward",
    "group:2 2x6x5x5 relu residual backward",
    "rms 16x40 modulated backward",
    "instance 3x4x9 backward",
    "derf 8x32 backward",
    "layer 2x12x7 axes=1 relu residual backward",
    "layer 3x5x4x6 axes=3,1 backward",
    "rms 7x4x10 affine=both axes=2,1 backward",
    "layer 6x20 mask=3 backward",
    "spectral 12x20 backward",
    "layer 5x37 silu second",
    "frozen 3x4x7x5 last f16 gelu second",
    "spectral_u:1 4x6x3x3 bf16 backward",
    "rms 8x40 bf16 gate=first backward",
    "rms 6x32 sum int8",
    "batch 2x3x5x7 last bf16 residual relu in_place backward",
    "batch 2x4x6x6 last relu backward",
    "frozen 3x5x7 f16 last residual gelu backward",
];

/// Bytes in a buffer; the crate's tensors are of whole words.
async fn upload(context: &Context, bytes: &[u8]) -> Tensor {
    let words: Vec<f32> = bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect();
    context.upload(&[words.len()], &words).await.unwrap()
}

/// Runs a recipe on tensors by name, to which it adds those that it writes, and returns what it has left.
async fn run(context: &Context, recipe: &Recipe, tensors: &mut BTreeMap<String, Tensor>) -> Operands {
    for operand in &recipe.operands {
        if !tensors.contains_key(&operand.name) {
            let nans = vec![0xFF; operand.bytes.next_multiple_of(4) as usize];
            tensors.insert(operand.name.clone(), upload(context, &nans).await);
        }
    }
    let whole = |operand: &wgnorm::recipe::Operand| wgpu::BufferBinding {
        buffer: tensors[&operand.name].buffer(),
        offset: 0,
        size: None,
    };
    let buffers: Vec<_> = recipe.operands.iter().map(whole).collect();
    let prepared = recipe.prepare(context, &buffers).await.unwrap();
    assert_eq!(prepared.traffic().plan_bytes, recipe.plan_bytes);
    context.submit(&[&prepared]).await.unwrap();
    let mut left = Operands::new();
    for operand in recipe.operands.iter().filter(|operand| operand.written) {
        let values = context.download(&tensors[&operand.name]).await.unwrap();
        left.insert(operand.name.clone(), values.iter().flat_map(|value| value.to_le_bytes()).collect());
    }
    left
}

#[test]
fn recipes_run_as_their_layers() {
    // As recipes are compiled: a compiler may contract what it checks otherwise.
    let options = ContextOptions::default().shader_checks(ShaderChecks::Checked);
    let context = pollster::block_on(Context::headless_with(&options)).unwrap();
    for line in LINES {
        let spec: Spec = line.parse().unwrap();
        let recipes = spec.recipes(context.capabilities()).unwrap();
        let text = serde_json::to_string(&recipes).unwrap();
        let recipes: wgnorm::recipe::Recipes = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&recipes).unwrap(), text, "{line}");
        assert_eq!(recipes, spec.recipes(context.capabilities()).unwrap(), "{line}");

        let problem = Problem::new(&spec, &Draw::default()).unwrap();
        let outcome = context.block_on(problem.run(&context));
        assert!(outcome.passes(), "{line}: {:?}", outcome.failures());
        let left = context.block_on(async {
            let mut tensors = BTreeMap::new();
            for (name, bytes) in problem.operands() {
                tensors.insert(name, upload(&context, &bytes).await);
            }
            let forward = run(&context, &recipes.forward, &mut tensors).await;
            let backward = match &recipes.backward {
                Some(backward) => Some(run(&context, backward, &mut tensors).await),
                None => None,
            };
            (forward, backward)
        });
        let mut outputs = problem.forward_outputs(&left.0);
        let mut held = vec![problem.hold_forward(&left.0)];
        assert_eq!(left.1.is_some(), spec.passes != Passes::Forward, "{line}");
        if let Some(backward) = &left.1 {
            outputs.extend(problem.backward_outputs(backward));
            held.push(problem.hold_backward(backward));
            // What is missing is told.
            assert!(!problem.hold_backward(&Operands::new()).passes());
        }
        for held in held {
            assert!(held.passes(), "{line}: {:?}", held.failures());
        }
        for (name, got) in outputs {
            let (_, of_layer) = outcome.outputs.iter().find(|(other, _)| *other == name).unwrap();
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&got), bits(of_layer), "{line}: {name}");
        }
    }
}

#[test]
fn recipes_are_those_of_the_device_that_is_asked_for() {
    let spec: Spec = "batch 8x64x28x28 backward".parse().unwrap();
    let mut narrow = Capabilities::webgpu();
    narrow.max_binding_bytes = 1 << 20;
    let [whole, narrow] =
        [Capabilities::webgpu(), narrow].map(|device| spec.recipes(&device).unwrap().forward);
    assert!(narrow.dispatches.len() > whole.dispatches.len());
    for recipe in [whole, narrow] {
        let bindings = recipe.dispatches.iter().flat_map(|dispatch| &dispatch.bindings);
        let aligned = |source: Source, offset: u64| source == Source::Uniforms || offset.is_multiple_of(256);
        assert!(bindings.clone().all(|binding| aligned(binding.source, binding.offset)));
        assert!(recipe.operands.iter().any(|operand| operand.name == "y" && operand.written));
        assert!(recipe.operands.iter().any(|operand| operand.name == "x" && !operand.written));
    }
}

#[test]
fn recipes_that_cannot_be_run_are_refused() {
    let context = context();
    let spec: Spec = "layer 4x8".parse().unwrap();
    let recipe = spec.recipes(context.capabilities()).unwrap().forward;
    let x = zeros(&context, &[4, 8]);
    let whole = wgpu::BufferBinding { buffer: x.buffer(), offset: 0, size: None };
    let refuse = |recipe: &Recipe, buffers: Vec<wgpu::BufferBinding<'_>>| {
        context.block_on(recipe.prepare(&context, &buffers)).unwrap_err()
    };
    let all = vec![whole.clone(); recipe.operands.len()];
    assert!(matches!(refuse(&recipe, vec![]), Error::Number { got: 0, .. }));
    let misaligned = wgpu::BufferBinding { offset: 4, ..whole.clone() };
    assert!(matches!(refuse(&recipe, vec![misaligned; all.len()]), Error::Misaligned { .. }));
    let small = zeros(&context, &[1]);
    let small = wgpu::BufferBinding { buffer: small.buffer(), offset: 0, size: None };
    assert!(matches!(refuse(&recipe, vec![small; all.len()]), Error::BufferTooSmall { .. }));
    for broken in [
        |recipe: &mut Recipe| recipe.dispatches[0].kernel = 99,
        |recipe: &mut Recipe| recipe.dispatches[0].bindings[1].source = Source::Operand(99),
        |recipe: &mut Recipe| recipe.dispatches[0].bindings[1].source = Source::Scratch(99),
        |recipe: &mut Recipe| recipe.dispatches[0].bindings[1].bytes = 1 << 40,
        |recipe: &mut Recipe| recipe.dispatches[0].bindings[1].offset = u64::MAX,
        |recipe: &mut Recipe| {
            let binding = &mut recipe.dispatches[0].bindings[1];
            (binding.number, binding.source) = (99, Source::Nothing { written: true });
        },
    ] {
        let mut recipe = recipe.clone();
        broken(&mut recipe);
        assert!(matches!(refuse(&recipe, all.clone()), Error::Recipe { .. }));
    }
    let mut nonsense = recipe.clone();
    nonsense.kernels[0].wgsl = "fn".to_owned();
    assert!(matches!(refuse(&nonsense, all), Error::Validation { .. }));
    for line in [
        "batch 8x3x4x4 ghost=2",
        "batch 8x3x4x4 given",
        "tracked 2x3x4",
        "switchable 2x3x4",
        "instance 8x4 segments=3,5",
        "graph 8x4",
    ] {
        let several: Spec = line.parse().unwrap();
        assert!(matches!(several.recipes(context.capabilities()), Err(Error::Spec { .. })), "{line}");
    }
    for broken in [
        |capabilities: &mut Capabilities| capabilities.max_workgroup_bytes = 0,
        |capabilities: &mut Capabilities| capabilities.max_workgroup_size = 0,
        |capabilities: &mut Capabilities| capabilities.max_loop_iterations = 0,
        |capabilities: &mut Capabilities| capabilities.storage_alignment = 0,
        |capabilities: &mut Capabilities| capabilities.storage_alignment = 24,
        |capabilities: &mut Capabilities| capabilities.max_binding_bytes = 0,
    ] {
        let mut capabilities = Capabilities::webgpu();
        broken(&mut capabilities);
        let refused = spec.recipes(&capabilities);
        assert!(matches!(refused, Err(Error::MissingCapability { .. })), "{capabilities:?}: {refused:?}");
    }
}
