// bfloat16: the upper half of an f32.

fn widened_pair(halves: u32) -> vec2<f32> {
    return bitcast<vec2<f32>>(vec2<u32>(halves << 16u, halves & 0xffff0000u));
}

// To the nearest, ties to even; beyond the largest to infinity; NaN stays NaN.
fn narrowed_pair(values: vec2<f32>) -> u32 {
    let bits = bitcast<vec2<u32>>(values);
    let rounded = (bits + 0x7fffu + ((bits >> vec2<u32>(16u)) & vec2<u32>(1u))) >> vec2<u32>(16u);
    let is_nan = (bits & vec2<u32>(0x7fffffffu)) > vec2<u32>(0x7f800000u);
    let halves = select(rounded, (bits >> vec2<u32>(16u)) | vec2<u32>(0x40u), is_nan);
    return halves.x | (halves.y << 16u);
}
