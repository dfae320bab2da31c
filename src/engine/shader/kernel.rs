//! What kernels there are, and what decides which modules one is made of.

use crate::base::curve::Curve;
use crate::engine::slot::Slot;

/// Where a kernel takes the statistics of a slice from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StatisticsFrom {
    /// Partial moments of the batch (fold/batch.wesl).
    Batch,
    /// What training forward saved (fold/saved.wesl).
    Saved,
    /// The same, with the means that dx subtracts, from partial gradient sums (fold/dx_statistics.wesl).
    Gradients,
    /// Running statistics (fold/running.wesl).
    Running,
    /// Partial moments of slices that are not channels (fold/slices.wesl).
    Slices,
    /// Records of slices that are not channels (fold/recorded.wesl).
    Recorded,
    /// As `Recorded`, by the row of a walk along columns (lib/statistics_at.wesl).
    RecordedOfRow,
    /// Records with the means that dx subtracts (fold/recorded.wesl).
    Means,
    /// As `Means`, by the row of a walk along columns.
    MeansOfRow,
    /// There are none, and parameters alone are of interest (fold/bare.wesl).
    Bare,
    /// What the gradient through a spectral norm subtracts of each row (fold/rank_one.wesl).
    RankOne,
    /// There are none: x̂ is a function of x, with parameters (curve/of_parameters.wesl).
    Curve(Curve),
    /// The same, with all parameters in one buffer, as what forward saves (fold/saved.wesl).
    FoldedCurve(Curve),
}

impl StatisticsFrom {
    pub const fn name(self) -> &'static str {
        match self {
            StatisticsFrom::Batch => "batch",
            StatisticsFrom::Saved => "saved",
            StatisticsFrom::Gradients => "gradients",
            StatisticsFrom::Running => "running",
            StatisticsFrom::Slices => "slices",
            StatisticsFrom::Recorded => "recorded",
            StatisticsFrom::RecordedOfRow => "recorded of row",
            StatisticsFrom::Means => "means",
            StatisticsFrom::MeansOfRow => "means of row",
            StatisticsFrom::Bare => "bare",
            StatisticsFrom::RankOne => "rank one",
            StatisticsFrom::Curve(curve) => curve.name(),
            StatisticsFrom::FoldedCurve(Curve::Tanh) => "folded tanh",
            StatisticsFrom::FoldedCurve(Curve::Erf) => "folded erf",
        }
    }

    /// Whether the statistics are those of the rows of a walk along columns.
    pub const fn of_rows(self) -> bool {
        matches!(self, StatisticsFrom::RecordedOfRow | StatisticsFrom::MeansOfRow)
    }

    /// Whether dx is that of statistics of the batch, from which it subtracts means.
    pub const fn has_means(self) -> bool {
        matches!(self, StatisticsFrom::Gradients | StatisticsFrom::Means | StatisticsFrom::MeansOfRow)
    }

    /// The function that x̂ is of x, if it is one.
    pub const fn curve(self) -> Option<Curve> {
        match self {
            StatisticsFrom::Curve(curve) | StatisticsFrom::FoldedCurve(curve) => Some(curve),
            _ => None,
        }
    }
}

/// What a slice is reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Monoid {
    /// Count, mean and variance (lib/moments.wesl).
    Moments,
    /// Σ x² (lib/squares.wesl).
    Squares,
    /// Σ dz and Σ dz·x̂ (lib/gradient_sums.wesl).
    GradientSums,
    /// The same, and what dalpha and dshift are made of (curve/sums.wesl).
    CurveSums,
    /// Sums of records of slices, the total their average as moments (lib/slice_averages.wesl).
    Averages,
    /// What a program of one's own reduces to.
    Own,
}

impl Monoid {
    pub const fn name(self) -> &'static str {
        match self {
            Monoid::Moments => "moments",
            Monoid::Squares => "squares",
            Monoid::GradientSums => "gradient_sums",
            Monoid::CurveSums => "curve_sums",
            Monoid::Averages => "averages",
            Monoid::Own => "own",
        }
    }

    /// Whether subgroups merge it.
    pub const fn is_shuffled(self) -> bool {
        // Averages are one for each of the samples: few. What a program reduces to nobody but it can shuffle.
        !matches!(self, Monoid::Averages | Monoid::Own)
    }
}

/// An entry point together with the choices that decide its modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    ReduceMoments,
    /// The same of norms that subtract no mean: their squares.
    ReduceSquares,
    /// Gradient sums, with dx through frozen statistics on the way if `dx`.
    ReduceGradients {
        statistics: StatisticsFrom,
        dx: bool,
    },
    /// Gradient sums of rows by a walk along columns, with dx on the way if `dx`.
    ReduceRowGradients {
        statistics: StatisticsFrom,
        dx: bool,
    },
    /// The sums that derivatives of the passes need (lib/second_sums.wesl).
    ReduceSecond,
    /// The product of slices and a vector (lib/product_sums.wesl).
    ReduceProduct,
    /// The total of each slice from partial results.
    FoldTotal(Monoid),
    /// The total gradient sums of slices that share a statistic.
    FoldGroups,
    /// Two totals to one.
    FoldMerge(Monoid),
    /// Some partial results of pieces of segments to one, where they lie.
    FoldNodes(Monoid),
    FoldGradients,
    /// Statistics, or what a curve has in their place, as records like those that forward saves.
    FoldRecords(StatisticsFrom),
    /// Records of rows, those that a mask leaves out marked.
    FoldMarks,
    /// Statistics from partial moments as records: of slices that are not channels, or of groups of them; or of the batch, with batch renorm's r
    /// and d, and the update of running statistics.
    FoldStatistics(StatisticsFrom),
    /// Those records of slices with the means that dx subtracts; sums are multiplied by the gamma of their slice if `times_gamma`.
    FoldMeans {
        times_gamma: bool,
    },
    /// Parameters and their tangents beside each other; with statistics of channels, if they are given, as records of slices.
    FoldTangents(StatisticsFrom),
    /// What derivatives of the passes subtract, from their sums.
    FoldSecond,
    /// A direction of a power iteration from a product, or with `given` none, and with `of_all` the spectral norm.
    FoldDirection {
        given: bool,
        of_all: bool,
    },
    /// Statistics of instances as mixtures of theirs, their layers' and the batch's, or running ones.
    FoldMixture {
        running: bool,
    },
    /// The gradients of the mean and variance of each instance.
    FoldMixtureSums,
    /// What dx subtracts of them, and terms of the gradients of the weights.
    FoldMixtureMeans,
    MapForward(StatisticsFrom),
    /// The same as int8, by the scale of each row.
    MapInt8(StatisticsFrom),
    /// dx, if asked for, and d_residual.
    MapBackward {
        statistics: StatisticsFrom,
        dx: bool,
    },
    MapCopy,
    /// A copy with axes in another order.
    MapPermute,
    /// Reduce, fold and map of training forward in one.
    ResidentForward(StatisticsFrom),
    /// Reduce, fold and map of training backward in one.
    ResidentBackward(StatisticsFrom),
    /// dgamma and dbeta of a curve, and totals of its sums.
    FoldCurve,
    /// dalpha and dshift of a curve from these totals.
    FoldAlpha,
    /// A step of a program of one's own ([`Program`](crate::wgsl::Program)), by its number.
    Own {
        program: u64,
        step: OwnStep,
    },
}

/// The steps of a program of one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OwnStep {
    Reduce,
    Fold,
    Map,
}

impl Kernel {
    pub const fn entry(self) -> &'static str {
        match self {
            Kernel::ReduceMoments => "reduce_moments",
            Kernel::ReduceSquares => "reduce_squares",
            Kernel::ReduceGradients { .. } => "reduce_gradients",
            Kernel::ReduceRowGradients { .. } => "reduce_row_gradients",
            Kernel::ReduceSecond | Kernel::ReduceProduct => "reduce_sums",
            Kernel::FoldDirection { .. } => "fold_direction",
            Kernel::FoldTotal(_) | Kernel::FoldGroups => "fold_total",
            Kernel::FoldTangents(_) => "fold_tangents",
            Kernel::FoldSecond => "fold_second",
            Kernel::FoldMixture { .. } => "fold_mixture",
            Kernel::FoldMixtureSums => "fold_mixture_sums",
            Kernel::FoldMixtureMeans => "fold_mixture_means",
            Kernel::FoldMerge(_) => "fold_merge",
            Kernel::FoldNodes(_) => "fold_nodes",
            Kernel::FoldGradients => "fold_gradients",
            Kernel::FoldRecords(_) => "fold_records",
            Kernel::FoldMarks => "fold_marks",
            Kernel::FoldStatistics(_) => "fold_statistics",
            Kernel::FoldMeans { .. } => "fold_means",
            Kernel::MapForward(_) => "map_forward",
            Kernel::MapInt8(_) => "map_int8",
            Kernel::MapBackward { .. } => "map_backward",
            Kernel::MapCopy => "map_copy",
            Kernel::MapPermute => "map_permute",
            Kernel::ResidentForward(_) => "resident_forward",
            Kernel::ResidentBackward(_) => "resident_backward",
            Kernel::FoldCurve => "fold_curve",
            Kernel::FoldAlpha => "fold_alpha",
            Kernel::Own { step: OwnStep::Reduce, .. } => "reduce_own",
            Kernel::Own { step: OwnStep::Fold, .. } => "fold_own",
            Kernel::Own { step: OwnStep::Map, .. } => "map_own",
        }
    }

    /// Values per channel that the kernel reads, or writes.
    pub const fn parameters(self) -> &'static [Slot] {
        match self {
            Kernel::FoldGradients
            | Kernel::MapBackward { statistics: StatisticsFrom::Gradients, .. }
            | Kernel::ResidentBackward(StatisticsFrom::Saved) => &[Slot::Dgamma, Slot::Dbeta],
            Kernel::FoldCurve => &[Slot::Dgamma, Slot::Dbeta],
            Kernel::FoldAlpha => &[Slot::Dalpha, Slot::Dshift],
            Kernel::FoldMixture { .. } => &[Slot::Alpha, Slot::Shift],
            Kernel::FoldTangents(_) => &[Slot::Gamma, Slot::Beta, Slot::GammaTangent, Slot::BetaTangent],
            _ => &[Slot::Gamma, Slot::Beta, Slot::Alpha],
        }
    }

    /// Whether the kernel writes words, so that it may need the statistics of two slices for one.
    pub const fn writes_words(self) -> bool {
        matches!(
            self,
            Kernel::MapForward(_)
                | Kernel::MapInt8(_)
                | Kernel::MapBackward { .. }
                | Kernel::MapCopy
                | Kernel::MapPermute
                | Kernel::ResidentForward(_)
                | Kernel::ResidentBackward(_)
                | Kernel::Own { step: OwnStep::Map, .. }
        )
    }

    /// The monoid that the kernel reduces over teams, if it does.
    pub const fn reduces(self) -> Option<Monoid> {
        match self {
            Kernel::ReduceGradients {
                statistics: StatisticsFrom::Curve(_) | StatisticsFrom::FoldedCurve(_),
                ..
            }
            | Kernel::FoldCurve
            | Kernel::FoldAlpha => Some(Monoid::CurveSums),
            Kernel::FoldTotal(of) => Some(of),
            Kernel::Own { .. } => Some(Monoid::Own),
            Kernel::ReduceSquares => Some(Monoid::Squares),
            Kernel::ReduceMoments
            | Kernel::FoldStatistics(_)
            | Kernel::MapForward(StatisticsFrom::Batch | StatisticsFrom::Slices)
            | Kernel::MapInt8(StatisticsFrom::Slices)
            | Kernel::ResidentForward(_) => Some(Monoid::Moments),
            Kernel::ReduceGradients { .. }
            | Kernel::ReduceSecond
            | Kernel::ReduceProduct
            | Kernel::FoldGroups
            | Kernel::FoldGradients
            | Kernel::FoldMeans { .. }
            | Kernel::MapBackward { statistics: StatisticsFrom::Gradients, .. }
            | Kernel::ResidentBackward(_) => Some(Monoid::GradientSums),
            _ => None,
        }
    }

    /// The monoid whose values the kernel has, if any; else one that makes no difference.
    pub const fn monoid(self) -> Monoid {
        match self {
            Kernel::FoldMerge(of) | Kernel::FoldNodes(of) => of,
            Kernel::ReduceRowGradients { .. } | Kernel::FoldSecond | Kernel::FoldDirection { .. } => {
                Monoid::GradientSums
            }
            _ => match self.reduces() {
                Some(of) => of,
                None => Monoid::Moments,
            },
        }
    }

    /// Where the statistics come from; where there are none, what makes no difference.
    pub const fn statistics(self) -> StatisticsFrom {
        match self {
            Kernel::ReduceGradients { statistics: from, .. }
            | Kernel::ReduceRowGradients { statistics: from, .. }
            | Kernel::FoldRecords(from)
            | Kernel::FoldStatistics(from)
            | Kernel::FoldTangents(from)
            | Kernel::MapForward(from)
            | Kernel::MapInt8(from)
            | Kernel::MapBackward { statistics: from, .. }
            | Kernel::ResidentForward(from)
            | Kernel::ResidentBackward(from) => from,
            Kernel::ReduceSecond => StatisticsFrom::Recorded,
            Kernel::ReduceProduct => StatisticsFrom::Bare,
            _ => StatisticsFrom::Saved,
        }
    }

    /// Whether dx is part of the walk.
    pub const fn writes_dx(self) -> bool {
        matches!(
            self,
            Kernel::ReduceGradients { dx: true, .. }
                | Kernel::ReduceRowGradients { dx: true, .. }
                | Kernel::MapBackward { dx: true, .. }
                | Kernel::ResidentBackward(_)
        )
    }

    /// Whether the kernel keeps what it has read in registers.
    pub const fn is_resident(self) -> bool {
        matches!(self, Kernel::ResidentForward(_) | Kernel::ResidentBackward(_))
    }

    /// Whether the kernel walks words of which it can load several ahead.
    pub const fn is_ahead(self) -> bool {
        matches!(
            self,
            Kernel::ReduceMoments
                | Kernel::ReduceSquares
                | Kernel::ReduceGradients { .. }
                | Kernel::MapForward(_)
                | Kernel::MapBackward { .. }
        )
    }

    /// Whether the kernel reads dy.
    pub const fn reads_gradient(self) -> bool {
        matches!(
            self,
            Kernel::ReduceGradients { .. }
                | Kernel::ReduceRowGradients { .. }
                | Kernel::ReduceSecond
                | Kernel::MapBackward { .. }
                | Kernel::ResidentBackward(_)
        )
    }

    /// Whether the entry point has the override CHUNK_WORDS.
    pub const fn chunked(self) -> bool {
        matches!(
            self,
            Kernel::ReduceMoments
                | Kernel::ReduceSquares
                | Kernel::ReduceGradients { .. }
                | Kernel::ReduceSecond
                | Kernel::ReduceProduct
                | Kernel::Own { step: OwnStep::Reduce, .. }
        )
    }
}
