//! The policy on adapters whose limits are written down: what it decides, what it must never exceed.

use super::super::Op;
use super::super::capabilities::table;
use super::super::plan::MOMENTS_BYTES;
use super::super::problem::{Alignment, Part, Pattern};
use super::*;
use crate::base::shape::{Layout, Shape};

const FREE: Tuning = Tuning {
    width: None,
    workgroup_size: None,
    team_size: None,
    splits: None,
    rows: None,
    strip: None,
    depth: None,
    tile: None,
    window_bytes: None,
    binding_bytes: None,
    integer_f16: false,
    resident: None,
    subgroups: None,
    group_bytes: None,
    along_columns: None,
    folds_apart: None,
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
                let part = if capabilities.cpu { 100 } else { 32 };
                let most = (bytes / part).max(least);
                assert!(
                    bytes <= 4 << 20 || workspace <= most,
                    "{name} {layout} {dims:?}: {workspace}: {plan}"
                );
            }
        }
    }
}

#[test]
fn many_partial_results_are_folded_apart_on_a_gpu() {
    let last = |foldable| Walk { foldable, ..walk(&[32, 256, 56, 56], Layout::ChannelsLast) };
    let plan = |walk: &Walk, tuning: &Tuning| plan_walk(walk, &table::H200, tuning).unwrap();
    let (apart, merged) = (plan(&last(true), &FREE), plan(&last(false), &FREE));
    assert!(
        apart.folds_apart && !merged.folds_apart && apart.splits > 2 * merged.splits,
        "{apart}, {merged}"
    );
    assert!(!plan(&last(true), &FREE.folds_apart(Some(false))).folds_apart);
    // A small tensor, one partial result, and a CPU have no use for it.
    let few = |dims: &[usize]| Walk { foldable: true, ..first(dims) };
    assert!(!plan(&few(&[2, 64, 14, 14]), &FREE).folds_apart);
    assert!(!plan(&few(&[2, 64, 14, 14]), &FREE.splits(Some(1)).folds_apart(Some(true))).folds_apart);
    assert!(!plan_walk(&last(true), &table::LAVAPIPE, &FREE).unwrap().folds_apart);
    assert!(plan_walk(&last(true), &table::LAVAPIPE, &FREE.folds_apart(Some(true))).unwrap().folds_apart);
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
                    let training = Walk { held: Some(held), foldable: true, ..walk.clone() };
                    let trained = plan_walk(&training, &capabilities, &FREE);
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
        assert_eq!(spans * u64::from(window.span_tiles), u64::from(window.splits), "{p}: {window:?}");
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
    let shapes: [&[usize]; 6] =
        [&[1, 1, 1, 1], &[3, 5, 7, 9], &[2, 3, 64, 64], &[1, 2, 300, 1000], &[70000, 2, 1, 1], &[2, 7, 3]];
    for (_, capabilities) in table::ALL {
        for splits in [None, Some(1), Some(2), Some(7), Some(1000)] {
            for team_size in [None, Some(1), Some(4)] {
                for (dims, phase) in shapes.iter().flat_map(|dims| (0..4).map(move |phase| (dims, phase))) {
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
                for dims in
                    [&[1, 1, elements][..], &[elements / 4, 5], &[elements / 64, 64], &[elements / 999, 999]]
                {
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
fn no_row_of_several_reaches_over_the_end_of_a_matrix() {
    for (_, capabilities) in table::ALL {
        for slices in [3, 4, 6, 9, 320, 321] {
            for inner in [1, 2, 6, 7, 12, 49, 64, 1024] {
                for (splits, rows) in [(None, None), (Some(5), None), (None, Some(2)), (None, Some(3))] {
                    let pattern = Pattern::Matrices { slices, samples: 3, inner };
                    let tuning = Tuning { splits, rows, ..FREE };
                    let p = plan_walk(&Walk::plain(pattern, 3, 0), &capabilities, &tuning).unwrap();
                    let repeat = u64::from(p.records) / slices;
                    assert_eq!(p.width, if slices * inner % 4 == 0 { 4 } else { 1 }, "{pattern:?} {p}");
                    assert_eq!(inner % repeat, 0, "{pattern:?} {p}");
                    let tiles = u64::from(p.matrix_splits);
                    assert_eq!(tiles * u64::from(p.tile_words) * repeat, inner, "{pattern:?} {p}");
                    assert_eq!(u64::from(p.splits), 3 * tiles, "{pattern:?} {p}");
                }
            }
        }
    }
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
                for (splits, width) in [(None, None), (Some(1), None), (Some(30), None), (Some(3), Some(1))] {
                    let mut walk = walk(dims, layout);
                    walk.parts[0].phase = phase;
                    let window_bytes = Some(20_000);
                    let tuning = Tuning { splits, width, window_bytes, ..FREE };
                    let p = plan_walk(&walk, &capabilities, &tuning).unwrap();
                    assert!(p.windows.len() > 1, "{p}");
                    assert_covered(&walk, &p);
                    let longest = p.windows.iter().map(|w| w.elements.end - w.elements.start).max().unwrap();
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
                    assert_eq!((whole.tile_words, whole.splits), (p.tile_words, p.splits), "{p} / {whole}");
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
    assert!(matches!(refused, Err(Error::Tuning { choice: "tile", got: 17, .. })));
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
        let whole = plan_walk(&walk, &table::LAVAPIPE, &Tuning { tile: Some(p.tile_words), ..FREE }).unwrap();
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
            let p = plan_walk(&walk, &capabilities, &FREE).unwrap_or_else(|e| panic!("{name} {dims:?}: {e}"));
            let end = p.windows.last().unwrap().elements.end;
            assert_eq!(end, walk.pattern.elements(), "{name} {p}");
            for window in &p.windows {
                assert!(4 * (window.elements.end - window.elements.start) <= capabilities.max_binding_bytes);
            }
        }
    }
}

#[test]
fn what_is_forced_must_fit() {
    let forced = |tuning| plan_walk(&first(&[2, 3, 4]), &table::RTX, &tuning);
    let refused =
        |tuning| matches!(forced(tuning), Err(Error::MissingCapability { .. } | Error::Tuning { .. }));
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

#[test]
fn matrices_of_a_prime_number_of_rows() {
    // A tile divides the rows: more than the policy's workgroups of a CPU walk.
    for (name, capabilities) in table::ALL {
        for inner in [10_007, 400_009, 1_000_003] {
            let pattern = Pattern::Matrices { slices: 3, samples: 2, inner };
            let walk = Walk { pattern, ..walk(&[2, inner as usize, 3], Layout::ChannelsLast) };
            let plan =
                plan_walk(&walk, &capabilities, &FREE).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(plan.longest_loop < capabilities.max_loop_iterations, "{name}: {plan}");
            // Partial results of every row would be more than the rows.
            assert!(plan.splits < 100, "{name}: {plan}");
        }
    }
}
