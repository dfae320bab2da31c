//! Batch norm in code that is generic over norms.

use super::batch::BatchNorm;
use crate::base::error::Result;
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::tensor::Tensor;
use crate::pass::input::Input;
use crate::pass::train::sealed::Sealed;
use crate::pass::{GradientTargets, Gradients, Train, TrainForward};
use crate::statistics::saved::Saved;

impl Sealed for BatchNorm {
    fn context(&self) -> &Context {
        &self.parts.context
    }

    fn id(&self) -> Option<u64> {
        Some(self.parts.id)
    }
}

impl Train for BatchNorm {
    async fn room_for<'a>(&self, input: impl Into<Input<'a>>) -> Result<Saved> {
        let x = input.into().x;
        Saved::new(&self.parts.context, x).await
    }

    async fn prepare_train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<TrainForward> {
        BatchNorm::prepare_train_forward(self, input, y, saved).await
    }

    async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        BatchNorm::prepare_backward(self, input, dy, saved, targets).await
    }

    async fn backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<Gradients> {
        BatchNorm::backward(self, input, dy, saved).await
    }

    async fn train_forward<'a>(&mut self, input: impl Into<Input<'a>>) -> Result<(Tensor, Saved)> {
        BatchNorm::train_forward(self, input).await
    }
}
