//! Numbers of batches, in whichever type a file has them: frameworks and their converters write I64, I32, U32, F32.

use half::{bf16, f16};
use safetensors::tensor::Dtype;

/// What is accepted, for errors.
pub(super) const ACCEPTED: &str = "a whole number of any integer type, F16, BF16, F32 or F64";

/// The one number that these bytes are, if it is whole.
pub(super) fn decode(dtype: Dtype, data: &[u8]) -> Option<i64> {
    macro_rules! number {
        ($type:ty) => {
            <$type>::from_le_bytes(data.try_into().ok()?)
        };
    }
    match dtype {
        Dtype::I8 => Some(number!(i8).into()),
        Dtype::U8 => Some(number!(u8).into()),
        Dtype::I16 => Some(number!(i16).into()),
        Dtype::U16 => Some(number!(u16).into()),
        Dtype::I32 => Some(number!(i32).into()),
        Dtype::U32 => Some(number!(u32).into()),
        Dtype::I64 => Some(number!(i64)),
        Dtype::U64 => i64::try_from(number!(u64)).ok(),
        Dtype::F16 => whole(number!(f16).into()),
        Dtype::BF16 => whole(number!(bf16).into()),
        Dtype::F32 => whole(number!(f32).into()),
        Dtype::F64 => whole(number!(f64)),
        _ => None,
    }
}

/// A number in a type, if that has it.
pub(super) fn encode(dtype: Dtype, count: u32) -> Option<Vec<u8>> {
    macro_rules! integer {
        ($type:ty) => {
            <$type>::try_from(count).ok()?.to_le_bytes().to_vec()
        };
    }
    let float = f64::from(count);
    let data = match dtype {
        Dtype::I8 => integer!(i8),
        Dtype::U8 => integer!(u8),
        Dtype::I16 => integer!(i16),
        Dtype::U16 => integer!(u16),
        Dtype::I32 => integer!(i32),
        Dtype::U32 => integer!(u32),
        Dtype::I64 => integer!(i64),
        Dtype::U64 => integer!(u64),
        Dtype::F16 => f16::from_f64(float).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f64(float).to_le_bytes().to_vec(),
        Dtype::F32 => (float as f32).to_le_bytes().to_vec(),
        Dtype::F64 => float.to_le_bytes().to_vec(),
        _ => return None,
    };
    (decode(dtype, &data) == Some(count.into())).then_some(data)
}

fn whole(value: f64) -> Option<i64> {
    // Beyond 2^53 neighbours are no longer whole numbers that follow each other.
    (value.trunc() == value && value.abs() <= 9_007_199_254_740_992.0).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Dtype; 12] = [
        Dtype::I8,
        Dtype::U8,
        Dtype::I16,
        Dtype::U16,
        Dtype::I32,
        Dtype::U32,
        Dtype::I64,
        Dtype::U64,
        Dtype::F16,
        Dtype::BF16,
        Dtype::F32,
        Dtype::F64,
    ];

    #[test]
    fn whole_numbers_come_back_from_every_type() {
        for dtype in ALL {
            for count in [0, 1, 100, 127] {
                let data = encode(dtype, count).unwrap();
                assert_eq!(decode(dtype, &data), Some(count.into()), "{dtype}");
                assert_eq!(decode(dtype, &data[1..]), None, "{dtype}");
            }
        }
        assert_eq!(encode(Dtype::F16, 2049), None);
        assert_eq!(encode(Dtype::U8, 256), None);
        assert_eq!(encode(Dtype::F32, u32::MAX), None);
        assert_eq!(encode(Dtype::BOOL, 1), None);
    }

    #[test]
    fn what_is_not_whole_is_none() {
        for value in [0.5, f32::NAN, f32::INFINITY, 1e30] {
            assert_eq!(decode(Dtype::F32, &value.to_le_bytes()), None, "{value}");
        }
        assert_eq!(decode(Dtype::U64, &u64::MAX.to_le_bytes()), None);
        assert_eq!(decode(Dtype::F32, &(-3.0_f32).to_le_bytes()), Some(-3));
    }
}
