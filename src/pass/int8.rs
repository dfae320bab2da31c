//! y as int8, for inference: by a scale of each row, which is found, or of all of y, which is given.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::engine::context::Context;
use crate::engine::shader::Int8Kind;
use crate::engine::slab::Slab;
use crate::engine::tensor::Tensor;

/// How y becomes int8, four values in each `u32`, as WGSL's `dot4I8Packed` takes them. What is beyond the type is its least or greatest value, halves go to even.
/// NaN has no int8: it is stored as 0 (or the zero point), and the scale of its row is NaN.
#[derive(Clone, Copy, Debug)]
pub enum Int8<'a> {
    /// By the scale of each row, so that its largest magnitude is 127: `scale = max|y| / 127`, `round(y / scale)`. The scales are written into this tensor, `[rows]` of f32, which must begin
    /// at a multiple of the device's `min_storage_buffer_offset_alignment`. A row of zeros has a scale of 0. As vLLM's `rms_norm_dynamic_per_token_quant`; ONNX's
    /// `DynamicQuantizeLinear` is the same with a zero point, uint8 and one scale for all.
    PerRow(&'a Tensor),
    /// By a scale for all of y: `round(y / scale) + zero_point`, from -128 to 127, as ONNX's `QuantizeLinear`.
    PerTensor {
        /// Finite and above 0.
        scale: f32,
        /// What 0 is stored as.
        zero_point: i8,
    },
}

impl Int8<'_> {
    pub(super) const fn kind(self) -> Int8Kind {
        match self {
            Self::PerRow(_) => Int8Kind::PerRow,
            Self::PerTensor { .. } => Int8Kind::PerTensor,
        }
    }

    /// Scale and zero point, if they are given.
    pub(super) fn given(self) -> (f32, f32) {
        match self {
            Self::PerRow(_) => (1.0, 0.0),
            Self::PerTensor { scale, zero_point } => (scale, zero_point.into()),
        }
    }

    /// Where the scales of so many rows go.
    pub(super) fn scales(self, context: &Context, rows: u64) -> Result<Option<Slab>> {
        match self {
            Self::PerRow(scales) => Slab::of_tensor(context, "scales", scales, &[rows]).map(Some),
            Self::PerTensor { .. } => Ok(None),
        }
    }

    /// Requires a scale that can be divided by, and a y that can be written.
    pub(crate) fn check(self, x: &Tensor, y: &Tensor) -> Result<()> {
        if let Self::PerTensor { scale, .. } = self
            && !(scale.is_finite() && scale > 0.0)
        {
            return Err(Error::Scale { got: scale });
        }
        y.check_shape("y", x.shape())?;
        y.check_dtype("y", DType::I8)?;
        y.check_contiguous("y")?;
        if y.layout() != x.layout() && x.shape().rank() > 2 {
            return Err(Error::Layout { what: "y", expected: x.layout(), got: y.layout() });
        }
        match y.byte_offset() {
            offset if offset.is_multiple_of(4) => Ok(()),
            offset => Err(Error::Misaligned { what: "y", offset, alignment: 4 }),
        }
    }
}
