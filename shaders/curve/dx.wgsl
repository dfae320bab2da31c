// dx through a curve: dx = dz·gamma·alpha·f'(u), u = alpha·x + shift.

fn dx_of(at: Cursor, x: Word, dz: Word, s: Statistics) -> Word {
    return kept(at, dz * (spread(at, s.gamma * s.alpha) * curve_slope(argument_of(x, s))));
}
