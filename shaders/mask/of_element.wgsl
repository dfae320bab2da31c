// The mask of a word of several rows (walk/columns.wgsl): each value is at the position of its own row.

fn unmasked(at: Cursor) -> WordB {
    // Wraps below zero where the window begins inside of the word.
    let first = params.mask_lead + at.at * WORD_WIDTH - params.before;
    var bits = 0u;
    for (var k = 0u; k < WORD_WIDTH; k += 1u) {
        bits |= mask_bit(params.mask_first + (first + k) / params.slices) << k;
    }
    return word_of_bits(bits);
}
