// Writing the words of a map to `out`. A word of one value belongs to one slice.

fn store(at: Cursor, word: Word) {
    out[out_offset() + at.word] = word;
}

fn store_part(at: Cursor, word: Word) {}
