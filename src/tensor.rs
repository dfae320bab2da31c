//! Tensors: a range of a GPU buffer with a shape.

use crate::context::{Context, ContextId};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::{Layout, Shape};

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
    /// A tensor of f32 in a buffer of the application's, starting at `byte_offset`.
    ///
    /// The buffer must belong to the context's device and have the usage `STORAGE`. A buffer of another device of the same
    /// `wgpu::Instance` is found when an operation is prepared; one of another instance wgpu cannot tell apart. Any offset that is a multiple
    /// of the element size will do; multiples of 16 bytes allow wider memory accesses. Contents are whatever the
    /// buffer holds when recorded work runs.
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

    /// Axis lengths, slowest first.
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

    /// Whether 16-byte accesses are possible.
    pub(crate) fn is_wide_aligned(&self) -> bool {
        self.byte_offset.is_multiple_of(16)
    }

    pub(crate) fn check_device(&self, what: &'static str, context: &Context) -> Result<()> {
        if self.home == context.id() { Ok(()) } else { Err(Error::ForeignDevice { what }) }
    }

    /// Requires a shape.
    pub(crate) fn check_shape(&self, what: &'static str, expected: Shape) -> Result<()> {
        if self.shape == expected { Ok(()) } else { Err(Error::Shape { what, expected, got: self.shape }) }
    }
}
