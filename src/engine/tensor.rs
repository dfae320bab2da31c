//! Tensors: ranges of one or several GPU buffers with a shape.

use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;

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

/// Distances in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Strides {
    /// Between the first elements of neighbouring samples (indices of the first axis).
    sample: u64,
    /// Between the first elements of neighbouring rows (of the last axis) of a sample.
    row: u64,
}

/// Where consecutive elements of a tensor are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Location {
    pub buffer: Buffer,
    /// Of the buffer, in bytes.
    pub size: u64,
    pub bytes: Range<u64>,
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
        Self::new(context, buffer.into(), byte_offset, shape, dtype, Strides::dense(shape))
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
            buffer.into(),
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

    /// Tensors one after the other along the first axis, as one tensor. Each stays where it is, so a batch that no single
    /// binding or buffer can hold is a tensor too. Operations walk it in windows; with the same tiles
    /// ([`Tuning::tile`](crate::tuning::Tuning::tile)) they give the bits of a tensor in one buffer (see docs/NUMERICS.md).
    ///
    /// # Errors
    /// [`Error::Empty`] for no tensors; [`Error::Shape`], [`Error::DType`], [`Error::Layout`], [`Error::Strides`],
    /// [`Error::ForeignDevice`] unless all agree in everything but the first axis.
    ///
    /// ```
    /// let context = wgnorm::Context::headless_blocking()?;
    /// context.block_on(async {
    ///     let a = context.upload(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]).await?;
    ///     let b = context.upload(&[2, 2, 2], &[5.0; 8]).await?;
    ///     let both = wgnorm::Tensor::concat(&[&a, &b])?;
    ///     assert_eq!(both.shape().dims(), [3, 2, 2]);
    ///     assert_eq!(context.download(&both).await?[4], 5.0);
    ///     Ok::<(), wgnorm::Error>(())
    /// })?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    pub fn concat(tensors: &[&Tensor]) -> Result<Self> {
        let Some(first) = tensors.first() else { return Err(Error::Empty { what: "a concatenation" }) };
        // The distance between samples means nothing where there is one.
        let with_many = tensors.iter().find(|tensor| tensor.shape.dims()[0] > 1);
        let strides = with_many.unwrap_or(first).strides;
        let mut parts: Vec<Part> = Vec::new();
        let mut samples: u64 = 0;
        for tensor in tensors {
            let what = "a tensor of a concatenation";
            let mut expected = first.shape.dims().to_vec();
            expected[0] = tensor.shape.dims()[0];
            tensor.check_shape(what, Shape::new(&expected)?)?;
            tensor.check_dtype(what, first.dtype)?;
            if tensor.layout != first.layout && first.shape.rank() > 2 {
                return Err(Error::Layout { what, expected: first.layout, got: tensor.layout });
            }
            if tensor.home != first.home {
                return Err(Error::ForeignDevice { what });
            }
            let same = match tensor.shape.dims()[0] > 1 {
                true => tensor.strides == strides,
                false => tensor.strides.row == strides.row || tensor.shape.rank() == 2,
            };
            if !same {
                let (expected, got) = (strides.sample, tensor.strides.sample);
                return Err(Error::Strides { what, expected, got, why: "all must have the same" });
            }
            for part in tensor.parts.iter().filter(|part| !part.samples.is_empty()) {
                let begin = samples;
                samples = samples.saturating_add(part.samples.end - part.samples.start);
                parts.push(Part { samples: begin..samples, ..part.clone() });
            }
        }
        if parts.is_empty() {
            return Ok((*first).clone());
        }
        let mut dims = first.shape.dims().to_vec();
        dims[0] = usize::try_from(samples).unwrap_or(usize::MAX);
        let shape = Shape::new(&dims)?;
        Ok(Self { parts: parts.into(), shape, strides: strides.canonical(shape), ..(*first).clone() })
    }

    /// Some of the channels, as a view of the same memory: what a concatenation of channels (DenseNet) writes and reads.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Channels`]; [`Error::Range`] unless the range lies within the channels and is not empty.
    ///
    /// ```
    /// let context = wgnorm::Context::headless_blocking()?;
    /// context.block_on(async {
    ///     let all = context.upload(&[2, 3, 2], &[0., 0., 1., 1., 2., 2., 3., 3., 4., 4., 5., 5.]).await?;
    ///     let last = all.slice_channels(1..3)?;
    ///     assert_eq!(context.download(&last).await?, [1., 1., 2., 2., 4., 4., 5., 5.]);
    ///     Ok::<(), wgnorm::Error>(())
    /// })?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    pub fn slice_channels(&self, range: Range<usize>) -> Result<Self> {
        let view = self.channels()?;
        let axis = match self.layout {
            Layout::ChannelsFirst => 1,
            Layout::ChannelsLast => self.shape.rank() - 1,
        };
        check_range("channels", &range, view.channels)?;
        let mut dims = self.shape.dims().to_vec();
        dims[axis] = range.len();
        let apart: u64 = match self.layout {
            Layout::ChannelsFirst => self.shape.dims()[2..].iter().map(|&dim| dim as u64).product(),
            Layout::ChannelsLast => 1,
        };
        let skipped = range.start as u64 * apart * self.dtype.size();
        let parts: Vec<_> = self
            .parts
            .iter()
            .map(|part| Part { byte_offset: part.byte_offset + skipped, ..part.clone() })
            .collect();
        let shape = Shape::new(&dims)?;
        Ok(Self { parts: parts.into(), shape, strides: self.strides.canonical(shape), ..self.clone() })
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

    /// Some of the samples (indices of the first axis), as a view of the same memory.
    ///
    /// # Errors
    /// [`Error::Range`] unless the range lies within the samples; it may be empty.
    pub fn slice_samples(&self, range: Range<usize>) -> Result<Self> {
        let samples = self.shape.dims()[0] as u64;
        if range.start > range.end || range.end as u64 > samples {
            return Err(range_error("samples", &range, samples));
        }
        let wanted = range.start as u64..range.end as u64;
        let mut dims = self.shape.dims().to_vec();
        dims[0] = range.len();
        let mut parts: Vec<Part> = Vec::new();
        for part in self.parts.iter() {
            let (begin, end) = (part.samples.start.max(wanted.start), part.samples.end.min(wanted.end));
            if begin < end {
                let skipped = (begin - part.samples.start) * self.strides.sample * self.dtype.size();
                let samples = begin - wanted.start..end - wanted.start;
                parts.push(Part { byte_offset: part.byte_offset + skipped, samples, ..part.clone() });
            }
        }
        if parts.is_empty() {
            parts.push(Part { samples: 0..0, ..self.parts[0].clone() });
        }
        let shape = Shape::new(&dims)?;
        Ok(Self { parts: parts.into(), shape, strides: self.strides.canonical(shape), ..self.clone() })
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

    /// The buffer that holds the tensor; that of the first samples, if there are several.
    #[cfg(feature = "wgpu")]
    pub fn buffer(&self) -> &wgpu::Buffer {
        self.memory().gpu()
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

    /// Elements of a sample.
    pub(crate) fn sample_len(&self) -> u64 {
        Strides::dense(self.shape).sample
    }

    pub(crate) fn sample_stride(&self) -> u64 {
        self.strides.sample
    }

    pub(crate) fn row_stride(&self) -> u64 {
        self.strides.row
    }

    /// Elements by which rows, and samples, are further apart than in a dense tensor.
    pub(crate) fn skips(&self) -> (u64, u64) {
        let (row, sample) = (self.row_len(), self.sample_len());
        let rows = sample.checked_div(row).unwrap_or(0);
        (self.strides.row.saturating_sub(row), self.strides.sample.saturating_sub(rows * self.strides.row))
    }

    pub(crate) fn strides_are_multiples_of(&self, word: u64) -> bool {
        let (row, sample) = self.skips();
        row.is_multiple_of(word) && sample.is_multiple_of(word)
    }

    /// The first sample of each part.
    pub(crate) fn part_starts(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().map(|part| part.samples.start)
    }

    /// How many samples each part has.
    pub(crate) fn part_samples(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().map(|part| part.samples.end - part.samples.start)
    }

    /// The element of a word at which the given samples begin, if the buffer holds all of their last word.
    pub(crate) fn word_place(&self, begin: u64, end: u64) -> Option<u32> {
        let word = 4 * self.dtype.size();
        let len = self.sample_len();
        if begin >= end || len == 0 {
            return Some(0);
        }
        let Location { size, bytes, .. } = self.locate(begin * len..end * len);
        (bytes.end.next_multiple_of(word) <= size).then_some((bytes.start % word / self.dtype.size()) as u32)
    }

    /// Where the given elements are, which must not be none and lie in one part.
    pub(crate) fn locate(&self, elements: Range<u64>) -> Location {
        let sample = elements.start / self.sample_len().max(1);
        // Parts are in order.
        let at = self.parts.partition_point(|part| part.samples.end <= sample);
        self.locate_in(&self.parts[at.min(self.parts.len() - 1)], elements)
    }

    fn locate_in(&self, part: &Part, elements: Range<u64>) -> Location {
        let (len, row) = (self.sample_len().max(1), self.row_len().max(1));
        let place = |element: u64| {
            let (sample, within) = (element / len - part.samples.start, element % len);
            sample * self.strides.sample + within / row * self.strides.row + within % row
        };
        let size = self.dtype.size();
        let (begin, end) = (place(elements.start), place(elements.end.max(1) - 1) + 1);
        Location {
            buffer: part.buffer.clone(),
            size: part.size,
            bytes: part.byte_offset + begin * size..part.byte_offset + end * size,
        }
    }

    /// Everything of it but where it is.
    pub(crate) fn form(&self) -> impl Hash {
        let samples: Vec<_> = self.parts.iter().map(|part| part.samples.clone()).collect();
        (self.shape, self.dtype, self.layout, self.strides, samples)
    }

    /// The buffers of the parts, and the first byte of each.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = (&Buffer, u64)> {
        self.parts.iter().map(|part| (&part.buffer, part.byte_offset))
    }

    /// Where the parts are.
    pub(crate) fn locations(&self) -> impl Iterator<Item = Location> {
        let len = self.sample_len();
        let parts = self.parts.iter().filter(move |part| !part.samples.is_empty() && len > 0);
        parts.map(move |part| self.locate_in(part, part.samples.start * len..part.samples.end * len))
    }

    /// The values in the order of the shape, from the bytes of all locations in order.
    pub(crate) fn gather(&self, locations: &[Vec<u8>]) -> Vec<u8> {
        let (size, row) = (self.dtype.size() as usize, self.row_len() as usize);
        if self.is_dense() {
            return locations.concat();
        }
        let rows = self.sample_len().checked_div(self.row_len()).unwrap_or(0) as usize;
        let mut gathered = Vec::with_capacity(self.byte_len() as usize);
        for (part, bytes) in self.parts.iter().filter(|part| !part.samples.is_empty()).zip(locations) {
            for sample in 0..(part.samples.end - part.samples.start) as usize {
                for at in 0..rows {
                    let begin = sample * self.strides.sample as usize + at * self.strides.row as usize;
                    gathered.extend_from_slice(&bytes[begin * size..(begin + row) * size]);
                }
            }
        }
        gathered
    }

    /// Ranges of bytes of one buffer that both have elements of, unless these lie between each other.
    pub(crate) fn overlap(&self, other: &Tensor) -> Option<(Range<u64>, Range<u64>)> {
        let (mine, theirs): (Vec<_>, Vec<_>) = (self.locations().collect(), other.locations().collect());
        mine.iter().find_map(|a| {
            let met =
                theirs.iter().find(|b| a.meets(b) && !self.is_between(a.bytes.start, other, b.bytes.start));
            met.map(|b| (a.bytes.clone(), b.bytes.clone()))
        })
    }

    /// Ranges of bytes that two parts have in common.
    pub(crate) fn overlap_of_parts(&self) -> Option<(Range<u64>, Range<u64>)> {
        let all: Vec<_> = self.locations().collect();
        all.iter().enumerate().find_map(|(i, a)| {
            let met = all[i + 1..]
                .iter()
                .find(|b| a.meets(b) && !self.is_between(a.bytes.start, self, b.bytes.start));
            met.map(|b| (a.bytes.clone(), b.bytes.clone()))
        })
    }

    /// Whether two views with the same distances have no element in common: their rows, or samples, do not meet.
    fn is_between(&self, start: u64, other: &Tensor, other_start: u64) -> bool {
        if self.dtype != other.dtype || self.strides != other.strides {
            return false;
        }
        let apart = start.abs_diff(other_start) / self.dtype.size();
        let (first, second) = if start <= other_start { (self, other) } else { (other, self) };
        let meet = |period: u64, first: u64, second: u64| {
            let within = apart % period.max(1);
            within < first || within + second > period
        };
        let rank_2 = self.shape.rank() == 2;
        let apart_in_rows = [self, other].iter().all(|tensor| tensor.strides.row > tensor.row_len());
        // Rows of different samples are in step.
        let in_step = self.strides.sample.is_multiple_of(self.strides.row.max(1));
        let (period, len): (u64, fn(&Tensor) -> u64) = match apart_in_rows && in_step && !rank_2 {
            true => (self.strides.row, Tensor::row_len),
            false => (self.strides.sample, Tensor::sample_hull),
        };
        !meet(period, len(first), len(second))
    }

    /// Whether both are the same elements of the same memory.
    pub(crate) fn is_same_place(&self, other: &Tensor) -> bool {
        self.parts == other.parts
            && self.shape == other.shape
            && self.dtype == other.dtype
            && self.strides == other.strides
    }

    /// The bytes of a contiguous tensor as values of 4 bytes.
    pub(crate) fn as_f32_words(&self) -> Result<Self> {
        let words = (self.byte_len() / 4) as usize;
        let shape = Shape::new(&[words])?;
        let part = Part { samples: 0..words as u64, ..self.parts[0].clone() };
        let strides = Strides::dense(shape);
        Ok(Self { parts: Arc::new([part]), shape, dtype: DType::F32, strides, ..self.clone() })
    }

    /// Elements from the first to past the last of a sample.
    fn sample_hull(&self) -> u64 {
        match self.sample_len() {
            0 => 0,
            len => (len - 1) / self.row_len() * self.strides.row + self.row_len(),
        }
    }

    fn row_len(&self) -> u64 {
        Strides::dense(self.shape).row
    }

    /// Bytes from the first to past the last element of a tensor in one part.
    fn hull_bytes(&self) -> Option<u64> {
        let samples = self.shape.dims()[0] as u64;
        if self.shape.len() == 0 {
            return Some(0);
        }
        let last = (samples - 1).checked_mul(self.strides.sample)?;
        last.checked_add(self.sample_len())?.checked_mul(self.dtype.size())
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

    /// Requires values without gaps in one buffer.
    pub(crate) fn check_contiguous(&self, what: &'static str) -> Result<()> {
        if self.is_contiguous() { Ok(()) } else { Err(Error::NotContiguous { what }) }
    }
}

impl Location {
    /// Whether both lie in the same stretch of a buffer.
    pub fn meets(&self, other: &Location) -> bool {
        self.buffer == other.buffer
            && self.bytes.start < other.bytes.end
            && other.bytes.start < self.bytes.end
    }
}

impl Strides {
    /// The same distances, written in the one way: those that no element depends on are those of a dense tensor.
    fn canonical(self, shape: Shape) -> Self {
        let dense = Self::dense(shape);
        let rows = dense.sample.checked_div(dense.row).unwrap_or(0);
        match shape.rank() {
            1 if shape.dims()[0] > 1 => Self { sample: self.sample, ..dense },
            2 if shape.dims()[0] > 1 => Self { sample: self.sample, row: self.sample },
            1 | 2 => dense,
            _ => {
                let row = if rows > 1 { self.row } else { dense.row };
                let sample = if shape.dims()[0] > 1 { self.sample } else { rows * row };
                Self { sample, row }
            }
        }
    }

    fn dense(shape: Shape) -> Self {
        let dims = shape.dims();
        Self {
            sample: dims[1..].iter().map(|&dim| dim as u64).product(),
            row: if dims.len() > 1 { dims[dims.len() - 1] as u64 } else { 1 },
        }
    }
}

fn check_range(what: &'static str, range: &Range<usize>, len: u64) -> Result<()> {
    if range.start < range.end && range.end as u64 <= len {
        return Ok(());
    }
    Err(range_error(what, range, len))
}

fn range_error(what: &'static str, range: &Range<usize>, len: u64) -> Error {
    Error::Range { what, start: range.start as u64, end: range.end as u64, len }
}
