// dz, the gradient of z: without an activation it is dy, whatever x is.

fn dz_of(at: Cursor, x: Word, s: Statistics) -> Word {
    return kept(at, dy_at(at));
}
