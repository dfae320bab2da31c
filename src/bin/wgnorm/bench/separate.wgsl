// What is fused into the crate's kernels, as a pass of its own: a plain elementwise kernel, after the plain operation in a
// forward pass, before it in a backward pass. The second baseline of the benchmark; no part of the crate.
//
// Grid: a workgroup for every SIZE * WORDS words; neighbouring invocations take neighbouring words.

// Number of words.
@group(0) @binding(0) var<uniform> params: vec4<u32>;
// Normalized, then y.
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> residual: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> dz: array<vec4<f32>>;

const SIZE: u32 = 64;
const WORDS: u32 = 16;

// First word of an invocation, and the end of its workgroup's.
fn range(group: u32, local: u32) -> vec2<u32> {
    let begin = group * SIZE * WORDS;
    return vec2(begin + local, min(begin + SIZE * WORDS, params.x));
}

@compute @workgroup_size(SIZE)
fn add(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let words = range(group.x, local);
    for (var i = words.x; i < words.y; i += SIZE) {
        y[i] += residual[i];
    }
}

@compute @workgroup_size(SIZE)
fn relu(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let words = range(group.x, local);
    for (var i = words.x; i < words.y; i += SIZE) {
        y[i] = max(y[i], vec4<f32>());
    }
}

@compute @workgroup_size(SIZE)
fn add_relu(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let words = range(group.x, local);
    for (var i = words.x; i < words.y; i += SIZE) {
        y[i] = max(y[i] + residual[i], vec4<f32>());
    }
}

// dz where forward has stored y: the derivative is 1 where y is positive.
@compute @workgroup_size(SIZE)
fn relu_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let words = range(group.x, local);
    for (var i = words.x; i < words.y; i += SIZE) {
        dz[i] = select(vec4<f32>(), dy[i], y[i] > vec4<f32>());
    }
}

// d_residual where there is no activation.
@compute @workgroup_size(SIZE)
fn add_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let words = range(group.x, local);
    for (var i = words.x; i < words.y; i += SIZE) {
        dz[i] = dy[i];
    }
}
