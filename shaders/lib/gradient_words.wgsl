// What a chunk adds to the gradient sums of lib/gradient_sums.wgsl, summed word by word.

struct WordSums {
    dz: Word,
    dz_xhat: Word,
}

fn no_words() -> WordSums {
    return WordSums(Word(0.0), Word(0.0));
}

fn with_word(sums: WordSums, at: Cursor, x: Word, dz: Word, s: Statistics) -> WordSums {
    let counted = within(at, summand(at, dz, s));
    let xhat = within(at, xhat_of(at, x, s));
    return WordSums(sums.dz + counted, fma(counted, xhat, sums.dz_xhat));
}

fn sums_of_words(sums: WordSums, s: Statistics) -> GradientSums {
    return GradientSums(gathered(sums.dz), gathered(sums.dz_xhat));
}
