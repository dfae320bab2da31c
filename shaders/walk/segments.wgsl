// Walking slices that are made of contiguous runs (channels-first batch norm: one run per sample).
//
// The window's part of a slice is cut into `splits` tiles of consecutive words; a team walks one tile, neighbouring
// invocations neighbouring words, so loads coalesce. The place within a run is carried along: one
// comparison per word instead of an integer division (which halves the speed of a map on lavapipe).
//
// A step is a strip of STRIP such words of the team, one behind the other; every tile is a whole number of steps.
//
// With EDGES runs begin and end inside of words. All words that a run touches are walked, a fixed
// number `run_words` for each run, and values of other runs are masked. In a map, a word is written
// by the run that its first value belongs to, with the values of the run that follows
// (walk/per_pair.wgsl). Runs are at least three values long, so a word holds two of them at most.
//
//   slices, records     statistics, and partial results per split: one of each per slice
//   slice_words         words of one slice in the window: runs × run_words
//   span_words,         a slice is cut into spans of span_words words (one run, or all of it), each of
//   span_tiles          which into span_tiles tiles of tile_words words, the last of a span being shorter
//   slice_stride,       distance between the starts of neighbouring slices and runs,
//   run_stride          in words, with EDGES in values
//   step_runs,          TEAM_SIZE words, from one of an invocation to its next, are step_runs whole runs, whose
//   step_stride,        strides are step_stride, and step_words words
//   step_words
//
// Grid: ceil(window_slices / TEAMS) × splits workgroups, slice-major, folded to two dimensions where it
// exceeds one. Invocations past the last slice have an empty range and `live = false`, so that
// barriers stay in uniform control flow.

// Words of a strip whose statistics differ: all are of one slice.
const STRANDS: u32 = 1u;
// Words of a slice that a step of a team takes.
override STEP: u32 = TEAM_SIZE * STRIP;

struct Tile {
    // Among those of the window.
    slice: u32,
    // Among those of all windows.
    split: u32,
    // Words [begin, end) of the slice, as far as the window has it.
    begin: u32,
    end: u32,
    // The invocation's team within the workgroup, and its place in the team.
    team: u32,
    member: u32,
    live: bool,
}

struct Cursor {
    // Index of the word within its slice.
    index: u32,
    // Index of the word within its run.
    at: u32,
    // Start of the run, in the unit of the strides.
    start: u32,
    // Address of the word within the tensor.
    word: u32,
    // With EDGES: the place within the run of the word's first value; wraps below zero.
    first: u32,
    // With STRIDED: the run, which is a sample.
    run: u32,
}

fn tile_of_slices(block: u32, split: u32, lane: u32) -> Tile {
    let team = lane / TEAM_SIZE;
    let member = lane - team * TEAM_SIZE;
    let slice = block * TEAMS + team;
    if (slice >= params.window_slices) {
        return Tile(0u, 0u, 0u, 0u, team, member, false);
    }
    let span = split / params.span_tiles;
    let span_begin = span * params.span_words;
    let begin = span_begin + (split - span * params.span_tiles) * params.tile_words;
    let span_end = min(span_begin + params.span_words, params.slice_words);
    let end = min(begin + params.tile_words, span_end);
    return Tile(slice, params.first_split + split, begin, end, team, member, true);
}

fn tile_of(workgroup: vec3<u32>, workgroups: vec3<u32>, lane: u32) -> Tile {
    let flat = workgroup.y * workgroups.x + workgroup.x;
    let block = flat / params.splits;
    return tile_of_slices(block, flat - block * params.splits, lane);
}

// For folds, which have one team per slice and no words to walk.
fn team_of_slice(workgroup: vec3<u32>, workgroups: vec3<u32>, lane: u32) -> Tile {
    return tile_of_slices(workgroup.y * workgroups.x + workgroup.x, 0u, lane);
}

// Where an invocation is in its workgroup, and how far from the next member of its team.
override MEMBER_DISTANCE: u32 = 1u;

fn lane_of(tile: Tile) -> u32 {
    return tile.team * TEAM_SIZE + tile.member;
}

fn strand_of(j: u32) -> u32 {
    return 0u;
}

fn strand_tile(tile: Tile, strand: u32) -> Tile {
    return tile;
}

fn strand_cursor(at: Cursor, strand: u32) -> Cursor {
    return at;
}

// The slice of a component among all, and the place of its partial result. The second of a pair is the next
// slice, after the last one the first: that is how runs follow each other in memory.
fn slice_of(tile: Tile, k: u32) -> u32 {
    let slice = params.first_slice + tile.slice + k;
    return select(slice, slice - params.slices, slice >= params.slices);
}

fn record_of(tile: Tile, k: u32) -> u32 {
    return slice_of(tile, k);
}

// Whether the sums of a component are this team's result.
fn owns(tile: Tile, k: u32) -> bool {
    return tile.live && tile.member == 0u && k == 0u;
}

// Whether the invocation is the one that writes what there is once per slice.
fn writes(tile: Tile, k: u32) -> bool {
    return owns(tile, k) && tile.split == 0u;
}

fn cursor_of(index: u32, at: u32, start: u32, run: u32) -> Cursor {
    if (!EDGES) {
        return Cursor(index, at, start, start + at, 0u, run);
    }
    // A run that touches fewer than `run_words` words may lie at the end of the buffer.
    let word = min(start / WORD_WIDTH + at, params.last_word);
    return Cursor(index, at, start, word, at * WORD_WIDTH - start % WORD_WIDTH, run);
}

fn cursor_at(slice: u32, index: u32) -> Cursor {
    let run = index / params.run_words;
    let start = params.phase + slice * params.slice_stride + run * params.run_stride;
    return cursor_of(index, index - run * params.run_words, start, run);
}

fn cursor_first(tile: Tile) -> Cursor {
    return cursor_at(tile.slice, tile.begin + tile.member);
}

fn cursor_next(cursor: Cursor) -> Cursor {
    let at = cursor.at + params.step_words;
    let wraps = at >= params.run_words;
    return cursor_of(
        cursor.index + TEAM_SIZE,
        at - select(0u, params.run_words, wraps),
        cursor.start + params.step_stride + select(0u, params.run_stride, wraps),
        cursor.run + params.step_runs + select(0u, 1u, wraps),
    );
}

fn strip_next(at: Cursor, here: Cursor, j: u32) -> Cursor {
    return cursor_next(here);
}

fn step_next(at: Cursor, beyond: Cursor) -> Cursor {
    return beyond;
}

fn skipped(at: Cursor, row_skip: u32, sample_skip: u32) -> u32 {
    return at.run * sample_skip;
}

// The window's first word and last word if they belong to others in part, for the one invocation that
// walks them: past the end for all others.
fn cursor_of_edge(tile: Tile, edge: u32) -> Cursor {
    let end = params.phase + params.elements;
    let first_of_run = (end - params.inner) / WORD_WIDTH;
    let last_index = params.slice_words - params.run_words + params.last_word - first_of_run;
    let head = edge == 0u;
    let slice = select(params.window_slices - 1u, 0u, head);
    let index = select(last_index, 0u, head);
    let part = select(end, params.phase, head) % WORD_WIDTH != 0u;
    let here = tile.live & (tile.slice == slice) & (index >= tile.begin) & (index < tile.end)
        & (tile.member == (index - tile.begin) % TEAM_SIZE);
    // A word that is both counts as the first.
    let twice = !head & (params.last_word == 0u) & (params.before % WORD_WIDTH != 0u);
    var at = cursor_at(slice, index);
    at.index = select(0xffffffffu, at.index, part & here & !twice);
    return at;
}

fn places(at: Cursor) -> WordU {
    return WordU(at.first) + WORD_PLACES;
}

// The components that hold values of the slice.
fn inside(at: Cursor) -> WordB {
    return places(at) < WordU(params.inner);
}

// The components after the end of the run (and, of no interest, those before its start).
fn past_run(at: Cursor) -> WordB {
    return places(at) >= WordU(params.inner);
}

// Whether the word is this invocation's to write, and all of it is the window's.
fn whole(at: Cursor) -> bool {
    let first = at.word * WORD_WIDTH - params.before;
    return at.first < params.inner && first < params.elements && params.elements - first >= WORD_WIDTH;
}
