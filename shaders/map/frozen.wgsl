// dx through frozen statistics: dx = dy·gamma·inv_std. Finite even where x is not.
//
// Bindings: dy (of the including kernel); dx: map/dx.wgsl.

fn dx_of(at: Cursor, upstream: Word, s: Statistics) -> Word {
    return upstream * spread(at, s.gamma * s.inv_std);
}

fn emit_dx(at: Cursor, upstream: Word, s: Statistics) {
    store(at, dx_of(at, upstream, s));
}

fn emit_dx_edges(tile: Tile, s: Statistics) {
    if (EDGES) {
        for (var edge = 0u; edge < 2u; edge += 1u) {
            let at = cursor_of_edge(tile, edge);
            if (at.index < tile.end) {
                store_part(at, dx_of(at, dy[params.dy_offset + at.word], s));
            }
        }
    }
}
