//! Single parameters by their names, for layers that are more than batch norm: those of the family, GraphNorm, switchable norm.

use super::model::ModelState;
use super::save::{Save, SaveOptions};
use crate::base::error::{Error, Result};
use crate::base::report::Mismatch;
use crate::base::shape::Shape;

/// gamma, beta and alpha of PyTorch Geometric's `GraphNorm`, behind the name of the layer and a point.
pub const GRAPH_NORM: [&str; 3] = ["weight", "bias", "mean_scale"];

/// gamma, beta, weights of means and of variances, running mean and variance of the authors' `SwitchNorm2d`, behind the name of the layer and a point. Values per channel are `[1, C, 1, 1]` and `[1, C, 1]` there.
pub const SWITCHABLE_NORM: [&str; 6] =
    ["weight", "bias", "mean_weight", "var_weight", "running_mean", "running_var"];

impl ModelState {
    /// The values of a tensor that must be there, of any shape of so many values.
    ///
    /// ```
    /// use wgnorm::state::{GRAPH_NORM, ModelState, SaveOptions};
    /// let mut state = ModelState::new();
    /// state.set_parameters(&[("norm.mean_scale", &[2], &[1.0, 0.5])], &SaveOptions::default())?;
    /// assert_eq!(state.parameter(&format!("norm.{}", GRAPH_NORM[2]), 2)?, [1.0, 0.5]);
    /// assert!(state.parameter("norm.weight", 2).is_err());
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::StateTensor`] for one that is missing, has another number of values, is of no float type or has values that f32 lacks.
    pub fn parameter(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let (shape, values) = self.values_of(name, None)?;
        match values.len() == len {
            true => Ok(values),
            false => {
                let got = format!("shape {shape:?}");
                Err(Error::StateTensor(Mismatch::new(name, format!("a shape of {len} values"), got)))
            }
        }
    }

    /// Puts tensors with these names, shapes and values into the state: replaces those that are there, whose shape stays if it has as many values, and adds the others.
    ///
    /// # Errors
    /// [`Error::Length`] for other than a shape's values; [`Error::StateTensor`] for one that has another number of values, or whose element type lacks values; [`Error::Naming`], [`Error::DuplicateName`]. The state is as it was then.
    pub fn set_parameters(
        &mut self,
        parameters: &[(&str, &[usize], &[f32])],
        options: &SaveOptions,
    ) -> Result<()> {
        let mut save = Save::new(self, options);
        for &(name, shape, values) in parameters {
            let (of, got) = (Shape::new(shape)?, values.len() as u64);
            if of.len() != got {
                return Err(Error::Length { what: "a parameter", shape: of, expected: of.len(), got });
            }
            let there = self.archive.get(name).map(|tensor| tensor.shape.into_owned());
            let there = there.filter(|shape| shape.iter().product::<usize>() == values.len());
            save.tensor(name.to_owned(), there.as_deref().unwrap_or(shape), values)?;
        }
        let staged = save.staged;
        self.put_all(staged);
        Ok(())
    }

    /// The values of a tensor that must be there, of a shape if that is known.
    pub(super) fn values_of(&self, key: &str, shape: Option<&[usize]>) -> Result<(Vec<usize>, Vec<f32>)> {
        let wrong = |expected: &str, got: String| Error::StateTensor(Mismatch::new(key, expected, got));
        let found = self.floats(key, shape).map_err(Error::StateTensor)?;
        let (float, tensor) = found.ok_or_else(|| wrong("a tensor of this name", "none".to_owned()))?;
        match float.decode(&tensor.data) {
            (_, true) => Err(wrong("values that f32 has", format!("{float} values that it lacks"))),
            (values, false) => Ok((tensor.shape.into_owned(), values)),
        }
    }
}
