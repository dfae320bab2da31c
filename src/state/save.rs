//! Saving: the values of layers into the tensors of a file, all of them or none.

use std::borrow::Cow;
use std::collections::HashSet;

use safetensors::tensor::Dtype;

use super::archive::Stored;
use super::count;
use super::float::FloatType;
use super::header::METADATA;
use super::model::ModelState;
use super::naming::Naming;
use super::values::LayerValues;
use crate::base::error::{Error, Result};
use crate::base::report::Mismatch;
use crate::base::variance::RunningVariance;
use crate::engine::context::Context;
use crate::engine::tensor::Tensor;
use crate::norm::{BatchNorm, FrozenBatchNorm};
use crate::statistics::running::RunningStatistics;

/// A layer to be saved, in training or frozen.
#[derive(Clone, Copy, Debug)]
pub struct LayerRef<'a> {
    pub(super) gamma: Option<&'a Tensor>,
    pub(super) beta: Option<&'a Tensor>,
    pub(super) running: &'a RunningStatistics,
    pub(super) variance: RunningVariance,
}

impl<'a> From<&'a BatchNorm> for LayerRef<'a> {
    fn from(layer: &'a BatchNorm) -> Self {
        let variance = layer.options().running_variance;
        Self { gamma: layer.gamma(), beta: layer.beta(), running: layer.running(), variance }
    }
}

impl<'a> From<&'a FrozenBatchNorm> for LayerRef<'a> {
    fn from(layer: &'a FrozenBatchNorm) -> Self {
        let variance = layer.options().running_variance;
        Self { gamma: layer.gamma(), beta: layer.beta(), running: layer.running(), variance }
    }
}

/// How values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SaveOptions {
    /// The element type of parameters and statistics; `None` is that of the tensor that is replaced, F32 for a new one.
    pub float: Option<FloatType>,
    /// Whether values may be rounded to an element type that lacks them.
    pub allow_rounding: bool,
}

impl SaveOptions {
    /// Sets the element type.
    #[must_use]
    pub const fn float(mut self, float: FloatType) -> Self {
        self.float = Some(float);
        self
    }

    /// Allows rounding to the nearest values of the element type.
    #[must_use]
    pub const fn allow_rounding(mut self, allow: bool) -> Self {
        self.allow_rounding = allow;
        self
    }
}

impl ModelState {
    /// Puts layers into the state, with the values that they have after everything that was submitted before.
    ///
    /// # Errors
    /// As [`set`](Self::set) and [`LayerValues::download`]; the state is as it was then.
    pub async fn save(
        &mut self,
        context: &Context,
        naming: &Naming,
        layers: &[(&str, LayerRef<'_>)],
        options: &SaveOptions,
    ) -> Result<()> {
        let mut values = Vec::new();
        for &(name, layer) in layers {
            values.push((name, LayerValues::download(context, layer).await?));
        }
        let layers: Vec<_> = values.iter().map(|(name, values)| (*name, values)).collect();
        self.set(naming, &layers, options)
    }

    /// Puts layers into the state: replaces the tensors that are there and adds the others. Tensors whose values are the same
    /// stay as they are, to the byte. A number of batches is stored where the naming has one; an absent one stays absent while it is 0.
    ///
    /// # Errors
    /// [`Error::VarianceConvention`] unless the values' running variance is the naming's ([`LayerValues::rebias`]);
    /// [`Error::StateTensor`] for a tensor in the state that has another shape or no float type, that the layer lacks
    /// ([`remove`](Self::remove) it), or whose element type lacks values; [`Error::Naming`], [`Error::DuplicateName`], [`Error::Channels`],
    /// [`Error::Length`]. The state is as it was then.
    pub fn set(
        &mut self,
        naming: &Naming,
        layers: &[(&str, &LayerValues)],
        options: &SaveOptions,
    ) -> Result<()> {
        naming.check()?;
        let mut save = Save::new(self, options);
        for (name, values) in layers {
            save.layer(naming, name, values)?;
        }
        let staged = save.staged;
        self.put_all(staged);
        Ok(())
    }

    /// Puts what is known to fit.
    pub(super) fn put_all(&mut self, staged: Vec<(String, Stored<'static>)>) {
        for (key, tensor) in staged {
            self.archive.put(key, tensor);
        }
    }
}

/// A save in progress: nothing is put until all is known to fit.
pub(super) struct Save<'a> {
    state: &'a ModelState,
    options: &'a SaveOptions,
    seen: HashSet<String>,
    pub staged: Vec<(String, Stored<'static>)>,
}

impl<'a> Save<'a> {
    pub fn new(state: &'a ModelState, options: &'a SaveOptions) -> Self {
        Self { state, options, seen: HashSet::new(), staged: Vec::new() }
    }
}

impl Save<'_> {
    fn layer(&mut self, naming: &Naming, name: &str, values: &LayerValues) -> Result<()> {
        values.check()?;
        let (from, to) = (values.running_variance, naming.variance());
        if from != to {
            return Err(Error::VarianceConvention { layer: format!("{name:?}"), from, to });
        }
        let known = self.state.archive.get(&naming.mean_key(name)).is_some();
        self.parameter(naming.gamma_key(name), "gamma", values.gamma.as_deref())?;
        self.parameter(naming.beta_key(name), "beta", values.beta.as_deref())?;
        self.per_channel(naming.mean_key(name), &values.running.mean)?;
        self.per_channel(naming.var_key(name), &values.running.var)?;
        match naming.batches_key(name) {
            Some(key) => self.batches(key, values.running.batches, known),
            None => Ok(()),
        }
    }

    fn parameter(&mut self, key: String, what: &str, values: Option<&[f32]>) -> Result<()> {
        match (values, self.state.archive.get(&key)) {
            (Some(values), _) => self.per_channel(key, values),
            (None, None) => Ok(()),
            (None, Some(tensor)) => {
                let expected = format!("no such tensor, because the layer has no {what}");
                let got = format!("one of shape {:?}", tensor.shape);
                Err(Error::StateTensor(Mismatch::new(key, expected, got)))
            }
        }
    }

    fn per_channel(&mut self, key: String, values: &[f32]) -> Result<()> {
        self.tensor(key, &[values.len()], values)
    }

    /// A tensor of a shape.
    pub(super) fn tensor(&mut self, key: String, shape: &[usize], values: &[f32]) -> Result<()> {
        self.claim(&key)?;
        let existing = self.state.floats(&key, Some(shape)).map_err(Error::StateTensor)?;
        let of_existing = existing.as_ref().map(|(float, _)| *float);
        let float = self.options.float.or(of_existing).unwrap_or(FloatType::F32);
        if let Some((_, tensor)) = existing.filter(|(existing, _)| *existing == float) {
            // Also what was rounded on its way to the layer, and the payloads of NaN.
            let (held, _) = float.decode(&tensor.data);
            if held.iter().zip(values).all(|(held, value)| held.to_bits() == value.to_bits()) {
                return Ok(());
            }
        }
        let (data, rounded) = float.encode(values);
        if rounded && !self.options.allow_rounding {
            let expected = format!("values that {float} has (or SaveOptions::allow_rounding)");
            return Err(Error::StateTensor(Mismatch::new(key, expected, "F32 values that it lacks")));
        }
        self.stage(key, float.dtype(), shape.to_vec(), data);
        Ok(())
    }

    fn batches(&mut self, key: String, batches: u32, known: bool) -> Result<()> {
        self.claim(&key)?;
        match self.state.scalar(&key).map_err(Error::StateTensor)? {
            Some(existing) if existing == i64::from(batches) => return Ok(()),
            None if known && batches == 0 => return Ok(()),
            _ => {}
        }
        let (dtype, shape) = match self.state.archive.get(&key) {
            Some(tensor) => (tensor.dtype, tensor.shape.into_owned()),
            None => (Dtype::I64, Vec::new()),
        };
        let Some(data) = count::encode(dtype, batches) else {
            let expected = format!("a type that has {batches}; remove it, and an I64 takes its place");
            return Err(Error::StateTensor(Mismatch::new(key, expected, dtype)));
        };
        self.stage(key, dtype, shape, data);
        Ok(())
    }

    /// Every tensor is that of one layer.
    fn claim(&mut self, key: &str) -> Result<()> {
        if key == METADATA {
            return Err(Error::Naming { reason: format!("{key:?} is no tensor of a file") });
        }
        match self.seen.insert(key.to_owned()) {
            true => Ok(()),
            false => Err(Error::DuplicateName { name: key.to_owned() }),
        }
    }

    fn stage(&mut self, key: String, dtype: Dtype, shape: Vec<usize>, data: Vec<u8>) {
        self.staged.push((key, Stored { dtype, shape: Cow::Owned(shape), data: Cow::Owned(data) }));
    }
}
