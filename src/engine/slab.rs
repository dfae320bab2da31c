//! Records that operations keep for each other: a buffer of the crate's own, or a tensor of the caller's.

use std::ops::Range;

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::buffer::{Buffer, Usage};
use crate::engine::context::Context;
use crate::engine::readback;
use crate::engine::tensor::Tensor;

/// Records of every kind begin where a binding can at multiples of so many: of 4 bytes or more, and no device's bindings begin at less than every 256th.
pub(crate) const WHOLE: u64 = 64;

/// A stretch of a buffer that is bound as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Slab {
    pub(super) buffer: Buffer,
    pub(super) begin: u64,
    pub(super) bytes: u64,
}

impl From<&Buffer> for Slab {
    fn from(buffer: &Buffer) -> Self {
        Self { buffer: buffer.clone(), begin: 0, bytes: buffer.size() }
    }
}

/// Ranges of records, of so many bytes each, that bindings have room for.
pub(crate) fn parts(records: u64, bytes: u64, context: &Context) -> impl Iterator<Item = Range<u64>> {
    let most = (context.capabilities().max_binding_bytes / bytes / WHOLE * WHOLE).max(WHOLE);
    (0..records).step_by(most as usize).map(move |begin| begin..records.min(begin + most))
}

impl Slab {
    /// Room for so many bytes, zero until something is written.
    pub async fn new(context: &Context, what: &'static str, bytes: u64) -> Result<Self> {
        Ok((&context.create_buffer(what, bytes.max(4), Usage::Tensor).await?).into())
    }

    /// The memory of a contiguous tensor of f32 of a shape, which must begin where a binding can.
    pub fn of_tensor(context: &Context, what: &'static str, tensor: &Tensor, shape: &[u64]) -> Result<Self> {
        let dims: Vec<usize> = shape.iter().map(|&dim| dim as usize).collect();
        tensor.check_device(what, context)?;
        tensor.check_shape(what, Shape::new(&dims)?)?;
        tensor.check_dtype(what, DType::F32)?;
        tensor.check_contiguous(what)?;
        let (offset, alignment) = (tensor.byte_offset(), context.capabilities().storage_alignment);
        if !offset.is_multiple_of(alignment) {
            return Err(Error::Misaligned { what, offset, alignment });
        }
        Ok(Self { buffer: tensor.memory().clone(), begin: offset, bytes: tensor.byte_len() })
    }

    /// Its f32, in rows of so many.
    pub fn as_rows(&self, context: &Context, len: u64) -> Result<Tensor> {
        let dims = [(self.bytes / 4 / len) as usize, len as usize];
        Tensor::in_buffer(context, self.buffer.clone(), self.begin, &dims, DType::F32)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A part of it.
    pub fn stretch(&self, bytes: Range<u64>) -> Self {
        Self { buffer: self.buffer.clone(), begin: self.begin + bytes.start, bytes: bytes.end - bytes.start }
    }

    /// Replaces what it holds, after everything that was submitted before and before everything that is submitted later.
    pub async fn write(&self, context: &Context, what: &'static str, bytes: &[u8]) -> Result<()> {
        self.buffer.check_written(what)?;
        context.write_at(&self.buffer, self.begin, bytes).await
    }

    /// Repeats a word over all of it, as [`write`](Self::write) does.
    pub async fn fill(&self, context: &Context, word: u32) -> Result<()> {
        context.fill(&self.buffer, self.begin..self.begin + self.bytes / 4 * 4, word).await
    }

    /// What it holds, after everything that was submitted before.
    pub async fn read(&self, context: &Context, what: &'static str, bytes: u64) -> Result<Vec<u8>> {
        self.buffer.check_read(what)?;
        readback::read(context, &self.buffer, self.begin, bytes).await
    }
}
