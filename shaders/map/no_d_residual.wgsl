// Where d_residual is not asked for, or there is no residual.

fn emit_d_residual(at: Cursor, dz: Word) {}

fn emit_d_residual_edges(tile: Tile, s: Statistics) {}
