// max(z, 0). NaN passes; the gradient at 0 is 0.

fn activate(z: Word) -> Word {
    return select(z, Word(0.0), z <= Word(0.0));
}

fn gradient(z: Word, upstream: Word) -> Word {
    return select(upstream, Word(0.0), z <= Word(0.0));
}
