//! Diagnostics of a layer on the GPU.

use super::{DiagnosticOptions, Finding, LayerState, diagnose};
use crate::base::error::Result;
use crate::norm::{BatchNorm, FrozenBatchNorm, Parts};
use crate::statistics::moments::Moments;

impl BatchNorm {
    /// Looks for what the literature warns of in this layer and, if there is one, a batch; see [`diagnose`](crate::diagnostics::diagnose()). The
    /// moments of the batch are those of its [x](Moments::of). Downloads a few values per channel, after everything that was
    /// submitted before.
    ///
    /// # Errors
    /// [`Error::Channels`](crate::Error::Channels) or [`Error::ForeignDevice`](crate::Error::ForeignDevice) for moments of another
    /// number of channels or another context; [`Error::BufferUsage`](crate::Error::BufferUsage) if gamma or beta cannot be downloaded;
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::DeviceLost`](crate::Error::DeviceLost).
    ///
    /// ```
    /// use wgnorm::diagnostics::{DiagnosticOptions, Finding};
    /// use wgnorm::statistics::Moments;
    /// use wgnorm::{BatchNorm, BatchNormOptions, Context};
    /// let context = Context::headless_blocking()?;
    /// context.block_on(async {
    ///     let layer = BatchNorm::new(&context, 2, BatchNormOptions::pytorch()).await?;
    ///     let x = context.upload(&[3, 2], &[0.1, 0.2, -0.3, 0.4, 0.5, -0.6]).await?;
    ///     let batch = Moments::of(&context, &x).await?;
    ///     let findings = layer.diagnose(Some(&batch), &DiagnosticOptions::default()).await?;
    ///     assert!(matches!(findings[..], [Finding::NeverUpdated, Finding::FewValues { fewer_than: 8, .. }]));
    ///     Ok::<(), wgnorm::Error>(())
    /// })?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    pub async fn diagnose(
        &self,
        batch: Option<&Moments>,
        options: &DiagnosticOptions,
    ) -> Result<Vec<Finding>> {
        self.parts.diagnose(batch, options).await
    }
}

impl FrozenBatchNorm {
    /// As [`BatchNorm::diagnose`].
    ///
    /// # Errors
    /// As [`BatchNorm::diagnose`].
    pub async fn diagnose(
        &self,
        batch: Option<&Moments>,
        options: &DiagnosticOptions,
    ) -> Result<Vec<Finding>> {
        self.parts.diagnose(batch, options).await
    }
}

impl Parts {
    async fn diagnose(&self, batch: Option<&Moments>, options: &DiagnosticOptions) -> Result<Vec<Finding>> {
        let batch = match batch {
            Some(batch) => {
                batch.check(&self.context, self.running.channels())?;
                Some(batch.download(&self.context).await?)
            }
            None => None,
        };
        let values = self.download_values().await?;
        let state = LayerState {
            options: &self.options,
            running: &values.running,
            gamma: values.gamma.as_deref(),
            beta: values.beta.as_deref(),
            batch: batch.as_deref(),
        };
        diagnose(&state, options)
    }
}
