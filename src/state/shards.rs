//! A model in several files: `model.safetensors.index.json` says which file has which tensor.
//!
//! Format: that of `transformers`, `{"metadata": {…}, "weight_map": {tensor: file}}`, files beside the index.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::header::refused;
use super::model::ModelState;
use crate::base::error::Result;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl ModelState {
    /// The state of a model in several files, from its index and what reads a file by the name that the index has for it. Written again, it is one file.
    ///
    /// # Errors
    /// [`Error::StateFile`](crate::Error::StateFile) for an index that is none, names a file outside of its folder, or a tensor that its file lacks; for a tensor that
    /// several files have; those of [`from_bytes`](Self::from_bytes) with the name of the file, and of `read`.
    ///
    /// ```
    /// use wgnorm::state::ModelState;
    /// # let shard = ModelState::new().to_bytes().into_owned();
    /// let index = br#"{"metadata": {"total_size": 0}, "weight_map": {}}"#;
    /// let state = ModelState::from_shards(index, |name| Ok(std::fs::read(name).unwrap_or_default()))?;
    /// assert!(state.tensors().is_empty());
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    pub fn from_shards(index: &[u8], mut read: impl FnMut(&str) -> Result<Vec<u8>>) -> Result<Self> {
        let Index { weight_map } = serde_json::from_slice(index)
            .map_err(|error| refused(format_args!("it is no index of shards: {error}")))?;
        let files: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
        let mut all = Self::new();
        for &file in &files {
            if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', ':', '\0']) {
                return Err(refused(format_args!("{file:?} is no file beside the index")));
            }
            let shard =
                Self::from_bytes(read(file)?).map_err(|error| refused(format_args!("{file:?}: {error}")))?;
            all.archive.join(shard.archive).map_err(|name| {
                refused(format_args!("several files have {name:?}, {file:?} the last of them"))
            })?;
        }
        let lacking = weight_map.iter().find(|(name, _)| all.archive.get(name).is_none());
        match lacking {
            None => Ok(all),
            Some((name, file)) => {
                Err(refused(format_args!("{file:?} lacks {name:?}, which the index has there")))
            }
        }
    }
}
