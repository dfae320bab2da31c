// z·min(max(z + 3, 0), 6) / 6. NaN passes. The gradient is 0 up to −3 and 1 from 3.

fn activate(z: Word) -> Word {
    let middle = z * ((z + 3.0) / 6.0);
    return select(select(middle, z, z >= Word(3.0)), Word(0.0), z <= Word(-3.0));
}

fn gradient(z: Word, upstream: Word) -> Word {
    let middle = upstream * fma(z, Word(1.0 / 3.0), Word(0.5));
    return select(select(middle, upstream, z >= Word(3.0)), Word(0.0), z <= Word(-3.0));
}
