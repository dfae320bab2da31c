// x̂ and z = x̂·gamma + beta from what forward was given: x.

fn xhat_of(at: Cursor, x: Word, s: Statistics) -> Word {
    return centred(at, x, s) * spread(at, s.inv_std);
}

fn z_of(at: Cursor, x: Word, s: Statistics) -> Word {
    // One rounding less than (centred·inv_std)·gamma.
    return with_residual(at, fma(centred(at, x, s), scale_at(at, s), beta_at(at, s)));
}
