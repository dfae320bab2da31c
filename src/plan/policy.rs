//! How a problem is cut into workgroups: a pure function of the problem, the capabilities and what the caller forces.

use super::problem::{Alignment, Pattern};
use super::{Capabilities, Plan, Tuning, Walk, WalkKind};
use crate::error::{Error, Result};

/// Values that one accumulator sums before it is merged: `SCALE` in shaders/lib/accumulate.wgsl allows for 64.
const CHUNK_VALUES: u32 = 64;
/// Bytes of one statistic of the largest value that a team reduces (`Moments`).
const PARTIAL_BYTES: u32 = 20;
/// Bytes of a partial result in memory (`MomentsRecord`).
const RECORD_BYTES: u64 = 24;
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
    match plan_once(walk, capabilities, tuning) {
        // Short walks of large teams instead: slower, and possible.
        Err(error @ Error::TooLarge { limit_name: LOOP_LIMIT, .. }) if tuning.team_size.is_none() => {
            let Ok(workgroup) = workgroup_size(4, capabilities, tuning, &mut Vec::new()) else {
                return Err(error);
            };
            let most = Tuning { team_size: Some(workgroup), strip: Some(1), rows: None, ..*tuning };
            let mut plan = plan_once(walk, capabilities, &most)?;
            plan.reasons.push("team: all of the workgroup, else the loop limit would be exceeded".to_owned());
            Ok(plan)
        }
        planned => planned,
    }
}

const LOOP_LIMIT: &str = "loop limit";

fn plan_once(walk: &Walk, capabilities: &Capabilities, tuning: &Tuning) -> Result<Plan> {
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
    let blocks = geometry.columns.div_ceil(u64::from(workgroup_size / team_size * geometry.strip));
    let slice_words = geometry.slice_words;
    let repeat = geometry.records / geometry.slices;
    // A component of a column sums every value itself, one of a run every fourth: half as many in a row keep the variance
    // within its bound with room to spare, and cost nothing measurable.
    let chunk_words = if walk.pattern.is_columns() { CHUNK_VALUES / 2 } else { CHUNK_VALUES / words.width };

    // An invocation runs one iteration per word, or one and as many as a strip has per row, and a few per chunk; before
    // that, for each word of its strip and each of its share of the partial results, one and one per component. Compilers
    // unroll most of the short loops, but that is not promised.
    let strip = u64::from(geometry.strip);
    let per_word = if strip > 1 { 1 + strip } else { 1 };
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
            u64::from(forced).min(splits_allowed)
        }
        None => choose_splits(&geometry, blocks, repeat, capabilities, &mut reasons).min(splits_allowed),
    };
    if splits < splits_needed {
        reasons.push(format!("splits: {splits_needed} for the loop limit"));
    }
    let splits = splits.max(splits_needed).min(slice_words);
    let mut tile_words = slice_words.div_ceil(splits);
    if tile_words > lanes {
        tile_words = tile_words.next_multiple_of(lanes);
    }
    let splits = slice_words.div_ceil(tile_words);
    let longest_loop = iterations(tile_words.div_ceil(lanes), splits);
    if longest_loop + strip * TREE_ITERATIONS >= capabilities.max_loop_iterations {
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
        width: words.width,
        edges: words.edges || geometry.incomplete,
        strip: geometry.strip,
        workgroup_size,
        team_size,
        chunk_words,
        slices: address(geometry.slices)?,
        records: address(geometry.records)?,
        blocks: address(blocks)?,
        splits: address(splits)?,
        slice_words: address(slice_words)?,
        tile_words: address(tile_words)?,
        run_words: address(geometry.run_words)?,
        slice_stride: address(geometry.slice_stride)?,
        run_stride: address(geometry.run_stride)?,
        inner: address(geometry.inner)?,
        elements: u32::try_from(u64::from(words.phase) + geometry.elements)
            .map_err(|_| too_many(geometry.elements))?
            - words.phase,
        phase: words.phase,
        grid: grid(blocks * splits, capabilities)?,
        longest_loop,
        reasons,
    })
}

/// Plans one team per slice that folds `partials` records: in teams of `team_size`, so that it merges in the same order, to
/// the same bits, as the prologue of a walk with teams of this size.
pub(crate) fn plan_per_slice(
    slices: u64,
    partials: u32,
    team_size: u32,
    capabilities: &Capabilities,
    tuning: &Tuning,
) -> Result<Plan> {
    tuning.check()?;
    let mut reasons = Vec::new();
    let team_size = if partials > 1 { team_size } else { 1 };
    let workgroup_size = workgroup_size(1, capabilities, tuning, &mut reasons)?.next_multiple_of(team_size);
    reasons.push(format!("team: {team_size}, as in the walk before, for {partials} partial results"));
    let blocks = slices.div_ceil(u64::from(workgroup_size / team_size));
    Ok(Plan {
        walk: WalkKind::Segments,
        width: 1,
        edges: false,
        strip: 1,
        workgroup_size,
        team_size,
        chunk_words: 1,
        slices: address(slices)?,
        records: address(slices)?,
        blocks: address(blocks)?,
        splits: 1,
        slice_words: 1,
        tile_words: 1,
        run_words: 1,
        slice_stride: 1,
        run_stride: 1,
        inner: 1,
        elements: address(slices)?,
        phase: 0,
        grid: grid(blocks, capabilities)?,
        longest_loop: partials.div_ceil(team_size).into(),
        reasons,
    })
}

/// How memory is accessed.
struct Words {
    width: u32,
    /// Element of a word at which the tensors begin.
    phase: u32,
    /// Slices begin or end inside of words.
    edges: bool,
}

impl Words {
    fn choose(walk: &Walk, tuning: &Tuning, reasons: &mut Vec<String>) -> Self {
        let scalar = |reasons: &mut Vec<String>, why: &str| {
            reasons.push(format!("words: 4 bytes, {why}"));
            Self { width: 1, phase: 0, edges: false }
        };
        if tuning.width == Some(1) {
            return scalar(reasons, "forced");
        }
        let phase = match walk.alignment {
            Alignment::Same(phase) => phase,
            Alignment::Differs => {
                return scalar(reasons, "because the tensors begin at different places of 16-byte words");
            }
            Alignment::Cut => {
                return scalar(reasons, "because a buffer ends inside of its tensor's last 16-byte word");
            }
        };
        let edges = match walk.pattern {
            Pattern::Segments { inner, .. } if inner < 3 => {
                return scalar(reasons, "because a 16-byte word could hold more than two runs");
            }
            Pattern::Segments { inner, .. } => phase != 0 || !inner.is_multiple_of(4),
            Pattern::Columns { .. } => phase != 0,
        };
        reasons.push(match edges {
            false => "words: 16 bytes".to_owned(),
            true => format!("words: 16 bytes with masks; tensors begin at element {phase} of one"),
        });
        Self { width: 4, phase, edges }
    }
}

/// A pattern in words.
struct Geometry {
    slices: u64,
    records: u64,
    /// What workgroups are divided among: slices, or the words of a row.
    columns: u64,
    slice_words: u64,
    run_words: u64,
    slice_stride: u64,
    run_stride: u64,
    inner: u64,
    elements: u64,
    team_size: u32,
    strip: u32,
    /// Whether the last row of a matrix, or the last strip of a row, is not full.
    incomplete: bool,
}

impl Geometry {
    fn new(
        walk: &Walk,
        words: &Words,
        workgroup_size: u32,
        capabilities: &Capabilities,
        tuning: &Tuning,
        reasons: &mut Vec<String>,
    ) -> Result<Self> {
        let width = u64::from(words.width);
        match walk.pattern {
            Pattern::Segments { slices, runs, inner, slice_stride, run_stride } => {
                // With edges, the words that a run touches wherever it begins, and strides in values.
                let (run_words, unit) = match words.edges {
                    true if slices * runs == 1 => ((u64::from(words.phase) + inner).div_ceil(width), 1),
                    true => ((inner + 2 * (width - 1)) / width, 1),
                    false => (inner / width, width),
                };
                let slice_words = runs * run_words;
                Ok(Self {
                    slices,
                    records: slices,
                    columns: slices,
                    slice_words,
                    run_words,
                    slice_stride: slice_stride / unit,
                    run_stride: run_stride / unit,
                    inner,
                    elements: slices * runs * inner,
                    team_size: segment_team(
                        slices,
                        slice_words,
                        workgroup_size,
                        capabilities,
                        tuning,
                        reasons,
                    )?,
                    strip: 1,
                    incomplete: false,
                })
            }
            Pattern::Columns { slices, rows } => {
                let (repeat, strip, team_size) =
                    column_team(slices, rows, words, workgroup_size, capabilities, tuning, reasons)?;
                let elements = slices * rows;
                let records = slices * repeat;
                let run_words = records / width;
                Ok(Self {
                    slices,
                    records,
                    columns: run_words,
                    slice_words: (u64::from(words.phase) + elements).div_ceil(records),
                    run_words,
                    slice_stride: 1,
                    run_stride: run_words,
                    inner: 1,
                    elements,
                    team_size,
                    strip,
                    incomplete: !elements.is_multiple_of(records)
                        || strip > 1
                            && !run_words.is_multiple_of(u64::from(workgroup_size / team_size * strip)),
                })
            }
        }
    }
}

/// The largest power of two that divides the workgroup and is not above the smallest that holds `wanted`; all of the
/// workgroup if that is wanted.
fn team(wanted: u64, workgroup_size: u32) -> u32 {
    if wanted >= workgroup_size.into() {
        return workgroup_size;
    }
    let divisor = 1 << workgroup_size.trailing_zeros();
    (wanted as u32).next_power_of_two().min(divisor)
}

fn forced_team(tuning: &Tuning, workgroup_size: u32, reasons: &mut Vec<String>) -> Result<Option<u32>> {
    let Some(team_size) = tuning.team_size else { return Ok(None) };
    if !workgroup_size.is_multiple_of(team_size) {
        return Err(Error::MissingCapability {
            what: "workgroups that a team divides",
            needed: team_size.into(),
            got: workgroup_size.into(),
        });
    }
    reasons.push(format!("team: {team_size} forced"));
    Ok(Some(team_size))
}

/// Invocations that walk a slice of segments together.
fn segment_team(
    slices: u64,
    slice_words: u64,
    workgroup_size: u32,
    capabilities: &Capabilities,
    tuning: &Tuning,
    reasons: &mut Vec<String>,
) -> Result<u32> {
    if let Some(forced) = forced_team(tuning, workgroup_size, reasons)? {
        return Ok(forced);
    }
    let rounds = team_rounds(capabilities);
    let team_size = team(slice_words.div_ceil(rounds), workgroup_size);
    reasons.push(format!(
        "team: {team_size} of {workgroup_size} invocations for {slice_words} words of each of {slices} slices, \
         {rounds} or more for each"
    ));
    Ok(team_size)
}

/// Rows that are taken as one, and invocations that walk a column together.
fn column_team(
    slices: u64,
    rows: u64,
    words: &Words,
    workgroup_size: u32,
    capabilities: &Capabilities,
    tuning: &Tuning,
    reasons: &mut Vec<String>,
) -> Result<(u64, u32, u32)> {
    let width = u64::from(words.width);
    // The fewest rows that are whole words.
    let whole = (1..=width).find(|&repeat| (slices * repeat).is_multiple_of(width)).unwrap_or(width);
    let forced = forced_team(tuning, workgroup_size, reasons)?;
    let width_of_block = column_words(slices * rows / width, workgroup_size, capabilities);
    let teams = |run_words: u64| match forced {
        Some(team_size) => workgroup_size / team_size,
        None => team(run_words.min(width_of_block), workgroup_size),
    };
    let row = |repeat: u64| slices * repeat / width;
    let idle = |repeat: u64, strip: u32| {
        let lanes = row(repeat).next_multiple_of(u64::from(teams(row(repeat)) * strip));
        (lanes - row(repeat)) as f64 / lanes as f64
    };
    // More rows cost more to fold: not so many that there is more to merge than there are steps in the walk.
    let affordable = |repeat: &u64| *repeat == whole || rows >= repeat * repeat * 8;
    let candidates: Vec<u64> = match tuning.rows {
        Some(forced) => vec![whole * u64::from(forced)],
        None => (1..=8).map(|times| whole * times).filter(affordable).collect(),
    };
    // Strips as long as possible of as few rows as possible that no more than an eighth of the invocations are idle; best
    // none, which needs no masks.
    let longest = tuning.strip.unwrap_or(most_strips(capabilities));
    let strips = [8, 4, 2, 1].into_iter().filter(|&strip| strip <= longest);
    let chosen = strips.clone().find_map(|strip| {
        let enough = |most: f64| candidates.iter().find(|&&repeat| idle(repeat, strip) <= most);
        enough(0.0).or_else(|| enough(0.125)).map(|&repeat| (repeat, strip))
    });
    let (repeat, strip) = chosen.unwrap_or_else(|| {
        let least = candidates.iter().min_by(|&&a, &&b| idle(a, 1).total_cmp(&idle(b, 1)));
        (least.copied().unwrap_or(whole), 1)
    });
    let run_words = row(repeat);
    let teams = teams(run_words);
    reasons.push(format!(
        "team: {} rows at a time, {teams} x {strip} of {run_words} columns per workgroup; {repeat} rows of {slices} \
         values as one leave {:.0} % of the invocations without a column",
        workgroup_size / teams,
        100.0 * idle(repeat, strip)
    ));
    Ok((repeat, strip, workgroup_size / teams))
}

/// Workgroups per slice, or per block of columns.
fn choose_splits(
    geometry: &Geometry,
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
    let bytes = geometry.elements * 4;
    let readable = (bytes / (4 * RECORD_BYTES * geometry.records * repeat)).isqrt();
    let mergeable = (geometry.slice_words / (8 * repeat)).isqrt().max(lanes / repeat);
    let limits = [
        (wanted, format!("to have {target} workgroups")),
        (worthwhile, format!("at least {rounds} words for each invocation")),
        (readable, "partial results are read by every workgroup of a slice".to_owned()),
        (mergeable, "partial results are merged by every workgroup of a slice".to_owned()),
    ];
    let (splits, why) = limits.into_iter().min_by_key(|(splits, _)| *splits).unwrap_or_default();
    reasons.push(format!("splits: {}, {why}", splits.max(1)));
    splits.max(1)
}

/// 256 on a GPU, which every WebGPU device allows. 8 on a CPU, one vector of its threads: more only adds barriers to the
/// tree. ResNet-50 at batch 8 on llvmpipe (Mesa 22.3.6, 2 cores, 2026-11-20, `wgnorm bench --workgroup-size N`, two runs
/// of each, interleaved), all layers in ms at 8, 32 and 64 invocations: training forward 210 to 266, 276 to 283, 343 to
/// 354; training backward 288 to 315, 350 to 360, 401 to 419; inference 109 to 113, 116 to 125, 126 to 128.
fn workgroup_size(
    stats: u32,
    capabilities: &Capabilities,
    tuning: &Tuning,
    reasons: &mut Vec<String>,
) -> Result<u32> {
    let fits = capabilities.max_workgroup_bytes / (PARTIAL_BYTES * stats);
    let most = capabilities.max_workgroup_size.min(fits);
    let size = match tuning.workgroup_size {
        Some(forced) => forced,
        None => (if capabilities.cpu { 8 } else { 256 }).min(1 << most.ilog2()),
    };
    if size == 0 || size > most {
        return Err(Error::MissingCapability {
            what: "invocations per workgroup",
            needed: size.into(),
            got: most.into(),
        });
    }
    reasons.push(match tuning.workgroup_size {
        Some(_) => format!("workgroup: {size} forced"),
        None if capabilities.cpu => format!("workgroup: {size}, one vector of a CPU"),
        None => format!("workgroup: {size} of at most {most}"),
    });
    Ok(size)
}

/// Workgroups that fill a device: a few per core of a CPU, eight of 256 invocations for each of the 256 or so
/// compute units of a large GPU.
fn target_workgroups(capabilities: &Capabilities) -> u64 {
    if capabilities.cpu { 64 } else { 2048 }
}

/// Words per invocation below which a slice is not split further: a workgroup must have more to walk than its tree
/// costs; on a GPU idle compute units cost more.
fn min_tile_rounds(capabilities: &Capabilities) -> u64 {
    if capabilities.cpu { 32 } else { 8 }
}

/// Words of a slice for each invocation of a team.
fn team_rounds(capabilities: &Capabilities) -> u64 {
    if capabilities.cpu { 1024 } else { 4 }
}

/// Words of a row that an invocation walks at once.
fn most_strips(capabilities: &Capabilities) -> u32 {
    if capabilities.cpu { 8 } else { 1 }
}

/// Neighbouring words of a row that a workgroup walks: as many as a vector of a CPU has; on a GPU 512 bytes, where the
/// tensor is large enough to fill the device with such blocks, down to 64 bytes, two sectors of memory, where it is not.
fn column_words(words: u64, workgroup_size: u32, capabilities: &Capabilities) -> u64 {
    if capabilities.cpu {
        return 8;
    }
    let per_workgroup = words / target_workgroups(capabilities) / u64::from(workgroup_size);
    if per_workgroup >= min_tile_rounds(capabilities) { 32 } else { 4 }
}

fn address(words: u64) -> Result<u32> {
    u32::try_from(words).map_err(|_| Error::TooLarge {
        what: "x",
        needed: words,
        unit: "words",
        limit_name: "address range",
        limit: u32::MAX.into(),
    })
}

fn too_many(elements: u64) -> Error {
    Error::TooLarge {
        what: "x",
        needed: elements,
        unit: "values",
        limit_name: "address range",
        limit: u32::MAX.into(),
    }
}

fn grid(groups: u64, capabilities: &Capabilities) -> Result<[u32; 2]> {
    let limit = u64::from(capabilities.max_workgroups_per_dimension);
    let rows = groups.div_ceil(limit);
    if rows > limit {
        return Err(Error::TooLarge {
            what: "x",
            needed: groups,
            unit: "workgroups",
            limit_name: "max_compute_workgroups_per_dimension squared",
            limit: limit * limit,
        });
    }
    Ok([groups.div_ceil(rows) as u32, rows as u32])
}

#[cfg(test)]
mod tests {
    use super::super::capabilities::table;
    use super::*;
    use crate::shape::{Layout, Shape};

    const FREE: Tuning =
        Tuning { width: None, workgroup_size: None, team_size: None, splits: None, rows: None, strip: None };

    fn walk(dims: &[usize], layout: Layout) -> Walk {
        Walk::channels(Shape::new(dims).unwrap().channels(layout).unwrap(), Alignment::Same(0))
    }

    fn first(dims: &[usize]) -> Walk {
        walk(dims, Layout::ChannelsFirst)
    }

    /// Shapes as `[N, C, …]`; channels last moves C to the end.
    const SHAPES: [&[usize]; 12] = [
        &[8, 64, 112, 112],
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
    fn decisions_are_written_down() {
        let mut lines = String::new();
        for (name, capabilities) in table::ALL {
            for dims in SHAPES {
                for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                    let plan = plan_walk(&in_layout(dims, layout), &capabilities, &FREE).unwrap();
                    lines += &format!("{name} {layout} {dims:?}\n    {plan}\n");
                    for reason in &plan.reasons {
                        lines += &format!("        {reason}\n");
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
                            let alignment = Alignment::Same(phase);
                            let walk = Walk { alignment, ..in_layout(dims, layout) };
                            let p = plan_walk(&walk, &capabilities, &tuning).unwrap();
                            let (splits, tile) = (u64::from(p.splits), u64::from(p.tile_words));
                            assert!((splits - 1) * tile < p.slice_words.into(), "an empty tile: {p}");
                            assert!(splits * tile >= p.slice_words.into(), "values left out: {p}");
                            let groups = u64::from(p.grid[0]) * u64::from(p.grid[1]);
                            assert!(groups >= u64::from(p.blocks) * splits, "{p}");
                            let teams = p.blocks * (p.workgroup_size / p.team_size) * p.strip;
                            let covered = if p.walk == WalkKind::Columns { p.run_words } else { p.slices };
                            assert!(teams >= covered, "{p}");
                            let values = u64::from(p.slice_words)
                                * match p.walk {
                                    WalkKind::Columns => u64::from(p.records),
                                    WalkKind::Segments => u64::from(p.slices * p.width),
                                };
                            assert!(values >= u64::from(p.elements), "{p}");
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
        let walk = |elements| Walk::flat(elements, Alignment::Same(0));
        assert!(plan_walk(&walk(1 << 31), &table::H200, &FREE).is_ok());
        let refused = plan_walk(&walk(1 << 33), &table::H200, &FREE);
        assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    }

    #[test]
    fn grids_fold_beyond_one_dimension() {
        let teams = Tuning { team_size: Some(256), ..FREE };
        let p = plan_walk(&first(&[1, 100_000, 1, 2]), &table::WEBGPU, &teams).unwrap();
        assert_eq!(p.grid, [50_000, 2]);
        let pattern = Pattern::Columns { slices: 1 << 31, rows: 1 };
        let huge = Walk { pattern, alignment: Alignment::Same(0) };
        let narrow = Capabilities { max_workgroups_per_dimension: 1024, ..table::WEBGPU };
        assert!(matches!(plan_walk(&huge, &narrow, &FREE), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn words_are_wide_wherever_they_can_be() {
        let words = |dims: &[usize], alignment| {
            let p = plan_walk(&Walk { alignment, ..first(dims) }, &table::RTX, &FREE).unwrap();
            (p.width, p.edges)
        };
        assert_eq!(words(&[2, 3, 4, 4], Alignment::Same(0)), (4, false));
        assert_eq!(words(&[2, 3, 4, 4], Alignment::Same(1)), (4, true));
        assert_eq!(words(&[2, 3, 4, 4], Alignment::Differs), (1, false));
        assert_eq!(words(&[2, 3, 4, 4], Alignment::Cut), (1, false));
        assert_eq!(words(&[2, 3, 7, 7], Alignment::Same(0)), (4, true));
        assert_eq!(words(&[2, 3, 3], Alignment::Same(0)), (4, true));
        assert_eq!(words(&[2, 3, 2], Alignment::Same(0)), (1, false));
        assert_eq!(words(&[8, 4], Alignment::Same(0)), (4, false));
        assert_eq!(words(&[8, 5], Alignment::Same(0)), (4, false));
        assert_eq!(words(&[7, 5], Alignment::Same(0)), (4, true));
        assert_eq!(words(&[8, 4], Alignment::Same(3)), (4, true));
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
