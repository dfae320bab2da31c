// A tensor that the kernel does without, `$NAME`.

fn $NAME_at(at: Cursor) -> Word {
    return Word(0.0);
}
