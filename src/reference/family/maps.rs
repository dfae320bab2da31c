//! Which statistic and which parameter each element of a tensor has.

use crate::base::shape::Layout;

/// For each element of x, in memory order, its statistic and its parameter.
///
/// The constructors take the lengths of the axes, slowest first, of any rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maps {
    /// Number of statistics.
    pub statistics: usize,
    /// Number of parameters: the length of gamma and of beta.
    pub parameters: usize,
    /// The statistic of each element, below `statistics`.
    pub statistic_of: Vec<usize>,
    /// The parameter of each element, below `parameters`.
    pub parameter_of: Vec<usize>,
}

impl Maps {
    /// The last `axes` axes are normalized, with a parameter for each place within them: layer norm, RMS norm.
    ///
    /// # Panics
    /// If there are fewer axes.
    pub fn layer(dims: &[usize], axes: usize) -> Self {
        let (rows, columns) = matrix(dims, axes);
        Self::new(rows, columns, rows * columns, |i| (i / columns, i % columns))
    }

    /// As [`layer`](Self::layer), with a parameter for each row: weight norm, weight standardization.
    ///
    /// # Panics
    /// If there are fewer axes.
    pub fn rows(dims: &[usize], axes: usize) -> Self {
        let (rows, columns) = matrix(dims, axes);
        Self::new(rows, rows, rows * columns, |i| (i / columns, i / columns))
    }

    /// As [`layer`](Self::layer), with one parameter for all: ScaleNorm.
    ///
    /// # Panics
    /// If there are fewer axes.
    pub fn scalar(dims: &[usize], axes: usize) -> Self {
        let (rows, columns) = matrix(dims, axes);
        Self::new(rows, 1, rows * columns, |i| (i / columns, 0))
    }

    /// `[N, C, …]` or `[N, …, C]`: a statistic per sample and channel, `n·C + c`, and a parameter per channel: instance norm.
    ///
    /// # Panics
    /// If there are fewer than two axes.
    pub fn instance(dims: &[usize], layout: Layout) -> Self {
        let (samples, channels, place) = channels(dims, layout);
        Self::new(samples * channels, channels, dims.iter().product(), |i| {
            let (n, c) = place(i);
            (n * channels + c, c)
        })
    }

    /// `[N, C, …]` or `[N, …, C]`: a statistic per sample and group of C / G channels that follow each other, `n·G + g`, and
    /// a parameter per channel: group norm.
    ///
    /// # Panics
    /// If there are fewer than two axes, or `groups` does not divide the channels.
    pub fn group(dims: &[usize], layout: Layout, groups: usize) -> Self {
        let (samples, channels, place) = channels(dims, layout);
        assert!(groups > 0 && channels.is_multiple_of(groups), "{groups} groups of {channels} channels");
        let of_group = channels / groups;
        Self::new(samples * groups, channels, dims.iter().product(), |i| {
            let (n, c) = place(i);
            (n * groups + c / of_group, c)
        })
    }

    /// `[rows, C]` in segments of these lengths: a statistic for each segment and group of C / G channels that follow each other, `segment·G + g`, and a parameter for each channel: instance norm
    /// (a group for each channel) and layer norm (one group) over segments, GraphNorm.
    ///
    /// # Panics
    /// If `groups` does not divide the channels.
    pub fn in_segments(lengths: &[usize], channels: usize, groups: usize) -> Self {
        assert!(groups > 0 && channels.is_multiple_of(groups), "{groups} groups of {channels} channels");
        let of_row: Vec<usize> = lengths
            .iter()
            .enumerate()
            .flat_map(|(segment, &rows)| std::iter::repeat_n(segment, rows))
            .collect();
        let of_group = (channels / groups).max(1);
        Self::new(lengths.len() * groups, channels, of_row.len() * channels, |i| {
            let (row, c) = (i / channels, i % channels);
            (of_row[row] * groups + c / of_group, c)
        })
    }

    /// A statistic for each place on the axes that are not listed, over those that are: MeanVarianceNormalization of ONNX, which
    /// has no parameters; here one, for all.
    ///
    /// # Panics
    /// If there is no such axis.
    pub fn axes(dims: &[usize], axes: &[usize]) -> Self {
        assert!(axes.iter().all(|&axis| axis < dims.len()), "axes {axes:?} of {dims:?}");
        let kept = |axis: &usize| !axes.contains(axis);
        let statistics = (0..dims.len()).filter(kept).map(|axis| dims[axis]).product();
        Self::new(statistics, 1, dims.iter().product(), |i| {
            // Row-major over the axes that are kept, from the fastest.
            let (mut rest, mut statistic, mut stride) = (i, 0, 1);
            for axis in (0..dims.len()).rev() {
                if kept(&axis) {
                    statistic += rest % dims[axis] * stride;
                    stride *= dims[axis];
                }
                rest /= dims[axis];
            }
            (statistic, 0)
        })
    }

    /// As [`axes`](Self::axes), with a parameter for each place on the axes that are listed, row-major in the order of the list: layer norm over any axes, as WebNN
    /// and Keras have it.
    ///
    /// # Panics
    /// If there is no such axis.
    pub fn over(dims: &[usize], axes: &[usize]) -> Self {
        let maps = Self::axes(dims, axes);
        let index = |i: usize, axis: usize| i / dims[axis + 1..].iter().product::<usize>() % dims[axis];
        let place = |i: usize| axes.iter().fold(0, |place, &axis| place * dims[axis] + index(i, axis));
        let parameter_of = (0..maps.len()).map(place).collect();
        let parameters = axes.iter().map(|&axis| dims[axis]).product();
        Self { parameters, parameter_of, ..maps }
    }

    /// Rows, of which each is in so many groups of neighbouring values with a statistic of their own.
    ///
    /// # Panics
    /// If they do not divide a row.
    pub fn in_groups(self, groups: usize) -> Self {
        let len = self.len();
        let count = len / self.statistics.max(1);
        assert!(groups > 0 && count.is_multiple_of(groups), "{groups} groups of {count} values");
        let each = (count / groups).max(1);
        let statistic_of = (0..len).map(|i| i / each).collect();
        Self { statistics: self.statistics * groups, statistic_of, ..self }
    }

    /// gamma and beta for each sample: the parameter of an element is `sample·parameters + parameter`. The samples divide the
    /// tensor, in memory order, into parts of one length.
    ///
    /// # Panics
    /// If they cannot.
    pub fn modulated(self, samples: usize) -> Self {
        let len = self.len();
        assert!(samples > 0 && len.is_multiple_of(samples), "{samples} samples of {len} elements");
        let parameter_of = (0..len).map(|i| i / (len / samples) * self.parameters + self.parameter_of[i]);
        Self { parameters: samples * self.parameters, parameter_of: parameter_of.collect(), ..self }
    }

    /// Number of elements.
    #[expect(clippy::len_without_is_empty, reason = "maps are a description; `len() == 0` reads better")]
    pub fn len(&self) -> usize {
        self.statistic_of.len()
    }

    fn new(statistics: usize, parameters: usize, len: usize, of: impl Fn(usize) -> (usize, usize)) -> Self {
        let (statistic_of, parameter_of) = (0..len).map(of).unzip();
        Self { statistics, parameters, statistic_of, parameter_of }
    }

    /// Number of elements of each statistic.
    pub(super) fn counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.statistics];
        self.statistic_of.iter().for_each(|&s| counts[s] += 1);
        counts
    }

    /// Σ of a value of each element, for each statistic.
    pub(crate) fn per_statistic(&self, value: impl Fn(usize) -> f64) -> Vec<f64> {
        summed(self.statistics, &self.statistic_of, value)
    }

    /// Σ of a value of each element, for each parameter.
    pub(crate) fn per_parameter(&self, value: impl Fn(usize) -> f64) -> Vec<f64> {
        summed(self.parameters, &self.parameter_of, value)
    }

    /// Panics unless there is one of `what` for each element.
    pub(super) fn expect_elements(&self, what: &str, got: usize) {
        let len = self.len();
        assert_eq!(self.parameter_of.len(), len, "an element has a statistic or a parameter alone");
        assert_eq!(got, len, "{what} has {got} values, the maps {len} elements");
    }

    /// Panics unless there is one for each statistic.
    pub(super) fn expect_statistics(&self, got: usize) {
        assert_eq!(got, self.statistics, "{got} statistics, the maps have {}", self.statistics);
    }

    /// Panics unless there is one of `what` for each parameter.
    pub(super) fn expect_parameters(&self, what: &str, got: usize) {
        assert_eq!(got, self.parameters, "{what} has {got} values, the maps {} parameters", self.parameters);
    }
}

fn summed(bins: usize, bin_of: &[usize], value: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut sums = vec![0.0; bins];
    bin_of.iter().enumerate().for_each(|(i, &bin)| sums[bin] += value(i));
    sums
}

/// Rows and columns of a tensor whose last `axes` axes are a row.
fn matrix(dims: &[usize], axes: usize) -> (usize, usize) {
    assert!(axes <= dims.len(), "the last {axes} axes of {dims:?}");
    let (rows, columns) = dims.split_at(dims.len() - axes);
    (rows.iter().product(), columns.iter().product())
}

/// Samples, channels, and the sample and channel of an element.
fn channels(dims: &[usize], layout: Layout) -> (usize, usize, impl Fn(usize) -> (usize, usize)) {
    assert!(dims.len() >= 2, "{dims:?} has no axis of channels");
    let (channels, inner): (_, usize) = match layout {
        Layout::ChannelsFirst => (dims[1], dims[2..].iter().product()),
        Layout::ChannelsLast => (dims[dims.len() - 1], 1),
    };
    let sample: usize = dims[1..].iter().product();
    (dims[0], channels, move |i| (i / sample, i / inner % channels))
}
