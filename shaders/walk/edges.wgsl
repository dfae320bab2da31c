// Words that belong to a slice, or to the tensor, in part. Without EDGES there are none.

// The word with 0 in place of what is not of the slices walked; by selection, so that a NaN of a
// neighbour does not leak.
fn within(at: Cursor, word: Word) -> Word {
    if (!EDGES) {
        return word;
    }
    return select(Word(0.0), word, inside(at));
}

// Steps from the cursor to the end of its chunk: at most `most`, at most to the end of the tile. For
// loops over a chunk that are counted and have no other exit: Mesa 22.3.6 miscompiles a chunk loop
// that breaks on either condition once it unrolls it (lanes with fewer words than their neighbours
// get wrong sums; only without wgpu's loop bounding).
fn words_of_chunk(at: Cursor, tile: Tile, most: u32) -> u32 {
    return min(most, (tile.end - at.index + TEAM_SIZE - 1u) / TEAM_SIZE);
}

// A uniform value that alone decides a branch. lavapipe (Mesa 22.3.6) specialises a kernel for the
// values of such uniforms, and does so anew each time the pipeline is bound: 1 to 2 ms for every
// dispatch. A grid has one layer, but no compiler knows.
fn deciding(tile: Tile, value: u32) -> u32 {
    return value ^ tile.zero;
}

fn flag(tile: Tile, bit: u32) -> bool {
    return (deciding(tile, params.flags) & bit) != 0u;
}
