//! The element types that parameters and statistics have in files, and what of a value they keep.

use std::fmt;

use safetensors::tensor::Dtype;

use crate::base::dtype::DType;

/// An element type that parameters and statistics may have in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE 754 binary32, which layers compute with.
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dtype().fmt(f)
    }
}

impl FloatType {
    /// What is accepted, for errors.
    pub(super) const ACCEPTED: &str = "F32, F16, BF16 or F64";

    pub(super) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F32 => Some(Self::F32),
            Dtype::F64 => Some(Self::F64),
            _ => None,
        }
    }

    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
            Self::F32 => Dtype::F32,
            Self::F64 => Dtype::F64,
        }
    }

    /// The type of tensors on the GPU that is the same; there is none of 64 bits.
    fn narrow(self) -> Option<DType> {
        match self {
            Self::F16 => Some(DType::F16),
            Self::Bf16 => Some(DType::Bf16),
            Self::F32 => Some(DType::F32),
            Self::F64 => None,
        }
    }

    /// Stored values as f32, and whether any had to be rounded.
    pub(super) fn decode(self, bytes: &[u8]) -> (Vec<f32>, bool) {
        if let Some(dtype) = self.narrow() {
            return (dtype.decode(bytes), false);
        }
        let wide = || bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes));
        let rounded = wide().any(|value| f64::from(value as f32) != value && !value.is_nan());
        (wide().map(|value| value as f32).collect(), rounded)
    }

    /// Values as they are stored, and whether any had to be rounded.
    pub(super) fn encode(self, values: &[f32]) -> (Vec<u8>, bool) {
        let Some(dtype) = self.narrow() else {
            return (values.iter().flat_map(|&value| f64::from(value).to_le_bytes()).collect(), false);
        };
        let bytes = dtype.encode(values);
        let kept = dtype.decode(&bytes);
        let rounded = values.iter().zip(&kept).any(|(value, kept)| value != kept && !value.is_nan());
        (bytes, rounded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [FloatType; 4] = [FloatType::F16, FloatType::Bf16, FloatType::F32, FloatType::F64];

    #[test]
    fn values_that_a_type_has_come_back_and_others_are_told() {
        let exact = [0.0, -0.0, 1.0, -2.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        for float in ALL {
            let (bytes, rounded) = float.encode(&exact);
            let (back, back_rounded) = float.decode(&bytes);
            assert!(!rounded && !back_rounded, "{float}");
            assert!(
                back.iter().zip(exact).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
            );
            assert_eq!(FloatType::of(float.dtype()), Some(float));
        }
        let tenth = [0.1];
        assert!(FloatType::F16.encode(&tenth).1 && FloatType::Bf16.encode(&tenth).1);
        assert!(!FloatType::F32.encode(&tenth).1 && !FloatType::F64.encode(&tenth).1);
        // 70000 is infinite in F16.
        assert!(FloatType::F16.encode(&[70000.0]).1);
    }

    #[test]
    fn doubles_that_are_no_f32_are_told() {
        for (value, rounded) in [
            (0.1, true),
            (f64::from(0.1f32), false),
            (1e300, true),
            (f64::INFINITY, false),
            (f64::NAN, false),
            (1e-300, true),
            (-0.0, false),
        ] {
            assert_eq!(FloatType::F64.decode(&value.to_le_bytes()).1, rounded, "{value}");
        }
    }
}
