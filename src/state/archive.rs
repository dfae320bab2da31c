//! All tensors of a safetensors file. Its bytes are kept as they are, and tensors replaced in place, so that what is
//! written differs from what was read in the values that changed and in nothing else, whoever wrote the file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::tensor::Dtype;

use super::header::{Header, Metadata};
use crate::base::error::Result;

#[derive(Clone, Debug, Default)]
pub(super) struct Archive {
    file: Vec<u8>,
    tensors: BTreeMap<String, Entry>,
    metadata: Option<Metadata>,
    /// Whether the header of `file` is that of these tensors and metadata.
    intact: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    /// A range of the file.
    InFile(Range<usize>),
    Own(Vec<u8>),
}

/// A tensor of an archive, or one to put into it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored<'a> {
    pub dtype: Dtype,
    pub shape: Cow<'a, [usize]>,
    pub data: Cow<'a, [u8]>,
}

impl Archive {
    pub fn read(file: Vec<u8>) -> Result<Self> {
        let header = Header::read(&file)?;
        let entry = |info: safetensors::tensor::TensorInfo| Entry {
            dtype: info.dtype,
            shape: info.shape,
            data: Data::InFile(header.data + info.data_offsets.0..header.data + info.data_offsets.1),
        };
        let tensors = header.tensors.into_iter().map(|(name, info)| (name, entry(info))).collect();
        Ok(Self { file, tensors, metadata: header.metadata, intact: true })
    }

    /// Takes over the tensors of another archive, and of its metadata what is new.
    ///
    /// # Errors
    /// The name of a tensor that both have.
    pub fn join(&mut self, other: Self) -> Result<(), String> {
        if let Some(name) = other.tensors.keys().find(|name| self.tensors.contains_key(*name)) {
            return Err(name.clone());
        }
        for (key, value) in other.metadata() {
            if self.metadata().iter().all(|(known, _)| known != key) {
                self.set_metadata(key, value);
            }
        }
        let Self { file, tensors, .. } = other;
        for (name, entry) in tensors {
            let data = match entry.data {
                Data::InFile(range) => Data::Own(file[range].to_vec()),
                own => own,
            };
            self.tensors.insert(name, Entry { data, ..entry });
        }
        self.intact = false;
        Ok(())
    }

    /// The file: the bytes that were read with the values that changed; or, where tensors or metadata were added or
    /// removed, one that is laid out as the `safetensors` crate does (types of large alignment first, then by name).
    pub fn write(&self) -> Cow<'_, [u8]> {
        if self.intact {
            return Cow::Borrowed(&self.file);
        }
        let mut ordered: Vec<_> = self.tensors.iter().collect();
        ordered.sort_by(|(a, left), (b, right)| right.dtype.cmp(&left.dtype).then(a.cmp(b)));
        let lens = ordered.iter().map(|(name, entry)| {
            (name.as_str(), entry.dtype, entry.shape.as_slice(), self.data(entry).len())
        });
        let mut bytes = Header::write(self.metadata.as_ref(), lens);
        for (_, entry) in ordered {
            bytes.extend(self.data(entry));
        }
        Cow::Owned(bytes)
    }

    pub fn get(&self, name: &str) -> Option<Stored<'_>> {
        self.tensors.get(name).map(|entry| self.stored(entry))
    }

    /// All tensors by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Stored<'_>)> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), self.stored(entry)))
    }

    /// Adds or replaces a tensor whose bytes are those of its shape and type.
    pub fn put(&mut self, name: String, tensor: Stored<'_>) {
        let same = self.tensors.get_mut(&name);
        match same.filter(|entry| entry.dtype == tensor.dtype && entry.shape == *tensor.shape) {
            Some(Entry { data: Data::InFile(range), .. }) => {
                self.file[range.clone()].copy_from_slice(&tensor.data);
            }
            Some(entry) => entry.data = Data::Own(tensor.data.into_owned()),
            None => {
                let data = Data::Own(tensor.data.into_owned());
                let entry = Entry { dtype: tensor.dtype, shape: tensor.shape.into_owned(), data };
                self.tensors.insert(name, entry);
                self.intact = false;
            }
        }
    }

    pub fn remove(&mut self, name: &str) -> bool {
        let removed = self.tensors.remove(name).is_some();
        self.intact &= !removed;
        removed
    }

    pub fn metadata(&self) -> &[(String, String)] {
        self.metadata.as_deref().unwrap_or_default()
    }

    pub fn set_metadata(&mut self, key: &str, value: &str) {
        let pairs = self.metadata.get_or_insert_default();
        match pairs.iter_mut().find(|(existing, _)| existing == key) {
            Some((_, existing)) if existing == value => return,
            Some((_, existing)) => *existing = value.to_owned(),
            None => pairs.push((key.to_owned(), value.to_owned())),
        }
        self.intact = false;
    }

    fn stored<'a>(&'a self, entry: &'a Entry) -> Stored<'a> {
        Stored {
            dtype: entry.dtype,
            shape: Cow::Borrowed(&entry.shape),
            data: Cow::Borrowed(self.data(entry)),
        }
    }

    fn data<'a>(&'a self, entry: &'a Entry) -> &'a [u8] {
        match &entry.data {
            Data::InFile(range) => &self.file[range.clone()],
            Data::Own(data) => data,
        }
    }
}
