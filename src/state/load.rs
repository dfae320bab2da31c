//! Loading: layers that are asked for, from the tensors of a file, with a report.

use std::collections::HashSet;

use super::convert::{Rebias, rebias};
use super::model::ModelState;
use super::naming::Naming;
use super::values::LayerValues;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::report::{LoadReport, Mismatch};
use crate::engine::context::Context;
use crate::norm::{BatchNorm, BatchNormOptions, Momentum};
use crate::statistics::running::RunningValues;

/// A layer to be loaded.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayerSpec {
    /// Its name in the file.
    pub name: String,
    /// Number of channels.
    pub channels: usize,
    /// What it is made with; `affine` says which parameters it needs.
    pub options: BatchNormOptions,
    /// Element type of gamma and beta on the GPU; 16-bit types round them, and are for activations of that type.
    pub parameters: DType,
    /// What to do if the file's running variance and that of `options` are not the same.
    pub rebias: Rebias,
    /// What its counter of batches starts with where the file has none.
    pub batches: Option<u32>,
}

impl LayerSpec {
    /// A layer with f32 parameters, whose running variance is the file's.
    pub fn new(name: impl Into<String>, channels: usize, options: BatchNormOptions) -> Self {
        let (parameters, rebias, batches) = (DType::F32, Rebias::Refuse, None);
        Self { name: name.into(), channels, options, parameters, rebias, batches }
    }

    /// Sets the element type of gamma and beta on the GPU.
    #[must_use]
    pub fn parameters(mut self, parameters: DType) -> Self {
        self.parameters = parameters;
        self
    }

    /// Sets what to do if the file's running variance is another.
    #[must_use]
    pub fn rebias(mut self, rebias: Rebias) -> Self {
        self.rebias = rebias;
        self
    }

    /// Sets what the counter of batches starts with where the file has none. A cumulative average needs it: with 0 it starts anew,
    /// and the first batch replaces what was loaded.
    #[must_use]
    pub fn batches(mut self, batches: u32) -> Self {
        self.batches = Some(batches);
        self
    }
}

/// What loading accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Whether missing and unexpected tensors are errors; mismatched ones always are.
    pub strict: bool,
    /// A beginning of names under which everything must be a tensor of a layer that is loaded.
    pub nothing_else_under: Option<String>,
    /// Whether F64 values may be rounded to f32.
    pub allow_rounding: bool,
}

impl LoadOptions {
    /// As PyTorch's `strict=True`: missing and unexpected tensors are errors.
    pub const fn strict() -> Self {
        Self { strict: true, nothing_else_under: None, allow_rounding: false }
    }

    /// As PyTorch's `strict=False`: they are only reported. Missing parameters and statistics start as in a new layer.
    pub const fn lenient() -> Self {
        Self { strict: false, nothing_else_under: None, allow_rounding: false }
    }

    /// Makes all tensors whose names begin so, and which belong to no layer that is loaded, unexpected. With "" that is
    /// the whole file.
    #[must_use]
    pub fn nothing_else_under(mut self, prefix: impl Into<String>) -> Self {
        self.nothing_else_under = Some(prefix.into());
        self
    }

    /// Allows F64 values that f32 lacks; they are rounded to the nearest, and reported.
    #[must_use]
    pub const fn allow_rounding(mut self, allow: bool) -> Self {
        self.allow_rounding = allow;
        self
    }
}

impl ModelState {
    /// Layers on the GPU, in the order of `specs`; `freeze` them for inference.
    ///
    /// # Errors
    /// As [`values`](Self::values), before anything is allocated, and those of an allocation.
    pub async fn load(
        &self,
        context: &Context,
        naming: &Naming,
        specs: &[LayerSpec],
        options: &LoadOptions,
    ) -> Result<(Vec<BatchNorm>, LoadReport)> {
        let (values, report) = self.values(naming, specs, options)?;
        let mut layers = Vec::new();
        for (spec, values) in specs.iter().zip(values) {
            layers.push(values.upload(context, spec.options, spec.parameters).await?);
        }
        Ok((layers, report))
    }

    /// One layer on the GPU, all of whose tensors must be there.
    ///
    /// # Errors
    /// As [`load`](Self::load) with [`LoadOptions::strict`].
    pub async fn load_layer(
        &self,
        context: &Context,
        naming: &Naming,
        spec: &LayerSpec,
    ) -> Result<BatchNorm> {
        let specs = std::slice::from_ref(spec);
        let (mut layers, _) = self.load(context, naming, specs, &LoadOptions::strict()).await?;
        // One spec, one layer.
        layers.pop().ok_or(Error::Empty { what: "a load" })
    }

    /// Layers on the host, in the order of `specs` and in the conventions of their options.
    ///
    /// # Errors
    /// [`Error::LoadState`] with the whole report: for mismatched tensors, and if strict for missing and unexpected ones.
    /// [`Error::Naming`]; [`Error::DuplicateName`] for two layers of one name; [`Error::Channels`], [`Error::Epsilon`],
    /// [`Error::Momentum`] of a spec; [`Error::VarianceConvention`], [`Error::VarianceCount`], [`Error::Conversion`] for a
    /// running variance; [`Error::TooLarge`] for more than 2^28 channels.
    pub fn values(
        &self,
        naming: &Naming,
        specs: &[LayerSpec],
        options: &LoadOptions,
    ) -> Result<(Vec<LayerValues>, LoadReport)> {
        naming.check()?;
        let mut load =
            Load { state: self, naming, options, report: LoadReport::default(), used: HashSet::new() };
        for spec in specs {
            load.check(spec)?;
        }
        let mut layers = Vec::new();
        for spec in specs {
            layers.push(load.layer(spec)?);
        }
        load.find_unexpected(specs);
        let report = load.report;
        let strict = options.strict && !(report.missing.is_empty() && report.unexpected.is_empty());
        if strict || !report.mismatched.is_empty() {
            return Err(Error::LoadState(Box::new(report)));
        }
        for (spec, layer) in specs.iter().zip(&mut layers) {
            let count = match spec.rebias {
                _ if report.missing.contains(&naming.var_key(&spec.name)) => continue,
                Rebias::Refuse | Rebias::Keep => continue,
                Rebias::Count(count) => Some(count),
            };
            let (from, to) = (naming.variance(), spec.options.running_variance);
            layer.running.var = rebias(&layer.running.var, from, to, count)?;
        }
        Ok((layers, report))
    }
}

/// 1 GiB for each tensor of a layer.
const MOST_CHANNELS: usize = 1 << 28;

/// A load in progress.
struct Load<'a> {
    state: &'a ModelState,
    naming: &'a Naming,
    options: &'a LoadOptions,
    report: LoadReport,
    /// Tensors that layers need.
    used: HashSet<String>,
}

impl Load<'_> {
    /// What is wrong with a spec whatever the file holds; notes the tensors that it needs.
    fn check(&mut self, spec: &LayerSpec) -> Result<()> {
        let LayerSpec { name, channels, options, .. } = spec;
        if *channels == 0 {
            return Err(Error::Channels { what: "a layer to load", expected: 1, got: 0 });
        }
        // Missing tensors are made here, in the size that the caller names.
        if *channels > MOST_CHANNELS {
            return Err(Error::TooLarge {
                what: "a layer to load",
                needed: *channels as u64,
                unit: "channels",
                limit_name: "limit of loading",
                limit: MOST_CHANNELS as u64,
            });
        }
        options.check()?;
        let (from, to) = (self.naming.variance(), options.running_variance);
        if from != to && spec.rebias == Rebias::Refuse {
            return Err(Error::VarianceConvention { layer: format!("{name:?}"), from, to });
        }
        let gamma = options.affine.has_gamma().then(|| self.naming.gamma_key(name));
        let beta = options.affine.has_beta().then(|| self.naming.beta_key(name));
        let statistics = [self.naming.mean_key(name), self.naming.var_key(name)];
        for key in statistics.into_iter().chain(gamma).chain(beta).chain(self.naming.batches_key(name)) {
            if let Some(name) = self.used.replace(key) {
                return Err(Error::DuplicateName { name });
            }
        }
        Ok(())
    }

    fn layer(&mut self, spec: &LayerSpec) -> Result<LayerValues> {
        let LayerSpec { name, channels, options, .. } = spec;
        let (naming, affine) = (self.naming, options.affine);
        let gamma = affine.has_gamma().then(|| self.tensor(naming.gamma_key(name), *channels, 1.0));
        let beta = affine.has_beta().then(|| self.tensor(naming.beta_key(name), *channels, 0.0));
        let mean = self.tensor(naming.mean_key(name), *channels, 0.0);
        let var = self.tensor(naming.var_key(name), *channels, 1.0);
        let running = RunningValues { mean, var, batches: self.batches(spec) };
        Ok(LayerValues { gamma, beta, running, running_variance: options.running_variance })
    }

    /// The values of a tensor; those of a new layer, and an entry in the report, where it is not as it should be.
    fn tensor(&mut self, key: String, channels: usize, initial: f32) -> Vec<f32> {
        let (float, tensor) = match self.state.per_channel(&key, Some(channels)) {
            Ok(Some(found)) => found,
            Ok(None) => {
                self.report.missing.push(key);
                return if self.options.strict { Vec::new() } else { vec![initial; channels] };
            }
            Err(mismatch) => {
                self.report.mismatched.push(mismatch);
                return Vec::new();
            }
        };
        let (values, rounded) = float.decode(&tensor.data);
        if rounded && !self.options.allow_rounding {
            let expected = "values that f32 has (or LoadOptions::allow_rounding)";
            self.report.mismatched.push(Mismatch::new(
                &key,
                expected,
                format!("{float} values that it lacks"),
            ));
        }
        if rounded {
            self.report.rounded.push(key);
        }
        values
    }

    fn batches(&mut self, spec: &LayerSpec) -> u32 {
        let key = self.naming.batches_key(&spec.name);
        let found = key.as_ref().map_or(Ok(None), |key| self.state.counter(key));
        match found {
            Ok(Some(batches)) => return batches,
            Ok(None) => self.report.uncounted.push(spec.name.clone()),
            Err(mismatch) => self.report.mismatched.push(mismatch),
        }
        if spec.batches.is_none() && spec.options.momentum == Momentum::Cumulative {
            let expected = "a number of batches for a cumulative average (or LayerSpec::batches)";
            let key = key.unwrap_or_else(|| spec.name.clone());
            if !self.report.mismatched.iter().any(|mismatch| mismatch.key == key) {
                self.report.mismatched.push(Mismatch::new(key, expected, "none"));
            }
        }
        spec.batches.unwrap_or(0)
    }

    fn find_unexpected(&mut self, specs: &[LayerSpec]) {
        let asked: HashSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let under = self.options.nothing_else_under.as_deref();
        for (key, _) in self.state.archive.iter().filter(|(key, _)| !self.used.contains(*key)) {
            let within = || self.naming.layers_around(key).iter().any(|layer| asked.contains(layer));
            if under.is_some_and(|under| key.starts_with(under)) || within() {
                self.report.unexpected.push(key.to_owned());
            }
        }
    }
}
