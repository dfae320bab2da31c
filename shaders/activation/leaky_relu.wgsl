// z where it is above 0, else z·slope. The gradient at 0 is the slope.

fn activate(z: Word) -> Word {
    return select(z * params.slope, z, z > Word(0.0));
}

fn gradient(z: Word, upstream: Word) -> Word {
    return select(upstream * params.slope, upstream, z > Word(0.0));
}

// For a slope above 0.
fn inverse(y: Word) -> Word {
    return select(y / params.slope, y, y > Word(0.0));
}
