//! Layers in training, whichever norm they have, and their forward passes.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use super::input::Input;
use super::targets::{GradientTargets, Gradients};
use crate::base::error::{Error, Result};
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::tensor::Tensor;
use crate::engine::verdicts::together;
use crate::plan::{Op, Plan, Traffic};
use crate::statistics::saved::Saved;

/// A layer in training, for code that is to work with any norm: [`BatchNorm`](crate::BatchNorm), the norms of the family
/// ([`Norm`](crate::family::Norm)), [`TrackedInstanceNorm`](crate::family::TrackedInstanceNorm), curves ([`DynamicCurve`](crate::curve::DynamicCurve)), and
/// [`spec::Layer`](crate::spec::Layer), which is any of these by a line of text.
///
/// ```
/// use wgnorm::{BatchNorm, BatchNormOptions, Context, LayerNorm, NormOptions, Result, Tensor, Train};
/// /// The gradient of ‖y‖²/2 with respect to x.
/// async fn pulled(layer: &mut impl Train, x: &Tensor) -> Result<Tensor> {
///     let (y, saved) = layer.train_forward(x).await?;
///     Ok(layer.backward(x, &y, &saved).await?.dx)
/// }
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let x = context.upload(&[4, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).await?;
///     let mut batch = BatchNorm::new(&context, 2, BatchNormOptions::pytorch()).await?;
///     let mut layer = LayerNorm::new(&context, &[2], NormOptions::layer()).await?;
///     // ‖y‖ is the same whatever x is, so nothing pulls at x.
///     for dx in [pulled(&mut batch, &x).await?, pulled(&mut layer, &x).await?] {
///         assert!(context.download(&dx).await?.iter().all(|dx| dx.abs() < 1e-3));
///     }
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
///
/// Layers have methods of the same names, and more. What has been frozen does not train.
pub trait Train: sealed::Sealed {
    /// Room for what a forward pass of an input like this one leaves for its backward pass.
    ///
    /// # Errors
    /// Those of an allocation, and of an x that no layer of this norm takes.
    fn room_for<'a>(&self, input: impl Into<Input<'a>>) -> impl Future<Output = Result<Saved>>;

    /// Prepares y; `saved` receives what the backward pass needs, without it there is none.
    ///
    /// # Errors
    /// Those of the layer.
    fn prepare_train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> impl Future<Output = Result<TrainForward>>;

    /// Prepares the gradients, as many as are asked for.
    ///
    /// # Errors
    /// Those of the layer.
    fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> impl Future<Output = Result<Prepared>>;

    /// All gradients that the layer has. Submitted at once.
    ///
    /// # Errors
    /// Those of the layer.
    fn backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> impl Future<Output = Result<Gradients>>;

    /// y and what the backward pass needs. Submitted at once.
    ///
    /// # Errors
    /// Those of the layer.
    fn train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
    ) -> impl Future<Output = Result<(Tensor, Saved)>> {
        together(async {
            let input = input.into();
            let saved = self.room_for(input).await?;
            let y = self.context().zeros_like(input.x).await?;
            let forward = self.prepare_train_forward(input, &y, Some(&saved)).await?;
            self.submit(&forward).await?;
            Ok((y, saved))
        })
    }

    /// Records a forward pass of this layer and submits it.
    ///
    /// # Errors
    /// [`Error::WrongLayer`] if it was prepared for another layer; those of [`Context::submit`].
    fn submit(&mut self, forward: &TrainForward) -> impl Future<Output = Result<()>> {
        async {
            forward.check(self.id())?;
            self.context().submit(&[&forward.prepared]).await
        }
    }
}

/// What tells a layer that keeps statistics from all others.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) mod sealed {
    use super::Context;

    pub trait Sealed {
        fn context(&self) -> &Context;

        /// What tells the layer from others, if it has running statistics.
        fn id(&self) -> Option<u64> {
            None
        }
    }
}

/// A training forward pass, which updates the running statistics of its layer, if it has any, whenever it is recorded.
///
/// Recording takes the layer by `&mut`, so a pass that was prepared before its layer was frozen cannot update the
/// statistics of the frozen layer:
///
/// ```compile_fail,E0382
/// # use wgnorm::{BatchNorm, TrainForward};
/// fn step(mut layer: BatchNorm, forward: &TrainForward, encoder: &mut wgpu::CommandEncoder) {
///     let frozen = layer.freeze();
///     forward.record(&mut layer, encoder);
/// }
/// ```
#[derive(Debug)]
pub struct TrainForward {
    prepared: Prepared,
    /// The layer that it is of, if it updates that.
    layer: Option<u64>,
}

/// An operation that updates no layer: any may record it.
impl From<Prepared> for TrainForward {
    fn from(prepared: Prepared) -> Self {
        Self { prepared, layer: None }
    }
}

impl TrainForward {
    pub(crate) fn of(layer: u64, prepared: Prepared) -> Self {
        Self { prepared, layer: Some(layer) }
    }

    /// The operation, to be submitted once with others ([`Context::submit`]).
    ///
    /// # Errors
    /// [`Error::WrongLayer`] if it was prepared for another layer.
    pub fn operation(&self, layer: &mut impl Train) -> Result<&Prepared> {
        self.check(layer.id())?;
        Ok(&self.prepared)
    }

    /// Records the pass into a compute pass of its own, of the context's device: [`Prepared::record`].
    ///
    /// # Errors
    /// [`Error::WrongLayer`] if it was prepared for another layer; nothing is recorded then.
    #[cfg(feature = "wgpu")]
    pub fn record(&self, layer: &mut impl Train, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.check(layer.id())?;
        self.prepared.record(encoder);
        Ok(())
    }

    /// Records the pass into a compute pass that the caller has begun.
    ///
    /// # Errors
    /// [`Error::WrongLayer`] if it was prepared for another layer; nothing is recorded then.
    #[cfg(feature = "wgpu")]
    pub fn record_in(&self, layer: &mut impl Train, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.check(layer.id())?;
        self.prepared.record_in(pass);
        Ok(())
    }

    /// The operation.
    pub fn op(&self) -> Op {
        self.prepared.op()
    }

    /// How the walk is cut into workgroups; `None` if the tensor is empty.
    pub fn plan(&self) -> Option<&Plan> {
        self.prepared.plan()
    }

    /// Bytes that the operation moves.
    pub fn traffic(&self) -> Traffic {
        self.prepared.traffic()
    }

    /// Bytes of device memory that it holds: [`Prepared::workspace_bytes`].
    pub fn workspace_bytes(&self) -> u64 {
        self.prepared.workspace_bytes()
    }

    /// Keys of the kernels, one per dispatch, in order.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.prepared.kernels()
    }

    /// Requires that it is of this layer, or of none.
    fn check(&self, layer: Option<u64>) -> Result<()> {
        if self.layer.is_none_or(|own| layer == Some(own)) { Ok(()) } else { Err(Error::WrongLayer) }
    }
}
