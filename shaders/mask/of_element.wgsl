// The mask of a word of several rows (walk/columns.wgsl): each value is at the position of its own row.

fn unmasked(at: Cursor) -> WordB {
    // Wraps below zero where the window begins inside of the word.
    let first = params.mask_lead + at.at * WORD_WIDTH - params.before;
    let row = (WordU(first) + WORD_PLACES) / WordU(params.slices);
    return bits_at(WordU(params.mask_first) + row);
}
