// Where the words of `$NAME` are in its binding.

fn $NAME_word(at: Cursor) -> u32 {
    var i = params.$NAME_offset + at.word;
    if (STRIDED) {
        i += skipped(at, params.$NAME_row_skip, params.$NAME_sample_skip);
    }
    return i;
}
