// What is normalized is written on the way (the residual stream of a pre-norm transformer).
//
// Bindings: sum: tensor/output.wgsl.

fn taken_at(at: Cursor) -> Word {
    let value = value_at(at);
    if (stores(at)) {
        store_sum(at, value);
    }
    return value;
}

fn emit_sum_edges(tile: Tile) {
    if (EDGES) {
        for (var edge = 0u; edge < 2u; edge += 1u) {
            let at = cursor_of_edge(tile, edge);
            if (at.index < tile.end) {
                store_part_sum(at, value_at(at));
            }
        }
    }
}
