//! How a problem is cut into workgroups: a pure function of the problem, the capabilities and what the caller forces.

use super::geometry::{Geometry, Words};
use super::problem::Pattern;
use super::resident::plan_resident;
use super::splits::{choose_group, choose_splits, folds_apart};
use super::tiles::{Tiles, choose_tiles, forced_tiles};
use super::tuned::{SHUFFLES, most_depth, most_segment_strips, workgroup_size};
use super::windows::{Cutter, narrow};
use super::{Capabilities, Plan, Tuning, Walk, WalkKind};
use crate::base::error::{Error, Result};

/// Values that one accumulator sums before it is merged: `SCALE` in shaders/lib/accumulate.wesl allows for 64.
const CHUNK_VALUES: u32 = 64;
/// Members of a team that are merged at once: RADIX of shaders/lib/tree_subgroups.wesl.
const RADIX: u32 = 8;
/// Words of the first chunk, which are walked once more: FIRST_WORDS of shaders/reduce/moments.wesl.
const FIRST_WORDS: u64 = 8;
/// Iterations kept back for the prologue, which takes half of them at most, the tree and the edges.
const LOOP_MARGIN: u64 = 16384;
/// Iterations of the sum over eight neighbouring teams, with the look that ends it (shaders/lib/teams.wesl).
const EXCHANGE_ITERATIONS: u64 = 4;
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

pub(crate) const LOOP_LIMIT: &str = "loop limit";

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

    let limit = tuning.window_bytes.unwrap_or(u64::MAX).min(capabilities.max_binding_bytes);
    let fits = walk.parts.iter().all(|part| walk.fits(part, limit));
    let group = match fits && walk.parts.len() == 1 {
        true => choose_group(walk, &words, &geometry, teams, tuning, &mut reasons),
        false => None,
    };
    // Of a group, all partial results come from a cache.
    let apart = |splits| group.is_none() && folds_apart(walk, &geometry, splits, capabilities, tuning);

    // An invocation runs one iteration per word, or one and as many as a strip has per step, and a few per chunk; before
    // that, for each word of its strip and each of its share of the partial results, one and one per component. Compilers
    // unroll most of the short loops, but that is not promised.
    let strip = u64::from(geometry.strip);
    let per_step = |strip: u64| if strip > 1 { 1 + strip } else { 1 };
    let per_word = per_step(strip);
    // Each strand looks for the first value that a mask leaves, over all of its words if need be.
    let per_word = per_word + if walk.masked { strip } else { 0 };
    // Where sums are those of rows, teams exchange them at each.
    let per_word = per_word + if walk.unit_rows == 1 { EXCHANGE_ITERATIONS } else { 0 };
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
        None => choose_splits(walk, &geometry, blocks, &apart, capabilities, &mut reasons),
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
    let within = |limit: u64| limit.saturating_sub(2 * capabilities.storage_alignment).max(1);
    let (room, most) = (within(limit), within(capabilities.max_binding_bytes));
    let most_words = rounds_allowed * lanes;
    let window = if fits { None } else { Some(room) };
    let tiles = match tuning.tile {
        Some(forced) => forced_tiles(walk, &geometry, forced.into(), &mut reasons)?,
        None => choose_tiles(walk, &words, &geometry, splits, lanes, most_words, window),
    };
    let cutter = Cutter {
        walk,
        words: &words,
        geometry: &geometry,
        tiles,
        teams,
        capabilities,
        limit,
        room,
        most,
        group,
    };
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

    let folds_apart = apart(splits);
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

#[cfg(test)]
mod tests;
