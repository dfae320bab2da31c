// gamma and beta are constant along the walk: the fold has put them beside the statistics.

const OF_PLACE: bool = false;

fn gamma_at(at: Cursor, s: Statistics) -> Word {
    return spread(at, s.gamma);
}

fn beta_at(at: Cursor, s: Statistics) -> Word {
    return spread(at, s.beta);
}

fn scale_at(at: Cursor, s: Statistics) -> Word {
    return spread(at, s.inv_std * s.gamma);
}

// What enters the gradient sums: gamma is a factor of them all.
fn summand(at: Cursor, dz: Word, s: Statistics) -> Word {
    return dz;
}
