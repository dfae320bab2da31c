// z without a residual.

fn with_residual(at: Cursor, z: Word) -> Word {
    return z;
}

fn without_residual(at: Cursor, z: Word) -> Word {
    return z;
}
