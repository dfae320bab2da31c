//! Element types of tensors.

/// How the elements of a tensor are stored. Arithmetic and statistics are f32 whatever the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> u64 {
        match self {
            DType::F32 => 4,
        }
    }

    /// The name that the benchmark and conformance files use.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "float32",
        }
    }
}
