// The word of the scalar walk: one f32. Serves every inner size and every element offset.

alias Word = f32;
const WORD_WIDTH: u32 = 1u;

// The median of three values from the first words of a walk, so that one outlier is not taken.
fn word_median(first: Word, second: Word, third: Word) -> f32 {
    return max(min(first, second), min(max(first, second), third));
}

fn word_sum(word: Word) -> f32 {
    return word;
}
