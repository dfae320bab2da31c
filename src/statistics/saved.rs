//! What a forward pass leaves for its backward pass: the statistics of channels or of other slices, as it used them.

use std::sync::{Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};

use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::gate::GateOrder;
use crate::engine::context::{Context, ContextId};
use crate::engine::slab::Slab;
use crate::engine::tensor::Tensor;
use crate::plan::{MEANS_BYTES, SAVED_BYTES, SLICE_BYTES, TANGENT_BYTES};

/// The statistics that a forward pass used, on the GPU. What is saved depends on the norm:
///
/// - batch norm: statistics and affine parameters per channel, 40 bytes each. The backward pass takes gamma and beta from here, so parameters may
///   change in between.
/// - the norms of the family: statistics per slice, 16 bytes each. The backward pass needs gamma and beta as forward used them.
/// - GraphNorm: the same of segments, of the mean what is subtracted; switchable norm: of instances, 40 bytes each, with the weights.
/// - spectral norm: σ and the vectors that forward used.
/// - curves and frozen layers: nothing.
///
/// It belongs to the caller, not to the layer, so a layer can be shared by several inputs and recomputed. x itself is not copied: the backward pass
/// needs it unmodified.
#[derive(Debug)]
pub struct Saved {
    slab: Slab,
    home: ContextId,
    kept: Kept,
    /// Whether forward writes y over x.
    in_place: bool,
    /// Whether statistics may cover more than x.
    pooled: bool,
    dtype: DType,
    /// Of the forward pass that was prepared last.
    forward: Mutex<Option<Note>>,
}

/// What there are statistics of, each over `count` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The channels of a batch, with their parameters.
    Channels { channels: u64, count: u64 },
    /// Slices that are not channels.
    Slices { statistics: u64, count: u64, centred: bool },
    /// Slices of segments, of which each has its own number of values; `rescaled` where only a part of the mean is subtracted.
    Segments { statistics: u64, of: u64, rescaled: bool },
    /// Instances whose statistics are mixtures: a record of each, then how far those that are mixed are from it.
    Mixtures { instances: u64, count: u64 },
    /// A record of all of a weight, and the vectors of its rows and columns.
    Directions { rows: u64, columns: u64 },
}

/// Where mixtures lie behind the records of so many instances: weights (shaders/lib/mixture.wesl), then how far three means and three variances of each are from the mixture.
pub(crate) const fn mixtures_of(instances: u64) -> std::ops::Range<u64> {
    let begin = (instances * SLICE_BYTES).next_multiple_of(256);
    begin..begin + 32 + instances * 24
}

impl Kept {
    const fn records(self) -> u64 {
        match self {
            Self::Channels { channels, .. } => channels,
            Self::Slices { statistics, .. } | Self::Segments { statistics, .. } => statistics,
            Self::Directions { rows, columns } => SLICE_BYTES / 4 + rows + columns,
            Self::Mixtures { instances, .. } => mixtures_of(instances).end / 4,
        }
    }

    const fn record_bytes(self) -> u64 {
        match self {
            Self::Channels { .. } => size_of::<SavedRecord>() as u64,
            Self::Slices { .. } | Self::Segments { .. } => size_of::<SliceRecord>() as u64,
            Self::Directions { .. } | Self::Mixtures { .. } => 4,
        }
    }

    fn of_batch(x: &Tensor) -> Result<Self> {
        let view = x.channels()?;
        Ok(Self::Channels { channels: view.channels, count: view.count() })
    }
}

/// What backward has to have in common with forward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Note {
    /// The layer's name: what layer norm has saved is of no use to RMS norm.
    pub layer: &'static str,
    pub activation: Activation,
    pub residual: bool,
    pub gate: Option<GateOrder>,
    pub masked: bool,
    pub renorm: bool,
}

/// Statistics of one channel, or of another slice, as a forward pass saved them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SavedStatistics {
    /// The f32 nearest to the mean, or a part of it; 0 in norms that do not subtract it. Of GraphNorm that of what is subtracted, alpha·mean.
    pub shift: f32,
    /// Mean minus `shift`.
    pub delta: f32,
    /// Biased variance; in norms that do not subtract the mean, the mean square; NaN in GraphNorm, which keeps another number.
    pub var: f32,
    /// What x − mean is multiplied with: `1 / sqrt(var + eps)`, or as the norm has it.
    pub inv_std: f32,
    /// Values that the statistics cover, in f32: those of x, or of more; 0 where slices are those of segments.
    pub count: f32,
    /// r of batch renorm ([`Renorm`](crate::statistics::Renorm)); else 1.
    pub r: f32,
    /// d of batch renorm; else 0.
    pub d: f32,
    /// Whether the backward pass can have x̂: not if y was written over x and |gamma| is below
    /// [`Saved::least_gamma`] (dx and dgamma are NaN then), nor before forward has run.
    pub recoverable: bool,
}

impl SavedStatistics {
    /// The mean; of GraphNorm what is subtracted, alpha·mean.
    pub fn mean(&self) -> f64 {
        f64::from(self.shift) + f64::from(self.delta)
    }
}

/// Rust twin of `StatisticsRecord` in shaders/lib/statistics.wesl.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct SavedRecord {
    shift: f32,
    delta: f32,
    inv_std: f32,
    variance: f32,
    gamma: f32,
    beta: f32,
    status: u32,
    count: f32,
    r: f32,
    d: f32,
}

const _: () = assert!(size_of::<SavedRecord>() as u64 == SAVED_BYTES);

impl From<SavedRecord> for SavedStatistics {
    fn from(r: SavedRecord) -> Self {
        let SavedRecord { shift, delta, inv_std, variance: var, count, r: of_renorm, d, .. } = r;
        // What was never written is NaN, of which nothing can be recovered.
        Self { shift, delta, var, inv_std, count, r: of_renorm, d, recoverable: r.status == 0 }
    }
}

/// Rust twin of `SliceRecord` in shaders/lib/slice_record.wesl.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct SliceRecord {
    shift: f32,
    delta: f32,
    inv_std: f32,
    spread: f32,
}

impl SliceRecord {
    fn statistics(self, count: u64, centred: bool) -> SavedStatistics {
        let Self { shift, delta, inv_std, spread } = self;
        let recoverable = !shift.is_nan();
        let (shift, var, inv_std) = match centred {
            true => (shift, spread, inv_std),
            // `shift` is the power of two that x is multiplied with first; NaN, and so is the mean, before forward has run.
            false => (0.0 * shift, spread * spread, shift * inv_std),
        };
        SavedStatistics { shift, delta, var, inv_std, count: count as f32, r: 1.0, d: 0.0, recoverable }
    }
}

/// Rust twin of `MeansRecord` in shaders/lib/slice_record.wesl: what dx subtracts, beside the statistics.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct MeansRecord {
    slice: SliceRecord,
    dz: f32,
    dz_xhat: f32,
}

/// Rust twin of `TangentRecord` in shaders/lib/slice_record.wesl: what derivatives of the passes subtract, beside the statistics.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct TangentRecord {
    slice: SliceRecord,
    x: f32,
    x_xhat: f32,
    of_x: f32,
    of_dz: f32,
    mean: f32,
    mean_xhat: f32,
}

const _: () = assert!(size_of::<TangentRecord>() as u64 == TANGENT_BYTES);
const _: () = assert!(size_of::<SliceRecord>() as u64 == SLICE_BYTES);
const _: () = assert!(size_of::<MeansRecord>() as u64 == MEANS_BYTES);

impl Saved {
    /// Room for the statistics of a batch `[N, C, …]` of the shape of `x`, for [`BatchNorm`](crate::BatchNorm). Until a forward pass has run, it holds
    /// NaN. For other norms: [`Norm::room_for`](crate::family::Norm::room_for).
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Channels`], and those of an allocation.
    pub async fn new(context: &Context, x: &Tensor) -> Result<Self> {
        Self::empty(context, Kept::of_batch(x)?, x.dtype()).await
    }

    /// As [`new`](Self::new), for a forward pass that writes y over x, so that there is one tensor less to keep. The backward
    /// pass is given y and recovers x̂ from it (InPlace-ABN, Rota Bulò, Porzi & Kontschieder 2018):
    /// the activation must be invertible ([`Activation::is_invertible`](crate::Activation::is_invertible)).
    ///
    /// The rounding errors of y are divided by gamma. Where |gamma| is below [`least_gamma`](Self::least_gamma), dx and dgamma of
    /// the channel are NaN; [`SavedStatistics::recoverable`] tells which channels these are as soon as forward has run. With batch
    /// renorm it is |gamma·r| that must not be. The slope of a leaky ReLU must be at least [`least_slope`](Self::least_slope).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn in_place(context: &Context, x: &Tensor) -> Result<Self> {
        Ok(Self { in_place: true, ..Self::new(context, x).await? })
    }

    /// The least |gamma| with which x̂ is recovered from values of a type: 2^-10 in f32, 2^-5 in f16, 2^-4 in bf16.
    pub const fn least_gamma(dtype: DType) -> f32 {
        match dtype {
            DType::F32 | DType::I8 => 1.0 / 1024.0,
            DType::F16 => 1.0 / 32.0,
            DType::Bf16 => 1.0 / 16.0,
        }
    }

    /// The least slope of a leaky ReLU that is inverted in values of a type: below, small values of y would underflow. 2^-20 in f32
    /// and bf16, 2^-7 in f16.
    pub const fn least_slope(dtype: DType) -> f32 {
        match dtype {
            DType::F32 | DType::Bf16 | DType::I8 => 1.0 / 1_048_576.0,
            DType::F16 => 1.0 / 128.0,
        }
    }

    /// The same, for statistics that may cover more than x: moments that are merged from several tensors, of this device or others.
    /// The backward pass then takes the gradient sums over all of them
    /// ([`BatchNorm::prepare_backward_from`](crate::BatchNorm::prepare_backward_from)); the number of values is saved with the
    /// statistics.
    #[must_use]
    pub fn pooled(self) -> Self {
        Self { pooled: true, ..self }
    }

    /// Room that holds NaN until a forward pass has run.
    pub(crate) async fn empty(context: &Context, kept: Kept, dtype: DType) -> Result<Self> {
        let saved = Self::unwritten(context, kept, dtype).await?;
        saved.slab.fill(context, f32::NAN.to_bits()).await?;
        Ok(saved)
    }

    /// Room for a forward pass that runs before anybody can look at it.
    pub(crate) async fn unwritten(context: &Context, kept: Kept, dtype: DType) -> Result<Self> {
        let bytes = context.check_size(WHAT, kept.records(), kept.record_bytes())?;
        Ok(Self::at(context, Slab::new(context, WHAT, bytes).await?, kept, dtype))
    }

    /// Room for nothing, for layers that have no statistics of their own.
    pub(crate) async fn nothing(context: &Context, dtype: DType) -> Result<Self> {
        Self::unwritten(context, Kept::Slices { statistics: 0, count: 0, centred: true }, dtype).await
    }

    /// Room of the same kind that is written before anybody can look at it.
    pub(crate) async fn twin(&self, context: &Context) -> Result<Self> {
        let twin = Self::unwritten(context, self.kept, self.dtype).await?;
        Ok(Self { in_place: self.in_place, pooled: self.pooled, ..twin })
    }

    /// Room for what forward of a batch is about to write, if it writes anything: else it holds NaN.
    pub(crate) async fn for_forward(context: &Context, x: &Tensor) -> Result<Self> {
        match x.shape().len() {
            0 => Self::new(context, x).await,
            _ => Self::unwritten(context, Kept::of_batch(x)?, x.dtype()).await,
        }
    }

    /// Room in a tensor of the caller's, a row for each record.
    pub(crate) fn in_tensor(context: &Context, tensor: &Tensor, kept: Kept, dtype: DType) -> Result<Self> {
        let shape = [kept.records(), kept.record_bytes() / 4];
        Ok(Self::at(context, Slab::of_tensor(context, WHAT, tensor, &shape)?, kept, dtype))
    }

    /// The shape of a tensor that it could be in, if it has anything.
    #[cfg(feature = "eval")]
    pub(crate) fn shape(&self) -> Option<[usize; 2]> {
        let shape = [self.kept.records() as usize, self.kept.record_bytes() as usize / 4];
        (shape[0] * shape[1] > 0).then_some(shape)
    }

    fn at(context: &Context, slab: Slab, kept: Kept, dtype: DType) -> Self {
        let home = context.id();
        Self { slab, home, kept, in_place: false, pooled: false, dtype, forward: Mutex::new(None) }
    }

    /// As [`new`](Self::new), in a tensor of the caller's, `[C, 10]` of f32, a row for each channel: the two parts of the batch mean (their sum is the mean),
    /// 1 / sqrt(var + eps), the biased variance, gamma and beta as forward used them, a status (the bits of a u32, 0 where x̂ can be recovered), the number of
    /// values, and batch renorm's r and d (1 and 0 without it). What it holds before forward has run, it holds. For frameworks that own all memory, and for
    /// reading the batch's statistics on the GPU.
    ///
    /// The tensor must begin at a multiple of the device's `min_storage_buffer_offset_alignment` (at most 256 bytes) of its buffer.
    ///
    /// # Errors
    /// As [`new`](Self::new) but those of an allocation; [`Error::Shape`], [`Error::DType`], [`Error::NotContiguous`], [`Error::ForeignDevice`],
    /// [`Error::Misaligned`].
    pub fn from_tensor(context: &Context, x: &Tensor, tensor: &Tensor) -> Result<Self> {
        Self::in_tensor(context, tensor, Kept::of_batch(x)?, x.dtype())
    }

    /// The statistics on the host, one per channel or slice, after everything that was submitted before.
    ///
    /// # Errors
    /// [`Error::ForeignDevice`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn download(&self, context: &Context) -> Result<Vec<SavedStatistics>> {
        Ok(match self.kept {
            Kept::Channels { .. } => {
                self.records::<SavedRecord>(context).await?.into_iter().map(Into::into).collect()
            }
            Kept::Slices { count, centred, .. } => {
                let records = self.records::<SliceRecord>(context).await?;
                records.into_iter().map(|record| record.statistics(count, centred)).collect()
            }
            Kept::Segments { rescaled, .. } => {
                let records = self.records::<SliceRecord>(context).await?;
                let statistics = |record: SliceRecord| {
                    let of_all = record.statistics(0, true);
                    // What lies in the place of the variance is none.
                    SavedStatistics { var: if rescaled { f32::NAN } else { of_all.var }, ..of_all }
                };
                records.into_iter().map(statistics).collect()
            }
            Kept::Mixtures { instances, count } => {
                self.check_device(context)?;
                let bytes = self.slab.read(context, WHAT, instances * SLICE_BYTES).await?;
                let records = bytemuck::pod_collect_to_vec::<u8, SliceRecord>(&bytes);
                records.into_iter().map(|record| record.statistics(count, true)).collect()
            }
            // Its record is σ's, which the layer tells.
            Kept::Directions { .. } => Vec::new(),
        })
    }

    /// The lengths of slices whose mean is not subtracted.
    pub(crate) async fn lengths(&self, context: &Context) -> Result<Vec<f32>> {
        let Kept::Slices { count, .. } = self.kept else { return Ok(Vec::new()) };
        let length = |record: SliceRecord| (f64::from(record.spread) * (count as f64).sqrt()) as f32;
        Ok(self.records(context).await?.into_iter().map(length).collect())
    }

    async fn records<R: Pod>(&self, context: &Context) -> Result<Vec<R>> {
        self.check_device(context)?;
        let bytes = self.kept.records() * self.kept.record_bytes();
        Ok(bytemuck::pod_collect_to_vec(&self.slab.read(context, WHAT, bytes).await?))
    }

    pub(crate) fn is_in_place(&self) -> bool {
        self.in_place
    }

    pub(crate) fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// Remembers what forward does.
    pub(crate) fn note(&self, forward: Note) {
        *self.forward.lock().unwrap_or_else(PoisonError::into_inner) = Some(forward);
    }

    /// Requires that backward does what forward did.
    pub(crate) fn check_same(&self, backward: Note) -> Result<()> {
        let Some(forward) = *self.forward.lock().unwrap_or_else(PoisonError::into_inner) else {
            return Ok(());
        };
        if forward.layer != backward.layer {
            return Err(of_another_layer(backward.layer, forward.layer));
        }
        if forward.activation != backward.activation {
            return Err(Error::Activation { expected: forward.activation, got: backward.activation });
        }
        if forward.residual != backward.residual {
            return Err(Error::Residual { expected: forward.residual });
        }
        if forward.gate != backward.gate {
            return Err(Error::Gate { expected: forward.gate, got: backward.gate });
        }
        if forward.renorm != backward.renorm {
            return Err(Error::Renormalized { expected: forward.renorm });
        }
        if forward.masked != backward.masked {
            return Err(Error::Masked { expected: forward.masked });
        }
        Ok(())
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn slab(&self) -> &Slab {
        &self.slab
    }

    fn check_device(&self, context: &Context) -> Result<()> {
        if self.home == context.id() { Ok(()) } else { Err(Error::ForeignDevice { what: WHAT }) }
    }

    /// Requires the context's device, and that it was made for what a layer saves of an x of this type.
    pub(crate) fn check(
        &self,
        context: &Context,
        layer: &'static str,
        expected: Kept,
        dtype: DType,
    ) -> Result<()> {
        self.check_device(context)?;
        let number = |what, expected: u64, got: u64| Error::Number {
            what,
            expected: expected as usize,
            got: got as usize,
        };
        match (expected, self.kept) {
            (expected, got) if expected == got => {}
            (Kept::Channels { channels: expected, .. }, Kept::Channels { channels: got, .. })
                if expected != got =>
            {
                return Err(Error::Channels { what: WHAT, expected, got });
            }
            (Kept::Channels { count: got, .. }, Kept::Channels { count: expected, .. }) => {
                let hint = "make them for this x with Saved::new";
                return Err(Error::Count { what: WHAT, expected: Some(expected), got, hint });
            }
            (Kept::Slices { statistics: expected, .. }, Kept::Slices { statistics: got, .. })
                if expected != got =>
            {
                return Err(number("slices in saved statistics", expected, got));
            }
            (Kept::Slices { count: expected, .. }, Kept::Slices { count: got, .. }) if expected != got => {
                return Err(number("values of a slice in saved statistics", expected, got));
            }
            (Kept::Segments { of: expected, .. }, Kept::Segments { of: got, .. }) if expected != got => {
                let why = "its statistics are of other segments; a backward pass is given those of its forward pass";
                return Err(Error::Unsupported { layer, what: "segments", why });
            }
            _ => return Err(of_another_layer(layer, WHAT)),
        }
        if self.dtype == dtype {
            Ok(())
        } else {
            Err(Error::DType { what: "x", expected: self.dtype, got: dtype })
        }
    }
}

const WHAT: &str = "saved statistics";

fn of_another_layer(layer: &'static str, what: &'static str) -> Error {
    Error::Unsupported { layer, what, why: "its statistics were saved by another layer" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::shader::{self, reflect::struct_layout};

    #[test]
    fn rust_and_wgsl_have_the_same_layout() {
        let linked = shader::example(shader::Kernel::FoldMeans { times_gamma: false }).link();
        let module = naga::front::wgsl::parse_str(&linked.text).unwrap();
        let offset = |name: &str, at| (name.to_owned(), at);
        let (size, fields) = struct_layout(&module, "SliceRecord");
        assert_eq!(size, size_of::<SliceRecord>());
        assert_eq!(
            fields,
            [offset("shift", 0), offset("delta", 4), offset("inv_std", 8), offset("spread", 12)]
        );
        let (size, fields) = struct_layout(&module, "MeansRecord");
        assert_eq!(size, size_of::<MeansRecord>());
        assert_eq!(fields[1..], [offset("dz", 16), offset("dz_xhat", 20)]);
        let derivative = Some(shader::Derivative::Second);
        let second = shader::example(shader::Kernel::FoldSecond);
        let pointwise = shader::Pointwise { derivative, ..second.pointwise };
        let linked = shader::Variant { pointwise, ..second }.link();
        let module = naga::front::wgsl::parse_str(&linked.text).unwrap();
        let (size, fields) = struct_layout(&module, "TangentRecord");
        assert_eq!(size, size_of::<TangentRecord>());
        let fields: Vec<_> = fields[1..].iter().map(|(name, at)| (name.as_str(), *at)).collect();
        let expected =
            [("x", 16), ("x_xhat", 20), ("of_x", 24), ("of_dz", 28), ("mean", 32), ("mean_xhat", 36)];
        assert_eq!(fields, expected);
    }
}
