// For reduce_gradients where dx is not part of the walk: batch statistics, whose dx needs the sums
// first, or a caller who asked for dgamma and dbeta alone.

fn emit_dx(at: Cursor, upstream: Word, s: Statistics) {}

fn emit_dx_edges(tile: Tile, s: Statistics) {}
