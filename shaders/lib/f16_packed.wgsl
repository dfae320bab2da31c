// IEEE 754 binary16 by the built-in functions: for devices where a probe has found them to agree with lib/f16.wgsl
// (src/gpu/probe.rs).

fn widened_pair(halves: u32) -> vec2<f32> {
    return unpack2x16float(halves);
}

fn narrowed_pair(values: vec2<f32>) -> u32 {
    return pack2x16float(values);
}
