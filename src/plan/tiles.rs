//! Tiles: the leaves of the reduction, which windows are cut between.

use super::Walk;
use super::geometry::{Geometry, Words};
use super::problem::Pattern;
use crate::base::error::{Error, Result};

/// The leaves of the reduction: how each slice is cut into tiles.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tiles {
    /// This many samples (segments), or rows (columns), or words (run) each.
    Whole(u64),
    /// Each run of a segment into this many tiles of `words` words.
    OfRuns { per_run: u64, words: u64 },
}

/// Cuts each slice into about as many tiles as wanted: of whole samples where there are enough, else each run into
/// several, so that windows can be cut between tiles. A tile has at most `most_words`, and `window` bytes if everything
/// does not fit into one binding.
pub(super) fn choose_tiles(
    walk: &Walk,
    words: &Words,
    geometry: &Geometry,
    splits: u64,
    lanes: u64,
    most_words: u64,
    window: Option<u64>,
) -> Tiles {
    let fits = window.is_none();
    let room = window.unwrap_or(u64::MAX);
    let word_bytes = u64::from(words.width) * walk.dtype.size();
    let rounded = |tile: u64| if tile > lanes { tile.next_multiple_of(lanes) } else { tile };
    let bounded = |tile: u64, most: u64| match most {
        _ if tile <= most => tile,
        _ if most >= lanes => most - most % lanes,
        _ => most.max(1),
    };
    let starts = || {
        let ends = walk.parts.iter().scan(0, |sum, part| {
            *sum += part.elements;
            Some(*sum)
        });
        ends.take(walk.parts.len().saturating_sub(1))
    };
    // Tiles that the starts of all parts are multiples of, if that takes no more than eight times as many of them: the tree is
    // then that of a tensor in one part.
    let shared = |tile: u64, unit: u64| {
        if starts().any(|start| start % unit != 0) {
            return tile;
        }
        let common = starts().fold(0, |common, start| gcd(common, start / unit));
        if common == 0 {
            return tile;
        }
        let fewest = common.div_ceil(tile);
        let divides = |tiles: &u64| common.is_multiple_of(*tiles) && 8 * (common / tiles) >= tile;
        (fewest..=8 * fewest).find(divides).map_or(tile, |tiles| common / tiles)
    };
    match walk.pattern {
        Pattern::Run { .. } => {
            let tile = rounded(geometry.slice_words.div_ceil(splits));
            let tile = bounded(tile, room / word_bytes);
            Tiles::Whole(shared(tile, words.width.into()))
        }
        Pattern::Matrices { inner, .. } => {
            // No tile reaches over the end of a matrix.
            let inner = geometry.matrix_rows(inner);
            let tile = geometry.slice_words.div_ceil(splits);
            let limit = most_words.min(geometry.rows_within(walk, room)).clamp(1, inner);
            let wanted = tile.clamp(1, limit);
            let divides = |tile: &u64| inner.is_multiple_of(*tile);
            let down = (1..=wanted).rev().find(divides).unwrap_or(1);
            // Where none is near, a larger one: tiles of few rows have more partial results than values.
            let up = || (wanted..=limit).find(divides);
            Tiles::Whole(if 8 * down < wanted { up().unwrap_or(down) } else { down })
        }
        Pattern::Columns { inner, .. } => {
            let (_, distance) = geometry.row_bytes(walk);
            // Between samples that are apart.
            let gap = if walk.strided { walk.sample_bytes.saturating_sub(inner * distance) } else { 0 };
            let tile = rounded(geometry.slice_words.div_ceil(splits));
            if fits || gap < room / 2 {
                let tile = bounded(tile, geometry.rows_within(walk, room - gap.min(room)));
                return Tiles::Whole(shared(tile, geometry.records));
            }
            // No tile reaches over a gap.
            let most = tile.min(geometry.rows_within(walk, room)).clamp(1, inner);
            Tiles::Whole((1..=most).rev().find(|&tile| inner.is_multiple_of(tile)).unwrap_or(1))
        }
        Pattern::Segments { slices, samples, inner } => {
            let run_bytes = inner * walk.dtype.size();
            let in_window = room / walk.sample_bytes.max(1);
            let most_samples = (most_words / geometry.run_words).min(in_window.max(1));
            if splits <= samples && most_samples > 0 && (fits || run_bytes <= room) {
                let wanted = samples.div_ceil(splits);
                return Tiles::Whole(shared(wanted.min(most_samples), slices * inner));
            }
            let tile = rounded(geometry.run_words.div_ceil(splits.div_ceil(samples)));
            let tile = bounded(tile, (room / word_bytes).min(most_words));
            Tiles::OfRuns { per_run: geometry.run_words.div_ceil(tile), words: tile }
        }
    }
}

/// Tiles of a forced number of words, or rows.
///
/// # Errors
/// [`Error::Tuning`] for a tile of segments that is neither whole runs nor a part of one.
pub(super) fn forced_tiles(
    walk: &Walk,
    geometry: &Geometry,
    words: u64,
    reasons: &mut Vec<String>,
) -> Result<Tiles> {
    reasons.push(format!("tiles: {words} words forced"));
    Ok(match walk.pattern {
        Pattern::Segments { .. } if words.is_multiple_of(geometry.run_words) => {
            Tiles::Whole(words / geometry.run_words)
        }
        Pattern::Segments { .. } if words > geometry.run_words => {
            let expected = format!("whole runs of {} words, or a part of one", geometry.run_words);
            return Err(Error::Tuning { choice: "tile", expected, got: words });
        }
        Pattern::Segments { .. } => Tiles::OfRuns { per_run: geometry.run_words.div_ceil(words), words },
        Pattern::Matrices { inner, .. } if !geometry.matrix_rows(inner).is_multiple_of(words) => {
            let expected = format!("a divisor of the {} rows of a matrix", geometry.matrix_rows(inner));
            return Err(Error::Tuning { choice: "tile", expected, got: words });
        }
        Pattern::Run { .. } | Pattern::Columns { .. } | Pattern::Matrices { .. } => Tiles::Whole(words),
    })
}

pub(crate) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
