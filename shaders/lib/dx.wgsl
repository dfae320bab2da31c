// dx through batch statistics, in the x̂ form (collected coefficients like gamma·inv_std³ underflow for channels of large
// scale):
//
//   dx = gamma·inv_std·(dz − Σ dz / n − x̂·Σ dz·x̂ / n)

// The sums divided by the number of values, which is that of the statistics: forward saved it with them.
fn means_of(sums: GradientSums, s: Statistics) -> GradientSums {
    // Sums over nothing are 0, and so are their means.
    let count = max(s.count, Stat(1.0));
    return GradientSums(sums.dz / count, sums.dz_xhat / count);
}

fn dx_of(at: Cursor, dz: Word, xhat: Word, s: Statistics, mean: GradientSums) -> Word {
    let centred = dz - spread(at, mean.dz);
    return kept(at, fma(-xhat, spread(at, mean.dz_xhat), centred) * spread(at, s.gamma * s.inv_std));
}
