//! Tensors: a range of a GPU buffer with a shape.

use crate::context::{Context, ContextId};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::{Channels, Layout, Shape};

/// A dense row-major tensor in a GPU buffer, owned by the crate or borrowed from the application.
///
/// Cloning is cheap and shares the buffer. What a method needs of the buffer beyond `STORAGE` it says.
#[derive(Clone, Debug)]
pub struct Tensor {
    buffer: wgpu::Buffer,
    byte_offset: u64,
    shape: Shape,
    dtype: DType,
    layout: Layout,
    home: ContextId,
}

impl Tensor {
    /// A tensor of f32 in a buffer of the application's, starting at `byte_offset`, channels first.
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
    pub fn from_buffer(
        context: &Context,
        buffer: wgpu::Buffer,
        byte_offset: u64,
        shape: &[usize],
    ) -> Result<Self> {
        let tensor = Self {
            buffer,
            byte_offset,
            shape: Shape::new(shape)?,
            dtype: DType::F32,
            layout: Layout::ChannelsFirst,
            home: context.id(),
        };
        let what = "a tensor";
        if !tensor.buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::BufferUsage { what, missing: "STORAGE" });
        }
        let alignment = tensor.dtype.size();
        if !byte_offset.is_multiple_of(alignment) {
            return Err(Error::Misaligned { what, offset: byte_offset, alignment });
        }
        let (needed, size) = (tensor.byte_len(), tensor.buffer.size());
        if byte_offset.checked_add(needed).is_none_or(|end| end > size) {
            return Err(Error::BufferTooSmall { what, offset: byte_offset, needed, size });
        }
        Ok(tensor)
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
    /// As [`Shape::channels`].
    pub fn channels(&self) -> Result<Channels> {
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

    /// The buffer that holds the tensor.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// First byte of the tensor in its buffer.
    pub fn byte_offset(&self) -> u64 {
        self.byte_offset
    }

    /// Bytes of the tensor.
    pub fn byte_len(&self) -> u64 {
        self.shape.len() * self.dtype.size()
    }

    /// Values of a 16-byte word that lie before the tensor's first, if the buffer holds all of its last word.
    pub(crate) fn phase(&self) -> Option<u32> {
        let within = self.byte_offset % 16;
        let end = (self.byte_offset + self.byte_len()).next_multiple_of(16);
        (end <= self.buffer.size()).then_some((within / self.dtype.size()) as u32)
    }

    pub(crate) fn check_device(&self, what: &'static str, context: &Context) -> Result<()> {
        if self.home == context.id() { Ok(()) } else { Err(Error::ForeignDevice { what }) }
    }

    /// Requires a shape.
    pub(crate) fn check_shape(&self, what: &'static str, expected: Shape) -> Result<()> {
        if self.shape == expected { Ok(()) } else { Err(Error::Shape { what, expected, got: self.shape }) }
    }

    /// Requires the shape and, where it matters, the layout of another tensor.
    pub(crate) fn check_like(&self, what: &'static str, other: &Tensor) -> Result<()> {
        self.check_shape(what, other.shape)?;
        if self.layout == other.layout || self.shape.rank() == 2 {
            return Ok(());
        }
        Err(Error::Layout { what, expected: other.layout, got: self.layout })
    }
}
