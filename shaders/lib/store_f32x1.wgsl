// Writing the words of a map to `out`. A word of one value belongs to one slice, but the last of several
// rows that are taken as one, or the end of a strip, may lie past the end of the tensor.

fn store(at: Cursor, word: Word) {
    if (EDGES) {
        if (!whole(at)) {
            return;
        }
    }
    out[out_offset() + at.word] = word;
}

fn store_part(at: Cursor, word: Word) {}
