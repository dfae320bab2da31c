//! How a problem is cut into workgroups: a pure function of the problem, the capabilities and what the caller forces.

use super::geometry::{Geometry, Words};
use super::plan::{MOMENTS_BYTES, Window};
use super::problem::Pattern;
use super::resident::plan_resident;
use super::tuned::{
    GROUP_BYTES, SHUFFLES, min_tile_rounds, most_segment_strips, target_workgroups, workgroup_size,
};
use super::windows::{Cutter, Tiles, grid, narrow};
use super::{Capabilities, Plan, Tuning, Walk, WalkKind};
use crate::dtype::DType;
use crate::error::{Error, Result};

/// Values that one accumulator sums before it is merged: `SCALE` in shaders/lib/accumulate.wgsl allows for 64.
const CHUNK_VALUES: u32 = 64;
/// Part of a tensor, of those above so many bytes, that its workspace may take.
const WORKSPACE_PART: u64 = 100;
const WORKSPACE_FROM: u64 = 4 << 20;
/// Iterations kept back for the prologue, which takes half of them at most, the tree and the edges.
const LOOP_MARGIN: u64 = 16384;
/// Iterations of the tree and the edges at most, for each word of a strip.
const TREE_ITERATIONS: u64 = 64;

/// Plans a walk with at least one word per slice.
///
/// # Errors
/// [`Error::TooLarge`] if the walk cannot be addressed or dispatched, [`Error::MissingCapability`] if a forced
/// workgroup size exceeds the device.
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
            let last = Tuning { team_size: Some(workgroup), strip: Some(1), rows: None, ..*tuning };
            let mut planned = Err(error);
            for larger in teams.chain([last]) {
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
    // The most statistics that an invocation keeps: see walk/per_component.wgsl, per_pair.wgsl, per_slice.wgsl.
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
    // A component of a column sums every value itself, one of a run every fourth: half as many in a row keep the variance
    // within its bound with room to spare, and cost nothing measurable.
    let chunk_words = if walk.pattern.is_columns() { CHUNK_VALUES / 2 } else { CHUNK_VALUES / words.width };

    // An invocation runs one iteration per word, or one and as many as a strip has per step, and a few per chunk; before
    // that, for each word of its strip and each of its share of the partial results, one and one per component. Compilers
    // unroll most of the short loops, but that is not promised.
    let strip = u64::from(geometry.strip);
    let per_step = |strip: u64| if strip > 1 { 1 + strip } else { 1 };
    let per_word = per_step(strip);
    let per_chunk = 2 * strip;
    let chunk = u64::from(chunk_words);
    let iterations = |rounds: u64, splits: u64| {
        rounds * per_word + per_chunk * rounds.div_ceil(chunk) + 5 * strip * (splits * repeat).div_ceil(lanes)
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
        None => choose_splits(&geometry, walk.dtype.size(), blocks, repeat, capabilities, &mut reasons),
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
    if !walk.pattern.is_columns() {
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
            what: "a channel of x",
            needed: longest_loop,
            unit: "loop iterations per invocation",
            limit_name: LOOP_LIMIT,
            limit: capabilities.max_loop_iterations,
        });
    }

    Ok(Plan {
        walk: if walk.pattern.is_columns() { WalkKind::Columns } else { WalkKind::Segments },
        dtype: walk.dtype,
        width: words.width,
        edges: words.edges || geometry.incomplete,
        strided: walk.strided,
        strip: strip as u32,
        workgroup_size,
        team_size,
        subgroup_size: choose_subgroups(walk, team_size, workgroup_size, capabilities, tuning, &mut reasons),
        held: 0,
        chunk_words,
        slices: narrow(geometry.slices)?,
        records: narrow(geometry.records)?,
        splits: narrow(splits)?,
        tile_words: narrow(tile_words)?,
        longest_loop,
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
/// [`Error::MissingCapability`] for a tile of segments that is neither whole runs nor a part of one.
fn forced_tiles(walk: &Walk, geometry: &Geometry, words: u64, reasons: &mut Vec<String>) -> Result<Tiles> {
    reasons.push(format!("tiles: {words} words forced"));
    Ok(match walk.pattern {
        Pattern::Segments { .. } if words.is_multiple_of(geometry.run_words) => {
            Tiles::Whole(words / geometry.run_words)
        }
        Pattern::Segments { .. } if words > geometry.run_words => {
            return Err(Error::MissingCapability {
                what: "tiles of other than whole runs, or a part of one",
                needed: words,
                got: geometry.run_words,
            });
        }
        Pattern::Segments { .. } => Tiles::OfRuns { per_run: geometry.run_words.div_ceil(words), words },
        Pattern::Run { .. } | Pattern::Columns { .. } => Tiles::Whole(words),
    })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

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
        workgroup_size,
        team_size,
        subgroup_size,
        held: 0,
        chunk_words: 1,
        slices: narrow(slices)?,
        records: narrow(slices)?,
        splits: 1,
        tile_words: 1,
        longest_loop: partials.div_ceil(team_size).into(),
        grouped: false,
        windows: vec![window],
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
    if !team_size.is_power_of_two() || !workgroup_size.is_power_of_two() || 2 * apart > size {
        return 0;
    }
    reasons.push(format!(
        "merge: shuffles in subgroups of {size}, {} members of a team in each",
        team_size.min(size / apart)
    ));
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
        Pattern::Segments { .. } | Pattern::Columns { .. } => teams,
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

/// Workgroups per slice, or per block of columns.
fn choose_splits(
    geometry: &Geometry,
    size: u64,
    blocks: u64,
    repeat: u64,
    capabilities: &Capabilities,
    reasons: &mut Vec<String>,
) -> u64 {
    let target = target_workgroups(capabilities);
    let lanes = u64::from(geometry.team_size);
    let rounds = min_tile_rounds(capabilities);
    let wanted = target.div_ceil(blocks);
    let worthwhile = geometry.slice_words / (rounds * lanes);
    // Every workgroup of a slice reads and merges the partial results of all: what they read should stay below a quarter
    // of the tensor, and each invocation's merges below an eighth of its words.
    let bytes = geometry.elements * size;
    let readable = (bytes / (4 * MOMENTS_BYTES * geometry.records * repeat)).isqrt();
    let part = if bytes > WORKSPACE_FROM { WORKSPACE_PART } else { 1 };
    let small = bytes / (part * MOMENTS_BYTES * geometry.records);
    let mergeable = (geometry.slice_words / (8 * repeat)).isqrt().max(lanes / repeat);
    let limits = [
        (wanted, format!("to have {target} workgroups")),
        (worthwhile, format!("at least {rounds} words for each invocation")),
        (readable, "partial results are read by every workgroup of a slice".to_owned()),
        (mergeable, "partial results are merged by every workgroup of a slice".to_owned()),
        (small, format!("partial results take no more than 1/{part} of a tensor")),
    ];
    let (splits, why) = limits.into_iter().min_by_key(|(splits, _)| *splits).unwrap_or_default();
    reasons.push(format!("splits: {}, {why}", splits.max(1)));
    splits.max(1)
}

#[cfg(test)]
mod tests {
    use super::super::Op;
    use super::super::capabilities::table;
    use super::super::problem::{Alignment, Part, Pattern};
    use super::*;
    use crate::shape::{Layout, Shape};

    const FREE: Tuning = Tuning {
        width: None,
        workgroup_size: None,
        team_size: None,
        splits: None,
        rows: None,
        strip: None,
        tile: None,
        window_bytes: None,
        integer_f16: false,
        resident: None,
        subgroups: None,
        group_bytes: None,
    };

    fn walk(dims: &[usize], layout: Layout) -> Walk {
        Walk::dense(Shape::new(dims).unwrap().channels(layout).unwrap(), 0)
    }

    fn first(dims: &[usize]) -> Walk {
        walk(dims, Layout::ChannelsFirst)
    }

    /// Shapes as `[N, C, …]`; channels last moves C to the end.
    const SHAPES: [&[usize]; 13] = [
        &[8, 64, 112, 112],
        &[256, 64, 112, 112],
        &[8, 256, 56, 56],
        &[8, 512, 28, 28],
        &[8, 1024, 14, 14],
        &[8, 2048, 7, 7],
        &[256, 2048, 7, 7],
        &[2, 32, 64, 64, 64],
        &[1, 1, 4096, 4096],
        &[64, 3, 224, 224],
        &[4096, 512],
        &[2, 3, 5],
        &[1, 100_000, 1, 2],
    ];

    fn in_layout(dims: &[usize], layout: Layout) -> Walk {
        let mut dims = dims.to_vec();
        if layout == Layout::ChannelsLast {
            let channels = dims.remove(1);
            dims.push(channels);
        }
        walk(&dims, layout)
    }

    #[test]
    fn workspaces_are_small() {
        let few: [&[usize]; 3] = [&[3, 100_000, 7], &[256, 8192], &[16, 4096, 5, 5]];
        for (name, capabilities) in table::ALL {
            for dims in SHAPES.into_iter().chain(few) {
                for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                    let walk = in_layout(dims, layout);
                    let bytes = 4 * walk.pattern.elements();
                    let plan = plan_walk(&walk, &capabilities, &FREE).unwrap();
                    let workspace = plan.workspace_bytes(Op::TrainForward);
                    // One partial result for each record, and window, is the least.
                    let least = u64::from(plan.records) * MOMENTS_BYTES * plan.windows.len() as u64;
                    let most = (bytes / 100).max(least);
                    assert!(
                        bytes <= 4 << 20 || workspace <= most,
                        "{name} {layout} {dims:?}: {workspace}: {plan}"
                    );
                }
            }
        }
    }

    #[test]
    fn decisions_are_written_down() {
        let mut lines = String::new();
        for (name, capabilities) in table::ALL {
            for dims in SHAPES {
                for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                    let walk = in_layout(dims, layout);
                    let plan = plan_walk(&walk, &capabilities, &FREE).unwrap();
                    lines += &format!("{name} {layout} {dims:?}\n    {plan}\n");
                    for reason in &plan.reasons {
                        lines += &format!("        {reason}\n");
                    }
                    // Training passes, where they are planned otherwise.
                    for (pass, held) in [("forward", 1), ("backward", 2)] {
                        let trained =
                            plan_walk(&Walk { held: Some(held), ..walk.clone() }, &capabilities, &FREE);
                        let trained = trained.unwrap();
                        if trained != plan {
                            lines += &format!("    {pass}: {trained}\n");
                            lines += &format!("        {}\n", trained.reasons.last().unwrap());
                        }
                    }
                }
            }
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/plan/decisions.txt");
        if std::env::var_os("WGNORM_WRITE_DECISIONS").is_some() {
            std::fs::write(path, &lines).unwrap();
        }
        // A change of the policy shows as a diff of this file; WGNORM_WRITE_DECISIONS=1 rewrites it.
        assert_eq!(lines, std::fs::read_to_string(path).unwrap());
    }

    /// Every value of the walk is in one window, and every word of a window in one tile.
    #[track_caller]
    fn assert_covered(walk: &Walk, p: &Plan) {
        let mut elements = 0;
        let mut tiles = std::collections::BTreeMap::new();
        for window in &p.windows {
            assert_eq!(window.elements.start, elements, "{p}: {window:?}");
            elements = window.elements.end;
            let (span, tile) = (u64::from(window.span_words), u64::from(p.tile_words));
            let spans = u64::from(window.slice_words).div_ceil(span);
            assert_eq!(spans * u64::from(window.span_tiles), window.splits.into(), "{p}: {window:?}");
            assert!(u64::from(window.span_tiles) * tile >= span, "values left out: {p}: {window:?}");
            // With edges, a run may touch a word less than it has.
            let words = span + u64::from(p.edges);
            assert!((u64::from(window.span_tiles) - 1) * tile < words, "an empty tile: {p}: {window:?}");
            if p.walk == WalkKind::Segments && p.strip > 1 {
                for split in 0..u64::from(window.splits) {
                    let (before, begin) = (
                        split / u64::from(window.span_tiles) * span,
                        split % u64::from(window.span_tiles) * tile,
                    );
                    let end = (begin + tile).min(span).min(u64::from(window.slice_words) - before);
                    assert_eq!((end - begin) % u64::from(p.team_size * p.strip), 0, "{p}: {window:?}");
                }
            }
            let groups = u64::from(window.grid[0]) * u64::from(window.grid[1]);
            assert!(groups >= u64::from(window.blocks) * u64::from(window.splits), "{p}");
            let teams = window.blocks * (p.workgroup_size / p.team_size) * p.strip;
            let covered = if p.walk == WalkKind::Columns { window.run_words } else { window.slices };
            assert!(teams >= covered, "{p}");
            let values = u64::from(window.slice_words)
                * match p.walk {
                    WalkKind::Columns => u64::from(p.records),
                    WalkKind::Segments => u64::from(window.slices) * u64::from(p.width),
                };
            assert!(values >= window.elements.end - window.elements.start, "{p}: {window:?}");
            for slice in window.first_slice..window.first_slice + window.slices {
                for split in window.first_split..window.first_split + window.splits {
                    assert_eq!(tiles.insert((slice, split), ()), None, "{p}: {window:?}");
                }
            }
        }
        assert_eq!(elements, walk.pattern.elements(), "{p}");
        assert_eq!(tiles.len() as u64, u64::from(p.slices) * u64::from(p.splits), "{p}");
    }

    #[test]
    fn tiles_cover_every_slice_exactly() {
        let shapes: [&[usize]; 6] = [
            &[1, 1, 1, 1],
            &[3, 5, 7, 9],
            &[2, 3, 64, 64],
            &[1, 2, 300, 1000],
            &[70000, 2, 1, 1],
            &[2, 7, 3],
        ];
        for (_, capabilities) in table::ALL {
            for splits in [None, Some(1), Some(2), Some(7), Some(1000)] {
                for team_size in [None, Some(1), Some(4)] {
                    for (dims, phase) in shapes.iter().flat_map(|dims| (0..4).map(move |phase| (dims, phase)))
                    {
                        for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                            let tuning = Tuning { splits, team_size, ..FREE };
                            let mut walk = in_layout(dims, layout);
                            walk.parts[0].phase = phase;
                            let p = plan_walk(&walk, &capabilities, &tuning).unwrap();
                            assert_eq!(p.windows.len(), 1, "{p}");
                            assert_covered(&walk, &p);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn no_invocation_exceeds_the_loop_limit() {
        for elements in [1 << 22, (1 << 25) - 1, 1 << 25] {
            for width in [1, 4] {
                for splits in [None, Some(1)] {
                    for dims in [
                        &[1, 1, elements][..],
                        &[elements / 4, 5],
                        &[elements / 64, 64],
                        &[elements / 999, 999],
                    ] {
                        let tuning = Tuning { width: Some(width), splits, ..FREE };
                        let p = plan_walk(&first(dims), &table::LAVAPIPE, &tuning).unwrap();
                        assert!(p.longest_loop + TREE_ITERATIONS < 65535, "{p}");
                    }
                    let tuning = Tuning { width: Some(width), splits, team_size: Some(1), ..FREE };
                    let p = plan_walk(&first(&[1, 1, elements]), &table::LAVAPIPE, &tuning).unwrap();
                    assert!(p.longest_loop + TREE_ITERATIONS < 65535, "{p}");
                }
            }
        }
    }

    #[test]
    fn more_than_the_address_range_is_an_error() {
        let walk = |elements| Walk::plain(Pattern::Run { elements }, 1, 0);
        assert!(plan_walk(&walk(1 << 31), &table::H200, &FREE).is_ok());
        // More slices than can be counted.
        let pattern = Pattern::Columns { slices: 1 << 33, samples: 2, inner: 1 };
        let refused = plan_walk(&Walk::plain(pattern, 2, 0), &table::H200, &FREE);
        assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    }

    #[test]
    fn grids_fold_beyond_one_dimension() {
        let teams = Tuning { team_size: Some(256), ..FREE };
        let p = plan_walk(&first(&[1, 100_000, 1, 2]), &table::WEBGPU, &teams).unwrap();
        assert_eq!(p.windows[0].grid, [50_000, 2]);
        let huge = Walk::plain(Pattern::Columns { slices: 1 << 28, samples: 1, inner: 1 }, 1, 0);
        let narrow = Capabilities { max_workgroups_per_dimension: 1024, ..table::WEBGPU };
        assert!(matches!(plan_walk(&huge, &narrow, &FREE), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn words_are_wide_wherever_they_can_be() {
        let words_at = |dims: &[usize], alignment, phase| {
            let mut walk = Walk { alignment, ..first(dims) };
            walk.parts[0].phase = phase;
            let p = plan_walk(&walk, &table::RTX, &FREE).unwrap();
            (p.width, p.edges)
        };
        let words = |dims: &[usize], alignment| words_at(dims, alignment, 0);
        assert_eq!(words(&[2, 3, 4, 4], Alignment::Same), (4, false));
        assert_eq!(words_at(&[2, 3, 4, 4], Alignment::Same, 1), (4, true));
        assert_eq!(words(&[2, 3, 4, 4], Alignment::Differs), (1, false));
        assert_eq!(words(&[2, 3, 4, 4], Alignment::Cut), (1, false));
        assert_eq!(words(&[2, 3, 7, 7], Alignment::Same), (4, true));
        assert_eq!(words(&[2, 3, 3], Alignment::Same), (4, true));
        assert_eq!(words(&[2, 3, 2], Alignment::Same), (1, false));
        assert_eq!(words(&[8, 4], Alignment::Same), (4, false));
        assert_eq!(words(&[8, 5], Alignment::Same), (4, false));
        assert_eq!(words(&[7, 5], Alignment::Same), (4, true));
        assert_eq!(words_at(&[8, 4], Alignment::Same, 3), (4, true));
    }

    #[test]
    fn windows_are_cut_between_tiles() {
        let shapes: [(&[usize], Layout); 11] = [
            // Whole samples; samples that exceed a window; runs that do; one run; rows; rows as one.
            (&[64, 16, 7, 9], Layout::ChannelsFirst),
            (&[3, 40, 33, 33], Layout::ChannelsFirst),
            (&[3, 2, 101, 101], Layout::ChannelsFirst),
            // Runs that touch a word less than they may.
            (&[3, 2, 10_222], Layout::ChannelsFirst),
            (&[3, 2, 10_223], Layout::ChannelsFirst),
            (&[1, 1, 301, 301], Layout::ChannelsFirst),
            (&[3, 1, 301, 31], Layout::ChannelsLast),
            (&[9, 31, 30, 64], Layout::ChannelsLast),
            (&[9, 31, 30, 5], Layout::ChannelsLast),
            (&[9000, 5], Layout::ChannelsFirst),
            (&[9000, 8], Layout::ChannelsFirst),
        ];
        for (_, capabilities) in table::ALL {
            for (dims, layout) in shapes {
                for phase in 0..4 {
                    for (splits, width) in
                        [(None, None), (Some(1), None), (Some(30), None), (Some(3), Some(1))]
                    {
                        let mut walk = walk(dims, layout);
                        walk.parts[0].phase = phase;
                        let window_bytes = Some(20_000);
                        let tuning = Tuning { splits, width, window_bytes, ..FREE };
                        let p = plan_walk(&walk, &capabilities, &tuning).unwrap();
                        assert!(p.windows.len() > 1, "{p}");
                        assert_covered(&walk, &p);
                        let longest =
                            p.windows.iter().map(|w| w.elements.end - w.elements.start).max().unwrap();
                        assert!(4 * longest <= 20_000, "{p}: {longest} values");
                        assert!(p.windows.iter().all(|window| window.run_words > 0), "{p}");
                        // Smaller windows of the same tiles, or none.
                        let forced = Tuning { tile: Some(p.tile_words), width, window_bytes, ..FREE };
                        let again = plan_walk(&walk, &capabilities, &forced).unwrap();
                        assert_eq!(again.windows, p.windows, "{p} / {again}");
                        let tiny = Tuning { window_bytes: Some(700), ..forced };
                        if let Ok(again) = plan_walk(&walk, &capabilities, &tiny) {
                            assert_covered(&walk, &again);
                            assert_eq!((again.tile_words, again.splits), (p.tile_words, p.splits));
                        }
                        // The same tiles in one window.
                        let whole = Tuning { tile: Some(p.tile_words), width, ..FREE };
                        let whole = plan_walk(&walk, &capabilities, &whole).unwrap();
                        assert_eq!(
                            (whole.tile_words, whole.splits),
                            (p.tile_words, p.splits),
                            "{p} / {whole}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn parts_at_odd_places_keep_their_tiles() {
        for (dims, layout, at) in [
            (&[6, 1, 1001, 1001][..], Layout::ChannelsFirst, 3),
            (&[100_001, 64], Layout::ChannelsFirst, 1),
            (&[256, 64, 9, 9], Layout::ChannelsFirst, 1),
        ] {
            let mut walk = walk(dims, layout);
            let all = walk.parts[0].elements;
            let whole = plan_walk(&walk, &table::RTX, &FREE).unwrap();
            let first = all / dims[0] as u64 * at;
            let phase = (first % 4) as u32;
            walk.parts = vec![Part { elements: first, phase: 0 }, Part { elements: all - first, phase }];
            let p = plan_walk(&walk, &table::RTX, &FREE).unwrap();
            assert_covered(&walk, &p);
            assert!(p.splits <= 2 * whole.splits + 2, "{p} / {whole}");
        }
    }

    #[test]
    fn tiles_that_do_not_fit_are_refused() {
        let x = first(&[4, 2, 8, 8]);
        let forced = |tile, window_bytes, max_binding_bytes| {
            let tuning = Tuning { tile: Some(tile), window_bytes: Some(window_bytes), ..FREE };
            plan_walk(&x, &Capabilities { max_binding_bytes, ..table::LAVAPIPE }, &tuning)
        };
        // A window has at least one tile.
        for window_bytes in [1, 1000, 2000, 1 << 20] {
            assert_covered(&x, &forced(32, window_bytes, 1 << 20).unwrap());
        }
        assert!(matches!(forced(32, 2000, 1000), Err(Error::TooLarge { what: "a tile of x", .. })));
        let refused = forced(17, 1 << 20, 1 << 20);
        assert!(matches!(refused, Err(Error::MissingCapability { needed: 17, got: 16, .. })));
    }

    #[test]
    fn parts_share_the_tiles_of_the_whole() {
        for (dims, layout, at) in [
            (&[64, 16, 7, 9][..], Layout::ChannelsFirst, 24),
            (&[64, 9, 16], Layout::ChannelsLast, 24),
            (&[8, 1, 400], Layout::ChannelsFirst, 4),
        ] {
            let mut walk = walk(dims, layout);
            let all = walk.parts[0].elements;
            let first = all / dims[0] as u64 * at;
            walk.parts = vec![Part { elements: first, phase: 0 }, Part { elements: all - first, phase: 0 }];
            let p = plan_walk(&walk, &table::LAVAPIPE, &FREE).unwrap();
            assert_eq!(p.windows.len(), 2, "{p}");
            assert_covered(&walk, &p);
            walk.parts = vec![Part { elements: all, phase: 0 }];
            let whole =
                plan_walk(&walk, &table::LAVAPIPE, &Tuning { tile: Some(p.tile_words), ..FREE }).unwrap();
            assert_eq!((whole.tile_words, whole.splits), (p.tile_words, p.splits), "{p} / {whole}");
        }
    }

    #[test]
    fn more_than_32_bits_of_elements() {
        for (dims, layout) in [
            (&[1 << 13, 64, 112, 112][..], Layout::ChannelsFirst),
            (&[1 << 13, 112, 112, 64], Layout::ChannelsLast),
            (&[2, 3, 1 << 17, 1 << 17], Layout::ChannelsFirst),
            (&[1, 1, 1 << 17, 1 << 16], Layout::ChannelsFirst),
            (&[2, 100_000, 300, 300], Layout::ChannelsFirst),
        ] {
            for (name, capabilities) in table::ALL {
                let walk = walk(dims, layout);
                let p =
                    plan_walk(&walk, &capabilities, &FREE).unwrap_or_else(|e| panic!("{name} {dims:?}: {e}"));
                let end = p.windows.last().unwrap().elements.end;
                assert_eq!(end, walk.pattern.elements(), "{name} {p}");
                for window in &p.windows {
                    assert!(
                        4 * (window.elements.end - window.elements.start) <= capabilities.max_binding_bytes
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_forced_must_fit() {
        let forced = |tuning| plan_walk(&first(&[2, 3, 4]), &table::RTX, &tuning);
        let refused = |tuning| matches!(forced(tuning), Err(Error::MissingCapability { .. }));
        assert!(refused(Tuning { workgroup_size: Some(2048), ..FREE }));
        assert!(refused(Tuning { workgroup_size: Some(0), ..FREE }));
        assert!(refused(Tuning { workgroup_size: Some(64), team_size: Some(48), ..FREE }));
        assert!(refused(Tuning { team_size: Some(0), ..FREE }));
        assert!(refused(Tuning { splits: Some(0), ..FREE }));
        assert!(refused(Tuning { width: Some(2), ..FREE }));
        assert_eq!(
            forced(Tuning { workgroup_size: Some(96), team_size: Some(24), ..FREE }).unwrap().team_size,
            24
        );
    }
}
