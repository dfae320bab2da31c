//! What the policy decides, and what a caller may force.

use std::fmt;
use std::ops::Range;

use super::windows::{grid, narrow};
use super::{Capabilities, Op};
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::setters::setters;

/// Bytes of `MomentsRecord` in shaders/lib/moments.wesl and of `GradientSumsRecord` in shaders/lib/gradient_sums.wesl.
pub(crate) const MOMENTS_BYTES: u64 = 24;
/// Of a sum of squares (shaders/lib/squares.wesl).
pub(crate) const SQUARES_BYTES: u64 = 8;
pub(crate) const GRADIENT_SUMS_BYTES: u64 = 8;
/// Bytes of `StatisticsRecord` in shaders/lib/statistics.wesl.
pub(crate) const SAVED_BYTES: u64 = 40;
/// Of the mean, the variance and the number of batches of a channel.
pub(crate) const RUNNING_BYTES: u64 = 12;
/// What forward saves of a slice that is no channel, and the same with what dx subtracts.
pub(crate) const SLICE_BYTES: u64 = 16;
pub(crate) const MEANS_BYTES: u64 = 24;
/// The same with what derivatives of the passes need; and a parameter with its tangents (shaders/lib/packed.wesl).
pub(crate) const TANGENT_BYTES: u64 = 40;
pub(crate) const PACKED_BYTES: u64 = 16;
/// Pairs of sums of gradients of gradients at the most (shaders/lib/second_sums.wesl).
pub(crate) const SECOND_PARTS: u64 = 6;
/// Bytes of `GradientSumsRecord` in shaders/curve/sums.wesl.
pub(crate) const CURVE_SUMS_BYTES: u64 = 16;

/// Choices of a plan that are forced instead of left to the policy, for tests and measurements. The default
/// forces nothing. Where a forced plan would exceed the device's loop limit, `rows` and `strip` are given up
/// ([`Plan::reasons`] says so), unless `team_size` is forced too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Tuning {
    /// Values per memory access: 1, or 4 where that is possible.
    pub width: Option<u32>,
    /// Invocations per workgroup.
    pub workgroup_size: Option<u32>,
    /// Invocations that walk a slice together: a divisor of the workgroup size.
    pub team_size: Option<u32>,
    /// Tiles per slice, or per strip of columns, as far as it has that many words and the loop limit allows it.
    pub splits: Option<u32>,
    /// Channels last: times the fewest rows that are whole words are taken as one row.
    pub rows: Option<u32>,
    /// Words that an invocation walks at once at most, 1 to 16: channels last words of a row, as many as leave no more than
    /// an eighth of the invocations idle; else words of a slice, at most 8 and as many as all tiles are multiples of.
    pub strip: Option<u32>,
    /// Words of a slice that an invocation loads before it uses the first, 1, 2, 4 or 8; not beside strips.
    pub depth: Option<u32>,
    /// Words, or rows, per tile, as in [`Plan::tile_words`]; `splits` has no effect beside it. Plans that share it, and all but
    /// the windows besides, give the same bits.
    pub tile: Option<u32>,
    /// Bytes of a tensor that one dispatch binds at most, below the device's own limit; at least one tile.
    pub window_bytes: Option<u64>,
    /// Bytes of any binding at most, as on a device whose own limit is lower: values per channel, statistics and partial results too. What does not fit is done
    /// part by part.
    pub binding_bytes: Option<u64>,
    /// Whether slices that fit are held in registers, so that a training pass is one dispatch which reads each input once. Slices
    /// are streamed where another choice (tiles, groups, several splits, rows as one, or strips) asks for it.
    pub resident: Option<bool>,
    /// Whether teams merge by shuffles within subgroups, where the device has subgroups of eight or more.
    pub subgroups: Option<bool>,
    /// Bytes of a tensor that the two dispatches of a training pass take at a time, so that the second finds in a cache what the
    /// first has read; at least one slice, or block of columns.
    pub group_bytes: Option<u64>,
    /// Layer and RMS norm, where slices are streamed: whether maps go along columns, with statistics of rows, instead of along rows; only by whole
    /// words.
    pub along_columns: Option<bool>,
    /// Whether partial results, where there are several, are folded by a dispatch of its own, instead of by every workgroup of the map that follows: batch norm's
    /// passes alone.
    pub folds_apart: Option<bool>,
    /// Convert binary16 by integer arithmetic even where the device's own conversion is exact.
    pub integer_f16: bool,
}

setters!(impl Tuning {
    width: u32,
    workgroup_size: u32,
    team_size: u32,
    splits: u32,
    rows: u32,
    strip: u32,
    depth: u32,
    tile: u32,
    window_bytes: u64,
    binding_bytes: u64,
    resident: bool,
    subgroups: bool,
    group_bytes: u64,
    along_columns: bool,
    folds_apart: bool,
});

impl Tuning {
    /// The same with [`integer_f16`](Self#structfield.integer_f16).
    #[must_use]
    pub fn integer_f16(self, integer_f16: bool) -> Self {
        Self { integer_f16, ..self }
    }

    /// # Errors
    /// [`Error::Tuning`] for what no plan can have.
    pub(crate) fn check(&self) -> Result<()> {
        let at_least_one =
            |choice, forced: Option<u64>| (choice, "at least 1", forced.filter(|&got| got == 0));
        let wide = |value: Option<u32>| value.map(u64::from);
        let is = |allowed: &'static [u64]| move |got: &u64| !allowed.contains(got);
        for (choice, expected, refused) in [
            ("width", "1 or 4", wide(self.width).filter(is(&[1, 4]))),
            ("strip", "1 to 16", wide(self.strip).filter(|got| !(1..=16).contains(got))),
            ("depth", "1, 2, 4 or 8", wide(self.depth).filter(is(&[1, 2, 4, 8]))),
            at_least_one("workgroup_size", wide(self.workgroup_size)),
            at_least_one("team_size", wide(self.team_size)),
            at_least_one("splits", wide(self.splits)),
            at_least_one("rows", wide(self.rows)),
            at_least_one("tile", wide(self.tile)),
            at_least_one("window_bytes", self.window_bytes),
            at_least_one("binding_bytes", self.binding_bytes),
            at_least_one("group_bytes", self.group_bytes),
        ] {
            if let Some(got) = refused {
                return Err(Error::Tuning { choice, expected: expected.to_owned(), got });
            }
        }
        Ok(())
    }
}

/// How a walk goes through memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WalkKind {
    /// Slices are contiguous runs: channels first.
    Segments,
    /// Slices are columns of a matrix: channels last, rank 2.
    Columns,
}

impl WalkKind {
    /// The name in plans and kernel keys, and of the shader file.
    pub const fn name(self) -> &'static str {
        match self {
            WalkKind::Segments => "segments",
            WalkKind::Columns => "columns",
        }
    }
}

/// How a walk is cut into workgroups.
///
/// As text, one line; its [`reasons`](Self::reasons) say why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// How the walk goes through memory.
    pub walk: WalkKind,
    /// How values are stored.
    pub dtype: DType,
    /// Values per word.
    pub width: u32,
    /// Whether slices, or the tensor, begin or end inside of words, rows or strips.
    pub edges: bool,
    /// Whether rows or samples of a tensor are further apart than in a dense one.
    pub strided: bool,
    /// Words that an invocation walks at once: of a row (columns), or of a slice (segments).
    pub strip: u32,
    /// Words of a slice, or of its column, that an invocation loads before it uses the first.
    pub depth: u32,
    /// Invocations per workgroup.
    pub workgroup_size: u32,
    /// Invocations that walk a slice, or a column of words, together.
    pub team_size: u32,
    /// Invocations per subgroup where teams merge by shuffles, unless a probe finds that the device orders invocations otherwise; 0
    /// where they merge through workgroup memory alone.
    pub subgroup_size: u32,
    /// Words that an invocation holds in registers, where reduction, fold and map are one dispatch; else 0.
    pub held: u32,
    /// Words that one accumulator sums before it is merged.
    pub chunk_words: u32,
    /// Slices (channels).
    pub slices: u32,
    /// Partial results per split: a multiple of the slices.
    pub records: u32,
    /// Tiles per slice.
    pub splits: u32,
    /// Tiles of a sample, where each is a matrix with slices of its own; else more than there are.
    pub(crate) matrix_splits: u32,
    /// Words, or rows, per tile: the leaves of the reduction. Windows are cut between tiles.
    pub tile_words: u32,
    /// Iterations that one invocation runs at most, summed over its loops.
    pub longest_loop: u64,
    /// Whether partial results are folded by a dispatch of its own, not by every workgroup of the map that follows.
    pub folds_apart: bool,
    /// Whether windows are groups of slices: all dispatches of an operation over one precede those over the next.
    pub grouped: bool,
    /// What is walked by one dispatch each: one window unless the tensors exceed a binding, lie in several buffers, or are walked
    /// in groups.
    pub windows: Vec<Window>,
    /// Why the policy decided so, one decision each.
    pub reasons: Vec<String>,
}

/// A part of a walk that one dispatch covers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Window {
    /// The range of its values, as indices into a dense tensor: all of them, or, in a group, those of its slices.
    pub elements: Range<u64>,
    /// The first of its slices, and how many it has.
    pub first_slice: u32,
    /// Slices in the window.
    pub slices: u32,
    /// The first of its words of a row (columns).
    pub first_column: u32,
    /// The first of its tiles among those of a slice.
    pub first_split: u32,
    /// Tiles per slice in the window.
    pub splits: u32,
    /// Row of a sample at which it begins (columns).
    pub first_row: u32,
    /// Workgroups that the slices, or the columns, are divided among.
    pub blocks: u32,
    /// Words per slice; rows of a matrix.
    pub slice_words: u32,
    /// Words of a span, which consists of whole tiles and a shorter one: a run, or all of a slice.
    pub span_words: u32,
    /// Tiles of a span.
    pub span_tiles: u32,
    /// Words per contiguous run, or per row.
    pub run_words: u32,
    /// Distance between neighbouring slices, in words, with edges in values.
    pub slice_stride: u32,
    /// Distance between consecutive runs of a slice, in words, with edges in values; between rows, in words.
    pub run_stride: u32,
    /// Values per run; rows of a sample (columns).
    pub inner: u32,
    /// Element of a word at which the tensors begin.
    pub phase: u32,
    /// Values of the window's first word that lie before it.
    pub before: u32,
    /// Workgroups in x and y.
    pub grid: [u32; 2],
}

impl Window {
    /// Whether every tile of segments has a whole number of steps of so many words.
    pub(super) fn has_steps(&self, tile_words: u64, step: u64) -> bool {
        let (slice, span) = (u64::from(self.slice_words), u64::from(self.span_words));
        let whole = |words: u64| {
            (words < tile_words || tile_words.is_multiple_of(step))
                && (words % tile_words).is_multiple_of(step)
        };
        whole(span.min(slice)) && whole(slice % span)
    }
}

impl Plan {
    /// Partial results per slice.
    pub fn partials(&self) -> u32 {
        self.splits * (self.records / self.slices)
    }

    /// The same with so many teams, in one window.
    pub(crate) fn with_teams(mut self, teams: u64, capabilities: &Capabilities) -> Result<Self> {
        let blocks = teams.div_ceil(u64::from(self.workgroup_size / self.team_size));
        for window in &mut self.windows {
            window.blocks = narrow(blocks)?;
            window.grid = grid(blocks, capabilities)?;
        }
        Ok(self)
    }

    /// Bytes of partial results, and of their totals, that an operation with this plan allocates when it is prepared: at most 1/100 of a tensor
    /// above 4 MiB, on a GPU 1/32, or one partial result for each record and window, if that is more. Less where nothing is reduced: forward from
    /// given moments, frozen backward without dgamma and dbeta.
    pub fn workspace_bytes(&self, op: Op) -> u64 {
        let partials = u64::from(self.records) * u64::from(self.splits);
        // A frozen backward pass has no map after its fold, which leaves gradients.
        let totals = if self.folds_apart { u64::from(self.slices) } else { 0 };
        match op {
            _ if self.held > 0 => 0,
            // A single partial result is the result.
            Op::Tangent => partials * GRADIENT_SUMS_BYTES,
            Op::SecondBackward => partials * SECOND_PARTS * GRADIENT_SUMS_BYTES,
            Op::Moments if self.partials() == 1 => 0,
            Op::Moments => partials * MOMENTS_BYTES,
            Op::TrainForward => (partials + totals) * MOMENTS_BYTES,
            Op::TrainBackward => (partials + totals) * GRADIENT_SUMS_BYTES,
            Op::FrozenBackward => partials * GRADIENT_SUMS_BYTES,
            Op::CurveBackward => partials * CURVE_SUMS_BYTES,
            Op::Inference | Op::CurveForward | Op::Copy => 0,
            // Only the program knows: `Prepared::workspace_bytes`.
            Op::Own => 0,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            dtype, width, workgroup_size, team_size, slices, splits, tile_words, longest_loop, ..
        } = self;
        write!(f, "{} {}x{width}", self.walk.name(), dtype.short())?;
        if self.edges {
            write!(f, " edges")?;
        }
        if self.strided {
            write!(f, " strided")?;
        }
        if self.strip > 1 {
            write!(f, " strip{}", self.strip)?;
        }
        if self.depth > 1 {
            write!(f, " depth{}", self.depth)?;
        }
        write!(f, " wg{workgroup_size} team{team_size}")?;
        if self.folds_apart {
            write!(f, " apart")?;
        }
        for (size, name) in [(self.subgroup_size, "subgroup"), (self.held, "held")] {
            if size > 0 {
                write!(f, " {name}{size}")?;
            }
        }
        write!(f, " slices {slices}")?;
        if self.records > self.slices {
            write!(f, " ({} rows as one)", self.records / self.slices)?;
        }
        write!(f, " x splits {splits} tile {tile_words} words")?;
        match self.windows.as_slice() {
            [window] => write!(f, " grid {}x{}", window.grid[0], window.grid[1])?,
            windows if self.grouped => write!(f, " groups {}", windows.len())?,
            windows => write!(f, " windows {}", windows.len())?,
        }
        write!(f, " loop {longest_loop}")
    }
}
