//! A training forward pass that is prepared, and the layer that it belongs to.

use super::batch::BatchNorm;
use crate::base::error::{Error, Result};
use crate::engine::prepared::Prepared;
use crate::plan::{Plan, Traffic};

/// A training forward pass that updates the running statistics of its layer whenever it is recorded.
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
    pub(super) prepared: Prepared,
    pub(super) layer: u64,
}

impl TrainForward {
    /// Records the pass into a compute pass of its own.
    ///
    /// # Errors
    /// [`Error::WrongLayer`] if it was prepared for another layer; nothing is recorded then.
    pub fn record(&self, layer: &mut BatchNorm, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.check(layer)?;
        self.prepared.record(encoder);
        Ok(())
    }

    /// Records the pass into a compute pass that the caller has begun.
    ///
    /// # Errors
    /// [`Error::WrongLayer`] if it was prepared for another layer; nothing is recorded then.
    pub fn record_in(&self, layer: &mut BatchNorm, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.check(layer)?;
        self.prepared.record_in(pass);
        Ok(())
    }

    /// How the walk is cut into workgroups.
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

    pub(crate) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    pub(super) fn check(&self, layer: &BatchNorm) -> Result<()> {
        if self.layer == layer.parts.id { Ok(()) } else { Err(Error::WrongLayer) }
    }
}
