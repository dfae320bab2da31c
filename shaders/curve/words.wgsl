// What a chunk adds to the gradient sums of curve/sums.wgsl, summed word by word. gamma is that of the slice, so it waits until the
// end of the chunk.

struct WordSums {
    dz: Word,
    dz_xhat: Word,
    dz_slope_x: Word,
    dz_slope: Word,
}

fn no_words() -> WordSums {
    return WordSums(Word(0.0), Word(0.0), Word(0.0), Word(0.0));
}

fn with_word(sums: WordSums, at: Cursor, x: Word, dz: Word, s: Statistics) -> WordSums {
    let counted = within(at, dz);
    let u = argument_of(at, x, s);
    let xhat = within(at, curve(u));
    let slope = within(at, curve_slope(u));
    // Far from 0 the slope vanishes, also against an infinite x.
    let slope_x = select(slope * x, Word(0.0), slope == Word(0.0));
    return WordSums(
        sums.dz + counted,
        fma(counted, xhat, sums.dz_xhat),
        fma(counted, slope_x, sums.dz_slope_x),
        fma(counted, slope, sums.dz_slope),
    );
}

fn sums_of_words(sums: WordSums, s: Statistics) -> GradientSums {
    return GradientSums(
        gathered(sums.dz),
        gathered(sums.dz_xhat),
        gathered(sums.dz_slope_x) * s.gamma,
        gathered(sums.dz_slope) * s.gamma,
    );
}
