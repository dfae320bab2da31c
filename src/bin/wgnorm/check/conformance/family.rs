//! Cases of the norms beside batch norm.

use wgnorm::{Epsilon, NormOptions};

use super::{Entry, Source, batch};
use crate::Refusal;
use crate::check::family::{Of, Tracked, Work};

pub const OPS: [&str; 5] = ["group_norm", "instance_norm", "layer_norm", "rms_norm", "mvn"];

/// Why a norm is not one of the crate's.
pub fn skip_reason(entry: &Entry) -> Option<String> {
    if entry.op != "mvn" {
        return None;
    }
    // Axes that are wrong make the case invalid.
    let axes = axes_of(entry).ok().filter(|axes| !walkable(&entry.shape, axes))?;
    Some(format!("axes {axes:?} that alternate with the others are not implemented"))
}

pub fn work(source: &Source<'_>, dims: &[usize]) -> Result<Work, Refusal> {
    let Entry { op, attrs, .. } = source.entry;
    let trailing = || {
        let shape = attrs.normalized_shape.as_deref().ok_or("normalized_shape is missing")?;
        match dims.ends_with(shape) {
            true => Ok(shape.len()),
            false => Err(format!("x does not end with the normalized shape {shape:?}")),
        }
    };
    let of = match op.as_str() {
        "layer_norm" => Of::Layer(trailing()?),
        "rms_norm" => Of::Rms(trailing()?),
        "group_norm" => Of::Group(attrs.num_groups.ok_or("num_groups is missing")?),
        "instance_norm" => Of::Instance,
        _ => Of::MeanVariance(axes_of(source.entry)?),
    };
    let tracks = attrs.track_running_stats == Some(true);
    let tracked = match of {
        Of::Instance if tracks => {
            Some(Tracked { options: batch::options(source)?, running: batch::running(source, dims[1])? })
        }
        _ => None,
    };
    let eps = match (&of, attrs.eps) {
        (_, Some(eps)) => Epsilon::Value(eps),
        // PyTorch's and ONNX's own.
        (Of::Rms(_) | Of::MeanVariance(_), None) => of.options().eps,
        (_, None) => return Err("eps is missing".into()),
    };
    let mut options: NormOptions = of.options().activation(source.activation()?);
    options.eps = eps;
    Ok(Work { of, options, modulated: false, x: source.needed("x")?, sum: None, dy: source.dy()?, tracked })
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
