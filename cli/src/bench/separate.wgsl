// What is fused into the crate's kernels, as a pass of its own: a plain elementwise kernel, after the plain operation in a
// forward pass, before it in a backward pass. The second baseline of the benchmark; no part of the crate.
//
// Grid: an invocation for every word, in as many rows of workgroups as it takes.

// Number of words.
@group(0) @binding(0) var<uniform> params: vec4<u32>;
// Normalized, then y.
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> residual: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> dz: array<vec4<f32>>;

const SIZE: u32 = 64;

struct Invocation {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
}

fn word(at: Invocation) -> u32 {
    return (at.group.y * at.groups.x + at.group.x) * SIZE + at.local;
}

@compute @workgroup_size(SIZE)
fn add(at: Invocation) {
    let i = word(at);
    if i < params.x {
        y[i] += residual[i];
    }
}

@compute @workgroup_size(SIZE)
fn relu(at: Invocation) {
    let i = word(at);
    if i < params.x {
        y[i] = max(y[i], vec4<f32>());
    }
}

@compute @workgroup_size(SIZE)
fn add_relu(at: Invocation) {
    let i = word(at);
    if i < params.x {
        y[i] = max(y[i] + residual[i], vec4<f32>());
    }
}

// dz where forward has stored y: the derivative is 1 where y is positive.
@compute @workgroup_size(SIZE)
fn relu_backward(at: Invocation) {
    let i = word(at);
    if i < params.x {
        dz[i] = select(vec4<f32>(), dy[i], y[i] > vec4<f32>());
    }
}

// d_residual where there is no activation.
@compute @workgroup_size(SIZE)
fn add_backward(at: Invocation) {
    let i = word(at);
    if i < params.x {
        dz[i] = dy[i];
    }
}
