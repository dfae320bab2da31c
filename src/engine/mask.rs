//! Masks: which positions of a batch count.

use std::hash::Hash;

use crate::base::error::{Error, Result};
use crate::base::shape::Channels;
use crate::engine::buffer::{Buffer, Usage};
use crate::engine::context::{Context, ContextId};
use crate::engine::tensor::Tensor;

/// Which positions of a batch count in training: those of real data, and not the padding of sequences of different lengths.
///
/// One truth value for each sample and position, the same for all channels, on the GPU as bits. What is masked enters neither
/// statistics nor gradients, whatever its value is, NaN included: y there is normalized as usual, dy there counts as 0, dx there is 0.
/// A batch without any value that counts leaves the running statistics untouched and gives y = beta, where x is finite. How many values a mask
/// leaves is known on the GPU alone, so one that leaves a single value is not refused as a batch of one value is. Inference and statistics
/// that are given are not affected; gradients through frozen statistics are.
///
/// ```
/// use wgnorm::{BatchNorm, BatchNormOptions, Context, Mask};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     // Two sequences of one channel, of lengths 3 and 1.
///     let x = context.upload(&[2, 1, 3], &[1.0, 2.0, 3.0, 6.0, f32::NAN, f32::NAN]).await?;
///     let mask = Mask::of_lengths(&context, &x, &[3, 1]).await?;
///     let mut layer = BatchNorm::new(&context, 1, BatchNormOptions::pytorch()).await?;
///     let (y, saved) = layer.train_forward(x.masked(&mask)).await?;
///     assert_eq!(saved.download(&context).await?[0].mean(), 3.0);
///     let dy = context.upload(&[2, 1, 3], &[1.0; 6]).await?;
///     let dx = context.download(&layer.backward(x.masked(&mask), &dy, &saved).await?.dx).await?;
///     assert_eq!(dx[4..], [0.0, 0.0]);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mask {
    buffer: Buffer,
    home: ContextId,
    samples: u64,
    /// Per sample.
    positions: u64,
    /// Samples that lie before the first, in a part of a mask.
    first_sample: u64,
    /// Whether it is a part of a mask.
    is_part: bool,
}

/// Bits before the first: where a run begins inside of a word of four values, kernels look at up to three.
const LEAD: u64 = 32;

impl Mask {
    /// A truth value for each sample and position of x, row-major `[N, …]` without the axis of channels; true counts.
    ///
    /// # Errors
    /// [`Error::Number`] if there are not as many, [`Error::Rank`], [`Error::TooLarge`] beyond 2^31 positions, and those of an
    /// allocation.
    pub async fn of_positions(context: &Context, x: &Tensor, keep: &[bool]) -> Result<Self> {
        let mask = Self::allocate(context, x).await?;
        mask.write(context, keep).await?;
        Ok(mask)
    }

    /// A truth value for each sample of x.
    ///
    /// # Errors
    /// As [`of_positions`](Self::of_positions).
    pub async fn of_samples(context: &Context, x: &Tensor, keep: &[bool]) -> Result<Self> {
        let view = x.channels()?;
        check_samples(view, keep.len())?;
        let inner = view.inner as usize;
        let keep: Vec<bool> = keep.iter().flat_map(|&keep| std::iter::repeat_n(keep, inner)).collect();
        Self::of_positions(context, x, &keep).await
    }

    /// The first positions of each sample of x count, as many as its length: sequences with padding at the end.
    ///
    /// # Errors
    /// [`Error::Range`] if a length exceeds the positions of a sample, and as [`of_positions`](Self::of_positions).
    pub async fn of_lengths(context: &Context, x: &Tensor, lengths: &[usize]) -> Result<Self> {
        let view = x.channels()?;
        check_samples(view, lengths.len())?;
        if let Some(&length) = lengths.iter().find(|&&length| length as u64 > view.inner) {
            let what = "the first positions";
            return Err(Error::Range { what, start: 0, end: length as u64, len: view.inner });
        }
        let keep: Vec<bool> =
            lengths.iter().flat_map(|&length| (0..view.inner as usize).map(move |i| i < length)).collect();
        Self::of_positions(context, x, &keep).await
    }

    /// A truth value for each row of tensors of any shape, for norms that normalize each row by itself (layer norm, RMS norm, ScaleNorm): those of real
    /// tokens, and not the padding of sequences of different lengths.
    ///
    /// What is masked has no part in gradients, whatever its value is, NaN included: dy there counts as 0, dx there is 0, and dgamma and dbeta have
    /// nothing of it. y there is normalized as usual. A mask of another kind will do, if it has as many positions in all as x has rows.
    ///
    /// ```
    /// use wgnorm::{Context, LayerNorm, Mask, NormOptions};
    /// let context = Context::headless_blocking()?;
    /// context.block_on(async {
    ///     // A sequence of two tokens of two values, and one of padding.
    ///     let x = context.upload(&[3, 2], &[1.0, 2.0, 5.0, 3.0, f32::NAN, f32::NAN]).await?;
    ///     let mask = Mask::of_rows(&context, &[true, true, false]).await?;
    ///     let layer = LayerNorm::new(&context, &[2], NormOptions::layer()).await?;
    ///     let (y, saved) = layer.forward(x.masked(&mask)).await?;
    ///     let gradients = layer.backward(x.masked(&mask), &y, &saved).await?;
    ///     assert!(context.download(&gradients.dgamma.unwrap()).await?.iter().all(|dgamma| (dgamma - 2.0).abs() < 1e-3));
    ///     assert_eq!(context.download(&gradients.dx).await?[4..], [0.0, 0.0]);
    ///     Ok::<(), wgnorm::Error>(())
    /// })?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond 2^31 rows, and those of an allocation.
    pub async fn of_rows(context: &Context, keep: &[bool]) -> Result<Self> {
        let mask = Self::allocate_for(context, keep.len() as u64, 1).await?;
        mask.write(context, keep).await?;
        Ok(mask)
    }

    /// A truth value for each of so many samples and so many positions of each, row-major, of tensors that are not at hand:
    /// [`of_positions`](Self::of_positions) of any x with as many.
    ///
    /// # Errors
    /// As [`of_positions`](Self::of_positions).
    pub async fn of_extent(context: &Context, extent: [usize; 2], keep: &[bool]) -> Result<Self> {
        let [samples, positions] = extent.map(|length| length as u64);
        let mask = Self::allocate_for(context, samples, positions).await?;
        mask.write(context, keep).await?;
        Ok(mask)
    }

    async fn allocate(context: &Context, x: &Tensor) -> Result<Self> {
        let view = x.channels()?;
        Self::allocate_for(context, view.samples, view.inner).await
    }

    async fn allocate_for(context: &Context, samples: u64, positions: u64) -> Result<Self> {
        let bits = samples.saturating_mul(positions);
        let limit = 1 << 31;
        if bits > limit {
            let (unit, limit_name) = ("positions", "most positions of a mask");
            return Err(Error::TooLarge { what: "a mask", needed: bits, unit, limit_name, limit });
        }
        let bytes = (LEAD + bits).div_ceil(32) * 4;
        let buffer = context.create_buffer("a mask", bytes, Usage::Written).await?;
        Ok(Self { buffer, home: context.id(), samples, positions, first_sample: 0, is_part: false })
    }

    /// Replaces the truth values, after everything that was submitted before and before everything that is submitted later: a prepared
    /// operation then works with the new ones.
    ///
    /// # Errors
    /// [`Error::Number`] if there are not as many as before, [`Error::ForeignDevice`]; on a part of a mask
    /// ([`slice_samples`](Self::slice_samples)) [`Error::NotContiguous`].
    pub async fn write(&self, context: &Context, keep: &[bool]) -> Result<()> {
        self.check_device(context)?;
        if self.is_part {
            return Err(Error::NotContiguous { what: "a mask that is written" });
        }
        let (expected, got) = ((self.samples * self.positions) as usize, keep.len());
        if expected != got {
            return Err(Error::Number { what: "truth values of a mask", expected, got });
        }
        let mut words = vec![0_u32; (LEAD as usize + keep.len()).div_ceil(32)];
        for (i, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
            let bit = LEAD as usize + i;
            words[bit / 32] |= 1 << (bit % 32);
        }
        context.write(&self.buffer, bytemuck::cast_slice(&words)).await
    }

    /// The mask of some of the samples: it shares what it holds with the whole.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn slice_samples(&self, range: std::ops::Range<usize>) -> Result<Self> {
        let (start, end) = (range.start as u64, range.end as u64);
        if start > end || end > self.samples {
            return Err(Error::Range { what: "samples", start, end, len: self.samples });
        }
        let first_sample = self.first_sample + start;
        Ok(Self { samples: end - start, first_sample, is_part: true, ..self.clone() })
    }

    /// What it says of some of all positions, as samples of one position.
    pub(crate) fn of_some_positions(&self, range: std::ops::Range<u64>) -> Self {
        let first_sample = self.first_sample * self.positions + range.start;
        let samples = range.end - range.start;
        Self { samples, positions: 1, first_sample, is_part: true, ..self.clone() }
    }

    /// Samples.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Positions of a sample.
    pub fn positions(&self) -> u64 {
        self.positions
    }

    pub(crate) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// What [`place`](Self::place) depends on.
    pub(crate) fn form(&self) -> impl Hash {
        (self.positions, self.first_sample)
    }

    /// The bit of an element of a tensor with this geometry, and how many values of its row come before it.
    pub(crate) fn place(&self, view: Channels, element: u64) -> (u32, u32) {
        let Channels { channels, inner, .. } = view;
        let (position, lead) = if view.walks_rows() {
            (element / channels, element % channels)
        } else {
            (element / (channels * inner) * inner + element % inner, 0)
        };
        ((LEAD + self.first_sample * self.positions + position) as u32, lead as u32)
    }

    /// Requires the context's device and the geometry of x.
    pub(crate) fn check(&self, context: &Context, view: Channels) -> Result<()> {
        self.check_device(context)?;
        if (self.samples, self.positions) == (view.samples, view.inner) {
            return Ok(());
        }
        let expected = (view.samples, view.inner);
        Err(Error::Mask { expected, got: (self.samples, self.positions) })
    }

    /// Requires the context's device and a truth value for each of so many rows.
    pub(crate) fn check_rows(&self, context: &Context, rows: u64) -> Result<()> {
        self.check_device(context)?;
        if self.samples * self.positions == rows {
            return Ok(());
        }
        let (expected, got) = (rows as usize, (self.samples * self.positions) as usize);
        Err(Error::Number { what: "positions of the mask, one for each row of x", expected, got })
    }

    fn check_device(&self, context: &Context) -> Result<()> {
        if self.home == context.id() { Ok(()) } else { Err(Error::ForeignDevice { what: "the mask" }) }
    }
}

fn check_samples(view: Channels, got: usize) -> Result<()> {
    let expected = view.samples as usize;
    if expected == got { Ok(()) } else { Err(Error::Number { what: "samples of a mask", expected, got }) }
}
