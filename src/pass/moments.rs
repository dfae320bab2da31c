//! Moments of a tensor: the reduction of a forward pass by itself.

use super::halves::middle;
use super::input::Input;
use super::spec::Extra;
use crate::base::error::{Error, Result};
use crate::engine::build::Build;
use crate::engine::context::Context;
use crate::engine::mask::Mask;
use crate::engine::prepared::Prepared;
use crate::engine::slab::Slab;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::engine::verdicts::together;
use crate::ops::reduce;
use crate::plan::{MOMENTS_BYTES, Op, Traffic, Walk};
use crate::statistics::moments::Moments;

/// What moments have no use for.
const OTHERS: [Extra; 4] = [Extra::Modulation, Extra::Sum, Extra::DSum, Extra::Moments];

impl Moments {
    /// Moments of a tensor `[N, C, …]` or, channels last, `[N, …, C]`, submitted at once.
    ///
    /// # Errors
    /// As [`Moments::prepare`].
    pub async fn of<'a>(context: &Context, x: impl Into<Input<'a>>) -> Result<Self> {
        together(async {
            let (moments, prepared) = Self::prepare(context, x).await?;
            context.submit(&[&prepared]).await?;
            Ok(moments)
        })
        .await
    }

    /// Moments of a tensor `[N, C, …]` or, channels last, `[N, …, C]`, together with the operation that computes them. Until
    /// that has run, the value holds the moments of nothing, and a layer that normalizes with it gives NaN. Of a masked x, what the mask
    /// keeps; a residual does not matter.
    ///
    /// # Errors
    /// [`Error::Rank`](crate::Error::Rank), [`Error::Channels`](crate::Error::Channels),
    /// [`Error::Unsupported`](crate::Error::Unsupported) for more than a mask and a residual, and what binding the tensor can raise. An empty tensor is fine.
    pub async fn prepare<'a>(context: &Context, x: impl Into<Input<'a>>) -> Result<(Self, Prepared)> {
        let input = x.into();
        if let Some(extra) = OTHERS.iter().find(|extra| extra.is_in(&input)) {
            let why = "moments are those of x; give the tensor alone, with a mask perhaps";
            return Err(Error::Unsupported { layer: "moments", what: extra.name(), why });
        }
        let Input { x, mask, .. } = input;
        let view = x.channels()?;
        x.check_device("x", context)?;
        #[cfg(feature = "wgpu")]
        context.try_untrusted_driver().await?;
        // Nothing is left out of nothing.
        let masked = mask.is_some() && view.count() > 0;
        let moments = Self::of_count(context, view.channels, view.count(), masked).await?;
        if view.count() == 0 {
            return Ok((moments, Prepared::nothing(context, Op::Moments)));
        }
        let prepared = in_parts(context, x, mask, &moments.slab()).await?;
        Ok((moments, prepared))
    }
}

/// The moments of a tensor, in halves of its channels if no binding has room for what all of them need.
async fn in_parts(context: &Context, x: &Tensor, mask: Option<&Mask>, total: &Slab) -> Result<Prepared> {
    let channels = x.channels()?.channels;
    match (as_one(context, x, mask, total).await, middle(channels, 1, true)) {
        (Err(Error::TooLarge { .. }), Some(middle)) => {
            let mut halves = Vec::new();
            for range in [0..middle, middle..channels] {
                let half = x.slice_channels(range.start as usize..range.end as usize)?;
                let stretch = total.stretch(range.start * MOMENTS_BYTES..range.end * MOMENTS_BYTES);
                halves.push(Box::pin(in_parts(context, &half, mask, &stretch)).await?);
            }
            Ok(Prepared::sequence(context, Op::Moments, halves))
        }
        (prepared, _) => prepared,
    }
}

async fn as_one(context: &Context, x: &Tensor, mask: Option<&Mask>, total: &Slab) -> Result<Prepared> {
    let view = x.channels()?;
    let walk = Walk::channels(view, &[x], context.capabilities().storage_alignment);
    let walk = Walk { masked: mask.is_some(), ..walk };
    let plan = context.plan_walk(&walk, None)?;
    let mut build = Build::new(context, Op::Moments, plan);
    build.tensor(Slot::X, x)?;
    if let Some(mask) = mask {
        build.mask(mask, view)?;
    }
    reduce::moments_into(&mut build, total)?;
    build.finish(Traffic::passes(x.byte_len(), 1, 1)).await
}
