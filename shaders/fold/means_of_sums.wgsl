// The means that dx subtracts, from the gradient sums of a slice.

// As `with_means` of lib/dx.wgsl, for norms whose slices are not channels:
//
//   centred: Σ g·dz / n, else 0        Σ g·dz·x̂ · pull
//
// pull is how much x̂ is pulled back for a unit of its sum: 1 / n; where eps is added to the deviation σ, (σ + eps) / (σ·n); for a length
// 1, or 0 where eps has replaced it.
fn with_means(zero: u32, s: Statistics, sums: GradientSums, record: SliceRecord) -> Statistics {
    let n = params.count;
    var pull = 1.0 / n;
    if (flag(zero, FLAG_DEVIATION)) {
        let deviation = sqrt(record.variance);
        pull = select(1.0 / (deviation * record.inv_std * n), 0.0, deviation == 0.0);
    }
    if (flag(zero, FLAG_LENGTH)) {
        pull = select(1.0, 0.0, sqrt(record.variance) * sqrt(n) < params.eps);
    }
    let centred = select(1.0 / n, 0.0, flag(zero, FLAG_UNCENTRED));
    var t = s;
    t.mean_dz = select(sums.dz * centred, Stat(0.0), centred == 0.0);
    t.mean_dz_xhat = sums.dz_xhat * pull;
    return t;
}
