// Values of 2 bytes, two in each u32, walked one by one. lib/f16.wgsl, lib/f16_packed.wgsl or lib/bf16.wgsl says what the
// bits mean.

alias Stored = u32;

fn place(i: u32) -> u32 {
    return i >> 1u;
}

fn half_shift(i: u32) -> u32 {
    return (i & 1u) << 4u;
}

fn half_mask(i: u32) -> u32 {
    return 0xffffu << half_shift(i);
}

fn widened(stored: Stored, i: u32) -> Word {
    return widened_pair(stored >> half_shift(i)).x;
}

// In the lower half.
fn narrowed(word: Word) -> Stored {
    return narrowed_pair(vec2<f32>(word, 0.0)) & 0xffffu;
}
