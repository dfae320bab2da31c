//! Gradient sums as a value: Σ dz and Σ dz·x̂ per channel, on the GPU and on the host.

use bytemuck::{Pod, Zeroable};

use crate::base::error::Result;
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::shader::Monoid;
use crate::plan::{GRADIENT_SUMS_BYTES, Op};
use crate::statistics::totals::Totals;

/// Gradient sums of one channel. Rust twin of `GradientSumsRecord` in shaders/lib/gradient_sums.wesl.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct ChannelGradientSums {
    /// Σ dz: the gradient of beta.
    pub dz: f32,
    /// Σ dz·x̂: the gradient of gamma, but with batch renorm, where that takes both sums ([`Renorm`](crate::statistics::Renorm)).
    pub dz_xhat: f32,
}

const _: () = assert!(size_of::<ChannelGradientSums>() as u64 == GRADIENT_SUMS_BYTES);

/// The two sums per channel that a backward pass through batch statistics takes, as a value on the GPU: computed from x and dy
/// ([`BatchNorm::prepare_gradient_sums`](crate::BatchNorm::prepare_gradient_sums)), merged over all that the statistics cover,
/// exchanged, and what dx is computed from ([`BatchNorm::prepare_backward_from`](crate::BatchNorm::prepare_backward_from)).
///
/// The counterpart of [`Moments`](crate::statistics::Moments): merging is addition.
#[derive(Debug)]
pub struct GradientSums {
    pub(crate) totals: Totals<ChannelGradientSums>,
}

impl GradientSums {
    /// Sums over no values: the identity of [`merge`](Self::merge).
    ///
    /// # Errors
    /// [`Error::Channels`](crate::Error::Channels) for no channels, and those of an allocation.
    pub async fn empty(context: &Context, channels: usize) -> Result<Self> {
        context.check_size(WHAT, channels as u64, GRADIENT_SUMS_BYTES)?;
        Self::upload(context, &vec![ChannelGradientSums::default(); channels]).await
    }

    /// Sums from the host, one per channel.
    ///
    /// # Errors
    /// [`Error::Channels`](crate::Error::Channels) for no channels, and those of an allocation.
    pub async fn upload(context: &Context, channels: &[ChannelGradientSums]) -> Result<Self> {
        let totals = Totals::upload(context, WHAT, Monoid::GradientSums, channels.iter().copied()).await?;
        Ok(Self { totals })
    }

    /// Replaces the sums by others from the host, one per channel, before everything that is submitted later.
    ///
    /// # Errors
    /// [`Error::Channels`](crate::Error::Channels) if the channels differ,
    /// [`Error::ForeignDevice`](crate::Error::ForeignDevice).
    pub async fn write(&mut self, context: &Context, channels: &[ChannelGradientSums]) -> Result<()> {
        self.totals.write(context, channels.iter().copied()).await
    }

    /// Adds those of `other`, submitted at once.
    ///
    /// # Errors
    /// As [`prepare_merge`](Self::prepare_merge).
    pub async fn merge(&mut self, context: &Context, other: &GradientSums) -> Result<()> {
        let prepared = self.prepare_merge(context, other).await?;
        context.submit(&[&prepared]).await
    }

    /// The operation that adds those of `other`; each time it runs, it adds again.
    ///
    /// # Errors
    /// [`Error::Channels`](crate::Error::Channels) if the channels differ,
    /// [`Error::ForeignDevice`](crate::Error::ForeignDevice).
    pub async fn prepare_merge(&mut self, context: &Context, other: &GradientSums) -> Result<Prepared> {
        self.totals.prepare_merge(context, &other.totals).await
    }

    /// The operation that adds all of them into the first, pairwise.
    pub(crate) async fn prepare_merge_all(context: &Context, all: &mut [Self]) -> Result<Prepared> {
        let totals: Vec<_> = all.iter().map(|one| &one.totals).collect();
        Totals::prepare_merge_all(context, Op::TrainBackward, &totals).await
    }

    /// The sums on the host, one per channel, after everything that was submitted before.
    ///
    /// # Errors
    /// [`Error::ForeignDevice`](crate::Error::ForeignDevice), [`Error::OutOfMemory`](crate::Error::OutOfMemory),
    /// [`Error::DeviceLost`](crate::Error::DeviceLost).
    pub async fn download(&self, context: &Context) -> Result<Vec<ChannelGradientSums>> {
        self.totals.download(context).await
    }

    /// Number of channels.
    pub fn channels(&self) -> u64 {
        self.totals.channels()
    }
}

const WHAT: &str = "gradient sums";
