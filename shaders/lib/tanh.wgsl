// tanh and its derivative. Not the built-in function: some drivers overflow in it, and some clamp NaN.
//
// Near 0, where 1 − exp(−2·|z|) has no digits left, a minimax polynomial: tanh(z) = z + z·w·P(w), w = z², to a relative error of
// 4.4e-9 (that of f32 is 6e-8) for |z| up to 0.625. NaN takes the polynomial, which keeps it.

fn tanh_of(z: Word) -> Word {
    let e = exp(-2.0 * abs(z));
    let magnitude = (1.0 - e) / (1.0 + e);
    let far = select(magnitude, -magnitude, z < Word(0.0));
    let w = z * z;
    var p = Word(-0.005704986993);
    p = fma(p, w, Word(0.02063908724));
    p = fma(p, w, Word(-0.05373971509));
    p = fma(p, w, Word(0.133314422));
    p = fma(p, w, Word(-0.3333328194));
    let near = fma(z, w * p, z);
    return select(near, far, abs(z) >= Word(0.625));
}

// 1 − tanh²(z), by exp(−2·|z|): it keeps its digits where tanh is near 1.
fn tanh_slope(z: Word) -> Word {
    let e = exp(-2.0 * abs(z));
    let upper = 1.0 / (1.0 + e);
    return 4.0 * ((e * upper) * upper);
}
