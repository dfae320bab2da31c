//! Element types of tensors.

/// How the elements of a tensor are stored. Arithmetic and statistics are f32 whatever the storage; results are rounded to
/// the nearest stored value, ties to even, beyond the largest to infinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32.
    #[default]
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of binary32.
    Bf16,
    /// Signed bytes, of a y for inference that was asked for as such ([`Int8`](crate::Int8)), and of nothing else; on the host numbers from -128 to 127.
    I8,
}

impl DType {
    /// All that layers take and give.
    pub const ALL: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

    /// Bytes of one element.
    pub const fn size(self) -> u64 {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::Bf16 => 2,
            DType::I8 => 1,
        }
    }

    /// The name that the benchmark and conformance files use.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "float32",
            DType::F16 => "float16",
            DType::Bf16 => "bfloat16",
            DType::I8 => "int8",
        }
    }

    /// Largest relative error of rounding a value to this type, in its normal range: 2^-24, 2^-11, 2^-8.
    pub const fn unit_roundoff(self) -> f64 {
        match self {
            DType::F32 => 1.0 / 16_777_216.0,
            DType::F16 => 1.0 / 2048.0,
            DType::Bf16 => 1.0 / 256.0,
            DType::I8 => 0.5,
        }
    }

    /// The largest finite value.
    pub const fn max(self) -> f64 {
        match self {
            DType::F32 => f32::MAX as f64,
            DType::F16 => 65504.0,
            DType::Bf16 => 3.389_531_389_251_535_5e38,
            DType::I8 => 127.0,
        }
    }

    /// The name in keys of kernels.
    pub(crate) const fn short(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::I8 => "i8",
        }
    }

    /// Values as they are stored, in the byte order of the device (little-endian).
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DType::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            DType::Bf16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            // A cast saturates.
            DType::I8 => values.iter().flat_map(|&v| (v.round_ties_even() as i8).to_le_bytes()).collect(),
        }
    }

    /// The inverse of [`encode`](Self::encode), exact.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let halves = || bytes.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b));
        match self {
            DType::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            DType::F16 => halves().map(|h| half::f16::from_bits(h).to_f32()).collect(),
            DType::Bf16 => halves().map(|h| half::bf16::from_bits(h).to_f32()).collect(),
            DType::I8 => bytes.iter().map(|&byte| f32::from(byte as i8)).collect(),
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_the_nearest() {
        let round = |dtype: DType, value: f32| dtype.decode(&dtype.encode(&[value]))[0];
        for (value, f16, bf16) in [
            (1.0, 1.0, 1.0),
            (1.0 + 1.0 / 2048.0, 1.0, 1.0),
            (1.0 + 3.0 / 2048.0, 1.0 + 1.0 / 512.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0 + 1.0 / 256.0, 1.0),
            (65519.0, 65504.0, 65536.0),
            (65520.0, f32::INFINITY, 65536.0),
            (3.4e38, f32::INFINITY, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY),
        ] {
            assert_eq!((round(DType::F16, value), round(DType::Bf16, value)), (f16, bf16), "{value}");
            assert_eq!(round(DType::F32, value), value);
        }
        assert!([DType::F16, DType::Bf16].iter().all(|&dtype| round(dtype, f32::NAN).is_nan()));
        assert_eq!(f64::from(round(DType::Bf16, 3.389e38)), DType::Bf16.max());
    }
}
