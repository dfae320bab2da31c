// Values of 2 bytes, four per word of 8 bytes. lib/f16.wgsl, lib/f16_packed.wgsl or lib/bf16.wgsl says what the bits mean.

alias Stored = vec2<u32>;

fn place(i: u32) -> u32 {
    return i;
}

fn widened(stored: Stored, i: u32) -> Word {
    return Word(widened_pair(stored.x), widened_pair(stored.y));
}

fn narrowed(word: Word) -> Stored {
    return Stored(narrowed_pair(word.xy), narrowed_pair(word.zw));
}

fn replaced(before: Stored, after: Stored, mask: WordB) -> Stored {
    let halves = select(vec4<u32>(0u), vec4<u32>(0xffffu, 0xffff0000u, 0xffffu, 0xffff0000u), mask);
    let bits = halves.xz | halves.yw;
    return (before & ~bits) | (after & bits);
}
