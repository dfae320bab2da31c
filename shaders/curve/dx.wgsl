// dx through a curve: dx = dz·gamma·alpha·f'(u), u = alpha·x + shift.

fn dx_of(at: Cursor, x: Word, dz: Word, s: Statistics) -> Word {
    return kept(at, dz * (spread(at, s.gamma * s.inv_std) * curve_slope(argument_of(at, x, s))));
}
