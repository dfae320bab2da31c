// The word of the scalar walk: one f32. Serves every inner size and every element offset.

alias Word = f32;
alias WordU = u32;
alias WordB = bool;
const WORD_WIDTH: u32 = 1u;
const WORD_PLACES: WordU = 0u;

fn word_at(word: Word, k: u32) -> f32 {
    return word;
}

fn word_sum(word: Word) -> f32 {
    return word;
}

fn first_in(mask: WordB, word: Word, otherwise: f32) -> f32 {
    return select(otherwise, word, mask);
}

// Whether the lowest bit is set.
fn word_of_bits(bits: u32) -> WordB {
    return (bits & 1u) != 0u;
}

fn word_count(mask: WordB) -> u32 {
    return select(0u, 1u, mask);
}
