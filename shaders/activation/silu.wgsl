// z·σ(z), σ the logistic function. Also known as swish.

fn activate(z: Word) -> Word {
    return z * logistic(z).value;
}

fn gradient(z: Word, upstream: Word) -> Word {
    let s = logistic(z);
    // Far from 0 the slope vanishes, also against an infinite z.
    return upstream * (s.value + select(z * s.slope, Word(0.0), s.slope == Word(0.0)));
}
