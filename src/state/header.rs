//! The header of a safetensors file: what the `safetensors` crate does not tell of one it reads, and one that is written.
//!
//! Format: <https://github.com/huggingface/safetensors#format>: 8 bytes with the length of the header, the header as JSON, the data.

use std::collections::HashSet;
use std::fmt;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorInfo};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::base::error::{Error, Result};

/// The key of a header that is no tensor.
pub(super) const METADATA: &str = "__metadata__";

/// Bytes before the header, and the multiple that its length is padded to.
const LENGTH: usize = size_of::<u64>();

/// Strings of `__metadata__`, in the order of the file.
pub(super) type Metadata = Vec<(String, String)>;

pub(super) fn refused(reason: impl fmt::Display) -> Error {
    Error::StateFile { reason: reason.to_string() }
}

/// The contents of a header.
pub(super) struct Header {
    pub metadata: Option<Metadata>,
    pub tensors: Vec<(String, TensorInfo)>,
    /// Where the data begins, from which offsets count.
    pub data: usize,
}

impl Header {
    /// Reads and checks the header of a file: every tensor has a name of its own and the bytes of its shape and type, and
    /// together they cover the data.
    pub fn read(file: &[u8]) -> Result<Self> {
        let length = file.first_chunk().ok_or_else(|| refused("it is shorter than 8 bytes"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let data = length.saturating_add(LENGTH);
        let Some(json) = file.get(LENGTH..data) else {
            return Err(refused(format!(
                "its header has {length} bytes, the file {} after it",
                file.len() - LENGTH
            )));
        };
        let Entries { metadata, tensors } = serde_json::from_slice(json).map_err(refused)?;
        // The crate adds offsets to lengths; here they become those of memory.
        if let Some((name, info)) = tensors.iter().find(|(_, info)| info.data_offsets.1 > file.len() - data) {
            let end = info.data_offsets.1;
            return Err(refused(format!("{name:?} ends at {end} of {} bytes of data", file.len() - data)));
        }
        SafeTensors::read_metadata(file).map_err(refused)?;
        Ok(Self { metadata, tensors, data })
    }

    /// The bytes before the data of tensors that follow each other in this order.
    pub fn write<'a>(
        metadata: Option<&Metadata>,
        tensors: impl Iterator<Item = (&'a str, Dtype, &'a [usize], usize)>,
    ) -> Vec<u8> {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let joined = |items: Vec<String>| items.join(",");
        let metadata = metadata.map(|pairs| {
            let pairs = pairs.iter().map(|(key, value)| format!("{}:{}", text(key), text(value)));
            format!("{}:{{{}}}", text(METADATA), joined(pairs.collect()))
        });
        let mut end = 0;
        let tensors = tensors.map(|(name, dtype, shape, len)| {
            let shape = joined(shape.iter().map(usize::to_string).collect());
            let start = end;
            end += len;
            format!(
                r#"{}:{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{start},{end}]}}"#,
                text(name)
            )
        });
        let json = format!("{{{}}}", joined(metadata.into_iter().chain(tensors).collect()));
        let padded = json.len().next_multiple_of(LENGTH);
        let mut bytes = (padded as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.resize(LENGTH + padded, b' ');
        bytes
    }
}

/// All entries of a header. Maps of serde take the last of several equal keys; this refuses them.
struct Entries {
    metadata: Option<Metadata>,
    tensors: Vec<(String, TensorInfo)>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of names to tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Entries { metadata: None, tensors: Vec::new() };
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("two entries have the name {name:?}")));
            }
            match name.as_str() {
                METADATA => entries.metadata = map.next_value::<Option<Pairs>>()?.map(|pairs| pairs.0),
                _ => entries.tensors.push((name, map.next_value()?)),
            }
        }
        Ok(entries)
    }
}

/// A map of strings in its order.
struct Pairs(Metadata);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}
