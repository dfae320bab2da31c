// What a map needs to know of a slice: statistics and affine parameters.
//
//   x̂ = ((x − shift) − delta)·inv_std        y = x̂·gamma + beta
//
// The mean stays in two parts, so the error of x̂ does not grow with |mean| / std.

struct Statistics {
    shift: f32,
    delta: f32,
    inv_std: f32,
    variance: f32,
    gamma: f32,
    beta: f32,
    unused_0: u32,
    unused_1: u32,
}

// 1 / sqrt(var + eps), or NaN where the variance is NaN or has overflowed: inverseSqrt(inf) = 0
// would turn such a slice into a finite constant.
fn inv_std_of(variance: f32) -> f32 {
    let finite = variance <= 0x1.fffffep+127f;
    return select(params.nan, inverseSqrt(variance + params.eps), finite);
}

fn centred(x: Word, s: Statistics) -> Word {
    return (x - Word(s.shift)) - Word(s.delta);
}

fn normalized(x: Word, s: Statistics) -> Word {
    return centred(x, s) * s.inv_std;
}
