//! Conformance directories: manifest.json and .safetensors files, as tests/data/conformance/FORMAT.md describes.

mod batch;
mod family;
mod values;

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use serde::Deserialize;
use wgnorm::{Activation, DType, Layout};

use super::case::{Batch, Case, Content, Problem, Work};
use super::variant::Variants;
use crate::{Refusal, layout};
use values::{expectation, indices, values};

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

/// The cases of a directory with wanted names; those that this version does not cover say why they are skipped.
pub fn load(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<Case>, Refusal> {
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
                    Ok(problem) => Content::Problem(Box::new(problem)),
                    Err(error) => Content::Invalid(error.to_string()),
                }
            }
        };
        cases.push(Case { name: entry.name, op: entry.op, dtype: entry.dtype, content });
    }
    Ok(cases)
}

/// Why this version does not run a case.
fn skip_reason(entry: &Entry) -> Option<String> {
    let attrs = &entry.attrs;
    if !batch::OPS.contains(&entry.op.as_str()) && !family::OPS.contains(&entry.op.as_str()) {
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
    family::skip_reason(entry)
}

fn dtype_named(name: &str) -> Option<DType> {
    [DType::F32, DType::F16, DType::Bf16].into_iter().find(|dtype| dtype.name() == name)
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

    fn needed(&self, name: &str) -> Result<Vec<f32>, Refusal> {
        self.input(name)?.ok_or_else(|| format!("input {name} is missing").into())
    }

    /// dy, if there is a backward pass.
    fn dy(&self) -> Result<Option<Vec<f32>>, Refusal> {
        let backward = self.entry.passes.iter().any(|pass| pass == "backward");
        if backward { self.needed("dy").map(Some) } else { Ok(None) }
    }

    fn batch(&self, name: &str) -> Result<Batch, Refusal> {
        let values = self.needed(name)?;
        let dims = layout::logical_dims(self.stored, &self.entry.inputs[name].shape);
        if dims.len() < 2 {
            return Err(format!("{name} has no channels").into());
        }
        Ok(Batch { dims, values })
    }

    fn eps(&self) -> Result<f64, Refusal> {
        self.entry.attrs.eps.ok_or_else(|| "eps is missing".into())
    }

    fn activation(&self) -> Result<Activation, Refusal> {
        let name = self.entry.attrs.activation.as_deref();
        activation_named(name).ok_or_else(|| "the activation is not known".into())
    }
}

fn problem(entry: &Entry, tensors: &SafeTensors<'_>) -> Result<Problem, Refusal> {
    let attrs = &entry.attrs;
    // Of norms over given axes, tensors are as they are.
    let as_is = ["layer_norm", "rms_norm", "mvn"].contains(&entry.op.as_str());
    let stored = attrs.layout.as_deref().filter(|_| !as_is).and_then(layout::named).unwrap_or_default();
    let layouts = match &attrs.run_layouts {
        Some(names) if !as_is => names.iter().filter_map(|name| layout::named(name)).collect(),
        _ => vec![stored],
    };
    let source = Source { entry, tensors, stored };
    let dims = layout::logical_dims(stored, &entry.shape);
    if dims.len() < 2 && !as_is {
        return Err("the shape has no channels".into());
    }
    let work = match family::OPS.contains(&entry.op.as_str()) {
        true => Work::Family(family::work(&source, &dims)?),
        false => Work::Batch(batch::work(&source, dims[1])?),
    };
    let dtype = dtype_named(&entry.dtype).ok_or("the dtype is not known")?;
    let sample = match entry.inputs.get("sample_index") {
        Some(index) => Some(indices(tensors, index.key.as_deref().ok_or("sample_index has no key")?)?),
        None => None,
    };
    let mut expected: Vec<_> = entry
        .expected
        .iter()
        .map(|(name, output)| expectation(name, output, sample.as_deref(), tensors))
        .collect::<Result<_, _>>()?;
    expected.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Problem {
        dims,
        stored,
        layouts,
        variants: Variants::All,
        dtype,
        parameters: match &entry.param_dtype {
            Some(name) => dtype_named(name).ok_or("the dtype of parameters is not known")?,
            None => dtype,
        },
        gamma: source.input("weight")?,
        beta: source.input("bias")?,
        residual: if attrs.residual == Some(true) { Some(source.needed("residual")?) } else { None },
        in_place: false,
        work,
        expected,
    })
}
