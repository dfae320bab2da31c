//! Moments as a value: count, mean and variance per channel, on the GPU and on the host.

use bytemuck::{Pod, Zeroable};

use crate::base::error::{Error, Result};
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::shader::Monoid;
use crate::engine::slab::Slab;
use crate::plan::{MOMENTS_BYTES, Op};
use crate::statistics::pooled_moments::PooledMoments;
use crate::statistics::totals::Totals;

/// Moments of one channel: count, mean and biased variance.
///
/// The mean is kept in two parts, `shift` being the f32 nearest to it, so that no digits are lost where it is much
/// larger than the standard deviation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ChannelMoments {
    /// Number of values.
    pub count: u64,
    /// The f32 nearest to the mean.
    pub shift: f32,
    /// Mean minus `shift`.
    pub delta: f32,
    /// Biased variance: the mean squared deviation from the mean.
    pub var: f32,
}

impl ChannelMoments {
    /// The mean, exact to f32's precision relative to the standard deviation.
    pub fn mean(&self) -> f64 {
        f64::from(self.shift) + f64::from(self.delta)
    }

    /// The unbiased variance, `var·n / max(n − 1, 1)`.
    pub fn unbiased_var(&self) -> f64 {
        PooledMoments::from(*self).unbiased_var()
    }
}

const _: () = assert!(size_of::<MomentsRecord>() as u64 == MOMENTS_BYTES);

/// Rust twin of `MomentsRecord` in shaders/lib/moments.wesl.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct MomentsRecord {
    count: [u32; 2],
    shift: f32,
    delta: f32,
    variance: f32,
    unused: u32,
}

impl From<ChannelMoments> for MomentsRecord {
    fn from(moments: ChannelMoments) -> Self {
        Self {
            count: [moments.count as u32, (moments.count >> 32) as u32],
            shift: moments.shift,
            delta: moments.delta,
            variance: moments.var,
            unused: 0,
        }
    }
}

impl From<MomentsRecord> for ChannelMoments {
    fn from(record: MomentsRecord) -> Self {
        Self {
            count: u64::from(record.count[0]) | u64::from(record.count[1]) << 32,
            shift: record.shift,
            delta: record.delta,
            // Rounding may leave the variance of equal values below 0, in the last bits.
            var: if record.variance < 0.0 { 0.0 } else { record.variance },
        }
    }
}

/// Moments per channel as a value on the GPU: computed from a tensor, merged, downloaded, or what a layer normalizes
/// with ([`Input::with_moments`](crate::Input::with_moments)).
///
/// Merging is exact up to rounding and in a fixed order: the moments of parts merge to the moments of the whole
/// (Chan, Golub & LeVeque 1983).
///
/// ```
/// use wgnorm::statistics::Moments;
/// use wgnorm::Context;
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     // Two batches of two channels.
///     let a = context.upload(&[1, 2, 2], &[1.0, 3.0, 10.0, 10.0]).await?;
///     let b = context.upload(&[1, 2, 2], &[5.0, 7.0, 30.0, 30.0]).await?;
///     let mut both = Moments::of(&context, &a).await?;
///     both.merge(&context, &Moments::of(&context, &b).await?).await?;
///     let moments = both.download(&context).await?;
///     assert_eq!((moments[0].count, moments[0].mean()), (4, 4.0));
///     assert_eq!((moments[1].count, moments[1].mean()), (4, 20.0));
///     assert_eq!(moments[1].var, 100.0);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Debug)]
pub struct Moments {
    totals: Totals<MomentsRecord>,
    count: Option<u64>,
    /// Values per channel of the tensor that it was prepared for, those included that a mask leaves out.
    extent: Option<u64>,
    /// Whether a count of 0 can be the result of a mask, and not that of nothing having been computed yet.
    masked: bool,
}

impl Moments {
    /// Moments of no values: the identity of [`merge`](Self::merge).
    ///
    /// # Errors
    /// [`Error::Channels`] for no channels, and those of an allocation.
    pub async fn empty(context: &Context, channels: usize) -> Result<Self> {
        context.check_size(WHAT, channels as u64, MOMENTS_BYTES)?;
        Self::upload(context, &vec![ChannelMoments::default(); channels]).await
    }

    /// Moments from the host, one per channel.
    ///
    /// # Errors
    /// [`Error::Channels`] for no channels, [`Error::Value`] for a negative variance, and those of an allocation.
    pub async fn upload(context: &Context, channels: &[ChannelMoments]) -> Result<Self> {
        check_variances(channels)?;
        let records = channels.iter().map(|&moments| moments.into());
        let totals = Totals::upload(context, WHAT, Monoid::Moments, records).await?;
        Ok(Self { totals, count: uniform_count(channels), extent: None, masked: false })
    }

    /// Replaces the moments by others from the host, one per channel, before everything that is submitted later.
    ///
    /// # Errors
    /// [`Error::Channels`] if the channels differ, [`Error::Value`] for a negative variance, [`Error::ForeignDevice`].
    pub async fn write(&mut self, context: &Context, channels: &[ChannelMoments]) -> Result<()> {
        check_variances(channels)?;
        self.totals.write(context, channels.iter().map(|&moments| moments.into())).await?;
        (self.count, self.extent) = (uniform_count(channels), None);
        Ok(())
    }

    /// Room for the moments of a tensor with so many values per channel, of which a mask may leave out some.
    pub(crate) async fn of_count(context: &Context, channels: u64, count: u64, masked: bool) -> Result<Self> {
        let moments = Self::empty(context, channels as usize).await?;
        Ok(Self { count: (!masked).then_some(count), extent: Some(count), masked, ..moments })
    }

    /// The operation that merges all of them into the first, pairwise.
    pub(crate) async fn prepare_merge_all(context: &Context, all: &mut [Self]) -> Result<Prepared> {
        let masked = all.iter().any(|moments| moments.masked);
        for moments in all.iter_mut() {
            (moments.count, moments.extent, moments.masked) = (None, None, masked);
        }
        let totals: Vec<_> = all.iter().map(|one| &one.totals).collect();
        Totals::prepare_merge_all(context, Op::Moments, &totals).await
    }

    /// Merges the values that `other` covers into this, submitted at once.
    ///
    /// # Errors
    /// As [`Moments::prepare_merge`].
    pub async fn merge(&mut self, context: &Context, other: &Moments) -> Result<()> {
        let sum = self.count.zip(other.count).and_then(|(a, b)| a.checked_add(b));
        let prepared = self.prepare_merge(context, other).await?;
        context.submit(&[&prepared]).await?;
        self.count = sum;
        Ok(())
    }

    /// The operation that merges the values that `other` covers into this; each time it runs, it merges again.
    /// From now on [`count`](Self::count) is not known on the host, because it depends on that.
    ///
    /// # Errors
    /// [`Error::Channels`] if the channels differ, [`Error::ForeignDevice`].
    pub async fn prepare_merge(&mut self, context: &Context, other: &Moments) -> Result<Prepared> {
        let prepared = self.totals.prepare_merge(context, &other.totals).await?;
        self.masked |= other.masked;
        self.extent = None;
        self.count = None;
        Ok(prepared)
    }

    /// The moments on the host, one per channel, after everything that was submitted before.
    ///
    /// # Errors
    /// [`Error::ForeignDevice`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn download(&self, context: &Context) -> Result<Vec<ChannelMoments>> {
        Ok(self.totals.download(context).await?.into_iter().map(Into::into).collect())
    }

    /// As [`download`](Self::download), after these operations of the context, which are submitted with it.
    pub(crate) async fn download_after(
        &self,
        context: &Context,
        operations: &[&Prepared],
    ) -> Result<Vec<ChannelMoments>> {
        Ok(self.totals.download_after(context, operations).await?.into_iter().map(Into::into).collect())
    }

    /// Number of channels.
    pub fn channels(&self) -> u64 {
        self.totals.channels()
    }

    /// Values per channel, if known on the host and the same for all channels.
    pub fn count(&self) -> Option<u64> {
        self.count
    }

    /// Says that what they cover is not known before they are written, which may be nothing.
    pub(crate) fn leave_open(&mut self) {
        (self.count, self.extent, self.masked) = (None, None, true);
    }

    /// Whether the values of one tensor are covered, as many per channel and masked or not.
    pub(crate) fn covers(&self, count: u64, masked: bool) -> bool {
        match masked {
            true => self.masked && self.extent == Some(count),
            false => self.count == Some(count),
        }
    }

    /// Whether a count of 0 is what a mask has left, and no sign of something that has not run.
    pub(crate) fn may_be_of_nothing(&self) -> bool {
        self.masked
    }

    pub(crate) fn slab(&self) -> Slab {
        self.totals.slab()
    }

    /// Requires the context's device and a number of channels.
    pub(crate) fn check(&self, context: &Context, channels: u64) -> Result<()> {
        self.totals.check(context, channels)
    }
}

const WHAT: &str = "moments";

/// NaN and infinities are what a channel can have come to; a negative variance is no variance.
fn check_variances(channels: &[ChannelMoments]) -> Result<()> {
    match channels.iter().position(|channel| channel.var < 0.0) {
        None => Ok(()),
        Some(index) => Err(Error::Value {
            what: "the variance of moments",
            index: index as u64,
            expected: "at least 0",
            got: channels[index].var.into(),
        }),
    }
}

/// The count of all channels, if it is the same.
fn uniform_count(channels: &[ChannelMoments]) -> Option<u64> {
    let first = channels.first()?;
    channels.iter().all(|moments| moments.count == first.count).then_some(first.count)
}
