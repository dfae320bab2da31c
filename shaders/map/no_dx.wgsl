// Where dx is not part of the walk: batch statistics, whose dx needs the sums first, or a caller who did not ask for it.

fn emit_dx(at: Cursor, x: Word, dz: Word, s: Statistics) {}

fn emit_dx_edges(tile: Tile, s: Statistics) {}
