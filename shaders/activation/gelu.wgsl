// z·Φ(z), Φ the distribution function of N(0, 1) (lib/normal.wgsl): PyTorch's gelu, the one by erf.

fn activate(z: Word) -> Word {
    return z * standard_normal(z).below;
}

fn gradient(z: Word, upstream: Word) -> Word {
    let n = standard_normal(z);
    return upstream * (n.below + select(z * n.density, Word(0.0), n.density == Word(0.0)));
}
