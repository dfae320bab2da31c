//! Kernels as compositions of shader files, and the variants that each can be built in.
//!
//! A kernel is a list of files from `shaders/`, one entry point and the bindings that it uses. What differs between
//! training and inference, between activations or between storage types is which files are in the list. Files of
//! `shaders/tensor/` are templates: one instance for each tensor that the kernel reads or writes, so their names are
//! substituted (`$NAME`, `$SLOT`), as is the access mode of inputs (`$INPUT`). Sizes are pipeline constants.

use super::slot::Slot;
use crate::activation::Activation;
use crate::curve::Curve;
use crate::dtype::DType;
use crate::plan::WalkKind;

#[cfg(all(feature = "eval", not(target_family = "wasm")))]
pub(crate) mod directory;

/// One shader file.
pub(crate) struct Source {
    /// Path below `shaders/`.
    pub name: &'static str,
    pub text: &'static str,
}

impl Source {
    /// What the file holds: here, or where shaders are read from a directory, there.
    fn text(&self) -> &'static str {
        #[cfg(all(feature = "eval", not(target_family = "wasm")))]
        if let Some(text) = directory::text(self.name) {
            return text;
        }
        self.text
    }
}

macro_rules! sources {
    ($($constant:ident = $path:literal;)*) => {
        $(pub(crate) const $constant: Source = Source {
            name: $path,
            text: include_str!(concat!("../../shaders/", $path)),
        };)*

        /// The names of all files.
        #[cfg(all(feature = "eval", not(target_family = "wasm")))]
        const NAMES: &[&str] = &[$($path),*];
    };
}

sources! {
    PARAMS = "lib/params.wgsl";
    WORD_F32X1 = "lib/word_f32x1.wgsl";
    WORD_F32X4 = "lib/word_f32x4.wgsl";
    STORAGE_F32 = "lib/storage_f32.wgsl";
    STORAGE_HALF_X1 = "lib/storage_half_x1.wgsl";
    STORAGE_HALF_X4 = "lib/storage_half_x4.wgsl";
    F16 = "lib/f16.wgsl";
    F16_PACKED = "lib/f16_packed.wgsl";
    BF16 = "lib/bf16.wgsl";
    STAT_F32X1 = "lib/stat_f32x1.wgsl";
    STAT_F32X2 = "lib/stat_f32x2.wgsl";
    STAT_F32X4 = "lib/stat_f32x4.wgsl";
    STAT_VECTOR = "lib/stat_vector.wgsl";
    SEGMENTS = "walk/segments.wgsl";
    COLUMNS = "walk/columns.wgsl";
    PER_SLICE = "walk/per_slice.wgsl";
    PER_PAIR = "walk/per_pair.wgsl";
    PER_COMPONENT = "walk/per_component.wgsl";
    EDGES = "walk/edges.wgsl";
    MASK_NONE = "mask/none.wgsl";
    MASK_SOME = "mask/some.wgsl";
    MASK_OF_RUN = "mask/of_run.wgsl";
    MASK_OF_ROW = "mask/of_row.wgsl";
    MASK_OF_ELEMENT = "mask/of_element.wgsl";
    MASK_EACH_X1 = "mask/each_x1.wgsl";
    MASK_EACH_X4 = "mask/each_x4.wgsl";
    CONTROL = "lib/control.wgsl";
    STRIP = "walk/strip.wgsl";
    TENSOR_ADDRESS = "tensor/address.wgsl";
    TENSOR_ABSENT = "tensor/absent.wgsl";
    TENSOR_INPUT = "tensor/input.wgsl";
    TENSOR_OVER = "tensor/over.wgsl";
    TENSOR_OUTPUT = "tensor/output.wgsl";
    TENSOR_OUTPUT_HALF = "tensor/output_half.wgsl";
    PARAMETER_F32 = "tensor/parameter_f32.wgsl";
    PARAMETER_HALF = "tensor/parameter_half.wgsl";
    PARAMETER_F32X4 = "tensor/parameter_f32x4.wgsl";
    PARAMETER_WORD_X1 = "tensor/parameter_word_x1.wgsl";
    PARAMETER_WORD_X4 = "tensor/parameter_word_x4.wgsl";
    PARAMETER_GRADIENT_F32 = "tensor/parameter_gradient_f32.wgsl";
    PARAMETER_GRADIENT_HALF = "tensor/parameter_gradient_half.wgsl";
    ACTIVATION_NONE = "activation/none.wgsl";
    ACTIVATION_RELU = "activation/relu.wgsl";
    ACTIVATION_RELU6 = "activation/relu6.wgsl";
    ACTIVATION_LEAKY_RELU = "activation/leaky_relu.wgsl";
    ACTIVATION_LOGISTIC = "activation/logistic.wgsl";
    ACTIVATION_SILU = "activation/silu.wgsl";
    ACTIVATION_GELU = "activation/gelu.wgsl";
    ACTIVATION_GELU_TANH = "activation/gelu_tanh.wgsl";
    ACTIVATION_SIGMOID = "activation/sigmoid.wgsl";
    ACTIVATION_TANH = "activation/tanh.wgsl";
    ACTIVATION_HARD_SWISH = "activation/hard_swish.wgsl";
    RESIDUAL = "lib/residual.wgsl";
    NO_RESIDUAL = "lib/no_residual.wgsl";
    FROM_X = "lib/from_x.wgsl";
    FROM_Y = "lib/from_y.wgsl";
    DZ_OF_DY = "lib/dz_of_dy.wgsl";
    DZ_OF_ACTIVATION = "lib/dz_of_activation.wgsl";
    MOMENTS = "lib/moments.wgsl";
    ACCUMULATE = "lib/accumulate.wgsl";
    GRADIENT_SUMS = "lib/gradient_sums.wgsl";
    TREE = "lib/tree.wgsl";
    TREE_SUBGROUPS = "lib/tree_subgroups.wgsl";
    MOMENTS_SHUFFLED = "lib/moments_shuffled.wgsl";
    GRADIENT_SUMS_SHUFFLED = "lib/gradient_sums_shuffled.wgsl";
    DX = "lib/dx.wgsl";
    DX_WEIGHTED = "lib/dx_weighted.wgsl";
    VALUE_OF_X = "lib/value_of_x.wgsl";
    VALUE_OF_SUM = "lib/value_of_sum.wgsl";
    EMIT_SUM = "lib/emit_sum.wgsl";
    NO_SUM = "lib/no_sum.wgsl";
    D_SUM = "lib/d_sum.wgsl";
    NO_D_SUM = "lib/no_d_sum.wgsl";
    STATISTICS = "lib/statistics.wgsl";
    STATISTICS_OF_SLICE = "lib/statistics_of_slice.wgsl";
    STATISTICS_OF_PLACE = "lib/statistics_of_place.wgsl";
    STATISTICS_OF_ROW = "lib/statistics_of_row.wgsl";
    SLICE_RECORD = "lib/slice_record.wgsl";
    SLICE_AVERAGES = "lib/slice_averages.wgsl";
    MEANS_RECORD = "lib/means_record.wgsl";
    AFFINE_OF_SLICE = "affine/of_slice.wgsl";
    AFFINE_OF_PLACE = "affine/of_place.wgsl";
    AFFINE_PARAMETER_OF = "affine/parameter_of.wgsl";
    AFFINE_PARAMETERS = "affine/parameters.wgsl";
    REDUCE_MOMENTS = "reduce/moments.wgsl";
    REDUCE_GRADIENTS = "reduce/gradients.wgsl";
    REDUCE_ROW_GRADIENTS = "reduce/row_gradients.wgsl";
    FOLD_PARTIALS = "fold/partials.wgsl";
    FOLD_PARTIAL_OF_SLICE = "fold/partial_of_slice.wgsl";
    FOLD_PARTIAL_OF_GROUP = "fold/partial_of_group.wgsl";
    FOLD_TIMES_ONE = "fold/times_one.wgsl";
    FOLD_TIMES_GAMMA = "fold/times_gamma.wgsl";
    FOLD_SLICES = "fold/slices.wgsl";
    FOLD_STATISTICS_ALONE = "fold/statistics_alone.wgsl";
    FOLD_RECORDED = "fold/recorded.wgsl";
    FOLD_RECORDED_OF_SLICE = "fold/recorded_of_slice.wgsl";
    FOLD_MEANS = "fold/means.wgsl";
    FOLD_MEANS_OF_SUMS = "fold/means_of_sums.wgsl";
    FOLD_MEANS_OF_GRADIENTS = "fold/means_of_gradients.wgsl";
    FOLD_NO_MEANS = "fold/no_means.wgsl";
    FOLD_MEANS_ALONE = "fold/means_alone.wgsl";
    FOLD_TOTAL = "fold/total.wgsl";
    FOLD_MERGE = "fold/merge.wgsl";
    FOLD_BATCH = "fold/batch.wgsl";
    FOLD_BATCH_OF_PARTIALS = "fold/batch_of_partials.wgsl";
    FOLD_NO_RENORM = "fold/no_renorm.wgsl";
    FOLD_RENORM = "fold/renorm.wgsl";
    FOLD_RUNNING = "fold/running.wgsl";
    FOLD_RECORDS_ALONE = "fold/records_alone.wgsl";
    FOLD_SAVED = "fold/saved.wgsl";
    FOLD_SUMS = "fold/sums.wgsl";
    FOLD_NO_SUMS = "fold/no_sums.wgsl";
    FOLD_DGAMMA = "fold/dgamma.wgsl";
    FOLD_DGAMMA_RENORM = "fold/dgamma_renorm.wgsl";
    FOLD_GRADIENTS = "fold/gradients.wgsl";
    FOLD_GRADIENTS_ALONE = "fold/gradients_alone.wgsl";
    MAP_FORWARD = "map/forward.wgsl";
    MAP_BACKWARD = "map/backward.wgsl";
    MAP_DX = "map/dx.wgsl";
    MAP_NO_DX = "map/no_dx.wgsl";
    MAP_D_RESIDUAL = "map/d_residual.wgsl";
    MAP_NO_D_RESIDUAL = "map/no_d_residual.wgsl";
    MAP_COPY = "map/copy.wgsl";
    RESIDENT_FORWARD = "resident/forward.wgsl";
    RESIDENT_BACKWARD = "resident/backward.wgsl";
    RESIDENT_OF_CHANNELS = "resident/of_channels.wgsl";
    RESIDENT_OF_SLICES = "resident/of_slices.wgsl";
    TANH = "lib/tanh.wgsl";
    NORMAL = "lib/normal.wgsl";
    GRADIENT_WORDS = "lib/gradient_words.wgsl";
    FROZEN_DX = "lib/frozen_dx.wgsl";
    FROM_CURVE = "lib/from_curve.wgsl";
    CURVE_TANH = "curve/tanh.wgsl";
    CURVE_ERF = "curve/erf.wgsl";
    CURVE_OF_PARAMETERS = "curve/of_parameters.wgsl";
    CURVE_SUMS = "curve/sums.wgsl";
    CURVE_SUMS_SHUFFLED = "curve/sums_shuffled.wgsl";
    CURVE_WORDS = "curve/words.wgsl";
    CURVE_DX = "curve/dx.wgsl";
    CURVE_FOLD_GRADIENTS = "curve/fold_gradients.wgsl";
    CURVE_FOLD_ALPHA = "curve/fold_alpha.wgsl";
    PROBE_F16 = "probe/f16.wgsl";
    PROBE_SUBGROUPS = "probe/subgroups.wgsl";
}

/// Where a kernel takes the statistics of a slice from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StatisticsFrom {
    /// Partial moments of the batch (fold/batch.wgsl).
    Batch,
    /// What training forward saved (fold/saved.wgsl).
    Saved,
    /// The same, with the means that dx subtracts, from partial gradient sums (fold/means_of_gradients.wgsl).
    Gradients,
    /// Running statistics (fold/running.wgsl).
    Running,
    /// Partial moments of slices that are not channels (fold/slices.wgsl).
    Slices,
    /// Records of slices that are not channels (fold/recorded_of_slice.wgsl).
    Recorded,
    /// As `Recorded`, by the row of a walk along columns (lib/statistics_of_row.wgsl).
    RecordedOfRow,
    /// Records with the means that dx subtracts (fold/means.wgsl).
    Means,
    /// As `Means`, by the row of a walk along columns.
    MeansOfRow,
    /// There are none: x̂ is a function of x, with parameters (curve/of_parameters.wgsl).
    Curve(Curve),
    /// The same, with all parameters in one buffer, as what forward saves (fold/saved.wgsl).
    FoldedCurve(Curve),
}

impl StatisticsFrom {
    const fn name(self) -> &'static str {
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
            StatisticsFrom::Curve(curve) => curve.name(),
            StatisticsFrom::FoldedCurve(Curve::Tanh) => "folded tanh",
            StatisticsFrom::FoldedCurve(Curve::Erf) => "folded erf",
        }
    }

    /// Whether slices are channels: one statistic and one pair of parameters each.
    const fn of_channels(self) -> bool {
        matches!(
            self,
            StatisticsFrom::Batch
                | StatisticsFrom::Saved
                | StatisticsFrom::Gradients
                | StatisticsFrom::Running
                | StatisticsFrom::Curve(_)
                | StatisticsFrom::FoldedCurve(_)
        )
    }

    /// Whether the statistics are those of the rows of a walk along columns.
    const fn of_rows(self) -> bool {
        matches!(self, StatisticsFrom::RecordedOfRow | StatisticsFrom::MeansOfRow)
    }

    /// Whether dx is that of statistics of the batch, from which it subtracts means.
    const fn has_means(self) -> bool {
        matches!(self, StatisticsFrom::Gradients | StatisticsFrom::Means | StatisticsFrom::MeansOfRow)
    }

    fn sources(self) -> &'static [&'static Source] {
        match self {
            StatisticsFrom::Batch => &[
                &MOMENTS,
                &TREE,
                &FOLD_PARTIALS,
                &FOLD_PARTIAL_OF_SLICE,
                &STATISTICS,
                &FOLD_NO_RENORM,
                &FOLD_BATCH,
                &FOLD_BATCH_OF_PARTIALS,
            ],
            StatisticsFrom::Saved | StatisticsFrom::Gradients | StatisticsFrom::FoldedCurve(_) => {
                &[&STATISTICS, &FOLD_SAVED]
            }
            StatisticsFrom::Running => &[&STATISTICS, &FOLD_RUNNING],
            StatisticsFrom::Slices => &[
                &MOMENTS,
                &TREE,
                &FOLD_PARTIALS,
                &FOLD_PARTIAL_OF_SLICE,
                &STATISTICS,
                &SLICE_RECORD,
                &AFFINE_PARAMETER_OF,
                &AFFINE_PARAMETERS,
                &FOLD_SLICES,
                &FOLD_BATCH_OF_PARTIALS,
            ],
            StatisticsFrom::Recorded => &[
                &STATISTICS,
                &SLICE_RECORD,
                &AFFINE_PARAMETER_OF,
                &AFFINE_PARAMETERS,
                &FOLD_RECORDED,
                &FOLD_RECORDED_OF_SLICE,
            ],
            StatisticsFrom::RecordedOfRow => &[
                &STATISTICS,
                &SLICE_RECORD,
                &AFFINE_PARAMETER_OF,
                &AFFINE_PARAMETERS,
                &FOLD_RECORDED,
                &STATISTICS_OF_ROW,
            ],
            StatisticsFrom::Means => &[
                &STATISTICS,
                &SLICE_RECORD,
                &MEANS_RECORD,
                &AFFINE_PARAMETER_OF,
                &AFFINE_PARAMETERS,
                &FOLD_MEANS,
                &FOLD_RECORDED_OF_SLICE,
            ],
            StatisticsFrom::MeansOfRow => &[
                &STATISTICS,
                &SLICE_RECORD,
                &MEANS_RECORD,
                &AFFINE_PARAMETER_OF,
                &AFFINE_PARAMETERS,
                &FOLD_MEANS,
                &STATISTICS_OF_ROW,
            ],
            StatisticsFrom::Curve(_) => &[&STATISTICS, &CURVE_OF_PARAMETERS],
        }
    }

    /// The function that x̂ is of x, if it is one.
    const fn curve(self) -> Option<Curve> {
        match self {
            StatisticsFrom::Curve(curve) | StatisticsFrom::FoldedCurve(curve) => Some(curve),
            _ => None,
        }
    }

    fn slots(self) -> &'static [Slot] {
        match self {
            StatisticsFrom::Batch => {
                &[Slot::Gamma, Slot::Beta, Slot::RunningUpdate, Slot::Partials, Slot::SavedOut]
            }
            StatisticsFrom::Saved | StatisticsFrom::FoldedCurve(_) => &[Slot::Saved],
            StatisticsFrom::Gradients => &[Slot::Partials, Slot::Saved],
            StatisticsFrom::Running => &[Slot::Gamma, Slot::Beta, Slot::Running],
            StatisticsFrom::Slices => &[Slot::Gamma, Slot::Beta, Slot::Partials, Slot::SavedOut],
            StatisticsFrom::Recorded | StatisticsFrom::RecordedOfRow => {
                &[Slot::Gamma, Slot::Beta, Slot::Saved]
            }
            StatisticsFrom::Means | StatisticsFrom::MeansOfRow => &[Slot::Gamma, Slot::Beta, Slot::Means],
            StatisticsFrom::Curve(_) => &[Slot::Gamma, Slot::Beta, Slot::Alpha, Slot::Shift],
        }
    }
}

/// What a slice is reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Monoid {
    /// Count, mean and variance (lib/moments.wgsl).
    Moments,
    /// Σ dz and Σ dz·x̂ (lib/gradient_sums.wgsl).
    GradientSums,
    /// The same, and what dalpha and dshift are made of (curve/sums.wgsl).
    CurveSums,
    /// Sums of records of slices, the total their average as moments (lib/slice_averages.wgsl).
    Averages,
}

impl Monoid {
    const fn name(self) -> &'static str {
        match self {
            Monoid::Moments => "moments",
            Monoid::GradientSums => "gradient_sums",
            Monoid::CurveSums => "curve_sums",
            Monoid::Averages => "averages",
        }
    }

    const fn source(self) -> &'static Source {
        match self {
            Monoid::Moments => &MOMENTS,
            Monoid::GradientSums => &GRADIENT_SUMS,
            Monoid::CurveSums => &CURVE_SUMS,
            Monoid::Averages => &SLICE_AVERAGES,
        }
    }

    /// How subgroups merge it, if they do.
    const fn shuffled(self) -> Option<&'static Source> {
        match self {
            Monoid::Moments => Some(&MOMENTS_SHUFFLED),
            Monoid::GradientSums => Some(&GRADIENT_SUMS_SHUFFLED),
            Monoid::CurveSums => Some(&CURVE_SUMS_SHUFFLED),
            // One for each of the samples: few.
            Monoid::Averages => None,
        }
    }
}

/// An activation without its parameters, which are uniforms: what decides the files of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ActivationKind(&'static str);

impl ActivationKind {
    pub const NONE: Self = Self(Activation::None.name());

    pub const fn of(activation: Activation) -> Self {
        Self(activation.name())
    }

    fn sources(self) -> &'static [&'static Source] {
        match self.0 {
            "relu" => &[&ACTIVATION_RELU],
            "relu6" => &[&ACTIVATION_RELU6],
            "leaky_relu" => &[&ACTIVATION_LEAKY_RELU],
            "silu" => &[&ACTIVATION_LOGISTIC, &ACTIVATION_SILU],
            "gelu" => &[&NORMAL, &ACTIVATION_GELU],
            "gelu_tanh" => &[&ACTIVATION_LOGISTIC, &ACTIVATION_GELU_TANH],
            "sigmoid" => &[&ACTIVATION_LOGISTIC, &ACTIVATION_SIGMOID],
            "tanh" => &[&TANH, &ACTIVATION_TANH],
            "hard_swish" => &[&ACTIVATION_HARD_SWISH],
            _ => &[&ACTIVATION_NONE],
        }
    }
}

/// What a kernel does to each element beside the normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pointwise {
    pub activation: ActivationKind,
    /// A residual is added before the activation.
    pub residual: bool,
    /// The gradient of the residual is written.
    pub d_residual: bool,
    /// Slot `X` holds y, from which x̂ is recovered.
    pub from_y: bool,
    /// Some positions do not count.
    pub masked: bool,
    /// dgamma is that of batch renorm.
    pub renorm: bool,
    /// gamma and beta vary within a slice.
    pub of_place: bool,
    /// What is normalized is a sum, which is written.
    pub sum: bool,
    /// The gradient of that sum is added to dx.
    pub d_sum: bool,
}

impl Default for Pointwise {
    fn default() -> Self {
        Self {
            activation: ActivationKind::NONE,
            residual: false,
            d_residual: false,
            from_y: false,
            masked: false,
            renorm: false,
            of_place: false,
            sum: false,
            d_sum: false,
        }
    }
}

impl Pointwise {
    /// As far as it makes a difference to a kernel.
    pub fn of(self, kernel: Kernel) -> Self {
        let nothing = Self::default();
        let activated = self.activation != ActivationKind::NONE;
        // Without an activation dz is dy, whatever the residual is, unless x̂ has to be recovered.
        let residual = self.residual && (activated || self.from_y);
        let Self { activation, d_residual, from_y, masked, renorm, of_place, sum, d_sum, .. } = self;
        match kernel {
            Kernel::MapForward(_) => Self { activation, residual: self.residual, of_place, ..nothing },
            Kernel::ResidentForward(_) => {
                Self { activation, residual: self.residual, of_place, sum, ..nothing }
            }
            Kernel::ReduceRowGradients => Self { activation, residual, d_residual, ..nothing },
            Kernel::ReduceGradients { dx, .. } => {
                let d_sum = d_sum && dx;
                Self { activation, residual, d_residual, from_y, masked, of_place, d_sum, ..nothing }
            }
            Kernel::ResidentBackward(_) => {
                Self { activation, residual, d_residual, from_y, renorm, of_place, d_sum, ..nothing }
            }
            Kernel::MapBackward { statistics, .. } if statistics.has_means() => {
                // With a mask it writes no dgamma.
                let renorm = renorm && !masked;
                Self { activation, residual, from_y, masked, renorm, of_place, d_sum, ..nothing }
            }
            Kernel::MapBackward { .. } => {
                Self { activation, residual: self.residual && activated, d_residual, masked, ..nothing }
            }
            Kernel::ReduceMoments => Self { masked, sum, ..nothing },
            Kernel::MapCopy => Self { sum, ..nothing },
            Kernel::FoldGradients => Self { renorm, ..nothing },
            _ => nothing,
        }
    }

    fn key(self) -> String {
        let mut key = String::new();
        if self.activation != ActivationKind::NONE {
            key += &format!(" {}", self.activation.0);
        }
        for (is, name) in [
            (self.residual, " residual"),
            (self.d_residual, " d_residual"),
            (self.from_y, " from_y"),
            (self.masked, " masked"),
            (self.renorm, " renorm"),
            (self.of_place, " affine of place"),
            (self.sum, " sum"),
            (self.d_sum, " d_sum"),
        ] {
            if is {
                key += name;
            }
        }
        key
    }
}

/// An entry point together with the choices that decide its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    ReduceMoments,
    /// Gradient sums, with dx through frozen statistics on the way if `dx`.
    ReduceGradients {
        statistics: StatisticsFrom,
        dx: bool,
    },
    /// Gradient sums of rows by a walk along columns.
    ReduceRowGradients,
    /// The total of each slice from partial results.
    FoldTotal(Monoid),
    /// Two totals to one.
    FoldMerge(Monoid),
    FoldGradients,
    /// Statistics, or what a curve has in their place, as records like those that forward saves.
    FoldRecords(StatisticsFrom),
    /// Statistics from partial moments as records: of slices that are not channels, or of groups of them; or of the batch, with batch renorm's r
    /// and d, and the update of running statistics.
    FoldStatistics(StatisticsFrom),
    /// Those records of slices with the means that dx subtracts; sums are multiplied by the gamma of their slice if `times_gamma`.
    FoldMeans {
        times_gamma: bool,
    },
    MapForward(StatisticsFrom),
    /// dx, if asked for, and d_residual.
    MapBackward {
        statistics: StatisticsFrom,
        dx: bool,
    },
    MapCopy,
    /// Reduce, fold and map of training forward in one.
    ResidentForward(StatisticsFrom),
    /// Reduce, fold and map of training backward in one.
    ResidentBackward(StatisticsFrom),
    /// dgamma and dbeta of a curve, and totals of its sums.
    FoldCurve,
    /// dalpha and dshift of a curve from these totals.
    FoldAlpha,
}

impl Kernel {
    pub const fn entry(self) -> &'static str {
        match self {
            Kernel::ReduceMoments => "reduce_moments",
            Kernel::ReduceGradients { .. } => "reduce_gradients",
            Kernel::ReduceRowGradients => "reduce_row_gradients",
            Kernel::FoldTotal(_) => "fold_total",
            Kernel::FoldMerge(_) => "fold_merge",
            Kernel::FoldGradients => "fold_gradients",
            Kernel::FoldRecords(_) => "fold_records",
            Kernel::FoldStatistics(_) => "fold_statistics",
            Kernel::FoldMeans { .. } => "fold_means",
            Kernel::MapForward(_) => "map_forward",
            Kernel::MapBackward { .. } => "map_backward",
            Kernel::MapCopy => "map_copy",
            Kernel::ResidentForward(_) => "resident_forward",
            Kernel::ResidentBackward(_) => "resident_backward",
            Kernel::FoldCurve => "fold_curve",
            Kernel::FoldAlpha => "fold_alpha",
        }
    }

    /// The files of the kernel itself; those of its walk, words, tensors and elements are the variant's.
    fn sources(self, pointwise: Pointwise) -> Vec<&'static Source> {
        let mut sources = Vec::new();
        let statistics = |from: StatisticsFrom| from.sources().iter().copied();
        let d_sum = if pointwise.d_sum { &D_SUM } else { &NO_D_SUM };
        let dx_of = |from: StatisticsFrom, dx: bool| match from {
            _ if !dx => vec![&MAP_NO_DX],
            StatisticsFrom::Gradients => vec![&DX, &MAP_DX],
            StatisticsFrom::Means | StatisticsFrom::MeansOfRow => vec![&DX_WEIGHTED, d_sum, &MAP_DX],
            StatisticsFrom::Curve(_) | StatisticsFrom::FoldedCurve(_) => vec![&CURVE_DX, &MAP_DX],
            _ => vec![&FROZEN_DX, &MAP_DX],
        };
        let write_sums: &[&Source] = match self {
            Kernel::MapBackward { .. } if pointwise.masked => &[&FOLD_NO_SUMS],
            _ if pointwise.renorm => &[&FOLD_SUMS, &FOLD_DGAMMA_RENORM],
            _ => &[&FOLD_SUMS, &FOLD_DGAMMA],
        };
        let [value, sum] = if pointwise.sum { [&VALUE_OF_SUM, &EMIT_SUM] } else { [&VALUE_OF_X, &NO_SUM] };
        let partials_of = |group: bool| {
            let partial_of = if group { &FOLD_PARTIAL_OF_GROUP } else { &FOLD_PARTIAL_OF_SLICE };
            [&TREE, &FOLD_PARTIALS, partial_of]
        };
        let records = [&STATISTICS, &SLICE_RECORD];
        let parameters = [&AFFINE_PARAMETER_OF, &AFFINE_PARAMETERS];
        match self {
            Kernel::ReduceMoments => {
                sources.extend([&MOMENTS, &ACCUMULATE, &TREE, value, sum, &REDUCE_MOMENTS]);
            }
            Kernel::ReduceGradients { statistics: from, dx } => {
                sources.extend(match from.curve() {
                    Some(_) => [&CURVE_SUMS, &CURVE_WORDS, &TREE],
                    None => [&GRADIENT_SUMS, &GRADIENT_WORDS, &TREE],
                });
                sources.extend(statistics(from));
                sources.extend(dx_of(from, dx));
                sources.push(&REDUCE_GRADIENTS);
            }
            Kernel::ReduceRowGradients => {
                sources.push(&GRADIENT_SUMS);
                sources.extend(statistics(StatisticsFrom::RecordedOfRow));
                sources.push(&REDUCE_ROW_GRADIENTS);
            }
            Kernel::FoldTotal(of) => {
                if of == Monoid::Averages {
                    sources.extend(records);
                }
                sources.push(of.source());
                sources.extend(partials_of(false));
                sources.push(&FOLD_TOTAL);
            }
            Kernel::FoldMerge(of) => sources.extend([of.source(), &FOLD_MERGE]),
            Kernel::FoldGradients => {
                sources.push(&GRADIENT_SUMS);
                sources.extend(partials_of(false));
                sources.push(&FOLD_GRADIENTS);
                sources.extend(write_sums);
                sources.push(&FOLD_GRADIENTS_ALONE);
                if pointwise.renorm {
                    sources.extend(statistics(StatisticsFrom::Saved));
                }
            }
            Kernel::FoldRecords(from) => {
                sources.extend(statistics(from));
                sources.push(&FOLD_RECORDS_ALONE);
            }
            Kernel::FoldStatistics(StatisticsFrom::Slices) => {
                sources.push(&MOMENTS);
                sources.extend(partials_of(true));
                sources.push(&FOLD_TIMES_ONE);
                sources.extend(records.into_iter().chain(parameters));
                sources.extend([&FOLD_SLICES, &FOLD_STATISTICS_ALONE]);
            }
            Kernel::FoldStatistics(_) => {
                sources.push(&MOMENTS);
                sources.extend(partials_of(false));
                sources.extend([&STATISTICS, &FOLD_RENORM, &FOLD_BATCH, &FOLD_STATISTICS_ALONE]);
            }
            Kernel::FoldMeans { times_gamma } => {
                sources.push(&GRADIENT_SUMS);
                sources.extend(partials_of(true));
                match times_gamma {
                    true => sources.extend([&AFFINE_PARAMETER_OF, &FOLD_TIMES_GAMMA]),
                    false => sources.push(&FOLD_TIMES_ONE),
                }
                sources.extend(records);
                sources.extend([&MEANS_RECORD, &FOLD_MEANS_OF_SUMS, &FOLD_MEANS_ALONE]);
            }
            Kernel::MapForward(from) => {
                sources.extend(statistics(from));
                sources.push(&MAP_FORWARD);
            }
            Kernel::MapBackward { statistics: from, dx } => {
                sources.extend(statistics(from));
                if from == StatisticsFrom::Gradients {
                    sources.push(&GRADIENT_SUMS);
                    sources.extend(partials_of(false));
                    sources.push(&FOLD_GRADIENTS);
                    sources.extend(write_sums);
                    sources.push(&FOLD_MEANS_OF_GRADIENTS);
                } else {
                    sources.push(&FOLD_NO_MEANS);
                }
                sources.extend(dx_of(from, dx));
                sources.push(&MAP_BACKWARD);
            }
            Kernel::MapCopy => sources.extend([value, &MAP_COPY]),
            Kernel::ResidentForward(from) => {
                sources.extend([&MOMENTS, &ACCUMULATE, &TREE, value, sum]);
                match from {
                    StatisticsFrom::Slices => {
                        sources.extend(records.into_iter().chain(parameters));
                        sources.push(&FOLD_SLICES);
                    }
                    _ => sources.extend([&STATISTICS, &FOLD_NO_RENORM, &FOLD_BATCH]),
                }
                sources.push(&RESIDENT_FORWARD);
            }
            Kernel::ResidentBackward(from) => {
                sources.extend([&GRADIENT_SUMS, &TREE]);
                sources.extend(statistics(from));
                match from {
                    StatisticsFrom::Recorded => {
                        sources.extend([&FOLD_MEANS_OF_SUMS, &DX_WEIGHTED, d_sum, &RESIDENT_OF_SLICES]);
                    }
                    _ => {
                        sources.extend(write_sums);
                        sources.extend([&DX, &RESIDENT_OF_CHANNELS]);
                    }
                }
                sources.extend([&MAP_DX, &RESIDENT_BACKWARD]);
            }
            Kernel::FoldCurve => {
                sources.push(&CURVE_SUMS);
                sources.extend(partials_of(false));
                sources.push(&FOLD_GRADIENTS);
                sources.extend(write_sums);
                sources.push(&CURVE_FOLD_GRADIENTS);
            }
            Kernel::FoldAlpha => {
                sources.push(&CURVE_SUMS);
                sources.extend(partials_of(false));
                sources.push(&CURVE_FOLD_ALPHA);
            }
        }
        sources
    }

    /// Values per channel that the kernel reads, or writes.
    pub const fn parameters(self) -> &'static [Slot] {
        match self {
            Kernel::FoldGradients
            | Kernel::MapBackward { statistics: StatisticsFrom::Gradients, .. }
            | Kernel::ResidentBackward(StatisticsFrom::Saved) => &[Slot::Dgamma, Slot::Dbeta],
            Kernel::FoldCurve => &[Slot::Dgamma, Slot::Dbeta],
            Kernel::FoldAlpha => &[Slot::Dalpha, Slot::Dshift],
            _ => &[Slot::Gamma, Slot::Beta, Slot::Alpha],
        }
    }

    /// The function that x̂ is of x, if the kernel computes one.
    const fn curve(self) -> Option<Curve> {
        match self {
            Kernel::MapForward(from)
            | Kernel::ReduceGradients { statistics: from, .. }
            | Kernel::MapBackward { statistics: from, .. } => from.curve(),
            _ => None,
        }
    }

    /// Whether the kernel writes words, so that it may need the statistics of two slices for one.
    const fn writes_words(self) -> bool {
        matches!(
            self,
            Kernel::MapForward(_)
                | Kernel::MapBackward { .. }
                | Kernel::MapCopy
                | Kernel::ResidentForward(_)
                | Kernel::ResidentBackward(_)
        )
    }

    /// The monoid that the kernel reduces over teams, if it does.
    const fn reduces(self) -> Option<Monoid> {
        match self {
            Kernel::ReduceGradients {
                statistics: StatisticsFrom::Curve(_) | StatisticsFrom::FoldedCurve(_),
                ..
            }
            | Kernel::FoldCurve
            | Kernel::FoldAlpha => Some(Monoid::CurveSums),
            Kernel::FoldTotal(of) => Some(of),
            Kernel::ReduceMoments
            | Kernel::FoldStatistics(_)
            | Kernel::MapForward(StatisticsFrom::Batch | StatisticsFrom::Slices)
            | Kernel::ResidentForward(_) => Some(Monoid::Moments),
            Kernel::ReduceGradients { .. }
            | Kernel::FoldGradients
            | Kernel::FoldMeans { .. }
            | Kernel::MapBackward { statistics: StatisticsFrom::Gradients, .. }
            | Kernel::ResidentBackward(_) => Some(Monoid::GradientSums),
            _ => None,
        }
    }

    /// Whether slices are channels, each with its own parameters.
    const fn of_channels(self) -> bool {
        match self {
            Kernel::FoldMeans { .. } | Kernel::ReduceRowGradients => false,
            Kernel::ReduceGradients { statistics: from, .. }
            | Kernel::FoldStatistics(from)
            | Kernel::MapForward(from)
            | Kernel::MapBackward { statistics: from, .. }
            | Kernel::ResidentForward(from)
            | Kernel::ResidentBackward(from) => from.of_channels(),
            _ => true,
        }
    }

    /// Whether statistics are those of the rows of a walk along columns.
    pub const fn of_rows(self) -> bool {
        match self {
            Kernel::ReduceGradients { statistics: from, .. } | Kernel::MapForward(from) => from.of_rows(),
            Kernel::ReduceRowGradients => true,
            _ => false,
        }
    }

    /// Whether the kernel keeps what it has read in registers.
    pub const fn is_resident(self) -> bool {
        matches!(self, Kernel::ResidentForward(_) | Kernel::ResidentBackward(_))
    }

    /// Whether the entry point has the override CHUNK_WORDS.
    pub const fn chunked(self) -> bool {
        matches!(self, Kernel::ReduceMoments | Kernel::ReduceGradients { .. })
    }
}

/// The tensors that kernels read in words, in the order of [`Variant::through`].
pub(crate) const WALKED_INPUTS: [Slot; 5] = [Slot::X, Slot::Dy, Slot::Residual, Slot::Addend, Slot::DSum];

/// A kernel with everything that makes it one pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    pub kernel: Kernel,
    pub pointwise: Pointwise,
    /// How values are stored.
    pub dtype: DType,
    /// How gamma and beta, or their gradients, are stored.
    pub parameters: DType,
    /// Whether gamma and beta are read four at a time.
    pub parameter_words: bool,
    /// Whether binary16 is converted by the built-in functions.
    pub packed_f16: bool,
    pub walk: WalkKind,
    /// Values per word, 1 or 4.
    pub width: u32,
    /// Slices, or the tensor, begin or end inside of words.
    pub edges: bool,
    /// Rows or samples of a tensor are further apart than in a dense one.
    pub strided: bool,
    /// A row has each channel once (columns): not several rows as one.
    pub single_rows: bool,
    /// Words that an invocation walks at once: 1, 2, 4, 8 or 16.
    pub strip: u32,
    pub workgroup_size: u32,
    pub team_size: u32,
    /// Invocations per subgroup where teams merge by shuffles, 0 where by workgroup memory alone.
    pub subgroup_size: u32,
    /// Words that an invocation holds in registers; 0 unless the kernel is resident.
    pub held: u32,
    pub chunk_words: u32,
    /// Outputs through whose binding the inputs are read: y written over x, dx over dy, or views of one buffer that
    /// lie between each other, of which wgpu refuses to bind both.
    pub through: [Option<Slot>; WALKED_INPUTS.len()],
    /// Inputs are bound read-write, because one of them lies in the same buffer as an output: wgpu refuses the same
    /// buffer read-only and read-write in one dispatch, even in disjoint ranges.
    pub shared: bool,
}

impl Variant {
    /// Without what makes no difference to the kernel, so that it is compiled once.
    pub fn reduced(self) -> Self {
        let merges = self.kernel.reduces().and_then(Monoid::shuffled).is_some() && self.team_size > 1;
        Self {
            strip: if self.kernel == Kernel::MapCopy { 1 } else { self.strip },
            subgroup_size: if merges { self.subgroup_size } else { 0 },
            held: if self.kernel.is_resident() { self.held } else { 0 },
            chunk_words: if self.kernel.chunked() { self.chunk_words } else { 0 },
            parameter_words: self.parameter_words && self.reads_parameter_words(),
            // Only where the mask is looked up does it make a difference.
            single_rows: self.single_rows && self.pointwise.of(self.kernel).masked,
            pointwise: self.pointwise.of(self.kernel),
            ..self
        }
    }

    /// Whether gamma and beta can be read four at a time.
    pub fn reads_parameter_words(&self) -> bool {
        let whole = self.width == 4 && !self.edges && self.parameters == DType::F32;
        whole && self.pointwise.of(self.kernel).of_place
    }

    /// Whether values of binary16 are converted.
    pub fn uses_f16(&self) -> bool {
        self.dtype == DType::F16 || self.parameters == DType::F16
    }

    /// Pipeline label and cache key, for people to read.
    pub fn key(&self) -> String {
        let mut key = self.kernel.entry().to_owned();
        match self.kernel {
            Kernel::ReduceGradients { statistics, dx } => {
                key += &format!("<{}{}>", statistics.name(), if dx { ",dx" } else { "" });
            }
            Kernel::MapForward(from)
            | Kernel::ResidentForward(from)
            | Kernel::ResidentBackward(from)
            | Kernel::FoldStatistics(from)
            | Kernel::FoldRecords(from) => {
                key += &format!("<{}>", from.name());
            }
            Kernel::FoldMeans { times_gamma: true } => key += "<times gamma>",
            Kernel::FoldTotal(of) | Kernel::FoldMerge(of) => key += &format!("<{}>", of.name()),
            Kernel::MapBackward { statistics, dx } => {
                key += &format!("<{}{}>", statistics.name(), if dx { "" } else { ",no dx" });
            }
            _ => {}
        }
        key += &self.pointwise.key();
        for (input, output) in WALKED_INPUTS.iter().zip(self.through) {
            if let Some(output) = output {
                key += &format!(" {} through {}", input.name(), output.name());
            }
        }
        key += &format!(" {} {}x{}", self.walk.name(), self.dtype.short(), self.width);
        if self.packed_f16 {
            key += " packed";
        }
        if self.parameter_words {
            key += " parameter words";
        }
        if self.parameters != DType::F32 {
            key += &format!(" parameters {}", self.parameters.short());
        }
        for (is, name) in [(self.edges, " edges"), (self.strided, " strided")] {
            if is {
                key += name;
            }
        }
        if self.single_rows {
            key += " rows";
        }
        if self.strip > 1 {
            key += &format!(" strip{}", self.strip);
        }
        key += &format!(" wg{} team{}", self.workgroup_size, self.team_size);
        for (size, name) in [(self.subgroup_size, "subgroup"), (self.held, "held")] {
            if size > 0 {
                key += &format!(" {name}{size}");
            }
        }
        if self.kernel.chunked() {
            key += &format!(" chunk{}", self.chunk_words);
        }
        if self.shared {
            key += " shared";
        }
        key
    }

    /// Tensors that the kernel reads in words, with the output through whose binding it does so, if any.
    fn inputs(&self) -> Vec<(Slot, Option<Slot>)> {
        let activated = self.pointwise.activation != ActivationKind::NONE;
        let through_frozen = |from: StatisticsFrom| !from.has_means() && from.curve().is_none();
        let [x, dy] = match self.kernel {
            Kernel::ReduceMoments | Kernel::MapCopy | Kernel::MapForward(_) | Kernel::ResidentForward(_) => {
                [true, false]
            }
            Kernel::ReduceGradients { .. } | Kernel::ReduceRowGradients | Kernel::ResidentBackward(_) => {
                [true, true]
            }
            Kernel::MapBackward { statistics: from, .. } => [activated || !through_frozen(from), true],
            _ => [false, false],
        };
        let Pointwise { residual, sum, d_sum, .. } = self.pointwise;
        let read = [x, dy, residual, sum, d_sum];
        let inputs = WALKED_INPUTS.into_iter().zip(self.through).zip(read);
        inputs.filter(|(_, read)| *read).map(|(input, _)| input).collect()
    }

    /// Tensors that the kernel writes in words.
    pub fn outputs(&self) -> Vec<Slot> {
        let mut outputs = match self.kernel {
            Kernel::MapForward(_) | Kernel::MapCopy | Kernel::ResidentForward(_) => vec![Slot::Y],
            Kernel::ResidentBackward(_)
            | Kernel::MapBackward { dx: true, .. }
            | Kernel::ReduceGradients { dx: true, .. } => vec![Slot::Dx],
            _ => vec![],
        };
        outputs.extend(self.pointwise.d_residual.then_some(Slot::DResidual));
        outputs.extend((self.pointwise.sum && self.kernel != Kernel::MapCopy).then_some(Slot::Sum));
        outputs
    }

    /// The bindings that the entry point uses, in order of their numbers.
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots = vec![Slot::Params];
        slots.extend(self.pointwise.masked.then_some(Slot::Mask));
        slots.extend(self.inputs().into_iter().filter(|(_, over)| over.is_none()).map(|(slot, _)| slot));
        slots.extend(self.outputs());
        match self.kernel {
            Kernel::ReduceMoments => slots.push(Slot::PartialsOut),
            Kernel::ReduceGradients { statistics, .. } => {
                slots.push(Slot::PartialsOut);
                slots.extend(statistics.slots());
            }
            Kernel::FoldTotal(_) | Kernel::FoldMerge(_) => {
                slots.extend([Slot::Partials, Slot::Total]);
            }
            Kernel::FoldGradients => {
                slots.extend([Slot::Partials, Slot::Dgamma, Slot::Dbeta]);
                slots.extend(self.pointwise.renorm.then_some(Slot::Saved));
            }
            Kernel::FoldRecords(from) => {
                slots.push(Slot::SavedOut);
                slots.extend(from.slots());
            }
            Kernel::FoldStatistics(from) | Kernel::MapForward(from) => slots.extend(from.slots()),
            Kernel::FoldMeans { times_gamma } => {
                slots.extend([Slot::Partials, Slot::Saved, Slot::MeansOut]);
                slots.extend(times_gamma.then_some(Slot::Gamma));
            }
            Kernel::MapBackward { statistics: from, .. } => {
                slots.extend(from.slots());
                // With a mask there is no binding left for them.
                let written = from == StatisticsFrom::Gradients && !self.pointwise.masked;
                slots.extend([Slot::Dgamma, Slot::Dbeta].into_iter().filter(|_| written));
            }
            Kernel::MapCopy => {}
            Kernel::ResidentForward(from) => {
                let statistics = from.slots().iter();
                slots.extend(statistics.filter(|&&slot| slot != Slot::Partials));
            }
            Kernel::ReduceRowGradients => {
                slots.push(Slot::PartialsOut);
                slots.extend(StatisticsFrom::Recorded.slots());
            }
            Kernel::ResidentBackward(from) => {
                slots.extend(from.slots());
                match from {
                    StatisticsFrom::Recorded => slots.push(Slot::PartialsOut),
                    _ => slots.extend([Slot::Dgamma, Slot::Dbeta]),
                }
            }
            Kernel::FoldCurve => slots.extend([Slot::Partials, Slot::Total, Slot::Dgamma, Slot::Dbeta]),
            Kernel::FoldAlpha => slots.extend([Slot::Partials, Slot::Dalpha, Slot::Dshift]),
        }
        slots.sort_unstable();
        slots
    }

    /// The files of words, storage and walk.
    fn common(&self) -> Vec<&'static Source> {
        let wide = self.width == 4;
        let mut sources = vec![&PARAMS, if wide { &WORD_F32X4 } else { &WORD_F32X1 }];
        sources.push(match (self.dtype, wide) {
            (DType::F32, _) => &STORAGE_F32,
            (_, true) => &STORAGE_HALF_X4,
            (_, false) => &STORAGE_HALF_X1,
        });
        let half = if self.parameters == DType::F32 { self.dtype } else { self.parameters };
        sources.extend(match half {
            DType::F32 => None,
            DType::F16 if self.packed_f16 => Some(&F16_PACKED),
            DType::F16 => Some(&F16),
            DType::Bf16 => Some(&BF16),
        });
        // A sum needs no statistics.
        let writes_words = self.kernel.writes_words() || self.outputs().iter().any(|slot| *slot != Slot::Sum);
        let (stat, walk, per) = match (self.walk, self.width) {
            // What is written where a run ends inside of a word needs the statistics of two slices.
            (WalkKind::Segments, _) if self.edges && writes_words => (&STAT_F32X2, &SEGMENTS, &PER_PAIR),
            (WalkKind::Segments, _) => (&STAT_F32X1, &SEGMENTS, &PER_SLICE),
            (WalkKind::Columns, 1) => (&STAT_F32X1, &COLUMNS, &PER_COMPONENT),
            (WalkKind::Columns, _) => (&STAT_F32X4, &COLUMNS, &PER_COMPONENT),
        };
        sources.extend([stat, walk, per]);
        if stat.name != STAT_F32X1.name {
            sources.push(&STAT_VECTOR);
        }
        match (self.pointwise.masked, self.walk) {
            (false, _) => sources.push(&MASK_NONE),
            (true, WalkKind::Segments) => sources.extend([&MASK_SOME, &MASK_OF_RUN]),
            (true, WalkKind::Columns) if self.single_rows => sources.extend([&MASK_SOME, &MASK_OF_ROW]),
            (true, WalkKind::Columns) => {
                sources.extend([
                    &MASK_SOME,
                    if wide { &MASK_EACH_X4 } else { &MASK_EACH_X1 },
                    &MASK_OF_ELEMENT,
                ]);
            }
        }
        sources.extend([&EDGES, &CONTROL, &STRIP]);
        sources
    }

    /// The files of what is done to each element.
    fn elements(&self) -> Vec<&'static Source> {
        let Pointwise { activation, residual, d_residual, from_y, of_place, .. } = self.pointwise;
        let forward = matches!(self.kernel, Kernel::MapForward(_) | Kernel::ResidentForward(_));
        let backward = matches!(
            self.kernel,
            Kernel::ReduceGradients { .. }
                | Kernel::ReduceRowGradients
                | Kernel::MapBackward { .. }
                | Kernel::ResidentBackward(_)
        );
        if !forward && !backward {
            return Vec::new();
        }
        let mut sources = activation.sources().to_vec();
        sources.push(if residual { &RESIDUAL } else { &NO_RESIDUAL });
        match self.kernel.curve() {
            Some(curve) => {
                let sources_of: &[&Source] = match curve {
                    Curve::Tanh => &[&TANH, &CURVE_TANH],
                    Curve::Erf => &[&NORMAL, &CURVE_ERF],
                };
                // What the activation is made of, too, is there already.
                let missing = sources_of
                    .iter()
                    .filter(|source| sources.iter().all(|present| present.name != source.name));
                sources.extend(missing.copied().collect::<Vec<_>>());
                sources.push(&FROM_CURVE);
            }
            None => {
                sources.push(if from_y { &FROM_Y } else { &FROM_X });
                sources.push(if of_place { &AFFINE_OF_PLACE } else { &AFFINE_OF_SLICE });
            }
        }
        if !self.kernel.of_rows() {
            sources.push(if of_place { &STATISTICS_OF_PLACE } else { &STATISTICS_OF_SLICE });
        }
        if backward {
            let activated = activation != ActivationKind::NONE;
            sources.push(if activated { &DZ_OF_ACTIVATION } else { &DZ_OF_DY });
            sources.push(if d_residual { &MAP_D_RESIDUAL } else { &MAP_NO_D_RESIDUAL });
        }
        sources
    }

    /// The instances of the tensors that the kernel reads or writes.
    fn tensors(&self) -> String {
        let mut wgsl = String::new();
        let atomic = self.dtype != DType::F32 && self.width == 1;
        let mut instance = |source: &Source, slot: Slot, over: Option<Slot>| {
            let over = over.map_or("", Slot::name);
            let stored =
                if atomic { format!("atomicLoad(&{over}[place(i)])") } else { format!("{over}[place(i)]") };
            wgsl += &format!("// ---- shaders/{} for {}\n", source.name, slot.name());
            wgsl += &source
                .text()
                .replace("$STORED", &stored)
                .replace("$OVER", over)
                .replace("$NAME", slot.name())
                .replace("$SLOT", &(slot as u32).to_string());
            wgsl += "\n";
        };
        for (slot, over) in self.inputs() {
            instance(&TENSOR_ADDRESS, slot, None);
            instance(if over.is_some() { &TENSOR_OVER } else { &TENSOR_INPUT }, slot, over);
        }
        if self.inputs().first().is_some_and(|(slot, _)| *slot == Slot::Dy) {
            instance(&TENSOR_ABSENT, Slot::X, None);
        }
        for slot in self.outputs() {
            instance(&TENSOR_ADDRESS, slot, None);
            instance(if atomic { &TENSOR_OUTPUT_HALF } else { &TENSOR_OUTPUT }, slot, None);
        }
        let half = self.parameters != DType::F32;
        for slot in self.slots() {
            match slot {
                Slot::Gamma | Slot::Beta if self.parameter_words => {
                    instance(&PARAMETER_F32X4, slot, None);
                }
                Slot::Gamma | Slot::Beta | Slot::Alpha | Slot::Shift => {
                    instance(if half { &PARAMETER_HALF } else { &PARAMETER_F32 }, slot, None);
                    if !self.kernel.of_channels() {
                        let word = if self.width == 4 { &PARAMETER_WORD_X4 } else { &PARAMETER_WORD_X1 };
                        instance(word, slot, None);
                    }
                }
                Slot::Dgamma | Slot::Dbeta | Slot::Dalpha | Slot::Dshift => {
                    let source = if half { &PARAMETER_GRADIENT_HALF } else { &PARAMETER_GRADIENT_F32 };
                    instance(source, slot, None);
                }
                _ => {}
            }
        }
        wgsl
    }

    /// The WGSL module: the files of words, walk, tensors, elements and kernel, each under its name.
    pub fn wgsl(&self) -> String {
        let mut wgsl = String::new();
        let mut append = |sources: Vec<&Source>| {
            for source in sources {
                wgsl += &format!("// ---- shaders/{}\n{}\n", source.name, source.text());
            }
        };
        append(self.common());
        append(self.elements());
        let mut kernel = self.kernel.sources(self.pointwise);
        if self.subgroup_size > 0 {
            let tree = kernel.iter_mut().filter(|source| source.name == TREE.name);
            tree.for_each(|source| *source = &TREE_SUBGROUPS);
            kernel.extend(self.kernel.reduces().and_then(Monoid::shuffled));
        }
        append(kernel);
        wgsl += &self.tensors();
        wgsl.replace("$INPUT", if self.shared { "read_write" } else { "read" })
            .replace("$STRIP", &self.strip.to_string())
            .replace("$HELD", &self.held.to_string())
    }

    /// The files that its module is made of, in order.
    #[cfg(all(feature = "eval", not(target_family = "wasm")))]
    pub fn files(&self) -> Vec<String> {
        let wgsl = self.wgsl();
        let headers = wgsl.lines().filter_map(|line| line.strip_prefix("// ---- shaders/"));
        headers.map(|header| header.split(' ').next().unwrap_or(header).to_owned()).collect()
    }

    /// Values of the module's overrides.
    pub fn constants(&self) -> Vec<(&'static str, f64)> {
        let mut constants = vec![
            ("WORKGROUP_SIZE", f64::from(self.workgroup_size)),
            ("TEAM_SIZE", f64::from(self.team_size)),
            ("EDGES", f64::from(u8::from(self.edges))),
            ("STRIDED", f64::from(u8::from(self.strided))),
        ];
        if self.kernel.chunked() {
            constants.push(("CHUNK_WORDS", f64::from(self.chunk_words)));
        }
        if self.subgroup_size > 0 {
            constants.push(("SUBGROUP_SIZE", f64::from(self.subgroup_size)));
        }
        constants
    }
}

#[cfg(test)]
pub(crate) mod reflect {
    //! What naga says of a module.

    use naga::{Module, TypeInner};

    /// Size in bytes and byte offsets of the members of a struct.
    pub fn struct_layout(module: &Module, name: &str) -> (usize, Vec<(String, usize)>) {
        let (_, ty) = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name)).unwrap();
        let TypeInner::Struct { members, span } = &ty.inner else { panic!("{name} is not a struct") };
        let fields = members.iter().map(|m| (m.name.clone().unwrap(), m.offset as usize)).collect();
        (*span as usize, fields)
    }
}

#[cfg(test)]
mod tests;
