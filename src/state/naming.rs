//! The names that frameworks give to the tensors of a layer, and what they mean by them.

use std::borrow::Cow;

use super::convert::{weight_of_new, weight_of_old};
use crate::base::error::{Error, Result};
use crate::base::variance::RunningVariance;
use crate::norm::{BatchNormOptions, Momentum};

/// A framework whose conventions are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Framework {
    /// `torch.nn.BatchNorm1d`, `2d`, `3d` and `SyncBatchNorm`.
    PyTorch,
    /// `keras.layers.BatchNormalization` of Keras 3.
    Keras,
    /// `flax.linen.BatchNorm`.
    Flax,
    /// `burn::nn::BatchNorm`.
    Burn,
}

impl Framework {
    /// All of them.
    pub const ALL: [Framework; 4] = [Self::PyTorch, Self::Keras, Self::Flax, Self::Burn];

    /// Its names.
    pub fn naming(self) -> Naming {
        match self {
            Self::PyTorch => Naming::pytorch(),
            Self::Keras => Naming::keras(),
            Self::Flax => Naming::flax(),
            Self::Burn => Naming::burn(),
        }
    }

    /// Its default options.
    pub const fn options(self) -> BatchNormOptions {
        match self {
            Self::PyTorch => BatchNormOptions::pytorch(),
            Self::Keras => BatchNormOptions::keras(),
            Self::Flax => BatchNormOptions::flax(),
            Self::Burn => BatchNormOptions::burn(),
        }
    }

    /// What this framework's number `momentum` means.
    ///
    /// ```
    /// use wgnorm::{Momentum, state::Framework};
    /// assert_eq!(Framework::PyTorch.meaning(0.1), Momentum::WeightOfNew(0.1));
    /// assert_eq!(Framework::Keras.meaning(0.9), Momentum::WeightOfOld(0.9));
    /// ```
    pub const fn meaning(self, momentum: f64) -> Momentum {
        match self {
            Self::PyTorch | Self::Burn => Momentum::WeightOfNew(momentum),
            Self::Keras | Self::Flax => Momentum::WeightOfOld(momentum),
        }
    }

    /// The number that this framework calls `momentum`; `None` is PyTorch's for a cumulative average.
    ///
    /// # Errors
    /// [`Error::Momentum`]; [`Error::Conversion`] for a cumulative average elsewhere, and as [`weight_of_new`] and
    /// [`weight_of_old`].
    ///
    /// ```
    /// use wgnorm::{Momentum, state::Framework};
    /// assert_eq!(Framework::Flax.momentum(Momentum::WeightOfNew(0.25))?, Some(0.75));
    /// assert_eq!(Framework::PyTorch.momentum(Momentum::Cumulative)?, None);
    /// assert!(Framework::Flax.momentum(Momentum::Cumulative).is_err());
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    pub fn momentum(self, momentum: Momentum) -> Result<Option<f64>> {
        match (self, momentum) {
            (Self::PyTorch, Momentum::Cumulative) => Ok(None),
            (Self::PyTorch | Self::Burn, _) => weight_of_new(momentum).map(Some),
            (Self::Keras | Self::Flax, _) => weight_of_old(momentum).map(Some),
        }
    }
}

type Text = Cow<'static, str>;

/// The names of a layer's tensors in a file, and which variance the running one is.
///
/// A tensor is called by its collection, if there is one, the layer and the tensor itself, with separators between:
/// `batch_stats.stem.bn.mean`. A layer without a name, of a model that is one layer, adds nothing.
///
/// ```
/// use wgnorm::{RunningVariance, state::Naming};
/// // Flax's nested state, flattened with slashes.
/// let flax = Naming::flax().separator("/");
/// assert_eq!(flax.gamma_key("stem/bn"), "params/stem/bn/scale");
/// assert_eq!(flax.mean_key("stem/bn"), "batch_stats/stem/bn/mean");
/// // One's own.
/// let own = Naming::custom("g", "b", "mu", "sigma2", RunningVariance::Biased);
/// assert_eq!(own.var_key("bn1"), "bn1.sigma2");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    gamma: Text,
    beta: Text,
    mean: Text,
    var: Text,
    batches: Option<Text>,
    separator: Text,
    /// What stands before the names of parameters and statistics; may be empty.
    collections: [Text; 2],
    variance: RunningVariance,
}

impl Naming {
    fn new(names: [&'static str; 4], separator: &'static str, variance: RunningVariance) -> Self {
        let [gamma, beta, mean, var] = names;
        Self {
            gamma: Cow::Borrowed(gamma),
            beta: Cow::Borrowed(beta),
            mean: Cow::Borrowed(mean),
            var: Cow::Borrowed(var),
            batches: None,
            separator: Cow::Borrowed(separator),
            collections: [Cow::Borrowed(""), Cow::Borrowed("")],
            variance,
        }
    }

    /// PyTorch's `state_dict`: `bn1.weight`, `bn1.bias`, `bn1.running_mean`, `bn1.running_var` (unbiased),
    /// `bn1.num_batches_tracked`. Instance norm with running statistics has the same names.
    pub fn pytorch() -> Self {
        let names = ["weight", "bias", "running_mean", "running_var"];
        Self::new(names, ".", RunningVariance::Unbiased).batches("num_batches_tracked")
    }

    /// Keras 3's `variable.path`: `bn1/gamma`, `bn1/beta`, `bn1/moving_mean`, `bn1/moving_variance` (biased; files of Keras 2,
    /// whose fused operation was TensorFlow's, hold the unbiased one: [`running_variance`](Self::running_variance)).
    pub fn keras() -> Self {
        Self::new(["gamma", "beta", "moving_mean", "moving_variance"], "/", RunningVariance::Biased)
    }

    /// The variables of `flax.linen`, flattened with dots as `transformers` does: `params.bn1.scale`, `params.bn1.bias`,
    /// `batch_stats.bn1.mean`, `batch_stats.bn1.var` (biased). For `sep='/'` see [`separator`](Self::separator), for `nnx`,
    /// which has no collections, [`collections`](Self::collections).
    pub fn flax() -> Self {
        let names = ["scale", "bias", "mean", "var"];
        Self::new(names, ".", RunningVariance::Biased).collections("params", "batch_stats")
    }

    /// burn's `SafetensorsStore`: `bn1.gamma`, `bn1.beta`, `bn1.running_mean`, `bn1.running_var` (biased). With its adapter for
    /// PyTorch it writes PyTorch's names and still the biased variance:
    /// `Naming::pytorch().running_variance(RunningVariance::Biased)`.
    pub fn burn() -> Self {
        Self::new(["gamma", "beta", "running_mean", "running_var"], ".", RunningVariance::Biased)
    }

    /// Any names, separated by dots.
    pub fn custom(
        gamma: impl Into<Cow<'static, str>>,
        beta: impl Into<Cow<'static, str>>,
        mean: impl Into<Cow<'static, str>>,
        var: impl Into<Cow<'static, str>>,
        variance: RunningVariance,
    ) -> Self {
        let unnamed = Self::new([""; 4], ".", variance);
        Self { gamma: gamma.into(), beta: beta.into(), mean: mean.into(), var: var.into(), ..unnamed }
    }

    /// Sets the name of the number of batches, an I64 scalar.
    #[must_use]
    pub fn batches(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.batches = Some(name.into());
        self
    }

    /// Sets what stands between collection, layer and tensor.
    #[must_use]
    pub fn separator(mut self, separator: impl Into<Cow<'static, str>>) -> Self {
        self.separator = separator.into();
        self
    }

    /// Sets what stands before the names of parameters and of statistics; nothing if empty.
    #[must_use]
    pub fn collections(
        mut self,
        parameters: impl Into<Cow<'static, str>>,
        statistics: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.collections = [parameters.into(), statistics.into()];
        self
    }

    /// Sets which variance the running one in files is.
    #[must_use]
    pub fn running_variance(mut self, variance: RunningVariance) -> Self {
        self.variance = variance;
        self
    }

    /// Which variance the running one in files is.
    pub fn variance(&self) -> RunningVariance {
        self.variance
    }

    /// The name of a layer's gamma.
    pub fn gamma_key(&self, layer: &str) -> String {
        self.key(0, layer, &self.gamma)
    }

    /// The name of a layer's beta.
    pub fn beta_key(&self, layer: &str) -> String {
        self.key(0, layer, &self.beta)
    }

    /// The name of a layer's running mean.
    pub fn mean_key(&self, layer: &str) -> String {
        self.key(1, layer, &self.mean)
    }

    /// The name of a layer's running variance.
    pub fn var_key(&self, layer: &str) -> String {
        self.key(1, layer, &self.var)
    }

    /// The name of a layer's number of batches, if there is one in files.
    pub fn batches_key(&self, layer: &str) -> Option<String> {
        self.batches.as_ref().map(|batches| self.key(1, layer, batches))
    }

    /// The layer to whose running mean or variance a tensor of this name belongs.
    pub(super) fn layer_of<'k>(&self, key: &'k str) -> Option<&'k str> {
        let rest = key.strip_prefix(self.before(1).as_str())?;
        [&self.mean, &self.var].into_iter().find_map(|name| {
            let before = rest.strip_suffix(name.as_ref())?;
            match before.is_empty() {
                true => Some(before),
                false => before.strip_suffix(self.separator.as_ref()).filter(|layer| !layer.is_empty()),
            }
        })
    }

    /// The layers in which a tensor of this name would lie: all that its name begins with.
    pub(super) fn layers_around<'k>(&self, key: &'k str) -> Vec<&'k str> {
        let mut layers = Vec::new();
        for collection in 0..2 {
            let Some(rest) = key.strip_prefix(self.before(collection).as_str()) else { continue };
            layers.extend(rest.match_indices(self.separator.as_ref()).map(|(end, _)| &rest[..end]));
            if !rest.contains(self.separator.as_ref()) {
                layers.push("");
            }
        }
        layers
    }

    /// # Errors
    /// [`Error::Naming`] if two tensors of a layer would have the same name, or none.
    pub(super) fn check(&self) -> Result<()> {
        let refused = |reason: String| Err(Error::Naming { reason });
        if self.separator.is_empty() {
            return refused("the separator is empty".into());
        }
        let mut names = vec![(0, &self.gamma), (0, &self.beta), (1, &self.mean), (1, &self.var)];
        names.extend(self.batches.iter().map(|name| (1, name)));
        for (index, &(collection, name)) in names.iter().enumerate() {
            if name.is_empty() {
                return refused("a name is empty".into());
            }
            let same = |&&(other, other_name): &&(usize, &Text)| {
                other_name == name && self.collections[other] == self.collections[collection]
            };
            if names[..index].iter().find(same).is_some() {
                return refused(format!("two tensors have the name {name:?}"));
            }
        }
        Ok(())
    }

    fn before(&self, collection: usize) -> String {
        match &self.collections[collection] {
            none if none.is_empty() => String::new(),
            collection => format!("{collection}{}", self.separator),
        }
    }

    fn key(&self, collection: usize, layer: &str, name: &str) -> String {
        let separator = if layer.is_empty() { "" } else { &self.separator };
        format!("{}{layer}{separator}{name}", self.before(collection))
    }
}
