// A value of 16 bits per slice that is written or added to, `$NAME`, by one invocation each. The other half of its u32
// belongs to another invocation: each replaces its half by atomic operations.
//
// Bindings: $NAME: [slices], two in each u32.

@group(0) @binding($SLOT) var<storage, read_write> $NAME: array<atomic<u32>>;

fn put_$NAME(i: u32, value: f32, accumulate: bool) {
    let shift = (i & 1u) << 4u;
    var old = 0.0;
    if (accumulate) {
        old = widened_pair(atomicLoad(&$NAME[i >> 1u]) >> shift).x;
    }
    let half = narrowed_pair(vec2<f32>(old + value, 0.0)) & 0xffffu;
    atomicAnd(&$NAME[i >> 1u], ~(0xffffu << shift));
    atomicOr(&$NAME[i >> 1u], half << shift);
}
