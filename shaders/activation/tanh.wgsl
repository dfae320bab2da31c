// tanh(z).

fn activate(z: Word) -> Word {
    return tanh_of(z);
}

// 1 − tanh²(z).
fn gradient(z: Word, upstream: Word) -> Word {
    return upstream * tanh_slope(z);
}
