// dx where it depends on no sums: through frozen statistics (lib/frozen_dx.wgsl), or a curve (curve/dx.wgsl).
//
// Bindings: dx: tensor/output.wgsl.

fn emit_dx(at: Cursor, x: Word, dz: Word, s: Statistics) {
    store_dx(at, dx_of(at, x, dz, s));
}

fn emit_dx_edges(tile: Tile, s: Statistics) {
    if (EDGES) {
        for (var edge = 0u; edge < 2u; edge += 1u) {
            let at = cursor_of_edge(tile, edge);
            if (at.index < tile.end) {
                let x = operand_at(at);
                store_part_dx(at, dx_of(at, x, dz_of(at, x, s), s));
            }
        }
    }
}
