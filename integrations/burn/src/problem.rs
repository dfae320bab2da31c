//! What is asked of the kernels, as data: a norm with its options, and the shapes that follow from it.

use burn::tensor::DType;
use wgnorm::statistics::Renorm;
use wgnorm::{Activation, Affine, BatchNormOptions, CurveOptions, Mask, Momentum, NormOptions};

use crate::rank::Turn;
use crate::statistics::Source;

/// Which norm, and over what.
#[derive(Clone, Debug)]
pub enum Norm {
    /// Channels by statistics of the batch, of which the running ones take a part.
    Batch { statistics: Source, momentum: f64 },
    /// Channels by statistics that are given.
    Frozen,
    /// The last axis.
    Layer,
    /// The last axis, without a mean.
    Rms,
    /// So many groups of channels of each sample.
    Group(usize),
    /// tanh of a multiple of each value: no statistics.
    Tanh,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Problem {
    pub norm: Norm,
    pub epsilon: f64,
    pub activation: Activation,
    pub mask: Option<Mask>,
    /// Whether forward leaves what backward needs.
    pub keeps: bool,
}

/// Which gradients are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub x: bool,
    pub gamma: bool,
    pub beta: bool,
    pub alpha: bool,
    pub residual: bool,
}

/// A record of one channel of a batch, in values of four bytes.
const RECORD: usize = 10;

/// Channels of which records begin where a binding may: 32 of 40 bytes are five times the largest alignment that wgpu knows.
const ALIGNED: usize = 32;

impl Norm {
    /// Whether channels are the second axis, and may be last in memory.
    pub fn has_channels(&self) -> bool {
        matches!(self, Self::Batch { .. } | Self::Frozen | Self::Group(_))
    }

    /// The shape that the kernels see: of rows two axes, of channels three at most.
    pub fn dims(&self, memory: Vec<usize>, channels_last: bool) -> Vec<usize> {
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
    /// The shape of what forward leaves for backward over x of a shape, if it leaves anything.
    pub fn saved(&self, x: &[usize]) -> Option<Vec<usize>> {
        let rows = || x[..x.len() - 1].iter().product();
        let shape = match &self.norm {
            Norm::Batch { statistics: Source::Ghost(size), .. } => {
                vec![x[0].div_ceil(*size) * ghost_records(x[1]), RECORD]
            }
            Norm::Batch { .. } => vec![x[1], RECORD],
            Norm::Frozen | Norm::Tanh => return None,
            Norm::Layer | Norm::Rms => vec![rows(), 4],
            Norm::Group(groups) => vec![x[0] * groups, 4],
        };
        self.keeps.then_some(shape)
    }

    /// The exchange with other ranks that a pass is a part of.
    pub fn turn(&self) -> Option<&Turn> {
        match &self.norm {
            Norm::Batch { statistics: Source::Synchronised(turn), .. } => Some(turn),
            _ => None,
        }
    }

    /// Whether backward reads the residual.
    pub fn reads_residual(&self) -> bool {
        self.activation != Activation::None
    }

    pub fn batch_options(&self, affine: Affine) -> BatchNormOptions {
        let options = BatchNormOptions::burn().eps(self.epsilon).affine(affine).activation(self.activation);
        match &self.norm {
            Norm::Batch { statistics, momentum } => {
                let options = options.momentum(Momentum::WeightOfNew(*momentum));
                match statistics {
                    Source::Renorm { r_max, d_max } => options.renorm(Renorm::fixed(*r_max, *d_max)),
                    _ => options,
                }
            }
            _ => options,
        }
    }

    pub fn norm_options(&self, affine: Affine) -> NormOptions {
        let options = if matches!(self.norm, Norm::Rms) { NormOptions::rms() } else { NormOptions::layer() };
        options.eps(self.epsilon).affine(affine).activation(self.activation)
    }

    pub fn curve_options(&self) -> CurveOptions {
        CurveOptions::default().activation(self.activation)
    }
}

/// Records of each part of a ghost batch, those included that are there for the alignment of the next part's alone.
pub fn ghost_records(channels: usize) -> usize {
    channels.next_multiple_of(ALIGNED)
}

/// Element types that the kernels take.
pub fn element(dtype: DType) -> Option<wgnorm::DType> {
    match dtype {
        DType::F32 => Some(wgnorm::DType::F32),
        DType::F16 => Some(wgnorm::DType::F16),
        DType::BF16 => Some(wgnorm::DType::Bf16),
        _ => None,
    }
}
