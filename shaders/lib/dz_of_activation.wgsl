// dz, the gradient of z: dy·act'(z), with z computed once more from x, so that forward stores no mask.

fn dz_of(at: Cursor, x: Word, s: Statistics) -> Word {
    return kept(at, gradient(z_of(at, x, s), dy_at(at)));
}
