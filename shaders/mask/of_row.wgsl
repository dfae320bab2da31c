// The mask of a word of a row (walk/columns.wgsl, without EDGES, one row at a time): all of its values are at one position.

fn unmasked(at: Cursor) -> WordB {
    return WordB(mask_bit(params.mask_first + at.index) != 0u);
}
