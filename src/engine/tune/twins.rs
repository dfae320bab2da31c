//! Scratch tensors to measure with: like the caller's, and never the caller's.

use crate::base::error::Result;
use crate::engine::context::Context;
use crate::engine::tensor::Tensor;

/// Tensors in the place of others. What is one tensor for the caller, written in place, is one here.
///
/// Views that share a buffer get buffers of their own: whether inputs are bound read-write makes no difference to their speed.
pub(crate) struct Twins<'c> {
    context: &'c Context,
    made: Vec<(Tensor, Tensor)>,
}

impl<'c> Twins<'c> {
    pub fn new(context: &'c Context) -> Self {
        Self { context, made: Vec::new() }
    }

    /// The tensor of zeros that stands for this one.
    pub async fn of(&mut self, tensor: &Tensor) -> Result<Tensor> {
        if let Some((_, twin)) = self.made.iter().find(|(made, _)| made.is_same_place(tensor)) {
            return Ok(twin.clone());
        }
        let twin = tensor.twin(self.context).await?;
        self.made.push((tensor.clone(), twin.clone()));
        Ok(twin)
    }
}
