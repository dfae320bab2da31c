//! Weights under spectral norm by PyTorch's names: those of its hook and of its parametrization.

use super::model::ModelState;
use super::save::{Save, SaveOptions};
use crate::base::error::{Error, Result};
use crate::base::report::Mismatch;
use crate::base::shape::Shape;

/// The names of a weight and its vectors in a `state_dict`.
///
/// ```
/// use wgnorm::state::SpectralNaming;
/// assert_eq!(SpectralNaming::Hook.keys("conv", "weight")[1], "conv.weight_u");
/// assert_eq!(SpectralNaming::Parametrization.keys("conv", "weight")[0], "conv.parametrizations.weight.original");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpectralNaming {
    /// `torch.nn.utils.spectral_norm`: `weight_orig`, `weight_u`, `weight_v`.
    Hook,
    /// `torch.nn.utils.parametrizations.spectral_norm`: `parametrizations.weight.original`, `parametrizations.weight.0._u`, `parametrizations.weight.0._v`.
    Parametrization,
}

impl SpectralNaming {
    /// The names of the weight before it is divided, of u and of v, of a parameter (`weight`) of a layer; of a model that is one layer, its name is empty.
    pub fn keys(self, layer: &str, parameter: &str) -> [String; 3] {
        let before = if layer.is_empty() { String::new() } else { format!("{layer}.") };
        match self {
            Self::Hook => ["orig", "u", "v"].map(|name| format!("{before}{parameter}_{name}")),
            Self::Parametrization => ["original", "0._u", "0._v"]
                .map(|name| format!("{before}parametrizations.{parameter}.{name}")),
        }
    }
}

/// A weight under spectral norm on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct SpectralValues {
    /// The lengths of the weight's axes.
    pub shape: Vec<usize>,
    /// The weight before it is divided by its norm.
    pub weight: Vec<f32>,
    /// u, a value for each row: of [`SpectralNorm::directions`](crate::spectral::SpectralNorm::directions).
    pub u: Vec<f32>,
    /// v, a value for each column.
    pub v: Vec<f32>,
}

impl ModelState {
    /// The weight of a layer with its vectors, for [`SpectralNorm::from_directions`](crate::spectral::SpectralNorm::from_directions). `axis` is that of the rows.
    ///
    /// # Errors
    /// [`Error::StateTensor`] for a tensor that is missing, of another shape than the weight says, of no float type, or that has values that f32 lacks.
    ///
    /// ```
    /// use wgnorm::state::{ModelState, SaveOptions, SpectralNaming, SpectralValues};
    /// let values = SpectralValues { shape: vec![1, 2], weight: vec![3.0, 4.0], u: vec![1.0], v: vec![0.6, 0.8] };
    /// let mut state = ModelState::new();
    /// state.set_spectral(SpectralNaming::Hook, "fc", "weight", &values, &SaveOptions::default())?;
    /// assert_eq!(state.spectral(SpectralNaming::Hook, "fc", "weight", 0)?, values);
    /// assert!(state.spectral(SpectralNaming::Parametrization, "fc", "weight", 0).is_err());
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    pub fn spectral(
        &self,
        naming: SpectralNaming,
        layer: &str,
        parameter: &str,
        axis: usize,
    ) -> Result<SpectralValues> {
        let [weight_key, u_key, v_key] = naming.keys(layer, parameter);
        let (shape, weight) = self.values_of(&weight_key, None)?;
        let Some(&rows) = shape.get(axis).filter(|&&rows| rows > 0 && shape.len() > 1) else {
            let expected = format!("a shape of 2 axes or more with values along axis {axis}");
            return Err(Error::StateTensor(Mismatch::new(weight_key, expected, format!("{shape:?}"))));
        };
        let (_, u) = self.values_of(&u_key, Some(&[rows]))?;
        let (_, v) = self.values_of(&v_key, Some(&[weight.len() / rows]))?;
        Ok(SpectralValues { shape, weight, u, v })
    }

    /// Puts a weight with its vectors into the state: replaces the tensors that are there, and adds the others.
    ///
    /// # Errors
    /// [`Error::StateTensor`] for one that has another shape, or whose element type lacks values; [`Error::Length`] for a weight of other than its shape's values; [`Error::Number`] for a u and v that are not its rows and columns;
    /// [`Error::Naming`]. The state is as it was then.
    pub fn set_spectral(
        &mut self,
        naming: SpectralNaming,
        layer: &str,
        parameter: &str,
        values: &SpectralValues,
        options: &SaveOptions,
    ) -> Result<()> {
        let SpectralValues { shape, weight, u, v } = values;
        let (of, got) = (Shape::new(shape)?, weight.len() as u64);
        if of.len() != got {
            return Err(Error::Length { what: "a weight", shape: of, expected: of.len(), got });
        }
        if u.len() as u64 * v.len() as u64 != got || !shape.contains(&u.len()) {
            let (what, expected) = (
                "values of v, with those of u the rows and columns of the weight,",
                weight.len() / u.len().max(1),
            );
            return Err(Error::Number { what, expected, got: v.len() });
        }
        let [weight_key, u_key, v_key] = naming.keys(layer, parameter);
        let mut save = Save::new(self, options);
        save.tensor(weight_key, shape, weight)?;
        save.tensor(u_key, &[u.len()], u)?;
        save.tensor(v_key, &[v.len()], v)?;
        let staged = save.staged;
        self.put_all(staged);
        Ok(())
    }
}
