//! The batch-norm layers of a file, found by their running statistics.

use std::collections::BTreeSet;

use super::float::FloatType;
use super::load::LayerSpec;
use super::model::ModelState;
use super::naming::Naming;
use crate::base::error::Result;
use crate::base::report::Mismatch;
use crate::norm::BatchNormOptions;
use crate::pass::Affine;

/// A batch-norm layer of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundLayer {
    /// What stands before the names of its tensors, without separator.
    pub name: String,
    /// Number of channels.
    pub channels: usize,
    /// Element type of the running mean.
    pub mean: FloatType,
    /// Element type of the running variance.
    pub var: FloatType,
    /// Element type of gamma, if there is one.
    pub gamma: Option<FloatType>,
    /// Element type of beta, if there is one.
    pub beta: Option<FloatType>,
    /// Number of batches, if the file has it.
    pub batches: Option<u32>,
}

impl FoundLayer {
    /// Which affine parameters it has.
    pub fn affine(&self) -> Affine {
        Affine::of(self.gamma.is_some(), self.beta.is_some())
    }

    /// This layer to be loaded, with the affine parameters that the options call for: one that the file lacks is then missing, as it is where layers are split over
    /// several files. For those that the file has, whatever they are: `options.affine(layer.affine())`.
    pub fn spec(&self, options: BatchNormOptions) -> LayerSpec {
        LayerSpec::new(&self.name, self.channels, options)
    }
}

/// The batch-norm layers of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundLayers {
    /// Those that can be loaded, by name.
    pub layers: Vec<FoundLayer>,
    /// What has the names of one and is none that can be loaded, and why.
    pub refused: Vec<Mismatch>,
}

impl FoundLayers {
    /// All layers to be loaded, with the affine parameters that any of them has: where a layer lacks one that its siblings have, it is missing.
    pub fn specs(&self, options: BatchNormOptions) -> Vec<LayerSpec> {
        let any = |has: fn(Affine) -> bool| self.layers.iter().any(|layer| has(layer.affine()));
        let affine = Affine::of(any(Affine::has_gamma), any(Affine::has_beta));
        self.layers.iter().map(|layer| layer.spec(options.affine(affine))).collect()
    }
}

impl ModelState {
    /// The batch-norm layers: whatever has a running mean and a running variance of one value per channel, by these
    /// names. Layers without running statistics look like any other affine layer and are not found; instance norm with running
    /// statistics looks like batch norm and is.
    ///
    /// # Errors
    /// [`Error::Naming`](crate::Error::Naming).
    pub fn layers(&self, naming: &Naming) -> Result<FoundLayers> {
        naming.check()?;
        let names: BTreeSet<&str> = self.archive.iter().filter_map(|(key, _)| naming.layer_of(key)).collect();
        let mut found = FoundLayers::default();
        for name in names {
            match self.layer(naming, name) {
                Ok(layer) => found.layers.push(layer),
                Err(mismatch) => found.refused.push(mismatch),
            }
        }
        Ok(found)
    }

    fn layer(&self, naming: &Naming, name: &str) -> Result<FoundLayer, Mismatch> {
        let required = |key: String, channels| match self.per_channel(&key, channels)? {
            Some((float, tensor)) => Ok((float, tensor.shape[0])),
            None => Err(Mismatch::new(key, "a tensor, because the other running statistic is there", "none")),
        };
        let optional = |key: String, channels| {
            self.per_channel(&key, Some(channels)).map(|tensor| tensor.map(|(float, _)| float))
        };
        let (mean, channels) = required(naming.mean_key(name), None)?;
        Ok(FoundLayer {
            name: name.to_owned(),
            channels,
            mean,
            var: required(naming.var_key(name), Some(channels))?.0,
            gamma: optional(naming.gamma_key(name), channels)?,
            beta: optional(naming.beta_key(name), channels)?,
            batches: match naming.batches_key(name) {
                Some(key) => self.counter(&key)?,
                None => None,
            },
        })
    }
}
