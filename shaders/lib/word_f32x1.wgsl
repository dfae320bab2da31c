// The word of the scalar walk: one f32. Serves every inner size and every element offset.

alias Word = f32;
const WORD_WIDTH: u32 = 1u;

fn word_first(word: Word) -> f32 {
    return word;
}

fn word_sum(word: Word) -> f32 {
    return word;
}
