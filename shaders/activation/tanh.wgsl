// tanh(z). Not the built-in function: some drivers overflow in it, and some clamp NaN.

fn activate(z: Word) -> Word {
    let e = exp(-2.0 * abs(z));
    let magnitude = (1.0 - e) / (1.0 + e);
    let far = select(magnitude, -magnitude, z < Word(0.0));
    // Near 0 the difference above has no digits left, but two terms of the series have all.
    let near = fma(z * z, z * (-1.0 / 3.0), z);
    return select(far, near, abs(z) < Word(0.02));
}

// 1 − tanh²(z).
fn gradient(z: Word, upstream: Word) -> Word {
    return upstream * (4.0 * logistic(2.0 * z).slope);
}
