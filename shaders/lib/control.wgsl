// Loops and branches that compilers take the wrong way.

// Words of a strand in so many steps.
fn words_of(steps: u32) -> u32 {
    return steps * (STRIP / STRANDS);
}

// Steps from the cursor to the end of its chunk: at most to the end of the tile, and as many as take `most` words of a
// strand, or one. For loops over a chunk that are counted and have no other exit: Mesa 22.3.6 miscompiles a chunk loop
// that breaks on either condition once it unrolls it (lanes with fewer words than their neighbours
// get wrong sums; only without wgpu's loop bounding).
fn steps_of_chunk(at: Cursor, tile: Tile, most: u32) -> u32 {
    return min(max(most / (STRIP / STRANDS), 1u), (tile.end - at.index + STEP - 1u) / STEP);
}

// A uniform value that alone decides a branch, hidden by a zero that no compiler knows: `workgroups.z - 1u`,
// because a grid has one layer. lavapipe (Mesa 22.3.6) specialises a kernel for the
// values of such uniforms, and does so anew each time the pipeline is bound: 1 to 2 ms for every
// dispatch. The zero is no part of `Tile`: a branch around a barrier must be uniform for those who analyse it.
fn deciding(zero: u32, value: u32) -> u32 {
    return value ^ zero;
}

fn flag(zero: u32, bit: u32) -> bool {
    return (deciding(zero, params.flags) & bit) != 0u;
}
