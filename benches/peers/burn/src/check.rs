//! The inputs of a shape, and what an operation must make of them, by the f64 reference of the crate.

use burn::tensor::{DType, Device, Tensor, TensorData};
use wgnorm::reference::family::{self, Affine, Maps, Scheme};
use wgnorm::reference::{Statistics, batch};
use wgnorm::{Layout, Shape};

use crate::Refusal;
use crate::layer::Op;
use crate::norm::Norm;
use crate::random;

/// Of the configurations of all norms.
const EPS: f64 = 1e-5;

/// Inputs in logical order, rounded to the element type.
pub struct Values {
    pub norm: Norm,
    pub shape: Vec<usize>,
    pub x: Vec<f32>,
    pub dy: Vec<f32>,
    pub gamma: Vec<f32>,
    /// Not of RMS norm.
    pub beta: Vec<f32>,
    /// Of batch norm alone, as the next.
    pub mean: Vec<f32>,
    pub var: Vec<f32>,
}

/// What error is tolerated, as a fraction of the largest value of an output. It tells the right function from a wrong
/// one; how accurate it is, is another question.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-4,
        DType::F16 => 1e-2,
        _ => 2e-2,
    }
}

impl Values {
    pub fn new(norm: Norm, shape: &[usize], device: &Device, dtype: DType) -> Result<Self, Refusal> {
        let (len, c) = (shape.iter().product(), norm.parameters(shape));
        let values = |seed, len, shift: f64, scale: f64| -> Result<Vec<f32>, Refusal> {
            let values: Vec<f32> =
                random::uniform(seed).take(len).map(|u| (u * scale + shift) as f32).collect();
            // Through burn's own storage, so that the reference sees what its kernels do.
            let stored = Tensor::<1>::from_data(TensorData::new(values, [len]), (device, dtype));
            let data = stored.try_into_data_dtype(DType::F32).map_err(|error| format!("{error:?}"))?;
            Ok(data.try_to_vec().map_err(|error| format!("{error:?}"))?)
        };
        Ok(Self {
            norm,
            shape: shape.to_vec(),
            x: values(1, len, 0.5, 2.0)?,
            dy: values(2, len, 0.0, 1.0)?,
            gamma: values(3, c, 1.0, 0.5)?,
            beta: values(4, c, 0.0, 0.5)?,
            mean: values(5, c, 0.5, 0.1)?,
            var: values(6, c, 1.3, 0.2)?,
        })
    }

    /// The outputs in the order in which the layer gives them.
    pub fn expected(&self, op: Op) -> Result<Vec<Vec<f64>>, Refusal> {
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| value.into()).collect() };
        let (x, gamma, beta) = (wide(&self.x), wide(&self.gamma), wide(&self.beta));
        let (gamma, beta) = (Some(gamma.as_slice()), Some(beta.as_slice()).filter(|_| self.norm.has_beta()));
        let dy = wide(&self.dy);
        let (maps, scheme) = match self.norm {
            Norm::Batch => return self.expected_of_batch(op, &x, &dy, gamma, beta),
            Norm::Layer => (Maps::layer(&self.shape, 1), Scheme::standard(EPS)),
            Norm::Rms => (Maps::layer(&self.shape, 1), Scheme::rms(EPS)),
            Norm::Group(groups) => {
                (Maps::group(&self.shape, Layout::ChannelsFirst, groups), Scheme::standard(EPS))
            }
        };
        let affine = Affine { gamma, beta };
        let (y, statistics) = family::forward(&x, &maps, &scheme, affine);
        if op != Op::TrainStep {
            return Ok(vec![y]);
        }
        let batch::Gradients { dx, dgamma, dbeta } =
            family::backward(&x, &dy, &maps, &scheme, &statistics, affine);
        let beta = self.norm.has_beta().then_some(dbeta);
        Ok([y, dx, dgamma].into_iter().chain(beta).collect())
    }

    fn expected_of_batch(
        &self,
        op: Op,
        x: &[f64],
        dy: &[f64],
        gamma: Option<&[f64]>,
        beta: Option<&[f64]>,
    ) -> Result<Vec<Vec<f64>>, Refusal> {
        let view = Shape::new(&self.shape)?.channels(Layout::ChannelsFirst)?;
        if op == Op::Inference {
            let running = self.mean.iter().zip(&self.var);
            let statistics: Vec<_> =
                running.map(|(&mean, &var)| Statistics::new(mean.into(), var.into(), EPS)).collect();
            return Ok(vec![batch::inference(x, view, &statistics, gamma, beta)]);
        }
        let forward = batch::train_forward(x, view, gamma, beta, EPS);
        if op == Op::TrainForward {
            return Ok(vec![forward.y]);
        }
        let batch::Gradients { dx, dgamma, dbeta } = batch::backward(x, dy, view, &forward.statistics, gamma);
        Ok(vec![forward.y, dx, dgamma, dbeta])
    }
}

/// Largest error of an output as a fraction of its largest value; not a number where any is.
pub fn worst_error(got: &[Vec<f32>], expected: &[Vec<f64>]) -> Result<f64, Refusal> {
    if got.len() != expected.len() || got.iter().zip(expected).any(|(got, exp)| got.len() != exp.len()) {
        return Err("burn's outputs are not as many as expected".into());
    }
    // `f64::max` would drop what is not a number.
    let larger = |a: f64, b: f64| if a.is_nan() || a > b { a } else { b };
    let error = |(got, expected): (&Vec<f32>, &Vec<f64>)| {
        let scale = expected.iter().fold(f64::MIN_POSITIVE, |scale, value| scale.max(value.abs()));
        let errors =
            got.iter().zip(expected).map(|(&got, expected)| (f64::from(got) - expected).abs() / scale);
        errors.fold(0.0, larger)
    };
    Ok(got.iter().zip(expected).map(error).fold(0.0, larger))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_error_sees_everything() {
        let expected = [vec![1.0, -4.0], vec![0.5]];
        let worst =
            |first: [f32; 2], second: f32| worst_error(&[first.to_vec(), vec![second]], &expected).unwrap();
        assert_eq!(worst([1.0, -4.0], 0.5), 0.0);
        assert_eq!(worst([2.0, -4.0], 0.5), 0.25);
        assert_eq!(worst([2.0, -4.0], 1.0), 1.0);
        assert!(worst([f32::NAN, -4.0], 1.0).is_nan() && worst([1.0, f32::NAN], 0.5).is_nan());
        assert!(worst_error(&[vec![1.0]], &expected).is_err());
    }
}
