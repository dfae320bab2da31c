//! Tensors made of others: parts of one, and several as one.

use std::ops::Range;
use std::sync::Arc;

use super::{Part, Strides, Tensor};
use crate::base::error::{Error, Result};
use crate::base::shape::{Channels, Layout, Shape};

impl Tensor {
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

    /// Some columns of some rows, of a tensor that is rows of `len` elements equally far apart.
    pub(crate) fn block(&self, len: u64, rows: Range<u64>, columns: Range<u64>) -> Result<Self> {
        let what = "a tensor of which a part is taken";
        let apart = self.rows_apart(len).ok_or(Error::NotContiguous { what })?;
        let dims = [rows.end - rows.start, columns.end - columns.start];
        let shape = Shape::new(&dims.map(|dim| dim as usize))?;
        let strides = Strides { sample: apart, row: apart }.canonical(shape);
        let skipped = (rows.start * apart + columns.start) * self.dtype.size();
        let [part] = &*self.parts else { return Err(Error::NotContiguous { what }) };
        let part = Part { byte_offset: part.byte_offset + skipped, samples: 0..dims[0], ..part.clone() };
        Ok(Self { parts: Arc::new([part]), shape, strides, ..self.clone() })
    }

    /// Some of the values of a contiguous tensor, in the order of memory.
    pub(crate) fn stretch(&self, range: Range<u64>) -> Result<Self> {
        let row = self.block(self.shape.len(), 0..1, range.clone())?;
        let shape = Shape::per_channel(range.end - range.start);
        let part = Part { samples: 0..range.end - range.start, ..row.parts[0].clone() };
        Ok(Self { parts: Arc::new([part]), shape, strides: Strides::dense(shape), ..row })
    }

    /// A contiguous tensor as samples, channels and positions, or a view that is already.
    pub(crate) fn reshaped(&self, view: Channels) -> Result<Self> {
        let Channels { samples, channels, inner, layout } = view;
        let dims = match layout {
            Layout::ChannelsFirst => [samples, channels, inner],
            Layout::ChannelsLast => [samples, inner, channels],
        };
        let shape = Shape::new(&dims.map(|dim| dim as usize))?;
        if self.shape == shape {
            return Ok(Self { layout, ..self.clone() });
        }
        self.check_contiguous("a tensor of which a part is taken")?;
        let part = Part { samples: 0..dims[0], ..self.parts[0].clone() };
        let strides = Strides::dense(shape);
        Ok(Self { parts: Arc::new([part]), shape, strides, layout, ..self.clone() })
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
