// dx through the statistics of slices (lib/dx.wgsl, lib/dx_weighted.wgsl). The prologue folds the sums and writes dgamma and dbeta
// (fold/gradients.wgsl), or reads the means of slices (fold/means_of_slice.wgsl).
//
// Grid: walk/. Bindings: x, dy, residual, dx: tensor/. Overrides: WORKGROUP_SIZE, TEAM_SIZE, EDGES, STRIDED.
// Features: none, or those of lib/tree_subgroups.wgsl.

fn dx_at(at: Cursor, s: Statistics, mean: GradientSums) -> Word {
    let x = x_at(at);
    return dx_of(at, dz_of(at, x, s), xhat_of(at, x, s), s, mean);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn map_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let zero = workgroups.z - 1u;
    let tile = tile_of(workgroup, workgroups, lane);
    var s: array<Statistics, STRANDS>;
    var mean: array<GradientSums, STRANDS>;
    for (var strand = 0u; strand < STRANDS; strand += 1u) {
        s[strand] = slice_statistics(strand_tile(tile, strand), zero);
        mean[strand] = slice_means(strand_tile(tile, strand), zero, s[strand]);
    }
    var at = cursor_first(tile);
    while (at.index < tile.end) {
        var here = at;
        var t = s[0];
        for (var j = 0u; j < STRIP; j += 1u) {
            t = statistics_at(here, s[strand_of(j)], t, j);
            if (stores(here)) {
                store_dx(here, dx_at(here, t, mean[strand_of(j)]));
            }
            here = strip_next(at, here, j);
        }
        at = step_next(at, here);
    }
    if (EDGES) {
        for (var strand = 0u; strand < STRANDS; strand += 1u) {
            for (var edge = 0u; edge < 2u; edge += 1u) {
                let at = cursor_of_edge(strand_tile(tile, strand), edge);
                if (at.index < tile.end) {
                    store_part_dx(at, dx_at(at, statistics_at(at, s[strand], s[strand], 0u), mean[strand]));
                }
            }
        }
    }
}
