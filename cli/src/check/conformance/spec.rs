//! What an entry of a manifest asks for, as a spec.

use wgnorm::family::Epsilon;
use wgnorm::spec::{Norm, Passes, Statistics};
use wgnorm::{Affine, Momentum, RunningVariance, Spec};

use super::{Entry, activation_named, dtype_named};
use crate::Refusal;

pub const OPS: [&str; 10] = [
    "batch_norm_train",
    "batch_norm_eval",
    "batch_norm_sequence",
    "batch_norm_sync",
    // The same statistics for all samples, so the same as frozen batch norm.
    "instance_norm_eval",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "rms_norm",
    "mvn",
];

/// Why a norm is not one of the crate's.
pub fn skip_reason(entry: &Entry) -> Option<String> {
    if entry.op != "mvn" {
        return None;
    }
    // Axes that are wrong make the case invalid.
    let axes = axes_of(entry).ok().filter(|axes| !walkable(&entry.shape, axes))?;
    Some(format!("axes {axes:?} that alternate with the others are not implemented"))
}

/// The spec of an entry whose x has this shape in logical order.
pub fn of(entry: &Entry, shape: &[usize]) -> Result<Spec, Refusal> {
    let attrs = &entry.attrs;
    let mut shape = shape.to_vec();
    if let (Some(samples), Some(first)) = (&attrs.shard_sizes, shape.first_mut()) {
        *first = samples.iter().sum();
    }
    let mut spec = Spec::new(norm(entry, &shape)?, &shape);
    spec.dtype = dtype_named(&entry.dtype).ok_or("the dtype is not known")?;
    spec.parameters = match &entry.param_dtype {
        Some(name) => dtype_named(name).ok_or("the dtype of parameters is not known")?,
        None => spec.dtype,
    };
    spec.affine = match ["weight", "bias"].map(|name| entry.inputs.contains_key(name)) {
        [true, true] => Affine::Both,
        [true, false] => Affine::Weight,
        [false, true] => Affine::Bias,
        [false, false] => Affine::None,
    };
    spec.eps = match (&spec.norm, attrs.eps) {
        (_, Some(eps)) => Epsilon::Value(eps),
        // PyTorch's and ONNX's own.
        (Norm::Rms(_) | Norm::MeanVariance(_), None) => spec.eps,
        (_, None) => return Err("eps is missing".into()),
    };
    spec.activation = activation_named(attrs.activation.as_deref()).ok_or("the activation is not known")?;
    spec.residual = attrs.residual == Some(true);
    spec.passes = match entry.passes.iter().any(|pass| pass == "backward") {
        true => Passes::Backward,
        false => Passes::Forward,
    };
    spec.statistics = match entry.op.as_str() {
        "batch_norm_sequence" => Statistics::Sequence(attrs.steps.ok_or("steps is missing")?),
        "batch_norm_sync" => {
            Statistics::Synchronised(attrs.shard_sizes.clone().ok_or("shard_sizes is missing")?)
        }
        _ => Statistics::Own,
    };
    spec.momentum = attrs.batch_weight.map_or(Momentum::Cumulative, Momentum::WeightOfNew);
    spec.running_variance = match attrs.running_var_correction {
        Some(0) => RunningVariance::Biased,
        _ => RunningVariance::Unbiased,
    };
    spec.check()?;
    Ok(spec)
}

fn norm(entry: &Entry, shape: &[usize]) -> Result<Norm, Refusal> {
    let attrs = &entry.attrs;
    let trailing = || {
        let over = attrs.normalized_shape.as_deref().ok_or("normalized_shape is missing")?;
        match shape.ends_with(over) {
            true => Ok(over.len()),
            false => Err(format!("x does not end with the normalized shape {over:?}")),
        }
    };
    Ok(match entry.op.as_str() {
        "layer_norm" => Norm::Layer(trailing()?),
        "rms_norm" => Norm::Rms(trailing()?),
        "group_norm" => Norm::Group(attrs.num_groups.ok_or("num_groups is missing")?),
        "instance_norm" if attrs.track_running_stats == Some(true) => Norm::TrackedInstance,
        "instance_norm" => Norm::Instance,
        "mvn" => Norm::MeanVariance(axes_of(entry)?),
        "batch_norm_eval" | "instance_norm_eval" => Norm::FrozenBatch,
        _ => Norm::Batch,
    })
}

/// The axes of mean-variance normalization in ascending order; negative ones count from the end.
fn axes_of(entry: &Entry) -> Result<Vec<usize>, Refusal> {
    let rank = entry.shape.len() as i64;
    let axes = entry.attrs.axes.as_ref().ok_or("axes is missing")?;
    let place = |&axis: &i64| match if axis < 0 { axis + rank } else { axis } {
        axis if (0..rank).contains(&axis) => Ok(axis as usize),
        _ => Err(format!("axis {axis} is outside of {:?}", entry.shape)),
    };
    let mut axes = axes.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    axes.dedup();
    Ok(axes)
}

/// Whether kernels can walk a slice over these axes: no more than three runs of axes, those of one kind beside each other.
fn walkable(shape: &[usize], axes: &[usize]) -> bool {
    let mut runs: Vec<bool> =
        (0..shape.len()).filter(|&axis| shape[axis] != 1).map(|axis| axes.contains(&axis)).collect();
    runs.dedup();
    runs.len() <= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_that_alternate_too_often_are_told() {
        for (shape, axes, can) in [
            (&[3, 3, 3, 2][..], &[0, 2, 3][..], true),
            (&[3, 3, 3, 2], &[1], true),
            (&[3, 3, 3, 2], &[0, 2], false),
            (&[3, 3, 1, 2], &[0, 2], true),
            (&[3, 1, 3, 2], &[0, 2], true),
            (&[2, 3, 4, 5], &[1, 3], false),
        ] {
            assert_eq!(walkable(shape, axes), can, "{shape:?} {axes:?}");
        }
    }
}
