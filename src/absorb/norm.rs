//! What batch norm does in inference, on the host: its values, and the scale and shift that they amount to.

use super::deviation::{Deviation, largest_difference};
use crate::base::dtype::DType;
use crate::base::epsilon::check_eps;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::context::Context;
use crate::engine::tensor::Tensor;
use crate::norm::FrozenBatchNorm;

/// The values of a batch norm in inference, on the host, of `f32`, `f64` or 16-bit floats: all of one length, the number of
/// channels.
#[derive(Clone, Copy, Debug)]
pub struct InferenceNorm<'a, T = f32> {
    /// Running mean `[C]`.
    pub mean: &'a [T],
    /// Running variance `[C]`.
    pub var: &'a [T],
    /// gamma `[C]`; 1 if there is none.
    pub gamma: Option<&'a [T]>,
    /// beta `[C]`; 0 if there is none.
    pub beta: Option<&'a [T]>,
    /// What is added to the variance.
    pub eps: f64,
}

/// `y = x·scale + shift` per channel: all that a batch norm does in inference, for an epilogue of the caller's own.
///
/// Computed in f64 and rounded once. Where |mean| ≫ standard deviation, `x·scale` and `shift` are both large and cancel: y then has the
/// error of their roundings, which `(x − mean)·scale + beta`, as [`FrozenBatchNorm`] computes it, does not have.
///
/// ```
/// use wgnorm::absorb::InferenceNorm;
/// let norm: InferenceNorm =
///     InferenceNorm { mean: &[3.0], var: &[4.0], gamma: None, beta: Some(&[1.0]), eps: 1e-12 };
/// let epilogue = norm.scale_shift()?;
/// assert_eq!((epilogue.scale[0], epilogue.shift[0]), (0.5, -0.5));
/// assert!(epilogue.deviation.weight < 1e-7);
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ScaleShift {
    /// `gamma / sqrt(var + eps)`, `[C]`.
    pub scale: Vec<f32>,
    /// `beta − mean·scale`, `[C]`.
    pub shift: Vec<f32>,
    /// What rounding has changed.
    pub deviation: Deviation,
}

impl ScaleShift {
    /// Scale and shift as tensors of f32, `[C]` each.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn upload(&self, context: &Context) -> Result<(Tensor, Tensor)> {
        let scale = context.upload(&[self.scale.len()], &self.scale).await?;
        Ok((scale, context.upload(&[self.shift.len()], &self.shift).await?))
    }
}

impl<T: Copy + Into<f64>> InferenceNorm<'_, T> {
    /// Scale and shift per channel, computed in f64 and rounded to f32.
    ///
    /// # Errors
    /// [`Error::Channels`] for no channels; [`Error::Length`] if slices differ in length; [`Error::Value`] for a value that is not
    /// finite or a negative variance; [`Error::Epsilon`]; [`Error::Unrepresentable`] if a result is beyond f32.
    pub fn scale_shift(&self) -> Result<ScaleShift> {
        self.exact()?.scale_shift()
    }

    pub(super) fn exact(&self) -> Result<Exact> {
        check_eps(self.eps)?;
        let channels = self.mean.len();
        if channels == 0 {
            return Err(Error::Channels { what: "a norm", expected: 1, got: 0 });
        }
        let read = |what: &'static str, values: &[T]| {
            if values.len() != channels {
                let (expected, got) = (channels as u64, values.len() as u64);
                return Err(Error::Length { what, shape: Shape::per_channel(expected), expected, got });
            }
            let values: Vec<f64> = values.iter().map(|&value| value.into()).collect();
            check_values(what, &values, "finite", f64::is_finite)?;
            Ok(values)
        };
        let (mean, var) = (read("running_mean", self.mean)?, read("running_var", self.var)?);
        check_variances("running_var", &var, self.eps)?;
        let gamma = self.gamma.map(|gamma| read("gamma", gamma)).transpose()?;
        let beta = self.beta.map(|beta| read("beta", beta)).transpose()?;
        let gamma = gamma.unwrap_or_else(|| vec![1.0; channels]);
        let scale = gamma.iter().zip(&var).map(|(gamma, var)| gamma / (var + self.eps).sqrt()).collect();
        let beta = beta.unwrap_or_else(|| vec![0.0; channels]);
        Ok(Exact { scale, gamma, mean, var, beta, eps: self.eps })
    }
}

/// Requires variances whose root can be divided by.
pub(crate) fn check_variances(what: &'static str, values: &[f64], eps: f64) -> Result<()> {
    check_values(what, values, "at least 0", |var| var >= 0.0)?;
    check_values(what, values, "more than 0, because eps is 0", |var| var + eps > 0.0)
}

pub(super) fn check_values(
    what: &'static str,
    values: &[f64],
    expected: &'static str,
    holds: impl Fn(f64) -> bool,
) -> Result<()> {
    match values.iter().position(|&value| !holds(value)) {
        None => Ok(()),
        Some(index) => Err(Error::Value { what, index: index as u64, expected, got: values[index] }),
    }
}

/// Requires values that a type can hold: each at most its largest, less a part of it for the error of what computes them.
pub(super) fn check_representable(
    what: &'static str,
    values: impl IntoIterator<Item = f64>,
    dtype: DType,
    slack: f64,
) -> Result<()> {
    let largest = dtype.max() * (1.0 - slack);
    // Not a number is none that fits.
    match values.into_iter().enumerate().find(|(_, value)| value.is_nan() || value.abs() > largest) {
        None => Ok(()),
        Some((index, got)) => Err(Error::Unrepresentable { what, index: index as u64, got, dtype }),
    }
}

/// The values of a norm that are known to be sound, in f64.
#[derive(Clone, Debug)]
pub(super) struct Exact {
    pub scale: Vec<f64>,
    pub gamma: Vec<f64>,
    pub mean: Vec<f64>,
    pub var: Vec<f64>,
    pub beta: Vec<f64>,
    pub eps: f64,
}

impl Exact {
    /// `beta − mean·scale`.
    pub fn shift(&self) -> Vec<f64> {
        self.normalized(None)
    }

    /// `(x − mean)·scale + beta` of a value per channel, zeros if there are none. Where x and mean are large and nearly equal, this
    /// keeps the digits that `x·scale + shift` loses.
    pub fn normalized(&self, x: Option<&[f32]>) -> Vec<f64> {
        let one = |c: usize| {
            let x = x.map_or(0.0, |x| f64::from(x[c]));
            (x - self.mean[c]) * self.scale[c] + self.beta[c]
        };
        (0..self.scale.len()).map(one).collect()
    }

    fn scale_shift(&self) -> Result<ScaleShift> {
        let shifts = self.shift();
        check_representable("scale", self.scale.iter().copied(), DType::F32, 0.0)?;
        check_representable("shift", shifts.iter().copied(), DType::F32, 0.0)?;
        let rounded = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<_>>();
        let (scale, shift) = (rounded(&self.scale), rounded(&shifts));
        let deviation = Deviation::per_channel(
            largest_difference(&self.scale, &scale),
            largest_difference(&shifts, &shift),
        );
        Ok(ScaleShift { scale, shift, deviation })
    }
}

impl FrozenBatchNorm {
    /// Scale and shift per channel, `y = x·scale + shift` before residual and activation, after everything that was submitted
    /// before. For tensors: [`ScaleShift::upload`].
    ///
    /// # Errors
    /// As [`InferenceNorm::scale_shift`]; [`Error::BufferUsage`] if gamma or beta cannot be downloaded;
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn scale_shift(&self) -> Result<ScaleShift> {
        self.exact_values().await?.scale_shift()
    }

    pub(super) async fn exact_values(&self) -> Result<Exact> {
        let values = self.download_values().await?;
        let norm: InferenceNorm = InferenceNorm {
            mean: &values.running.mean,
            var: &values.running.var,
            gamma: values.gamma.as_deref(),
            beta: values.beta.as_deref(),
            eps: self.options().eps,
        };
        norm.exact()
    }
}
