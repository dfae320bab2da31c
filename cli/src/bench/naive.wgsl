// The plain kernel that a competent engineer writes first: one workgroup of 64 invocations per channel, everything in
// one dispatch. The baseline of the benchmark; no part of the crate.
//
// `Word`, `total` and `first` are put in front: f32, or vec4<f32> where a run is a multiple of four.
//
// Grid: one workgroup per channel. The invocations of a workgroup lie in `rows` rows of `lanes` (rows * lanes = 64):
// a row takes every rows-th sample, a lane every lanes-th word of its run.

struct Params {
    samples: u32,
    channels: u32,
    // Words of a run: of one sample's values of one channel.
    words: u32,
    lanes: u32,
    count: f32,
    eps: f32,
    // Weight of the new value in the running statistics.
    momentum: f32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Word>;
@group(0) @binding(2) var<storage, read> dy: array<Word>;
// y or dx.
@group(0) @binding(3) var<storage, read_write> result: array<Word>;
@group(0) @binding(4) var<storage, read> gamma: array<f32>;
@group(0) @binding(5) var<storage, read> beta: array<f32>;
// Mean and inv_std of the batch.
@group(0) @binding(6) var<storage, read_write> saved: array<vec2<f32>>;
// Running mean and variance.
@group(0) @binding(7) var<storage, read_write> running: array<vec2<f32>>;
// dgamma and dbeta.
@group(0) @binding(8) var<storage, read_write> gradients: array<vec2<f32>>;

const SIZE: u32 = 64;

var<workgroup> tree: array<vec2<f32>, SIZE>;

// The sum over the workgroup, for all of it.
fn sum(local: u32, value: vec2<f32>) -> vec2<f32> {
    tree[local] = value;
    for (var half = SIZE / 2; half > 0; half /= 2) {
        workgroupBarrier();
        if local < half {
            tree[local] += tree[local + half];
        }
    }
    workgroupBarrier();
    return tree[0];
}

// Normalizes with y = x * scale + offset.
fn normalize(c: u32, local: u32, mean: f32, inv_std: f32) {
    let scale = inv_std * gamma[c];
    let offset = beta[c] - mean * scale;
    let lane = local % params.lanes;
    for (var n = local / params.lanes; n < params.samples; n += SIZE / params.lanes) {
        let run = (n * params.channels + c) * params.words;
        for (var i = run + lane; i < run + params.words; i += params.lanes) {
            result[i] = x[i] * scale + offset;
        }
    }
}

@compute @workgroup_size(SIZE)
fn train_forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let c = group.x;
    // About the channel's first value, or large means would cancel the variance.
    let shift = first(x[c * params.words]);
    var s1 = Word();
    var s2 = Word();
    let lane = local % params.lanes;
    for (var n = local / params.lanes; n < params.samples; n += SIZE / params.lanes) {
        let run = (n * params.channels + c) * params.words;
        for (var i = run + lane; i < run + params.words; i += params.lanes) {
            let d = x[i] - shift;
            s1 += d;
            s2 += d * d;
        }
    }
    let sums = sum(local, vec2(total(s1), total(s2))) / params.count;
    let mean = shift + sums.x;
    let variance = sums.y - sums.x * sums.x;
    let inv_std = inverseSqrt(variance + params.eps);
    if local == 0 {
        saved[c] = vec2(mean, inv_std);
        let unbiased = variance * params.count / max(params.count - 1, 1);
        running[c] = mix(running[c], vec2(mean, unbiased), params.momentum);
    }
    normalize(c, local, mean, inv_std);
}

@compute @workgroup_size(SIZE)
fn inference(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let c = group.x;
    normalize(c, local, running[c].x, inverseSqrt(running[c].y + params.eps));
}

@compute @workgroup_size(SIZE)
fn train_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let c = group.x;
    let mean = saved[c].x;
    let inv_std = saved[c].y;
    var s1 = Word();
    var s2 = Word();
    let lane = local % params.lanes;
    let row = local / params.lanes;
    let rows = SIZE / params.lanes;
    for (var n = row; n < params.samples; n += rows) {
        let run = (n * params.channels + c) * params.words;
        for (var i = run + lane; i < run + params.words; i += params.lanes) {
            s1 += dy[i];
            s2 += dy[i] * (x[i] - mean);
        }
    }
    // Sums of dy and of dy * x_hat.
    let sums = sum(local, vec2(total(s1), total(s2))) * vec2(1, inv_std);
    if local == 0 {
        gradients[c] = sums.yx;
    }
    let scale = gamma[c] * inv_std;
    let mean_dy = sums.x / params.count;
    let slope = inv_std * sums.y / params.count;
    for (var n = row; n < params.samples; n += rows) {
        let run = (n * params.channels + c) * params.words;
        for (var i = run + lane; i < run + params.words; i += params.lanes) {
            result[i] = scale * (dy[i] - mean_dy - (x[i] - mean) * slope);
        }
    }
}

@compute @workgroup_size(SIZE)
fn frozen_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let c = group.x;
    let mean = running[c].x;
    let inv_std = inverseSqrt(running[c].y + params.eps);
    let scale = gamma[c] * inv_std;
    var s1 = Word();
    var s2 = Word();
    let lane = local % params.lanes;
    for (var n = local / params.lanes; n < params.samples; n += SIZE / params.lanes) {
        let run = (n * params.channels + c) * params.words;
        for (var i = run + lane; i < run + params.words; i += params.lanes) {
            s1 += dy[i];
            s2 += dy[i] * (x[i] - mean);
            result[i] = dy[i] * scale;
        }
    }
    let sums = sum(local, vec2(total(s1), total(s2)));
    if local == 0 {
        gradients[c] = vec2(sums.y * inv_std, sums.x);
    }
}
