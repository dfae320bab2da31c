// Words that belong to a slice, or to the tensor, in part. Without EDGES there are none.

// The components whose values enter what is reduced.
fn counts(at: Cursor) -> WordB {
    if (!EDGES) {
        return unmasked(at);
    }
    return inside(at) & unmasked(at);
}

// The word with 0 in place of what is not of the slices walked, or is masked; by selection, so that a NaN of a
// neighbour does not leak.
fn within(at: Cursor, word: Word) -> Word {
    if (!EDGES && !MASKED) {
        return word;
    }
    return select(Word(0.0), word, counts(at));
}

// Whether the invocation writes the word as a whole. What it does not write it need not read; in place, it must not.
fn stores(at: Cursor) -> bool {
    if (!EDGES) {
        return true;
    }
    return whole(at);
}

// The components that are the window's, of a word that others share.
fn inside_tensor(at: Cursor) -> WordB {
    return WordU(at.word * WORD_WIDTH - params.before) + WORD_PLACES < WordU(params.elements);
}
