// The word of the wide walk: four f32, one 16-byte access. Needs an inner size that is a multiple
// of four and tensors that start on a multiple of 16 bytes.

alias Word = vec4<f32>;
const WORD_WIDTH: u32 = 4u;

// The median of three values from the first words of a walk, so that one outlier is not taken.
fn word_median(first: Word, second: Word, third: Word) -> f32 {
    return max(min(first.x, first.y), min(max(first.x, first.y), first.z));
}

fn word_sum(word: Word) -> f32 {
    return (word.x + word.y) + (word.z + word.w);
}
