// dx where the walk along columns has the statistics and means of rows (lib/statistics_of_row.wgsl): the sums over columns on the way are
// dgamma and dbeta.
//
// Bindings: dx: tensor/output.wgsl.

fn dx_at(at: Cursor, x: Word, dz: Word, s: Statistics) -> Word {
    return dx_of(at, dz, xhat_of(at, x, s), s, record_means(params.window_row + at.index));
}

fn emit_dx(at: Cursor, x: Word, dz: Word, s: Statistics) {
    store_dx(at, dx_at(at, x, dz, s));
}

fn emit_dx_edges(tile: Tile, s: Statistics) {
    if (EDGES) {
        for (var edge = 0u; edge < 2u; edge += 1u) {
            let at = cursor_of_edge(tile, edge);
            if (at.index < tile.end) {
                let x = x_at(at);
                let t = statistics_at(at, s, s, 0u);
                store_part_dx(at, dx_at(at, x, dz_of(at, x, t), t));
            }
        }
    }
}
