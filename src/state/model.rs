//! The state of a model: the tensors of a safetensors file, and how single ones are read.

use std::borrow::Cow;

use super::archive::{Archive, Stored};
use super::count;
use super::float::FloatType;
use crate::base::error::Result;
use crate::base::report::Mismatch;

/// All tensors of a `safetensors` file, in memory, those of other layers than batch norm too.
///
/// What is not changed stays as it was, to the byte: values are replaced in place. Where tensors are added or removed, the file is
/// laid out anew, as the `safetensors` crate and its Python package do, its metadata in their order.
#[derive(Clone, Debug, Default)]
pub struct ModelState {
    pub(super) archive: Archive,
}

/// A tensor of a file, without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// Its element type, as the file writes it (`F32`, `I64`).
    pub dtype: String,
    /// Axis lengths; none for a scalar.
    pub shape: Vec<usize>,
}

impl ModelState {
    /// A state without tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// The state that a file holds.
    ///
    /// # Errors
    /// [`Error::StateFile`](crate::Error::StateFile) for anything that is not a whole safetensors file: a header that is
    /// cut short, not JSON, has two entries of one name, or whose tensors do not cover the data exactly.
    pub fn from_bytes(file: impl Into<Vec<u8>>) -> Result<Self> {
        Ok(Self { archive: Archive::read(file.into())? })
    }

    /// Reads a file; or all files of a model in several, if the path is that of their index (`model.safetensors.index.json`). One of several files alone holds
    /// layers in part: what a layer's options call for and the file lacks is missing.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File), and those of [`from_bytes`](Self::from_bytes) and [`from_shards`](Self::from_shards).
    #[cfg(not(target_family = "wasm"))]
    pub fn read(path: impl AsRef<std::path::Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = file(path)?;
        match path.extension().is_some_and(|extension| extension == "json") {
            true => Self::from_shards(&bytes, |name| file(&path.with_file_name(name))),
            false => Self::from_bytes(bytes),
        }
    }

    /// Writes a file, replacing the one that is there as a whole.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File); the file is as it was then.
    #[cfg(not(target_family = "wasm"))]
    pub fn write(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        crate::engine::file::replace(path.as_ref(), &self.to_bytes())
    }

    /// The file that holds this state.
    pub fn to_bytes(&self) -> Cow<'_, [u8]> {
        self.archive.write()
    }

    /// All tensors by name.
    pub fn tensors(&self) -> Vec<TensorEntry> {
        let entry = |(name, tensor): (&str, Stored<'_>)| TensorEntry {
            name: name.to_owned(),
            dtype: tensor.dtype.to_string(),
            shape: tensor.shape.into_owned(),
        };
        self.archive.iter().map(entry).collect()
    }

    /// Removes a tensor; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.archive.remove(name)
    }

    /// The file's `__metadata__`, in its order.
    pub fn metadata(&self) -> &[(String, String)] {
        self.archive.metadata()
    }

    /// Adds or replaces an entry of the metadata (`format` is `pt` in files that `transformers` loads).
    pub fn set_metadata(&mut self, key: &str, value: &str) {
        self.archive.set_metadata(key, value);
    }

    /// A tensor of one value per channel, of as many channels if that is known.
    pub(super) fn per_channel(
        &self,
        key: &str,
        channels: Option<usize>,
    ) -> Result<Option<(FloatType, Stored<'_>)>, Mismatch> {
        let Some(tensor) = self.archive.get(key) else { return Ok(None) };
        let fits = match (&*tensor.shape, channels) {
            ([got], Some(expected)) => *got == expected,
            ([got], None) => *got > 0,
            _ => false,
        };
        if !fits {
            let expected =
                channels.map_or("[C] with C at least 1".into(), |channels| format!("[{channels}]"));
            return Err(Mismatch::new(key, format!("shape {expected}"), format!("{:?}", tensor.shape)));
        }
        self.floats(key, None)
    }

    /// A tensor of a float type, of a shape if that is known.
    pub(super) fn floats(
        &self,
        key: &str,
        shape: Option<&[usize]>,
    ) -> Result<Option<(FloatType, Stored<'_>)>, Mismatch> {
        let Some(tensor) = self.archive.get(key) else { return Ok(None) };
        if let Some(expected) = shape.filter(|shape| *shape != &*tensor.shape) {
            return Err(Mismatch::new(key, format!("shape {expected:?}"), format!("{:?}", tensor.shape)));
        }
        match FloatType::of(tensor.dtype) {
            Some(float) => Ok(Some((float, tensor))),
            None => Err(Mismatch::new(key, FloatType::ACCEPTED, tensor.dtype)),
        }
    }

    /// A number of batches that layers can count, in 32 bits.
    pub(super) fn counter(&self, key: &str) -> Result<Option<u32>, Mismatch> {
        let Some(count) = self.scalar(key)? else { return Ok(None) };
        match u32::try_from(count) {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(Mismatch::new(key, format_args!("a number from 0 to {}", u32::MAX), count)),
        }
    }

    /// One whole number, of any type.
    pub(super) fn scalar(&self, key: &str) -> Result<Option<i64>, Mismatch> {
        let Some(tensor) = self.archive.get(key) else { return Ok(None) };
        if !matches!(*tensor.shape, [] | [1]) {
            return Err(Mismatch::new(key, "a scalar", format_args!("shape {:?}", tensor.shape)));
        }
        match count::decode(tensor.dtype, &tensor.data) {
            Some(number) => Ok(Some(number)),
            None => Err(Mismatch::new(key, count::ACCEPTED, format_args!("another {}", tensor.dtype))),
        }
    }
}

#[cfg(not(target_family = "wasm"))]
fn file(path: &std::path::Path) -> Result<Vec<u8>> {
    crate::engine::file::read(path)?.ok_or_else(|| crate::base::error::Error::File {
        action: "read",
        path: path.to_owned(),
        reason: "there is no such file".into(),
    })
}
