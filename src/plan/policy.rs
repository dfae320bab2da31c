//! How a problem is cut into workgroups: a pure function of the problem, the capabilities and what the caller forces.

use super::geometry::{Geometry, Words};
use super::plan::MOMENTS_BYTES;
use super::problem::Pattern;
use super::resident::plan_resident;
use super::tuned::{
    APART_FROM, FOLDED_BY_MAPS, GROUP_BYTES, SHUFFLES, min_tile_rounds, most_depth, most_segment_strips,
    target_workgroups, workgroup_size,
};
use super::windows::{Cutter, Tiles, narrow};
use super::{Capabilities, Plan, Tuning, Walk, WalkKind};
use crate::base::error::{Error, Result};

/// Values that one accumulator sums before it is merged: `SCALE` in shaders/lib/accumulate.wesl allows for 64.
const CHUNK_VALUES: u32 = 64;
/// Part of a tensor, of those above so many bytes, that its workspace may take.
const WORKSPACE_PART: u64 = 100;
const WORKSPACE_PART_OF_GPUS: u64 = 32;
const WORKSPACE_FROM: u64 = 4 << 20;
/// Members of a team that are merged at once: RADIX of shaders/lib/tree_subgroups.wesl.
const RADIX: u32 = 8;
/// Words of the first chunk, which are walked once more: FIRST_WORDS of shaders/reduce/moments.wesl.
const FIRST_WORDS: u64 = 8;
/// Iterations kept back for the prologue, which takes half of them at most, the tree and the edges.
const LOOP_MARGIN: u64 = 16384;
/// Iterations of the tree and the edges at most, for each word of a strip.
const TREE_ITERATIONS: u64 = 64;

/// Plans a walk with at least one word per slice.
///
/// # Errors
/// [`Error::TooLarge`] if the walk cannot be addressed or dispatched, [`Error::MissingCapability`] if a forced
/// workgroup size exceeds the device, [`Error::Tuning`] for what no plan can have.
pub(crate) fn plan_walk(walk: &Walk, capabilities: &Capabilities, tuning: &Tuning) -> Result<Plan> {
    tuning.check()?;
    if let Some(plan) = plan_resident(walk, capabilities, tuning)? {
        return Ok(plan);
    }
    match plan_once(walk, capabilities, tuning) {
        // Shorter walks of larger teams instead: slower, and possible; at last without strips.
        Err(error @ Error::TooLarge { limit_name: LOOP_LIMIT, .. }) if tuning.team_size.is_none() => {
            let Ok(workgroup) = workgroup_size(4, capabilities, tuning, &mut Vec::new()) else {
                return Err(error);
            };
            let teams =
                (1..).map(|log| 1 << log).take_while(|&team| team <= workgroup && workgroup % team == 0);
            let teams = teams.map(|team| Tuning { team_size: Some(team), ..*tuning });
            let whole = |size| Tuning {
                team_size: Some(size),
                strip: Some(1),
                depth: Some(1),
                rows: None,
                ..*tuning
            };
            // A tile of a matrix divides its rows: where their number is prime it is all of them, for which a CPU's workgroups may be too small.
            let sizes = (1..).map(|log| workgroup << log).take_while(|&size| {
                let forced = Tuning { workgroup_size: Some(size), ..*tuning };
                tuning.workgroup_size.is_none()
                    && workgroup_size(4, capabilities, &forced, &mut Vec::new()).is_ok()
            });
            let workgroups = sizes.map(|size| Tuning { workgroup_size: Some(size), ..whole(size) });
            let mut planned = Err(error);
            for larger in teams.chain([whole(workgroup)]).chain(workgroups) {
                planned = plan_once(walk, capabilities, &larger);
                if !matches!(planned, Err(Error::TooLarge { limit_name: LOOP_LIMIT, .. })) {
                    break;
                }
            }
            let mut plan = planned?;
            plan.reasons.push("team: larger, else the loop limit would be exceeded".to_owned());
            Ok(plan)
        }
        planned => planned,
    }
}

const LOOP_LIMIT: &str = "loop limit";

pub(super) fn plan_once(walk: &Walk, capabilities: &Capabilities, tuning: &Tuning) -> Result<Plan> {
    tuning.check()?;
    let mut reasons = Vec::new();
    let words = Words::choose(walk, tuning, &mut reasons);
    // The most statistics that an invocation keeps: see walk/per_component.wesl, per_pair.wesl, per_slice.wesl.
    let stats = match walk.pattern.is_columns() {
        true => words.width,
        false => 1 + u32::from(words.edges),
    };
    let workgroup_size = workgroup_size(stats, capabilities, tuning, &mut reasons)?;
    let geometry = Geometry::new(walk, &words, workgroup_size, capabilities, tuning, &mut reasons)?;
    let team_size = geometry.team_size;
    let lanes = u64::from(team_size);
    let teams = u64::from(workgroup_size / team_size * geometry.strip);
    let blocks = geometry.columns.div_ceil(teams);
    let slice_words = geometry.slice_words;
    let repeat = geometry.records / geometry.slices;
    // A component of a column, or a word of one value, sums every value itself, one of a run every fourth: half as many in a row keep mean and variance
    // within their bounds with room to spare, and cost nothing measurable.
    let chunk_words = match (walk.pattern.is_columns(), words.width) {
        (true, _) => CHUNK_VALUES / 2,
        // Rare: more merges are no loss.
        (false, 1) => CHUNK_VALUES / 4,
        (false, width) => CHUNK_VALUES / width,
    };

    // An invocation runs one iteration per word, or one and as many as a strip has per step, and a few per chunk; before
    // that, for each word of its strip and each of its share of the partial results, one and one per component. Compilers
    // unroll most of the short loops, but that is not promised.
    let strip = u64::from(geometry.strip);
    let per_step = |strip: u64| if strip > 1 { 1 + strip } else { 1 };
    let per_word = per_step(strip);
    // Each strand looks for the first value that a mask leaves, over all of its words if need be.
    let per_word = per_word + if walk.masked { strip } else { 0 };
    let per_chunk = 2 * strip;
    let chunk = u64::from(chunk_words);
    let iterations = |rounds: u64, splits: u64| {
        (rounds + rounds.min(FIRST_WORDS)) * per_word
            + per_chunk * rounds.div_ceil(chunk)
            + 5 * strip * (splits * repeat).div_ceil(lanes)
    };
    let rounds_allowed =
        (capabilities.max_loop_iterations - LOOP_MARGIN) * chunk / (chunk * per_word + per_chunk);
    let splits_allowed = (lanes * LOOP_MARGIN / 10 / repeat / strip).max(1);
    let splits_needed = slice_words.div_ceil(rounds_allowed * lanes);
    let splits = match tuning.splits {
        Some(forced) => {
            reasons.push(format!("splits: {forced} forced"));
            u64::from(forced)
        }
        None => choose_splits(walk, &geometry, blocks, repeat, (capabilities, tuning), &mut reasons),
    };
    if splits > splits_allowed {
        reasons.push(format!("splits: no more than {splits_allowed} for the loop limit"));
    }
    let splits = splits.min(splits_allowed);
    if splits < splits_needed {
        reasons.push(format!("splits: {splits_needed} for the loop limit"));
    }
    let splits = splits.max(splits_needed).min(slice_words);

    // Room for what lies between the start of a binding and that of a window, and after its last word.
    let limit = tuning.window_bytes.unwrap_or(u64::MAX).min(capabilities.max_binding_bytes);
    let within = |limit: u64| limit.saturating_sub(2 * capabilities.storage_alignment).max(1);
    let (room, most) = (within(limit), within(capabilities.max_binding_bytes));
    let fits = walk.parts.iter().all(|part| walk.fits(part, limit));
    let most_words = rounds_allowed * lanes;
    let window = if fits { None } else { Some(room) };
    let tiles = match tuning.tile {
        Some(forced) => forced_tiles(walk, &geometry, forced.into(), &mut reasons)?,
        None => choose_tiles(walk, &words, &geometry, splits, lanes, most_words, window),
    };
    let group = match fits && walk.parts.len() == 1 {
        true => choose_group(walk, &words, &geometry, teams, tuning, &mut reasons),
        false => None,
    };
    let (words, geometry) = (&words, &geometry);
    let cutter = Cutter { walk, words, geometry, tiles, teams, capabilities, limit, room, most, group };
    let (windows, splits) = cutter.cut()?;
    if windows.len() > 1 && group.is_none() {
        reasons.push(format!(
            "windows: {} of {} buffers, each of at most {limit} bytes, cut between tiles",
            windows.len(),
            walk.parts.len()
        ));
    }
    let tile_words = match tiles {
        Tiles::Whole(samples) if matches!(walk.pattern, Pattern::Segments { .. }) => {
            samples * geometry.run_words
        }
        Tiles::Whole(words) | Tiles::OfRuns { words, .. } => words,
    };
    let rounds = tile_words.min(slice_words).div_ceil(lanes);
    let mut longest_loop = iterations(rounds, splits);
    let mut strip = strip;
    let depth = match geometry.strip {
        1 if tuning.strip.is_none_or(|strip| strip == 1) => {
            let most = tuning.depth.unwrap_or(most_depth(words.width, capabilities));
            // No more than there are.
            u64::from(most).min(1 << rounds.max(1).ilog2())
        }
        _ => 1,
    };
    if depth > 1 {
        // A step is an iteration more for each of its words, and one.
        longest_loop += rounds + rounds.div_ceil(depth);
        reasons.push(format!("depth: {depth} words are loaded before the first is used"));
    } else if !walk.pattern.is_columns() {
        // A step of several words is one iteration more.
        let with = |words: u32| longest_loop + rounds / u64::from(words);
        let room = capabilities.max_loop_iterations.saturating_sub(TREE_ITERATIONS);
        let longest = tuning.strip.unwrap_or(most_segment_strips(capabilities));
        let possible = |&words: &u32| {
            words <= longest
                && with(words) < room
                && windows.iter().all(|window| window.has_steps(tile_words, lanes * u64::from(words)))
        };
        if let Some(words) = [8, 4, 2].into_iter().find(possible) {
            reasons.push(format!(
                "steps: {words} words of each invocation; every tile is a whole number of them"
            ));
            longest_loop = with(words);
            strip = words.into();
        }
    }
    // A tree for each strand.
    if longest_loop + u64::from(geometry.strip) * TREE_ITERATIONS >= capabilities.max_loop_iterations {
        return Err(Error::TooLarge {
            what: "a slice of x",
            needed: longest_loop,
            unit: "loop iterations per invocation",
            limit_name: LOOP_LIMIT,
            limit: capabilities.max_loop_iterations,
        });
    }

    let folds_apart = folds_apart(walk, geometry, splits, capabilities, tuning) && group.is_none();
    if folds_apart {
        reasons.push(format!("fold: a dispatch of its own, of {} partial results", splits * repeat));
    }
    Ok(Plan {
        walk: if walk.pattern.is_columns() { WalkKind::Columns } else { WalkKind::Segments },
        dtype: walk.dtype,
        width: words.width,
        edges: words.edges || geometry.incomplete,
        strided: walk.strided,
        strip: strip as u32,
        depth: depth as u32,
        workgroup_size,
        team_size,
        subgroup_size: choose_subgroups(walk, team_size, workgroup_size, capabilities, tuning, &mut reasons),
        held: 0,
        chunk_words,
        slices: narrow(geometry.slices)?,
        records: narrow(geometry.records)?,
        splits: narrow(splits)?,
        matrix_splits: match walk.pattern {
            Pattern::Matrices { inner, .. } => narrow(geometry.matrix_rows(inner) / tile_words)?,
            _ => u32::MAX,
        },
        tile_words: narrow(tile_words)?,
        longest_loop,
        folds_apart,
        grouped: group.is_some() && windows.len() > 1,
        windows,
        reasons,
    })
}

/// Cuts each slice into about as many tiles as wanted: of whole samples where there are enough, else each run into
/// several, so that windows can be cut between tiles. A tile has at most `most_words`, and `window` bytes if everything
/// does not fit into one binding.
fn choose_tiles(
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
fn forced_tiles(walk: &Walk, geometry: &Geometry, words: u64, reasons: &mut Vec<String>) -> Result<Tiles> {
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

/// Invocations of a subgroup, if teams merge by shuffles; else 0.
fn choose_subgroups(
    walk: &Walk,
    team_size: u32,
    workgroup_size: u32,
    capabilities: &Capabilities,
    tuning: &Tuning,
    reasons: &mut Vec<String>,
) -> u32 {
    let wanted = tuning.subgroups.unwrap_or(SHUFFLES);
    let Some(size) = capabilities.subgroup_size.filter(|_| wanted && team_size > 1) else { return 0 };
    // Of a column, neighbouring members of a team are as far apart as a workgroup has teams.
    let apart = if walk.pattern.is_columns() { workgroup_size / team_size } else { 1 };
    let together = team_size.min(RADIX);
    if !team_size.is_power_of_two() || !workgroup_size.is_power_of_two() || together * apart > size {
        return 0;
    }
    reasons.push(format!("merge: shuffles in subgroups of {size}, of {together} members of a team at once"));
    size
}

/// Slices, or words of a row, that both dispatches of a training pass walk before the next: so many that they have the bytes
/// that a cache keeps, of every tensor. `None` for all of them.
fn choose_group(
    walk: &Walk,
    words: &Words,
    geometry: &Geometry,
    teams: u64,
    tuning: &Tuning,
    reasons: &mut Vec<String>,
) -> Option<u64> {
    let bytes = tuning.group_bytes.or(GROUP_BYTES)?;
    // Inference, copies and moments read what they read once.
    walk.held?;
    // Slices that share a word belong to one group: every fourth begins with a word, in each sample that does.
    let width = u64::from(words.width);
    let whole = match walk.pattern {
        Pattern::Run { .. } => return None,
        Pattern::Segments { slices, inner, .. } if words.edges => {
            if walk.parts[0].phase != 0 || !(slices * inner).is_multiple_of(width) {
                return None;
            }
            teams.next_multiple_of(width)
        }
        // A channel of several rows as one is in several columns.
        Pattern::Columns { .. } if geometry.records != geometry.slices => return None,
        Pattern::Segments { .. } | Pattern::Columns { .. } | Pattern::Matrices { .. } => teams,
    };
    let each = geometry.elements / geometry.columns * walk.dtype.size();
    let group = (bytes / each.max(1) / whole * whole).max(whole);
    if group >= geometry.columns {
        return None;
    }
    reasons.push(format!(
        "groups: of {group} of {} slices or columns, {} bytes of a tensor, for the cache",
        geometry.columns,
        group * each
    ));
    Some(group)
}

/// Whether partial results of so many splits are folded by a dispatch of its own.
fn folds_apart(
    walk: &Walk,
    geometry: &Geometry,
    splits: u64,
    capabilities: &Capabilities,
    tuning: &Tuning,
) -> bool {
    let partials = splits * (geometry.records / geometry.slices);
    let bytes = geometry.elements * walk.dtype.size();
    let pays = !capabilities.cpu && partials > FOLDED_BY_MAPS && bytes >= APART_FROM;
    walk.foldable && partials > 1 && tuning.folds_apart.unwrap_or(pays)
}

/// Workgroups per slice, or per block of columns.
fn choose_splits(
    walk: &Walk,
    geometry: &Geometry,
    blocks: u64,
    repeat: u64,
    (capabilities, tuning): (&Capabilities, &Tuning),
    reasons: &mut Vec<String>,
) -> u64 {
    let target = target_workgroups(capabilities);
    let lanes = u64::from(geometry.team_size);
    let rounds = min_tile_rounds(capabilities);
    let wanted = target.div_ceil(blocks);
    let worthwhile = geometry.slice_words / (rounds * lanes);
    // Every workgroup of a slice reads and merges the partial results of all: what they read should stay below a quarter
    // of the tensor, and each invocation's merges below an eighth of its words.
    let bytes = geometry.elements * walk.dtype.size();
    let readable = (bytes / (4 * MOMENTS_BYTES * geometry.records * repeat)).isqrt();
    let part = match capabilities.cpu {
        _ if bytes <= WORKSPACE_FROM => 1,
        true => WORKSPACE_PART,
        false => WORKSPACE_PART_OF_GPUS,
    };
    let small = bytes / (part * MOMENTS_BYTES * geometry.records);
    let mergeable = (geometry.slice_words / (8 * repeat)).isqrt().max(lanes / repeat);
    let bound = capabilities.max_binding_bytes / (MOMENTS_BYTES * geometry.records);
    let of_walks = [
        (wanted, format!("to have {target} workgroups")),
        (worthwhile, format!("at least {rounds} words for each invocation")),
    ];
    let of_partials = [
        (bound, "partial results are one binding".to_owned()),
        (small, format!("partial results take no more than 1/{part} of a tensor")),
    ];
    let of_maps = [
        (readable, "partial results are read by every workgroup of a slice".to_owned()),
        (mergeable, "partial results are merged by every workgroup of a slice".to_owned()),
    ];
    // Maps alone have nothing to merge, and those that find totals next to nothing. A CPU needs no more workgroups, and each of them loads the statistics of its
    // strips: llvmpipe, inference of ResNet-50 channels last at batch 8 was 6 % slower with 64 workgroups wherever they are possible.
    let by_every_workgroup = !folds_apart(walk, geometry, wanted.min(worthwhile), capabilities, tuning);
    let of_partials = of_partials.into_iter().filter(|_| walk.merges || capabilities.cpu);
    let of_maps = of_maps.into_iter().filter(|_| walk.merges && by_every_workgroup || capabilities.cpu);
    let limits = of_walks.into_iter().chain(of_partials).chain(of_maps);
    let (splits, why) = limits.min_by_key(|(splits, _)| *splits).unwrap_or_default();
    reasons.push(format!("splits: {}, {why}", splits.max(1)));
    splits.max(1)
}

#[cfg(test)]
mod tests;
