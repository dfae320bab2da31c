// Where some positions do not count: a bit for each position of each sample, the same for all channels.
//
// Masked values enter neither moments nor gradient sums, their dz and dx are 0; always by selection, so that it does not matter
// what they are. How the bits of a word are found is the walk's: mask/of_run.wgsl, mask/of_row.wgsl, mask/of_element.wgsl.
//
// Bindings: mask: bits, the lowest of a word first, after a word that is never looked at for its value.

const MASKED: bool = true;

@group(0) @binding(18) var<storage, read> mask: array<u32>;

// 32 bits of the mask, as far as it has them.
fn mask_word(i: u32) -> u32 {
    return mask[min(i, arrayLength(&mask) - 1u)];
}

fn mask_bit(position: u32) -> u32 {
    return (mask_word(position / 32u) >> (position % 32u)) & 1u;
}

// Four bits or more, from a position on.
fn mask_bits(first: u32) -> u32 {
    let within_word = first % 32u;
    let low = mask_word(first / 32u) >> within_word;
    let high = mask_word(first / 32u + 1u) << ((32u - within_word) % 32u);
    return low | select(high, 0u, within_word == 0u);
}

// The word with 0 in place of what does not count.
fn kept(at: Cursor, word: Word) -> Word {
    return select(Word(0.0), word, unmasked(at));
}
