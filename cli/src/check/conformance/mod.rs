//! Conformance directories: manifest.json and .safetensors files, as tests/data/conformance/FORMAT.md describes.

mod spec;
mod values;

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use serde::Deserialize;
use wgnorm::eval::{Expected, Inputs, Part, Problem, Variants, layout};
use wgnorm::{Activation, DType, Layout, RunningValues, Spec};

use super::case::{Case, Content};
use crate::Refusal;
use values::{expectation, indices, values};

/// Elements from which on a case is run in the policy's plan alone.
const LARGE: usize = 1 << 18;

#[derive(Deserialize)]
struct Manifest {
    format_version: u32,
    cases: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    file: String,
    op: String,
    passes: Vec<String>,
    shape: Vec<usize>,
    dtype: String,
    param_dtype: Option<String>,
    attrs: Attributes,
    inputs: HashMap<String, Input>,
    expected: HashMap<String, Output>,
}

#[derive(Deserialize)]
struct Attributes {
    eps: Option<f64>,
    batch_weight: Option<f64>,
    running_var_correction: Option<u32>,
    activation: Option<String>,
    #[serde(default)]
    residual: Option<bool>,
    layout: Option<String>,
    run_layouts: Option<Vec<String>>,
    steps: Option<usize>,
    shard_sizes: Option<Vec<usize>>,
    initial_running_mean: Option<f32>,
    initial_running_var: Option<f32>,
    #[serde(default)]
    track_running_stats: Option<bool>,
    num_groups: Option<usize>,
    normalized_shape: Option<Vec<usize>>,
    axes: Option<Vec<i64>>,
}

#[derive(Deserialize)]
struct Input {
    key: Option<String>,
    procedural: Option<Procedural>,
    #[serde(default)]
    dtype: String,
    shape: Vec<usize>,
    first_values: Option<Vec<f32>>,
    last_value: Option<f32>,
}

#[derive(Deserialize)]
struct Procedural {
    seed: String,
    scale: Option<String>,
    shift: Option<String>,
    axis: Option<usize>,
    zero_index: Option<String>,
}

#[derive(Deserialize)]
struct Output {
    key: String,
    shape: Vec<usize>,
    sampled: bool,
    library_dtype: String,
    rtol: f64,
    atol: String,
    strict: String,
    terr: String,
    /// Largest error of PyTorch's own f32 result.
    torch_f32_err: Option<f64>,
}

/// The cases of a directory with wanted names; those that this version does not cover say why they are skipped. `full` are all variants.
pub fn load(directory: &Path, wanted: impl Fn(&str) -> bool, full: bool) -> Result<Vec<Case>, Refusal> {
    let read = |name: &str| {
        std::fs::read(directory.join(name)).map_err(|error| format!("cannot read {name}: {error}"))
    };
    let manifest: Manifest =
        serde_json::from_slice(&read("manifest.json")?).map_err(|e| format!("manifest.json: {e}"))?;
    if manifest.format_version != 1 {
        return Err(format!("format version {} is not known, only 1", manifest.format_version).into());
    }
    let mut files: HashMap<String, Vec<u8>> = HashMap::new();
    let mut cases = Vec::new();
    for entry in manifest.cases.into_iter().filter(|entry| wanted(&entry.name)) {
        let content = match skip_reason(&entry) {
            Some(reason) => Content::Skipped(reason),
            None => {
                if !files.contains_key(&entry.file) {
                    files.insert(entry.file.clone(), read(&entry.file)?);
                }
                let tensors = SafeTensors::deserialize(&files[&entry.file])
                    .map_err(|error| format!("{}: {error}", entry.file))?;
                match problem(&entry, &tensors) {
                    Ok((problem, layouts)) => Content::Stored { problem: Box::new(problem), layouts },
                    Err(error) => Content::Invalid(error.to_string()),
                }
            }
        };
        // Stored values tell whether results are those of other systems. Where tensors lie is the matter of the built-in cases.
        let elements: usize = entry.shape.iter().product();
        let variants = match (full, elements > LARGE) {
            (true, _) => Variants::All,
            (false, true) => Variants::One("repeat"),
            (false, false) => Variants::Sums,
        };
        cases.push(Case { name: entry.name, op: entry.op, dtype: entry.dtype, variants, content });
    }
    Ok(cases)
}

/// Why this version does not run a case.
fn skip_reason(entry: &Entry) -> Option<String> {
    let attrs = &entry.attrs;
    if !spec::OPS.contains(&entry.op.as_str()) {
        return Some(format!("op {} is not implemented", entry.op));
    }
    for dtype in [Some(&entry.dtype), entry.param_dtype.as_ref()].into_iter().flatten() {
        if dtype_named(dtype).is_none() {
            return Some(format!("dtype {dtype} is not implemented"));
        }
    }
    if activation_named(attrs.activation.as_deref()).is_none() {
        let activation = attrs.activation.as_deref().unwrap_or_default();
        return Some(format!("activation {activation} is not implemented"));
    }
    let mut layouts = attrs.layout.iter().chain(attrs.run_layouts.iter().flatten());
    if let Some(name) = layouts.find(|name| layout::named(name).is_none()) {
        return Some(format!("layout {name} is not implemented"));
    }
    spec::skip_reason(entry)
}

fn dtype_named(name: &str) -> Option<DType> {
    DType::ALL.into_iter().find(|dtype| dtype.name() == name)
}

fn activation_named(name: Option<&str>) -> Option<Activation> {
    let name = name.unwrap_or(Activation::None.name());
    Activation::ALL.into_iter().find(|activation| activation.name() == name)
}

/// An entry of the manifest with the tensors of its file.
struct Source<'a> {
    entry: &'a Entry,
    tensors: &'a SafeTensors<'a>,
    /// Order of the values of batches.
    stored: Layout,
}

impl Source<'_> {
    fn input(&self, name: &str) -> Result<Option<Vec<f32>>, Refusal> {
        self.entry.inputs.get(name).map(|input| values(input, self.tensors)).transpose()
    }

    /// A batch in logical order, with its shape.
    fn batch(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), Refusal> {
        let values = self.input(name)?.ok_or_else(|| format!("input {name} is missing"))?;
        let shape = layout::logical_dims(self.stored, &self.entry.inputs[name].shape);
        if self.stored != Layout::ChannelsFirst && shape.len() < 2 {
            return Err(format!("{name} has no channels").into());
        }
        let logical = layout::rearranged(&values, &shape, self.stored, Layout::ChannelsFirst);
        Ok((shape, logical))
    }

    fn batch_if(&self, is: bool, name: &str) -> Result<Option<Vec<f32>>, Refusal> {
        if is { Ok(Some(self.batch(name)?.1)) } else { Ok(None) }
    }

    fn part(&self, x: &str, dy: Option<&str>) -> Result<Part, Refusal> {
        let (shape, x) = self.batch(x)?;
        if shape.len() < 2 {
            return Err("a batch has no channels".into());
        }
        let dy = dy.map(|dy| self.batch(dy)).transpose()?.map(|(_, dy)| dy);
        Ok(Part { shape, x, dy })
    }

    /// The shards of all ranks, or the batches of a sequence and the one that is inferred.
    fn parts(&self) -> Result<Vec<Part>, Refusal> {
        let attrs = &self.entry.attrs;
        match self.entry.op.as_str() {
            "batch_norm_sync" => (0..attrs.shard_sizes.as_ref().ok_or("shard_sizes is missing")?.len())
                .map(|rank| self.part(&format!("x_{rank}"), Some(&format!("dy_{rank}"))))
                .collect(),
            "batch_norm_sequence" => (0..attrs.steps.ok_or("steps is missing")?)
                .map(|step| format!("x_{step}"))
                .chain(["x_eval".to_owned()])
                .map(|name| self.part(&name, None))
                .collect(),
            _ => Ok(Vec::new()),
        }
    }

    /// Running statistics before the case.
    fn running(&self, channels: usize) -> Result<RunningValues, Refusal> {
        let attrs = &self.entry.attrs;
        let or =
            |name: &str, initial: f32| Ok::<_, Refusal>(self.input(name)?.unwrap_or(vec![initial; channels]));
        Ok(RunningValues {
            mean: or("running_mean", attrs.initial_running_mean.unwrap_or(0.0))?,
            var: or("running_var", attrs.initial_running_var.unwrap_or(1.0))?,
            batches: 0,
        })
    }

    fn inputs(&self, spec: &Spec) -> Result<Inputs, Refusal> {
        let parts = self.parts()?;
        let alone = parts.is_empty();
        Ok(Inputs {
            x: if alone { self.batch("x")?.1 } else { Vec::new() },
            residual: self.batch_if(spec.residual, "residual")?,
            dy: self.batch_if(alone && spec.has_backward(), "dy")?,
            gamma: self.input("weight")?,
            beta: self.input("bias")?,
            running: match spec.norm.is_batch() || spec.norm.tracks() {
                true => self.running(spec.shape[1])?,
                false => RunningValues::default(),
            },
            parts,
            ..Inputs::default()
        })
    }

    /// An output that is a batch is put into logical order.
    fn expected(&self, name: &str, output: &Output, sample: Option<&[usize]>) -> Result<Expected, Refusal> {
        let mut expected = expectation(name, output, sample, self.tensors)?;
        let is_batch = ["y", "dx", "dresidual"].contains(&name.split('_').next().unwrap_or(name));
        if self.stored == Layout::ChannelsFirst || !is_batch {
            return Ok(expected);
        }
        let shape = layout::logical_dims(self.stored, &output.shape);
        let logical = |values: &[f64]| layout::rearranged(values, &shape, self.stored, Layout::ChannelsFirst);
        match &mut expected.sample {
            Some(sample) => {
                // Where each element of memory is in logical order.
                let all: Vec<usize> = (0..shape.iter().product()).collect();
                let memory = layout::rearranged(&all, &shape, Layout::ChannelsFirst, self.stored);
                sample.iter_mut().for_each(|i| *i = memory[*i]);
            }
            None => {
                expected.values = logical(&expected.values);
                expected.gate = logical(&expected.gate);
                expected.strict = expected.strict.as_deref().map(logical);
            }
        }
        Ok(expected)
    }
}

/// The problem of an entry, and the layouts to run it in.
fn problem(entry: &Entry, tensors: &SafeTensors<'_>) -> Result<(Problem, Vec<Layout>), Refusal> {
    let attrs = &entry.attrs;
    // Of norms over given axes, tensors are as they are.
    let as_is = ["layer_norm", "rms_norm", "mvn"].contains(&entry.op.as_str());
    let stored = attrs.layout.as_deref().filter(|_| !as_is).and_then(layout::named).unwrap_or_default();
    let layouts = match &attrs.run_layouts {
        Some(names) if !as_is => names.iter().filter_map(|name| layout::named(name)).collect(),
        _ => vec![stored],
    };
    let source = Source { entry, tensors, stored };
    let spec = spec::of(entry, &layout::logical_dims(stored, &entry.shape))?;
    let sample = match entry.inputs.get("sample_index") {
        Some(index) => Some(indices(tensors, index.key.as_deref().ok_or("sample_index has no key")?)?),
        None => None,
    };
    let expected =
        entry.expected.iter().map(|(name, output)| source.expected(name, output, sample.as_deref()));
    let mut expected: Vec<_> = expected.collect::<Result<_, _>>()?;
    expected.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((Problem { inputs: source.inputs(&spec)?, spec, expected }, layouts))
}
