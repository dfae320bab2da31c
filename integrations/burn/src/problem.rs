//! What is asked of the kernels, as data: a norm, its eps, which parameters it has; and the layers of wgnorm that do it.

use wgnorm::{
    Affine, BatchNorm, BatchNormOptions, Context, FrozenBatchNorm, GradientTargets, GroupNorm, LayerNorm,
    NormOptions, Prepared, Result, RmsNorm, RunningStatistics, Saved, Tensor,
};

/// Which norm, and over what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Channels over the batch, in training.
    Batch,
    /// Channels by statistics that are given.
    Frozen,
    /// The last axis.
    Layer,
    /// The last axis, without a mean.
    Rms,
    /// So many groups of channels of each sample.
    Group(usize),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Problem {
    pub norm: Norm,
    pub epsilon: f64,
    /// Whether there is a gamma, and a beta; without, what stands in their place is not looked at.
    pub affine: [bool; 2],
}

/// A layer over tensors of the caller's.
pub enum AnyNorm {
    Batch(BatchNorm),
    Frozen(FrozenBatchNorm),
    Layer(LayerNorm),
    Rms(RmsNorm),
    Group(GroupNorm),
}

impl Norm {
    /// Whether channels may be last in memory.
    pub fn has_channels(self) -> bool {
        !matches!(self, Self::Layer | Self::Rms)
    }

    /// The shape of what forward leaves for backward over x of a shape.
    pub fn saved(self, x: &[usize]) -> Vec<usize> {
        let rows = || x[..x.len() - 1].iter().product();
        match self {
            Self::Batch => vec![x[1], 10],
            Self::Frozen => vec![1],
            Self::Layer | Self::Rms => vec![rows(), 4],
            Self::Group(groups) => vec![x[0] * groups, 4],
        }
    }

    /// The shape that the kernels see: of rows two axes, of channels five at most.
    pub fn dims(self, memory: Vec<usize>, channels_last: bool) -> Vec<usize> {
        if !self.has_channels() {
            let row = memory.last().copied().unwrap_or(1);
            return vec![memory[..memory.len() - 1].iter().product(), row];
        }
        if memory.len() <= 3 {
            return memory;
        }
        match channels_last {
            true => vec![memory[0], memory[1..memory.len() - 1].iter().product(), memory[memory.len() - 1]],
            false => vec![memory[0], memory[1], memory[2..].iter().product()],
        }
    }
}

impl Problem {
    /// The layer with these parameters; `statistics` are the running ones of what is frozen, or room for some that nobody updates.
    pub fn layer(
        &self,
        context: &Context,
        [gamma, beta]: [&Tensor; 2],
        statistics: &Tensor,
        channels: usize,
    ) -> Result<AnyNorm> {
        let [gamma, beta] =
            [(gamma, self.affine[0]), (beta, self.affine[1])].map(|(of, is)| is.then(|| of.clone()));
        let affine = match self.affine {
            [true, true] => Affine::Both,
            [true, false] => Affine::Weight,
            [false, true] => Affine::Bias,
            [false, false] => Affine::None,
        };
        let batch = BatchNormOptions::burn().eps(self.epsilon).affine(affine);
        let plain = NormOptions::layer().eps(self.epsilon).affine(affine);
        Ok(match self.norm {
            Norm::Batch => {
                let unused = RunningStatistics::from_tensor(context, statistics)?;
                AnyNorm::Batch(BatchNorm::from_parts(context, batch, gamma, beta, unused)?)
            }
            Norm::Frozen => {
                let running = RunningStatistics::from_tensor(context, statistics)?;
                AnyNorm::Frozen(FrozenBatchNorm::from_parts(context, batch, gamma, beta, running)?)
            }
            Norm::Layer => AnyNorm::Layer(LayerNorm::from_parts(context, &[channels], plain, gamma, beta)?),
            Norm::Rms => {
                let options = NormOptions::rms().eps(self.epsilon).affine(affine);
                AnyNorm::Rms(RmsNorm::from_parts(context, &[channels], options, gamma, beta)?)
            }
            Norm::Group(groups) => {
                AnyNorm::Group(GroupNorm::from_parts(context, groups, channels, plain, gamma, beta)?)
            }
        })
    }
}

impl AnyNorm {
    /// Prepares y, and what backward needs in `saved`.
    pub async fn forward(
        &self,
        context: &Context,
        x: &Tensor,
        y: &Tensor,
        saved: &Tensor,
    ) -> Result<Prepared> {
        match self {
            Self::Batch(layer) => {
                let saved = Saved::from_tensor(context, x, saved)?;
                layer.prepare_train_forward_untracked(x, y, Some(&saved)).await
            }
            Self::Frozen(layer) => layer.prepare_infer(x, y).await,
            Self::Layer(layer) => layer.prepare_forward(x, y, Some(&layer.room_in(x, saved)?)).await,
            Self::Rms(layer) => layer.prepare_forward(x, y, Some(&layer.room_in(x, saved)?)).await,
            Self::Group(layer) => layer.prepare_forward(x, y, Some(&layer.room_in(x, saved)?)).await,
        }
    }

    /// Prepares gradients.
    pub async fn backward(
        &self,
        context: &Context,
        (x, dy): (&Tensor, &Tensor),
        saved: &Tensor,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        match self {
            Self::Batch(layer) => {
                let saved = Saved::from_tensor(context, x, saved)?;
                layer.prepare_backward(x, dy, &saved, targets).await
            }
            Self::Frozen(layer) => layer.prepare_backward(x, dy, targets).await,
            Self::Layer(layer) => layer.prepare_backward(x, dy, &layer.room_in(x, saved)?, targets).await,
            Self::Rms(layer) => layer.prepare_backward(x, dy, &layer.room_in(x, saved)?, targets).await,
            Self::Group(layer) => layer.prepare_backward(x, dy, &layer.room_in(x, saved)?, targets).await,
        }
    }
}
