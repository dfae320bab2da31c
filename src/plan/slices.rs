//! How a norm cuts x into slices: which elements share a mean and a variance, and which share parameters. Pure.

use super::tuned::FOLDED_BY_MAPS;
use super::{Pattern, Plan};
use crate::base::error::{Error, Result};
use crate::base::shape::{Channels, Layout, Shape};

/// Where a fold finds the partial results of a slice, if that is not as the plan of the operation says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Records {
    /// Partial results of a slice, or of all slices that share a statistic.
    pub partials: u32,
    /// Slices of a matrix, and the records that a matrix has.
    pub slices: u32,
    pub matrix: u32,
}

/// The two index maps of a norm, element → statistic and element → parameter, as far as kernels need to know them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slices {
    /// The slices that are walked.
    pub(crate) pattern: Pattern,
    /// Neighbouring slices that share a statistic: the channels of a group.
    pub(crate) merged: u64,
    pub(crate) parameters: Parameters,
    /// Segments, if rows are those of segments: then every column of each is a slice.
    pub(crate) segments: Option<u64>,
}

/// Which parameters belong to a slice: number `slice / slices % rows · step`, and where they vary within it those that follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    pub(crate) affine: AffineOf,
    pub(crate) slices: u64,
    pub(crate) rows: u64,
    pub(crate) step: u64,
}

/// Along what gamma and beta vary: the modules `shaders/affine/of_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum AffineOf {
    /// Over slices: within each of them they are one value.
    #[default]
    Slice,
    /// Within slices that are runs: a value for each place of a run, and each run.
    Place,
    /// Within slices that are columns: a value for each row.
    Row,
}

impl Parameters {
    /// One for each value of a slice, the same for all slices.
    const fn within(affine: AffineOf) -> Self {
        Self { affine, slices: 1, rows: 1, step: 0 }
    }

    /// One for every slice, of which there are so many until they repeat.
    pub(crate) const fn of_slice(rows: u64) -> Self {
        Self { affine: AffineOf::Slice, slices: 1, rows, step: 1 }
    }

    /// None, or one for all.
    pub(crate) const ONE: Self = Self { affine: AffineOf::Slice, slices: 1, rows: 1, step: 0 };
}

impl Slices {
    /// The channels of a batch, with a parameter for each.
    pub(crate) const fn channels(view: Channels) -> Self {
        let Channels { samples, channels: slices, inner, layout } = view;
        let pattern = match layout {
            Layout::ChannelsFirst if inner > 1 => Pattern::Segments { slices, samples, inner },
            Layout::ChannelsFirst | Layout::ChannelsLast => Pattern::Columns { slices, samples, inner },
        };
        Self { pattern, merged: 1, parameters: Parameters::of_slice(slices), segments: None }
    }

    /// Rows of `places` values each, with a parameter for each place; `modulated`: for each place of a sample.
    pub(crate) fn rows(rows: u64, places: u64, modulated: Option<u64>) -> Self {
        let parameters = match modulated {
            None => Parameters::within(AffineOf::Place),
            Some(samples) => Parameters {
                affine: AffineOf::Place,
                slices: (rows / samples.max(1)).max(1),
                rows: samples,
                step: places,
            },
        };
        Self { pattern: runs(rows, places), merged: 1, parameters, segments: None }
    }

    /// Rows of `places` values each, in so many groups of neighbouring places that have statistics of their own; a parameter for each place of the row.
    pub(crate) fn groups_of_rows(rows: u64, places: u64, groups: u64) -> Self {
        let each = places / groups;
        let parameters = Parameters { affine: AffineOf::Place, slices: 1, rows: groups, step: each };
        Self { pattern: runs(rows * groups, each), merged: 1, parameters, segments: None }
    }

    /// Slices beside each other that have parameters of their own, one row of them after the other: the groups of rows; else 1.
    pub(crate) fn groups(&self) -> u64 {
        let Parameters { affine, slices, rows, step } = self.parameters;
        let is_in_rows = affine == AffineOf::Place && step > 0 && slices == 1;
        if is_in_rows && rows < self.slices() { rows } else { 1 }
    }

    /// Which parameters the columns of rows have: each its own, of all rows or of those of a sample.
    pub(crate) fn column_parameters(&self) -> Parameters {
        match self.pattern {
            _ if self.groups() > 1 => Parameters::within(AffineOf::Place),
            // The runs of all slices that have the same place in them are the rows of a sample.
            Pattern::Segments { slices, samples: runs @ 2.., inner } => {
                Parameters { affine: AffineOf::Place, slices, rows: runs, step: inner }
            }
            _ => self.parameters,
        }
    }

    /// Values of a run.
    pub(crate) const fn run(&self) -> u64 {
        match self.pattern {
            Pattern::Segments { inner, .. } => inner,
            _ => self.count(),
        }
    }

    /// The same with gamma and beta for each value of a slice.
    pub(crate) fn with_parameters_within(self) -> Self {
        let affine = match self.pattern {
            Pattern::Run { .. } | Pattern::Segments { .. } => AffineOf::Place,
            Pattern::Columns { .. } | Pattern::Matrices { .. } => AffineOf::Row,
        };
        Self { parameters: Parameters::within(affine), ..self }
    }

    /// The channels of each sample, of which so many share a statistic; a parameter for each channel, or each of each sample.
    pub(crate) fn channels_of_samples(view: Channels, merged: u64, modulated: bool) -> Self {
        let Channels { samples, channels, inner, layout } = view;
        let pattern = match layout {
            Layout::ChannelsFirst if inner > 1 => runs(samples * channels, inner),
            _ => Pattern::Matrices { slices: channels, samples, inner },
        };
        let rows = if modulated { samples * channels } else { channels };
        Self { pattern, merged, parameters: Parameters::of_slice(rows), segments: None }
    }

    /// The columns of so many segments of rows, of which so many share a statistic; a parameter for each column.
    pub(crate) fn columns_of_segments(rows: u64, columns: u64, segments: u64, merged: u64) -> Self {
        let pattern = Pattern::Columns { slices: columns, samples: 1, inner: rows };
        Self { pattern, merged, parameters: Parameters::of_slice(columns), segments: Some(segments) }
    }

    /// Statistics over these axes of a shape, of which there may be none, in any order; the parameters are to be set. `None` where the axes alternate with the others
    /// so often that no walk has them.
    ///
    /// # Errors
    /// [`Error::Axes`] for axes that there are not, and for one that is named twice.
    pub(crate) fn over_axes(shape: Shape, axes: &[usize]) -> Result<Option<Self>> {
        let refused = |why| Err(Error::Axes { axes: axes.to_vec(), shape, why });
        if axes.iter().any(|&axis| axis >= shape.rank()) {
            return refused("there is no such axis");
        }
        if axes.iter().enumerate().any(|(i, axis)| axes[..i].contains(axis)) {
            return refused("one is named twice");
        }
        // Neighbouring axes of one kind are one; an axis of one value is of either kind.
        let mut runs_of: Vec<(bool, u64)> = Vec::new();
        for (axis, &dim) in shape.dims().iter().enumerate().filter(|(_, dim)| **dim != 1) {
            let reduced = axes.contains(&axis);
            match runs_of.last_mut() {
                Some((same, len)) if *same == reduced => *len *= dim as u64,
                _ => runs_of.push((reduced, dim as u64)),
            }
        }
        let pattern = match runs_of[..] {
            [] => runs(1, 1),
            [(true, all)] => runs(1, all),
            [(false, slices)] => runs(slices, 1),
            [(false, slices), (true, inner)] => runs(slices, inner),
            [(true, inner), (false, slices)] => Pattern::Columns { slices, samples: 1, inner },
            [(true, samples), (false, slices), (true, inner)] => Pattern::Segments { slices, samples, inner },
            [(false, samples), (true, inner), (false, slices)] => {
                Pattern::Matrices { slices, samples, inner }
            }
            _ => return Ok(None),
        };
        Ok(Some(Self { pattern, merged: 1, parameters: Parameters::ONE, segments: None }))
    }

    /// The same of so many slices, which are whole rows, samples or columns, and of the parameters that these have.
    pub(crate) fn some(self, slices: u64) -> Self {
        let pattern = match self.pattern {
            Pattern::Segments { samples: 1, inner, .. } => runs(slices, inner),
            Pattern::Matrices { slices: each, samples: 2.., inner } => {
                Pattern::Matrices { slices: each, samples: slices / each, inner }
            }
            Pattern::Segments { samples, inner, .. } => Pattern::Segments { slices, samples, inner },
            Pattern::Columns { samples, inner, .. } => Pattern::Columns { slices, samples, inner },
            Pattern::Matrices { samples, inner, .. } => Pattern::Matrices { slices, samples, inner },
            Pattern::Run { .. } => self.pattern,
        };
        let Parameters { affine, slices: repeat, rows, step } = self.parameters;
        let parameters = match affine {
            // Of one sample there is one row of them.
            AffineOf::Place if self.groups() > 1 && slices > rows => self.parameters,
            AffineOf::Place if slices <= repeat || rows == 1 => Parameters::within(affine),
            AffineOf::Place => Parameters { rows: slices / repeat, ..self.parameters },
            AffineOf::Slice if step > 0 && rows == self.slices() => Parameters::of_slice(slices),
            AffineOf::Slice | AffineOf::Row => self.parameters,
        };
        Self { pattern, parameters, ..self }
    }

    /// Slices that are walked.
    pub(crate) const fn slices(&self) -> u64 {
        match self.pattern {
            Pattern::Run { .. } => 1,
            Pattern::Segments { slices, .. } => slices,
            Pattern::Columns { slices, .. } => match self.segments {
                Some(segments) => slices * segments,
                None => slices,
            },
            Pattern::Matrices { slices, samples, .. } => slices * samples,
        }
    }

    /// Means and variances.
    pub(crate) const fn statistics(&self) -> u64 {
        self.slices() / self.merged
    }

    /// Where the partial results of all slices that share a statistic are.
    pub(crate) fn records(&self, plan: &Plan) -> Records {
        let merged = self.merged as u32;
        let repeat = plan.records / plan.slices;
        match self.pattern {
            Pattern::Matrices { slices, .. } => Records {
                partials: plan.matrix_splits * repeat * merged,
                slices: slices as u32,
                matrix: plan.matrix_splits * plan.records,
            },
            _ => Records { partials: plan.partials() * merged, slices: plan.slices, matrix: 0 },
        }
    }

    /// Whether the statistics of a slice are the prologue of the map: not where slices share them; of columns of matrices, which are many, not where each has many
    /// partial results.
    pub(crate) fn folds_in_map(&self, plan: &Plan) -> bool {
        let many = self.is_of_matrices() && u64::from(self.records(plan).partials) > FOLDED_BY_MAPS;
        self.merged == 1 && !many
    }

    /// Whether slices are the columns of several matrices.
    pub(crate) const fn is_of_matrices(&self) -> bool {
        matches!(self.pattern, Pattern::Matrices { .. })
    }

    /// Values that each of them is taken over; 0 where these differ.
    pub(crate) const fn count(&self) -> u64 {
        match self.statistics() {
            _ if self.segments.is_some() => 0,
            0 => 0,
            statistics => self.pattern.elements() / statistics,
        }
    }
}

/// Slices that are one run each.
fn runs(slices: u64, inner: u64) -> Pattern {
    match slices {
        1 => Pattern::Run { elements: inner },
        _ => Pattern::Segments { slices, samples: 1, inner },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(dims: &[usize], axes: &[usize]) -> Option<Pattern> {
        Slices::over_axes(Shape::new(dims).unwrap(), axes).unwrap().map(|slices| slices.pattern)
    }

    #[test]
    fn axes_are_walked_as_they_lie() {
        assert_eq!(over(&[4, 5, 6], &[2]), Some(Pattern::Segments { slices: 20, samples: 1, inner: 6 }));
        assert_eq!(over(&[4, 5, 6], &[1, 2]), Some(Pattern::Segments { slices: 4, samples: 1, inner: 30 }));
        assert_eq!(over(&[4, 5, 6], &[0, 1, 2]), Some(Pattern::Run { elements: 120 }));
        assert_eq!(over(&[1, 5, 6], &[1, 2]), Some(Pattern::Run { elements: 30 }));
        assert_eq!(over(&[4, 5, 6], &[0]), Some(Pattern::Columns { slices: 30, samples: 1, inner: 4 }));
        assert_eq!(over(&[4, 5, 6], &[0, 2]), Some(Pattern::Segments { slices: 5, samples: 4, inner: 6 }));
        assert_eq!(over(&[4, 5, 6], &[1]), Some(Pattern::Matrices { slices: 6, samples: 4, inner: 5 }));
        // Axes of one value do not part others.
        assert_eq!(over(&[4, 1, 6], &[0, 2]), Some(Pattern::Run { elements: 24 }));
        assert_eq!(
            over(&[2, 3, 4, 5], &[0, 2, 3]),
            Some(Pattern::Segments { slices: 3, samples: 2, inner: 20 })
        );
        // Of no axes every value is a slice; their order makes no difference.
        assert_eq!(over(&[4, 5, 6], &[]), Some(Pattern::Segments { slices: 120, samples: 1, inner: 1 }));
        assert_eq!(over(&[4, 5, 6], &[2, 0]), over(&[4, 5, 6], &[0, 2]));
        // Two of one kind with one of the other between them are walked, three are not.
        assert_eq!(over(&[2, 3, 4, 5], &[0, 2]), None);
        assert_eq!(over(&[2, 3, 4, 5], &[1, 3]), None);
        for axes in [&[3][..], &[1, 1]] {
            let refused = Slices::over_axes(Shape::new(&[4, 5, 6]).unwrap(), axes);
            assert!(matches!(refused, Err(Error::Axes { .. })), "{axes:?}");
        }
    }

    #[test]
    fn parameters_vary_within_slices_as_these_lie() {
        let within = |axes: &[usize]| {
            let slices = Slices::over_axes(Shape::new(&[4, 5, 6]).unwrap(), axes).unwrap().unwrap();
            slices.with_parameters_within()
        };
        assert_eq!(within(&[2]), Slices::rows(20, 6, None));
        assert_eq!(
            (within(&[1]).parameters.affine, within(&[0]).parameters.affine),
            (AffineOf::Row, AffineOf::Row)
        );
        // Four runs of each of five slices: the columns of four matrices of five rows.
        let runs = within(&[0, 2]);
        assert_eq!((runs.parameters.affine, runs.groups(), runs.run()), (AffineOf::Place, 1, 6));
        let columns = runs.column_parameters();
        assert_eq!((columns.slices, columns.rows, columns.step), (5, 4, 6));
    }

    #[test]
    fn rows_in_groups_have_parameters_of_the_row() {
        let slices = Slices::groups_of_rows(6, 20, 4);
        assert_eq!((slices.slices(), slices.count(), slices.groups()), (24, 5, 4));
        assert_eq!(slices.some(8), Slices::groups_of_rows(2, 20, 4));
        // One row is one slice of each of several samples.
        let one = Slices::groups_of_rows(1, 20, 4);
        assert_eq!((one, one.groups()), (Slices::rows(4, 5, Some(4)), 1));
        assert_eq!(slices.some(4), one);
        assert_eq!(Slices::rows(24, 5, Some(6)).groups(), 1);
    }

    #[test]
    fn groups_share_statistics() {
        let view = Channels { samples: 2, channels: 8, inner: 15, layout: Layout::ChannelsFirst };
        let slices = Slices::channels_of_samples(view, 4, false);
        assert_eq!((slices.slices(), slices.statistics(), slices.count()), (16, 4, 60));
        let slices = Slices::channels_of_samples(Channels { layout: Layout::ChannelsLast, ..view }, 4, true);
        assert_eq!((slices.slices(), slices.statistics(), slices.count()), (16, 4, 60));
        assert_eq!(slices.parameters.rows, 16);
    }
}
