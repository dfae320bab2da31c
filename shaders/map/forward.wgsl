// y = act(x̂·gamma + beta + residual), x̂ = ((x − shift) − delta)·inv_std.
//
// Training and inference differ in where `slice_statistics` comes from (fold/batch.wgsl,
// fold/running.wgsl) and in nothing else. Where statistics vary along the walk, `statistics_at` has those of a word.
//
// Grid: walk/. Bindings: x, residual, y: tensor/. Overrides: WORKGROUP_SIZE, TEAM_SIZE, EDGES, STRIDED.
// Features: none, or those of lib/tree_subgroups.wgsl.

fn y_of(at: Cursor, s: Statistics) -> Word {
    return activate(z_of(at, x_at(at), s));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn map_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let zero = workgroups.z - 1u;
    let tile = tile_of(workgroup, workgroups, lane);
    var s: array<Statistics, STRANDS>;
    for (var strand = 0u; strand < STRANDS; strand += 1u) {
        s[strand] = slice_statistics(strand_tile(tile, strand), zero);
    }
    var at = cursor_first(tile);
    while (at.index < tile.end) {
        var here = at;
        var t = s[0];
        for (var j = 0u; j < STRIP; j += 1u) {
            t = statistics_at(here, s[strand_of(j)], t, j);
            if (stores(here)) {
                store_y(here, y_of(here, t));
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
                    store_part_y(at, y_of(at, statistics_at(at, s[strand], s[strand], 0u)));
                }
            }
        }
    }
}
