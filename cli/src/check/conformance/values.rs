//! Inputs and expected values of a case: stored tensors, and procedural inputs as FORMAT.md defines them.

use safetensors::{Dtype, SafeTensors};
use wgnorm::DType;
use wgnorm::eval::{Expected, random, rounded};

use super::{Input, Output, Procedural, dtype_named};
use crate::Refusal;

/// What an output must be.
pub fn expectation(
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
        strict: Some((0..at.len()).map(|i| strict[i] + rounding(i)).collect()),
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

/// The values of an input.
pub fn values(input: &Input, tensors: &SafeTensors<'_>) -> Result<Vec<f32>, Refusal> {
    let values = match (&input.key, &input.procedural) {
        (Some(key), _) => floats(tensors, key)?.into_iter().map(|value| value as f32).collect(),
        (None, Some(procedural)) => {
            let dtype = dtype_named(&input.dtype).ok_or("the dtype of an input is not known")?;
            rounded(&generate(procedural, &input.shape, tensors)?, dtype)
        }
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

pub fn indices(tensors: &SafeTensors<'_>, key: &str) -> Result<Vec<usize>, Refusal> {
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
