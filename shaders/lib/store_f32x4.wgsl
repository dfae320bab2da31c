// Writing the words of a map to `out`.
//
// A word is written by exactly one invocation, because a store to one component may touch all of it.
// Where a tensor begins or ends inside of a word, the other values of that word belong to somebody
// else; no other invocation touches it, so its components are written one by one, after the walk.

fn store(at: Cursor, word: Word) {
    if (EDGES) {
        if (!whole(at)) {
            return;
        }
    }
    out[out_offset() + at.word] = word;
}

fn store_part(at: Cursor, word: Word) {
    for (var k = 0u; k < WORD_WIDTH; k += 1u) {
        if (at.word * WORD_WIDTH + k - params.phase < params.elements) {
            out[out_offset() + at.word][k] = word[k];
        }
    }
}
