// The gradients of x and of the residual: dx (map/dx.wgsl) and d_residual (map/d_residual.wgsl), either of which may not be asked for.
//
// `dx_statistics` has what dx subtracts, too: through batch statistics the means of sums that the prologue folds and writes as dgamma and dbeta
// (fold/means_of_gradients.wgsl); else nothing is left to fold (fold/no_means.wgsl).
//
// Grid: walk/. Bindings: x, where dx or an activation depends on it, dy, residual: tensor/. Overrides: WORKGROUP_SIZE, TEAM_SIZE, EDGES,
// STRIDED. Features: none, or those of lib/tree_subgroups.wgsl.

@compute @workgroup_size(WORKGROUP_SIZE)
fn map_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let zero = workgroups.z - 1u;
    let tile = tile_of(workgroup, workgroups, lane);
    var s: array<Statistics, STRANDS>;
    for (var strand = 0u; strand < STRANDS; strand += 1u) {
        s[strand] = dx_statistics(strand_tile(tile, strand), zero);
    }
    var at = cursor_first(tile);
    while (at.index < tile.end) {
        var here = at;
        var t = s[0];
        for (var j = 0u; j < STRIP; j += 1u) {
            t = statistics_at(here, s[strand_of(j)], t, j);
            if (stores(here)) {
                let x = x_at(here);
                let dz = dz_of(here, x, t);
                emit_d_residual(here, dz);
                emit_dx(here, x, dz, t);
            }
            here = strip_next(at, here, j);
        }
        at = step_next(at, here);
    }
    for (var strand = 0u; strand < STRANDS; strand += 1u) {
        emit_d_residual_edges(strand_tile(tile, strand), s[strand]);
        emit_dx_edges(strand_tile(tile, strand), s[strand]);
    }
}
