// The word of the wide walk: four f32, one 16-byte access. All tensors of a dispatch must begin at
// the same place within a word.

alias Word = vec4<f32>;
alias WordU = vec4<u32>;
alias WordB = vec4<bool>;
const WORD_WIDTH: u32 = 4u;
const WORD_PLACES: WordU = vec4<u32>(0u, 1u, 2u, 3u);

fn word_at(word: Word, k: u32) -> f32 {
    return word[k];
}

fn word_sum(word: Word) -> f32 {
    return (word.x + word.y) + (word.z + word.w);
}

// The first component that the mask has.
fn first_in(mask: WordB, word: Word, otherwise: f32) -> f32 {
    let second_half = select(select(otherwise, word.w, mask.w), word.z, mask.z);
    return select(select(second_half, word.y, mask.y), word.x, mask.x);
}

// Whether the lowest bits are set.
fn word_of_bits(bits: u32) -> WordB {
    return (vec4<u32>(bits) & vec4<u32>(1u, 2u, 4u, 8u)) != vec4<u32>(0u);
}

fn word_count(mask: WordB) -> u32 {
    let ones = select(vec4<u32>(0u), vec4<u32>(1u), mask);
    return (ones.x + ones.y) + (ones.z + ones.w);
}
