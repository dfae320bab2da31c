// The gradient of the residual, which is dz.
//
// Bindings: d_residual: tensor/output.wgsl.

fn emit_d_residual(at: Cursor, dz: Word) {
    store_d_residual(at, dz);
}

// Before those of dx, which may be written over dy.
fn emit_d_residual_edges(tile: Tile, s: Statistics) {
    if (EDGES) {
        for (var edge = 0u; edge < 2u; edge += 1u) {
            let at = cursor_of_edge(tile, edge);
            if (at.index < tile.end) {
                store_part_d_residual(at, dz_of(at, x_at(at), statistics_at(at, s, s, 0u)));
            }
        }
    }
}
