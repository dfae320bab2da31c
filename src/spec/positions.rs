//! What of a problem's x a mask has a truth value for, and its masks.

use super::{Norm, Spec};
use crate::base::error::Result;
use crate::base::shape::{Channels, Layout, Shape};
use crate::engine::context::Context;
use crate::engine::mask::Mask;
use crate::engine::tensor::Tensor;

impl Spec {
    /// What a mask has a truth value for: each position of each sample, or each row.
    pub(crate) fn positions(&self) -> Channels {
        let shape = &self.shape;
        let axes = match self.norm {
            Norm::Layer(axes) | Norm::Rms(axes) => axes,
            Norm::Scale => 1,
            _ => {
                let view = Shape::new(shape).and_then(|shape| shape.channels(Layout::ChannelsFirst));
                let nothing = Channels { samples: 0, channels: 1, inner: 1, layout: Layout::ChannelsFirst };
                return view.unwrap_or(nothing);
            }
        };
        let [rows, places] = <[&[usize]; 2]>::from(shape.split_at(shape.len() - axes));
        let values = |axes: &[usize]| axes.iter().product::<usize>() as u64;
        Channels { samples: values(rows), channels: values(places), inner: 1, layout: Layout::ChannelsLast }
    }

    /// The mask of these truth values.
    pub(crate) async fn mask_of(&self, context: &Context, x: &Tensor, keep: &[bool]) -> Result<Mask> {
        match self.is_of_rows() {
            true => Mask::of_rows(context, keep).await,
            false => Mask::of_positions(context, x, keep).await,
        }
    }
}
