// What is normalized is there already.

fn taken_at(at: Cursor) -> Word {
    return value_at(at);
}

fn emit_sum_edges(tile: Tile) {}
