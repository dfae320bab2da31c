// The word of the wide walk: four f32, one 16-byte access. Needs an inner size that is a multiple
// of four and tensors that start on a multiple of 16 bytes.

alias Word = vec4<f32>;
const WORD_WIDTH: u32 = 4u;

fn word_first(word: Word) -> f32 {
    return word.x;
}

fn word_sum(word: Word) -> f32 {
    return (word.x + word.y) + (word.z + word.w);
}
