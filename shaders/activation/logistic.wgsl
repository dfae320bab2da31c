// The logistic function and its derivative, for the activations that are made of it.
//
// By exp(−|z|), which never overflows: neither loses digits where the function is near 0.

struct Logistic {
    value: Word,
    // value·(1 − value).
    slope: Word,
}

fn logistic(z: Word) -> Logistic {
    let e = exp(-abs(z));
    let upper = 1.0 / (1.0 + e);
    let lower = e * upper;
    return Logistic(select(upper, lower, z < Word(0.0)), lower * upper);
}
