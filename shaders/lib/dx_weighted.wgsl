// dx where gamma is in the sums, because it varies within the slice or the group:
//
//   dx = inv_std·(gamma·dz − mean(gamma·dz) − x̂·mean(gamma·dz·x̂)) + d_sum, if there is one

fn dx_of(at: Cursor, dz: Word, xhat: Word, s: Statistics, mean: GradientSums) -> Word {
    let centred = fma(dz, gamma_at(at, s), -spread(at, mean.dz));
    return with_d_sum(at, fma(-xhat, spread(at, mean.dz_xhat), centred) * spread(at, s.inv_std));
}
