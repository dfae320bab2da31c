//! What a layer is given: x, and what goes into the same pass over memory.

use burn::tensor::{Bool, Tensor};
use wgnorm::Context;

use crate::device::shared;
use crate::error::Error;

/// x, perhaps with a residual and a mask. Every layer takes it, or x alone.
///
/// ```no_run
/// # use burn::tensor::Tensor;
/// # use wgnorm_burn::{BatchNorm, Input};
/// # fn block(norm: &BatchNorm, x: Tensor<4>, shortcut: Tensor<4>) -> Tensor<4> {
/// // The layer's activation of norm(x) + shortcut.
/// norm.forward(Input::new(x).residual(shortcut))
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Input<const D: usize> {
    pub(crate) x: Tensor<D>,
    pub(crate) residual: Option<Tensor<D>>,
    pub(crate) mask: Option<Mask>,
}

/// Which positions of a batch count in training; those that do not have no part in statistics and gradients, whatever is in them: [`wgnorm::Mask`].
#[derive(Clone, Debug)]
pub struct Mask(pub(crate) wgnorm::Mask);

impl<const D: usize> Input<D> {
    /// x alone.
    pub fn new(x: Tensor<D>) -> Self {
        Self { x, residual: None, mask: None }
    }

    /// With a tensor of x's shape, which is added to what is normalized, before the activation.
    #[must_use]
    pub fn residual(self, residual: Tensor<D>) -> Self {
        Self { residual: Some(residual), ..self }
    }

    /// With a mask.
    #[must_use]
    pub fn mask(self, mask: Mask) -> Self {
        Self { mask: Some(mask), ..self }
    }
}

impl<const D: usize> From<Tensor<D>> for Input<D> {
    fn from(x: Tensor<D>) -> Self {
        Self::new(x)
    }
}

impl Mask {
    /// A truth value for each sample and position of x `[N, C, …]`, `[N, …]` row-major; true counts.
    ///
    /// # Errors
    /// [`Error::NotShared`], [`Error::Wgnorm`] for another number of values.
    pub fn of_positions<const D: usize>(x: &Tensor<D>, keep: &[bool]) -> Result<Self, Error> {
        let dims = x.dims();
        let positions = dims.get(2..).unwrap_or_default().iter().product();
        Self::of(&shared(&x.device())?, [dims[0], positions], keep)
    }

    /// The first positions of each sample of x `[N, C, L]` count, as many as its length.
    ///
    /// # Errors
    /// As [`of_positions`](Self::of_positions); [`Error::Wgnorm`] for a length beyond L.
    pub fn of_lengths(x: &Tensor<3>, lengths: &[usize]) -> Result<Self, Error> {
        let [samples, _, positions] = x.dims();
        if lengths.len() != samples {
            let what = "lengths";
            return Err(wgnorm::Error::Number { what, expected: samples, got: lengths.len() }.into());
        }
        if let Some(&length) = lengths.iter().find(|&&length| length > positions) {
            let what = "the first positions";
            let (end, len) = (length as u64, positions as u64);
            return Err(wgnorm::Error::Range { what, start: 0, end, len }.into());
        }
        let keep: Vec<bool> =
            lengths.iter().flat_map(|&length| (0..positions).map(move |i| i < length)).collect();
        Self::of(&shared(&x.device())?, [samples, positions], &keep)
    }

    /// A truth value for each row of x `[…, d]`, row-major, for norms of the last axis.
    ///
    /// # Errors
    /// As [`of_positions`](Self::of_positions).
    pub fn of_rows<const D: usize>(x: &Tensor<D>, keep: &[bool]) -> Result<Self, Error> {
        let rows = x.dims()[..D - 1].iter().product();
        Self::of(&shared(&x.device())?, [rows, 1], keep)
    }

    /// Of a tensor, which is read back: a truth value for each of as many samples or rows as its first axis has, and positions as the others have.
    ///
    /// # Errors
    /// [`Error::NotShared`].
    pub fn of_tensor<const D: usize>(keep: Tensor<D, Bool>) -> Result<Self, Error> {
        let context = shared(&keep.device())?;
        let dims = keep.dims();
        let keep: Vec<bool> = keep.into_data().iter::<bool>().collect();
        Self::of(&context, [dims[0], dims[1..].iter().product()], &keep)
    }

    fn of(context: &Context, extent: [usize; 2], keep: &[bool]) -> Result<Self, Error> {
        Ok(Self(context.block_on(wgnorm::Mask::of_extent(context, extent, keep))?))
    }
}
