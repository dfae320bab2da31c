// A tensor that is read in words, `$NAME`, and written over by `$OVER`: what it holds is read through the output's
// binding. A word is read by the invocation that writes it, before it does so.

fn $NAME_at(at: Cursor) -> Word {
    let i = $NAME_word(at);
    return widened($STORED, i);
}
