//! The norms of the family as what every layer is: something that trains, and infers.

use super::norm::{Kind, Norm};
use crate::base::error::Result;
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::tensor::Tensor;
use crate::pass::infer;
use crate::pass::input::Input;
use crate::pass::train::sealed::Sealed;
use crate::pass::{GradientTargets, Gradients, Infer, Train, TrainForward};
use crate::statistics::saved::Saved;

impl<K: Kind> Sealed for Norm<K> {
    fn context(&self) -> &Context {
        &self.context
    }
}

impl<K: Kind> Train for Norm<K> {
    async fn room_for<'a>(&self, input: impl Into<Input<'a>>) -> Result<Saved> {
        Norm::room_for(self, input).await
    }

    async fn prepare_train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<TrainForward> {
        self.prepare_forward(input, y, saved).await.map(Into::into)
    }

    async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        Norm::prepare_backward(self, input, dy, saved, targets).await
    }

    async fn backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<Gradients> {
        Norm::backward(self, input, dy, saved).await
    }

    async fn train_forward<'a>(&mut self, input: impl Into<Input<'a>>) -> Result<(Tensor, Saved)> {
        self.forward(input).await
    }
}

impl<K: Kind> infer::sealed::Sealed for Norm<K> {}

impl<K: Kind> Infer for Norm<K> {
    async fn prepare_infer<'a>(&self, input: impl Into<Input<'a>>, y: &Tensor) -> Result<Prepared> {
        self.prepare_forward(input, y, None).await
    }

    async fn infer<'a>(&self, input: impl Into<Input<'a>>) -> Result<Tensor> {
        Norm::infer(self, input).await
    }
}
