//! What a forward pass of the family leaves for its backward pass.

use std::sync::{Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};

use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::engine::context::{Context, ContextId};
use crate::engine::slab::Slab;
use crate::engine::tensor::Tensor;

/// Mean and spread of every slice of x, as a forward pass used them, on the GPU.
///
/// It belongs to the caller, so a layer can be shared and recomputed. Neither x nor gamma and beta are copied: the backward pass needs all three
/// unmodified. 16 bytes for each row (layer, RMS norm), channel of a sample (instance norm) or group of it (group norm).
#[derive(Debug)]
pub struct SavedSlices {
    slab: Slab,
    home: ContextId,
    statistics: u64,
    count: u64,
    dtype: DType,
    /// Of the forward pass that was prepared last.
    forward: Mutex<Option<SlicePass>>,
}

/// What backward has to have in common with forward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SlicePass {
    pub residual: bool,
    pub activation: Activation,
    /// The layer's name: a saved value of layer norm is none of RMS norm.
    pub layer: &'static str,
}

/// Statistics of one slice as a forward pass saved them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SliceStatistics {
    /// The f32 nearest to the mean; 0 in norms that do not subtract it.
    pub shift: f32,
    /// Mean minus `shift`.
    pub delta: f32,
    /// Biased variance; in norms that do not subtract the mean, the mean square.
    pub var: f32,
    /// What x − mean is multiplied with.
    pub inv_std: f32,
}

impl SliceStatistics {
    /// The mean.
    pub fn mean(&self) -> f64 {
        f64::from(self.shift) + f64::from(self.delta)
    }
}

/// Rust twin of `SliceRecord` in shaders/lib/slice_record.wesl.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct SliceRecord {
    shift: f32,
    delta: f32,
    inv_std: f32,
    variance: f32,
}

/// Rust twin of `MeansRecord` in shaders/lib/slice_record.wesl.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct MeansRecord {
    slice: SliceRecord,
    dz: f32,
    dz_xhat: f32,
}

impl SavedSlices {
    /// Room for so many statistics over `count` values each, of a tensor of a type. Until a forward pass has run, it holds NaN.
    pub(crate) async fn new(context: &Context, statistics: u64, count: u64, dtype: DType) -> Result<Self> {
        let saved = Self::unwritten(context, statistics, count, dtype).await?;
        let nothing = vec![f32::NAN.to_bits(); saved.slab.bytes() as usize / 4];
        saved.slab.write(context, "saved statistics", bytemuck::cast_slice(&nothing)).await?;
        Ok(saved)
    }

    /// The same, for a forward pass that runs before anybody can look at it.
    pub(crate) async fn unwritten(
        context: &Context,
        statistics: u64,
        count: u64,
        dtype: DType,
    ) -> Result<Self> {
        let what = "saved statistics";
        let bytes = context.check_size(what, statistics, size_of::<SliceRecord>() as u64)?;
        let slab = Slab::new(context, what, bytes).await?;
        Ok(Self::at(context, slab, statistics, count, dtype))
    }

    /// Room in a tensor of the caller's, a row of four values for each statistic.
    pub(crate) fn in_tensor(
        context: &Context,
        tensor: &Tensor,
        statistics: u64,
        count: u64,
        dtype: DType,
    ) -> Result<Self> {
        let slab = Slab::of_tensor(context, "saved statistics", tensor, &[statistics, 4])?;
        Ok(Self::at(context, slab, statistics, count, dtype))
    }

    fn at(context: &Context, slab: Slab, statistics: u64, count: u64, dtype: DType) -> Self {
        Self { slab, home: context.id(), statistics, count, dtype, forward: Mutex::new(None) }
    }

    /// The statistics on the host, one per slice, after everything that was submitted before.
    ///
    /// # Errors
    /// [`Error::ForeignDevice`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn download(&self, context: &Context) -> Result<Vec<SliceStatistics>> {
        self.check_device(context)?;
        let bytes = self.statistics * size_of::<SliceRecord>() as u64;
        let records: Vec<SliceRecord> =
            bytemuck::pod_collect_to_vec(&self.slab.read(context, "saved statistics", bytes).await?);
        let statistics = records.iter().map(|r| SliceStatistics {
            shift: r.shift,
            delta: r.delta,
            var: r.variance,
            inv_std: r.inv_std,
        });
        Ok(statistics.collect())
    }

    pub(crate) fn slab(&self) -> &Slab {
        &self.slab
    }

    fn check_device(&self, context: &Context) -> Result<()> {
        if self.home == context.id() {
            Ok(())
        } else {
            Err(Error::ForeignDevice { what: "saved statistics" })
        }
    }

    /// Requires that it was made for such slices.
    pub(crate) fn check(&self, context: &Context, statistics: u64, count: u64, dtype: DType) -> Result<()> {
        self.check_device(context)?;
        let number = |what, expected: u64, got: u64| Error::Number {
            what,
            expected: expected as usize,
            got: got as usize,
        };
        if self.statistics != statistics {
            return Err(number("slices in saved statistics", statistics, self.statistics));
        }
        if self.count != count {
            return Err(number("values of a slice in saved statistics", count, self.count));
        }
        if self.dtype != dtype {
            return Err(Error::DType { what: "x", expected: self.dtype, got: dtype });
        }
        Ok(())
    }

    /// Remembers what forward does.
    pub(crate) fn note(&self, forward: SlicePass) {
        *self.forward.lock().unwrap_or_else(PoisonError::into_inner) = Some(forward);
    }

    /// Requires that backward does what forward did.
    pub(crate) fn check_same(&self, backward: SlicePass) -> Result<()> {
        let Some(forward) = *self.forward.lock().unwrap_or_else(PoisonError::into_inner) else {
            return Ok(());
        };
        if forward.layer != backward.layer {
            let why = "its statistics were saved by another layer";
            return Err(Error::Unsupported { layer: backward.layer, what: forward.layer, why });
        }
        if forward.activation != backward.activation {
            return Err(Error::Activation { expected: forward.activation, got: backward.activation });
        }
        if forward.residual != backward.residual {
            return Err(Error::Residual { expected: forward.residual });
        }
        Ok(())
    }
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
            [offset("shift", 0), offset("delta", 4), offset("inv_std", 8), offset("variance", 12)]
        );
        let (size, fields) = struct_layout(&module, "MeansRecord");
        assert_eq!(size, size_of::<MeansRecord>());
        assert_eq!(fields[1..], [offset("dz", 16), offset("dz_xhat", 20)]);
    }
}
