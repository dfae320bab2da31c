//! The plan of a walk over the rows of segments of any lengths, in pieces of them (shaders/walk/columns.wesl, feature `ragged`).

use super::geometry::Words;
use super::plan::Window;
use super::tuned::{most_column_strips, workgroup_size};
use super::windows::{grid, narrow};
use super::{Capabilities, Plan, Tuning, Walk, WalkKind};
use crate::base::error::Result;

/// Rows of a piece at most: the leaves of what is reduced, each walked by one invocation. Partial results, of 24 bytes for each column of it, are then an eleventh of a tensor of f32 at the least;
/// and no segment keeps an invocation longer than this.
pub(crate) const PIECE_ROWS: u64 = 64;

/// Partial results that are merged one after the other: rounding errors grow with their number.
pub(crate) const NODE_PIECES: u64 = 16;

/// Neighbouring strips of a row at the least, as far as it has that many: a vector of a CPU then walks one piece, and a GPU reads what lies together.
const STRIPS_OF_ROW: u64 = 8;

/// Plans a walk over rows of so many columns in so many pieces. Results do not depend on it: which rows are summed in which order the pieces say.
pub(crate) fn plan_ragged(
    walk: &Walk,
    columns: u64,
    pieces: u64,
    capabilities: &Capabilities,
    tuning: &Tuning,
) -> Result<Plan> {
    tuning.check()?;
    let mut reasons = Vec::new();
    let words = Words::choose(walk, tuning, &mut reasons);
    let (elements, run_words) = (walk.pattern.elements(), columns / u64::from(words.width));
    let workgroup_size = workgroup_size(words.width, capabilities, tuning, &mut reasons)?;
    let most = tuning
        .strip
        .unwrap_or_else(|| most_column_strips(run_words, elements * walk.dtype.size(), capabilities));
    let divides = |strip: &u64| run_words.is_multiple_of(*strip);
    let fits = |strip: &u64| tuning.strip.is_some() || run_words / strip >= STRIPS_OF_ROW;
    let strip = (1..=u64::from(most)).rev().filter(divides).find(fits).unwrap_or(1);
    let strips = run_words / strip;
    reasons.push(format!(
        "pieces: {pieces} of at most {PIECE_ROWS} rows, {strips} strips of {strip} words of each"
    ));
    let workgroups = (pieces * strips).div_ceil(workgroup_size.into());
    let window = Window {
        elements: 0..elements,
        first_slice: 0,
        slices: narrow(columns)?,
        first_column: 0,
        first_split: 0,
        splits: narrow(pieces)?,
        first_row: 0,
        blocks: narrow(strips)?,
        slice_words: narrow(elements / columns.max(1))?,
        span_words: 1,
        span_tiles: 1,
        run_words: narrow(run_words)?,
        slice_stride: 1,
        run_stride: narrow(run_words)?,
        inner: narrow(elements / columns.max(1))?,
        phase: 0,
        before: 0,
        grid: grid(workgroups, capabilities)?,
    };
    Ok(Plan {
        walk: WalkKind::Columns,
        dtype: walk.dtype,
        width: words.width,
        edges: false,
        strided: false,
        strip: strip as u32,
        depth: 1,
        workgroup_size,
        team_size: 1,
        subgroup_size: 0,
        held: 0,
        chunk_words: 16,
        slices: narrow(columns)?,
        records: narrow(columns)?,
        splits: narrow(pieces)?,
        matrix_splits: u32::MAX,
        tile_words: PIECE_ROWS as u32,
        longest_loop: 4 * PIECE_ROWS * strip,
        folds_apart: true,
        grouped: false,
        windows: vec![window],
        reasons,
    })
}
