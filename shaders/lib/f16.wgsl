// IEEE 754 binary16 by integer arithmetic: the same everywhere. WGSL promises neither the rounding of pack2x16float nor
// what becomes of its subnormal numbers, infinities and NaN.

fn widened_pair(halves: u32) -> vec2<f32> {
    let h = vec2<u32>(halves & 0xffffu, halves >> 16u);
    let magnitude = h & vec2<u32>(0x7fffu);
    let exponent = h & vec2<u32>(0x7c00u);
    // 112 is the difference of the exponents' biases.
    let normal = (magnitude << vec2<u32>(13u)) + (112u << 23u);
    let subnormal = bitcast<vec2<u32>>(vec2<f32>(magnitude) * 0x1p-24);
    let special = (magnitude << vec2<u32>(13u)) | vec2<u32>(0x7f800000u);
    let small = select(normal, subnormal, exponent == vec2<u32>(0u));
    let bits = select(small, special, exponent == vec2<u32>(0x7c00u));
    return bitcast<vec2<f32>>(bits | ((h & vec2<u32>(0x8000u)) << vec2<u32>(16u)));
}

// To the nearest, ties to even; beyond the largest to infinity; NaN stays NaN.
fn narrowed_pair(values: vec2<f32>) -> u32 {
    let bits = bitcast<vec2<u32>>(values);
    let magnitude = bits & vec2<u32>(0x7fffffffu);
    let odd = (magnitude >> vec2<u32>(13u)) & vec2<u32>(1u);
    let normal = (magnitude + 0xfffu + odd - (112u << 23u)) >> vec2<u32>(13u);
    // Below 2^-14: adding 0.5, whose last place is the smallest binary16, rounds to a multiple of it.
    let subnormal = bitcast<vec2<u32>>(bitcast<vec2<f32>>(magnitude) + 0.5) - vec2<u32>(0x3f000000u);
    let finite = select(normal, subnormal, magnitude < vec2<u32>(0x38800000u));
    // From 65520 on, half a step above the largest.
    let bounded = select(finite, vec2<u32>(0x7c00u), magnitude >= vec2<u32>(0x477ff000u));
    let h = select(bounded, vec2<u32>(0x7e00u), magnitude > vec2<u32>(0x7f800000u));
    let signed = h | ((bits >> vec2<u32>(16u)) & vec2<u32>(0x8000u));
    return signed.x | (signed.y << 16u);
}
