// tanh(z). Not the built-in function: some drivers overflow in it, and some clamp NaN.

fn activate(z: Word) -> Word {
    let e = exp(-2.0 * abs(z));
    let magnitude = (1.0 - e) / (1.0 + e);
    return select(magnitude, -magnitude, z < Word(0.0));
}

// 1 − tanh²(z).
fn gradient(z: Word, upstream: Word) -> Word {
    return upstream * (4.0 * logistic(2.0 * z).slope);
}
