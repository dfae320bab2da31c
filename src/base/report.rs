//! What loading found: the keys that are missing, unexpected or other than they should be.

use std::fmt;

/// A tensor of a file that is not what a layer needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Its name.
    pub key: String,
    /// What the layer needs.
    pub expected: String,
    /// What the file has.
    pub got: String,
}

impl Mismatch {
    pub(crate) fn new(key: impl Into<String>, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Self { key: key.into(), expected: expected.to_string(), got: got.to_string() }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: expected {}, got {}", self.key, self.expected, self.got)
    }
}

/// What loading found, as PyTorch's `load_state_dict` tells it, and more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Tensors that layers need and the file lacks. What they are for starts as in a new layer.
    pub missing: Vec<String>,
    /// Tensors of the file that lie in a layer that was asked for, or under
    /// [`LoadOptions::nothing_else_under`](crate::state::LoadOptions::nothing_else_under), and that nothing was loaded from.
    pub unexpected: Vec<String>,
    /// Tensors of another shape or type than layers need: always an error.
    pub mismatched: Vec<Mismatch>,
    /// Tensors whose values were rounded to f32.
    pub rounded: Vec<String>,
    /// Layers whose number of batches the file does not have; it is that of
    /// [`LayerSpec::batches`](crate::state::LayerSpec::batches), else 0. PyTorch does not count it as missing either.
    pub uncounted: Vec<String>,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (what, keys) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if !keys.is_empty() {
                parts.push(format!("{what} {keys:?}"));
            }
        }
        parts.extend(self.mismatched.iter().map(Mismatch::to_string));
        match parts.is_empty() {
            true => f.write_str("all tensors found"),
            false => f.write_str(&parts.join("; ")),
        }
    }
}
