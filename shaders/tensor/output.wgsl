// A tensor that a map writes in words, `$NAME`.
//
// A word is written by exactly one invocation, because a store to one component may touch all of it. Where the tensor
// begins or ends inside of a word, the other values of that word belong to somebody else; no other invocation touches it,
// so its own values are written one by one, after the walk (`store_part_$NAME`).
//
// Bindings: $NAME: any rank, walked as words.

@group(0) @binding($SLOT) var<storage, read_write> $NAME: array<Stored>;

fn store_$NAME(at: Cursor, word: Word) {
    $NAME[$NAME_word(at)] = narrowed(word);
}

fn store_part_$NAME(at: Cursor, word: Word) {
    let i = $NAME_word(at);
    $NAME[i] = replaced($NAME[i], narrowed(word), inside_tensor(at));
}
