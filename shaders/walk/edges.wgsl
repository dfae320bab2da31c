// Words that belong to a slice, or to the tensor, in part. Without EDGES there are none.

// The word with 0 in place of what is not of the slices walked; by selection, so that a NaN of a
// neighbour does not leak.
fn within(at: Cursor, word: Word) -> Word {
    if (!EDGES) {
        return word;
    }
    return select(Word(0.0), word, inside(at));
}
