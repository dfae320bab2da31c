// z with a residual, which is added before the activation.

fn with_residual(at: Cursor, z: Word) -> Word {
    return z + residual_at(at);
}

fn without_residual(at: Cursor, z: Word) -> Word {
    return z - residual_at(at);
}
