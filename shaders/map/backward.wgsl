// dx through batch statistics, in the x̂ form (collected coefficients like gamma·inv_std³ underflow
// for channels of large scale):
//
//   dx = gamma·inv_std·(dz − Σ dz / n − x̂·Σ dz·x̂ / n),        dz = dy·act'(z)
//
// The prologue folds the sums and writes dgamma and dbeta (fold/gradients.wgsl).
//
// Grid: walk/. Bindings: x, dy, residual, dx: tensor/. Overrides: WORKGROUP_SIZE, TEAM_SIZE, EDGES, STRIDED.
// Features: none.

fn dx_of(at: Cursor, s: Statistics, mean: GradientSums) -> Word {
    let x = x_at(at);
    let centred = dz_of(at, x, s) - spread(at, mean.dz);
    return fma(-xhat_of(at, x, s), spread(at, mean.dz_xhat), centred) * spread(at, s.gamma * s.inv_std);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn map_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let zero = workgroups.z - 1u;
    let tile = tile_of(workgroup, workgroups, lane);
    var s: array<Statistics, STRIP>;
    var mean: array<GradientSums, STRIP>;
    for (var j = 0u; j < STRIP; j += 1u) {
        s[j] = slice_statistics(strip_tile(tile, j), zero);
        let sums = fold_gradients_of(strip_tile(tile, j), zero);
        mean[j] = GradientSums(sums.dz / params.count, sums.dz_xhat / params.count);
    }
    for (var at = cursor_first(tile); at.index < tile.end; at = cursor_next(at)) {
        for (var j = 0u; j < STRIP; j += 1u) {
            let here = strip_cursor(at, j);
            if (stores(here)) {
                store_dx(here, dx_of(here, s[j], mean[j]));
            }
        }
    }
    if (EDGES) {
        for (var j = 0u; j < STRIP; j += 1u) {
            for (var edge = 0u; edge < 2u; edge += 1u) {
                let at = cursor_of_edge(strip_tile(tile, j), edge);
                if (at.index < tile.end) {
                    store_part_dx(at, dx_of(at, s[j], mean[j]));
                }
            }
        }
    }
}
