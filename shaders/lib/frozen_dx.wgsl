// dx through frozen statistics: dx = dz·gamma·inv_std. Without an activation finite even where x is not.

fn dx_of(at: Cursor, x: Word, dz: Word, s: Statistics) -> Word {
    return kept(at, dz * spread(at, s.gamma * s.inv_std));
}
