// dx through batch statistics, in the x̂ form (collected coefficients like gamma·inv_std³ underflow for channels of large
// scale):
//
//   dx = gamma·inv_std·(dz − Σ dz / n − x̂·Σ dz·x̂ / n)

// The statistics with the sums divided by the number of values, which is theirs: forward saved it with them.
fn with_means(s: Statistics, sums: GradientSums) -> Statistics {
    var t = s;
    // Sums over nothing are 0, and so are their means.
    let count = max(s.count, Stat(1.0));
    t.mean_dz = sums.dz / count;
    t.mean_dz_xhat = sums.dz_xhat / count;
    return t;
}

fn dx_of(at: Cursor, x: Word, dz: Word, s: Statistics) -> Word {
    let centred = dz - spread(at, s.mean_dz);
    return kept(at, fma(-xhat_of(at, x, s), spread(at, s.mean_dz_xhat), centred) * spread(at, s.gamma * s.inv_std));
}
