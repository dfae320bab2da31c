// Walking slices that are made of contiguous runs (channels-first batch norm: one run per sample).
//
// A slice is cut into `params.splits` tiles of consecutive words; one workgroup walks one tile,
// neighbouring invocations neighbouring words, so loads coalesce. The position within a run is
// carried along: one comparison per word instead of an integer division (which halves the speed
// of a map on lavapipe).
//
// Grid: slices × splits workgroups, slice-major, folded to two dimensions where it exceeds one.
// Workgroups past the last tile have an empty range and `live = false`, so that barriers stay in
// uniform control flow.

override WORKGROUP_SIZE: u32 = 256u;

struct Tile {
    slice: u32,
    split: u32,
    // Words [begin, end) of the slice.
    begin: u32,
    end: u32,
    live: bool,
}

struct Cursor {
    // Index of the word within its slice.
    index: u32,
    // Index of the word within its run.
    at: u32,
    // Address of the word within the tensor, in words.
    word: u32,
}

fn tile_of(workgroup: vec3<u32>, workgroups: vec3<u32>) -> Tile {
    let flat = workgroup.y * workgroups.x + workgroup.x;
    let slice = flat / params.splits;
    let split = flat - slice * params.splits;
    if (slice >= params.slices) {
        return Tile(0u, 0u, 0u, 0u, false);
    }
    let begin = split * params.tile_words;
    let end = min(begin + params.tile_words, params.slice_words);
    return Tile(slice, split, begin, end, true);
}

// For folds, which have one workgroup per slice: the whole slice as one tile.
fn slice_of(workgroup: vec3<u32>, workgroups: vec3<u32>) -> Tile {
    let slice = workgroup.y * workgroups.x + workgroup.x;
    if (slice >= params.slices) {
        return Tile(0u, 0u, 0u, 0u, false);
    }
    return Tile(slice, 0u, 0u, params.slice_words, true);
}

fn cursor_first(tile: Tile, lane: u32) -> Cursor {
    return cursor_at(tile.slice, tile.begin + lane);
}

fn cursor_at(slice: u32, index: u32) -> Cursor {
    let run = index / params.run_words;
    let at = index - run * params.run_words;
    return Cursor(index, at, slice * params.slice_stride + run * params.run_stride + at);
}

fn cursor_next(cursor: Cursor) -> Cursor {
    let at = cursor.at + params.step_words;
    let wraps = at >= params.run_words;
    return Cursor(
        cursor.index + WORKGROUP_SIZE,
        at - select(0u, params.run_words, wraps),
        cursor.word + params.step_stride + select(0u, params.wrap_stride, wraps),
    );
}

// Words from the cursor to the end of its chunk: at most `most`, at most to the end of the tile. For loops over a chunk
// that are counted and have no other exit: Mesa 22.3.6 miscompiles a chunk loop that breaks on either condition once it
// unrolls it (lanes with fewer words than their neighbours get wrong sums; only without wgpu's loop bounding).
fn words_of_chunk(cursor: Cursor, tile: Tile, most: u32) -> u32 {
    return min(most, (tile.end - cursor.index + WORKGROUP_SIZE - 1u) / WORKGROUP_SIZE);
}
