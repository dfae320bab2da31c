//! How a problem is cut into workgroups: a pure function of the problem, the capabilities and what the caller forces.

use super::geometry::{Geometry, Words};
use super::tuned::{min_tile_rounds, target_workgroups, workgroup_size};
use super::{Capabilities, Plan, Tuning, Walk, WalkKind};
use crate::error::{Error, Result};

/// Values that one accumulator sums before it is merged: `SCALE` in shaders/lib/accumulate.wgsl allows for 64.
const CHUNK_VALUES: u32 = 64;
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
            u64::from(forced)
        }
        None => choose_splits(&geometry, blocks, repeat, capabilities, &mut reasons),
    };
    if splits > splits_allowed {
        reasons.push(format!("splits: no more than {splits_allowed} for the loop limit"));
    }
    let splits = splits.min(splits_allowed);
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
    use super::super::problem::{Alignment, Pattern};
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
