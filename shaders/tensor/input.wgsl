// A tensor that is read in words, `$NAME`: bound here.
//
// Bindings: $NAME: any rank, walked as words.

@group(0) @binding($SLOT) var<storage, $INPUT> $NAME: array<Stored>;

fn $NAME_at(at: Cursor) -> Word {
    let i = $NAME_word(at);
    return widened($NAME[place(i)], i);
}
