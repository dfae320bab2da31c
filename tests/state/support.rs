//! Files made of tensors, by the `safetensors` crate itself.

use std::collections::HashMap;
use std::path::PathBuf;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use wgnorm::state::{LayerValues, ModelState};
use wgnorm::{RunningValues, RunningVariance};

/// A tensor of a file that is to be made.
#[derive(Clone, Debug)]
pub struct Made {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

pub fn made(name: &str, dtype: Dtype, shape: &[usize], data: Vec<u8>) -> Made {
    Made { name: name.into(), dtype, shape: shape.into(), data }
}

pub fn f32s(name: &str, values: &[f32]) -> Made {
    made(name, Dtype::F32, &[values.len()], values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

pub fn f64s(name: &str, values: &[f64]) -> Made {
    made(name, Dtype::F64, &[values.len()], values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

pub fn count(name: &str, count: i64) -> Made {
    made(name, Dtype::I64, &[], count.to_le_bytes().to_vec())
}

/// The file of these tensors.
pub fn file(tensors: &[Made], metadata: &[(&str, &str)]) -> Vec<u8> {
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.data).unwrap();
        (tensor.name.as_str(), view)
    });
    let metadata: HashMap<_, _> = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    safetensors::serialize(views, Some(metadata).filter(|metadata| !metadata.is_empty())).unwrap()
}

pub fn state(tensors: &[Made]) -> ModelState {
    ModelState::from_bytes(file(tensors, &[])).unwrap()
}

/// A layer as PyTorch saves it, whose values tell its tensors apart.
pub fn torch_layer(name: &str, channels: usize, seed: f32) -> Vec<Made> {
    let values = |from: f32| (0..channels).map(|c| from + seed + c as f32 / 8.0).collect::<Vec<_>>();
    vec![
        f32s(&format!("{name}.weight"), &values(1.0)),
        f32s(&format!("{name}.bias"), &values(-1.0)),
        f32s(&format!("{name}.running_mean"), &values(100.0)),
        f32s(&format!("{name}.running_var"), &values(0.125)),
        count(&format!("{name}.num_batches_tracked"), 7 + seed as i64),
    ]
}

/// The same on the host.
pub fn torch_values(channels: usize, seed: f32) -> LayerValues {
    let values = |from: f32| (0..channels).map(|c| from + seed + c as f32 / 8.0).collect::<Vec<_>>();
    LayerValues {
        gamma: Some(values(1.0)),
        beta: Some(values(-1.0)),
        running: RunningValues { mean: values(100.0), var: values(0.125), batches: 7 + seed as u32 },
        running_variance: RunningVariance::Unbiased,
    }
}

/// A file beside this crate's tests.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/state").join(name)
}
