// A value of 16 bits per slice that is read, `$NAME`. Bindings: $NAME: [slices], two in each u32.

@group(0) @binding($SLOT) var<storage, $INPUT> $NAME: array<u32>;

fn $NAME_of(slice: u32) -> f32 {
    let i = params.$NAME_offset + slice;
    return widened_pair($NAME[i >> 1u] >> ((i & 1u) << 4u)).x;
}
