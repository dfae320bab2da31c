//! Moments of batches as tensors.

use burn::tensor::Tensor;

use crate::problem::ghost_records;
use crate::statistics::Statistics;

/// How many values of each channel there were, their mean and their biased variance, `[C]` each.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Values of a channel.
    pub count: Tensor<1>,
    /// Their mean.
    pub mean: Tensor<1>,
    /// Their biased variance.
    pub var: Tensor<1>,
}

impl Moments {
    /// Of what a pass over a batch saved: [`wgnorm::Saved::from_tensor`] has the columns. A ghost batch has a record of each channel of each part.
    pub(crate) fn of_saved(
        saved: Tensor<2>,
        channels: usize,
        statistics: &Statistics,
        samples: usize,
    ) -> Self {
        let parts = match statistics {
            Statistics::Ghost(size) => samples.div_ceil(*size),
            _ => 1,
        };
        let records =
            if parts == 1 && saved.dims()[0] == channels { channels } else { ghost_records(channels) };
        let width = saved.dims()[1];
        let saved = saved.reshape([parts, records, width]).narrow(1, 0, channels);
        let column = |at: usize| saved.clone().narrow(2, at, 1).squeeze_dim::<2>(2);
        let part = |of: &Tensor<2>, at: usize| of.clone().narrow(0, at, 1).squeeze_dim::<1>(0);
        let (count, mean, var) = (column(7), column(0) + column(1), column(3));
        let of = |at| Self { count: part(&count, at), mean: part(&mean, at), var: part(&var, at) };
        (1..parts).fold(of(0), |all, at| all.merge(of(at)))
    }

    /// Those of both together (Chan, Golub & LeVeque 1983). Channels of no values take no part.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let count = self.count.clone() + other.count.clone();
        let share = other.count / count.clone().clamp_min(1.0);
        let delta = other.mean - self.mean.clone();
        let rest = share.clone().neg().add_scalar(1.0);
        let between = delta.clone() * delta.clone() * share.clone() * rest.clone();
        Self {
            count,
            mean: self.mean + delta * share.clone(),
            var: self.var * rest + other.var * share + between,
        }
    }

    /// The variance over count − 1.
    pub fn unbiased_var(&self) -> Tensor<1> {
        self.var.clone() * self.count.clone() / self.count.clone().sub_scalar(1.0)
    }
}
