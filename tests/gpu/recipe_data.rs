//! Recipes as data: they come back from text as they were, and run as the layer that they are of, to the bit.

use std::collections::BTreeMap;

use wgnorm::eval::{Draw, Problem};
use wgnorm::recipe::{Recipe, Source};
use wgnorm::spec::{Norm, Passes};
use wgnorm::tuning::{Capabilities, ShaderChecks};
use wgnorm::{Context, ContextOptions, Error, Spec, Tensor};

use crate::support::*;

const LINES: [&str; 16] = [
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
];

/// The tensors of a problem by the names that a recipe has for them.
async fn tensors(context: &Context, problem: &Problem) -> BTreeMap<String, Tensor> {
    let Problem { spec, inputs, .. } = problem;
    let mut tensors = BTreeMap::new();
    let walked = [
        ("x", Some(&inputs.x)),
        ("residual", inputs.residual.as_ref()),
        ("addend", inputs.addend.as_ref()),
        ("dy", inputs.dy.as_ref()),
        ("d_sum", inputs.d_sum.as_ref()),
    ];
    let parameters = [("gamma", inputs.gamma.as_ref()), ("beta", inputs.beta.as_ref())];
    for (of, values, shape, dtype) in walked
        .iter()
        .map(|(of, values)| (*of, *values, spec.shape.clone(), spec.dtype))
        .chain(parameters.iter().map(|(of, values)| (*of, *values, spec.parameter_shape(), spec.parameters)))
    {
        if let Some(values) = values {
            tensors.insert(of.to_owned(), context.upload_as(&shape, values, dtype).await.unwrap());
        }
    }
    for (of, value) in [("alpha", inputs.alpha), ("shift", inputs.shift)] {
        tensors.insert(of.to_owned(), context.upload(&[1], &[value]).await.unwrap());
    }
    let (running, channels) = (&inputs.running, inputs.running.mean.len());
    if channels > 0 {
        let batches = vec![f32::from_bits(running.batches); channels];
        let words = [&running.mean[..], &running.var, &batches].concat();
        let state = context.upload(&[3, channels], &words).await.unwrap();
        tensors.insert("running statistics".to_owned(), state);
    }
    for of in ["y", "sum", "dx", "d_residual"] {
        let room = context.upload_as(&spec.shape, &vec![f32::NAN; inputs.x.len()], spec.dtype).await;
        tensors.insert(of.to_owned(), room.unwrap());
    }
    for of in ["dgamma", "dbeta"] {
        let len = spec.parameter_shape().iter().product();
        let room = context.upload_as(&spec.parameter_shape(), &vec![f32::NAN; len], spec.parameters).await;
        tensors.insert(of.to_owned(), room.unwrap());
    }
    tensors
}

async fn run(context: &Context, recipe: &Recipe, tensors: &mut BTreeMap<String, Tensor>) {
    for operand in &recipe.operands {
        if !tensors.contains_key(&operand.name) {
            let room = context.zeros(&[operand.bytes.div_ceil(4) as usize]).await.unwrap();
            tensors.insert(operand.name.clone(), room);
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
        context.block_on(async {
            let mut tensors = tensors(&context, &problem).await;
            run(&context, &recipes.forward, &mut tensors).await;
            // Where y is written over x, or the sum over the addend, that is one operand, with the name of the first.
            let y = if tensors_hold(&recipes.forward, "y") { "y" } else { "x" };
            let mut names = vec![("y", y)];
            if spec.passes == Passes::Backward {
                assert_eq!(context.download(&tensors[y]).await.unwrap(), outcome.output("y"), "{line}");
                names.clear();
                let backward = recipes.backward.as_ref().unwrap();
                run(&context, backward, &mut tensors).await;
                let over = ["dx", "d_sum", "dy"].into_iter().find(|name| tensors_hold(backward, name));
                let dx = over.expect("dx");
                names.push(("dx", dx));
                for (output, of) in
                    [("dweight", "dgamma"), ("dbias", "dbeta"), ("dalpha", "dalpha"), ("dshift", "dshift")]
                {
                    if tensors_hold(backward, of) {
                        names.push((output, of));
                    }
                }
                if spec.norm != Norm::Derf {
                    assert!(names.len() > 2 || !line.contains("batch"), "{line}: {names:?}");
                }
            }
            for (output, of) in names {
                let got = context.download(&tensors[of]).await.unwrap();
                assert_eq!(got, outcome.output(output), "{line}: {output}");
            }
        });
    }
}

fn tensors_hold(recipe: &Recipe, name: &str) -> bool {
    recipe.operands.iter().any(|operand| operand.name == name)
}

/// What an outcome has of an output.
trait Outputs {
    fn output(&self, name: &str) -> Vec<f32>;
}

impl Outputs for wgnorm::eval::Outcome {
    fn output(&self, name: &str) -> Vec<f32> {
        let found = self.outputs.iter().find(|(of, _)| of == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.clone()
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
    for line in ["batch 8x3x4x4 ghost=2", "batch 8x3x4x4 given", "tracked 2x3x4"] {
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
