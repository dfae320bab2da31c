// What a map needs to know of a slice: statistics and affine parameters.
//
//   x̂ = ((x − shift) − delta)·inv_std        y = x̂·gamma + beta
//
// The mean stays in two parts, so the error of x̂ does not grow with |mean| / std.

struct Statistics {
    shift: Stat,
    delta: Stat,
    inv_std: Stat,
    gamma: Stat,
    beta: Stat,
    // Values that mean and variance are taken over, of x alone or of more; where statistics are frozen, of no meaning.
    count: Stat,
    // Where gamma and beta vary within the slice (affine/of_place.wgsl): the first of its parameters, and those of the word at hand.
    first_parameter: StatU,
    place_gamma: Word,
    place_beta: Word,
    // What dx subtracts: the mean of dz and that of dz·x̂ (lib/dx.wgsl). Forward has none.
    mean_dz: Stat,
    mean_dz_xhat: Stat,
}

fn statistics_of(shift: Stat, delta: Stat, inv_std: Stat, gamma: Stat, beta: Stat, count: Stat) -> Statistics {
    return Statistics(shift, delta, inv_std, gamma, beta, count, StatU(0u), Word(0.0), Word(0.0), Stat(0.0), Stat(0.0));
}

// Statistics of one slice in memory, as forward saves them. Rust twin: `norm::saved::SavedRecord`.
struct StatisticsRecord {
    shift: f32,
    delta: f32,
    inv_std: f32,
    variance: f32,
    // As maps use them: those of the layer, or with batch renorm gamma·r and beta + gamma·d.
    gamma: f32,
    beta: f32,
    // Bits: see STATUS_* below.
    status: u32,
    // Values that the statistics cover.
    count: f32,
    // Of batch renorm (fold/renorm.wgsl); else 1 and 0.
    r: f32,
    d: f32,
}

// y was written over x, and gamma is too small to recover x̂ from it: the backward pass gives NaN.
const STATUS_LOST: u32 = 1u;

// 1 / sqrt(var + eps), or NaN where the variance is NaN or has overflowed: inverseSqrt(inf) = 0
// would turn such a slice into a finite constant.
fn inv_std_of(variance: Stat) -> Stat {
    let finite = variance <= Stat(0x1.fffffep+127f);
    return select(Stat(params.nan), inverseSqrt(variance + Stat(params.eps)), finite);
}

fn centred(at: Cursor, x: Word, s: Statistics) -> Word {
    return (x - spread(at, s.shift)) - spread(at, s.delta);
}
