// dx, word by word: lib/dx.wgsl or lib/dx_weighted.wgsl through statistics of the batch, lib/frozen_dx.wgsl, or curve/dx.wgsl. In a reduction on
// the way, where it depends on no sums, or on those of another walk.
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
                let x = x_at(at);
                let t = statistics_at(at, s, s, 0u);
                store_part_dx(at, dx_of(at, x, dz_of(at, x, t), t));
            }
        }
    }
}
