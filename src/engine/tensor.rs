//! Tensors: ranges of one or several GPU buffers with a shape.

mod place;
mod views;

use std::ops::Range;
use std::sync::Arc;

pub(crate) use self::place::Location;
use self::place::Strides;

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::{Channels, Layout, Shape};
use crate::engine::buffer::{Buffer, Usage};
use crate::engine::context::{Context, ContextId};

/// A row-major tensor in GPU memory, owned by the crate or borrowed from the application.
///
/// It may be a view: some channels or samples of a larger tensor ([`slice_channels`](Self::slice_channels),
/// [`slice_samples`](Self::slice_samples)). Its samples may lie in several buffers ([`concat`](Self::concat)).
///
/// Cloning is cheap and shares the buffer. What a method needs of the buffer beyond `STORAGE` it says.
#[derive(Clone, Debug)]
pub struct Tensor {
    parts: Arc<[Part]>,
    shape: Shape,
    dtype: DType,
    layout: Layout,
    strides: Strides,
    home: ContextId,
}

/// Consecutive samples in one buffer.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    buffer: Buffer,
    /// Of the buffer, in bytes.
    size: u64,
    byte_offset: u64,
    samples: Range<u64>,
}

impl Tensor {
    /// A dense tensor of f32 in a buffer of the application's, starting at `byte_offset`, channels first.
    ///
    /// The buffer must belong to the context's device and have the usage `STORAGE`. A buffer of another device of the same
    /// `wgpu::Instance` is found when an operation is prepared; one of another instance wgpu cannot tell apart. Any offset that is a multiple
    /// of the element size will do; if those of all tensors of an operation differ by multiples of 16 bytes, and the
    /// buffers hold the 16-byte words in which they end, it uses 16-byte accesses. Contents are whatever the buffer holds when recorded work runs.
    ///
    /// # Errors
    /// [`Error::BufferUsage`], [`Error::Misaligned`], [`Error::BufferTooSmall`], and the errors of [`Shape::new`].
    ///
    /// ```
    /// # let context = wgnorm::Context::headless_blocking()?;
    /// let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
    ///     label: None,
    ///     size: 4096,
    ///     usage: wgpu::BufferUsages::STORAGE,
    ///     mapped_at_creation: false,
    /// });
    /// let x = wgnorm::Tensor::from_buffer(&context, buffer, 1024, &[2, 3, 4, 4])?;
    /// assert_eq!(x.byte_len(), 2 * 3 * 4 * 4 * 4);
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    #[cfg(feature = "wgpu")]
    pub fn from_buffer(
        context: &Context,
        buffer: wgpu::Buffer,
        byte_offset: u64,
        shape: &[usize],
    ) -> Result<Self> {
        Self::from_buffer_as(context, buffer, byte_offset, shape, DType::F32)
    }

    /// As [`from_buffer`](Self::from_buffer), of any element type. Words of 16-bit types have 8 bytes. The buffer must hold the
    /// 4 bytes in which the tensor ends; what is in them besides stays as it is.
    ///
    /// # Errors
    /// As [`from_buffer`](Self::from_buffer).
    #[cfg(feature = "wgpu")]
    pub fn from_buffer_as(
        context: &Context,
        buffer: wgpu::Buffer,
        byte_offset: u64,
        shape: &[usize],
        dtype: DType,
    ) -> Result<Self> {
        let shape = Shape::new(shape)?;
        Self::new(context, Buffer::borrowed(buffer), byte_offset, shape, dtype, Strides::dense(shape))
    }

    /// The same, in a buffer of the crate's own.
    pub(crate) fn in_buffer(
        context: &Context,
        buffer: Buffer,
        byte_offset: u64,
        shape: &[usize],
        dtype: DType,
    ) -> Result<Self> {
        let shape = Shape::new(shape)?;
        Self::new(context, buffer, byte_offset, shape, dtype, Strides::dense(shape))
    }

    /// As [`from_buffer_as`](Self::from_buffer_as), with samples (indices of the first axis) that begin `sample_stride` elements
    /// apart: every other sample of a batch, or a concatenation that is laid out elsewhere.
    ///
    /// # Errors
    /// As [`from_buffer`](Self::from_buffer); [`Error::Strides`] if samples would overlap.
    #[cfg(feature = "wgpu")]
    pub fn from_strided_buffer(
        context: &Context,
        buffer: wgpu::Buffer,
        byte_offset: u64,
        shape: &[usize],
        dtype: DType,
        sample_stride: u64,
    ) -> Result<Self> {
        let shape = Shape::new(shape)?;
        let dense = Strides::dense(shape);
        if sample_stride < dense.sample {
            let (what, why) = ("a tensor", "samples would overlap");
            return Err(Error::Strides { what, expected: dense.sample, got: sample_stride, why });
        }
        Self::new(
            context,
            Buffer::borrowed(buffer),
            byte_offset,
            shape,
            dtype,
            Strides { sample: sample_stride, ..dense },
        )
    }

    fn new(
        context: &Context,
        buffer: Buffer,
        byte_offset: u64,
        shape: Shape,
        dtype: DType,
        strides: Strides,
    ) -> Result<Self> {
        let what = "a tensor";
        buffer.check_bound(what)?;
        let alignment = dtype.size();
        if !byte_offset.is_multiple_of(alignment) {
            return Err(Error::Misaligned { what, offset: byte_offset, alignment });
        }
        let strides = strides.canonical(shape);
        let size = buffer.size();
        let part = Part { buffer, size, byte_offset, samples: 0..shape.dims()[0] as u64 };
        let parts: Arc<[Part]> = Arc::new([part]);
        let tensor = Self { parts, shape, dtype, layout: Layout::ChannelsFirst, strides, home: context.id() };
        let too_small = |needed| Error::BufferTooSmall { what, offset: byte_offset, needed, size };
        let needed = tensor.hull_bytes().ok_or(too_small(u64::MAX))?;
        // Bindings are whole multiples of 4 bytes.
        let end = byte_offset.checked_add(needed).and_then(|end| end.checked_next_multiple_of(4));
        if needed > 0 && end.is_none_or(|end| end > size) || byte_offset > size {
            return Err(too_small(needed));
        }
        Ok(tensor)
    }

    /// A tensor that takes no memory, to find out what an operation on one like it would run: as if it were at the start of a buffer of its own.
    pub(crate) fn phantom(context: &Context, shape: &[usize], dtype: DType, layout: Layout) -> Result<Self> {
        let shape = Shape::new(shape)?;
        let size = shape.len().saturating_mul(dtype.size());
        context.check_size("a tensor", size, 1)?;
        let size = size.max(1).next_multiple_of(16);
        let buffer = Buffer::paper(size);
        let part = Part { buffer, size, byte_offset: 0, samples: 0..shape.dims()[0] as u64 };
        let strides = Strides::dense(shape);
        Ok(Self { parts: Arc::new([part]), shape, dtype, layout, strides, home: context.id() })
    }

    /// A tensor of zeros in memory of its own that is walked as this one is: its shape, type, layout and distances, its place in a
    /// block that bindings begin at, and the end of its buffer.
    ///
    /// # Errors
    /// [`Error::NotContiguous`] for several parts, and those of an allocation.
    pub(crate) async fn twin(&self, context: &Context) -> Result<Self> {
        /// WebGPU's coarsest granularity of binding offsets.
        const BLOCK: u64 = 256;
        let what = "a tensor to measure with";
        let [part] = &*self.parts else { return Err(Error::NotContiguous { what }) };
        let byte_offset = part.byte_offset % BLOCK;
        let end = byte_offset + self.hull_bytes().unwrap_or(0);
        let left = part.buffer.size() - (part.byte_offset - byte_offset);
        let size = end.max(4).next_multiple_of(16).min(left);
        let buffer = context.create_buffer(what, size, Usage::Scratch).await?;
        let part = Part { size: buffer.size(), buffer, byte_offset, samples: part.samples.clone() };
        Ok(Self { parts: Arc::new([part]), ..self.clone() })
    }

    /// The same tensor with its axes read in another order: as channels last, shape `[8, 56, 56, 64]` has 64 channels.
    /// Nothing is moved in memory. All batches of an operation must have the layout of its x
    /// ([`Error::Layout`]); at rank 2 the two layouts are the same. Values per channel (gamma, dbeta) have none.
    ///
    /// ```
    /// # let context = wgnorm::Context::headless_blocking()?;
    /// use wgnorm::Layout;
    /// let x = context.block_on(context.zeros(&[8, 7, 5, 64]))?.with_layout(Layout::ChannelsLast);
    /// assert_eq!(x.channels()?.channels, 64);
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    #[must_use]
    pub fn with_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// The tensor as batch normalization sees it.
    ///
    /// # Errors
    /// As [`Shape::channels`]; [`Error::Strides`] for channels of a channels-last view that are read as channels first.
    pub fn channels(&self) -> Result<Channels> {
        let dense = Strides::dense(self.shape).row;
        if self.layout == Layout::ChannelsFirst && self.shape.rank() > 2 && self.strides.row != dense {
            let (what, why) = ("x", "runs of a channels-first tensor must be contiguous");
            return Err(Error::Strides { what, expected: dense, got: self.strides.row, why });
        }
        self.shape.channels(self.layout)
    }

    /// Axis lengths in memory order, slowest first.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Order of the axes.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The buffer that holds the tensor; that of the first samples, if there are several. One that the crate has made lives as long as anybody has it from
    /// then on; others are destroyed with the last tensor and operation in them, in a browser too.
    #[cfg(feature = "wgpu")]
    pub fn buffer(&self) -> &wgpu::Buffer {
        self.memory().hand_out()
    }

    pub(crate) fn memory(&self) -> &Buffer {
        &self.parts[0].buffer
    }

    /// First byte of the tensor in its buffer.
    pub fn byte_offset(&self) -> u64 {
        self.parts[0].byte_offset
    }

    /// Bytes of the tensor's elements.
    pub fn byte_len(&self) -> u64 {
        self.shape.len() * self.dtype.size()
    }

    /// Whether all elements follow each other without gaps, in one buffer.
    pub fn is_contiguous(&self) -> bool {
        self.is_dense() && self.parts.len() == 1
    }

    /// Whether neighbouring elements of each part follow each other without gaps.
    pub(crate) fn is_dense(&self) -> bool {
        self.strides == Strides::dense(self.shape)
    }

    /// The bytes of a contiguous tensor as values of 4 bytes.
    pub(crate) fn as_f32_words(&self) -> Result<Self> {
        let words = (self.byte_len() / 4) as usize;
        let shape = Shape::new(&[words])?;
        let part = Part { samples: 0..words as u64, ..self.parts[0].clone() };
        let strides = Strides::dense(shape);
        Ok(Self { parts: Arc::new([part]), shape, dtype: DType::F32, strides, ..self.clone() })
    }

    pub(crate) fn check_device(&self, what: &'static str, context: &Context) -> Result<()> {
        if self.home == context.id() { Ok(()) } else { Err(Error::ForeignDevice { what }) }
    }

    /// Requires a shape.
    pub(crate) fn check_shape(&self, what: &'static str, expected: Shape) -> Result<()> {
        if self.shape == expected { Ok(()) } else { Err(Error::Shape { what, expected, got: self.shape }) }
    }

    /// Requires an element type.
    pub(crate) fn check_dtype(&self, what: &'static str, expected: DType) -> Result<()> {
        if self.dtype == expected { Ok(()) } else { Err(Error::DType { what, expected, got: self.dtype }) }
    }

    /// Requires the shape, the element type and, where it matters, the layout of another tensor.
    pub(crate) fn check_like(&self, what: &'static str, other: &Tensor) -> Result<()> {
        self.check_shape(what, other.shape)?;
        self.check_dtype(what, other.dtype)?;
        self.channels().map_err(|error| match error {
            Error::Strides { expected, got, why, .. } => Error::Strides { what, expected, got, why },
            error => error,
        })?;
        if self.layout == other.layout || self.shape.rank() == 2 {
            return Ok(());
        }
        Err(Error::Layout { what, expected: other.layout, got: self.layout })
    }

    /// Requires rows of so many elements that are equally far apart, in one buffer.
    pub(crate) fn check_rows(&self, what: &'static str, len: u64) -> Result<()> {
        if self.rows_apart(len).is_some() { Ok(()) } else { Err(Error::NotContiguous { what }) }
    }

    /// Requires values without gaps in one buffer.
    pub(crate) fn check_contiguous(&self, what: &'static str) -> Result<()> {
        if self.is_contiguous() { Ok(()) } else { Err(Error::NotContiguous { what }) }
    }
}
