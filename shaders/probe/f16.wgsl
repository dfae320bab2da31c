// Whether the built-in conversions of binary16 agree with those of lib/f16.wgsl: counts the values for which they do not.
//
// All 65536 halves are widened; narrowed are their values, the midpoints between neighbours and what is next to these on
// both sides, so that ties, overflow, subnormal numbers, infinities and NaN are among them.
//
// Grid: 65536 / WORKGROUP_SIZE workgroups, a half each. Bindings: differences: one counter.

override WORKGROUP_SIZE: u32 = 64u;

@group(0) @binding(0) var<storage, read_write> differences: atomic<u32>;

fn is_nan(bits: u32) -> bool {
    return (bits & 0x7fffffffu) > 0x7f800000u;
}

fn is_nan_half(half: u32) -> bool {
    return (half & 0x7fffu) > 0x7c00u;
}

fn narrows_alike(bits: u32) -> bool {
    let pair = vec2<f32>(bitcast<f32>(bits), bitcast<f32>(bits));
    let expected = narrowed_pair(pair);
    let got = pack2x16float(pair);
    if (is_nan(bits)) {
        return is_nan_half(got & 0xffffu) && is_nan_half(got >> 16u);
    }
    return got == expected;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn probe_f16(@builtin(global_invocation_id) id: vec3<u32>) {
    let half = id.x;
    let expected = bitcast<vec2<u32>>(widened_pair(half | (half << 16u)));
    let got = bitcast<vec2<u32>>(unpack2x16float(half | (half << 16u)));
    var same = all(got == expected);
    if (is_nan_half(half)) {
        same = is_nan(got.x) && is_nan(got.y);
    }
    // Infinities and NaN have no neighbour; nor has the largest, whose is where overflow begins.
    let next = bitcast<vec2<u32>>(widened_pair(half + 1u)).x;
    let magnitude = half & 0x7fffu;
    var middle = expected.x;
    if (magnitude < 0x7bffu) {
        middle = bitcast<u32>(0.5 * (bitcast<f32>(expected.x) + bitcast<f32>(next)));
    } else if (magnitude == 0x7bffu) {
        middle = expected.x + 0x1000u;
    }
    for (var i = 0u; i < 4u; i += 1u) {
        // The value itself, and the midpoint with its neighbours.
        let bits = select(middle + i - 2u, expected.x, i == 0u);
        same = same && narrows_alike(bits);
    }
    if (!same) {
        atomicAdd(&differences, 1u);
    }
}
