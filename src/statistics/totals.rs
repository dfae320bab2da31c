//! A record per channel on the GPU, as a value: what [`Moments`](crate::statistics::Moments) and [`GradientSums`](crate::statistics::GradientSums) have
//! in common.

use std::marker::PhantomData;

use bytemuck::Pod;

use crate::base::error::{Error, Result};
use crate::engine::buffer::Buffer;
use crate::engine::context::{Context, ContextId};
use crate::engine::prepared::Prepared;
use crate::engine::readback;
use crate::engine::shader::Monoid;
use crate::engine::slab::{Slab, parts};
use crate::ops::fold;
use crate::plan::Op;

/// A record of a monoid for each channel.
#[derive(Debug)]
pub(crate) struct Totals<R> {
    what: &'static str,
    of: Monoid,
    buffer: Buffer,
    home: ContextId,
    channels: u64,
    record: PhantomData<R>,
}

impl<R: Pod> Totals<R> {
    /// Records from the host, one per channel.
    pub async fn upload(
        context: &Context,
        what: &'static str,
        of: Monoid,
        records: impl ExactSizeIterator<Item = R>,
    ) -> Result<Self> {
        let channels = records.len() as u64;
        if channels == 0 {
            return Err(Error::Channels { what, expected: 1, got: 0 });
        }
        context.check_size(what, channels, size_of::<R>() as u64)?;
        let records: Vec<R> = records.collect();
        let buffer = context.create_buffer_with(what, bytemuck::cast_slice(&records)).await?;
        Ok(Self { what, of, buffer, home: context.id(), channels, record: PhantomData })
    }

    /// Replaces the records, after everything that was submitted before and before everything that is submitted later.
    pub async fn write(&self, context: &Context, records: impl ExactSizeIterator<Item = R>) -> Result<()> {
        self.check(context, self.channels)?;
        let (expected, got) = (self.channels, records.len() as u64);
        if expected != got {
            return Err(Error::Channels { what: self.what, expected, got });
        }
        let records: Vec<R> = records.collect();
        context.write(&self.buffer, bytemuck::cast_slice(&records)).await
    }

    /// The records on the host, after everything that was submitted before.
    pub async fn download(&self, context: &Context) -> Result<Vec<R>> {
        self.download_after(context, &[]).await
    }

    /// As [`download`](Self::download), after these operations of the context, which are submitted with it.
    pub async fn download_after(&self, context: &Context, operations: &[&Prepared]) -> Result<Vec<R>> {
        self.check(context, self.channels)?;
        let len = self.channels * size_of::<R>() as u64;
        let bytes = readback::read_after(context, operations, &self.buffer, 0, len).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// The operation that merges those of `other` into these.
    pub async fn prepare_merge(&self, context: &Context, other: &Self) -> Result<Prepared> {
        for totals in [self, other] {
            totals.check(context, self.channels)?;
        }
        let (total, other) = (self.slab(), other.slab());
        let bytes = size_of::<R>() as u64;
        let mut merges = Vec::new();
        for range in parts(self.channels, bytes, context) {
            let stretch = |slab: &Slab| slab.stretch(range.start * bytes..range.end * bytes);
            let channels = range.end - range.start;
            merges.push(fold::merge(context, self.of, channels, &stretch(&total), &stretch(&other)).await?);
        }
        Ok(Prepared::sequence(context, Op::Moments, merges))
    }

    /// The operation that merges all of them into the first, pairwise, so that rounding errors grow with the logarithm of their
    /// number.
    pub async fn prepare_merge_all(context: &Context, op: Op, all: &[&Self]) -> Result<Prepared> {
        let mut merges = Vec::new();
        let mut apart = 1;
        while apart < all.len() {
            for pair in all.chunks(2 * apart) {
                if let [left, ..] = pair
                    && let Some(right) = pair.get(apart)
                {
                    merges.push(left.prepare_merge(context, right).await?);
                }
            }
            apart *= 2;
        }
        Ok(Prepared::sequence(context, op, merges))
    }

    pub fn channels(&self) -> u64 {
        self.channels
    }

    pub fn slab(&self) -> Slab {
        (&self.buffer).into()
    }

    /// Requires the context's device and a number of channels.
    pub fn check(&self, context: &Context, channels: u64) -> Result<()> {
        if self.home != context.id() {
            return Err(Error::ForeignDevice { what: self.what });
        }
        if self.channels != channels {
            return Err(Error::Channels { what: self.what, expected: channels, got: self.channels });
        }
        Ok(())
    }
}
