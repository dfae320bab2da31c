//! Batch renorm: x̂ of the batch, corrected towards what the running statistics would give.

use crate::base::error::{Error, Result};
use crate::engine::params::Common;

/// Batch renormalization: an option of training ([`BatchNormOptions::renorm`](crate::BatchNormOptions::renorm)) for batches
/// that are small or not independent.
///
/// With the mean and variance of the batch, and the running ones as they are before the batch enters them:
///
/// ```text
/// σB = sqrt(var + eps)        σ = sqrt(running_var + eps)
/// r = clip(σB / σ, 1 / r_max, r_max)        d = clip((mean − running_mean) / σ, −d_max, d_max)
/// y = act((x̂·r + d)·gamma + beta + residual)
/// ```
///
/// r and d are constants to the gradient: dx is that of batch norm with gamma·r in the place of gamma, and dgamma is
/// `r·Σ dz·x̂ + d·Σ dz`. Where no limit acts, y is what inference with the running statistics gives, so training and inference do not
/// differ. With r_max 1 and d_max 0 it is batch norm, whose bits it then has where channels are not held in registers
/// ([`Plan::held`](crate::tuning::Plan::held)).
///
/// Source: Ioffe, "Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized Models", 2017. The paper
/// averages σ; here running statistics are those of the layer, an average of variances in its own convention
/// ([`RunningVariance`](crate::RunningVariance)), so that they mean the same with and without renorm. σ uses `running_var` as it is.
///
/// The limits open with the number of batches that have entered the running statistics ([`Ramp`]), which is counted on the
/// GPU. So a prepared pass follows the schedule whenever it is recorded, and passes that do not update running statistics
/// have the limits of the next that does. As long as running statistics are initial values, mean 0 and variance 1, r and d measure nothing
/// but how far these are off: limits should be closed until the average has forgotten them, for which
/// [`paper`](Self::paper) takes 5000 batches.
///
/// ```
/// use wgnorm::statistics::Renorm;
/// use wgnorm::{BatchNorm, BatchNormOptions, Context, RunningValues};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     let options = BatchNormOptions::pytorch().renorm(Renorm::fixed(3.0, 5.0));
///     let mut layer = BatchNorm::new(&context, 1, options).await?;
///     layer.set_running(&RunningValues { mean: vec![1.0], var: vec![4.0], batches: 9000 }).await?;
///     // Mean 2 and variance 1: r = 1/2, d = (2 − 1)/2.
///     let x = context.upload(&[2, 1], &[1.0, 3.0]).await?;
///     let (y, saved) = layer.train_forward(&x).await?;
///     let y = context.download(&y).await?;
///     // As the running statistics give: (1 − 1)/2 and (3 − 1)/2.
///     assert!(y[0].abs() < 1e-4 && (y[1] - 1.0).abs() < 1e-4);
///     let saved = saved.download(&context).await?[0];
///     assert!((saved.r - 0.5).abs() < 1e-4 && (saved.d - 0.5).abs() < 1e-4);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Renorm {
    /// r_max, at least 1: closed at 1.
    pub r_max: Ramp,
    /// d_max, at least 0: closed at 0.
    pub d_max: Ramp,
}

/// A limit that opens with the number of batches that have entered the running statistics: closed up to `begin`, then rising linearly,
/// and at `limit` from `end` on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// The limit in the end.
    pub limit: f64,
    /// The number of batches up to which it is closed.
    pub begin: u32,
    /// The number of batches from which on it is open.
    pub end: u32,
}

impl Ramp {
    /// A limit that is the same from the first batch on.
    pub const fn fixed(limit: f64) -> Self {
        Self { limit, begin: 0, end: 0 }
    }

    /// The limit for a number of batches, between `closed` and its own.
    fn at(self, batches: u32, closed: f64) -> f64 {
        if batches >= self.end {
            return self.limit;
        }
        if batches <= self.begin {
            return closed;
        }
        let part = f64::from(batches - self.begin) / f64::from(self.end - self.begin);
        closed + (self.limit - closed) * part
    }

    fn check(self, what: &'static str, least: f64) -> Result<()> {
        let Self { limit, begin, end } = self;
        if !(limit >= least && (limit as f32).is_finite()) {
            return Err(Error::RenormLimit { what, least, got: limit });
        }
        if begin > end {
            return Err(Error::RenormRamp { what, begin, end });
        }
        Ok(())
    }
}

impl Renorm {
    /// Limits that are the same from the first batch on: for layers whose running statistics are good already.
    pub const fn fixed(r_max: f64, d_max: f64) -> Self {
        Self { r_max: Ramp::fixed(r_max), d_max: Ramp::fixed(d_max) }
    }

    /// The schedule of the paper: batch norm for 5000 batches, then r_max rises to 3 at batch 40000 and d_max to 5 at batch 25000.
    pub const fn paper() -> Self {
        Self {
            r_max: Ramp { limit: 3.0, begin: 5000, end: 40_000 },
            d_max: Ramp { limit: 5.0, begin: 5000, end: 25_000 },
        }
    }

    /// Sets between which numbers of batches r_max opens.
    #[must_use]
    pub const fn r_ramp(mut self, begin: u32, end: u32) -> Self {
        (self.r_max.begin, self.r_max.end) = (begin, end);
        self
    }

    /// Sets between which numbers of batches d_max opens.
    #[must_use]
    pub const fn d_ramp(mut self, begin: u32, end: u32) -> Self {
        (self.d_max.begin, self.d_max.end) = (begin, end);
        self
    }

    /// r_max and d_max for the batch that comes after this many.
    ///
    /// ```
    /// use wgnorm::statistics::Renorm;
    /// assert_eq!(Renorm::paper().limits(4999), (1.0, 0.0));
    /// assert_eq!(Renorm::paper().limits(15_000), (1.0 + 2.0 * 2.0 / 7.0, 2.5));
    /// assert_eq!(Renorm::paper().limits(50_000), (3.0, 5.0));
    /// ```
    pub fn limits(&self, batches: u32) -> (f64, f64) {
        (self.r_max.at(batches, 1.0), self.d_max.at(batches, 0.0))
    }

    pub(crate) fn check(self) -> Result<()> {
        self.r_max.check("r_max", 1.0)?;
        self.d_max.check("d_max", 0.0)
    }

    pub(crate) fn set(self, params: &mut Common) {
        params.r_max = self.r_max.limit as f32;
        params.d_max = self.d_max.limit as f32;
        (params.r_begin, params.r_end) = (self.r_max.begin, self.r_max.end);
        (params.d_begin, params.d_end) = (self.d_max.begin, self.d_max.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_open_between_their_batches() {
        let renorm = Renorm::fixed(2.0, 4.0).r_ramp(10, 20).d_ramp(7, 7);
        for (batches, limits) in
            [(0, (1.0, 0.0)), (6, (1.0, 0.0)), (7, (1.0, 4.0)), (10, (1.0, 4.0)), (15, (1.5, 4.0))]
        {
            assert_eq!(renorm.limits(batches), limits, "{batches}");
        }
        assert_eq!(renorm.limits(20), (2.0, 4.0));
        assert_eq!(Renorm::fixed(2.0, 4.0).limits(0), (2.0, 4.0));
        let late = Renorm::fixed(2.0, 4.0).r_ramp(0, u32::MAX);
        assert_eq!((late.limits(0).0, late.limits(u32::MAX).0), (1.0, 2.0));
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for limit in [0.5, -3.0, f64::NAN, f64::INFINITY, 1e39] {
            let refused = Renorm::fixed(limit, 1.0).check();
            assert!(matches!(refused, Err(Error::RenormLimit { what: "r_max", .. })), "{limit}");
        }
        for limit in [-1e-9, f64::NAN, f64::INFINITY, 1e39] {
            let refused = Renorm::fixed(1.0, limit).check();
            assert!(matches!(refused, Err(Error::RenormLimit { what: "d_max", .. })), "{limit}");
        }
        let refused = Renorm::paper().r_ramp(2, 1).check();
        assert_eq!(refused, Err(Error::RenormRamp { what: "r_max", begin: 2, end: 1 }));
        let refused = Renorm::paper().d_ramp(9, 3).check();
        assert_eq!(refused, Err(Error::RenormRamp { what: "d_max", begin: 9, end: 3 }));
        for renorm in [Renorm::paper(), Renorm::fixed(1.0, 0.0), Renorm::fixed(1e38, 1e38).r_ramp(3, 3)] {
            assert_eq!(renorm.check(), Ok(()));
        }
    }
}
