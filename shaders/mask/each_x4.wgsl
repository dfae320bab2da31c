// The bits of four positions: words of four values.

fn bits_at(positions: WordU) -> WordB {
    return vec4<u32>(
        mask_bit(positions.x),
        mask_bit(positions.y),
        mask_bit(positions.z),
        mask_bit(positions.w),
    ) != vec4<u32>(0u);
}
