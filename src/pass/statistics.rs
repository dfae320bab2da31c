//! Where a pass has its statistics from, and where they go.

use crate::base::curve::Curve;
use crate::engine::params::flag;
use crate::engine::slab::Slab;
use crate::statistics::gradient_sums::GradientSums;
use crate::statistics::moments::Moments;
use crate::statistics::renorm::Renorm;
use crate::statistics::saved::Saved;

/// The statistics of a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Statistics<'a> {
    /// Of the channels of a batch.
    Batch(OfBatch<'a>),
    /// Running statistics, which are constants.
    Running(&'a Slab),
    /// Of slices that are not channels.
    Slices(OfSlices<'a>),
    /// None: x̂ is a function of x.
    Curve(Curve),
}

impl<'a> Statistics<'a> {
    /// Whether an x is reduced to them of which a mask leaves something out.
    pub fn are_over_positions(&self) -> bool {
        matches!(self, Self::Batch(of) if of.moments.is_none())
    }

    /// What forward saves, or has saved.
    pub fn saved(&self) -> Option<&'a Saved> {
        match self {
            Self::Batch(of) => of.saved,
            Self::Slices(of) => of.saved,
            Self::Running(_) | Self::Curve(_) => None,
        }
    }

    /// The same, saved and summed elsewhere and not entering running statistics.
    pub fn kept_apart<'b>(self, saved: Option<&'b Saved>, sums: Option<&'b GradientSums>) -> Statistics<'b>
    where
        'a: 'b,
    {
        match self {
            Self::Batch(of) => {
                let sums = sums.map_or(of.sums, Sums::Into);
                Statistics::Batch(OfBatch { saved, track: None, sums, ..of })
            }
            Self::Slices(of) => Statistics::Slices(OfSlices { saved, ..of }),
            Self::Running(slab) => Statistics::Running(slab),
            Self::Curve(curve) => Statistics::Curve(curve),
        }
    }
}

/// Statistics of the channels of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfBatch<'a> {
    /// Moments that were computed before, instead of those of x.
    pub moments: Option<&'a Moments>,
    /// What forward leaves for backward.
    pub saved: Option<&'a Saved>,
    /// Running statistics, for forward.
    pub running: Option<&'a Slab>,
    /// How the batch enters these, if it does.
    pub track: Option<Tracking>,
    /// How x̂ is corrected towards them.
    pub renorm: Option<Renorm>,
    /// The gradient sums of backward.
    pub sums: Sums<'a>,
}

/// How a batch enters running statistics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tracking {
    /// Weights of what is there and of the batch.
    pub weights: (f32, f32),
    /// Weights are those of an average over all batches so far.
    pub cumulative: bool,
    /// The variance that enters is the unbiased one.
    pub unbiased: bool,
}

/// Whose gradient sums a backward pass takes, and where they go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sums<'a> {
    /// Of x and dy, for the operation itself.
    Own,
    /// Of x and dy, as a value.
    Into(&'a GradientSums),
    /// Given.
    From(&'a GradientSums),
}

/// Statistics of slices that are not channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfSlices<'a> {
    pub scheme: Scheme,
    /// What forward leaves for backward.
    pub saved: Option<&'a Saved>,
}

/// What x is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// x − mean, by sqrt(var + eps).
    Deviation,
    /// x − mean, by sqrt(var) + eps.
    DeviationPlus,
    /// x, by sqrt(mean square + eps).
    MeanSquare,
    /// x, by max(‖x‖, eps).
    Length,
    /// The same; zeros have no direction, so that nothing comes of them and nothing goes back.
    Direction,
}

impl Scheme {
    /// Bits of `Params::flags`.
    pub const fn flags(self) -> u32 {
        match self {
            Scheme::Deviation => 0,
            Scheme::DeviationPlus => flag::DEVIATION,
            Scheme::MeanSquare => 0,
            Scheme::Length => flag::LENGTH,
            Scheme::Direction => flag::LENGTH | flag::DIRECTION,
        }
    }

    /// Whether the mean is subtracted.
    pub const fn is_centred(self) -> bool {
        matches!(self, Scheme::Deviation | Scheme::DeviationPlus)
    }
}
