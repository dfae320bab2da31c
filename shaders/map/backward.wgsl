// dx through batch statistics, in the x̂ form (collected coefficients like gamma·inv_std³ underflow
// for channels of large scale):
//
//   dx = gamma·inv_std·(dy − Σ dy / n − x̂·Σ dy·x̂ / n)
//
// The prologue folds the sums and writes dgamma and dbeta (fold/gradients.wgsl).
//
// Grid: lib/segments.wgsl. Bindings: x, dy, dx: any rank, walked as words. Overrides:
// WORKGROUP_SIZE. Features: none.

@group(0) @binding(1) var<storage, $INPUT> x: array<Word>;
@group(0) @binding(2) var<storage, $INPUT> dy: array<Word>;
@group(0) @binding(4) var<storage, read_write> dx: array<Word>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn map_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(workgroup, workgroups);
    let s = slice_statistics(tile, lane);
    let sums = fold_gradients_of(tile, lane);
    let mean_dy = Word(sums.dy / params.count);
    let mean_dy_xhat = Word(sums.dy_xhat / params.count);
    let scale = s.gamma * s.inv_std;
    for (var at = cursor_first(tile, lane); at.index < tile.end; at = cursor_next(at)) {
        let xhat = normalized(x[params.x_offset + at.word], s);
        let centred = dy[params.dy_offset + at.word] - mean_dy;
        dx[params.dx_offset + at.word] = fma(-xhat, mean_dy_xhat, centred) * scale;
    }
}
