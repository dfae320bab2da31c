//! What a layer holds on the GPU, on the host.

use super::frozen::FrozenBatchNorm;
use super::parts::Parts;
use crate::base::error::Result;
use crate::engine::context::Context;
use crate::statistics::running::RunningValues;

/// Parameters and running statistics of a layer; 16-bit parameters widened.
#[derive(Clone, Debug)]
pub(crate) struct HostValues {
    pub running: RunningValues,
    pub gamma: Option<Vec<f32>>,
    pub beta: Option<Vec<f32>>,
}

impl Parts {
    pub(crate) async fn download_values(&self) -> Result<HostValues> {
        let context = &self.context;
        let running = self.running.download(context).await?;
        let gamma = match self.parameters().gamma {
            Some(gamma) => Some(context.download(gamma).await?),
            None => None,
        };
        let beta = match self.parameters().beta {
            Some(beta) => Some(context.download(beta).await?),
            None => None,
        };
        Ok(HostValues { running, gamma, beta })
    }
}

impl FrozenBatchNorm {
    pub(crate) fn context(&self) -> &Context {
        &self.parts.context
    }

    pub(crate) async fn download_values(&self) -> Result<HostValues> {
        self.parts.download_values().await
    }
}
