//! Conformance directories: manifest.json and .safetensors files, as tests/data/conformance/FORMAT.md describes.

use std::collections::HashMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use wgnorm::{Activation, BatchNormOptions, DType, Momentum, RunningValues, RunningVariance};

use super::case::{Batch, Case, Content, Expected, Problem, Task};
use super::variant::Variants;
use crate::{Refusal, layout, random};

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
    if !["batch_norm_train", "batch_norm_eval", "batch_norm_sequence", "batch_norm_sync"]
        .contains(&entry.op.as_str())
    {
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
    let unknown = layouts.find(|name| layout::named(name).is_none());
    unknown.map(|name| format!("layout {name} is not implemented"))
}

fn dtype_named(name: &str) -> Option<DType> {
    [DType::F32, DType::F16, DType::Bf16].into_iter().find(|dtype| dtype.name() == name)
}

fn activation_named(name: Option<&str>) -> Option<Activation> {
    let name = name.unwrap_or(Activation::None.name());
    Activation::ALL.into_iter().find(|activation| activation.name() == name)
}

fn problem(entry: &Entry, tensors: &SafeTensors<'_>) -> Result<Problem, Refusal> {
    let attrs = &entry.attrs;
    let input = |name: &str| -> Result<Option<Vec<f32>>, Refusal> {
        entry.inputs.get(name).map(|input| values(input, tensors)).transpose()
    };
    let needed = |name: &str| -> Result<Vec<f32>, Refusal> {
        input(name)?.ok_or_else(|| format!("input {name} is missing").into())
    };
    let stored = attrs.layout.as_deref().and_then(layout::named).unwrap_or_default();
    let batch = |name: &str| -> Result<Batch, Refusal> {
        let values = needed(name)?;
        let dims = layout::logical_dims(stored, &entry.inputs[name].shape);
        if dims.len() < 2 {
            return Err(format!("{name} has no channels").into());
        }
        Ok(Batch { dims, values })
    };
    let dims = layout::logical_dims(stored, &entry.shape);
    let channels = *dims.get(1).ok_or("the shape has no channels")?;
    let backward = entry.passes.iter().any(|pass| pass == "backward");
    let of_one = |name: &str| if backward { needed(name).map(Some) } else { Ok(None) };
    let task = match entry.op.as_str() {
        "batch_norm_sequence" => Task::Sequence {
            steps: (0..attrs.steps.ok_or("steps is missing")?)
                .map(|step| batch(&format!("x_{step}")))
                .collect::<Result<_, _>>()?,
            x_eval: batch("x_eval")?,
        },
        "batch_norm_sync" => Task::Sync {
            shards: (0..attrs.shard_sizes.as_ref().ok_or("shard_sizes is missing")?.len())
                .map(|rank| Ok([batch(&format!("x_{rank}"))?, batch(&format!("dy_{rank}"))?]))
                .collect::<Result<_, Refusal>>()?,
        },
        "batch_norm_eval" => Task::Eval { x: needed("x")?, dy: of_one("dy")? },
        _ => Task::Train { x: needed("x")?, dy: of_one("dy")? },
    };
    let running = RunningValues {
        mean: input("running_mean")?
            .unwrap_or_else(|| vec![attrs.initial_running_mean.unwrap_or(0.0); channels]),
        var: input("running_var")?
            .unwrap_or_else(|| vec![attrs.initial_running_var.unwrap_or(1.0); channels]),
        batches: 0,
    };
    let options = BatchNormOptions::pytorch()
        .eps(attrs.eps.ok_or("eps is missing")?)
        .momentum(attrs.batch_weight.map_or(Momentum::Cumulative, Momentum::WeightOfNew))
        .running_variance(match attrs.running_var_correction {
            Some(0) => RunningVariance::Biased,
            _ => RunningVariance::Unbiased,
        })
        .activation(activation_named(attrs.activation.as_deref()).ok_or("the activation is not known")?)
        .allow_single_value(true);
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
        layouts: match &attrs.run_layouts {
            Some(names) => names.iter().filter_map(|name| layout::named(name)).collect(),
            None => vec![stored],
        },
        variants: Variants::All,
        dtype,
        parameters: match &entry.param_dtype {
            Some(name) => dtype_named(name).ok_or("the dtype of parameters is not known")?,
            None => dtype,
        },
        options,
        gamma: input("weight")?,
        beta: input("bias")?,
        residual: if attrs.residual == Some(true) { Some(needed("residual")?) } else { None },
        mask: None,
        in_place: false,
        running,
        task,
        expected,
    })
}

fn expectation(
    name: &str,
    output: &Output,
    sample: Option<&[usize]>,
    tensors: &SafeTensors<'_>,
) -> Result<Expected, Refusal> {
    let sample = match (output.sampled, sample) {
        (false, _) => None,
        (true, Some(sample)) => Some(sample.to_vec()),
        (true, None) => return Err(format!("{name} is sampled, but there is no sample_index").into()),
    };
    let len: usize = output.shape.iter().product();
    let at: Vec<usize> = sample.clone().unwrap_or_else(|| (0..len).collect());
    if let Some(outside) = at.iter().find(|&&i| i >= len) {
        return Err(format!("{name}: sample index {outside} is outside of {:?}", output.shape).into());
    }
    let values = floats(tensors, &output.key)?;
    if values.len() != at.len() {
        return Err(format!("{name}: {} expected values for {} elements", values.len(), at.len()).into());
    }
    let tolerance = |key: &str| -> Result<Vec<f64>, Refusal> {
        let shape = tensors.tensor(key)?.shape().to_vec();
        let values = floats(tensors, key)?;
        at.iter()
            .map(|&i| {
                let index = broadcast_index(i, &output.shape, &shape)
                    .ok_or_else(|| format!("{key}: shape {shape:?} does not broadcast"))?;
                Ok(values[index])
            })
            .collect()
    };
    let (atol, strict, terr) =
        (tolerance(&output.atol)?, tolerance(&output.strict)?, tolerance(&output.terr)?);
    // The rounding of the output itself; where the expected value is not finite, so is nothing to be added.
    let rounding = |i: usize| if values[i].is_finite() { output.rtol * values[i].abs() } else { 0.0 };
    Ok(Expected {
        name: name.to_owned(),
        dtype: dtype_named(&output.library_dtype).ok_or_else(|| format!("{name}: its dtype is not known"))?,
        gate: (0..at.len()).map(|i| atol[i].max(terr[i]) + rounding(i)).collect(),
        strict: (0..at.len()).map(|i| strict[i] + rounding(i)).collect(),
        values,
        sample,
        peer_err: output.torch_f32_err,
    })
}

/// Flat index into a tensor of `from` for the element `flat` of `shape`, to which it broadcasts.
fn broadcast_index(flat: usize, shape: &[usize], from: &[usize]) -> Option<usize> {
    let extra = shape.len().checked_sub(from.len())?;
    let (mut rest, mut index, mut stride) = (flat, 0, 1);
    for axis in (0..shape.len()).rev() {
        let position = rest % shape[axis];
        rest /= shape[axis];
        if axis >= extra {
            match from[axis - extra] {
                1 => {}
                length if length == shape[axis] => {
                    index += position * stride;
                    stride *= length;
                }
                _ => return None,
            }
        }
    }
    Some(index)
}

fn values(input: &Input, tensors: &SafeTensors<'_>) -> Result<Vec<f32>, Refusal> {
    let values = match (&input.key, &input.procedural) {
        (Some(key), _) => floats(tensors, key)?.into_iter().map(|value| value as f32).collect(),
        (None, Some(procedural)) => generate(procedural, &input.shape, tensors)?,
        (None, None) => return Err("an input has neither key nor procedure".into()),
    };
    if values.len() != input.shape.iter().product::<usize>() {
        return Err(format!("an input of shape {:?} has {} values", input.shape, values.len()).into());
    }
    let first = input.first_values.as_deref().unwrap_or_default();
    if values[..first.len().min(values.len())] != *first
        || input.last_value.is_some_and(|last| values.last() != Some(&last))
    {
        return Err("a procedural input differs from the values in the manifest".into());
    }
    Ok(values)
}

/// The hash of FORMAT.md (splitmix64), scaled and shifted per index along an axis.
fn generate(
    procedural: &Procedural,
    shape: &[usize],
    tensors: &SafeTensors<'_>,
) -> Result<Vec<f32>, Refusal> {
    let seed: u64 = procedural.seed.parse()?;
    let along = |key: &Option<String>| key.as_ref().map(|key| floats(tensors, key)).transpose();
    let (scale, shift) = (along(&procedural.scale)?, along(&procedural.shift)?);
    let axis = procedural.axis.unwrap_or(0);
    let inner: usize = shape.get(axis + 1..).unwrap_or_default().iter().product();
    let length = *shape.get(axis).ok_or("the axis is outside of the shape")?;
    for table in [&scale, &shift].into_iter().flatten() {
        if table.len() != length {
            return Err("scale or shift has another length than the axis".into());
        }
    }
    let mut values: Vec<f32> = random::uniform(seed)
        .take(shape.iter().product())
        .enumerate()
        .map(|(i, u)| {
            let c = i / inner.max(1) % length.max(1);
            (u * scale.as_ref().map_or(1.0, |s| s[c]) + shift.as_ref().map_or(0.0, |s| s[c])) as f32
        })
        .collect();
    if let Some(key) = &procedural.zero_index {
        for i in indices(tensors, key)? {
            *values.get_mut(i).ok_or("zero_index is outside of the shape")? = 0.0;
        }
    }
    Ok(values)
}

fn floats(tensors: &SafeTensors<'_>, key: &str) -> Result<Vec<f64>, Refusal> {
    let tensor = tensors.tensor(key).map_err(|error| format!("{key}: {error}"))?;
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F32 => Ok(data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect()),
        Dtype::F16 => Ok(DType::F16.decode(data).into_iter().map(f64::from).collect()),
        Dtype::BF16 => Ok(DType::Bf16.decode(data).into_iter().map(f64::from).collect()),
        Dtype::F64 => Ok(data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()),
        other => Err(format!("{key}: dtype {other:?} is not expected here").into()),
    }
}

fn indices(tensors: &SafeTensors<'_>, key: &str) -> Result<Vec<usize>, Refusal> {
    let tensor = tensors.tensor(key).map_err(|error| format!("{key}: {error}"))?;
    if tensor.dtype() != Dtype::I64 {
        return Err(format!("{key}: dtype {:?} is not I64", tensor.dtype()).into());
    }
    tensor.data().as_chunks().0.iter().map(|bytes| Ok(usize::try_from(i64::from_le_bytes(*bytes))?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_broadcast_like_numpy() {
        let index = |flat, from: &[usize]| broadcast_index(flat, &[2, 3, 4], from);
        assert_eq!(index(17, &[2, 3, 4]), Some(17));
        assert_eq!(index(17, &[1, 3, 1]), Some(1));
        assert_eq!(index(17, &[3, 1]), Some(1));
        assert_eq!(index(17, &[1]), Some(0));
        assert_eq!(index(17, &[]), Some(0));
        assert_eq!(index(17, &[2, 1, 1]), Some(1));
        assert_eq!(index(17, &[3, 3, 4]), None);
        assert_eq!(index(17, &[1, 2, 3, 4]), None);
    }
}
