//! The plans of folds: a team per slice, and no tensor that is walked.

use super::plan::Window;
use super::tuned::workgroup_size;
use super::windows::{grid, narrow};
use super::{Capabilities, Plan, Tuning, WalkKind};
use crate::base::dtype::DType;
use crate::base::error::Result;

/// Plans one team per slice that folds `partials` records: in teams, and with subgroups, of given sizes, so that it merges in the same order, to
/// the same bits, as the prologue of a walk with teams of this size.
pub(crate) fn plan_per_slice(
    slices: u64,
    partials: u32,
    (team_size, subgroup_size): (u32, u32),
    dtype: DType,
    capabilities: &Capabilities,
    tuning: &Tuning,
) -> Result<Plan> {
    tuning.check()?;
    let mut reasons = Vec::new();
    let (team_size, subgroup_size) = if partials > 1 { (team_size, subgroup_size) } else { (1, 0) };
    let workgroup_size = workgroup_size(1, capabilities, tuning, &mut reasons)?.next_multiple_of(team_size);
    reasons.push(format!("team: {team_size}, as in the walk before, for {partials} partial results"));
    let blocks = slices.div_ceil(u64::from(workgroup_size / team_size));
    let window = Window {
        elements: 0..slices,
        first_slice: 0,
        slices: narrow(slices)?,
        first_column: 0,
        first_split: 0,
        splits: 1,
        first_row: 0,
        blocks: narrow(blocks)?,
        slice_words: 1,
        span_words: 1,
        span_tiles: 1,
        run_words: 1,
        slice_stride: 1,
        run_stride: 1,
        inner: 1,
        phase: 0,
        before: 0,
        grid: grid(blocks, capabilities)?,
    };
    Ok(Plan {
        walk: WalkKind::Segments,
        dtype,
        width: 1,
        edges: false,
        strided: false,
        strip: 1,
        depth: 1,
        workgroup_size,
        team_size,
        subgroup_size,
        held: 0,
        chunk_words: 1,
        slices: narrow(slices)?,
        records: narrow(slices)?,
        splits: 1,
        matrix_splits: u32::MAX,
        tile_words: 1,
        longest_loop: partials.div_ceil(team_size).into(),
        folds_apart: false,
        grouped: false,
        windows: vec![window],
        reasons,
    })
}
