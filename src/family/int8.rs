//! y of int8, of the norms of the family.

use super::norm::{Kind, Norm};
use super::passes::Passes;
use crate::base::error::{Error, Result};
use crate::engine::prepared::Prepared;
use crate::engine::tensor::Tensor;
use crate::pass::input::Input;
use crate::pass::{Int8, Pass};
use crate::plan::Op;

impl<K: Kind> Norm<K> {
    /// Prepares a y of int8, of the shape and layout of x, for inference: four values in each `u32`, as `dot4I8Packed` takes them, written where y would be.
    ///
    /// Of a sum ([`Input::plus`]) the sum is written as ever. Moves x twice, or once where the plan holds rows in registers, and a byte for each value of y. By a scale of each row
    /// ([`Int8::PerRow`]) it is found by the team that stores the row; a row is then the work of one team, and longer rows than that can walk, millions of values on a CPU, are refused. x must begin at a multiple of four elements of its buffer, and
    /// rows be of as many.
    ///
    /// ```
    /// use wgnorm::{Context, DType, Int8, NormOptions, RmsNorm};
    /// let context = Context::headless_blocking()?;
    /// context.block_on(async {
    ///     let x = context.upload(&[2, 4], &[1.0, -2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]).await?;
    ///     let layer = RmsNorm::new(&context, &[4], NormOptions::rms()).await?;
    ///     let (y, scales) = (context.zeros_as(&[2, 4], DType::I8).await?, context.zeros(&[2]).await?);
    ///     let infer = layer.prepare_infer_int8(&x, &y, Int8::PerRow(&scales)).await?;
    ///     context.submit(&[&infer]).await?;
    ///     assert_eq!(context.download(&y).await?, [32.0, -64.0, 95.0, 127.0, 0.0, 0.0, 0.0, 0.0]);
    ///     let scales = context.download(&scales).await?;
    ///     assert!((scales[0] * 127.0 - 1.4606).abs() < 1e-3 && scales[1] == 0.0);
    ///     Ok::<(), wgnorm::Error>(())
    /// })?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`prepare_forward`](Self::prepare_forward); [`Error::DType`] for a y of another type, [`Error::NotContiguous`], [`Error::Misaligned`], [`Error::Scale`];
    /// [`Error::Unsupported`] for scales of rows of a norm whose slices are no rows, or are groups of them, for an x that cannot be read four values at a time, and for axes that no
    /// walk has as they lie.
    pub async fn prepare_infer_int8<'a>(
        &self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        int8: Int8<'_>,
    ) -> Result<Prepared> {
        self.passes().prepare_infer_int8(input.into(), y, int8).await
    }
}

impl Passes<'_> {
    /// [`Norm::prepare_infer_int8`].
    async fn prepare_infer_int8(self, input: Input<'_>, y: &Tensor, int8: Int8<'_>) -> Result<Prepared> {
        let (spec, x) = (self.check(input)?, input.x);
        int8.check(x, y)?;
        if spec.segments.is_some() {
            let (what, why) = ("y of int8", "over segments there are norm and activation alone");
            return Err(Error::Unsupported { layer: spec.layer, what, why });
        }
        let is_of_rows = self.kind.is_of_rows() && self.kind.groups() == 1;
        if matches!(int8, Int8::PerRow(_)) && !is_of_rows {
            let (what, why) = ("scales of rows", "its statistics are not those of rows");
            return Err(Error::Unsupported { layer: spec.layer, what, why });
        }
        if input.d_sum.is_some() {
            let (what, why) = ("d_sum", "it is a gradient");
            return Err(Error::Unsupported { layer: spec.layer, what, why });
        }
        if self.arrangement(x.shape()).is_some() {
            let (what, why) =
                ("y of int8", "its axes, or its parameters, go through copies in another order");
            return Err(Error::Unsupported { layer: spec.layer, what, why });
        }
        if spec.cut.is_empty() {
            return Ok(Prepared::nothing(self.context, Op::Inference));
        }
        let statistics = self.statistics(None);
        Pass::forward(Op::Inference, spec, input, y, statistics).as_int8(int8).prepare().await
    }
}
