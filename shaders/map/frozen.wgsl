// dx through frozen statistics: dx = dz·gamma·inv_std. Without an activation finite even where x is not.
//
// Bindings: dx: tensor/output.wgsl.

fn dx_of(at: Cursor, dz: Word, s: Statistics) -> Word {
    return kept(at, dz * spread(at, s.gamma * s.inv_std));
}

fn emit_dx(at: Cursor, x: Word, dz: Word, s: Statistics) {
    store_dx(at, dx_of(at, dz, s));
}

fn emit_dx_edges(tile: Tile, s: Statistics) {
    if (EDGES) {
        for (var edge = 0u; edge < 2u; edge += 1u) {
            let at = cursor_of_edge(tile, edge);
            if (at.index < tile.end) {
                store_part_dx(at, dx_of(at, dz_of(at, operand_at(at), s), s));
            }
        }
    }
}
