//! Synchronised batch norm: statistics over the shards of all ranks of a collective.
//!
//! Source: the formulas of batch norm over the concatenation of the shards. Ranks exchange moments, which merge, not Σx and Σx²,
//! which cancel.

use super::batch::BatchNorm;
use super::frozen::FrozenBatchNorm;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::collective::Collective;
use crate::engine::bindings::check_apart;
use crate::engine::prepared::Prepared;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::pass::input::Input;
use crate::pass::{GradientTargets, Gradients};
use crate::plan::Op;
use crate::statistics::gradient_sums::{ChannelGradientSums, GradientSums};
use crate::statistics::moments::{ChannelMoments, Moments};
use crate::statistics::pooled_moments::PooledMoments;
use crate::statistics::saved::Saved;

/// A batch-norm layer in training whose batch is spread over the ranks of a [`Collective`]: forward and backward are those of batch
/// norm over the shards of all ranks together.
///
/// Shards may hold different numbers of values, and one may be empty; the weights are the exact counts. Every rank makes the same
/// calls in the same order. A forward pass gives `count` and mean (two parts) and variance per channel to the others, a u64 and 3·C f32,
/// a backward pass the two gradient sums, 2·C f32. Moments are merged in f64 in the order of ranks, so all ranks have the same bits,
/// whoever comes first. dgamma and dbeta stay those of the rank's own shard, as in PyTorch: gradients of parameters are exchanged with
/// those of the other layers.
///
/// Where a rank fails, so do the others, by the rules of the collective. An error in an argument that this rank's call finds before
/// anything is exchanged is told to the others too, and so is a call whose future is dropped. Ranks that mix up layers of the same number of
/// channels are not found out.
///
/// For checkpointing, a forward pass is repeated without an exchange, and without an update, by `layer.local()` from
/// [`SyncTrainForward::pooled`]: [`BatchNorm::train_forward_untracked`] with moments.
///
/// ```
/// use std::time::Duration;
/// use wgnorm::collective::{Collective, LocalRank};
/// use wgnorm::{BatchNorm, BatchNormOptions, Context};
/// let ranks = LocalRank::group(2, Duration::from_secs(60))?;
/// let threads: Vec<_> = ranks
///     .into_iter()
///     .map(|rank| {
///         std::thread::spawn(move || {
///             let context = Context::headless_blocking()?;
///             context.block_on(async {
///                 // Rank 0 has the values 1 and 3, rank 1 has 5 and 7.
///                 let first = 4.0 * rank.rank() as f32 + 1.0;
///                 let x = context.upload(&[2, 1], &[first, first + 2.0]).await?;
///                 let layer = BatchNorm::new(&context, 1, BatchNormOptions::pytorch()).await?;
///                 let mut layer = layer.synchronised(&rank);
///                 let (y, saved) = layer.train_forward(&x).await?;
///                 let gradients = layer.backward(&x, &y, &saved).await?;
///                 assert_eq!(gradients.dx.shape(), x.shape());
///                 // The mean of all four is 4: the running mean 0.1 · 4.
///                 let layer = layer.into_local();
///                 assert_eq!(layer.running().download(&context).await?.mean, [0.4]);
///                 Ok::<(), wgnorm::Error>(())
///             })
///         })
///     })
///     .collect();
/// for thread in threads {
///     thread.join().unwrap()?;
/// }
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[doc(alias = "convert_sync_batchnorm")]
#[derive(Debug)]
pub struct SyncBatchNorm<C> {
    layer: BatchNorm,
    collective: C,
}

/// A forward pass of a [`SyncBatchNorm`] that is prepared: what comes before the exchange and what comes after it.
#[derive(Debug)]
pub struct SyncTrainForward {
    local: Moments,
    reduce: Prepared,
    pooled: Moments,
    map: Prepared,
    update: Prepared,
    layer: u64,
    shape: Shape,
}

/// A backward pass of a [`SyncBatchNorm`] that is prepared.
#[derive(Debug)]
pub struct SyncBackward {
    local: GradientSums,
    reduce: Prepared,
    pooled: GradientSums,
    map: Prepared,
    layer: u64,
}

impl BatchNorm {
    /// The same layer over the ranks of a collective. All ranks must have the same number of channels, options, parameters and running
    /// statistics. Several layers can share one collective: give each `&collective`, or an `Arc`.
    pub fn synchronised<C: Collective>(self, collective: C) -> SyncBatchNorm<C> {
        SyncBatchNorm { layer: self, collective }
    }
}

impl<C: Collective> SyncBatchNorm<C> {
    /// The layer by itself, with the same parameters and running statistics.
    pub fn into_local(self) -> BatchNorm {
        self.layer
    }

    /// The layer for inference, which needs no other rank.
    pub fn freeze(self) -> FrozenBatchNorm {
        self.layer.freeze()
    }

    /// The layer by itself, for everything that does not depend on a batch.
    pub fn local(&self) -> &BatchNorm {
        &self.layer
    }

    /// The rank's end of the collective.
    pub fn collective(&self) -> &C {
        &self.collective
    }

    /// Prepares y from the statistics of all ranks' shards, with an update of the running statistics. `saved` must be
    /// [pooled](Saved::pooled). An empty x is fine.
    ///
    /// Nothing is exchanged before [`submit_forward`](Self::submit_forward). If this fails on one rank, tell the others by
    /// [`Collective::fail`], or let them wait for their deadline.
    ///
    /// # Errors
    /// Those of [`BatchNorm::prepare_train_forward`], except that for few values.
    pub async fn prepare_train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<SyncTrainForward> {
        let input = input.into();
        let parts = &self.layer.parts;
        let context = &parts.context;
        self.layer.check_composed(input)?;
        let channels = parts.running.channels() as usize;
        let (local, reduce) = Moments::prepare(context, input).await?;
        // Their count is not known before the exchange; any but 0 and 1 lets what follows be prepared.
        let unknown = vec![ChannelMoments { count: 2, ..ChannelMoments::default() }; channels];
        let mut pooled = Moments::upload(context, &unknown).await?;
        pooled.leave_open();
        let map = self.layer.prepare_train_forward_untracked(input.with_moments(&pooled), y, saved).await?;
        // By a kernel of its own, the same on all ranks, whatever their shards are: so are the bits of running statistics.
        let update = self.layer.prepare_update(&pooled).await?;
        let shape = input.x.shape();
        Ok(SyncTrainForward { local, reduce, pooled, map, update, layer: parts.id, shape })
    }

    /// Runs a forward pass: this rank's moments, the exchange, y.
    ///
    /// # Errors
    /// [`Error::Collective`], [`Error::SingleValue`] if all ranks together have one value per channel (on all of them),
    /// [`Error::WrongLayer`], and those of a read-back. Running statistics stay as they are then.
    pub async fn submit_forward(&mut self, forward: &mut SyncTrainForward) -> Result<()> {
        let unfinished = Unfinished(&self.collective);
        let result = self.exchange_moments(forward).await;
        unfinished.finished();
        result
    }

    async fn exchange_moments(&self, forward: &mut SyncTrainForward) -> Result<()> {
        let parts = &self.layer.parts;
        let result = async {
            if forward.layer != parts.id {
                return Err(Error::WrongLayer);
            }
            encode_moments(&forward.local.download_after(&parts.context, &[&forward.reduce]).await?)
        };
        let message = self.told(result.await)?;
        let length = message.len();
        let messages = self.collective.all_gather(message).await?;
        let result = async {
            let mut pooled = vec![PooledMoments::default(); parts.running.channels() as usize];
            for message in &messages {
                check_length(message, length)?;
                PooledMoments::merge_channels(&mut pooled, decode_moments(message));
            }
            // All ranks know the same count.
            let count = pooled.first().map_or(0, |channel| channel.count);
            if count == 1 && !parts.options.allow_single_value {
                return Ok(Err(Error::SingleValue { shape: forward.shape }));
            }
            let channels: Vec<ChannelMoments> = pooled.into_iter().map(Into::into).collect();
            forward.pooled.write(&parts.context, &channels).await?;
            parts.context.submit(&[&forward.map, &forward.update]).await?;
            Ok(Ok(()))
        };
        self.told(result.await)?
    }

    /// Prepares the gradients through the statistics of all ranks' shards, as many as are asked for: dx with the sums over all ranks,
    /// dgamma and dbeta over this rank's shard.
    ///
    /// # Errors
    /// Those of [`BatchNorm::prepare_gradient_sums`] and [`BatchNorm::prepare_backward_from`]; [`Error::NoGradient`] without any target.
    pub async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<SyncBackward> {
        let input = input.into();
        let parts = &self.layer.parts;
        targets.check_any()?;
        if let (Some(dx), Some(d_residual)) = (targets.dx, targets.d_residual) {
            check_apart((Slot::Dx, dx), (Slot::DResidual, d_residual))?;
        }
        let of_sums = GradientTargets { dx: None, ..*targets };
        let (local, reduce) = self.layer.prepare_gradient_sums(input, dy, saved, &of_sums).await?;
        let pooled = GradientSums::empty(&parts.context, parts.running.channels() as usize).await?;
        let map = match targets.dx {
            Some(_) => {
                let of_map = GradientTargets { dx: targets.dx, ..GradientTargets::default() };
                self.layer.prepare_backward_from(&pooled, input, dy, saved, &of_map).await?
            }
            None => Prepared::nothing(&parts.context, Op::TrainBackward),
        };
        Ok(SyncBackward { local, reduce, pooled, map, layer: parts.id })
    }

    /// Runs a backward pass: this rank's gradient sums, the exchange, dx. Every rank exchanges, whether it wants dx or not.
    ///
    /// # Errors
    /// [`Error::Collective`], [`Error::WrongLayer`], and those of a read-back.
    pub async fn submit_backward(&self, backward: &mut SyncBackward) -> Result<()> {
        let unfinished = Unfinished(&self.collective);
        let result = self.exchange_sums(backward).await;
        unfinished.finished();
        result
    }

    async fn exchange_sums(&self, backward: &mut SyncBackward) -> Result<()> {
        let parts = &self.layer.parts;
        let result = async {
            if backward.layer != parts.id {
                return Err(Error::WrongLayer);
            }
            let sums = backward.local.totals.download_after(&parts.context, &[&backward.reduce]).await?;
            Ok(encode_sums(&sums))
        };
        let message = self.told(result.await)?;
        let length = message.len();
        let messages = self.collective.all_gather(message).await?;
        let result = async {
            let mut pooled = vec![[0.0_f64; 2]; parts.running.channels() as usize];
            for message in &messages {
                check_length(message, length)?;
                for (sums, part) in pooled.iter_mut().zip(message.as_chunks::<8>().0) {
                    sums[0] += f64::from(float(part, 0));
                    sums[1] += f64::from(float(part, 4));
                }
            }
            let sums: Vec<_> = pooled
                .into_iter()
                .map(|[dz, dz_xhat]| ChannelGradientSums { dz: dz as f32, dz_xhat: dz_xhat as f32 })
                .collect();
            backward.pooled.write(&parts.context, &sums).await?;
            parts.context.submit(&[&backward.map]).await
        };
        self.told(result.await)
    }

    /// y and what the backward pass needs, from the statistics of all ranks' shards; updates the running statistics.
    ///
    /// # Errors
    /// As [`prepare_train_forward`](Self::prepare_train_forward) and [`submit_forward`](Self::submit_forward). The other ranks are
    /// told.
    pub async fn train_forward<'a>(&mut self, input: impl Into<Input<'a>>) -> Result<(Tensor, Saved)> {
        let input = input.into();
        let prepared = async {
            let (y, saved) = self.layer.forward_outputs(input).await?;
            let saved = saved.pooled();
            let forward = self.prepare_train_forward(input, &y, Some(&saved)).await?;
            Ok((y, saved, forward))
        };
        let prepared = prepared.await;
        let (y, saved, mut forward) = self.told(prepared)?;
        self.submit_forward(&mut forward).await?;
        Ok((y, saved))
    }

    /// All gradients that the layer has: dx through the statistics of all ranks' shards, dgamma and dbeta of this rank's.
    ///
    /// # Errors
    /// As [`prepare_backward`](Self::prepare_backward) and [`submit_backward`](Self::submit_backward). The other ranks are told.
    pub async fn backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<Gradients> {
        let input = input.into();
        let prepared = async {
            let gradients = self.layer.check(input)?.allocate(input, dy).await?;
            let backward = self.prepare_backward(input, dy, saved, &gradients.computed(dy)).await?;
            Ok((gradients, backward))
        };
        let (gradients, mut backward) = self.told(prepared.await)?;
        self.submit_backward(&mut backward).await?;
        Ok(gradients)
    }

    /// Tells the other ranks of an error of this one.
    fn told<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.collective.fail(&error.to_string());
        }
        result
    }
}

/// Tells the other ranks if a future of this one is dropped before its end, between exchanges too.
struct Unfinished<'a, C: Collective>(&'a C);

impl<C: Collective> Unfinished<'_, C> {
    fn finished(self) {
        std::mem::forget(self);
    }
}

impl<C: Collective> Drop for Unfinished<'_, C> {
    fn drop(&mut self) {
        self.0.fail("its operation was cancelled");
    }
}

impl SyncTrainForward {
    /// The moments of this rank's shard, after [`SyncBatchNorm::submit_forward`].
    pub fn local(&self) -> &Moments {
        &self.local
    }

    /// The moments of all ranks' shards, after [`SyncBatchNorm::submit_forward`].
    pub fn pooled(&self) -> &Moments {
        &self.pooled
    }
}

impl SyncBackward {
    /// The gradient sums of this rank's shard, after [`SyncBatchNorm::submit_backward`].
    pub fn local(&self) -> &GradientSums {
        &self.local
    }

    /// The gradient sums of all ranks' shards, after [`SyncBatchNorm::submit_backward`]: dbeta and, but for batch renorm, dgamma of the
    /// whole batch.
    pub fn pooled(&self) -> &GradientSums {
        &self.pooled
    }
}

/// The count, then mean in two parts and variance of each channel.
fn encode_moments(channels: &[ChannelMoments]) -> Result<Vec<u8>> {
    let count = channels.first().map_or(0, |channel| channel.count);
    if let Some(other) = channels.iter().find(|channel| channel.count != count) {
        let hint = "all channels of a shard must have the same count";
        return Err(Error::Count { what: "a shard", expected: Some(count), got: other.count, hint });
    }
    let mut message = count.to_le_bytes().to_vec();
    for ChannelMoments { shift, delta, var, .. } in channels {
        message.extend([shift, delta, var].iter().flat_map(|value| value.to_le_bytes()));
    }
    Ok(message)
}

fn decode_moments(message: &[u8]) -> impl Iterator<Item = PooledMoments> {
    let (count, channels) = message.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let count = u64::from_le_bytes(*count);
    channels.as_chunks::<12>().0.iter().map(move |channel| {
        let [shift, delta, var] = [0, 4, 8].map(|at| float(channel, at));
        ChannelMoments { count, shift, delta, var }.into()
    })
}

fn encode_sums(channels: &[ChannelGradientSums]) -> Vec<u8> {
    channels.iter().flat_map(|sums| [sums.dz, sums.dz_xhat]).flat_map(f32::to_le_bytes).collect()
}

fn float(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Collectives promise messages of one length; one that breaks the promise must not give wrong numbers.
fn check_length(message: &[u8], expected: usize) -> Result<()> {
    let got = message.len();
    if got == expected {
        Ok(())
    } else {
        Err(Error::Number { what: "bytes of a rank's message", expected, got })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_a_count_and_three_floats_per_channel() {
        let channels = [(1.0, 0.25, 3.0), (-2.0, 0.0, 0.5)].map(|(shift, delta, var)| ChannelMoments {
            count: 1 << 40,
            shift,
            delta,
            var,
        });
        let message = encode_moments(&channels).unwrap();
        assert_eq!(message.len(), 8 + 2 * 12);
        assert!(decode_moments(&message).eq(channels.map(PooledMoments::from)));
        let uneven = [ChannelMoments { count: 3, ..channels[0] }, channels[1]];
        assert!(matches!(encode_moments(&uneven), Err(Error::Count { .. })));
        let sums = [ChannelGradientSums { dz: 1.0, dz_xhat: 2.0 }; 3];
        assert_eq!(encode_sums(&sums).len(), 3 * 8);
    }
}
